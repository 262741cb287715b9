"""A reply on its way out: jobs run side by side, their tokens become chunks of a stream, or one body at the end."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from safeladder.rollout.tickets import EngineClosed
from safeladder.serving import api
from safeladder.serving.chat import Piece, Reader, Token, logprobs_of
from safeladder.serving.plans import Plan
from safeladder.serving.steered import Host, Job, Outcome
from safeladder.steering.edit_distance import edit_distance
from safeladder.types import StopReason

DONE = b"data: [DONE]\n\n"
"""The last event of a stream that did not fail."""


class Relay:
    """Hands what threads say to the event loop, in order, and wakes it once for all that has come meanwhile."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._woken = False

    def __call__(self, to: Callable[[Any], None], what: Any) -> None:
        """Have `to(what)` called in the event loop; from any thread."""
        self._waiting.append((to, what))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # Lowered first: whoever comes after this wakes the loop again.
        self._woken = False
        while self._waiting:
            to, what = self._waiting.popleft()
            to(what)


@dataclass(slots=True)
class Choice:
    """One choice while it grows."""

    index: int
    job: Job
    reader: Reader
    pieces: list[Piece] = field(default_factory=list)
    heard: int = 0
    opened: bool = False
    outcome: Outcome | None = None
    remembered: str | None = None
    """The id of its lesson in the edit memory."""

    @property
    def reasoning(self) -> str | None:
        """What is given back of the reasoning; None where there is no reasoning block."""
        text = "".join(piece.text for piece in self.pieces if piece.kind == "reasoning")
        return text if text or self.reader.reasoning is not None else None

    @property
    def answer(self) -> str | None:
        text = "".join(piece.text for piece in self.pieces if piece.kind == "answer")
        return text or None

    @property
    def completion_tokens(self) -> int:
        """The policy's own tokens of the reply."""
        assert self.outcome is not None
        return len(self.outcome.tokens) or self.outcome.generated

    @property
    def finish_reason(self) -> api.FinishReason:
        assert self.outcome is not None
        return "length" if self.outcome.stop_reason is StopReason.LENGTH else "stop"

    @property
    def unscored(self) -> api.Unscored | None:
        """Why the reply is no evidence of a safe answer."""
        assert self.outcome is not None
        if self.outcome.search is None:
            return self.reader.unscored(self.outcome.stop_reason)
        if self.outcome.answer is not None:
            return None
        return "truncated" if self.outcome.stop_reason is StopReason.LENGTH else "no-search-answer"


class Replies:
    """The choices of one request.

    Args:
        relay: brings what other threads say into the event loop.
        live: pieces are wanted as they come (a stream).
    """

    def __init__(self, host: Host, plan: Plan, relay: Relay, *, id: str, live: bool) -> None:
        self.host, self.plan, self.id, self.live = host, plan, id, live
        self.created = int(time.time())
        self.first_token: float | None = None
        self._relay = relay
        self._events: asyncio.Queue[tuple[Choice, Piece | api.Live | None] | Exception] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.choices = [
            Choice(i, job, Reader(host.engine.decode, plan.stop, begun=plan.begun, whole=plan.whole))
            for i, job in enumerate(plan.jobs)
        ]

    async def run(self) -> None:
        """Make all choices; the first failure ends them all and is raised."""
        tasks = [asyncio.create_task(self._make(choice)) for choice in self.choices]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _make(self, choice: Choice) -> None:
        def hear(what: Token | Piece | api.Live) -> None:
            self._relay(lambda item: self._heard(choice, item), what)

        try:
            outcome = await self.host.run(choice.job, hear, live=self.live)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise EngineClosed("the server is stopping") from None  # the engine let go of it, not we
        for token in outcome.tokens[choice.heard :]:
            self._heard(choice, token)
        for piece in choice.reader.finish():
            self._say(choice, piece)
        if outcome.answer is not None:
            self._say(choice, Piece("answer", outcome.answer))
        choice.remembered = await self._learn(choice)
        choice.outcome = outcome
        self._events.put_nowait((choice, None))

    async def _learn(self, choice: Choice) -> str | None:
        job, memory = choice.job, self.host.memory
        if job.lesson is None or memory is None:
            return None
        lesson, answer = job.lesson, choice.answer or ""
        edit = await self.host.in_lane(
            job.steering, lambda lane, _: memory.learn(lane, job.sample, lesson, seed=job.seed, answer=answer)
        )
        return edit.id

    def _heard(self, choice: Choice, what: Token | Piece | api.Live) -> None:
        if self.first_token is None:
            self.first_token = time.monotonic()
        if isinstance(what, Token):
            choice.heard += 1
            for piece in choice.reader.push([what]):
                self._say(choice, piece)
        elif isinstance(what, Piece):
            self._say(choice, what)
        elif self.live:
            self._events.put_nowait((choice, what))

    def _say(self, choice: Choice, piece: Piece) -> None:
        choice.pieces.append(piece)
        if self.live:
            self._events.put_nowait((choice, piece))

    def start(self) -> None:
        """Make all choices in a task of their own, for `chunks` to tell of."""

        async def guarded() -> None:
            try:
                await self.run()
            except Exception as error:
                self._events.put_nowait(error)

        self._task = asyncio.create_task(guarded())

    async def close(self) -> None:
        """Give up what is not done."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The events of a stream up to the last choice's end, and usage where it is wanted; what has come meanwhile is
        given in one piece. Raises what the request failed with.
        """
        open_ = len(self.choices)
        while open_:
            ready = [await self._events.get()]
            while not self._events.empty():
                ready.append(self._events.get_nowait())
            chunks = []
            for event in ready:
                if isinstance(event, Exception):
                    raise event
                open_ -= event[1] is None
                chunks += self._told(*event)
            yield b"".join(chunks)
        if self.plan.usage:
            yield _event({**self._head("chat.completion.chunk"), "choices": [], "usage": _json(self.usage())})

    def _told(self, choice: Choice, what: Piece | api.Live | None) -> Iterator[bytes]:
        if not choice.opened:
            choice.opened = True
            yield self._chunk(choice, {"role": "assistant", "content": ""})
        if what is None:
            report = _json(self.report(choice))
            yield self._chunk(choice, {}, finish_reason=choice.finish_reason, safeladder=report)
        elif isinstance(what, Piece):
            said = {"reasoning_content" if what.kind == "reasoning" else "content": what.text}
            logprobs = _json(logprobs_of([what], self.host.token_text)) if self.plan.logprobs else None
            yield self._chunk(choice, said if what.text else {}, logprobs=logprobs)
        else:
            yield self._chunk(choice, {}, safeladder=what.model_dump(mode="json", exclude_none=True))

    def _chunk(self, choice: Choice, delta: dict[str, Any], **more: Any) -> bytes:
        entry = {"index": choice.index, "delta": delta, "finish_reason": None, "logprobs": None, **more}
        usage = {"usage": None} if self.plan.usage else {}
        return _event({**self._head("chat.completion.chunk"), "choices": [entry], **usage})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.host.name,
            "system_fingerprint": self.host.revision,
        }

    def completion(self) -> api.Completion:
        """All choices as one body."""
        return api.Completion(
            **{**self._head("chat.completion"), "object": "chat.completion"},
            choices=[
                api.Choice(
                    index=choice.index,
                    message=api.ReplyMessage(content=choice.answer, reasoning_content=choice.reasoning),
                    finish_reason=choice.finish_reason,
                    logprobs=logprobs_of(choice.pieces, self.host.token_text) if self.plan.logprobs else None,
                    safeladder=self.report(choice),
                )
                for choice in self.choices
            ],
            usage=self.usage(),
        )

    def report(self, choice: Choice) -> api.Report:
        """``safeladder`` of a finished choice."""
        outcome, plan = choice.outcome, self.plan
        assert outcome is not None
        edit = None
        if plan.edit is not None:
            edit = api.EditReport(
                mode=plan.edit.mode,
                step=plan.edit.step,
                kept=plan.edit.kept,
                distance=edit_distance(plan.edit.reasoning, choice.reasoning or ""),
                remembered=choice.remembered,
            )
        unscored = choice.unscored
        return api.Report(
            stop_reason=outcome.stop_reason.value,  # type: ignore[arg-type]
            well_formed=unscored is None,
            unscored=unscored,
            seed=choice.job.seed,
            steering=list(choice.job.steering),
            ignored=list(outcome.ignored),
            cost=outcome.cost,
            trail=outcome.trail,
            search=outcome.search,
            edit=edit,
            edits=outcome.edits,
        )

    def usage(self) -> api.Usage:
        """Tokens of all choices; the prompt is counted once."""
        asked = len(self.plan.jobs[0].prompt_ids)
        said = sum(choice.completion_tokens for choice in self.choices)
        thought = sum(choice.reader.reasoning_tokens for choice in self.choices)
        searched = any(choice.job.search for choice in self.choices)
        return api.Usage(
            prompt_tokens=asked,
            completion_tokens=said,
            total_tokens=asked + said,
            completion_tokens_details={} if searched else {"reasoning_tokens": thought},
        )


def error_event(body: api.ErrorBody) -> bytes:
    """A failure in the midst of a stream."""
    return _event(_json(body))


def _json(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json")


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
