"""Reductions, and what they promise: splitting a batch changes neither the gradient nor the metrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from safeladder.algorithms import losses
from safeladder.algorithms.losses import LossOutput, Reduction, add_metrics, add_reference_kl, reduce
from safeladder.types import SafeladderError

# Two sequences of unequal length: tokens 1, 3 and 10; the masked entries must not count.
VALUES = torch.tensor([[1.0, 3.0], [10.0, float("nan")]])
MASK = torch.tensor([[1, 1], [1, 0]])


def test_B06_reductions_differ_for_unequal_lengths() -> None:
    assert_close(reduce(VALUES, MASK, "token-mean"), torch.tensor(14 / 3))  # (1 + 3 + 10) / 3
    assert_close(reduce(VALUES, MASK, "sequence-mean"), torch.tensor(6.0))  # (2 + 10) / 2
    assert_close(reduce(VALUES, MASK, "constant", 2 * 8), torch.tensor(14 / 16))  # 14 / (2 sequences * 8)


def test_normalizer_is_of_the_whole_batch() -> None:
    assert_close(reduce(VALUES, MASK, "token-mean", 7), torch.tensor(2.0))
    assert_close(reduce(VALUES, MASK, "sequence-mean", torch.tensor(4)), torch.tensor(3.0))


def test_padding_rows_are_no_sequences() -> None:
    values = torch.cat([VALUES, torch.full((3, 2), 99.0)])
    mask = torch.cat([MASK, torch.zeros(3, 2, dtype=torch.long)])
    assert_close(reduce(values, mask, "sequence-mean"), torch.tensor(6.0))
    assert reduce(values[2:], mask[2:], "token-mean") == 0


def test_constant_needs_its_length() -> None:
    with pytest.raises(SafeladderError, match="L_max"):
        reduce(VALUES, MASK, "constant")
    with pytest.raises(SafeladderError, match="token-mean, sequence-mean, constant"):
        reduce(VALUES, MASK, "mean")  # pyright: ignore[reportArgumentType]


def test_shapes_must_match() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="mask"):
        losses.cpgd(x, x, torch.zeros(2), torch.ones(2, 4))
    with pytest.raises(ValueError, match="advantages"):
        losses.cpgd(x, x, torch.zeros(3), torch.ones(2, 3))


def test_add_metrics_sums_and_maximises() -> None:
    total = add_metrics({}, {"a": torch.tensor(1.0), "r_max": torch.tensor(5.0)})
    total = add_metrics(total, {"a": torch.tensor(2.0), "r_max": torch.tensor(4.0)})
    assert total == {"a": torch.tensor(3.0), "r_max": torch.tensor(5.0)}


def _data() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(8, 6, generator=generator, dtype=torch.float64) * 3
    data = {
        "logprobs": old + 0.3 * torch.randn(8, 6, generator=generator, dtype=torch.float64),
        "old": old,
        "ref": old + 0.3 * torch.randn(8, 6, generator=generator, dtype=torch.float64),
        "advantages": torch.randn(8, generator=generator, dtype=torch.float64),
    }
    lengths = torch.tensor([6, 1, 4, 2, 5, 3, 6, 2])
    data["mask"] = (torch.arange(6) < lengths.unsqueeze(-1)).long()
    return data


Call = Callable[..., LossOutput]


def _token_losses() -> dict[str, Call]:
    def sft(lp: Tensor, d: dict[str, Tensor], **how: object) -> LossOutput:
        return losses.sft(lp, d["mask"], **how)  # pyright: ignore[reportArgumentType]

    def policy(loss: Call, lp: Tensor, d: dict[str, Tensor], **how: object) -> LossOutput:
        return loss(lp, d["old"], d["advantages"], d["mask"], **how)

    def with_kl(lp: Tensor, d: dict[str, Tensor], **how: object) -> LossOutput:
        output = policy(losses.cpgd, lp, d, **how)
        how = {**how, "weight": 0.5}
        return add_reference_kl(output, lp, d["ref"], d["mask"], **how)  # pyright: ignore[reportArgumentType]

    return {
        "sft": sft,
        "ppo_clip": partial(policy, losses.ppo_clip),
        "ppo_dual_clip": partial(policy, partial(losses.ppo_clip, dual_clip=1.1)),
        "gspo": partial(policy, partial(losses.gspo, clip_low=0.1, clip_high=0.1)),
        "cpgd": partial(policy, losses.cpgd),
        "cpgd_tight_to_loose": partial(policy, partial(losses.cpgd, clip_start=0.5)),
        "reference_kl": with_kl,
    }


@pytest.mark.parametrize("name", _token_losses())
@pytest.mark.parametrize(("reduction", "normalizer"), [("token-mean", 29), ("sequence-mean", 8), ("constant", 48)])
@pytest.mark.parametrize("rows", [4, 2, 1])
def test_B10_micro_batches_give_the_gradient_of_the_batch(
    name: str, reduction: Reduction, normalizer: float, rows: int
) -> None:
    data, loss = _data(), _token_losses()[name]
    assert data["mask"].sum() == 29

    def gradient(size: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        leaf = data["logprobs"].clone().requires_grad_()
        metrics: dict[str, Tensor] = {}
        total = torch.zeros((), dtype=torch.float64)
        for start in range(0, 8, size):
            part = {k: v[start : start + size] for k, v in data.items()}
            # A micro-batch is padded to its own longest sequence only.
            width = int(part["mask"].sum(-1).max())
            part = {k: v[:, :width] if v.ndim == 2 else v for k, v in part.items()}
            logprobs = leaf[start : start + size, :width]
            output = loss(logprobs, part, reduction=reduction, normalizer=normalizer)
            output.loss.backward()
            total = total + output.loss.detach()
            metrics = add_metrics(metrics, output.metrics)
        assert leaf.grad is not None
        return leaf.grad, total, metrics

    whole, value, metrics = gradient(8)
    split, split_value, split_metrics = gradient(rows)
    assert whole.abs().sum() > 0
    assert_close(split, whole, atol=1e-12, rtol=0)
    assert_close(split_value, value, atol=1e-12, rtol=0)
    assert_close(split_metrics, metrics, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", _token_losses())
def test_masked_positions_may_hold_anything(name: str) -> None:
    data, loss = _data(), _token_losses()[name]
    expected = loss(data["logprobs"], data)
    for junk in (float("nan"), float("-inf"), 1e4):
        holes = data["mask"] == 0
        dirty = {k: v.masked_fill(holes, junk) if k in ("old", "ref") else v for k, v in data.items()}
        leaf = data["logprobs"].masked_fill(holes, -junk).requires_grad_()
        output = loss(leaf, dirty)
        output.loss.backward()
        assert_close(output.loss, expected.loss)
        assert_close(output.metrics, expected.metrics)
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert (leaf.grad[holes] == 0).all()


@pytest.mark.parametrize("name", _token_losses())
def test_metrics_are_detached_scalars(name: str) -> None:
    data = _data()
    output = _token_losses()[name](data["logprobs"].requires_grad_(), data)
    assert output.loss.requires_grad
    assert output.loss.ndim == 0
    assert all(m.ndim == 0 and not m.requires_grad for m in output.metrics.values())
