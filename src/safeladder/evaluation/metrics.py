"""Means with intervals: Wilson, cluster bootstrap, paired bootstrap, pass@k.

Pure functions over numbers (numpy only). Nothing here ever turns "no data" into 0: an empty input gives None.

How an interval is chosen (`rate`, `mean`):

* independent yes/no outcomes: the Wilson score interval (E. B. Wilson, JASA 22, 1927), which stays honest at
  0 and 1;
* everything else (items that share a group, graded values, strata): the percentile bootstrap over groups
  (Efron & Tibshirani, 1993, ch. 13), because variants of one item are not independent evidence;
* a bootstrap that does not vary, for example because every outcome is 1: Wilson over the number of groups.
  Fifty passes out of fifty do not prove a rate of exactly 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 4_000_000
"""Resampling counts held in memory at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """How intervals are computed. The same settings and data give the same interval."""

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A measured number: `value` and its interval over the `n` outcomes that could be scored.

    `n_unscored` outcomes could not be scored. For a rate, `if_all_fail` and `if_all_pass` are what the value
    would be had every one of them been 0 or 1; they equal `value` where nothing is unscored and are None for
    quantities that are not rates.
    """

    value: float
    low: float
    high: float
    n: int
    n_unscored: int = 0
    if_all_fail: float | None = None
    if_all_pass: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The four numbers of the report; the unscored count and its bounds only where there are any."""
        row: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        if self.n_unscored:
            row |= {"n_unscored": self.n_unscored}
            if self.if_all_fail is not None and self.if_all_pass is not None:
                row |= {"if_all_fail": self.if_all_fail, "if_all_pass": self.if_all_pass}
        return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`after - before` on the same items. `relative` is 100 x (after - before) / before, None where before is
    0."""

    value: float
    low: float
    high: float
    n: int
    before: float
    after: float
    relative: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    n_unscored: int = 0

    def to_json(self) -> dict[str, Any]:
        """All fields that are known, as JSON values."""
        row = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in row.items() if value is not None}


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion.

    Args:
        successes: number of successes, 0..n.
        n: number of trials, at least 1.
        confidence: e.g. 0.95.

    Raises:
        ValueError: n < 1 or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs n >= 1 and 0 <= successes <= n, got {successes} of {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The exact ends are 0 and 1 there; the subtraction leaves a rounding error.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k draws is correct, from c correct among n draws.

    1 - C(n-c, k) / C(n, k), as a product (Chen et al. 2021, arXiv 2107.03374, eq. 1).

    Raises:
        ValueError: not 1 <= k <= n or not 0 <= c <= n.
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise ValueError(f"pass@k needs 1 <= k <= n and 0 <= c <= n, got n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def rate(
    values: Sequence[float | None],
    groups: Sequence[str] | None = None,
    strata: Sequence[str] | None = None,
    *,
    bootstrap: Bootstrap,
) -> Metric | None:
    """Mean of outcomes in [0, 1] with its interval; None where nothing could be scored.

    Args:
        values: one outcome an item; None = unscored (left out of the value, counted, and bounded both ways).
        groups: the item's group; items of one group are resampled together. Default: every item on its own.
        strata: each stratum gets an equal share of the value, however many items it has. Default: one
            stratum.

    Raises:
        ValueError: unequal lengths or a value outside [0, 1].
    """
    if any(v is not None and not 0.0 <= v <= 1.0 for v in values):
        raise ValueError("a rate needs outcomes in [0, 1]")
    table = _Table.build(values, groups, strata)
    if table is None:
        return None
    value, low, high = _interval(table, bootstrap, bounded=True)
    missing = sum(v is None for v in values)
    ends = [value, value]
    if missing:
        ends = [_Table.of([end if v is None else v for v in values], groups, strata).value() for end in (0.0, 1.0)]
    return Metric(
        value=value,
        low=low,
        high=high,
        n=table.n,
        n_unscored=missing,
        if_all_fail=ends[0],
        if_all_pass=ends[1],
    )


def mean(values: Sequence[float | None], groups: Sequence[str] | None = None, *, bootstrap: Bootstrap) -> Metric | None:
    """Mean of any quantity (tokens, seconds) with a cluster-bootstrap interval; None where there is no
    value."""
    table = _Table.build(values, groups, None)
    if table is None:
        return None
    value, low, high = _interval(table, bootstrap, bounded=False)
    return Metric(value=value, low=low, high=high, n=table.n, n_unscored=sum(v is None for v in values))


def pass_rate(correct: Mapping[str, Sequence[bool]], k: int, *, bootstrap: Bootstrap) -> Metric | None:
    """pass@k averaged over items, with its interval over items.

    Args:
        correct: item id -> one flag a draw; at least k draws an item.

    Raises:
        ValueError: an item has fewer than k draws.
    """
    values = [pass_at_k(len(flags), sum(flags), k) for flags in correct.values()]
    return rate(values, list(correct), bootstrap=bootstrap)


def paired_difference(
    before: Sequence[float],
    after: Sequence[float],
    groups: Sequence[str] | None = None,
    strata: Sequence[str] | None = None,
    *,
    bootstrap: Bootstrap,
) -> Difference | None:
    """Difference of means on the same items, row i of both being item i; None where there is no item.

    Every resample draws groups once and applies the draw to both sides, so what the two sides share cancels
    out.
    """
    first = _Table.build(before, groups, strata)
    second = _Table.build(after, groups, strata)
    if first is None or second is None:
        return None
    if first.n != second.n:
        raise ValueError(f"a paired difference needs equal lengths, got {first.n} and {second.n}")
    old, new = first.value(), second.value()
    draws = list(_resample(len(first.counts), bootstrap))
    olds = np.concatenate([first.values(w) for w in draws])
    news = np.concatenate([second.values(w) for w in draws])
    low, high = _percentiles(news - olds, bootstrap.confidence)
    found = Difference(value=new - old, low=low, high=high, n=first.n, before=old, after=new)
    if old < 1e-9:
        return found
    found = replace(found, relative=100 * (new - old) / old)
    if olds.min() < 1e-9:
        return found
    low, high = _percentiles(100 * (news - olds) / olds, bootstrap.confidence)
    return replace(found, relative_low=low, relative_high=high)


@dataclass(frozen=True, slots=True)
class _Table:
    """Outcomes summed by group (rows) and stratum (columns): all a resample needs to know."""

    sums: NDArray[np.float64]  # [groups, strata]
    counts: NDArray[np.float64]  # [groups, strata]

    @classmethod
    def build(
        cls, values: Sequence[float | None], groups: Sequence[str] | None, strata: Sequence[str] | None
    ) -> _Table | None:
        """The scored outcomes, or None where there are none."""
        groups = [str(i) for i in range(len(values))] if groups is None else groups
        strata = [""] * len(values) if strata is None else strata
        if not len(values) == len(groups) == len(strata):
            raise ValueError("values, groups and strata must have equal length")
        kept = [(v, g, s) for v, g, s in zip(values, groups, strata, strict=True) if v is not None]
        if not kept:
            return None
        row = {g: i for i, g in enumerate(dict.fromkeys(g for _, g, _ in kept))}
        column = {s: i for i, s in enumerate(dict.fromkeys(s for _, _, s in kept))}
        sums = np.zeros((len(row), len(column)))
        counts = np.zeros((len(row), len(column)))
        where = ([row[g] for _, g, _ in kept], [column[s] for _, _, s in kept])
        np.add.at(sums, where, [v for v, _, _ in kept])
        np.add.at(counts, where, 1.0)
        return cls(sums, counts)

    @classmethod
    def of(cls, values: Sequence[float], groups: Sequence[str] | None, strata: Sequence[str] | None) -> _Table:
        table = cls.build(values, groups, strata)
        if table is None:
            raise ValueError("no outcomes")
        return table

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def value(self) -> float:
        """Mean over strata of the stratum's mean."""
        return float((self.sums.sum(0) / self.counts.sum(0)).mean())

    def values(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """`value` of every resample; weights [resamples, groups] say how often a group was drawn."""
        counts = weights @ self.counts
        # A resample may miss a small stratum altogether: the value is then the mean of the others.
        present = counts > 0
        means = np.divide(weights @ self.sums, counts, out=np.zeros_like(counts), where=present)
        return means.sum(1) / present.sum(1)


def _interval(table: _Table, bootstrap: Bootstrap, *, bounded: bool) -> tuple[float, float, float]:
    value = table.value()
    shares, sizes = table.sums.sum(0) / table.counts.sum(0), (table.counts > 0).sum(0)
    yes_no = bool((table.counts == 1).all()) and bool(np.isin(table.sums, (0.0, 1.0)).all())
    if bounded and yes_no and len(shares) == 1:
        return value, *_combined_wilson(shares, sizes, bootstrap.confidence)
    draws = np.concatenate([table.values(w) for w in _resample(len(table.counts), bootstrap)])
    if bounded and float(np.ptp(draws)) < 1e-12:
        return value, *_combined_wilson(shares, sizes, bootstrap.confidence)
    low, high = _percentiles(draws, bootstrap.confidence)
    # A resampled mean can miss the point estimate by a rounding error, or on very small skewed samples.
    return value, min(low, value), max(high, value)


def _combined_wilson(shares: NDArray[np.float64], sizes: NDArray[np.int64], confidence: float) -> tuple[float, float]:
    """Interval of the mean of independent proportions from their Wilson intervals.

    The distances to the limits are added as squares (MOVER: Zou & Donner, Statistics in Medicine 27, 2008).
    """
    ends = np.array([wilson(p * n, int(n), confidence) for p, n in zip(shares, sizes, strict=True)])
    value, weight = float(shares.mean()), 1 / len(shares)
    if len(shares) == 1:
        return float(ends[0, 0]), float(ends[0, 1])
    below = weight * float(np.sqrt(((shares - ends[:, 0]) ** 2).sum()))
    above = weight * float(np.sqrt(((ends[:, 1] - shares) ** 2).sum()))
    return max(0.0, value - below), min(1.0, value + above)


def _resample(groups: int, bootstrap: Bootstrap) -> Iterator[NDArray[np.float64]]:
    """Blocks of draws [resamples, groups]: how often each group is drawn, `groups` draws a resample."""
    rng = np.random.default_rng(bootstrap.seed)
    block = max(1, min(bootstrap.resamples, _CHUNK // groups))
    for start in range(0, bootstrap.resamples, block):
        rows = min(block, bootstrap.resamples - start)
        drawn = rng.integers(0, groups, (rows, groups))
        drawn += np.arange(rows)[:, None] * groups
        yield np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups).astype(np.float64)


def _percentiles(draws: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)
