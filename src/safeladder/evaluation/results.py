"""`report.json` of a result folder, and the outcomes beside it that another folder can be compared with.

The layout is stable: docs/suites.md lists every key. A figure that could not be assessed has `metric` null, never 0.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safeladder import __version__
from safeladder.atomic import write_json, write_text
from safeladder.evaluation.replies import State
from safeladder.evaluation.subjects import Subject
from safeladder.evaluation.suites.bench import THINK
from safeladder.evaluation.suites.run import SuiteRun
from safeladder.evaluation.suites.suite import Figure
from safeladder.types import Rollout, SafeladderError

FORMAT = 1
REPORT = "report.json"
SUBJECT = "subject.json"
ITEMS = "items"


def suite_entry(run: SuiteRun, folder: Path, *, limit: int | None) -> dict[str, Any]:
    """A suite's part of `report.json`.

    Args:
        folder: the result folder; paths are written relative to it.
        limit: what was asked for with `--limit`.
    """
    bench, suite = run.bench, run.bench.suite
    published = suite.sizes.get(bench.subset)
    states = Counter(str(reply.state) for reply in run.replies)
    return {
        "suite": suite.name,
        "subset": bench.subset,
        "title": suite.title,
        "paper": suite.paper,
        "licence": suite.licence,
        "axis": suite.axis,
        "notes": list(suite.notes),
        "judge": bench.judge,
        "n": {"published": published, "in_files": bench.in_files, "evaluated": len(run.rollouts), "limit": limit},
        "complete": len(run.rollouts) == bench.in_files and published in (None, bench.in_files),
        "states": {str(state): states.get(state, 0) for state in State},
        "with_reasoning": sum(r.response is not None and r.response.reasoning is not None for r in run.rollouts),
        "coverage": {name: list(counts) for name, counts in coverage(run.rollouts).items()},
        "figures": [figure_row(figure, bench.judge) for figure in run.figures],
        "max_tokens": run.params.max_new_tokens,
        "tokens": {
            "input": sum(reply.input_tokens for reply in run.replies),
            "output": sum(reply.output_tokens for reply in run.replies),
        },
        "reused": run.reused,
        "seconds": run.seconds,
        "log": os.path.relpath(run.log, folder),
    }


def figure_row(figure: Figure, judge: str) -> dict[str, Any]:
    """A figure as JSON."""
    return {
        "name": figure.name,
        "group": list(figure.group),
        "better": figure.better,
        "part": "think" if figure.name.endswith(THINK) else "answer",
        "judge": judge,
        "note": figure.note,
        "metric": figure.metric.to_json() if figure.metric is not None else None,
    }


def coverage(rollouts: Sequence[Rollout]) -> dict[str, tuple[int, int]]:
    """Verifier -> (rollouts it scored, rollouts it was to score)."""
    scored: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for rollout in rollouts:
        for name, score in rollout.scores.items():
            asked[name] += 1
            scored[name] += score.parse_ok
    return {name: (scored[name], asked[name]) for name in asked}


def item_rows(run: SuiteRun) -> list[dict[str, Any]]:
    """A row a sample: its state, scores, and what it adds to each figure. No texts."""
    outcomes: dict[str, dict[str, float | None]] = {}
    for figure in run.figures:
        for id, value in (figure.outcomes or {}).items():
            outcomes.setdefault(id, {})[figure_key(figure.name, figure.group)] = value
    return [
        {
            "id": rollout.sample.id,
            "group": rollout.sample.group_id,
            "state": str(reply.state),
            "problem": reply.problem,
            "output_tokens": reply.output_tokens,
            "scores": {name: {"value": s.value, "label": s.label} for name, s in rollout.scores.items()},
            "outcomes": outcomes.get(rollout.sample.id, {}),
        }
        for rollout, reply in zip(run.rollouts, run.replies, strict=True)
    ]


def figure_key(name: str, group: Iterable[str]) -> str:
    """One line for a figure's name and group."""
    return " / ".join((name, *group))


def build_report(
    subject: Subject, suites: Sequence[Mapping[str, Any]], *, judge: str | None, self_judged: bool, seed: int
) -> dict[str, Any]:
    """`report.json`.

    Args:
        suites: entries of `suite_entry`.
        judge: the generative judge's name, None where all judges are offline.
        self_judged: the judge is the subject, and that was allowed.
    """
    return {
        "format": FORMAT,
        "safeladder": __version__,
        "model": {
            "kind": subject.kind,
            "name": subject.name,
            "identity": subject.identity,
            "revision": subject.revision,
            "arguments": dict(subject.arguments),
        },
        "judge": judge,
        "self_judged": self_judged,
        "seed": seed,
        "confidence": 0.95,
        "axes": axes(suites),
        "suites": [dict(entry) for entry in suites],
    }


def axes(suites: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Axis -> the mean of its suites' headlines, turned so that up is better, and the suites it is made of.

    Only headlines that are rates with a direction count. An axis without one has `value` null: not assessed.
    """
    found: dict[str, dict[str, float]] = {}
    for entry in suites:
        axis = found.setdefault(entry["axis"], {})
        first = entry["figures"][0]
        metric = first["metric"]
        if metric is not None and first["better"] != "neither" and 0.0 <= metric["value"] <= 1.0:
            name = f"{entry['suite']} ({entry['subset']})"
            axis[name] = metric["value"] if first["better"] == "higher" else 1.0 - metric["value"]
    return {
        axis: {"value": sum(values.values()) / len(values) if values else None, "suites": values}
        for axis, values in found.items()
    }


def claim(folder: Path, subject: Subject) -> None:
    """Make a result folder this subject's own: replies of two in one folder would end in one report.

    Raises:
        SafeladderError: it holds another subject's results.
    """
    path = folder / SUBJECT
    mine = {"kind": subject.kind, "name": subject.name, "identity": subject.identity}
    if not path.is_file():
        write_json(path, mine)
        return
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SafeladderError(f"{path} cannot be read: {error}") from None
    if theirs != subject.identity:
        raise SafeladderError(
            f"{folder} holds results of another model ({theirs}, not {subject.identity}): pass another --out DIR"
        )


def items_path(folder: Path, suite: str, subset: str) -> Path:
    """Where a subset's item rows lie."""
    return folder / ITEMS / f"{suite}.{subset}.jsonl"


def write_items(folder: Path, run: SuiteRun) -> None:
    """The subset's rows, all or nothing."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in item_rows(run)]
    write_text(items_path(folder, run.bench.suite.name, run.bench.subset), "\n".join(lines) + "\n")


def read_report(folder: Path) -> dict[str, Any]:
    """The report of a result folder.

    Raises:
        SafeladderError: there is none, or it is of another format.
    """
    path = folder / REPORT
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SafeladderError(f"{path} not found: {folder} is no result folder of `safeladder eval`") from None
    except (OSError, ValueError) as error:
        raise SafeladderError(f"{path} cannot be read: {error}") from None
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise SafeladderError(f"{path} is not a report of `safeladder eval` in format {FORMAT}")
    return report


def read_items(folder: Path, suite: str, subset: str) -> dict[str, dict[str, Any]]:
    """Item rows by id.

    Raises:
        SafeladderError: missing or damaged.
    """
    path = items_path(folder, suite, subset)
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {row["id"]: row for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SafeladderError(f"{path} cannot be read: {error}") from None
