"""Scores of every step of a reply: by the judges that come with the package, and by the served value models."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from safeladder.serving import api
from safeladder.serving.steered import Host
from safeladder.steering.editing import Prefill, extended, frozen, tokenizer_of
from safeladder.steering.steps import split_steps
from safeladder.steering.values import ValueModel
from safeladder.types import Engine, Response, Rollout, SafeladderError, Sample, Score, Verifier

_TOGETHER = 32
"""Beginnings of a reply that a verifier reads at a time."""


def shipped_verifiers() -> list[Verifier]:
    """The embedded judges: English text, no images."""
    from safeladder.verifiers.embedded import EmbeddedRefusal, EmbeddedSafety

    return [EmbeddedSafety(), EmbeddedRefusal()]


def score_names(host: Host, verifiers: Sequence[Verifier]) -> list[str]:
    """Names under `scores`."""
    values = next((joined.names for joined in host.guidance.values()), [])
    return [*(v.name for v in verifiers), *map(_name, values)]


def score_steps(
    verifiers: Sequence[Verifier],
    values: Sequence[ValueModel],
    engine: Engine,
    sample: Sample | None,
    reasoning: str,
    answer: str | None,
) -> api.StepsReply:
    """Split reasoning and score the reply up to the end of every step, then (with an answer) as a whole.

    Value models score nothing without a sample (None), and nothing that cannot be put behind its prompt.
    """
    steps = split_steps(reasoning)
    texts = [reasoning[: step.end] for step in steps]
    rows: list[dict[str, api.StepScore]] = [{} for _ in texts]
    whole: dict[str, api.StepScore] | None = None if answer is None else {}
    asked = sample or Sample(id="steps", label="chat", messages=())
    for verifier in verifiers:
        shown = [*texts, *([] if answer is None else [answer])]
        verdicts: list[api.StepScore] = []
        for at in range(0, len(shown), _TOGETHER):
            rollouts = [Rollout.of_text(asked, text, Response(answer=text)) for text in shown[at : at + _TOGETHER]]
            verdicts += map(_verdict, verifier.score(rollouts))
        for row, score in zip(rows, verdicts, strict=False):
            row[verifier.name] = score
        if whole is not None:
            whole[verifier.name] = verdicts[-1]
    if values:
        pieces = _pieces(engine, sample, [step.text for step in steps], answer)
        for model in values:
            found = [_value(model, sample, piece) for piece in pieces]
            for row, score in zip(rows, found, strict=False):
                row[_name(model.name)] = score
            if whole is not None:
                whole[_name(model.name)] = found[-1]
    return api.StepsReply(
        steps=[
            api.ScoredStep(step=number, text=step.text, start=step.start, end=step.end, scores=row)
            for number, (step, row) in enumerate(zip(steps, rows, strict=True), start=1)
        ],
        answer=whole,
    )


async def scored(
    host: Host, verifiers: Sequence[Verifier], sample: Sample | None, reasoning: str, answer: str | None
) -> api.StepsReply:
    """`score_steps` on a served model, on a thread. Cancel the task to give up."""

    def work(values: Sequence[ValueModel]) -> api.StepsReply:
        return score_steps(verifiers, values, host.engine, sample, reasoning, answer)

    steering = next(iter(host.guidance), None)
    if steering is None:
        return await asyncio.to_thread(work, ())
    asked = sample or Sample(id="steps", label="chat", messages=())
    return await host.seated(steering, asked, lambda decoder: work(decoder.values))


_Piece = tuple[tuple[int, ...], tuple[int, ...]] | str
"""What stands before a step and the step, as token ids; or why there are none."""


def _pieces(engine: Engine, sample: Sample | None, steps: Sequence[str], answer: str | None) -> list[_Piece]:
    """Every step, and last the answer if there is one, behind all that was said before it."""
    count = len(steps) + (answer is not None)
    if sample is None:
        return ["no question"] * count
    prompt, before = engine.prompt_ids(sample), Prefill()
    found: list[_Piece] = []
    try:
        for text in steps:
            after = extended(engine, before, text)
            found.append(_piece(engine, prompt, before, after))
            before = replace(after, gap=text[len(text.rstrip()) :])
        if answer is not None:
            closed = replace(frozen(engine, before), gap=" ")
            ended = extended(engine, closed, answer).typed([int(tokenizer_of(engine).eos_token_id)])
            found.append(_piece(engine, prompt, closed, ended))
    except SafeladderError as error:
        found += [str(error)] * (count - len(found))
    return found


def _piece(engine: Engine, prompt: Sequence[int], before: Prefill, after: Prefill) -> _Piece:
    if len(prompt) + len(after.token_ids) > engine.context_length:
        return "longer than the model's context"
    return (*prompt, *before.token_ids), after.token_ids[len(before.token_ids) :]


def _value(model: ValueModel, sample: Sample | None, piece: _Piece) -> api.StepScore:
    if isinstance(piece, str) or sample is None:
        return api.StepScore(value=None, label=str(piece))
    (value,) = model.score(sample, piece[0], [piece[1]])
    return api.StepScore(value=value)


def _verdict(score: Score) -> api.StepScore:
    return api.StepScore(value=score.value, label=score.label if score.value is not None else score.explanation)


def _name(principle: str) -> str:
    return f"value-model-{principle}"
