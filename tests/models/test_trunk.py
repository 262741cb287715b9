"""The fused training pass gives the values and gradients of the model's own modules."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.conftest import FAMILY_NAMES, ask, picture
from safeladder import kernels
from safeladder.models import trunk
from safeladder.models.families import family_of
from safeladder.models.lora import add_lora
from safeladder.models.policy import Policy
from safeladder.models.trunk import Layout
from safeladder.training.batching import Row, TrainingResponse, collate

SIZES = {
    "one response each": [[5], [9], [1]],
    "shared prompts": [[5, 1, 7], [9], [2, 2]],
    "a prompt without an answer to share": [[3, 3, 3, 3]],
}


@contextmanager
def modules_only():
    fused, trunk.supports = trunk.supports, lambda *_: False
    try:
        yield
    finally:
        trunk.supports = fused


@pytest.fixture(scope="module")
def policies(build):
    """Every parameter random, so that a forgotten bias or norm weight shows."""
    made = {}
    for name in FAMILY_NAMES:
        model, processor = build(name, seed=3)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise, alpha=0.3 if parameter.ndim == 1 else 0.1)
        made[name] = Policy(model, processor, family_of(name))
    return made


def batch_of(policy, sizes):
    generator = torch.Generator().manual_seed(11)
    rows = []
    for number, responses in enumerate(sizes):
        words = "how many red circles " * (number + 1)
        content = (picture(seed=number), words) if policy.family.supports_images and number != 1 else (words,)
        rows.append(
            Row(
                prompt=policy.prompt(ask(*content, id=f"s{number}")),
                responses=tuple(
                    TrainingResponse(
                        token_ids=torch.randint(20, 200, (n,), generator=generator).tolist(),
                        mask=[1] * (n - 1) + [int(n < 7)],
                    )
                    for n in responses
                ),
            )
        )
    return collate(rows, pad_id=policy.pad_token_id).batch


def outcome(policy, batch, temperature):
    policy.train()
    policy.zero_grad()
    outputs = policy(batch, temperature)
    weights = torch.linspace(-1, 1, outputs.logprobs.numel()).view_as(outputs.logprobs)
    (outputs.logprobs * weights).sum().backward()
    gradients = {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}
    return outputs.logprobs.detach(), outputs.entropy, gradients


@pytest.mark.parametrize("passes", ["compiled", "torch"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_values_and_gradients_equal_the_modules(policies, monkeypatch, name, sizes, temperature, passes):
    if passes == "torch":
        monkeypatch.setattr(kernels, "_load", lambda: (None, "off"))
    elif kernels.status() != "compiled":
        pytest.skip(f"no compiled passes: {kernels.status()}")
    policy = policies[name]
    batch = batch_of(policy, sizes)
    assert trunk.supports(policy.family.text_model(policy.model), policy.family.lm_head(policy.model))
    logprobs, entropy, gradients = outcome(policy, batch, temperature)
    with modules_only():
        expected_logprobs, expected_entropy, expected = outcome(policy, batch, temperature)
    torch.testing.assert_close(logprobs, expected_logprobs, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, expected_entropy, atol=2e-5, rtol=1e-5)
    assert gradients.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(gradients[key], value, atol=2e-5 * float(value.abs().max()) + 1e-7, rtol=1e-4)


def test_a_frozen_part_gets_no_gradient(policies):
    policy = policies["llama"]
    frozen = policy.family.text_model(policy.model).layers[0].mlp.up_proj.weight
    frozen.requires_grad_(False)
    try:
        _, _, gradients = outcome(policy, batch_of(policy, [[4, 2]]), 1.0)
    finally:
        frozen.requires_grad_(True)
    assert not any("layers.0.mlp.up_proj" in name for name in gradients)
    assert any("layers.0.mlp.gate_proj" in name for name in gradients)


@pytest.mark.parametrize("wanted", [None, [0, 3, 4, 10]], ids=["all", "some"])
def test_gradients_against_finite_differences(wanted):
    """In float64, where finite differences are exact enough to see a wrong factor."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    layout = Layout(length=7, prompts=(2, 3), responses=((2, 3), (1,)))
    shape = trunk._Shape(heads=2, kv_heads=1, dimension=4, eps=1e-5)
    angles = torch.linspace(0, 3, 11 * 2, dtype=torch.float64).view(11, 2)
    turn = torch.polar(torch.ones_like(angles), angles)
    tensors = (random(8), random(16, 8), random(16), random(8, 8), random(8), random(12, 8), random(8, 6))
    some = None if wanted is None else torch.tensor(wanted)
    assert torch.autograd.gradcheck(
        lambda x, *weights: trunk._Layer.apply(x, turn, layout, shape, some, *weights),
        (random(11, 8), *tensors),
        nondet_tol=1e-12,
    )
    bias = torch.zeros(9, dtype=torch.float64)
    bias[4] = -1e9
    targets = torch.tensor([0, 3, 8, 3, 1])
    assert torch.autograd.gradcheck(
        lambda x, norm, head: trunk.token_logprobs(x, norm, head, bias, targets, temperature=0.7, eps=1e-5)[0],
        (random(5, 8), random(8), random(9, 8)),
    )


def test_log_probabilities_of_unlikely_and_forbidden_tokens_by_hand():
    """Logits 200, 0 and a forbidden third: log-probabilities 0 and -200, entropy 0, nothing infinite."""
    logprobs, entropy = trunk.token_logprobs(
        torch.tensor([[1.0, 1.0]]).expand(2, 2),
        torch.ones(2),
        torch.tensor([[100.0, 100.0], [0.0, 0.0], [50.0, 50.0]]),
        torch.tensor([0.0, 0.0, -1e9]),
        torch.tensor([0, 1]),
        temperature=1.0,
        eps=0.0,
    )
    torch.testing.assert_close(logprobs, torch.tensor([0.0, -200.0]))
    assert entropy.tolist() == [0.0, 0.0]


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 5), st.lists(st.integers(1, 4), min_size=1, max_size=3)), min_size=1, max_size=4
    )
)
@settings(max_examples=60, deadline=None)
def test_attention_blocks_see_what_the_mask_shows(rows):
    length = max(p + sum(r) for p, r in rows)
    layout = Layout(length=length, prompts=tuple(p for p, _ in rows), responses=tuple(tuple(r) for _, r in rows))
    seen = torch.zeros(len(layout.tokens), len(layout.tokens), dtype=torch.bool)
    for block in layout.blocks:
        for r, t in block.real.nonzero().tolist():
            visible = torch.arange(block.keys.shape[1]) <= t if block.bias is None else block.bias[r, 0, t] == 0
            seen[block.queries[r, t], block.keys[r][visible]] = True
    row = layout.tokens // length
    place = layout.tokens % length
    expected = torch.stack(
        [layout.mask[b, 0, s][place] & (row == b) for b, s in zip(row.tolist(), place.tolist(), strict=True)]
    )
    assert torch.equal(seen, expected)
    rows_seen = torch.zeros_like(seen)
    for start, size, before, context in layout.spans.tolist():
        for t in range(size):
            rows_seen[start + t, start : start + t + 1] = True
            rows_seen[start + t, before : before + context] = True
    assert torch.equal(rows_seen, expected)
    assert torch.equal(layout.packed[layout.tokens], torch.arange(len(layout.tokens)))


def test_where_the_modules_must_run(build):
    model, _ = build("qwen2_5_vl")
    family = family_of("qwen2_5_vl")

    def supported(net):
        return trunk.supports(family.text_model(net), family.lm_head(net))

    assert supported(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not supported(model)
    handle = family.text_model(model).layers[1].register_forward_hook(lambda *_: None)
    assert not supported(model)
    handle.remove()
    assert supported(model)
    model.gradient_checkpointing_enable()
    assert not supported(model)
    model.gradient_checkpointing_disable()
    assert not supported(add_lora(build("qwen2_5_vl")[0], family, 2, 4))
    assert not supported(build("qwen2_5_vl")[0].to(torch.bfloat16))
