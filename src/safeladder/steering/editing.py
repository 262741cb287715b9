"""A person corrects a step of the reasoning; the model goes on from there, or answers anew.

*Continue* keeps the reasoning up to and including the edited step and regenerates the rest; *re-answer* freezes the
whole (edited) reasoning, closes it and regenerates the answer (SafeWork-R1, arXiv 2507.18576, human intervention on
the CoT; the published text names the idea, the construction here is ours).

Both work by prefill: what is kept goes behind the prompt in `GenerationRequest.prompt_ids`, so any `Engine` does it and
images stay where they are. Token in, token out: steps that nobody touched keep the ids that were sampled; only what a
person typed is encoded, and it is masked 0 in the rollout.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from safeladder.rollout.parse import ResponseFormat
from safeladder.search.trace import inert_ids
from safeladder.steering.steps import Step, split_steps
from safeladder.types import (
    Engine,
    GenerationRequest,
    Rollout,
    SafeladderError,
    Sample,
    SamplingParams,
    StopReason,
)

FORMAT = ResponseFormat()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """What a response begins with.

    `token_ids`, `mask` (1 where the policy itself had sampled the token) and `logprobs` run in parallel. `gap` is text
    that the ids stop short of: the white space before the next step, which belongs to the next step's first token.
    """

    token_ids: tuple[int, ...] = ()
    mask: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    gap: str = ""

    def typed(self, ids: Sequence[int], gap: str = "") -> Prefill:
        """With ids behind it that nobody sampled."""
        return Prefill(
            token_ids=(*self.token_ids, *ids),
            mask=(*self.mask, *[0] * len(ids)),
            logprobs=(*self.logprobs, *[0.0] * len(ids)),
            gap=gap,
        )


def tokenizer_of(engine: Engine) -> Any:
    """The tokenizer with which text that a person typed is encoded.

    Raises:
        SafeladderError: the engine shows none (neither `engine.tokenizer` nor `engine.policy.tokenizer`).
    """
    tokenizer = getattr(engine, "tokenizer", None) or getattr(getattr(engine, "policy", None), "tokenizer", None)
    if tokenizer is None:
        raise SafeladderError(f"{type(engine).__name__} shows no tokenizer, so an edit cannot be put into its prompt")
    return tokenizer


def written_reasoning(text: str) -> str | None:
    """The reasoning that a response's text holds, as far as it got, whether or not the rest is well-formed.

    None where the text does not begin with the opening tag or nothing follows it.
    """
    head, _, rest = text.partition(FORMAT.open_tag)
    reasoning = rest.partition(FORMAT.close_tag)[0].strip()
    return None if head.strip() or not reasoning else reasoning


def reasoning_steps(rollout: Rollout) -> tuple[Step, ...]:
    """The steps of a rollout's reasoning; offsets count from its first character that is no white space.

    Raises:
        SafeladderError: the reply has no reasoning, or an environment answered within it.
    """
    if rollout.observations:
        raise SafeladderError(f"{rollout.sample.id}: a reply of several turns (a search) cannot be edited")
    reasoning = written_reasoning(rollout.text)
    if reasoning is None:
        raise SafeladderError(f"{rollout.sample.id}: the reply has no reasoning that could be edited")
    return split_steps(reasoning)


def step_of(rollout: Rollout, number: int) -> Step:
    """Step `number`, counted from 1.

    Raises:
        SafeladderError: as `reasoning_steps`, or there is no such step.
    """
    steps = reasoning_steps(rollout)
    if not 1 <= number <= len(steps):
        raise SafeladderError(f"step {number}: this reasoning has the steps 1 to {len(steps)}")
    return steps[number - 1]


def with_step(rollout: Rollout, number: int, text: str) -> str:
    """The reasoning with step `number` (from 1) replaced and all others kept: what *re-answer* freezes.

    Raises:
        SafeladderError: as `step_of`, or `text` is no step (`checked`).
    """
    step, reasoning = step_of(rollout, number), written_reasoning(rollout.text)
    assert reasoning is not None
    space = step.text[len(step.text.rstrip()) :]
    return f"{reasoning[: step.start]}{checked(text)}{space}{reasoning[step.end :]}"


def kept_prefix(engine: Engine, rollout: Rollout, number: int) -> Prefill:
    """Everything before step `number` (from 1), with the ids that were sampled.

    A token that reaches into the step is left out; what the kept ids then lack of the text is the prefill's `gap`. A
    rollout without tokens (an endpoint's, a file's) gives a gap only.

    Raises:
        SafeladderError: as `step_of`.
    """
    return _kept(engine, rollout, step_of(rollout, number).start)


def kept_through(engine: Engine, rollout: Rollout, number: int) -> Prefill:
    """Everything up to and including step `number` (from 1), as `kept_prefix`; what a cut token said is encoded.

    Raises:
        SafeladderError: as `step_of`.
    """
    prefill = _kept(engine, rollout, step_of(rollout, number).end)
    if not prefill.gap.strip():
        return prefill
    return prefill.typed(inert_ids(tokenizer_of(engine), prefill.gap.rstrip()))


def _kept(engine: Engine, rollout: Rollout, end: int) -> Prefill:
    """The response up to character `end` of its reasoning."""
    opened = rollout.text.index(FORMAT.open_tag) + len(FORMAT.open_tag)
    inside = rollout.text[opened:]
    text = rollout.text[: opened + len(inside) - len(inside.lstrip()) + end]
    ids = rollout.token_ids
    count = bisect_right(range(1, len(ids) + 1), len(text), key=lambda n: len(engine.decode(ids[:n])))
    # Half a character decodes to a mark of its own, so a shorter text need not be a beginning.
    while not text.startswith(decoded := engine.decode(ids[:count])):
        count -= 1
    return Prefill(
        token_ids=ids[:count],
        mask=rollout.action_mask[:count],
        logprobs=rollout.logprobs[:count],
        gap=text[len(decoded) :],
    )


def edited_prefix(engine: Engine, rollout: Rollout, number: int, text: str) -> Prefill:
    """Everything before step `number` (from 1) as it was sampled, then `text`.

    Raises:
        SafeladderError: as `step_of`; or `text` is no step (`checked`).
    """
    return extended(engine, kept_prefix(engine, rollout, number), text)


def extended(engine: Engine, prefill: Prefill, text: str) -> Prefill:
    """Typed text behind a prefill, without white space at its end, so that the next token is the model's choice.

    An empty prefill gets the opening tag first. Control tokens that the text spells are encoded as plain text.

    Raises:
        SafeladderError: `text` is no step (`checked`), or the engine shows no tokenizer.
    """
    tokenizer, text = tokenizer_of(engine), checked(text)
    # A space before the first word lets it keep its usual token (`ResponseFormat.render`).
    gap = prefill.gap if prefill.token_ids or prefill.gap else f"{FORMAT.open_tag} "
    if FORMAT.open_tag in gap:  # nothing was sampled: the tag is structure, the rest is text
        prefill, gap = prefill.typed(_tag(tokenizer, FORMAT.open_tag)), gap.partition(FORMAT.open_tag)[2]
    return prefill.typed(inert_ids(tokenizer, gap + text))


def checked(text: str) -> str:
    """A step as a person typed it, white space at its ends taken off.

    Raises:
        SafeladderError: it is empty, or holds a tag of the response format.
    """
    text = text.strip()
    if not text:
        raise SafeladderError("the edited step is empty")
    for tag in (FORMAT.open_tag, FORMAT.close_tag):
        if tag in text:
            raise SafeladderError(f"an edited step cannot hold {tag}")
    return text


def continue_from(
    engine: Engine, sample: Sample, prefix: str | Prefill, params: SamplingParams, *, seed: int
) -> Rollout:
    """Keep the reasoning `prefix` (without tags), regenerate the rest of the reasoning and the answer.

    Args:
        engine: any engine that shows its tokenizer.
        sample: the question, with its images.
        prefix: all steps up to and including the edited one, as text or from `edited_prefix`.
        params: for what is regenerated; one rollout is drawn, whatever `n` says.
        seed: of the sampling.

    Returns:
        The whole response: `text` and `response` hold the prefix too, `action_mask` is 1 on what the policy sampled.

    Raises:
        SafeladderError: an empty prefix, one that holds a tag, or one that leaves no room in the engine's context.
    """
    prefill = extended(engine, Prefill(), prefix) if isinstance(prefix, str) else prefix
    return one_each(engine, [(sample, prefill)], params, seed=seed)[0]


def re_answer(
    engine: Engine, sample: Sample, reasoning: str | Prefill, params: SamplingParams, *, seed: int
) -> Rollout:
    """Freeze `reasoning` (without tags), close it and regenerate the answer only; otherwise as `continue_from`."""
    return one_each(engine, [(sample, frozen(engine, reasoning))], params, seed=seed)[0]


def frozen(engine: Engine, reasoning: str | Prefill) -> Prefill:
    """The whole reasoning and its closing tag, behind which only an answer can follow.

    Raises:
        SafeladderError: as `extended`.
    """
    prefill = extended(engine, Prefill(), reasoning) if isinstance(reasoning, str) else reasoning
    return prefill.typed(_tag(tokenizer_of(engine), FORMAT.close_tag))


def one_each(
    engine: Engine, items: Sequence[tuple[Sample, Prefill]], params: SamplingParams, *, seed: int
) -> list[Rollout]:
    """`prefilled` with one rollout an item."""
    return [rollout for (rollout,) in prefilled(engine, items, replace(params, n=1), seed=seed)]


def prefilled(
    engine: Engine, items: Sequence[tuple[Sample, Prefill]], params: SamplingParams, *, seed: int
) -> list[list[Rollout]]:
    """`params.n` rollouts an item that all begin with its prefill, in one batch.

    The token budget shrinks to the room that the longest item leaves in the engine's context.

    Raises:
        SafeladderError: there is no room for a single token.
    """
    requests = []
    room = params.max_new_tokens
    for sample, prefill in items:
        ids = (*engine.prompt_ids(sample), *prefill.token_ids)
        room = min(room, engine.context_length - len(ids))
        if room < 1:
            raise SafeladderError(
                f"sample {sample.id}: prompt and edited reasoning take {len(ids)} tokens, "
                f"the model's context has {engine.context_length}"
            )
        requests.append(GenerationRequest(sample=sample, prompt_ids=ids))
    if not requests:
        return []
    done = engine.generate(requests, replace(params, max_new_tokens=room), seed=seed)
    return [
        [
            _rollout(engine, sample, prefill, completion.token_ids, completion.logprobs, completion.stop_reason)
            for completion in completions
        ]
        for (sample, prefill), completions in zip(items, done, strict=True)
    ]


def _rollout(
    engine: Engine,
    sample: Sample,
    prefill: Prefill,
    ids: tuple[int, ...],
    logprobs: tuple[float, ...],
    stop_reason: StopReason,
) -> Rollout:
    whole = (*prefill.token_ids, *ids)
    text = engine.decode(whole)
    return Rollout(
        sample=sample,
        prompt_ids=engine.prompt_ids(sample),
        token_ids=whole,
        logprobs=(*prefill.logprobs, *logprobs),
        action_mask=(*prefill.mask, *[1] * len(ids)),
        stop_reason=stop_reason,
        text=text,
        response=FORMAT.parse(text, stop_reason),
    )


def _tag(tokenizer: Any, tag: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(tag, add_special_tokens=False))
