"""The schema of `report.json`, as a check."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from safeladder.types import SafeladderError

METRICS = (
    "safety",
    "capability",
    "value_alignment",
    "knowledge",
    "over_refusal",
    "response_tokens",
    "format",
    "accuracy",
    "reliability",
    "false_certain",
    "coverage_answerable",
    "searches",
    "reads",
)
"""Names a rung's metrics may have. All but `COUNTS` are in [0, 1]."""
COUNTS = ("response_tokens", "searches", "reads")

_SIGNED = frozenset({"reliability"})
_OPTIONAL = ("comparisons", "details", "provenance", "headline", "control", "pass_at_k", "ablations")


def validate_report(report: Any) -> None:
    """Check a report against the published schema.

    Raises:
        SafeladderError: the first thing that is wrong, by its path.
    """
    _mapping(report, "report")
    _keys(report, "report", ("recipe", "seed", "wall_seconds", "rungs"), _OPTIONAL)
    _check(isinstance(report["recipe"], str) and report["recipe"] != "", "report.recipe", "a name")
    _check(_is_integer(report["seed"]), "report.seed", "an integer")
    _check(_is_number(report["wall_seconds"]), "report.wall_seconds", "a number")
    _check(isinstance(report["rungs"], list) and report["rungs"] != [], "report.rungs", "a list of rungs")
    for i, rung in enumerate(report["rungs"]):
        _rung(rung, f"report.rungs[{i}]")
    names = [rung["name"] for rung in report["rungs"]]
    _check(len(set(names)) == len(names), "report.rungs", "rungs with different names")
    if "control" in report:
        _rung(report["control"], "report.control", ("train_flops",))
    for i, ablation in enumerate(report.get("ablations", [])):
        _rung(ablation, f"report.ablations[{i}]")
    for name, differences in _mapping(report.get("comparisons", {}), "report.comparisons").items():
        _differences(differences, f"report.comparisons.{name}")
    for principle, row in _mapping(report.get("pass_at_k", {}), "report.pass_at_k").items():
        for k, metric in _mapping(row, f"report.pass_at_k.{principle}").items():
            _metric(metric, f"report.pass_at_k.{principle}.{k}", principle)
    headline = _mapping(report.get("headline", {}), "report.headline")
    if "metrics" in headline:
        _check(headline.get("from") in names, "report.headline.from", "the name of a rung")
        _check(headline.get("to") in names, "report.headline.to", "the name of a rung")
        _check(isinstance(headline.get("formula"), str), "report.headline.formula", "the formula, as text")
        _differences(headline["metrics"], "report.headline.metrics")


def _rung(rung: Any, where: str, more: tuple[str, ...] = ()) -> None:
    _keys(_mapping(rung, where), where, ("name", "checkpoint", "train_seconds", "gate", "metrics", *more), ())
    _check(isinstance(rung["name"], str) and rung["name"] != "", f"{where}.name", "a name")
    _check(isinstance(rung["checkpoint"], str), f"{where}.checkpoint", "a path")
    _check(_is_number(rung["train_seconds"]), f"{where}.train_seconds", "a number")
    _check(rung["gate"] in ("accepted", "rejected"), f"{where}.gate", "accepted or rejected")
    for name, metric in _mapping(rung["metrics"], f"{where}.metrics").items():
        _check(name in METRICS, f"{where}.metrics.{name}", f"one of {', '.join(METRICS)}")
        _metric(metric, f"{where}.metrics.{name}", name)


def _metric(metric: Any, where: str, name: str) -> None:
    _keys(
        _mapping(metric, where),
        where,
        ("value", "low", "high", "n"),
        ("n_unscored", "if_all_fail", "if_all_pass"),
    )
    for key in ("value", "low", "high"):
        _check(_is_number(metric[key]), f"{where}.{key}", "a number")
    _check(metric["low"] <= metric["value"] <= metric["high"], where, "low <= value <= high")
    _check(_is_integer(metric["n"]) and metric["n"] > 0, f"{where}.n", "a positive integer (else leave it out)")
    if name not in COUNTS:
        lowest = -1.0 if name in _SIGNED else 0.0
        _check(lowest <= metric["low"] and metric["high"] <= 1.0, where, f"within {lowest:g}..1")


def _differences(differences: Any, where: str) -> None:
    for name, difference in _mapping(differences, where).items():
        at = f"{where}.{name}"
        _mapping(difference, at)
        for key in ("value", "low", "high", "n", "before", "after"):
            _check(_is_number(difference.get(key)), f"{at}.{key}", "a number")


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    _check(isinstance(value, Mapping), where, "an object")
    return value


def _keys(value: Mapping[str, Any], where: str, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    for key in required:
        _check(key in value, f"{where}.{key}", "present")
    for key in value:
        _check(key in required or key in optional, f"{where}.{key}", "absent (unknown key)")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(condition: bool, where: str, wanted: str) -> None:
    if not condition:
        raise SafeladderError(f"{where} must be {wanted}")
