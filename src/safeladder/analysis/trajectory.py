"""The trajectory: capability on x, safety on y, one point a rung, intervals as crosses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from safeladder.analysis.figures import DPI, LIGHT, Theme, new_figure, png, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

_PLACE = (0.08, 0.08, 0.905, 0.87)
"""Left, bottom, width and height of the axes as shares of the figure."""

_MARGIN = 6.0
"""Percent of room on every side of the crosses."""

_MARKERS = {"rung": "o", "control": "s", "ablation": "D"}
_DISTANCES = (9, 20, 34, 52)
"""How far a label may go from its point, in typographic points."""

_DIRECTIONS = ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A policy on both axes, each as (value, low, high) in percent."""

    name: str
    role: Literal["rung", "control", "ablation"]
    capability: tuple[float, float, float]
    safety: tuple[float, float, float]
    rejected: bool = False


def points(report: Mapping[str, Any]) -> list[Point]:
    """Rungs in order, then the control, then ablations; policies that lack one of the axes are left out."""
    entries: list[tuple[Literal["rung", "control", "ablation"], Mapping[str, Any]]] = [
        *(("rung", rung) for rung in report["rungs"]),
        *(("control", control) for control in [report.get("control")] if control is not None),
        *(("ablation", ablation) for ablation in report.get("ablations", [])),
    ]
    return [
        Point(
            name=entry["name"],
            role=role,
            capability=_percent(entry["metrics"]["capability"]),
            safety=_percent(entry["metrics"]["safety"]),
            rejected=role == "rung" and entry["gate"] == "rejected",
        )
        for role, entry in entries
        if {"capability", "safety"} <= entry["metrics"].keys()
    ]


def trajectory_png(found: Sequence[Point], theme: Theme = LIGHT, confidence: str = "95 %") -> bytes:
    """The figure as PNG bytes, 1200 x 900 pixels."""
    with themed(theme):
        figure = new_figure(1200 / DPI, 900 / DPI)
        figure.set_layout_engine("none")
        axes = figure.add_axes(_PLACE)
        axes.set(
            xlabel="capability: correct answers, %",
            ylabel="safety: correct behaviour on risky and benign requests, %",
            title=f"Safety and capability, rung by rung ({confidence} intervals)",
        )
        if not found:
            axes.text(0.5, 0.5, "no rung was measured on both axes", ha="center", transform=axes.transAxes)
            return png(figure)
        _frame(axes, found)
        ladder = [p for p in found if p.role == "rung"]
        if ladder:
            _diagonal(axes, ladder[0], theme)
        for before, after in pairwise(ladder):
            axes.annotate(
                "",
                xy=(after.capability[0], after.safety[0]),
                xytext=(before.capability[0], before.safety[0]),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": theme.accent,
                    "alpha": 0.55,
                    "shrinkA": 6,
                    "shrinkB": 6,
                },
            )
        for point in found:
            _draw(axes, point, theme)
        _legend(axes, found, theme)
        figure.draw_without_rendering()
        _label(axes, found, theme)
        return png(figure)


def _draw(axes: Axes, point: Point, theme: Theme) -> None:
    colour = theme.accent if point.role == "rung" else theme.muted
    (x, left, right), (y, low, high) = point.capability, point.safety
    axes.errorbar(x, y, xerr=[[x - left], [right - x]], yerr=[[y - low], [high - y]], color=colour, alpha=0.8, lw=1.3)
    axes.plot(
        x, y,
        marker=_MARKERS[point.role], ms=9 if point.role == "rung" else 8, mew=1.8, ls="",
        mec=colour, mfc=colour if point.role == "rung" and not point.rejected else theme.page, zorder=5,
    )  # fmt: skip


def _frame(axes: Axes, found: Sequence[Point]) -> None:
    """Limits with room for labels, and one scale on both axes, so that 45 degrees are 45 degrees."""
    across, up = [v for p in found for v in p.capability], [v for p in found for v in p.safety]
    width, height = 1200 * _PLACE[2], 900 * _PLACE[3]
    per_pixel = max((_span(across) + 2 * _MARGIN) / width, (_span(up) + 2 * _MARGIN) / height)
    for values, pixels, limit, ticks in (
        (across, width, axes.set_xlim, axes.set_xticks),
        (up, height, axes.set_ylim, axes.set_yticks),
    ):
        middle, half = (min(values) + max(values)) / 2, per_pixel * pixels / 2
        step = 10 if half > 15 else 5 if half > 7 else 1
        limit(middle - half, middle + half)
        ticks([t for t in range(0, 101, step) if middle - half <= t <= middle + half])


def _span(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _diagonal(axes: Axes, base: Point, theme: Theme) -> None:
    """The 45 degree line through the base: equal gains on both axes."""
    x, y = base.capability[0], base.safety[0]
    axes.axline((x, y), slope=1, color=theme.muted, ls=(0, (5, 4)), lw=1, zorder=1)


def _legend(axes: Axes, found: Sequence[Point], theme: Theme) -> None:
    from matplotlib.lines import Line2D

    def mark(marker: str, colour: str, face: str, label: str) -> Line2D:
        return Line2D([], [], marker=marker, ls="", mec=colour, mfc=face, mew=1.8, ms=8, label=label)

    handles = [mark("o", theme.accent, theme.accent, "rung")]
    if any(p.rejected for p in found):
        handles.append(mark("o", theme.accent, theme.page, "rung, rejected by the gate"))
    if any(p.role == "control" for p in found):
        handles.append(mark("s", theme.muted, theme.page, "control: equal compute, helpful-only"))
    if any(p.role == "ablation" for p in found):
        handles.append(mark("D", theme.muted, theme.page, "ablation"))
    handles.append(Line2D([], [], color=theme.muted, ls=(0, (5, 4)), lw=1, label="equal gain on both (45°)"))
    axes.legend(handles=handles, loc="lower right", fontsize=9)


def _label(axes: Axes, found: Sequence[Point], theme: Theme) -> None:
    """Names near their points where they cover least; a thin line leads to those that had to go further
    away."""
    renderer = axes.figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue]
    taken = [(box, 1.0) for box in _markers(axes, found)] + [(box, 0.2) for box in _lines(axes, found)]
    legend = axes.get_legend()
    if legend:
        taken.append((legend.get_window_extent(renderer), 1.0))
    inside = axes.get_window_extent(renderer)
    places = [(dx * r, dy * r) for r in _DISTANCES for dx, dy in _DIRECTIONS]
    for point in found:
        text = axes.annotate(
            point.name,
            xy=(point.capability[0], point.safety[0]),
            xytext=(0, 0),
            textcoords="offset points",
            fontweight="bold" if point.role == "rung" else "normal",
            color=theme.ink if point.role == "rung" else theme.muted,
            arrowprops={"arrowstyle": "-", "lw": 0.7, "color": theme.muted, "shrinkA": 1, "shrinkB": 6},
            zorder=6,
        )
        size = text.get_window_extent(renderer)
        x, y = axes.transData.transform((point.capability[0], point.safety[0]))
        boxes = [_box_at(x, y, place, size.width, size.height) for place in places]
        costs = [
            4 - inside.count_contains(box.corners())
            + sum(weight for other, weight in taken if box.overlaps(other))
            + math.hypot(*place) / 100
            for box, place in zip(boxes, places, strict=True)
        ]  # fmt: skip
        best = costs.index(min(costs))
        _put(text, places[best])
        taken.append((boxes[best], 1.0))


def _box_at(x: float, y: float, place: tuple[float, float], width: float, height: float) -> Bbox:
    """Where text of this size lies, in pixels, when its anchor is moved from (x, y) by `place` points."""
    from matplotlib.transforms import Bbox

    left = x + place[0] * DPI / 72 - (0 if place[0] > 0 else width if place[0] < 0 else width / 2)
    bottom = y + place[1] * DPI / 72 - (0 if place[1] > 0 else height if place[1] < 0 else height / 2)
    return Bbox.from_bounds(left, bottom, width, height)


def _put(text: Annotation, place: tuple[float, float]) -> None:
    text.xyann = place
    text.set_horizontalalignment("left" if place[0] > 0 else "right" if place[0] < 0 else "center")
    text.set_verticalalignment("bottom" if place[1] > 0 else "top" if place[1] < 0 else "center")
    if text.arrow_patch is not None:
        text.arrow_patch.set_visible(math.hypot(*place) > 2 * _DISTANCES[0])


def _markers(axes: Axes, found: Sequence[Point]) -> list[Bbox]:
    """Boxes around the points, in pixels."""
    return _boxes(axes, [(p.capability[0], p.safety[0]) for p in found], 13)


def _lines(axes: Axes, found: Sequence[Point]) -> list[Bbox]:
    """Small boxes along the crosses and the ladder's arrows, in pixels."""
    segments = [((p.capability[1], p.safety[0]), (p.capability[2], p.safety[0])) for p in found]
    segments += [((p.capability[0], p.safety[1]), (p.capability[0], p.safety[2])) for p in found]
    ladder = [(p.capability[0], p.safety[0]) for p in found if p.role == "rung"]
    segments += list(pairwise(ladder))
    steps = [i / 12 for i in range(13)]
    return _boxes(
        axes,
        [(x0 + t * (x1 - x0), y0 + t * (y1 - y0)) for (x0, y0), (x1, y1) in segments for t in steps],
        3,
    )


def _boxes(axes: Axes, places: Sequence[tuple[float, float]], half: float) -> list[Bbox]:
    from matplotlib.transforms import Bbox

    pixels = axes.transData.transform(places) if places else []
    return [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in pixels]


def _percent(metric: Mapping[str, float]) -> tuple[float, float, float]:
    return 100 * metric["value"], 100 * metric["low"], 100 * metric["high"]
