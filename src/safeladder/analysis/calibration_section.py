"""The calibration report for people: as text, and as a section of the HTML report.

A rate of false certainty alone says nothing (a system that always states 0 has none): both always show accuracy,
coverage and AUROC beside it, and say of what it is a share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safeladder.analysis.calibration_figures import calibration_png
from safeladder.analysis.figures import DARK, LIGHT
from safeladder.analysis.page import Html, figure, fold, join, table, tag
from safeladder.analysis.results import format_number, format_percent

Report = Mapping[str, Any]

_RATES = {
    "accuracy": "accuracy",
    "coverage": "coverage: certain, of all answers",
    "coverage_answerable": "coverage: certain, of the answerable",
    "false_certain": "false-certain, of all answers",
    "false_certain_given_wrong": "false-certain, of the wrong answers",
    "false_certain_given_certain": "false-certain, of the certain answers",
    "reliability": "reliability: certain and right, or neither",
    "selective_accuracy_50": "accuracy of the most confident half",
    "selective_accuracy_80": "accuracy of the most confident 80 %",
}
_NUMBERS = {
    "auroc": "AUROC: confidence tells right from wrong",
    "ece": "expected calibration error, 10 bins",
    "brier": "Brier score",
    "aurc": "area under risk-coverage",
    "mean_confidence": "mean confidence, 0 to 10",
    "confidence_entropy": "entropy of confidences, nats (0 = collapsed)",
    "searches": "searches a question",
    "reads": "reads a question",
}
_COARSE = ("mean_confidence", "confidence_entropy", "searches", "reads")
_TITLES = _RATES | _NUMBERS
_QUADRANTS = {
    "true_certain": "right and certain",
    "false_uncertain": "right but uncertain",
    "false_certain": "wrong but certain",
    "true_uncertain": "wrong and uncertain",
}
_WEIGHTINGS = {"majority": "majority", "confidence": "by confidence", "log_odds": "by log-odds"}


def calibration_text(report: Report) -> str:
    """The report as lines of text."""
    width = max(len(title) for title in _TITLES.values())
    lines = [_counted(report), f"in brackets: {_level(report)} intervals", ""]
    lines += [f"{_TITLES[name]:<{width}}  {_said(report, name)}" for name in _shown(report)]
    lines += ["", ", ".join(f"{_QUADRANTS[name]} {count}" for name, count in report["quadrants"].items())]
    if "worst_case" in report:
        lines += [_worst(report)]
    if "votes" in report:
        lines += ["", *_vote_lines(report["votes"])]
    return "\n".join(lines)


def calibration_section(reports: Mapping[str, Report]) -> Html | None:
    """The section of the HTML report: every measure, a column a run, then the figures of each; None without runs.

    `reports` maps the name of a run (such as "adaptive λ" and "no constraint") to its `calibration_report`.

    Raises:
        SafeladderError: matplotlib is missing.
    """
    if not reports:
        return None
    names = [name for name in _TITLES if any(name in _shown(report) for report in reports.values())]
    level = _level(next(iter(reports.values())))
    quadrants = ([title, *(r["quadrants"][key] for r in reports.values())] for key, title in _QUADRANTS.items())
    parts: list[Html] = [
        *(tag("p", tag("strong", name), ": ", _counted(report)) for name, report in reports.items()),
        table(
            f"Calibration with {level} intervals. Low false certainty counts only beside accuracy, coverage and AUROC",
            ["measure", *reports],
            ([_TITLES[name], *(_cell(report, name) for report in reports.values())] for name in names),
        ),
        table("Answers by outcome and certainty", ["answers", *reports], quadrants),
        *(tag("p", tag("strong", name), ": ", _worst(r)) for name, r in reports.items() if "worst_case" in r),
    ]
    for i, (name, report) in enumerate(reports.items()):
        drawn = figure(
            calibration_png(report, LIGHT),
            calibration_png(report, DARK),
            f"Calibration of {name}: reliability, stated confidences, risk and coverage",
            "Reliability: points on the dashed line mean what they say; larger points stand for more answers. "
            "Risk and coverage: at each threshold the share "
            "answered and the share wrong among them; dashed, all answers.",
        )
        votes = [tag("p", line) for line in _vote_lines(report["votes"])] if "votes" in report else []
        parts.append(fold(f"Figures of {name}", drawn, *votes, is_open=i == 0))
    return join(parts)


def _shown(report: Report) -> list[str]:
    return [name for name in _TITLES if name in report or name in report["undefined"]]


def _level(report: Report) -> str:
    return f"{100 * report['level']:g} %"


def _counted(report: Report) -> str:
    text = f"{report['n']} of {report['total']} answers counted"
    if report["unparsed"]:
        text += f", {report['unparsed']} without a readable confidence"
    if report["unscored"]:
        text += f", {report['unscored']} not judged"
    return f"{text}; certain = confidence above {report['cut']} of 10"


def _format(name: str, value: float) -> str:
    return format_percent(value) if name in _RATES else format_number(value, 2 if name in _COARSE else 3)


def _interval(report: Report, name: str) -> str:
    interval = report["intervals"][name]
    if "low" not in interval:
        return "no interval: it does not vary"
    return f"{_format(name, interval['low']).removesuffix(' %')} to {_format(name, interval['high'])}"


def _said(report: Report, name: str) -> str:
    if name not in report:
        return f"undefined: {report['undefined'][name]}"
    n = report["intervals"][name]["n"]
    return f"{_format(name, report[name])} ({_interval(report, name)}), n = {n}"


def _cell(report: Report, name: str) -> object:
    if name not in report:
        return f"undefined: {report['undefined'][name]}" if name in report["undefined"] else "not measured"
    n = report["intervals"][name]["n"]
    small = tag("small", tag("div", _interval(report, name)), tag("div", f"n = {n}"))
    return join([_format(name, report[name]), small])


def _worst(report: Report) -> str:
    told = ", ".join(f"{name.replace('_', '-')} {format_percent(v)}" for name, v in report["worst_case"].items())
    return f"had each answer that could not be counted been the worst case, of all {report['total']}: {told}"


def _vote_lines(votes: Mapping[str, Any]) -> list[str]:
    lines = [
        f"votes on {votes['n']} questions ({votes['unscored']} more not judged), share right by samples that vote:"
    ]
    for name, curve in votes["curves"].items():
        points = [row for row in curve if row["samples"] in (1, 2, 4, 8, 16) or row is curve[-1]]
        lines.append(
            f"  {_WEIGHTINGS[name]}: " + ", ".join(f"{p['samples']}: {format_percent(p['value'])}" for p in points)
        )
    if "difference" in votes:
        d = votes["difference"]
        ends = f" ({_points(d['low'])} to {_points(d['high'])})" if "low" in d else ""
        lines.append(
            f"  by confidence with {d['confidence_samples']} minus majority with {d['majority_samples']}: "
            f"{_points(d['value'])}{ends} points"
        )
    return lines


def _points(share: float) -> str:
    number = format_number(100 * share)
    return number if number.startswith("-") else f"+{number}"
