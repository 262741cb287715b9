"""A reference-KL term that can be added to any token loss."""

from __future__ import annotations

from torch import Tensor

from safeladder.algorithms.kl import METRIC_BOUND, Estimator, kl
from safeladder.algorithms.losses.reduce import LossOutput, Reduction, finish, masked


def add_reference_kl(
    output: LossOutput,
    logprobs: Tensor,
    ref_logprobs: Tensor,
    mask: Tensor,
    *,
    weight: float,
    estimator: Estimator = "k3",
    reduction: Reduction = "token-mean",
    normalizer: float | Tensor | None = None,
) -> LossOutput:
    """`loss + weight * reduce(kl(pi, ref))`, the "KL in the loss" of GRPO (arXiv 2402.03300, eq. 3-4).

    `logprobs`, `ref_logprobs`, `mask`: [B, T]. Adds the metric `reference_kl` (bounded exponent; see
    `kl.METRIC_BOUND`), also with weight 0, which measures the divergence without penalising it.
    """
    policy, reference = masked(logprobs, mask), masked(ref_logprobs.detach(), mask)
    values = kl(policy, reference, estimator)
    metric = kl(policy.detach(), reference, estimator, bound=METRIC_BOUND)
    term = finish(values, {"reference_kl": metric}, mask, reduction, normalizer)
    loss = output.loss + weight * term.loss if weight else output.loss
    return LossOutput(loss=loss, metrics={**output.metrics, **term.metrics})
