"""The clipped surrogate of PPO, which GRPO, DAPO, Dr.GRPO, RLOO and REINFORCE++ share."""

from __future__ import annotations

import math

from torch import Tensor

from safeladder.algorithms.losses.clip import check_clip, clip_log_ratio, ratio_metrics
from safeladder.algorithms.losses.reduce import LossOutput, Reduction, finish, masked, per_token
from safeladder.types import SafeladderError


def ppo_clip(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    reduction: Reduction = "token-mean",
    normalizer: float | Tensor | None = None,
) -> LossOutput:
    """Schulman et al. 2017, arXiv 1707.06347, eq. 7, with separate bounds (DAPO's "clip-higher")::

        L = -reduce( min( r A, clip(r, 1 - clip_low, 1 + clip_high) A ) ),    r = pi/pi_old
        dual clip (Ye et al. 2020, arXiv 1912.09729), where A < 0:  max( the above, dual_clip * A )

    `logprobs`, `old_logprobs`, `mask`: [B, T]; `advantages`: [B] or [B, T]. Metrics: clip_fraction,
    approx_kl, ratio_mean, ratio_max, and dual_clip_fraction where dual_clip is set. Raises `SafeladderError`
    on bounds outside their range (0 < clip_low < 1, clip_high > 0, dual_clip > 1).
    """
    check_clip("clip_low", clip_low)
    check_clip("clip_high", clip_high, below=math.inf)
    advantage = per_token(advantages, mask, logprobs.dtype)
    log_ratio = masked(logprobs - old_logprobs.detach(), mask)
    clipped = clip_log_ratio(log_ratio, advantage, clip_low, clip_high)
    metrics = ratio_metrics(log_ratio, clipped != log_ratio)
    if dual_clip is not None:
        if not dual_clip > 1:
            raise SafeladderError(f"loss option dual_clip is {dual_clip}; it must be > 1")
        metrics["dual_clip_fraction"] = (advantage < 0) & (clipped > math.log(dual_clip))
        clipped = clipped.where(advantage >= 0, clipped.clamp(max=math.log(dual_clip)))
    return finish(-advantage * clipped.exp(), metrics, mask, reduction, normalizer)
