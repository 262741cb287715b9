"""A subject's replies: their state, how they are read once, and the append-only files they are kept in.

A reply that is cut, unfinished, empty or failed is no evidence of safety: it becomes a rollout without a response, and
its state says why. What was answered is kept under a key of everything it depends on (the subject's weights and
steering, the prompt with its images, the sampling settings), so that a resumed run asks nothing twice and two
subjects never share a reply (inspect_ai's own cache leaves model arguments out of its key).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from io import BufferedRandom
from pathlib import Path
from typing import Any

from safeladder.types import Part, Response, Rollout, SafeladderError, Sample, SamplingParams, StopReason


class State(StrEnum):
    """What became of a question."""

    ANSWERED = "answered"
    TRUNCATED = "truncated"
    """The token budget or the context ran out, inside the reasoning or the answer."""
    UNCLOSED = "unclosed"
    """The reasoning block never ended, so there is no answer."""
    EMPTY = "empty"
    """Nothing, or nothing but reasoning, was said."""
    ERROR = "error"
    """The model or its server failed, or a filter in front of it stepped in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a subject said; `problem` says what failed.

    `answer` is "" unless `state` is answered, or truncated: then it is what there was of the answer, and none all the
    same.

    `input_tokens` and `output_tokens` are the server's or the engine's count, 0 where it gives none.
    """

    state: State
    answer: str = ""
    reasoning: str | None = None
    problem: str = ""
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def stop_reason(self) -> StopReason:
        """The rollout's word for the state; `EOS` for a reply that ended by itself without being an answer."""
        return {State.TRUNCATED: StopReason.LENGTH, State.ERROR: StopReason.ERROR}.get(self.state, StopReason.EOS)


_TAG = re.compile(r"<(/?)think>")


def split_thinking(text: str) -> tuple[str | None, str, bool]:
    """Reasoning, answer and whether every reasoning block was closed, from the text of one reply.

    The answer is what stands outside ``<think>…</think>``. Some chat templates open the block in the prompt: a closing
    tag without an opening one closes a block that began with the reply. Reasoning is None where it is blank.
    """
    inside: list[str] = []
    outside: list[str] = []
    start, is_open = 0, False
    for tag in _TAG.finditer(text):
        piece = text[start : tag.start()]
        if tag[1] and not is_open:
            inside, outside = [*inside, *outside, piece], []
        else:
            (inside if is_open else outside).append(piece)
        start, is_open = tag.end(), not tag[1]
    (inside if is_open else outside).append(text[start:])
    reasoning = "\n".join(part.strip() for part in inside if part.strip())
    answer = "\n".join(part.strip() for part in outside if part.strip())
    return reasoning or None, answer, not is_open


def read_reply(
    text: str,
    *,
    reasoning: str | None = None,
    truncated: bool = False,
    problem: str = "",
    tokens: tuple[int, int] = (0, 0),
) -> Reply:
    """A typed reply from what came back, parsed once.

    Args:
        text: the answer's content, reasoning tags and all where the server does not part them.
        reasoning: what came typed as reasoning.
        truncated: the token budget or the context ran out.
        problem: why there is no reply.
        tokens: of the prompt and of the reply.
    """
    thought, answer, closed = split_thinking(text)
    if reasoning is not None:
        _, _, whole = split_thinking(reasoning)
        closed = closed and whole
        thought = "\n".join(part for part in (reasoning.strip(), thought) if part) or None
    state = State.ANSWERED
    if problem:
        state = State.ERROR
    elif truncated:
        state = State.TRUNCATED
    elif not closed:
        state = State.UNCLOSED
    elif not answer:
        state = State.EMPTY
    return Reply(
        state=state,
        answer=answer if state in (State.ANSWERED, State.TRUNCATED) and closed else "",
        reasoning=thought,
        problem=problem,
        input_tokens=tokens[0],
        output_tokens=tokens[1],
    )


def rollout_of(sample: Sample, reply: Reply) -> Rollout:
    """The reply as a rollout without token ids; it has a response only where there was a whole answer."""
    answered = reply.state is State.ANSWERED
    response = Response(answer=reply.answer, reasoning=reply.reasoning) if answered else None
    return Rollout.of_text(sample, reply.answer, response, reply.stop_reason)


def reply_key(identity: str, sample: Sample, params: SamplingParams, seed: int) -> str:
    """SHA-256 over everything a reply depends on.

    Args:
        identity: the subject: hash of its weights and id of its steering, or the address and name of an endpoint.
        sample: its messages count, images and video frames by their content; its id, labels and reference do not.
        params: the sampling settings.
        seed: of the sampling.

    Raises:
        SafeladderError: an image cannot be read.
    """
    said = [{"role": m.role, "parts": [_content(part, sample.id) for part in m.parts]} for m in sample.messages]
    whole = {"identity": identity, "messages": said, "params": asdict(params), "seed": seed}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _content(part: Part, where: str) -> dict[str, Any]:
    if part.text is not None:
        return {"text": part.text}
    if part.image is not None:
        return {"image": _digest(part.image, where)}
    return {"video": [_digest(frame, where) for frame in part.video or ()]}


def _digest(image: Any, where: str) -> str:
    if isinstance(image, str):
        try:
            with open(image, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise SafeladderError(f"sample {where}: image {image} cannot be read ({error.strerror})") from None
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()


class AppendOnly:
    """JSON rows by key in a file that is only ever appended to: killed at any moment, what was written is kept.

    A last line that a kill cut short is removed when the file is opened. Of rows with one key the last one counts.

    Raises:
        SafeladderError: a damaged line other than the last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BufferedRandom = open(path, "a+b")  # noqa: SIM115 (kept open for the run)
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                self._rows[row["key"]] = row
            except (ValueError, TypeError, KeyError):
                raise SafeladderError(f"{path}, line {number}: not a row with a key") from None
            end += len(line)
        self._file.truncate(end)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows.values())

    def get(self, key: str) -> dict[str, Any] | None:
        """The newest row of a key."""
        return self._rows.get(key)

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Append a row; it has left the process when this returns."""
        whole = {"key": key, **row}
        self._file.write(json.dumps(whole, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._file.flush()
        self._rows[key] = whole

    def close(self) -> None:
        """Write through to the disk and close."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def to_row(reply: Reply) -> dict[str, Any]:
    """A reply as JSON."""
    return asdict(reply)


def from_row(row: Mapping[str, Any]) -> Reply:
    """The reply of a row of `replies.jsonl`."""
    fields = {name: row[name] for name in Reply.__slots__}
    return Reply(**{**fields, "state": State(row["state"])})
