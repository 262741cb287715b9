"""A conversation in which a person corrects the reasoning, question after question, and what is learnt from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from safeladder.rollout.collect import collect
from safeladder.steering.edit_distance import edit_distance
from safeladder.steering.edit_memory import EditMemory
from safeladder.steering.edit_transfer import Applied, observed
from safeladder.steering.editing import (
    FORMAT,
    continue_from,
    edited_prefix,
    re_answer,
    step_of,
    with_step,
    written_reasoning,
)
from safeladder.types import Engine, Rollout, SafeladderError, Sample, SamplingParams

How = Literal["continue", "re-answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One correction: step `number` (from 1) said `original` and was made to say `edited`."""

    number: int
    original: str
    edited: str
    how: How


@dataclass(slots=True, kw_only=True)
class Turn:
    """One question of a session: what the model said at first, what it says after each edit."""

    shown: Rollout
    now: Rollout
    edits: list[Edit]
    applied: Applied | None = None

    @property
    def distance(self) -> float:
        """Normalised edit distance in words between the chain that the person was shown and the one it became."""
        return edit_distance(written_reasoning(self.shown.text) or "", written_reasoning(self.now.text) or "")


class EditSession:
    """Ask, correct, ask again.

    Args:
        engine: any engine that shows its tokenizer.
        params: how replies are sampled.
        memory: applied to every question and taught by every correction; None: corrections are forgotten.
        seed: of the sampling.
    """

    def __init__(self, engine: Engine, params: SamplingParams, *, memory: EditMemory | None = None, seed: int = 0):
        self.engine = engine
        self.params = params
        self.memory = memory
        self.seed = seed
        self.turns: list[Turn] = []

    def ask(self, sample: Sample) -> Turn:
        """A new question; what the memory did is in the turn's `applied`."""
        applied = None
        if self.memory is not None:
            applied = self.memory.apply(self.engine, sample, self.params, seed=self.seed)
            rollout = applied.rollout
        else:
            ((rollout,),) = collect(self.engine, [sample], self.params, FORMAT, seed=self.seed)
        self.turns.append(Turn(shown=rollout, now=rollout, edits=[], applied=applied))
        return self.turns[-1]

    def correct(self, number: int, text: str, how: How = "continue") -> Rollout:
        """Replace step `number` (from 1) of the newest reply; returns the new reply.

        Changing back what the memory has edited is no correction of the model: the draft's step is confirmed.

        Raises:
            SafeladderError: nothing was asked yet, no such step, or no text that can be one.
        """
        turn = self._turn()
        before = turn.now
        original = step_of(before, number).text.strip()
        if how == "continue":
            prefix = edited_prefix(self.engine, before, number, text)
            turn.now = continue_from(self.engine, before.sample, prefix, self.params, seed=self.seed)
        else:
            reasoning = with_step(before, number, text)
            turn.now = re_answer(self.engine, before.sample, reasoning, self.params, seed=self.seed)
        turn.edits.append(Edit(number=number, original=original, edited=text.strip(), how=how))
        if self.memory is not None:
            answer = turn.now.response.answer if turn.now.response else ""
            taken_back = turn.applied is not None and turn.applied.reverted_by(number, text)
            seen = turn.applied.draft if turn.applied is not None and taken_back else before
            self.memory.add(observed(self.engine, seen, number, text, seed=self.seed, answer=answer))
        return turn.now

    def accept(self) -> int:
        """The newest reply stays as it was first shown; returns how many steps the memory holds as confirmed by it.

        Raises:
            SafeladderError: nothing was asked yet, or the reply was corrected.
        """
        turn = self._turn()
        if turn.edits:
            raise SafeladderError("this reply was corrected; only an untouched one can be confirmed")
        return self.memory.confirm(self.engine, turn.shown, seed=self.seed) if self.memory is not None else 0

    @property
    def distances(self) -> list[float]:
        """One a question: how far the person had to move the chain. Falls where corrections are learnt from."""
        return [turn.distance for turn in self.turns]

    def _turn(self) -> Turn:
        if not self.turns:
            raise SafeladderError("nothing was asked yet")
        return self.turns[-1]
