"""Files and folders that appear whole or not at all.

Everything is written under another name in the same folder, flushed to the disk and renamed, so that a reader, a kill
or a loss of power finds the old content or the new, never a part. A failed write removes what it had begun and leaves
the old content; after a kill the begun part stays beside it, under a hidden name that ends in ``.tmp``.

Missing folders on the way are made. Errors of the system (a full disk, no permission) are raised as the `OSError` they
are: the command line makes one line of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The name to write a file under; at the end of the block the file takes the place of `path`.

    Raises:
        OSError: it cannot be written or renamed, or the block wrote nothing.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file. Raises OSError."""
    with new_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 file, line ends as they are. Raises OSError."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write indented JSON with a final newline.

    Raises:
        OSError: it cannot be written.
        TypeError: a value that JSON has no form for.
        ValueError: NaN or infinity, which other programs cannot read.
    """
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """The text that `write_json` writes. Raises TypeError and ValueError as it does."""
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder to fill; at the end of the block it takes the place of the folder `path`.

    A folder cannot be replaced in one step: the old one is moved aside first, and `restore_folder` brings it back
    after a kill between the two. What a killed writer had begun is removed by the next one, so that at most one at a
    time may write a folder.

    Raises:
        OSError: something cannot be written or renamed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        previous = _previous(target)
        if target.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(target, previous)
        os.replace(temporary, target)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def restore_folder(path: str | os.PathLike[str]) -> None:
    """Bring back the folder that a killed `new_folder` had moved aside; nothing where there is none."""
    target = Path(path)
    if not target.exists() and _previous(target).exists():
        os.replace(_previous(target), target)


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def _flush(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
