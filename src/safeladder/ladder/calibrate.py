"""Measuring a search rung: held-out questions searched for, and whether the stated confidence means anything.

Leaves `search/<rung>.jsonl`, a row a question (`safeladder search report` reads it), and `search/<rung>.json`, the
calibration report of these rows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeladder.analysis.calibration import calibration_report
from safeladder.analysis.calibration_intervals import Intervals
from safeladder.analysis.calibration_rows import read_outcomes
from safeladder.analysis.results import read_jsonl
from safeladder.atomic import write_json, write_text
from safeladder.config import Recipe, SearchRung
from safeladder.evaluation.tasks import run_inspect
from safeladder.ladder.searching import conduct
from safeladder.rollout.collect import collect
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.parse import ResponseFormat
from safeladder.search.environment import SearchEnvironment
from safeladder.search.trace import trace_of
from safeladder.training.parallel import Parallel
from safeladder.types import Rollout, Sample, StopReason
from safeladder.verifiers import Router
from safeladder.verifiers.search import verdict_on_answer

_LOG = logging.getLogger(__name__)

METRICS = ("accuracy", "reliability", "false_certain", "coverage_answerable", "searches", "reads")
"""What goes into the rung's metrics. `false_certain` is of all answers; the other denominators are in the report."""
_RATES = ("accuracy", "reliability", "false_certain")


Ballots = Mapping[str, Sequence[Mapping[str, Any]]]
"""Id of a question -> its sampled answers: answer, confidence, correct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutSearch:
    """A search rung's policy before the questions it is measured on.

    `place` answers it, `judge` knows what is right, `plain` is the format of single-turn replies (for the log).
    """

    recipe: Recipe
    rung: SearchRung
    engine: LocalEngine
    held_out: Sequence[Sample]
    place: SearchEnvironment
    judge: Router
    plain: ResponseFormat

    def vote(self, parallel: Parallel) -> Ballots:
        """Search many times for some of the questions. All processes take part, and get the whole."""
        settings = self.recipe.evaluation
        how = conduct(self.rung, self.place, temperature=self.rung.temperature, n=settings.votes)
        # Every so many, so that all sources and kinds are among them.
        stride = max(1, len(self.held_out) // max(1, settings.vote_samples))
        mine = parallel.shard(self.held_out[::stride][: settings.vote_samples])
        groups = collect(
            self.engine,
            mine,
            how.params,
            how.format,
            seed=self.recipe.seed,
            environment=how.environment,
            max_turns=how.max_turns,
        )
        judged = [self.judge.judge(group)[0] for group in groups]
        found = {sample.id: [_ballot(r) for r in group] for sample, group in zip(mine, judged, strict=True)}
        return {id: ballots for part in parallel.gather(found) for id, ballots in part.items()}

    def measure(self, folder: Path, name: str, checkpoint: Path, votes: Ballots) -> dict[str, dict[str, Any]]:
        """Search for every question greedily; write the rows, with their votes, and the report.

        Returns the rung's metrics; none where no search could be counted.
        """
        settings = self.recipe.evaluation
        rollouts = self._greedy(folder, name, checkpoint)
        rows = [row(rollout, votes.get(rollout.sample.id, ())) for rollout in rollouts]
        path = folder / "search" / f"{name}.jsonl"
        write_text(path, "".join(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in rows))
        path.with_suffix(".json").unlink(missing_ok=True)
        outcomes = read_outcomes(path)
        if all(o.correct is None or o.confidence is None for o in outcomes):
            _LOG.warning(
                "rung %s: not one of %d searches ended with a readable confidence and a verdict, so there is nothing "
                "to calibrate; see %s",
                name,
                len(outcomes),
                path,
            )
            return {}
        report = calibration_report(
            outcomes,
            cut=self.rung.constraint.cut,
            multiplier=list(_multipliers(folder, name)),
            intervals=Intervals(level=settings.confidence, resamples=settings.bootstrap, seed=self.recipe.seed),
        )
        write_json(path.with_suffix(".json"), report)
        return metrics(report, rows)

    def _greedy(self, folder: Path, name: str, checkpoint: Path) -> list[Rollout]:
        how = conduct(self.rung, self.place, temperature=0.0)
        logs = folder / "logs"
        for old in logs.glob(f"*_{name.replace('_', '-')}-search_*.eval"):  # of an evaluation that was cut short
            old.unlink()
        rollouts, _ = run_inspect(
            self.engine,
            self.held_out,
            name=f"{name}-search",
            log_dir=logs,
            params=how.params,
            format=self.plain,
            judge=lambda batch: self.judge.judge(batch)[0],
            checkpoint=checkpoint,
            seed=self.recipe.seed,
            batch_size=256,
            environment=how.environment,
            max_turns=how.max_turns,
            trace_format=how.format,
        )
        return rollouts


def row(rollout: Rollout, votes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A searched question as a row of `safeladder search report`, with the trace for people."""
    sample, trace = rollout.sample, trace_of(rollout)
    answerable = sample.meta.get("answerable")
    if sample.source == "world":
        answerable = sample.meta["truth"]["answerable"]
    found = {
        "id": sample.id,
        "kind": str(sample.meta.get("kind", sample.label)),
        "language": sample.language,
        "group": sample.group_id,
        "question": sample.question,
        "reference": sample.reference,
        **_ballot(rollout),
        "answerable": answerable if isinstance(answerable, bool) else None,
        "searches": trace.searches,
        "reads": trace.reads,
        "problem": trace.problem,
        "stop_reason": str(rollout.stop_reason),
        "trace": rollout.text,
        "observations": [observation.text for observation in rollout.observations],
    }
    return found | ({"samples": list(votes)} if votes else {})


def _ballot(rollout: Rollout) -> dict[str, Any]:
    """Answer, confidence and verdict: a malformed trace is wrong and states no confidence, a failed one is unknown."""
    response, confidence = rollout.response, rollout.confidence
    verdict = None if rollout.stop_reason is StopReason.ERROR else verdict_on_answer(rollout)
    return {
        "answer": response.answer if response else None,
        "confidence": None if confidence is None else int(confidence),
        "correct": None if verdict is None else verdict >= 0.5,
    }


def metrics(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The metrics of the rung as `report.json` has them; what is undefined is absent.

    Rows without a readable confidence or a judgement are `n_unscored`, with what a rate would be had all of them
    counted as 0 or as 1.
    """
    found: dict[str, dict[str, Any]] = {}
    left_out = report["total"] - report["n"]
    for name in METRICS:
        if name not in report:
            continue
        value, interval = report[name], report["intervals"].get(name, {})
        metric = {"value": value, "low": value, "high": value, "n": report["n"], **interval}
        if name in _RATES and left_out:
            passing = value * report["n"]
            metric |= {"if_all_fail": passing / report["total"], "if_all_pass": (passing + left_out) / report["total"]}
        asked = report["total"]
        if name == "coverage_answerable":
            asked = sum(row["answerable"] is True for row in rows)
        if asked > metric["n"]:
            metric["n_unscored"] = asked - metric["n"]
        found[name] = metric
    return found


def _multipliers(folder: Path, name: str) -> Iterator[tuple[int, float]]:
    for line in read_jsonl(folder / "metrics.jsonl"):
        if line["rung"] == name and isinstance(line.get("multiplier"), float):
            yield line["step"], line["multiplier"]
