"""Inspect scorers made of our verifiers. Imports inspect_ai: reach it through `tasks` or `_registry`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from inspect_ai.model import ChatMessageAssistant, ContentReasoning
from inspect_ai.scorer import NOANSWER, Metric, SampleScore, Scorer, Target, Value, metric, scorer
from inspect_ai.scorer import Score as InspectScore
from inspect_ai.solver import TaskState

from safeladder.evaluation.batching import Batcher
from safeladder.evaluation.rollouts import Judge, judge_with
from safeladder.types import Message, Part, Response, Rollout, Sample, StopReason, Verifier

BATCH = 256
_TRUNCATED = ("max_tokens", "model_length")


@metric(scores="unreduced")
def verifier_means() -> Metric:
    """Mean score a verifier over the samples it scored, and how many it could not score (`NAME:unscored`)."""

    def compute(scores: list[SampleScore]) -> Value:
        found: dict[str, list[float]] = {}
        unscored: dict[str, int] = {}
        for sample in scores:
            values = sample.score.value
            for name, value in values.items() if isinstance(values, Mapping) else ():
                found.setdefault(name, [])
                if isinstance(value, int | float):
                    found[name].append(float(value))
                else:
                    unscored[name] = unscored.get(name, 0) + 1
        means: dict[str, str | int | float | bool | None] = {n: fmean(v) for n, v in found.items() if v}
        return means | {f"{name}:unscored": count for name, count in unscored.items()}

    return compute


@scorer(metrics=[verifier_means()], name="verifiers")
def verifier_scorer(verifiers: Sequence[Verifier]) -> Scorer:
    """One Inspect scorer from our verifiers, for any task and any model.

    The score's value maps each verifier to its number, or to no answer ("N") where it could not judge;
    labels, explanations and breakdowns are in the score's metadata. The sample's `label` (and anything else a
    verifier needs) is read from the sample's metadata, the reference from its target.
    """
    judged = Batcher[Rollout, Rollout](judge_with(verifiers), size=BATCH)

    async def score(state: TaskState, target: Target) -> InspectScore:
        return to_inspect(await judged(from_state(state, target)))

    return score


@scorer(metrics=[verifier_means()], name="verifiers")
def rollout_scorer(judge: Judge, rollouts: Mapping[str, Rollout], verdicts: dict[str, Rollout]) -> Scorer:
    """Scores the rollouts an attached provider made, token for token; judged ones are added to `verdicts`."""
    judged = Batcher[Rollout, Rollout](judge, size=BATCH)

    async def score(state: TaskState, target: Target) -> InspectScore:
        key = str(state.sample_id)
        verdicts[key] = await judged(rollouts[key])
        return to_inspect(verdicts[key])

    return score


def to_inspect(rollout: Rollout) -> InspectScore:
    """A judged rollout as an Inspect score."""
    answer = rollout.response.answer if rollout.response else None
    if not rollout.scores:
        return InspectScore.unscored(reason="scoring_failed", answer=answer, explanation="no verifier is routed here")
    return InspectScore(
        value={name: NOANSWER if s.value is None else s.value for name, s in rollout.scores.items()},
        answer=answer,
        explanation="; ".join(
            f"{name}: {s.label or 'unlabelled'}" + (f" ({s.explanation})" if s.explanation else "")
            for name, s in rollout.scores.items()
        ),
        reason=None if rollout.response else "invalid_response_format",
        metadata={
            "reward": rollout.reward,
            "labels": {name: s.label for name, s in rollout.scores.items()},
            "breakdown": {name: dict(s.breakdown) for name, s in rollout.scores.items() if s.breakdown},
        },
    )


def from_state(state: TaskState, target: Target) -> Rollout:
    """What a model of any provider answered, as a rollout without token ids."""
    message = state.output.message if state.output.choices else ChatMessageAssistant(content="")
    parts = message.content if isinstance(message.content, list) else []
    reasoning = "".join(part.reasoning for part in parts if isinstance(part, ContentReasoning))
    answer = message.text.strip()
    reason = StopReason.EOS
    if state.output.error or not state.output.choices:
        reason = StopReason.ERROR
    elif state.output.stop_reason in _TRUNCATED:
        reason = StopReason.LENGTH
    complete = reason is StopReason.EOS and bool(answer)
    meta = dict(state.metadata)
    return Rollout(
        sample=Sample(
            id=str(state.sample_id),
            messages=(Message(role="user", parts=(Part(text=state.input_text),)),),
            label=str(meta.get("label", "inspect")),
            reference=target.text or None,
            source=str(meta.get("source", "inspect")),
            language=str(meta.get("language", "en")),
            meta=meta,
        ),
        prompt_ids=(),
        token_ids=(),
        logprobs=(),
        action_mask=(),
        stop_reason=reason,
        text=answer,
        response=Response(answer=answer, reasoning=reasoning or None) if complete else None,
    )
