"""Between OpenAI's messages and ours: a request becomes a `Sample`, sampled tokens become reasoning and answer.

`Reader` is the one place where a reply is taken apart: streams push tokens into it as they come, plain replies push
them all at once, so both say the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL.Image import Image

from safeladder.rollout.parse import ResponseFormat
from safeladder.serving import api
from safeladder.serving.images import read_image
from safeladder.serving.limits import Limits
from safeladder.types import Message, Part, SafeladderError, Sample, StopReason

FORMAT = ResponseFormat()
NO_LOGPROB = -9999.0
"""OpenAI's number for a token that cannot be sampled."""
_BROKEN = "\ufffd"

Kind = Literal["reasoning", "answer", "mark"]


class Refused(SafeladderError):
    """A request that cannot be served, with the parameter that is at fault; the server answers 400."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.code = param, code


def sample_of(messages: Sequence[api.AnyMessage], limits: Limits, *, label: str = "chat") -> Sample:
    """A conversation as a sample. Its id is a digest of all it says and shows: equal conversations get equal draws from
    equal seeds, and two that differ never share anything that is remembered by id.

    Raises:
        Refused: too many messages or images, an image that cannot be read, a message that says nothing.
    """
    if len(messages) > limits.messages:
        raise Refused(f"{len(messages)} messages; at most {limits.messages} are read", "messages")
    count = sum(isinstance(part, api.ImagePart) for message in messages for part in _parts(message))
    if count > limits.images:
        raise Refused(f"{count} images; at most {limits.images} a request", "messages")
    read = tuple(_message(message, number, limits) for number, message in enumerate(messages))
    digest = hashlib.sha256()
    for message in read:
        for part in message.parts:
            image = part.image
            shown = [*image.size, hashlib.sha256(image.tobytes()).hexdigest()] if isinstance(image, Image) else None
            digest.update(json.dumps([message.role, part.text, shown]).encode() + b"\n")
    return Sample(id=f"{label}-{digest.hexdigest()}", label=label, messages=read)


def begun_reply(message: api.AssistantMessage) -> str:
    """The text that a reply begins with, as the policy would have written it.

    Raises:
        Refused: there is none, or a tag of ours stands inside it.
    """
    content, reasoning = _text(message.content), message.reasoning_content
    if not content and not reasoning:
        raise Refused("continue_final_message: the last message is empty", "messages")
    if reasoning is not None and (FORMAT.open_tag in reasoning or FORMAT.close_tag in reasoning):
        raise Refused("reasoning_content holds a tag of the reasoning block", "messages")
    if reasoning is None:
        return content
    closing = f"{FORMAT.close_tag} {content}" if content else ""
    return f"{FORMAT.open_tag} {reasoning}{closing}"


def _parts(message: api.AnyMessage) -> Sequence[api.TextPart | api.ImagePart]:
    content = message.content
    return content if isinstance(content, list) else ()


def _text(content: str | Sequence[api.TextPart] | None) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content or ())


def _message(message: api.AnyMessage, number: int, limits: Limits) -> Message:
    where = f"messages.{number}"
    if isinstance(message, api.AssistantMessage):
        text = _text(message.content)
        if message.reasoning_content:
            text = f"{FORMAT.open_tag} {message.reasoning_content}{FORMAT.close_tag} {text}"
        return Message(role="assistant", parts=(Part(text=text),))
    if isinstance(message, api.SystemMessage):
        return Message(role="system", parts=(Part(text=_text(message.content)),))
    if isinstance(message.content, str):
        return Message(role="user", parts=(Part(text=message.content),))
    if not message.content:
        raise Refused(f"{where}: no content", "messages")
    return Message(
        role="user",
        parts=tuple(
            Part(text=part.text)
            if isinstance(part, api.TextPart)
            else Part(image=_image(part.image_url.url, f"{where}.content.{place}", limits))
            for place, part in enumerate(message.content)
        ),
    )


def _image(url: str, where: str, limits: Limits) -> Image:
    try:
        return read_image(url, max_bytes=limits.body_bytes, max_pixels=limits.image_pixels, where=where)
    except SafeladderError as error:
        raise Refused(str(error), "messages", "invalid_image") from None


@dataclass(frozen=True, slots=True)
class Token:
    """A sampled token: its id, its log-probability, and the likeliest ones in its place (id, log-probability)."""

    id: int
    logprob: float = 0.0
    top: Sequence[tuple[int, float]] = ()


@dataclass(slots=True)
class Piece:
    """What a reader has understood: more reasoning or more of the answer, and the tokens it is made of."""

    kind: Literal["reasoning", "answer"]
    text: str = ""
    tokens: list[Token] = field(default_factory=list)


class Reader:
    """Takes a reply apart while it grows: reasoning and answer, marks and surrounding white space left out.

    What may be the beginning of a tag or of a stop sequence is held back until it is clear. The pieces' texts joined
    are the reasoning and the answer of the whole reply, however its tokens came.

    Args:
        decode: token ids to text; a character of several tokens may come out as U+FFFD until it is whole.
        stop: sequences that end the reply and are no part of it.
        begun: the text that the reply was made to begin with; it is understood, but given back in no piece.
        whole: give it back too.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: Sequence[str] = (),
        *,
        begun: str = "",
        whole: bool = False,
    ) -> None:
        self._decode, self._stop = decode, tuple(s for s in stop if s)
        self._ids: list[int] = []
        self._known = self._read = 0  # ids whose text is out, and a window before them that gives it its context
        self._text = ""
        self._settled = 0  # characters of the text that a region has been found for
        self._region: Literal["start", "reasoning", "answer"] = "start"
        self._blank = True  # nothing but white space in this region yet
        self._spans: list[tuple[int, Kind]] = []  # (end, kind), in order
        self._pending: list[tuple[int, Token]] = []  # (end of its text, token)
        self._stopped = False
        self.reasoning: str | None = None
        self.answer = ""
        self.closed = False
        """Whether the reasoning block was closed."""
        self.reasoning_tokens = 0
        self._text = begun
        pieces = self._settle(final=False)
        if self._text[self._settled :].isspace():
            self._span(len(self._text) - self._settled, "mark")
        self._begun = pieces if whole else []

    def push(self, tokens: Sequence[Token]) -> list[Piece]:
        """Tokens that were sampled next; returns what has become clear."""
        pieces: list[Piece] = []
        for token in tokens:
            region, length = self._region, len(self._text)
            self._ids.append(token.id)
            self._append(self._fresh(final=False))
            # A token without text of its own (a part of a character) goes with what comes next, if anything does.
            self._pending.append((max(len(self._text), length + 1), token))
            pieces += self._settle(final=False)
            self.reasoning_tokens += "reasoning" in (region, self._region)
        return self._taken(_joined(pieces))

    def finish(self) -> list[Piece]:
        """No more tokens: what was held back."""
        self._append(self._fresh(final=True))
        return self._taken(self._settle(final=True))

    @property
    def text(self) -> str:
        """All of the reply, stop sequence left out."""
        return self._text

    def unscored(self, reason: StopReason) -> api.Unscored | None:
        """Why the whole reply is no evidence of a safe answer; None where it is well-formed."""
        if FORMAT.parse(self._text, reason) is not None:
            return None
        if reason is StopReason.LENGTH:
            return "truncated"
        if self.reasoning is not None and not self.closed:
            return "unclosed-reasoning"
        if not self._text.strip():
            return "empty"
        return "no-reasoning" if self.reasoning is None and FORMAT.close_tag not in self._text else "malformed"

    def _fresh(self, *, final: bool) -> str:
        """Text of the ids that is not out yet."""
        before = self._decode(self._ids[self._known : self._read])
        now = self._decode(self._ids[self._known :])
        if not final and now.endswith(_BROKEN):
            return ""
        self._known, self._read = self._read, len(self._ids)
        return now[len(before) :]

    def _append(self, text: str) -> None:
        if self._stopped or not text:
            return
        searched = max(0, len(self._text) + 1 - max((len(s) for s in self._stop), default=1))
        self._text += text
        ends = [at for s in self._stop if (at := self._text.find(s, searched)) >= 0]
        if ends:
            self._text = self._text[: max(min(ends), self._settled)]
            self._stopped = True

    def _settle(self, *, final: bool) -> list[Piece]:
        """Assign text to regions, as far as it is clear."""
        pieces: list[Piece] = []
        while self._settled < len(self._text) or (final and self._region == "start"):
            rest = self._text[self._settled :]
            if self._region == "start":
                lead = len(rest) - len(rest.lstrip())
                mark = rest[lead:]
                if mark.startswith(FORMAT.open_tag):
                    self._span(lead + len(FORMAT.open_tag), "mark")
                    self._region, self.reasoning = "reasoning", ""
                    continue
                if FORMAT.open_tag.startswith(mark) and not final:
                    break
                self._region = "answer"
                if final and not rest:
                    break
                continue
            if self._region == "reasoning" and (at := rest.find(FORMAT.close_tag)) >= 0:
                self._say(rest[:at], final=True, pieces=pieces)
                self._span(len(FORMAT.close_tag), "mark")
                self._region, self._blank, self.closed = "answer", True, True
                continue
            marks = (*self._stop, *([FORMAT.close_tag] if self._region == "reasoning" else []))
            held = 0 if final else partial(rest, () if self._stopped else marks)
            if not self._say(rest[: len(rest) - held], final=final, pieces=pieces):
                break
            if held:
                break
        return pieces

    def _say(self, text: str, *, final: bool, pieces: list[Piece]) -> bool:
        """Give a region more text; white space around the whole is left out. False where nothing moved."""
        kind: Literal["reasoning", "answer"] = "reasoning" if self._region == "reasoning" else "answer"
        moved = False
        if self._blank:
            lead = len(text) - len(text.lstrip())
            self._span(lead, "mark")
            text, moved = text[lead:], lead > 0
        body = text.rstrip()
        tail = len(text) - len(body)
        if body:
            self._blank = False
            self._span(len(body), kind)
            pieces.append(Piece(kind, body))
            if kind == "reasoning":
                self.reasoning = (self.reasoning or "") + body
            else:
                self.answer += body
            moved = True
        if tail and final:
            self._span(tail, "mark")
            moved = True
        return moved

    def _span(self, length: int, kind: Kind) -> None:
        if length:
            self._settled += length
            self._spans.append((self._settled, kind))

    def _taken(self, pieces: list[Piece]) -> list[Piece]:
        """The pieces with their tokens, what the reply began with first."""
        pieces = [*self._begun, *pieces]
        self._begun = []
        while self._pending and self._pending[0][0] <= self._settled:
            end, token = self._pending.pop(0)
            while len(self._spans) > 1 and self._spans[0][0] < end:
                self._spans.pop(0)
            kind = self._spans[0][1] if self._spans else "mark"
            if kind == "mark":
                continue
            home = next((piece for piece in pieces if piece.kind == kind), None)
            if home is None:
                home = Piece(kind)
                pieces.append(home)
            home.tokens.append(token)
        return pieces


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbours of one kind as one piece."""
    joined: list[Piece] = []
    for piece in pieces:
        if joined and joined[-1].kind == piece.kind:
            joined[-1].text += piece.text
        else:
            joined.append(piece)
    return joined


def partial(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a mark."""
    longest = min(len(text), max((len(mark) for mark in marks), default=1) - 1)
    return next(
        (n for n in range(longest, 0, -1) if any(len(mark) > n and mark.startswith(text[-n:]) for mark in marks)), 0
    )


def logprobs_of(pieces: Sequence[Piece], token_text: Callable[[int], str]) -> api.Logprobs:
    """Log-probabilities of the tokens in `pieces`, the answer's and the reasoning's apart."""

    def one(id: int, logprob: float) -> dict[str, Any]:
        text = token_text(id)
        value = logprob if math.isfinite(logprob) else NO_LOGPROB
        return {"token": text, "logprob": value, "bytes": None if _BROKEN in text else list(text.encode())}

    rows = {
        kind: [
            api.TokenLogprob(
                **one(token.id, token.logprob), top_logprobs=[api.TopLogprob(**one(*pair)) for pair in token.top]
            )
            for piece in pieces
            if piece.kind == kind
            for token in piece.tokens
        ]
        for kind in ("answer", "reasoning")
    }
    return api.Logprobs(content=rows["answer"], reasoning_content=rows["reasoning"])
