"""The server's edit memory: one file, changed by one request at a time, read as it was when a reply began.

What people correct or confirm is stored with what the model itself says there, as `safeladder edit` does.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from safeladder.serving import api
from safeladder.steering.edit_memory import EditMemory
from safeladder.steering.edit_rules import EditPair
from safeladder.steering.edit_transfer import Outcome, observed
from safeladder.steering.editing import Prefill, extended
from safeladder.types import Engine, Rollout, SafeladderError, Sample, SamplingParams, StopReason

MOST = 10_000
"""Edits that a memory may hold: every one is compared with every step it might apply to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A step of `reasoning` (number from 1) and what it should say; where it says that already, it is confirmed."""

    reasoning: str
    step: int
    text: str


class MemoryFile:
    """An edit memory kept in a file; every change is on the disk before it is answered. Any thread may call.

    Args:
        path: JSONL; it need not exist yet.

    Raises:
        SafeladderError: the file holds something else, or its folder takes no file.
    """

    def __init__(self, path: Path) -> None:
        try:  # a change is written beside the file, which it then takes the place of
            with tempfile.TemporaryFile(dir=path.resolve().parent):
                pass
        except OSError as error:
            raise SafeladderError(f"--memory: {path} cannot be written ({error.strerror})") from None
        self.path = path
        self._lock = threading.Lock()
        self._memory = EditMemory.load(path) if path.exists() else EditMemory()

    def snapshot(self) -> EditMemory:
        """The memory as it is now; later changes do not reach it."""
        with self._lock:
            return self._memory.copy()

    def edits(self) -> list[api.Edit]:
        """All edits, the oldest first."""
        return [_edit(pair) for pair in self.snapshot().pairs]

    def add(self, pair: EditPair) -> api.Edit:
        """Remember an edit. One that is known already is not stored again, but what the model says there now counts.

        Raises:
            SafeladderError: the memory is full.
        """
        edit = _edit(pair)
        with self._lock:
            others = [known for known in self._memory.pairs if _id(known) != edit.id]
            if len(others) == len(self._memory.pairs):
                self._check_room()
                self._change([*others, pair])
            elif pair.candidates:
                self._change([pair if _id(known) == edit.id else known for known in self._memory.pairs])
        return edit

    def check_room(self) -> None:
        """Raises SafeladderError where the memory is full."""
        with self._lock:
            self._check_room()

    def _check_room(self) -> None:
        if len(self._memory.pairs) >= MOST:
            raise SafeladderError(f"the edit memory holds {MOST} edits, as many as it may; delete some")

    def answer(
        self, engine: Engine, sample: Sample, params: SamplingParams, *, seed: int
    ) -> tuple[Rollout, int, api.MemoryReport]:
        """A question answered with the memory: the reply, how many tokens were sampled, and what was done or why not.

        A rule is applied under the same conditions as by `safeladder edit` (`EditMemory.gate`).
        """
        memory = self.snapshot()
        applied = memory.apply(engine, sample, params, seed=seed)
        needed = (memory.gate(rule).support for rule in memory.rules if str(rule) == applied.rule)
        report = api.MemoryReport(
            applied=applied.outcome == Outcome.APPLIED,
            outcome=applied.outcome,
            step=applied.number,
            original=applied.original,
            edited=applied.edited,
            rule=applied.rule,
            support=applied.support,
            needed=None if applied.forced else next(needed, None),
            forced=applied.forced,
        )
        return applied.rollout, applied.tokens, report

    def learn(self, engine: Engine, sample: Sample, lesson: Lesson, *, seed: int, answer: str = "") -> api.Edit:
        """Remember a lesson with what the model itself says in that place, which is what its rule is calibrated on.

        Raises:
            SafeladderError: the memory is full, or the model's context is.
        """
        rollout = _spoken(engine, sample, lesson.reasoning)
        return self.add(observed(engine, rollout, lesson.step, lesson.text, seed=seed, answer=answer))

    def confirm(self, engine: Engine, sample: Sample, reasoning: str, *, seed: int) -> list[api.Edit]:
        """Remember every step that a rule would have changed as right. Raises as `learn`."""
        known = self.snapshot()
        before = len(known.pairs)
        known.confirm(engine, _spoken(engine, sample, reasoning), seed=seed)
        return [self.add(pair) for pair in known.pairs[before:]]

    def remove(self, id: str | None) -> int:
        """Forget one edit, or (None) all; returns how many."""
        with self._lock:
            kept = [pair for pair in self._memory.pairs if id is not None and _id(pair) != id]
            removed = len(self._memory.pairs) - len(kept)
            if removed:
                self._change(kept)
        return removed

    def _change(self, pairs: list[EditPair]) -> None:
        changed = EditMemory(pairs)
        changed.save(self.path)
        self._memory = changed


def _spoken(engine: Engine, sample: Sample, reasoning: str) -> Rollout:
    """A reply that has said this reasoning, up to its end."""
    said = extended(engine, Prefill(), reasoning)
    return Rollout(
        sample=sample,
        prompt_ids=engine.prompt_ids(sample),
        token_ids=said.token_ids,
        logprobs=said.logprobs,
        action_mask=said.mask,
        stop_reason=StopReason.STOP,
        text=engine.decode(said.token_ids),
        response=None,
    )


def _edit(pair: EditPair) -> api.Edit:
    return api.Edit(
        id=_id(pair),
        question=pair.question,
        original=pair.original,
        edited=pair.edited,
        context=pair.context,
        confirmed=pair.confirmed,
        calibrated=bool(pair.candidates),
    )


def _id(pair: EditPair) -> str:
    said = json.dumps([pair.question, pair.original, pair.edited, pair.context])
    return hashlib.sha256(said.encode()).hexdigest()[:16]
