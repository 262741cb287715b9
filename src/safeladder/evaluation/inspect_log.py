"""An Inspect log of rollouts that were made and judged without Inspect. Imports inspect_ai: reach it through `tasks`.

It holds what Inspect's own run of one generation and one scorer would leave for people: conversation, output, scores,
a model and a score event a sample, settings, usage and the scorer's metric.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import inspect_ai
from inspect_ai.event import ModelEvent, ScoreEvent
from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalPlan,
    EvalPlanStep,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    write_eval_log,
)
from inspect_ai.model import ChatMessageUser, GenerateConfig, ModelUsage
from inspect_ai.scorer import SampleScore

from safeladder.evaluation.provider import model_output
from safeladder.evaluation.scorers import to_inspect, verifier_means
from safeladder.rollout.parse import ResponseFormat
from safeladder.types import Part, Rollout, SamplingParams

_SCORER = "verifiers"


def write_log(
    judged: Sequence[Rollout],
    folder: Path,
    *,
    name: str,
    model: str,
    params: SamplingParams,
    seed: int,
    format: ResponseFormat,
    turns: bool,
    begun: datetime,
) -> Path:
    """Write the log of a whole evaluation; returns its path.

    Args:
        judged: one rollout a sample.
        name: of the task.
        model: its name, under which Inspect lists it as `safeladder/NAME`.
        params, seed: what the rollouts were made with.
        format, turns: see `model_output`.
        begun: when the evaluation began.
    """
    config = GenerateConfig(
        max_tokens=params.max_new_tokens,
        temperature=params.temperature,
        stop_seqs=list(params.stop) or None,
        seed=seed,
    )
    model = f"safeladder/{model}"
    samples = [_sample(rollout, model, config, format, turns=turns) for rollout in judged]
    mark, created, ended = uuid.uuid4().hex, *(t.isoformat(timespec="seconds") for t in (begun, datetime.now(UTC)))
    log = EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=mark,
            run_id=mark,
            task_id=mark,
            created=created,
            task=name,
            dataset=EvalDataset(name=name, samples=len(samples), sample_ids=[s.id for s in samples], shuffled=False),
            model=model,
            config=EvalConfig(epochs=1, fail_on_error=True),
            packages={"inspect_ai": inspect_ai.__version__},
        ),
        plan=EvalPlan(steps=[EvalPlanStep(solver="generate")], config=config),
        results=_results(samples),
        stats=EvalStats(
            started_at=created,
            completed_at=ended,
            model_usage={model: sum((s.model_usage[model] for s in samples), ModelUsage())},
        ),
        samples=samples,
    )
    folder.mkdir(parents=True, exist_ok=True)
    # As Inspect names its logs: when, what, and a mark of the run.
    path = folder / "_".join(re.sub("[_/:+]", "-", part) for part in (created, name, f"{mark}.eval"))
    write_eval_log(log, path)
    return path


def _sample(rollout: Rollout, model: str, config: GenerateConfig, format: ResponseFormat, *, turns: bool) -> EvalSample:
    sample = rollout.sample
    output = model_output([rollout], model.partition("/")[2], format, turns=turns)
    # Ids that need no random numbers: Inspect would draw a dozen a sample.
    asked = ChatMessageUser(id=f"{sample.id}/asked", content=_shown(rollout), source="input")
    output.message.id = f"{sample.id}/said"
    score, target = to_inspect(rollout), sample.reference or ""
    events = [
        ModelEvent(
            uuid=f"{sample.id}/model",
            model=model,
            input=[asked],
            tools=[],
            tool_choice="none",
            config=config,
            output=output,
        ),
        ScoreEvent(uuid=f"{sample.id}/score", score=score, target=target, scorer=_SCORER),
    ]
    return EvalSample(
        id=sample.id,
        epoch=1,
        uuid=f"{sample.id}/{uuid.uuid4().hex}",
        input=[asked],
        target=target,
        messages=[asked, output.message],
        output=output,
        scores={_SCORER: score},
        metadata={
            "label": sample.label,
            "kind": sample.meta.get("kind", sample.label),
            "language": sample.language,
            "source": sample.source,
            "group_id": sample.group_id,
        },
        events=events,
        model_usage={model: cast(ModelUsage, output.usage)},
        turn_count=1,
    )


def _shown(rollout: Rollout) -> str:
    """The conversation as one message."""
    turns = [(message.role, "".join(map(_part, message.parts))) for message in rollout.sample.messages]
    return turns[0][1] if len(turns) == 1 else "\n\n".join(f"[{role}] {said}" for role, said in turns)


def _part(part: Part) -> str:
    if part.text is not None:
        return part.text
    return "[image] " if part.image is not None else f"[video, {len(part.video or ())} frames] "


def _results(samples: Sequence[EvalSample]) -> EvalResults:
    """The scorer's metric over the samples that it could judge."""
    scores = [SampleScore(score=s.scores[_SCORER], sample_id=s.id) for s in samples if s.scores]
    scored = [found for found in scores if isinstance(found.score.value, dict)]
    means = cast(dict[str, float], cast(Any, verifier_means())(scored))
    metrics = {name: EvalMetric(name=name, group="verifier_means", value=float(mean)) for name, mean in means.items()}
    return EvalResults(
        total_samples=len(samples),
        completed_samples=len(samples),
        scores=[
            EvalScore(
                name=_SCORER,
                scorer=_SCORER,
                scored_samples=len(scored),
                unscored_samples=len(samples) - len(scored),
                metrics=metrics,
            )
        ],
    )
