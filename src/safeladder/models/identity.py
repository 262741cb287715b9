"""Checkpoints told apart by their contents."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safeladder.types import SafeladderError


def checkpoint_hash(path: str | Path) -> str:
    """First 12 hex digits of a hash of a checkpoint folder's files (names and contents), for model names.

    What was made for the model later and lies in its folder `steering` does not make it another model.

    Raises:
        SafeladderError: no such folder, or nothing in it.
    """
    folder = Path(path)
    found = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
    files = [file for file in found if file.relative_to(folder).parts[0] != "steering"]
    if not files:
        raise SafeladderError(f"checkpoint {path} is not a folder with files in it")
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()}\0{digest}\n".encode())
    return total.hexdigest()[:12]
