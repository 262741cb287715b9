"""Curves: every principle over the rungs, and what training logged step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safeladder.analysis.figures import LIGHT, Theme, new_figure, png, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PRINCIPLES = {
    "safety": "safety, %",
    "capability": "capability, %",
    "value_alignment": "value alignment, %",
    "knowledge": "knowledge, %",
    "over_refusal": "over-refusal, % (lower is better)",
    "response_tokens": "tokens a reply (lower is cheaper)",
}
"""Metric -> panel title."""

_MOST_POINTS = 400
"""Longer curves are thinned before they are drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel of the training curves: its title and the logged keys it draws ("reward/" = every
    component)."""

    title: str
    keys: tuple[str, ...]


PANELS = (
    Panel(title="loss", keys=("loss",)),
    Panel(title="reward and outcome", keys=("reward", "outcome", "outcome_reward_divergence")),
    Panel(title="verifiers, mean score", keys=("reward/",)),
    Panel(title="tokens a reply", keys=("length",)),
    Panel(title="policy entropy, nats a token", keys=("entropy",)),
    Panel(title="engine-learner gap, mean |Δ logprob|", keys=("logprob_gap",)),
    Panel(title="broken replies, share", keys=("truncated", "malformed")),
    Panel(
        title="searches: right, reliable, falsely certain",
        keys=("search/accuracy", "search/reliability", "search/false_certain"),
    ),
    Panel(title="multiplier λ and violation", keys=("multiplier", "violation")),
    Panel(title="confidence: mean and entropy", keys=("search/confidence", "search/confidence_entropy")),
)
"""Keys of `metrics.jsonl` (one row a step, with `rung` and `step`). Panels without data are left out."""


def principle_curves(rungs: Sequence[Mapping[str, Any]], theme: Theme = LIGHT) -> bytes | None:
    """Every measured principle over the rungs of the report, as PNG; None where nothing was measured."""
    measured = [name for name in PRINCIPLES if any(name in rung["metrics"] for rung in rungs)]
    if not measured:
        return None
    with themed(theme):
        rows, columns = math.ceil(len(measured) / 3), min(3, len(measured))
        figure = new_figure(3.2 * columns, 2.7 * rows)
        for i, name in enumerate(measured):
            axes = figure.add_subplot(rows, columns, i + 1)
            scale = 1.0 if name == "response_tokens" else 100.0
            seen = [(x, rung["metrics"][name]) for x, rung in enumerate(rungs) if name in rung["metrics"]]
            values = [scale * m["value"] for _, m in seen]
            below = [scale * (m["value"] - m["low"]) for _, m in seen]
            above = [scale * (m["high"] - m["value"]) for _, m in seen]
            axes.errorbar(
                [x for x, _ in seen],
                values,
                yerr=[below, above],
                color=theme.series[i],
                marker="o",
                capsize=3,
            )
            axes.set_title(PRINCIPLES[name])
            axes.set_xticks(range(len(rungs)), [rung["name"] for rung in rungs], rotation=20, ha="right")
            axes.set_xlim(-0.3, len(rungs) - 0.7)
            axes.set_ylim(*((0, None) if name == "response_tokens" else (-4, 104)))
        return png(figure)


def training_curves(rows: Sequence[Mapping[str, Any]], rung: str, theme: Theme = LIGHT) -> bytes | None:
    """What training of one rung logged, as PNG; None where it logged nothing of `PANELS`."""
    own = [row for row in rows if row.get("rung") == rung and isinstance(row.get("step"), int)]
    drawn = [(panel, series) for panel in PANELS if (series := _series(own, panel))]
    if not drawn:
        return None
    with themed(theme):
        lines, columns = math.ceil(len(drawn) / 3), min(3, len(drawn))
        figure = new_figure(3.2 * columns, 2.5 * lines)
        for i, (panel, series) in enumerate(drawn):
            axes = figure.add_subplot(lines, columns, i + 1)
            for j, (name, steps, values) in enumerate(series):
                _draw(axes, name, steps, values, theme.series[j % len(theme.series)])
            axes.set_title(panel.title)
            axes.set_xlabel("step", fontsize=8)
            if len(series) > 1:
                axes.legend(fontsize=7)
        return png(figure)


def _series(rows: Sequence[Mapping[str, Any]], panel: Panel) -> list[tuple[str, list[int], list[float]]]:
    names: list[str] = []
    for key in panel.keys:
        if key.endswith("/"):
            names += sorted({name for row in rows for name in row if name.startswith(key)})
        else:
            names.append(key)
    found = []
    for name in names:
        pairs = [(row["step"], float(row[name])) for row in rows if _is_finite(row.get(name))]
        if pairs:
            thin = pairs[:: max(1, math.ceil(len(pairs) / _MOST_POINTS))]
            found.append((name.partition("/")[2] or name, [s for s, _ in thin], [v for _, v in thin]))
    return found


def _draw(axes: Axes, name: str, steps: Sequence[int], values: Sequence[float], colour: str) -> None:
    """The values pale, their running mean (a twentieth of the curve) solid."""
    width = max(1, len(values) // 20)
    smooth = [math.fsum(values[max(0, i - width + 1) : i + 1]) / min(i + 1, width) for i in range(len(values))]
    if width > 1:
        axes.plot(steps, values, color=colour, alpha=0.25, lw=1)
    axes.plot(
        steps,
        smooth,
        color=colour,
        lw=1.6,
        label=name.replace("_", " "),
        marker="o" if len(steps) == 1 else "",
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
