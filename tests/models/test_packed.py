"""A token through all blocks in one compiled call: the values of plain operations, the same in whatever company."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rollout.tiny_policies import policy
from safeladder import kernels
from safeladder.models import packed
from safeladder.rollout.local import LocalEngine

pytestmark = pytest.mark.skipif(kernels.status() != "compiled", reason=f"no compiled passes: {kernels.status()}")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request, monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    monkeypatch.setattr(kernels, "_SERIAL_BELOW", 0)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("out", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("depth", [1, 8, 33])
def test_products_of_few_rows(threads, out, depth):
    weight, bias = random(out, depth), random(out, seed=1)
    found = packed.pack(weight)
    assert found is not None
    for rows in (0, 1, 5, 6, 7, 13):
        x = random(rows, depth, seed=rows)
        expected = F.linear(x.double(), weight.double(), bias.double()).float()
        torch.testing.assert_close(found.project(x, bias), expected, atol=1e-5, rtol=1e-5)


def test_a_product_by_hand():
    found = packed.pack(torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, -1.0]]))
    assert found is not None
    # 1·10 + 2·100 + 1 = 211, 3·10 + 4·100 + 2 = 432, -100 + 3 = -97
    assert found.project(torch.tensor([[10.0, 100.0]]), torch.tensor([1.0, 2.0, 3.0])).tolist() == [[211, 432, -97]]


def test_what_is_not_packed(monkeypatch):
    assert packed.pack(random(4, 4).double()) is None
    assert packed.pack(random(4, 6)[:, ::2]) is None
    monkeypatch.setattr(packed, "_LARGEST", 15)
    assert packed.pack(random(4, 4)) is None


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl", "llama"])
@pytest.mark.parametrize("rows", [1, 7, 101])
@pytest.mark.parametrize("hidden", [False, True], ids=["all seen", "some hidden"])
def test_a_step_is_the_blocks_one_after_the_other(name, rows, hidden, threads):
    """Biases, norms that are not neutral, grouped heads; a cache that is a view of a larger one."""
    decoder = LocalEngine(policy(name)).decoder
    place, capacity = 5, 9
    angle = random(rows, 1, decoder.head_dim // 2).repeat(1, 1, 2)
    x, cos, sin = random(rows, 1, decoder.hidden_size, seed=1), angle.cos(), angle.sin()
    mask = None
    if hidden:
        mask = torch.rand(rows, 1, 1, place + 1, generator=torch.Generator().manual_seed(2)) < 0.6
        mask[..., place] = True

    def filled():
        whole = decoder.new_cache(rows + 1, capacity + 2)
        for i, store in enumerate((*whole.keys, *whole.values)):
            store.copy_(random(*store.shape, seed=10 + i))
        whole.keys, whole.values = ([t[:rows, :, 2:] for t in store] for store in (whole.keys, whole.values))
        whole.length = place
        return whole

    ours, plain = filled(), filled()
    found = decoder.forward(x, cos, sin, ours, mask)
    steering = decoder.forward(x, cos, sin, plain, mask, lambda layer, update: update)  # runs layer by layer
    torch.testing.assert_close(found, steering, atol=2e-5, rtol=2e-4)
    assert ours.length == plain.length == place + 1
    for a, b in zip((*ours.keys, *ours.values), (*plain.keys, *plain.values), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-4)
    with torch.inference_mode():
        alone = filled()
        alone.keys, alone.values = ([t[-1:] for t in store] for store in (alone.keys, alone.values))
        last = decoder.forward(x[-1:], cos[-1:], sin[-1:], alone, None if mask is None else mask[-1:])
        assert torch.equal(last, found[-1:]), "a row's values do not depend on its company"


def test_the_blocks_as_plain_operations():
    """The same against operations in float64, from the weights themselves."""
    decoder = LocalEngine(policy("qwen2_5_vl")).decoder
    heads, kv, size = decoder.heads, decoder.kv_heads, decoder.head_dim
    x = random(2, 1, decoder.hidden_size, seed=1)
    angle = random(2, 1, size // 2).repeat(1, 1, 2)
    found = decoder.forward(x, angle.cos(), angle.sin(), decoder.new_cache(2, 3), None)[:, 0]

    def normed(t: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(t, (t.shape[-1],), weight.double(), decoder.eps)

    h = x[:, 0].double()
    for layer in decoder.layers:
        bias = None if layer.qkv_bias is None else layer.qkv_bias.double()
        qkv = F.linear(normed(h, layer.attention_norm), layer.qkv.double(), bias).view(2, -1, size)
        # Alone in its row a token sees itself only: attention gives its own value to every head of the group.
        value = qkv[:, heads + kv :].repeat_interleave(heads // kv, dim=1).flatten(1)
        h = h + value @ layer.output.double().T
        gate, up = F.linear(normed(h, layer.mlp_norm), layer.gate_up.double()).chunk(2, dim=1)
        h = h + (F.silu(gate) * up) @ layer.down.double().T
    torch.testing.assert_close(found, normed(h, decoder.norm).float(), atol=2e-5, rtol=2e-4)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=200),
    st.floats(0, 1, exclude_max=True, width=32),
    st.data(),
)
def test_a_token_is_drawn_where_the_running_sum_passes(logits, uniform, data):
    row = torch.tensor([logits])
    forbidden = data.draw(st.sets(st.integers(0, len(logits) - 1), max_size=len(logits) - 1))
    row[0, list(forbidden)] = -1e9
    wide = torch.log_softmax(row.double(), dim=1)
    drawn = kernels.draw(row.clone(), torch.tensor([uniform]))
    assert drawn is not None
    (token,), logp = drawn[0].tolist(), drawn[1]
    torch.testing.assert_close(logp, wide.float(), atol=1e-5, rtol=1e-5)
    assert token not in forbidden
    below = wide.exp().cumsum(1)[0]
    assert below[token] >= uniform - 1e-4
    assert token == 0 or below[token - 1] <= uniform + 1e-4
    greedy = kernels.draw(row.clone(), torch.tensor([-1.0]))
    assert greedy is not None and row[0, greedy[0]] == row.max()


def test_the_last_number_below_one_draws_a_token_that_may_be(threads):
    """Rounding leaves a rest after the last possible token; what follows it is forbidden."""
    logits = torch.full((40, 300), -1e9)
    logits[:, :70] = random(40, 70)
    drawn = kernels.draw(logits, torch.full((40,), 1 - 2**-24))
    assert drawn is not None and int(drawn[0].max()) < 70
