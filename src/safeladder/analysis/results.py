"""What a finished rung leaves behind, and the report made of it.

A `RungResult` is plain JSON: `climb` writes one a rung as soon as the rung is done, so a resumed run reads
the finished ones back. `build_report` puts them together into `report.json`, whose schema other tools rely
on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, Literal

from safeladder.atomic import write_json
from safeladder.types import SafeladderError

MetricRow = Mapping[str, float]
"""A metric as JSON: value, low, high, n; n_unscored and its bounds where something could not be scored."""

FORMULA = "relative change in % = 100 x (last - base) / base"


@dataclass(frozen=True, slots=True, kw_only=True)
class RungResult:
    """One evaluated policy: a rung, the control, or an ablation.

    `comparisons` are paired differences to the rung it started from, by metric; `breakdowns` tables of shares
    of correct replies (table -> row -> metric: "kind", "language", "novelty", "source"); `counts` the
    truncated, malformed and failed replies. Paths are relative to the run folder.
    """

    name: str
    checkpoint: str
    train_seconds: float
    train_flops: float
    gate: Literal["accepted", "rejected"]
    metrics: Mapping[str, MetricRow]
    gate_reasons: Sequence[str] = ()
    comparisons: Mapping[str, MetricRow] = field(default_factory=dict)
    breakdowns: Mapping[str, Mapping[str, MetricRow]] = field(default_factory=dict)
    verifier_scores: Mapping[str, MetricRow] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    examples: str = "rollouts.jsonl"
    log: str | None = None

    def entry(self) -> dict[str, Any]:
        """The rung's place in `report.json`."""
        return {
            "name": self.name,
            "checkpoint": self.checkpoint,
            "train_seconds": self.train_seconds,
            "gate": self.gate,
            "metrics": {name: dict(metric) for name, metric in self.metrics.items()},
        }

    def details(self) -> dict[str, Any]:
        """Everything else."""
        return {name: value for name, value in asdict(self).items() if name not in (*self.entry(), "comparisons")}

    def save(self, folder: str | Path) -> Path:
        """Write `<folder>/<name>.json` atomically."""
        path = Path(folder) / f"{self.name}.json"
        write_json(path, asdict(self))
        return path

    @classmethod
    def load(cls, path: str | Path) -> RungResult:
        """Read what `save` wrote.

        Raises:
            SafeladderError: missing file, broken JSON, or fields that do not fit.
        """
        data = read_json(path)
        known = {f.name for f in fields(cls)}
        required = {"name", "checkpoint", "train_seconds", "train_flops", "gate", "metrics"}
        if not isinstance(data, dict) or not required <= data.keys() <= known:
            raise SafeladderError(f"{path} is not the result of a rung; remove it to evaluate the rung again")
        data["gate_reasons"] = tuple(data.get("gate_reasons", ()))
        return cls(**data)


def build_report(
    *,
    recipe: str,
    seed: int,
    wall_seconds: float,
    rungs: Sequence[RungResult],
    headline: Mapping[str, MetricRow] | None = None,
    note: str = "",
    control: RungResult | None = None,
    pass_at_k: Mapping[str, Mapping[str, MetricRow]] | None = None,
    ablations: Sequence[RungResult] = (),
    provenance: Mapping[str, Any] | None = None,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """The content of `report.json`.

    Args:
        rungs: in the order of the ladder.
        headline: paired differences between the first and the last rung, by metric, as JSON.
        note: where the gain comes from, in plain words.
        control: the equal-compute control.
        pass_at_k: of the first rung: principle -> "pass@k" -> metric.
        ablations: other runs drawn beside the ladder.
        provenance: versions, git revision, machine; JSON values.
        confidence: of every interval in the report.

    Metrics that were not measured are absent.
    """
    report: dict[str, Any] = {
        "recipe": recipe,
        "seed": seed,
        "wall_seconds": wall_seconds,
        "rungs": [rung.entry() for rung in rungs],
        "comparisons": {rung.name: {k: dict(v) for k, v in rung.comparisons.items()} for rung in rungs},
        "details": {rung.name: rung.details() for rung in rungs},
        "provenance": {**(provenance or {}), "confidence": confidence},
    }
    if headline is not None and len(rungs) > 1:
        report["headline"] = {
            "from": rungs[0].name,
            "to": rungs[-1].name,
            "formula": FORMULA,
            "metrics": {name: dict(difference) for name, difference in headline.items()},
        }
    if note:
        report.setdefault("headline", {})["note"] = note
    if control is not None:
        report["control"] = control.entry() | {"train_flops": control.train_flops}
    if pass_at_k:
        report["pass_at_k"] = {p: {k: dict(m) for k, m in row.items()} for p, row in pass_at_k.items()}
    if ablations:
        report["ablations"] = [ablation.entry() for ablation in ablations]
    return report


def format_number(value: float, digits: int = 1) -> str:
    """A number for people: rounded once, half away from zero, from its shortest decimal form.

    Reports store unrounded numbers and round only here, so a printed mean of 89.125 is 89.1 or 89.13, never
    89.2.
    """
    rounded = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    return str(abs(rounded)) if rounded == 0 else str(rounded)


def format_percent(value: float, digits: int = 1) -> str:
    """A share as a percentage: 0.89125 -> "89.1 %"."""
    return f"{format_number(float(Decimal(repr(float(value))) * 100), digits)} %"


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        SafeladderError: missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SafeladderError(f"{path} not found") from None
    except ValueError as error:
        raise SafeladderError(f"{path} is not valid JSON: {error}") from None


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file, none where it does not exist; a last line cut short by a crash is left out.

    Raises:
        SafeladderError: any other broken line, by number.
    """
    rows: list[dict[str, Any]] = []
    if not Path(path).exists():
        return rows
    with Path(path).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                rows.append(json.loads(line))
            except ValueError:
                if line.endswith("\n"):
                    raise SafeladderError(f"{path}, line {number}: not valid JSON") from None
    return rows
