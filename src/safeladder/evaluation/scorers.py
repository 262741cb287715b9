"""Inspect solvers and scorers made of our suites and verifiers.

Imports inspect_ai: reach it through `tasks`, `suites.run` or `_registry`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentReasoning,
    ContentText,
    ContentVideo,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.model import StopReason as InspectStop
from inspect_ai.scorer import NOANSWER, Metric, SampleScore, Scorer, Target, Value, metric, scorer
from inspect_ai.scorer import Score as InspectScore
from inspect_ai.solver import Generate, Solver, TaskState, solver
from PIL.Image import Image
from tenacity import RetryError

from safeladder.evaluation.batching import Batcher
from safeladder.evaluation.endpoint import data_address
from safeladder.evaluation.provider import FRAMES
from safeladder.evaluation.replies import Reply, State, from_row, read_reply, rollout_of, to_row
from safeladder.evaluation.rollouts import Judge, judge_with
from safeladder.evaluation.subjects import aliases_of
from safeladder.evaluation.suites.suite import Figure
from safeladder.types import Message, Part, Rollout, SafeladderError, Sample, StopReason, Verifier
from safeladder.types import Score as OurScore

Measure = Callable[[Sequence[Rollout]], Sequence[Figure]]
"""Judged rollouts -> figures."""

BATCH = 256
_PROBLEM = 300
"""Characters of a failure that are kept: a server may send back what it was asked."""
_KEPT = "safeladder_reply"
_TRUNCATED = ("max_tokens", "model_length")
_NO_ANSWER: Mapping[InspectStop, str] = {
    "content_filter": "a content filter stepped in",
    "tool_calls": "the model called a tool",
    "unknown": "nobody says why the reply ended",
}
_INSPECT_STOP: Mapping[State, InspectStop] = {State.TRUNCATED: "max_tokens", State.ERROR: "unknown"}


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
    meta = dict(state.metadata)
    sample = Sample(
        id=str(state.sample_id),
        messages=(Message(role="user", parts=(Part(text=state.input_text),)),),
        label=str(meta.get("label", "inspect")),
        reference=target.text or None,
        source=str(meta.get("source", "inspect")),
        language=str(meta.get("language", "en")),
        meta=meta,
    )
    return rollout_of(sample, reply_of(state.output))


def reply_of(output: ModelOutput) -> Reply:
    """A typed reply from any provider's output: typed reasoning where it has some, else the tags in its text."""
    kept = (output.metadata or {}).get(_KEPT)
    if kept is not None:
        return from_row(kept)
    problem = output.error or ("" if output.choices else "the model gave no choice")
    if not problem and output.stop_reason in _NO_ANSWER:
        problem = _NO_ANSWER[output.stop_reason]
    message = output.message if output.choices else ChatMessageAssistant(content="")
    parts = message.content if isinstance(message.content, list) else []
    thoughts = [part.reasoning or part.summary or "" for part in parts if isinstance(part, ContentReasoning)]
    usage = output.usage
    return read_reply(
        message.text,
        reasoning="\n".join(thoughts) if thoughts else None,
        truncated=output.choices != [] and output.stop_reason in _TRUNCATED,
        problem=problem,
        tokens=(usage.input_tokens, usage.output_tokens) if usage else (0, 0),
    )


def output_of(reply: Reply, model: str) -> ModelOutput:
    """An output that `reply_of` reads back as this reply: for replies that were kept, and for failures."""
    content: list[Content] = [ContentText(text=reply.answer)]
    if reply.reasoning is not None:
        content.insert(0, ContentReasoning(reasoning=reply.reasoning))
    asked, said = reply.input_tokens, reply.output_tokens
    return ModelOutput(
        model=model,
        choices=[
            ChatCompletionChoice(
                message=ChatMessageAssistant(content=content, model=model, source="generate"),
                stop_reason=_INSPECT_STOP.get(reply.state, "stop"),
            )
        ],
        usage=ModelUsage(input_tokens=asked, output_tokens=said, total_tokens=asked + said),
        error=reply.problem or None,
        metadata={_KEPT: to_row(reply)},
    )


@solver
def ask(recall: Callable[[str], Reply | None], keep: Callable[[str, Reply | Exception], None]) -> Solver:
    """Asks the model, unless `recall(sample id)` knows its reply; `keep(sample id, reply)` is told what it said.

    A request that fails for good becomes a reply in state `error`. A mistake of the user's ends the run.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        name, key = str(state.model), str(state.sample_id)
        kept = recall(key)
        if kept is not None:
            state.output = output_of(kept, name)
            state.messages.append(state.output.message)
            return state
        try:
            state = await generate(state)
            reply = reply_of(state.output)
        except SafeladderError as error:
            keep(key, error)
            raise
        except Exception as error:
            reply = read_reply("", problem=_cause(error))
            state.output = output_of(reply, name)
        keep(key, reply)
        return state

    return solve


def _cause(error: Exception) -> str:
    """What failed, in one line; of several tries the last."""
    last = error.last_attempt.exception() if isinstance(error, RetryError) else error
    return f"{type(last).__name__}: {last}"[:_PROBLEM]


@solver
def generate_unless(refused: Callable[[Sequence[str]], bool]) -> Solver:
    """Asks the model unless it is refused by its names: a judge must not judge itself."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        model = get_model()
        if refused(aliases_of(model)):
            raise SafeladderError(f"the judge is the judged model {model}; -T allow_self_judge=true permits it")
        return await generate(state)

    return solve


@scorer(metrics=[verifier_means()], name="verifiers")
def suite_scorer(sample_of: Callable[[str], Sample], judge: Judge, keep: Callable[[Rollout, Reply], None]) -> Scorer:
    """Judges replies to a suite's samples; `keep` is given every judged rollout and the reply it was made of."""
    judged = Batcher[Rollout, Rollout](judge, size=BATCH)

    async def score(state: TaskState, target: Target) -> InspectScore:
        reply = reply_of(state.output)
        rollout = await judged(rollout_of(sample_of(str(state.sample_id)), reply))
        keep(rollout, reply)
        found = to_inspect(rollout)
        found.metadata = {**(found.metadata or {}), "state": str(reply.state), "stop_reason": str(reply.stop_reason)}
        return found

    return score


@metric(scores="unreduced")
def suite_figures(sample_of: Callable[[str], Sample], measure: Measure) -> Metric:
    """The suite's figures of a whole subset; one that could not be assessed is absent."""

    def compute(scores: list[SampleScore]) -> Value:
        figures = measure([_rollout(sample_of(str(found.sample_id)), found.score) for found in scores])
        values: dict[str, str | int | float | bool | None] = {}
        for figure in figures:
            if not figure.group and figure.metric is not None:
                values[figure.name] = figure.metric.value
                values[f"{figure.name}:n"] = figure.metric.n
                if figure.metric.n_unscored:
                    values[f"{figure.name}:unscored"] = figure.metric.n_unscored
        return values

    return compute


def _rollout(sample: Sample, found: InspectScore) -> Rollout:
    """A judged rollout from what a log holds of it."""
    meta = found.metadata or {}
    values = found.value if isinstance(found.value, Mapping) else {}
    labels, details = meta.get("labels", {}), meta.get("breakdown", {})
    scores = {
        name: OurScore(value=float(value), label=labels.get(name, ""), breakdown=details.get(name, {}))
        if isinstance(value, int | float)
        else OurScore.unscored(found.explanation or "")
        for name, value in values.items()
    }
    reply = read_reply(found.answer or "", truncated=meta.get("stop_reason") == StopReason.LENGTH)
    if meta.get("stop_reason") == StopReason.ERROR:
        reply = read_reply("", problem="error")
    return replace(rollout_of(sample, reply), scores=scores)


def chat_messages(sample: Sample, *, frames_as_images: bool = False) -> list[ChatMessage]:
    """The sample's messages for a provider.

    An image file stays a path (providers read it); images in memory and video frames are inlined, PNG where they are
    not a file. `frames_as_images` sends a video as its frames, for providers that know no such videos.
    """
    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    messages: list[ChatMessage] = []
    for message in sample.messages:
        parts = [content for part in message.parts for content in _contents(part, frames_as_images)]
        only_text = all(isinstance(part, ContentText) for part in parts)
        messages.append(kinds[message.role](content=message.text if only_text else parts))
    return messages


def _contents(part: Part, frames_as_images: bool) -> list[Content]:
    if part.text is not None:
        return [ContentText(text=part.text)]
    if part.image is not None:
        return [ContentImage(image=part.image if isinstance(part.image, str) else _inline(part.image))]
    frames = [data_address(frame) if isinstance(frame, str) else _inline(frame) for frame in part.video or ()]
    if frames_as_images:
        return [ContentImage(image=frame) for frame in frames]
    data = ",".join(frame.partition(",")[2] for frame in frames)
    return [ContentVideo(video=f"{FRAMES},{data}", format="mp4")]


def _inline(image: Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)  # it travels once; time matters more than size
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
