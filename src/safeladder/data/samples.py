"""Samples from JSONL files: chat messages, image paths, label, reference. docs/data.md describes the layout.

Reading is strict: every malformed row is reported by line and cause in one error, and nothing is guessed or
skipped.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from safeladder.data.content import language_of
from safeladder.data.images import check_image, decode_data_uri
from safeladder.types import Message, Part, Response, Role, SafeladderError, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
IMAGE_MARKER = "<image>"
SHOWN_ERRORS = 10

_LAYOUTS = ("messages", "conversations", "prompt")
_KEYS = ("id", "label", "reference", "taxonomy", "source", "group_id", "language", "meta", "images")
_ROLES: dict[str, Role] = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
}  # fmt: skip


class ReplyFormat(Protocol):
    """What reading and curating need of a response format (`safeladder.rollout.parse.ResponseFormat`)."""

    @property
    def open_tag(self) -> str: ...
    @property
    def close_tag(self) -> str: ...
    def parse(self, text: str) -> Response | None: ...
    def render(self, response: Response) -> str: ...


def read_samples(
    path: str | os.PathLike[str],
    *,
    labels: Collection[str] | None,
    format: ReplyFormat,
    requires: Mapping[str, Collection[str]] | None = None,
) -> list[Sample]:
    """Read and check a JSONL file.

    Args:
        path: the file; image paths in it are relative to its folder.
        labels: the labels of the reward recipe; None = any label (no rewards are computed).
        format: how a demonstration with tags is split into reasoning and answer.
        requires: label -> fields its verifiers need, "reference" or "meta.KEY" (`RewardRecipe.requires`).

    Raises:
        SafeladderError: the file is missing or empty, or any row is malformed; up to 10 rows are named.
    """
    reader = RowReader(path, labels=labels, format=format, requires=requires)
    return read_rows(path, reader.sample, lambda sample: sample.id)


def read_rows(
    path: str | os.PathLike[str], read: Callable[[dict[str, Any], int], T], id_of: Callable[[T], str]
) -> list[T]:
    """What `read` makes of every line of a JSONL file that is not blank.

    Args:
        path: the file.
        read: (row, line number from 1) -> item; raises `SafeladderError` with the cause where a row is malformed.
        id_of: an item's id, which must be unique in the file.

    Raises:
        SafeladderError: the file is missing or empty, or any row is malformed; up to 10 rows are named.
    """
    file = Path(path)
    items: list[T] = []
    errors: list[str] = []
    first_line: dict[str, int] = {}
    for number, line in _lines(file):
        try:
            item = read(_parse(line), number)
            if (id := id_of(item)) in first_line:
                raise SafeladderError(f"duplicate id {id!r} (first on line {first_line[id]})")
        except SafeladderError as error:
            errors.append(f"line {number}: {error}")
            continue
        first_line[id] = number
        items.append(item)
    if errors:
        more = f"; and {len(errors) - SHOWN_ERRORS} more" if len(errors) > SHOWN_ERRORS else ""
        total = f"{len(errors)} of {len(errors) + len(items)} rows malformed"
        raise SafeladderError(f"{file}: {total}: {'; '.join(errors[:SHOWN_ERRORS])}{more}")
    if not items:
        raise SafeladderError(f"{file} holds no rows")
    return items


class RowReader:
    """Turns the JSON objects of one file into samples; its arguments are those of `read_samples`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        labels: Collection[str] | None,
        format: ReplyFormat,
        requires: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        file = Path(path)
        self.root, self.stem = Path(os.path.abspath(file.parent)), file.stem
        self.labels, self.format, self.requires = labels, format, requires or {}
        self.checked: dict[Path, str | None] = {}

    def sample(self, row: dict[str, Any], number: int) -> Sample:
        """The checked sample of line `number`.

        Raises:
            SafeladderError: the row is malformed; the message names the cause, not the line.
        """
        layouts = [key for key in _LAYOUTS if key in row]
        if len(layouts) != 1:
            raise SafeladderError(
                f"needs exactly one of: {', '.join(_LAYOUTS)} (found: {', '.join(layouts) or 'none'})"
            )
        for key in row:
            if key not in _KEYS and key not in layouts:
                close = difflib.get_close_matches(key, _KEYS, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "put further fields under meta"
                raise SafeladderError(f"unknown key {key!r}; {hint}")
        label = _string(row, "label", None)
        if self.labels is not None and label not in self.labels:
            raise SafeladderError(f"unknown label {label!r}; allowed: {', '.join(sorted(self.labels))}")
        messages, response = self._conversation(row, layouts[0])
        sample_id = _string(row, "id", f"{self.stem}:{number}")
        draft = Sample(
            id=sample_id,
            messages=messages,
            label=label,
            reference=_reference(row),
            taxonomy=_taxonomy(row),
            source=_string(row, "source", self.stem),
            group_id=_string(row, "group_id", sample_id),
            language=self._language(row, messages),
            response=response,
            meta=_mapping(row, "meta"),
        )
        if not draft.question.strip():
            raise SafeladderError("the last user message has no text")
        for need in self.requires.get(label, ()):
            present = draft.reference is not None if need == "reference" else need.removeprefix("meta.") in draft.meta
            if not present:
                raise SafeladderError(f"label {label!r} needs {need!r}")
        return draft

    def _conversation(self, row: dict[str, Any], layout: str) -> tuple[tuple[Message, ...], Response | None]:
        images = row.get("images", [])
        if not isinstance(images, list):
            raise SafeladderError("images must be a list of paths")
        pending = iter(images)
        turns = _turns(row[layout], layout)
        response = None
        if turns[-1][0] == "assistant":
            response = self._response(turns.pop()[1])
        messages = []
        for position, (role, turn) in enumerate(turns):
            if role == "system" and position > 0:
                raise SafeladderError("a system message may only come first")
            if turn.get("reasoning_content") is not None:
                raise SafeladderError("reasoning_content belongs to the last assistant message only")
            parts = tuple(self._parts(_content(turn), pending))
            if not parts:
                raise SafeladderError(f"message {position + 1} is empty")
            messages.append(Message(role=role, parts=parts))
        if not messages or messages[-1].role != "user":
            raise SafeladderError("the conversation must end with a user message, or a user and an assistant message")
        used = len(images) - sum(1 for _ in pending)
        if used != len(images):
            raise SafeladderError(f"{used} {IMAGE_MARKER} markers in the text but {len(images)} images")
        return tuple(messages), response

    def _parts(self, content: str | list[Any], pending: Iterator[Any]) -> Iterator[Part]:
        for item in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            kind = item.get("type") if isinstance(item, dict) else None
            if kind == "text" and isinstance(item.get("text"), str):
                yield from self._text_parts(item["text"], pending)
            elif kind == "image":
                yield Part(image=self._image(item["image"]) if "image" in item else self._next(pending))
            elif kind == "image_url":
                url = item.get("image_url")
                yield Part(image=self._image(url.get("url") if isinstance(url, dict) else url))
            elif kind == "video":
                frames = item.get("video")
                if not isinstance(frames, list) or not frames:
                    raise SafeladderError("a video part needs a list of frame images")
                yield Part(video=tuple(self._image(frame) for frame in frames))
            else:
                raise SafeladderError(f"content part of type {kind!r}; allowed: text, image, image_url, video")

    def _text_parts(self, text: str, pending: Iterator[Any]) -> Iterator[Part]:
        if "<video>" in text:
            raise SafeladderError("a <video> marker; give the frames as a video part instead")
        for position, piece in enumerate(text.split(IMAGE_MARKER)):
            if position > 0:
                yield Part(image=self._next(pending))
                piece = piece.removeprefix("\n")
            if piece.strip():
                yield Part(text=piece)

    def _next(self, pending: Iterator[Any]) -> Image | str:
        for value in pending:
            return self._image(value)
        raise SafeladderError(f"more {IMAGE_MARKER} markers in the text than images")

    def _image(self, value: Any) -> Image | str:
        if not isinstance(value, str) or not value:
            raise SafeladderError("an image must be a path or a data: address")
        if value.startswith("data:"):
            return decode_data_uri(value)
        if "://" in value:
            raise SafeladderError(f"image {value!r} is a network address; only local files are read")
        path = self.root / value
        try:
            if path not in self.checked:
                self.checked[path] = check_image(path)
        except (OSError, ValueError) as error:
            raise SafeladderError(f"image path {value!r} is not usable: {error}") from None
        if (cause := self.checked[path]) is not None:
            raise SafeladderError(cause)
        return str(path)

    def _response(self, turn: dict[str, Any]) -> Response:
        """The demonstration; a tagged reply must parse, and a part must be neither empty nor tagged."""
        content = _content(turn)
        if not isinstance(content, str):
            if not all(
                isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in content
            ):
                raise SafeladderError("an assistant message may hold text only")
            content = "".join(part["text"] for part in content)
        reasoning = turn.get("reasoning_content")
        tagged = any(tag in content for tag in (self.format.open_tag, self.format.close_tag))
        if reasoning is None and tagged:
            response = self.format.parse(content)
            if response is None:
                form = f"{self.format.open_tag}reasoning{self.format.close_tag}answer"
                raise SafeladderError(f"the assistant's reply is not {form}")
            return response
        if reasoning is not None and (not isinstance(reasoning, str) or not reasoning.strip()):
            raise SafeladderError("reasoning_content must be text")
        if tagged:
            raise SafeladderError("give the reasoning either in tags or as reasoning_content, not both")
        if not content.strip():
            raise SafeladderError("the assistant's answer is empty")
        response = Response(answer=content.strip(), reasoning=reasoning.strip() if reasoning else None)
        if reasoning and self.format.parse(self.format.render(response)) != response:
            raise SafeladderError("reasoning_content holds a reasoning tag")
        return response

    @staticmethod
    def _language(row: dict[str, Any], messages: tuple[Message, ...]) -> str:
        if "language" not in row:
            return language_of(messages[-1].text) or "en"
        if row["language"] not in ("en", "zh"):
            raise SafeladderError(f"language {row['language']!r}; allowed: en, zh")
        return row["language"]


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes) of every line that is not blank."""
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise SafeladderError(f"data file {file} not found") from None
    except OSError as error:
        raise SafeladderError(f"data file {file} cannot be read: {error.strerror}") from None


def _parse(line: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        text = line.decode("utf-8")
        row = json.loads(text, parse_constant=refuse)
        if "\\ud" in text.lower():
            json.dumps(row, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is no text
    except UnicodeError:
        raise SafeladderError("not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise SafeladderError(f"not valid JSON ({error})") from None
    if not isinstance(row, dict):
        raise SafeladderError(f"must be a JSON object, found {type(row).__name__}")
    return row


def _turns(value: Any, layout: str) -> list[tuple[Role, dict[str, Any]]]:
    """Any of the three layouts as (role, {"content": ...}) turns."""
    if layout == "prompt" and isinstance(value, str):
        return [("user", {"content": value})]
    if not isinstance(value, list) or not value:
        raise SafeladderError(f"{layout} must be a list of messages that is not empty")
    role_key, content_key = ("from", "value") if layout == "conversations" else ("role", "content")
    turns = []
    for position, turn in enumerate(value, start=1):
        if not isinstance(turn, dict):
            raise SafeladderError(f"message {position} must be an object with {role_key!r} and {content_key!r}")
        role = turn.get(role_key)
        if not isinstance(role, str) or role not in _ROLES:
            raise SafeladderError(f"message {position}: {role_key} {role!r}; allowed: {', '.join(_ROLES)}")
        turns.append((_ROLES[role], {**turn, "content": turn.get(content_key)}))
    return turns


def _content(turn: dict[str, Any]) -> str | list[Any]:
    content = turn["content"]
    if not isinstance(content, str | list):
        raise SafeladderError(f"message content must be text or a list of parts, found {type(content).__name__}")
    return content


def _string(row: dict[str, Any], key: str, default: str | None) -> str:
    value = row.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise SafeladderError(f"{key} must be text that is not empty" if key in row else f"{key} is missing")
    return value


def _reference(row: dict[str, Any]) -> str | None:
    value = row.get("reference")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise SafeladderError("reference must be text or a number")
    return str(value)


def _taxonomy(row: dict[str, Any]) -> tuple[str, ...]:
    value = row.get("taxonomy", [])
    if not isinstance(value, list) or not all(isinstance(step, str) for step in value):
        raise SafeladderError("taxonomy must be a list of names")
    return tuple(value)


def _mapping(row: dict[str, Any], key: str) -> dict[str, Any]:
    value = row.get(key, {})
    if not isinstance(value, dict):
        raise SafeladderError(f"{key} must be an object")
    return value
