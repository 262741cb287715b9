"""The clipped log-ratio that PPO-clip, GSPO and CPGD share, and the metrics of a policy ratio."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from safeladder.algorithms.kl import METRIC_BOUND
from safeladder.types import SafeladderError


def clip_log_ratio(log_ratio: Tensor, advantages: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Clamp the log-ratio where a larger step would be rewarded. Shapes broadcast; returns `log_ratio`'s.

    For any increasing f (f = exp is PPO, f = identity is CPGD)::

        min( f(x) A, f(clip(x, ln(1-low), ln(1+high))) A )  =  f(y) A
        y = min(x, ln(1+high)) if A > 0 else max(x, ln(1-low))

    The right side has the same value and gradient, and never evaluates exp(x) at a clipped x > 0, whose
    overflow would turn a zero gradient into NaN. A clipped token has y != x and passes no gradient.
    """
    upper = torch.log1p(torch.as_tensor(high, dtype=log_ratio.dtype, device=log_ratio.device))
    lower = torch.log1p(-torch.as_tensor(low, dtype=log_ratio.dtype, device=log_ratio.device))
    return torch.where(advantages > 0, log_ratio.clamp(max=upper), log_ratio.clamp(min=lower))


def check_clip(name: str, value: float, *, below: float = 1.0) -> None:
    """Raise `SafeladderError` unless 0 < value < below."""
    if not 0.0 < value < below:
        limit = "" if math.isinf(below) else f" and < {below:g}"
        raise SafeladderError(f"loss option {name} is {value}; it must be > 0{limit}")


def ratio_metrics(log_ratio: Tensor, clipped: Tensor) -> dict[str, Tensor]:
    """Per-token metrics of pi/pi_old: clip_fraction, approx_kl (k3 of KL(old || pi)), ratio_mean, ratio_max.

    The exponent is bounded (`METRIC_BOUND`), so that one runaway token cannot swamp a logged mean.
    """
    bounded = log_ratio.detach().clamp(-METRIC_BOUND, METRIC_BOUND)
    ratio = bounded.exp()
    return {
        "clip_fraction": clipped,
        "approx_kl": ratio - 1 - bounded,
        "ratio_mean": ratio,
        "ratio_max": ratio,
    }
