"""One step is one step: whatever the micro-batches, with the norm of all parameters, and never on a NaN."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from safeladder.algorithms.losses import LossOutput
from safeladder.training.checkpoint import load_state, save_state
from safeladder.training.parallel import Parallel, Replicated
from safeladder.types import SafeladderError
from training.tiny_runs import assert_close, gradient, learner_of, policy, preset, questions, rows, sft

LOSSES = {
    "sft": sft,
    **{name: preset(name) for name in ("cpgd", "cpgd-released", "grpo", "gspo", "cale")},
    "dr-grpo": preset("dr-grpo", max_length=8),
}


def micro_count(learner, made) -> int:
    return len(learner._micro_batches(made))


def splits(learned, made) -> dict[int, int]:
    """Number of micro-batches -> a token budget that gives it."""
    found: dict[int, int] = {}
    for tokens in range(20, 3000, 7):
        count = micro_count(learner_of(learned, tokens=tokens), made)
        found.setdefault(count, tokens)
    return found


@pytest.mark.parametrize("name", LOSSES)
def test_B10_one_two_or_four_micro_batches_give_the_same_gradient(name):
    learned = policy("qwen2_5_vl")
    made = rows(learned, questions("qwen2_5_vl"))
    budgets = splits(learned, made)
    gradients, metrics = {}, {}
    for count in (1, 2, 4):
        learner = learner_of(learned, tokens=budgets[count], rate=1e-30)
        metrics[count] = learner.step(made, LOSSES[name])
        gradients[count] = gradient(learned)
    assert float(gradients[1].abs().max()) > 1e-3
    for count in (2, 4):
        assert_close(gradients[count], gradients[1])
        for key in ("loss", "entropy", "logprob_gap", "counted_tokens"):
            assert metrics[count][key] == pytest.approx(metrics[1][key], abs=1e-5)
    assert metrics[1]["counted_tokens"] == sum(r.counted for r in made)


@pytest.mark.parametrize("name", ["sft", "cpgd"])
def test_the_step_does_not_depend_on_the_micro_batches(name):
    found = []
    for tokens in (60, 10_000):
        learned = policy("qwen2_5_vl")
        learner = learner_of(learned, tokens=tokens, clip=1.0)
        made = rows(learned, questions("qwen2_5_vl"))
        for _ in range(2):
            learner.step(made, LOSSES[name])
        found.append(torch.cat([p.detach().flatten() for p in learned.parameters()]))
    assert_close(*found)


def test_the_mean_is_over_tokens_and_not_over_rows():
    """B06: with responses of 2 and 8 tokens a token counts the same in both."""
    learned = policy("llama")
    made = rows(learned, questions("llama"), responses=2)
    whole = learner_of(learned, rate=1e-30).step(made, sft)["loss"]
    parts = [(learner_of(learned, rate=1e-30).step([r], sft)["loss"], r.counted) for r in made]
    assert whole == pytest.approx(sum(loss * n for loss, n in parts) / sum(n for _, n in parts), abs=1e-5)


def test_B11_the_clip_is_by_the_norm_over_all_parameters():
    """Equal to torch's clip_grad_norm_ over every parameter at once, for a norm above and below the bound."""
    for bound in (0.5, 1e6):
        learned = policy("qwen2_5_vl")
        made = rows(learned, questions("qwen2_5_vl"))
        learner_of(learned, rate=1e-30).step(made, sft)
        reference = copy.deepcopy(learned)
        for mine, other in zip(learned.parameters(), reference.parameters(), strict=True):
            other.grad = None if mine.grad is None else mine.grad.clone()
        norm = nn.utils.clip_grad_norm_(reference.parameters(), bound)
        found = learner_of(learned, clip=bound, rate=1e-30).step(made, sft)
        assert found["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
        assert float(norm) > 0.5
        assert_close(gradient(learned), gradient(reference))
        assert float(gradient(learned).norm()) == pytest.approx(min(bound, float(norm)), rel=1e-4)


def test_the_update_is_that_of_adamw_by_torch():
    learned = policy("llama")
    made = rows(learned, questions("llama"))
    reference = copy.deepcopy(learned)
    learner = learner_of(learned, clip=1.0)
    decayed = [p for p in reference.parameters() if p.ndim >= 2]
    plain = [p for p in reference.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=1e-4,
        betas=(0.9, 0.95),
    )
    for _ in range(3):
        learner_of(reference, clip=1e9, rate=1e-30).step(made, sft)  # fills the gradients
        nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.step()
        learner.step(made, sft)
    for (name, mine), other in zip(learned.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6), name


def test_frozen_parameters_stay_and_have_no_gradient():
    learned = policy("qwen2_5_vl")
    vision = learned.family.vision_module(learned.model)
    vision.requires_grad_(False)
    before = copy.deepcopy(vision.state_dict())
    learner_of(learned).step(rows(learned, questions("qwen2_5_vl")), sft)
    assert all(torch.equal(before[k], v) for k, v in vision.state_dict().items())
    assert all(p.grad is None for p in vision.parameters())


def broken(outputs, micro, counted, responses) -> LossOutput:
    result = sft(outputs, micro, counted, responses)
    return LossOutput(loss=result.loss * math.nan, metrics=result.metrics)


def exploding(outputs, micro, counted, responses) -> LossOutput:
    """A finite loss whose gradient is not: the square root at zero."""
    result = sft(outputs, micro, counted, responses)
    return LossOutput(loss=result.loss + (outputs.logprobs * 0).sum().abs().sqrt(), metrics=result.metrics)


@pytest.mark.parametrize("loss", [broken, exploding])
def test_a_step_that_is_not_finite_is_skipped_and_counted(loss):
    learned = policy("llama")
    learner = learner_of(learned)
    made = rows(learned, questions("llama"))
    assert learner.step(made, sft)["skipped_nonfinite"] == 0.0
    before = {k: v.clone() for k, v in learned.state_dict().items()}
    for _ in range(2):
        assert learner.step(made, loss)["skipped_nonfinite"] == 1.0
    assert all(torch.equal(before[k], v) for k, v in learned.state_dict().items())
    assert learner.step(made, sft)["skipped_nonfinite"] == 0.0, "the next good step trains on"
    assert any(not torch.equal(before[k], v) for k, v in learned.state_dict().items())
    assert all(v.isfinite().all() for v in learned.parameters())
    for _ in range(2):
        learner.step(made, loss)
    with pytest.raises(SafeladderError, match=r"not finite for 3 steps in a row \(step 6\)"):
        learner.step(made, loss)


def test_a_batch_without_counted_tokens_changes_nothing():
    learned = policy("llama")
    learner = learner_of(learned)
    before = {k: v.clone() for k, v in learned.state_dict().items()}
    metrics = learner.step([], sft)
    assert (metrics["counted_tokens"], metrics["skipped_nonfinite"], learner.steps_done) == (0, 0.0, 1)
    assert all(torch.equal(before[k], v) for k, v in learned.state_dict().items())


def test_learning_rate_warms_up_and_is_a_metric():
    learned = policy("llama")
    learner = learner_of(learned, rate=1e-3)
    learner.config = learner.config.model_copy(update={"warmup_steps": 4, "schedule": "linear", "minimum_ratio": 0.0})
    made = rows(learned, questions("llama"))
    rates = [learner.step(made, sft)["learning_rate"] for _ in range(10)]
    assert rates[:4] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3])
    assert rates[4:] == pytest.approx([1e-3 * (6 - k) / 6 for k in range(6)])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_state_continues_bit_by_bit(tmp_path, optimizer):
    """Stopped after two steps, stored, loaded into a fresh learner: the third step gives the same bits."""

    def make():
        learned = policy("qwen2_5_vl")
        backend = Replicated(learned, Parallel())
        learner = learner_of(learned, backend, rate=1e-3, clip=1.0)
        config = learner.config.model_copy(update={"name": optimizer, "warmup_steps": 2})
        from safeladder.training.learner import Learner

        return learned, backend, Learner(learned, backend, config, total_steps=9, micro_batch_tokens=90)

    learned, backend, learner = make()
    made = rows(learned, questions("qwen2_5_vl"))
    for _ in range(2):
        learner.step(made, sft)
    save_state(tmp_path, 2, {"model": backend.full_state_dict(), "learner": learner.state_dict()})
    learner.step(made, sft)
    fresh, other, resumed = make()
    state = load_state(tmp_path)
    assert state is not None
    other.load_model(state["model"])
    resumed.load_state_dict(state["learner"])
    assert resumed.steps_done == 2
    resumed.step(rows(fresh, questions("qwen2_5_vl")), sft)
    for (name, mine), theirs in zip(learned.named_parameters(), fresh.parameters(), strict=True):
        assert torch.equal(mine, theirs), name
