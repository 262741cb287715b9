"""The audit log: one line of JSON a finished request, on the disk before its reply has ended.

By default no line holds what was asked or said: a prompt is its length and its SHA-256, an image its size and its
SHA-256. (A digest hides no short or well-known text from someone who can guess it.) A line is one `write` to a file
opened for appending, followed by `fsync`, so that neither a kill nor a loss of power takes a finished line, and
several servers may share a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from safeladder.types import SafeladderError, Sample


class AuditLog:
    """Appends lines to a JSONL file; any thread may write.

    Raises:
        SafeladderError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SafeladderError(f"--audit: {self.path} cannot be written ({error.strerror})") from None
        self._close_last_line()

    def write(self, row: dict[str, Any]) -> None:
        """Append one line; returns once it is on the disk. Raises OSError where the disk takes it not."""
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")
        with self._lock:
            written = os.write(self._file, line)
            if written != len(line):  # a full disk took a part: the rest must not glue to the next line
                os.write(self._file, b"\n")
                raise OSError(f"only {written} of {len(line)} bytes were written to {self.path}")
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _close_last_line(self) -> None:
        """A line that a kill cut in two is left as it is; the next one must start on its own."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")


def asked(sample: Sample, *, with_text: bool) -> dict[str, Any]:
    """What a request asked, for its line.

    Args:
        with_text: the messages themselves too (``--audit-prompts``), images left out.
    """
    said = [(message.role, message.text) for message in sample.messages]
    row: dict[str, Any] = {
        "messages": len(said),
        "characters": sum(len(text) for _, text in said),
        "sha256": hashlib.sha256(json.dumps(said).encode()).hexdigest(),
        "images": [_image(image) for image in sample.images],
    }
    if with_text:
        row["text"] = [{"role": role, "content": text} for role, text in said]
    return row


def now() -> str:
    """The time of a line: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def key_mark(key: str) -> str | None:
    """Which key was used, without saying it: the beginning of its SHA-256. None where none is wanted."""
    return hashlib.sha256(key.encode()).hexdigest()[:12] if key else None


def _image(image: Image.Image | str) -> dict[str, Any]:
    assert isinstance(image, Image.Image), "the server decodes what it is sent"
    return {"width": image.width, "height": image.height, "sha256": hashlib.sha256(image.tobytes()).hexdigest()}
