"""A request's way through the server: its place at the desk, its work, and its line in the audit log."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator

from safeladder.search.gate import CLIENT, KEY, RateLimit
from safeladder.serving import api
from safeladder.serving.errors import Failure, Unwritten, failure, failure_of
from safeladder.serving.limits import Limits
from safeladder.serving.records import LEFT, Record
from safeladder.serving.replies import DONE, Replies, error_event


class Desk:
    """Admits requests: a bounded number in work, a rate a client, none once the server is stopping."""

    def __init__(self, limits: Limits) -> None:
        self.stopping = False
        self.busy = 0
        self._limits = limits
        self._rate = RateLimit(limits.requests_a_minute / 60)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place at the desk. Raises Failure where there is none."""
        if self.stopping:
            raise failure(503, "the server is stopping", code="stopping")
        wait = self._rate.spend(KEY.get() or CLIENT.get(), 1)
        if wait:
            refused = failure(429, "too many requests a minute")
            refused.headers["Retry-After"] = str(math.ceil(wait))
            raise refused
        if self.busy >= self._limits.waiting:
            raise failure(429, "too many requests are in work")
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1


class Work:
    """An admitted request on its way: generation, its record and its place at the desk, let go together."""

    def __init__(self, replies: Replies, record: Record, deadline: float, held: contextlib.ExitStack) -> None:
        self._replies, self._record, self.deadline, self._held = replies, record, deadline, held
        self._chunks = replies.chunks()
        self._first = b""

    async def body(self) -> api.Completion:
        """The whole reply. Raises Failure."""
        with self._noted():
            try:
                async with asyncio.timeout_at(self.deadline):
                    await self._replies.run()
                completion = self._replies.completion()
                await self._record.finish()
                return completion
            finally:
                self._held.close()

    async def open(self) -> None:
        """Begin, and wait for the first event: what fails before it still has a status. Raises Failure."""
        try:
            with self._noted():
                self._replies.start()
                async with asyncio.timeout_at(self.deadline):
                    self._first = await anext(self._chunks)
        except BaseException:
            await self.close()
            raise

    async def events(self) -> AsyncIterator[bytes]:
        """The events of the stream. A failure is the last one; the line in the audit log comes before [DONE]."""
        try:
            with self._noted():
                chunk: bytes | None = self._first
                while chunk is not None:
                    yield chunk
                    async with asyncio.timeout_at(self.deadline):
                        chunk = await anext(self._chunks, None)
                await self._record.finish()
        except Failure as failed:
            yield error_event(failed.body)
        else:
            yield DONE

    async def close(self) -> None:
        """The stream is over, or its reader has left."""
        with contextlib.suppress(Unwritten):
            self._record.note(LEFT)
        try:
            await self._replies.close()
        finally:  # a reader who leaves now cancels this, too
            self._held.close()

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Turns what goes wrong into a Failure that has been noted."""
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            with contextlib.suppress(Unwritten):
                self._record.note(LEFT)
            raise
        except Exception as error:
            failed = failure_of(error)
            with contextlib.suppress(Unwritten):
                self._record.note(failed.status)
            raise failed from None
