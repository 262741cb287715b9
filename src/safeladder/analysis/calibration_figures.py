"""Figures of a calibration report. Lines differ in dashes and markers, bars in hatching, not in colour alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from safeladder.algorithms.calibration import LEVELS
from safeladder.analysis.figures import LIGHT, Theme, new_figure, png, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Report = Mapping[str, Any]

_VOTES = {
    "majority": ("majority", "s", "--"),
    "confidence": ("weighted by confidence", "o", "-"),
    "log_odds": ("weighted by log-odds", "^", ":"),
}
"""Weighting -> label, marker, dashes."""


def calibration_png(report: Report, theme: Theme = LIGHT) -> bytes:
    """Reliability diagram, histogram of confidences, risk-coverage curve, and what else the report holds: votes by
    number of samples, the trace of lambda. PNG bytes.

    Raises:
        SafeladderError: matplotlib is missing.
    """
    panels: list[Callable[[Axes, Report, Theme], None]] = [_reliability, _histogram, _risk_coverage]
    panels += [draw for key, draw in (("votes", _votes), ("multiplier", _multiplier)) if key in report]
    with themed(theme):
        columns = 2 if len(panels) == 4 else 3
        lines = math.ceil(len(panels) / columns)
        figure = new_figure(3.4 * columns, 3.0 * lines)
        for i, draw in enumerate(panels):
            draw(figure.add_subplot(lines, columns, i + 1), report, theme)
        return png(figure)


def _reliability(axes: Axes, report: Report, theme: Theme) -> None:
    """Share right at every stated confidence; the area of a point says how many answers it stands for."""
    seen = [row for row in report["histogram"] if row["right"] + row["wrong"]]
    sizes = [row["right"] + row["wrong"] for row in seen]
    axes.plot([0, 10], [0, 100], color=theme.muted, ls=(0, (5, 4)), lw=1, label="what was stated")
    axes.scatter(
        [row["confidence"] for row in seen],
        [100 * row["right"] / size for row, size in zip(seen, sizes, strict=True)],
        s=[18 + 240 * size / sum(sizes) for size in sizes],
        color=theme.accent,
        alpha=0.85,
        zorder=3,
        label="what was right",
    )
    _mark_cut(axes, report, theme)
    axes.set(title="Reliability", xlabel="stated confidence", ylabel="right, %", xlim=(-0.6, 10.6), ylim=(-4, 104))
    axes.set_xticks(range(LEVELS))
    axes.legend(fontsize=7, loc="upper left", markerscale=0.6)


def _histogram(axes: Axes, report: Report, theme: Theme) -> None:
    levels = [row["confidence"] for row in report["histogram"]]
    right = [row["right"] for row in report["histogram"]]
    wrong = [row["wrong"] for row in report["histogram"]]
    axes.set_axisbelow(True)
    axes.bar(levels, right, color=theme.series[0], label="right", width=0.8)
    axes.bar(
        levels, wrong, bottom=right, color=theme.page, edgecolor=theme.series[1], hatch="////", label="wrong", width=0.8
    )
    _mark_cut(axes, report, theme)
    axes.set(title="Stated confidences", xlabel="stated confidence", ylabel="answers", xlim=(-0.6, 10.6))
    axes.set_xticks(levels)
    axes.legend(fontsize=7)


def _risk_coverage(axes: Axes, report: Report, theme: Theme) -> None:
    curve = report["risk_coverage"]
    coverage, risk = [100 * row["coverage"] for row in curve], [100 * row["risk"] for row in curve]
    axes.plot(coverage, risk, color=theme.accent, marker="o", ms=4)
    for row, x, y in zip(curve, coverage, risk, strict=True):
        axes.annotate(f"≥{row['confidence']}", (x, y), xytext=(4, -9), textcoords="offset points", fontsize=7)
    axes.axhline(100 * (1 - report["accuracy"]), color=theme.muted, ls=(0, (5, 4)), lw=1)
    axes.set(
        title="Risk and coverage", xlabel="answered, %", ylabel="wrong among them, %", xlim=(0, 106), ylim=(-2, None)
    )


def _votes(axes: Axes, report: Report, theme: Theme) -> None:
    for (name, curve), colour in zip(report["votes"]["curves"].items(), theme.series, strict=False):
        label, marker, dashes = _VOTES[name]
        sizes, values = [row["samples"] for row in curve], [100 * row["value"] for row in curve]
        axes.plot(sizes, values, color=colour, marker=marker, ls=dashes, ms=4, label=label)
        if all("low" in row for row in curve):
            low, high = ([100 * row[end] for row in curve] for end in ("low", "high"))
            axes.fill_between(sizes, low, high, color=colour, alpha=0.12, lw=0)
    axes.set(title=f"Votes, n = {report['votes']['n']}", xlabel="samples that vote", ylabel="right, %")
    axes.set_xticks([m for m in (1, 2, 4, 8, 12, 16) if m <= len(sizes)])
    axes.legend(fontsize=7)


def _multiplier(axes: Axes, report: Report, theme: Theme) -> None:
    trace = report["multiplier"]
    axes.plot([row["step"] for row in trace], [row["value"] for row in trace], color=theme.accent, lw=1.6)
    axes.set(title="Multiplier λ", xlabel="training step", ylabel="λ", ylim=(0, None))


def _mark_cut(axes: Axes, report: Report, theme: Theme) -> None:
    """Where certainty begins."""
    edge = report["cut"] + 0.5
    axes.axvline(edge, color=theme.muted, ls=":", lw=1.2)
    axes.text(edge, 1.01, "certain →", transform=axes.get_xaxis_transform(), fontsize=7, color=theme.muted)
