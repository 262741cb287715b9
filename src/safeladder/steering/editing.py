"""A person corrects a step of the reasoning; the model goes on from there, or answers anew.

*Continue* keeps the reasoning up to and including the edited step and regenerates the rest; *re-answer* freezes the
whole (edited) reasoning, closes it and regenerates the answer (SafeWork-R1, arXiv 2507.18576, human intervention on
the CoT; the published text names the idea, the construction here is ours).

Both work by prefill: what is kept goes behind the prompt in `GenerationRequest.prompt_ids`, so any `Engine` does it and
images stay where they are. Token in, token out: steps that nobody touched keep the ids that were sampled; only what a
person typed is encoded, and it is masked 0 in the rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from safeladder.rollout.parse import ResponseFormat
from safeladder.steering.steps import Step, split_steps
from safeladder.types import (
    Completion,
    Engine,
    GenerationRequest,
    Rollout,
    SafeladderError,
    Sample,
    SamplingParams,
)

FORMAT = ResponseFormat()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """What a response begins with: the ids, and their mask (1 where the policy itself had sampled them)."""

    token_ids: tuple[int, ...]
    mask: tuple[int, ...]
    logprobs: tuple[float, ...]


def tokenizer_of(engine: Engine) -> Any:
    """The tokenizer with which an engine's typed text is encoded.

    Raises:
        SafeladderError: the engine shows none (neither `engine.tokenizer` nor `engine.policy.tokenizer`).
    """
    tokenizer = getattr(engine, "tokenizer", None) or getattr(getattr(engine, "policy", None), "tokenizer", None)
    if tokenizer is None:
        raise SafeladderError(f"{type(engine).__name__} shows no tokenizer, so an edit cannot be put into its prompt")
    return tokenizer


def reasoning_steps(rollout: Rollout) -> tuple[Step, ...]:
    """The steps of a rollout's reasoning, white space at its ends taken off; of a cut one as far as it got.

    Raises:
        SafeladderError: the response has no reasoning.
    """
    return split_steps(written_reasoning(rollout.text, rollout.sample.id))


def written_reasoning(text: str, where: str) -> str:
    """The reasoning that a response's text holds, whether or not the rest is well-formed.

    Raises:
        SafeladderError: it does not begin with the opening tag, or nothing follows.
    """
    head, opened, rest = text.partition(FORMAT.open_tag)
    reasoning = rest.partition(FORMAT.close_tag)[0].strip()
    if head.strip() or not opened or not reasoning:
        raise SafeladderError(f"{where}: the reply has no reasoning that could be edited")
    return reasoning


def edited_prefix(engine: Engine, rollout: Rollout, step: int, text: str) -> Prefill:
    """A rollout's reasoning with step number `step` (from 1) replaced by `text`, and nothing after it.

    The steps before keep their ids as sampled.

    Raises:
        SafeladderError: no such step, an empty text, or one that holds a tag.
    """
    steps = reasoning_steps(rollout)
    if not 1 <= step <= len(steps):
        raise SafeladderError(f"step {step}: this reasoning has steps 1 to {len(steps)}")
    kept = kept_prefix(engine, rollout, steps[step - 1].start)
    return extended(engine, kept, text)


def kept_prefix(engine: Engine, rollout: Rollout, end: int) -> Prefill:
    """The response's own ids up to character `end` of its reasoning; blanks there belong to what follows.

    A token across the cut is left out, and what the kept ids lack of the text is encoded.
    """
    raise NotImplementedError


def extended(engine: Engine, prefill: Prefill | None, text: str) -> Prefill:
    """A prefill (None: the opening tag) and typed text behind it, on which the reasoning goes on."""
    raise NotImplementedError


def continue_from(
    engine: Engine, sample: Sample, prefix: str | Prefill, params: SamplingParams, *, seed: int
) -> Rollout:
    """Keep the reasoning `prefix` (without tags), regenerate the rest of the reasoning and the answer.

    Args:
        engine: any engine.
        sample: the question, with its images.
        prefix: all steps up to and including the edited one, as text or from `edited_prefix`.
        params: for what is regenerated; `n` must be 1.
        seed: of the sampling.

    Returns:
        The whole response. `text` and `response` hold the prefix too; `action_mask` is 1 on what the policy sampled.

    Raises:
        SafeladderError: an empty prefix, one that holds a tag, or one that leaves no room in the engine's context.
    """
    prefill = extended(engine, None, prefix) if isinstance(prefix, str) else prefix
    return one_each(engine, [(sample, prefill)], params, seed=seed)[0]


def re_answer(engine: Engine, sample: Sample, reasoning: str, params: SamplingParams, *, seed: int) -> Rollout:
    """Freeze `reasoning` (without tags), close it and regenerate the answer only. As `continue_from` otherwise."""
    raise NotImplementedError


def one_each(
    engine: Engine, items: Sequence[tuple[Sample, Prefill]], params: SamplingParams, *, seed: int
) -> list[Rollout]:
    """`prefilled` with one rollout an item."""
    return [rollout for (rollout,) in prefilled(engine, items, replace(params, n=1), seed=seed)]


def prefilled(
    engine: Engine, items: Sequence[tuple[Sample, Prefill]], params: SamplingParams, *, seed: int
) -> list[list[Rollout]]:
    """`params.n` rollouts an item that all begin with its prefill, in one batch."""
    raise NotImplementedError
