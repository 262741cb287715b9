"""Intervals of figures that come from counts: the bootstrap over groups, and Wilson's for rates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_CHUNK = 4_000_000
"""Resampling counts held in memory at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """How intervals are computed. The same settings and data give the same interval."""

    level: float = 0.95
    resamples: int = 2000
    seed: int = 0


INTERVALS = Intervals()


def resample(tables: NDArray[np.float64], intervals: Intervals) -> NDArray[np.float64]:
    """Bootstrap sums [resamples, columns] of the rows of tables [groups, columns], groups drawn with replacement.

    Equal rows are drawn together, as one multinomial: with independent rows there are at most 22 different ones.
    """
    distinct, counts = np.unique(tables, axis=0, return_counts=True)
    rng = np.random.default_rng(intervals.seed)
    block = max(1, _CHUNK // len(distinct))
    sums = [
        rng.multinomial(len(tables), counts / len(tables), min(block, intervals.resamples - start)) @ distinct
        for start in range(0, intervals.resamples, block)
    ]
    return np.concatenate(sums)


def interval_of_rate(
    share: float, draws: NDArray[np.float64] | None, intervals: Intervals, *, units: int
) -> dict[str, float]:
    """`low` and `high` of a rate: percentiles of the draws, or Wilson's over `units` where there are no draws or they
    do not vary."""
    return ({} if draws is None else percentiles(share, draws, intervals)) or _wilson(share, units, intervals.level)


def percentiles(value: float, draws: NDArray[np.float64], intervals: Intervals) -> dict[str, float]:
    """`low` and `high` from resampled values; nothing where they do not vary, which proves nothing."""
    defined = draws[np.isfinite(draws)]
    if len(defined) == 0 or float(np.ptp(defined)) < 1e-12:
        return {}
    tail = 100 * (1 - intervals.level) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    # Resampling moves a biased measure such as ECE away from its own value.
    return {"low": min(float(low), value), "high": max(float(high), value)}


def _wilson(share: float, n: int, level: float) -> dict[str, float]:
    """Wilson score interval (E. B. Wilson, JASA 22, 1927) of a share among n."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre, scale = share + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The exact ends are 0 and 1 there; the subtraction leaves a rounding error.
    low = 0.0 if share == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if share == 1 else min(1.0, (centre + half) / scale)
    return {"low": low, "high": high}
