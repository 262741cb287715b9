"""Group sequence policy optimisation: one importance ratio a sequence."""

from __future__ import annotations

import math

from torch import Tensor

from safeladder.algorithms.losses.clip import check_clip, clip_log_ratio, ratio_metrics
from safeladder.algorithms.losses.reduce import LossOutput, Reduction, finish, masked, per_token


def gspo(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    reduction: Reduction = "token-mean",
    normalizer: float | Tensor | None = None,
) -> LossOutput:
    """Zheng et al. 2025, arXiv 2507.18071, eq. 5-7 and the token form, eq. 13-14 (sg = stop-gradient)::

        s   = exp( 1/|y| sum_t (ln pi - ln pi_old) )
        s_t = sg(s) * pi(y_t) / sg(pi(y_t))
        L   = -reduce( min( s_t A, clip(s_t, 1 - clip_low, 1 + clip_high) A ) )

    Under "sequence-mean" and sequence advantages this is exactly the sequence objective, -mean_b min(s A,
    clip(s) A). `logprobs`, `old_logprobs`, `mask`: [B, T]; `advantages`: [B] or [B, T]. Metrics as in
    `ppo_clip`, of the sequence ratio. Raises `SafeladderError` on bounds outside 0 < clip_low < 1, clip_high
    > 0.
    """
    check_clip("clip_low", clip_low)
    check_clip("clip_high", clip_high, below=math.inf)
    advantage = per_token(advantages, mask, logprobs.dtype)
    logprobs = masked(logprobs, mask)
    difference = logprobs.detach() - masked(old_logprobs.detach(), mask)
    log_s = difference.sum(-1, keepdim=True) / mask.bool().sum(-1, keepdim=True).clamp(min=1)
    log_ratio = log_s + (logprobs - logprobs.detach())
    clipped = clip_log_ratio(log_ratio, advantage, clip_low, clip_high)
    metrics = ratio_metrics(log_ratio, clipped != log_ratio)
    return finish(-advantage * clipped.exp(), metrics, mask, reduction, normalizer)
