"""Measuring a rung: Inspect on held-out items, intervals, the gate, and what later rungs are compared with."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safeladder.analysis.results import RungResult, read_json, read_jsonl
from safeladder.config import Recipe
from safeladder.evaluation.gate import compare_all, gate
from safeladder.evaluation.metrics import Bootstrap, pass_rate
from safeladder.evaluation.principles import breakdowns, counts, measure, outcome, verifier_scores
from safeladder.evaluation.tasks import run_inspect
from safeladder.rollout.collect import collect
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.parse import ResponseFormat
from safeladder.rollout.record import rollout_row
from safeladder.training.sft import TrainingCost
from safeladder.types import Rollout, SafeladderError, Sample, SamplingParams, Score, StopReason
from safeladder.verifiers import Router

_PRINCIPLES = ("capability", "safety")
_PICTURES = 40
"""Evaluation rows per rung that carry their image, for the report's examples."""


def bootstrap(recipe: Recipe) -> Bootstrap:
    """How this run computes intervals."""
    settings = recipe.evaluation
    return Bootstrap(confidence=settings.confidence, resamples=settings.bootstrap, seed=recipe.seed)


def rung(
    recipe: Recipe,
    folder: Path,
    name: str,
    engine: LocalEngine,
    held_out: Sequence[Sample],
    judge: Router,
    response_format: ResponseFormat,
    checkpoint: Path,
) -> tuple[list[Rollout], Path]:
    """Greedy replies to every held-out item, judged, and the Inspect log."""
    logs = folder / "logs"
    for old in logs.glob(f"*_{name.replace('_', '-')}_*.eval"):  # of an evaluation that was cut short
        old.unlink()
    return run_inspect(
        engine,
        held_out,
        name=name,
        log_dir=logs,
        params=SamplingParams(max_new_tokens=recipe.evaluation.max_new_tokens, temperature=0.0),
        format=response_format,
        judge=lambda rollouts: judge.judge(rollouts)[0],
        checkpoint=checkpoint,
        seed=recipe.seed,
        batch_size=256,
    )


def result(
    recipe: Recipe,
    name: str,
    rollouts: Sequence[Rollout],
    before: Sequence[Rollout] | None,
    cost: TrainingCost,
    log: Path,
    searched: Mapping[str, Mapping[str, Any]] | None = None,
) -> RungResult:
    """Metrics, tables, and the gate against the rung this one started from; `searched` are a search rung's own."""
    how = bootstrap(recipe)
    differences = {} if before is None else compare_all(before, rollouts, bootstrap=how)
    verdict = gate(differences) if before is not None else None
    return RungResult(
        name=name,
        checkpoint=f"checkpoints/{name}",
        train_seconds=cost.seconds,
        train_flops=cost.flops,
        gate=verdict.verdict if verdict else "accepted",
        gate_reasons=verdict.reasons if verdict else ("the starting point",),
        metrics={**{k: metric.to_json() for k, metric in measure(rollouts, bootstrap=how).items()}, **(searched or {})},
        comparisons={key: difference.to_json() for key, difference in differences.items()},
        breakdowns={
            table: {row: metric.to_json() for row, metric in rows.items()}
            for table, rows in breakdowns(rollouts, bootstrap=how).items()
        },
        verifier_scores=verifier_scores(rollouts, bootstrap=how),
        counts=counts(rollouts),
        log=f"logs/{log.name}",
    )


def headline(
    recipe: Recipe, rollouts: dict[str, list[Rollout]], rungs: Sequence[RungResult]
) -> dict[str, dict[str, Any]]:
    """Paired differences between the first and the last rung."""
    if len(rungs) < 2:
        return {}
    differences = compare_all(rollouts[rungs[0].name], rollouts[rungs[-1].name], bootstrap=bootstrap(recipe))
    return {key: difference.to_json() for key, difference in differences.items()}


def pass_at_k(
    recipe: Recipe, engine: LocalEngine, held_out: Sequence[Sample], judge: Router, response_format: ResponseFormat
) -> dict[str, dict[str, Any]]:
    """pass@1 and pass@k of a policy by principle: how much of the ladder's gain its samples already hold."""
    settings = recipe.evaluation
    k = settings.pass_at_k
    step = max(1, len(held_out) // settings.pass_at_k_samples)
    samples = list(held_out)[::step]
    params = SamplingParams(max_new_tokens=settings.max_new_tokens, temperature=1.0, n=k)
    correct: dict[str, dict[str, list[bool]]] = defaultdict(dict)
    for group in collect(engine, samples, params, response_format, seed=recipe.seed):
        verdicts = [outcome(r) for r in judge.judge(group)[0]]
        principle = verdicts[0].principle
        if principle in _PRINCIPLES:
            correct[principle][group[0].sample.id] = [v.correct == 1.0 for v in verdicts]
    table: dict[str, dict[str, Any]] = {}
    for principle, rows in sorted(correct.items()):
        found = {f"pass@{n}": pass_rate(rows, n, bootstrap=bootstrap(recipe)) for n in (1, k)}
        table[principle] = {name: metric.to_json() for name, metric in found.items() if metric is not None}
    return table


def read_pass_at_k(folder: Path) -> dict[str, dict[str, Any]] | None:
    """What `pass_at_k` found earlier in this run."""
    path = folder / "rungs" / "pass-at-k.json"
    return read_json(path) if path.is_file() else None


def keep(folder: Path, name: str, rollouts: Sequence[Rollout]) -> None:
    """Add a rung's evaluation to rollouts.jsonl."""
    step = max(1, len(rollouts) // _PICTURES)
    with open(folder / "rollouts.jsonl", "a", encoding="utf-8") as file:
        for number, rollout in enumerate(rollouts):
            row = rollout_row(rollout, rung=name, with_image=number % step == 0)
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def reload(folder: Path, name: str, held_out: Sequence[Sample], response_format: ResponseFormat) -> list[Rollout]:
    """A finished rung's evaluation, read back for paired comparisons.

    Raises:
        SafeladderError: rollouts.jsonl no longer covers the held-out items.
    """
    rows = {
        row["sample_id"]: row
        for row in read_jsonl(folder / "rollouts.jsonl")
        if row["rung"] == name and row["step"] is None
    }
    missing = [sample.id for sample in held_out if sample.id not in rows]
    if missing:
        raise SafeladderError(
            f"{folder / 'rollouts.jsonl'} lacks {len(missing)} evaluated items of rung {name}; "
            f"remove {folder / 'rungs' / (name + '.json')} to evaluate it again"
        )
    return [_restore(sample, rows[sample.id], response_format) for sample in held_out]


def _restore(sample: Sample, row: dict[str, Any], response_format: ResponseFormat) -> Rollout:
    reason = StopReason(row["stop_reason"])
    count = row["tokens"]
    return Rollout(
        sample=sample,
        prompt_ids=(),
        token_ids=(0,) * count,
        logprobs=(0.0,) * count,
        action_mask=(1,) * count,
        stop_reason=reason,
        text=row["text"],
        response=response_format.parse(row["text"], reason),
        scores={
            name: Score(value=s["value"], label=s["label"], parse_ok=s["value"] is not None)
            for name, s in row["scores"].items()
        },
        reward=row["reward"],
    )
