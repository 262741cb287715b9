"""A stored correction carried over to another question.

The model drafts a chain. Where a rule of the memory fits one of its steps, the model is sampled in that place, and the
edit is made where the model itself says what the rule demands with enough probability: its likeliest such step replaces
the draft's, and the model goes on from there. So the rule says *what* to change, the model *whether* it holds here and
*what to put into open slots*.

A correction that the model never makes of itself (a convention) has no such evidence. It is *forced*: written in place
up to its first open slot, if people made it at least twice and the rule names a word of what it replaces, and unless a
confirmed step is at least as near as a corrected one.

Nothing is ever applied silently: every outcome is named, and refusals say why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from safeladder.rollout.collect import collect
from safeladder.steering.edit_distance import joined, normalised, words
from safeladder.steering.edit_rules import EditPair, Fit
from safeladder.steering.editing import (
    FORMAT,
    Prefill,
    extended,
    kept_prefix,
    kept_through,
    one_each,
    prefilled,
    reasoning_steps,
    written_reasoning,
)
from safeladder.types import Engine, Rollout, Sample, SamplingParams, StopReason

if TYPE_CHECKING:
    from safeladder.steering.edit_memory import EditMemory

CANDIDATES = 16
"""Samples of a step that show what the model itself says there."""
PLACES = 2
"""Steps of a draft that are looked into, the most similar first."""
_ENDS = (".", "!", "?", "。", "！", "？")


class Outcome(StrEnum):
    """What became of the memory on a question."""

    APPLIED = "applied"
    NO_REASONING = "the draft has no reasoning to edit"
    NO_RULE = "no rule fits a step"
    UNSUPPORTED = "a rule fits, but the model does not say so itself"
    CONFIRMED = "a rule fits, but a confirmed step is nearer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A rule that fits step `number` (from 1) of a chain."""

    number: int
    step: str
    fit: Fit
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """When a rule is applied: from which `support` on, or `forced` (the model offers no evidence)."""

    support: float
    forced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A question answered with the memory.

    `rollout` is what to show: the edited chain where `outcome` is APPLIED, else the draft. `number` (from 1) is the
    step that was edited, or the one whose edit was refused, with what it said, what it says now, the rule in words, and
    the model's own support (None where it was not asked). `tokens` counts everything that was sampled.
    """

    rollout: Rollout
    draft: Rollout
    outcome: Outcome
    number: int | None = None
    original: str = ""
    edited: str = ""
    rule: str = ""
    support: float | None = None
    forced: bool = False
    tokens: int = 0

    def reverted_by(self, number: int, text: str) -> bool:
        """Whether this text puts back what the memory has edited in step `number`."""
        return self.outcome == Outcome.APPLIED and number == self.number and words(text) == words(self.original)


def transfer(
    memory: EditMemory, engine: Engine, samples: Sequence[Sample], params: SamplingParams, *, seed: int
) -> list[Applied]:
    """Every question through the memory, in one batch; the arguments are those of `EditMemory.apply_all`."""
    drafts = [draft for (draft,) in collect(engine, samples, replace(params, n=1), FORMAT, seed=seed)]
    tasks = [_Task(draft, memory.find(draft.sample.question, draft.text)) for draft in drafts]
    for place in range(PLACES):
        asked = [task for task in tasks if task.edit is None and len(task.places) > place]
        starts = [kept_prefix(engine, task.draft, task.places[place][0].number) for task in asked]
        groups = _candidates(engine, [(t.draft, s, t.places[place]) for t, s in zip(asked, starts, strict=True)], seed)
        for task, start, group in zip(asked, starts, groups, strict=True):
            task.tokens += sum(len(r.token_ids) - len(start.token_ids) for r in group)
            for found in task.places[place]:
                _decide(memory, engine, task, found, start, group)
    edits = [(task.draft.sample, task.edit) for task in tasks if task.edit is not None]
    done = iter(one_each(engine, edits, params, seed=seed))
    return [task.result(next(done) if task.edit is not None else None) for task in tasks]


def _decide(
    memory: EditMemory, engine: Engine, task: _Task, found: Match, start: Prefill, group: Sequence[Rollout]
) -> None:
    if task.edit is not None:
        return
    fit, gate = found.fit, memory.gate(found.fit.rule)
    said = _said(engine, group, start, found.number)
    support = fit.support(_shares(said))
    if gate.forced:
        outcome, edited, edit = Outcome.APPLIED, "", None
        says = fit.lead()
        if not fit.rule.proven or words(found.step)[: len(says)] == says:  # nothing to go by, or nothing new to write
            outcome = Outcome.UNSUPPORTED
        elif _nearer(memory, task.draft, found):
            outcome = Outcome.CONFIRMED
        else:
            edited = joined(says, [*(p.edited for p in fit.rule.pairs), found.step, task.draft.sample.question])
            edit = extended(engine, start, edited)
    else:
        yes = support is not None and support > 0 and support >= gate.support
        outcome = Outcome.APPLIED if yes else Outcome.UNSUPPORTED
        edited, edit = "", None
        if yes:
            chosen = max((one for one in said if fit.accepts(one.text)), key=lambda one: one.probability)
            edited, edit = chosen.text, chosen.reply
    if task.outcome is None or edit is not None:
        task.note(found, outcome, edited if edit else "", support, gate.forced)
        task.edit = edit


def _nearer(memory: EditMemory, draft: Rollout, found: Match) -> bool:
    """Whether a confirmed step is at least as near as the nearest corrected one."""
    here = (*words(draft.sample.question), *words(found.step))

    def near(pairs: Sequence[EditPair]) -> float:
        return max((1 - normalised(here, (*words(p.question), *words(p.original))) for p in pairs), default=-1.0)

    return near([pair for pair, _ in memory.confirmed(found.fit.rule)]) >= near(found.fit.rule.pairs)


def observed(engine: Engine, rollout: Rollout, number: int, edited: str, *, seed: int, answer: str = "") -> EditPair:
    """A correction of step `number` (from 1), with what the model itself says there when it is sampled.

    Raises:
        SafeladderError: no such step, or no reasoning.
    """
    steps = reasoning_steps(rollout)
    reasoning = written_reasoning(rollout.text)
    start = kept_prefix(engine, rollout, number)
    assert reasoning is not None
    pair = EditPair(
        question=rollout.sample.question,
        original=steps[number - 1].text.strip(),
        edited=edited.strip(),
        context=reasoning[: steps[number - 1].start],
        answer=answer,
        source=rollout.sample.id,
    )
    (group,) = _sampled(engine, [(rollout.sample, start)], _budget(pair.original, [pair.edited]), seed)
    return replace(pair, candidates=_shares(_said(engine, group, start, number)))


class _Task:
    """One question on its way through the memory."""

    def __init__(self, draft: Rollout, found: Sequence[Match]) -> None:
        self.draft = draft
        self.places: list[list[Match]] = []
        for number in dict.fromkeys(m.number for m in found):
            self.places.append([m for m in found if m.number == number])
        self.tokens = draft.length
        self.edit: Prefill | None = None
        self.outcome: Outcome | None = None
        self.facts: dict[str, Any] = {}
        if not found and written_reasoning(draft.text) is None:
            self.outcome = Outcome.NO_REASONING

    def note(self, found: Match, outcome: Outcome, edited: str, support: float | None, forced: bool) -> None:
        self.outcome = outcome
        self.facts = {
            "number": found.number,
            "original": found.step,
            "edited": edited,
            "rule": str(found.fit.rule),
            "support": support,
            "forced": forced,
        }

    def result(self, rollout: Rollout | None) -> Applied:
        if rollout is not None:
            assert self.edit is not None
            self.tokens += len(rollout.token_ids) - len(self.edit.token_ids)
            number = self.facts["number"]
            steps = reasoning_steps(rollout)
            if self.facts["forced"] and number <= len(steps):
                self.facts["edited"] = steps[number - 1].text.strip()
        return Applied(
            rollout=rollout or self.draft,
            draft=self.draft,
            outcome=self.outcome or Outcome.NO_RULE,
            tokens=self.tokens,
            **self.facts,
        )


def _candidates(
    engine: Engine, places: Sequence[tuple[Rollout, Prefill, list[Match]]], seed: int
) -> list[list[Rollout]]:
    budget = 0
    for _, _, found in places:
        for m in found:
            budget = max(budget, _budget(m.step, [p.edited for p in m.fit.rule.pairs]))
    return _sampled(engine, [(draft.sample, start) for draft, start, _ in places], budget, seed)


def _sampled(engine: Engine, items: Sequence[tuple[Sample, Prefill]], budget: int, seed: int) -> list[list[Rollout]]:
    params = SamplingParams(max_new_tokens=max(1, budget), temperature=1.0, n=CANDIDATES)
    return prefilled(engine, items, params, seed=seed)


def _budget(step: str, edits: Sequence[str]) -> int:
    """Tokens within which a step as long as these is finished."""
    return 2 * max(len(words(text)) for text in (step, *edits)) + 8


@dataclass(frozen=True, slots=True)
class _Said:
    """A distinct step that was sampled: its text, its probability, and the reply up to its end."""

    text: str
    probability: float
    reply: Prefill


def _said(engine: Engine, group: Sequence[Rollout], start: Prefill, number: int) -> list[_Said]:
    """The distinct steps `number` of sampled replies, the text "" where it is missing or was cut.

    The probability of a step that was sampled is known exactly, so each counts once, with that: far less noisy than
    counting samples. What was not sampled is left out.
    """
    found: dict[tuple[int, ...], _Said] = {}
    for rollout in group:
        text = _finished_step(rollout, number)
        reply = kept_through(engine, rollout, number) if text else _all_of(rollout)
        begin, end = len(start.token_ids), len(reply.token_ids)
        logprob = sum(rollout.logprobs[begin:end])
        found[reply.token_ids[begin:]] = _Said(text, math.exp(min(0.0, logprob)), reply)
    return list(found.values())


def _shares(said: Sequence[_Said]) -> dict[str, float]:
    """Step text to probability; the same text may have been sampled in different tokens."""
    total: dict[str, float] = {}
    for one in said:
        total[one.text] = min(1.0, total.get(one.text, 0.0) + one.probability)
    return total


def _all_of(rollout: Rollout) -> Prefill:
    return Prefill(token_ids=rollout.token_ids, mask=rollout.action_mask, logprobs=rollout.logprobs)


def _finished_step(rollout: Rollout, number: int) -> str:
    """What a reply says in step `number`; "" where the step is missing or was cut."""
    if written_reasoning(rollout.text) is None:
        return ""
    steps = reasoning_steps(rollout)
    if number > len(steps):
        return ""
    text = steps[number - 1].text.strip()
    closed = FORMAT.close_tag in rollout.text or number < len(steps) or text.endswith(_ENDS)
    return text if closed or rollout.stop_reason != StopReason.LENGTH else ""
