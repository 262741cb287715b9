"""Clipped policy gradient optimisation with policy drift."""

from __future__ import annotations

from torch import Tensor

from safeladder.algorithms.losses.clip import check_clip, clip_log_ratio, ratio_metrics
from safeladder.algorithms.losses.reduce import LossOutput, Reduction, finish, masked, per_token
from safeladder.types import SafeladderError


def cpgd(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float = 0.2,
    drift_weight: float = 0.01,
    drift_cap: float = 2.0,
    clip_start: float = 1.0,
    reduction: Reduction = "token-mean",
    normalizer: float | Tensor | None = None,
) -> LossOutput:
    """CPGD, arXiv 2505.12504, eq. 2 (sg = stop-gradient)::

        L   = -reduce( Phi - drift_weight * E )
        x   = ln pi - ln pi_old
        Phi = min( x A, clip(x, ln(1 - eps_t), ln(1 + eps_t)) A )
        E   = min( sg(pi/pi_old) - 1, drift_cap ) * ln pi
        eps_t = clip * ( clip_start + (1 - clip_start) * t/|y| ),    t = 1 .. |y|

    The log-ratio replaces PPO's ratio, so a token's gradient A * grad(ln pi) does not grow with the ratio; E
    has the gradient of k3 of KL(pi_old || pi), capped. `clip_start` is the paper's lambda: 1 keeps the bound
    constant, less starts tight and loosens along the response. The default reduction is the token mean over
    the batch, as in the paper's code; eq. 2 as printed averages over each prompt's tokens first.

    `logprobs`, `old_logprobs`, `mask`: [B, T]; `advantages`: [B] or [B, T]. Metrics: clip_fraction,
    approx_kl, ratio_mean, ratio_max, drift (E) and drift_cap_fraction. Raises `SafeladderError` on options
    out of range (0 < clip < 1, 0 < clip_start <= 1, drift_weight >= 0, drift_cap > 0).
    """
    check_clip("clip", clip)
    if not 0 < clip_start <= 1:
        raise SafeladderError(f"loss option clip_start is {clip_start}; it must be > 0 and <= 1")
    if not drift_weight >= 0 or not drift_cap > 0:
        raise SafeladderError(
            f"loss options drift_weight = {drift_weight}, drift_cap = {drift_cap}; they must be >= 0 and > 0"
        )
    advantage = per_token(advantages, mask, logprobs.dtype)
    logprobs = masked(logprobs, mask)
    log_ratio = logprobs - masked(old_logprobs.detach(), mask)

    counted = mask.bool()
    position = counted.cumsum(-1) / counted.sum(-1, keepdim=True).clamp(min=1)
    epsilon = clip * (clip_start + (1 - clip_start) * position)
    clipped = clip_log_ratio(log_ratio, advantage, epsilon, epsilon)

    excess = log_ratio.detach().exp() - 1
    drift = excess.clamp(max=drift_cap) * logprobs
    metrics = ratio_metrics(log_ratio, clipped != log_ratio)
    metrics |= {"drift": drift, "drift_cap_fraction": excess > drift_cap}
    return finish(-(clipped * advantage - drift_weight * drift), metrics, mask, reduction, normalizer)
