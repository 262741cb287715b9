"""From per-token values to one scalar, so that splitting a batch never changes its gradient.

The denominator of the mean belongs to the whole batch (all micro-batches, all ranks), not to the call. A
learner that passes it as `normalizer` may split the batch in any way and *add* the losses. (A data-parallel
wrapper that averages gradients over ranks needs the sum multiplied back by the number of ranks.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from safeladder.types import SafeladderError

Reduction = Literal["token-mean", "sequence-mean", "constant"]


@dataclass(frozen=True, slots=True)
class LossOutput:
    """A scalar `loss` and detached scalar `metrics`.

    Metrics carry the loss's own normalizer, so they add over micro-batches and ranks to the value of the
    whole batch; names that end in ``_max`` combine by maximum. `add_metrics` does both.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


def reduce(
    values: Tensor,
    mask: Tensor,
    reduction: Reduction = "token-mean",
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Reduce per-token `values` [B, T] over the tokens with mask 1. Returns a scalar.

    ::

        token-mean     sum_bt v / N          N = counted tokens               (DAPO, arXiv 2503.14476)
        sequence-mean  sum_b mean_t v / N    N = sequences                    (GRPO, arXiv 2402.03300)
        constant       sum_bt v / N          N = sequences * constant L_max   (Dr.GRPO, arXiv 2503.20783)

    `normalizer` is N of the whole batch; without it N is counted in this call (rows without a counted token
    are padding, not sequences). "constant" has no such default, because L_max is not in the data. Masked
    positions may hold anything, NaN included. Raises `SafeladderError` on an unknown reduction, or on
    "constant" without a normalizer.
    """
    counted = mask.bool()
    values = values.masked_fill(~counted, 0.0)
    lengths = counted.sum(-1)
    if reduction == "token-mean":
        return values.sum() / (lengths.sum().clamp(min=1) if normalizer is None else normalizer)
    if reduction == "sequence-mean":
        sequences = (lengths > 0).sum().clamp(min=1) if normalizer is None else normalizer
        return (values.sum(-1) / lengths.clamp(min=1)).sum() / sequences
    if reduction == "constant":
        if normalizer is None:
            raise SafeladderError('reduction "constant" needs a normalizer: number of sequences * L_max')
        return values.sum() / normalizer
    raise SafeladderError(f"unknown reduction {reduction!r}; allowed: {', '.join(get_args(Reduction))}")


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """`values` with 0 where the mask is 0, so that padding can produce neither NaN nor gradient later."""
    if values.shape != mask.shape:
        raise ValueError(f"tensor of shape {tuple(values.shape)} with a mask of shape {tuple(mask.shape)}")
    return values.masked_fill(~mask.bool(), 0.0)


def per_token(advantages: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Advantages [B] or [B, T] as a constant of `dtype` that broadcasts against [B, T]."""
    if advantages.shape not in (mask.shape, mask.shape[:1]):
        raise ValueError(f"advantages of shape {tuple(advantages.shape)} with a mask of {tuple(mask.shape)}")
    advantages = advantages.detach().to(dtype)
    return masked(advantages, mask) if advantages.ndim == 2 else advantages.unsqueeze(-1)


def finish(
    values: Tensor,
    token_metrics: Mapping[str, Tensor],
    mask: Tensor,
    reduction: Reduction,
    normalizer: float | Tensor | None,
) -> LossOutput:
    """Reduce a loss and its per-token metrics [B, T] with one and the same normalizer."""
    metrics = {}
    for name, metric in token_metrics.items():
        metric = metric.detach().to(values.dtype)
        if name.endswith("_max"):
            metrics[name] = masked(metric, mask).amax()
        else:
            metrics[name] = reduce(metric, mask, reduction, normalizer)
    return LossOutput(loss=reduce(values, mask, reduction, normalizer), metrics=metrics)


def add_metrics(total: Mapping[str, Tensor], metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Combine metrics of two micro-batches: sums, and maxima for names that end in ``_max``."""
    combined = dict(total)
    for name, value in metrics.items():
        if name not in combined:
            combined[name] = value
        elif name.endswith("_max"):
            combined[name] = torch.maximum(combined[name], value)
        else:
            combined[name] = combined[name] + value
    return combined
