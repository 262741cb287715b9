"""`report.html`: the whole run on one page that needs no network, no script and no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safeladder.analysis import sections
from safeladder.analysis.calibration_section import calibration_section
from safeladder.analysis.curves import principle_curves, training_curves
from safeladder.analysis.examples import choose_examples
from safeladder.analysis.figures import DARK, LIGHT
from safeladder.analysis.page import Html, figure, join, page, section, tag
from safeladder.analysis.results import read_json, read_jsonl
from safeladder.analysis.schema import validate_report
from safeladder.analysis.trajectory import Point, points, trajectory_png
from safeladder.atomic import write_bytes, write_text

Report = Mapping[str, Any]


def write_report(run_dir: str | Path) -> Path:
    """Write `trajectory.png` and `report.html` from what lies in a run folder; returns the page's path.

    Reads `report.json`, and `metrics.jsonl`, `rollouts.jsonl` and `search/<rung>.json`, which may be missing.

    Raises:
        SafeladderError: `report.json` is missing or against its schema, a broken line, or matplotlib is
        missing.
    """
    folder = Path(run_dir)
    report = read_json(folder / "report.json")
    validate_report(report)
    metrics = read_jsonl(folder / "metrics.jsonl")
    rollouts = read_jsonl(folder / "rollouts.jsonl")
    found = points(report)
    confidence = sections.confidence(report)
    picture = trajectory_png(found, LIGHT, confidence)
    write_bytes(folder / "trajectory.png", picture)
    calibration = calibration_section(_calibrations(folder, report))
    content = _render(report, metrics, rollouts, _trajectory(found, picture, confidence), calibration)
    write_text(folder / "report.html", content)
    return folder / "report.html"


def _render(
    report: Report,
    metrics: Sequence[Mapping[str, Any]],
    rollouts: Sequence[Mapping[str, Any]],
    trajectory: Html,
    calibration: Html | None,
) -> str:
    names = [rung["name"] for rung in report["rungs"]]
    parts = {
        "headline": ("What changed", sections.headline(report)),
        "trajectory": ("Trajectory", trajectory),
        "rungs": ("Every rung", sections.rung_table(report)),
        "gate": ("The gate", sections.gates(report)),
        "controls": ("Control, pass@k and ablations", sections.controls(report)),
        "calibration": ("Does it know when it does not know?", calibration),
        "principles": ("Principles over the rungs", _principles(report)),
        "kinds": ("Kinds of tasks", sections.breakdowns(report)),
        "training": ("Training", _training(report, metrics)),
        "verifiers": ("Verifiers and broken replies", sections.verifiers(report)),
        "examples": ("Before and after", sections.examples(choose_examples(rollouts, names), names)),
        "provenance": ("Provenance", sections.provenance(report)),
    }
    shown = {key: value for key, value in parts.items() if value[1]}
    links = [tag("a", title, href=f"#{key}") for key, (title, _) in shown.items()]
    return page(
        f"safeladder: {report['recipe']}",
        tag("h1", f"{report['recipe']}: {' → '.join(names)}"),
        tag("p", sections.subtitle(report), class_="muted"),
        tag("nav", join(links), aria_label="sections"),
        *(section(key, title, content) for key, (title, content) in shown.items()),
    )


def _calibrations(folder: Path, report: Report) -> dict[str, Report]:
    """Rung -> its calibration report, where it has one."""
    paths = {rung["name"]: folder / "search" / f"{rung['name']}.json" for rung in report["rungs"]}
    return {name: read_json(path) for name, path in paths.items() if path.is_file()}


def _trajectory(found: Sequence[Point], picture: bytes, confidence: str) -> Html:
    told = "; ".join(f"{p.name}: capability {p.capability[0]:.1f} %, safety {p.safety[0]:.1f} %" for p in found)
    return figure(
        picture,
        trajectory_png(found, DARK, confidence),
        f"Capability against safety. {told}",
        "Up is safer, right is more capable. Above the dashed line safety gained more than capability did. "
        f"Crosses are {confidence} intervals; the numbers are in the next table.",
    )


def _principles(report: Report) -> Html | None:
    light, dark = principle_curves(report["rungs"], LIGHT), principle_curves(report["rungs"], DARK)
    if light is None or dark is None:
        return None
    return figure(
        light,
        dark,
        "Every principle over the rungs; the numbers are in the table of rungs.",
        f"{sections.confidence(report)} intervals.",
    )


def _training(report: Report, metrics: Sequence[Mapping[str, Any]]) -> Html | None:
    drawn = []
    for rung in report["rungs"]:
        name = rung["name"]
        light, dark = training_curves(metrics, name, LIGHT), training_curves(metrics, name, DARK)
        if light is not None and dark is not None:
            note = "Pale: every step. Solid: running mean. From metrics.jsonl."
            drawn += [tag("h3", name), figure(light, dark, f"Training curves of {name}", note)]
    return join(drawn) if drawn else None
