"""Direct preference optimisation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from safeladder.algorithms.losses.reduce import LossOutput
from safeladder.types import SafeladderError


def dpo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float,
    normalizer: float | Tensor | None = None,
) -> LossOutput:
    """Rafailov et al. 2023, arXiv 2305.18290, eq. 7::

        L = -1/N sum_b ln sigma( beta [ (ln pi - ln ref)(chosen) - (ln pi - ln ref)(rejected) ] )

    The four tensors are [B] log-probabilities of whole responses (sums over their tokens, nats). `normalizer`
    is N, the pairs of the whole batch (default: of this call). Metrics: `chosen_reward`, `rejected_reward`
    (beta times the log-ratio), `margin`, `accuracy` (share of pairs with a positive margin). Raises
    `SafeladderError` unless beta > 0.
    """
    if not beta > 0:
        raise SafeladderError(f"loss option beta is {beta}; it must be > 0")
    chosen = beta * (policy_chosen - ref_chosen.detach())
    rejected = beta * (policy_rejected - ref_rejected.detach())
    margin = chosen - rejected
    pairs = max(len(margin), 1) if normalizer is None else normalizer
    metrics = {
        "chosen_reward": chosen,
        "rejected_reward": rejected,
        "margin": margin,
        "accuracy": (margin > 0).to(margin.dtype),
    }
    return LossOutput(
        loss=-F.logsigmoid(margin).sum() / pairs,
        metrics={name: value.detach().sum() / pairs for name, value in metrics.items()},
    )
