"""Pictures and video frames beside a benchmark's rows. A missing or damaged one is an error, never a skipped row."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path, PurePosixPath

from safeladder.data.images import check_image, decode_data_uri
from safeladder.data.rows import Row
from safeladder.types import Message, Part, SafeladderError

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_LONGEST_NAME = 255


def image_part(folder: Path, name: str, row: Row) -> Part:
    """The picture `name` below `folder`.

    Raises:
        SafeladderError: it lies outside of the folder, is missing, or cannot be decoded; the row is named.
    """
    path = _inside(folder, name, row)
    _require_image(path, row)
    return Part(image=str(path))


def embedded_part(encoded: str, row: Row) -> Part:
    """The picture that a table's cell holds in base64.

    Raises:
        SafeladderError: it cannot be decoded; the row is named.
    """
    try:
        return Part(image=decode_data_uri(f"data:image/any;base64,{encoded}"))
    except SafeladderError as error:
        raise row.error(str(error).replace("a data: image", "the embedded picture")) from None


def video_part(folder: Path, name: str, row: Row, *, frames: int) -> Part:
    """At most `frames` pictures of the folder `name` below `folder`, evenly spaced over its files in natural order.

    Raises:
        SafeladderError: it lies outside, is no folder, holds no picture, or one cannot be decoded.
    """
    path = _inside(folder, name, row)
    if not path.is_dir():
        raise row.error(f"the frames of the video are missing: no folder {path}")
    files = sorted((f for f in path.iterdir() if f.suffix.lower() in FRAME_SUFFIXES), key=_natural)
    if not files:
        raise row.error(f"the folder {path} holds no frame ({', '.join(FRAME_SUFFIXES)})")
    chosen = [files[i] for i in evenly(len(files), frames)]
    for file in chosen:
        _require_image(file, row)
    return Part(video=tuple(str(file) for file in chosen))


def evenly(n: int, k: int) -> list[int]:
    """min(n, k) indices out of 0..n-1: the middles of k equal stretches (all of them where n <= k)."""
    if n <= k:
        return list(range(n))
    return [int((i + 0.5) * n / k) for i in range(k)]


def ask(text: str, *shown: Part) -> tuple[Message, ...]:
    """One user message: what is shown, then the text."""
    return (Message(role="user", parts=(*shown, Part(text=text))),)


def _inside(folder: Path, name: str, row: Row) -> Path:
    relative = PurePosixPath(name)
    if any(len(part.encode()) > _LONGEST_NAME for part in relative.parts):
        raise row.error(f"the path {name[:80]!r}... is longer than a file name can be")
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or "\0" in name:
        raise row.error(f"the path {name[:80]!r} leads out of the benchmark's folder")
    return folder / relative


def _require_image(path: Path, row: Row) -> None:
    try:
        _check(str(path))
    except (OSError, ValueError) as error:
        raise row.error(str(error)) from None


@lru_cache(maxsize=65_536)
def _check(path: str) -> None:
    """Decode once a picture that several rows share; what is raised is not remembered."""
    cause = check_image(path)
    if cause is not None:
        raise ValueError(cause)


def _natural(file: Path) -> list[tuple[int, str]]:
    """Sorts frame_2 before frame_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]
