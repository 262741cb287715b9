"""What evaluation needs around rollouts: judges made of verifiers, and checkpoints with a name of their
own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from safeladder.types import Rollout, SafeladderError, Score, Verifier

Judge = Callable[[Sequence[Rollout]], Sequence[Rollout]]
"""Gives rollouts their scores: one judged rollout a rollout, in order."""


def judge_with(verifiers: Sequence[Verifier]) -> Judge:
    """A judge that asks every verifier about every rollout (for data whose labels need no routing)."""

    def judge(rollouts: Sequence[Rollout]) -> list[Rollout]:
        table: dict[str, list[Score]] = {v.name: v.score(rollouts) for v in verifiers}
        return [r.judged({name: scores[i] for name, scores in table.items()}, None) for i, r in enumerate(rollouts)]

    return judge


def checkpoint_hash(path: str | Path) -> str:
    """First 12 hex digits of a hash of a checkpoint folder's files (names and contents), for model names.

    Raises:
        SafeladderError: no such folder, or nothing in it.
    """
    folder = Path(path)
    files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
    if not files:
        raise SafeladderError(f"checkpoint {path} is not a folder with files in it")
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()}\0{digest}\n".encode())
    return total.hexdigest()[:12]
