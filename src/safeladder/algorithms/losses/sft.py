"""Supervised fine-tuning."""

from __future__ import annotations

from torch import Tensor

from safeladder.algorithms.losses.reduce import LossOutput, Reduction, finish, masked


def sft(
    logprobs: Tensor,
    mask: Tensor,
    *,
    reduction: Reduction = "token-mean",
    normalizer: float | Tensor | None = None,
) -> LossOutput:
    """Negative log-likelihood of the demonstration: `reduce(-ln pi(y_t))`.

    `logprobs` [B, T] of the target tokens in nats, `mask` [B, T] with 1 on the response. Metric: `nll`.
    """
    nll = -masked(logprobs, mask)
    return finish(nll, {"nll": nll}, mask, reduction, normalizer)
