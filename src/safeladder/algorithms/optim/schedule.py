"""Learning-rate schedules."""

from __future__ import annotations

import math
from typing import Literal, get_args

from safeladder.types import SafeladderError

Kind = Literal["constant", "linear", "cosine", "wsd"]


def learning_rate(
    step: int,
    total: int,
    *,
    peak: float,
    warmup: int = 0,
    kind: Kind = "constant",
    minimum_ratio: float = 0.0,
    decay_start: int | None = None,
) -> float:
    """The learning rate of update `step` (0 .. total - 1) out of `total`.

    Warm-up rises linearly, `peak * (step + 1) / warmup`, for `warmup` updates: the first is never wasted on a
    rate of 0. Then, with p in [0, 1] the part of the decay that is over and m = minimum_ratio::

        constant  peak
        linear    peak * (1 - (1 - m) * p)                        p from the end of the warm-up to `total`
        cosine    peak * (m + (1 - m) * (1 + cos(pi p)) / 2)      same p (Loshchilov & Hutter, arXiv
        1608.03983) wsd       peak until `decay_start`, then linear to m      warm-up, stable, decay (arXiv
        2404.06395)

    Raises `SafeladderError` on an unknown kind, or on bounds that do not fit (0 <= warmup <= total,
    0 <= minimum_ratio <= 1, wsd: warmup <= decay_start <= total).
    """
    if kind not in get_args(Kind):
        raise SafeladderError(f"unknown schedule {kind!r}; allowed: {', '.join(get_args(Kind))}")
    if not 0 <= warmup <= total or not 0 <= minimum_ratio <= 1:
        raise SafeladderError(
            f"schedule: warmup {warmup}, minimum_ratio {minimum_ratio}; allowed: 0 <= warmup <= total steps "
            f"({total}), 0 <= minimum_ratio <= 1"
        )
    start = warmup
    if kind == "wsd":
        if decay_start is None or not warmup <= decay_start <= total:
            raise SafeladderError(
                f"schedule wsd: decay_start is {decay_start}; allowed: {warmup} (warmup) to {total} (total)"
            )
        start = decay_start
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(max((step - start) / max(total - start, 1), 0.0), 1.0)
    if kind == "constant":
        return peak
    if kind == "cosine":
        return peak * (minimum_ratio + (1 - minimum_ratio) * (1 + math.cos(math.pi * progress)) / 2)
    return peak * (1 - (1 - minimum_ratio) * progress)
