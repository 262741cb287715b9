"""The server's edit memory: one file, changed by one request at a time, read as it was when a reply began."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

from safeladder.serving import api
from safeladder.steering.edit_memory import EditMemory
from safeladder.steering.edit_rules import EditPair
from safeladder.types import SafeladderError

MOST = 10_000
"""Edits that a memory may hold: every one is compared with every step it might apply to."""


class MemoryFile:
    """An edit memory kept in a file; every change is on the disk before it is answered. Any thread may call.

    Args:
        path: JSONL; it need not exist yet.

    Raises:
        SafeladderError: the file holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._memory = EditMemory.load(path) if path.exists() else EditMemory()

    def snapshot(self) -> EditMemory:
        """The memory as it is now; later changes do not reach it."""
        with self._lock:
            return EditMemory(self._memory.pairs)

    def edits(self) -> list[api.Edit]:
        """All edits, the oldest first."""
        return [_edit(pair) for pair in self.snapshot().pairs]

    def add(self, pair: EditPair) -> api.Edit:
        """Remember an edit; one that is known already is not stored again.

        Raises:
            SafeladderError: the memory is full.
        """
        edit = _edit(pair)
        with self._lock:
            if len(self._memory.pairs) >= MOST:
                raise SafeladderError(f"the edit memory holds {MOST} edits, as many as it may; delete some")
            if all(_id(known) != edit.id for known in self._memory.pairs):
                self._change([*self._memory.pairs, pair])
        return edit

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


def _edit(pair: EditPair) -> api.Edit:
    return api.Edit(
        id=_id(pair), question=pair.question, original=pair.original, edited=pair.edited, context=pair.context
    )


def _id(pair: EditPair) -> str:
    said = json.dumps([pair.question, pair.original, pair.edited, pair.context])
    return hashlib.sha256(said.encode()).hexdigest()[:16]
