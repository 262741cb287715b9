"""The calibration report: does a system know when it does not know?

`calibration_report` turns outcomes into one JSON object (a plain dict, so that it can be stored and drawn later)::

    n, total, unparsed, unscored, cut, level
    accuracy, coverage, false_certain (of all), false_certain_given_wrong, false_certain_given_certain,
    reliability, ece, brier, auroc, aurc, selective_accuracy_50, selective_accuracy_80, mean_confidence,
    confidence_entropy, coverage_answerable, searches, reads      numbers; what cannot be computed is absent
    undefined        name -> why it is absent
    intervals        name -> {n, low, high}; n is the denominator; no low and high where resamples do not vary
    quadrants        true_certain, false_uncertain, false_certain, true_uncertain      counts
    histogram        eleven of {confidence, right, wrong}
    risk_coverage    {confidence, coverage, risk} where answers of at least this confidence count
    worst_case       where rows had to be left out: the rates, had each of them been the worst case
    votes            {n, unscored, draws, curves: weighting -> [{samples, value, low, high}], difference}
    multiplier       [{step, value}]

Rows without a confidence (unparsed) or without a judgement (unscored) are counted and left out of everything else: a
missing confidence is never taken for certainty. Intervals resample groups; rates of independent rows have Wilson's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safeladder.algorithms import calibration as measures
from safeladder.algorithms.calibration import CUT, LEVELS
from safeladder.analysis.calibration_intervals import INTERVALS, Intervals, interval_of_rate, percentiles, resample
from safeladder.analysis.calibration_rows import Outcome
from safeladder.search.voting import Weighting, vote_curve
from safeladder.types import SafeladderError

_MOST_SAMPLES = 16
_FEW_SAMPLES = 4
_DRAWS = 64
_OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "ece": measures.ece,
    "brier": measures.brier,
    "auroc": measures.auroc,
    "aurc": measures.aurc,
    "selective_accuracy_50": lambda table: measures.selective_accuracy(table, 0.5),
    "selective_accuracy_80": lambda table: measures.selective_accuracy(table, 0.8),
    "mean_confidence": lambda table: (table.sum(-1) @ torch.arange(LEVELS).double()) / table.sum((-1, -2)),
    "confidence_entropy": measures.confidence_entropy,
}
_UNDEFINED = {
    "false_certain_given_wrong": "no answer is wrong",
    "false_certain_given_certain": "no answer is certain",
    "auroc": "needs right and wrong answers",
    "coverage_answerable": "no counted question is answerable",
}


def calibration_report(
    outcomes: Sequence[Outcome],
    *,
    cut: int = CUT,
    multiplier: Sequence[tuple[int, float]] = (),
    intervals: Intervals = INTERVALS,
) -> dict[str, Any]:
    """The report on some outcomes; its layout is this module's docstring.

    Args:
        outcomes: one a question.
        cut: an answer is certain where its confidence is above this, 0..9.
        multiplier: (step, lambda) of a constrained training run, to be drawn beside it.

    Raises:
        SafeladderError: an unusable cut, or no outcome that has both a judgement and a confidence.
    """
    if cut not in range(LEVELS - 1):
        raise SafeladderError(f"cut is {cut}; allowed: an integer from 0 to {LEVELS - 2}")
    counted = [o for o in outcomes if o.correct is not None and o.confidence is not None]
    unscored = sum(o.correct is None for o in outcomes)
    unparsed = len(outcomes) - len(counted) - unscored
    if not counted:
        raise SafeladderError(
            f"none of the {len(outcomes)} rows can be counted: {unparsed} have no confidence, {unscored} no judgement"
        )
    cells = [2 * (o.confidence or 0) + bool(o.correct) for o in counted]
    tables = _sums(counted, np.eye(2 * LEVELS)[cells])
    values, found = _measures(tables, cut, intervals)
    for name, (over, numbers) in _extras(outcomes, counted, cut).items():
        values[name], found[name] = _mean(over, numbers, rate=name == "coverage_answerable", intervals=intervals)
    table = torch.from_numpy(tables.sum(0)).view(LEVELS, 2)
    quadrants = {name: int(count) for name, count in measures.quadrants(table, cut)._asdict().items()}
    coverage, risk = measures.risk_coverage(table)
    report: dict[str, Any] = {
        "n": len(counted),
        "total": len(outcomes),
        "unparsed": unparsed,
        "unscored": unscored,
        "cut": cut,
        "level": intervals.level,
        **{name: value for name, value in values.items() if math.isfinite(value)},
        "undefined": {name: _UNDEFINED[name] for name, value in values.items() if not math.isfinite(value)},
        "intervals": {name: interval for name, interval in found.items() if interval},
        "quadrants": quadrants,
        "histogram": [{"confidence": c, "right": int(table[c, 1]), "wrong": int(table[c, 0])} for c in range(LEVELS)],
        "risk_coverage": [
            {"confidence": c, "coverage": float(coverage[c]), "risk": float(risk[c])}
            for c in range(LEVELS)
            if table[c].sum() > 0
        ],
    }
    if left_out := len(outcomes) - len(counted):
        report["worst_case"] = _worst_case(quadrants, left_out)
    if votes := _votes(outcomes, intervals):
        report["votes"] = votes
    if multiplier:
        report["multiplier"] = [{"step": step, "value": value} for step, value in multiplier]
    return report


def rates(tables: Tensor, cut: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Numerator and denominator of every rate, from tables [..., 11, 2]."""
    q = measures.quadrants(tables, cut)
    wrong, certain = q.false_certain + q.true_uncertain, q.false_certain + q.true_certain
    n = tables.sum((-1, -2))
    return {
        "accuracy": (q.true_certain + q.false_uncertain, n),
        "coverage": (certain, n),
        "false_certain": (q.false_certain, n),
        "false_certain_given_wrong": (q.false_certain, wrong),
        "false_certain_given_certain": (q.false_certain, certain),
        "reliability": (q.true_certain + q.true_uncertain, n),
    }


def _measures(
    tables: NDArray[np.float64], cut: int, intervals: Intervals
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Every measure of the tables [groups, 22], NaN where undefined, and the intervals of those that are defined."""
    draws = torch.from_numpy(resample(tables, intervals)).view(-1, LEVELS, 2)
    whole = torch.from_numpy(tables.sum(0)).view(LEVELS, 2)
    independent = bool((tables.sum(1) == 1).all())
    drawn, by_group = rates(draws, cut), rates(torch.from_numpy(tables).view(-1, LEVELS, 2), cut)
    values: dict[str, float] = {}
    found: dict[str, dict[str, float]] = {}
    for name, (part, of) in rates(whole, cut).items():
        values[name] = float(part / of)
        if of > 0:
            shares = None if independent else (drawn[name][0] / drawn[name][1]).numpy()
            holding = int((by_group[name][1] > 0).sum())
            found[name] = {"n": int(of), **interval_of_rate(values[name], shares, intervals, units=holding)}
    for name, measure in _OTHERS.items():
        values[name] = float(measure(whole))
        if math.isfinite(values[name]):
            found[name] = {"n": int(whole.sum()), **percentiles(values[name], measure(draws).numpy(), intervals)}
    return values, found


def _extras(
    outcomes: Sequence[Outcome], counted: Sequence[Outcome], cut: int
) -> dict[str, tuple[Sequence[Outcome], list[float]]]:
    """Quantities that the confidence table does not hold: outcomes and their values. What nobody gave is left out."""
    extras = {}
    if any(o.answerable is not None for o in outcomes):
        asked = [o for o in counted if o.answerable]
        extras["coverage_answerable"] = (asked, [float((o.confidence or 0) > cut) for o in asked])
    for name in ("searches", "reads"):
        known = [o for o in outcomes if getattr(o, name) is not None]
        if known:
            extras[name] = (known, [float(getattr(o, name)) for o in known])
    return extras


def _mean(
    outcomes: Sequence[Outcome], numbers: Sequence[float], *, rate: bool, intervals: Intervals
) -> tuple[float, dict[str, float]]:
    """A mean over outcomes and its interval; NaN over none."""
    if not numbers:
        return math.nan, {}
    tables = _sums(outcomes, np.stack([numbers, np.ones(len(numbers))], axis=1))
    value = float(np.mean(numbers))
    draws = resample(tables, intervals)
    shares = draws[:, 0] / draws[:, 1]
    if not rate:
        return value, {"n": len(numbers), **percentiles(value, shares, intervals)}
    independent = len(tables) == len(numbers)
    ends = interval_of_rate(value, None if independent else shares, intervals, units=len(tables))
    return value, {"n": len(numbers), **ends}


def _worst_case(quadrants: Mapping[str, int], left_out: int) -> dict[str, float]:
    """Rates over all rows, each row that was left out counted as wrong, and against the rate in question."""
    q, total = quadrants, sum(quadrants.values()) + left_out
    return {
        "accuracy": (q["true_certain"] + q["false_uncertain"]) / total,
        "coverage": (q["true_certain"] + q["false_certain"]) / total,
        "false_certain": (q["false_certain"] + left_out) / total,
        "reliability": (q["true_certain"] + q["true_uncertain"]) / total,
    }


def _votes(outcomes: Sequence[Outcome], intervals: Intervals) -> dict[str, Any] | None:
    sampled = [o for o in outcomes if o.ballots]
    judged = [o for o in sampled if all(b.answer is None or b.correct is not None for b in o.ballots)]
    if not judged:
        return None
    sizes = list(range(1, min(_MOST_SAMPLES, *(len(o.ballots) for o in judged)) + 1))
    names = get_args(Weighting)
    items = [o.ballots for o in judged]
    # One row an item: its chance of a right vote, weighting by weighting and size by size, and a 1 to count it.
    shares = [vote_curve(items, name, sizes, draws=_DRAWS, seed=intervals.seed) for name in names]
    rows = np.concatenate([*shares, np.ones((len(items), 1))], axis=1)
    draws = resample(_sums(judged, rows), intervals)
    sampled_means = (draws[:, :-1] / draws[:, -1:]).reshape(-1, len(names), len(sizes))
    means = rows[:, :-1].mean(0).reshape(len(names), len(sizes))

    def entry(value: float, values: NDArray[np.float64]) -> dict[str, float]:
        return {"value": value, **percentiles(value, values, intervals)}

    votes: dict[str, Any] = {
        "n": len(items),
        "unscored": len(sampled) - len(items),
        "draws": _DRAWS,
        "curves": {
            name: [{"samples": m, **entry(float(means[i, j]), sampled_means[:, i, j])} for j, m in enumerate(sizes)]
            for i, name in enumerate(names)
        },
    }
    if len(sizes) >= _FEW_SAMPLES:
        few, i, j = _FEW_SAMPLES - 1, names.index("confidence"), names.index("majority")
        value = float(means[i, few] - means[j, -1])
        votes["difference"] = {
            "confidence_samples": _FEW_SAMPLES,
            "majority_samples": sizes[-1],
            **entry(value, sampled_means[:, i, few] - sampled_means[:, j, -1]),
        }
    return votes


def _sums(outcomes: Sequence[Outcome], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows [outcomes, columns] summed by group [groups, columns]."""
    place: dict[object, int] = {}
    # An outcome without a group is its own: its number is no string, so it meets no other's name.
    keys = [i if o.group is None else o.group for i, o in enumerate(outcomes)]
    groups = np.array([place.setdefault(key, len(place)) for key in keys])
    sums = np.zeros((len(place), rows.shape[1]))
    np.add.at(sums, groups, rows)
    return sums
