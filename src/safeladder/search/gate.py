"""What a request passes before it is parsed: the API key and the size of its body; and the rate of its sender."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextvars import ContextVar
from typing import Any

OPEN_PATHS = ("/health",)
"""What can be asked without the API key."""
_DRAINED = 16
"""An oversize body is read (and thrown away) up to this many times the limit, so that its sender sees the reply."""
_REMEMBERED = 10_000
"""Clients whose rate is followed."""

CLIENT: ContextVar[str] = ContextVar("CLIENT", default="")
"""The address that the request in work came from."""
KEY: ContextVar[str] = ContextVar("KEY", default="")
"""The API key that the request in work came with; empty where none is wanted."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def plain_detail(status: int, detail: str) -> Any:
    """FastAPI's own shape of an error."""
    return {"detail": detail}


class Gate:
    """ASGI middleware: 401 without the key, 413 for a body beyond `body_bytes`, whatever its declared length, 408 for
    one that takes longer than `body_seconds`. The work for a client that has left is cancelled.

    Args:
        api_key: one, or several of which any will do; None = whoever reaches the server may ask.
        open_path: which paths can be asked for without a key.
        shape: (status, one line) -> the JSON of a refusal.
    """

    def __init__(
        self,
        app: Any,
        *,
        body_bytes: int,
        body_seconds: float,
        api_key: str | Sequence[str] | None,
        open_path: Callable[[str], bool] = OPEN_PATHS.__contains__,
        shape: Callable[[int, str], Any] = plain_detail,
    ) -> None:
        self._app = app
        self._limit = body_bytes
        self._seconds = body_seconds
        self._keys = None if api_key is None else [api_key] if isinstance(api_key, str) else list(api_key)
        self._open_path = open_path
        self._shape = shape

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._keys is not None:
            key = _held(scope["headers"], self._keys)
            if key is None and not self._open_path(scope["path"]):
                await self._refuse(send, 401, "the API key is wrong or missing", (b"www-authenticate", b"Bearer"))
                return
            KEY.set(key or "")
        CLIENT.set((scope.get("client") or ("",))[0])
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(receive)
        except TimeoutError:
            await self._refuse(send, 408, f"no whole body in {self._seconds:g} seconds", (b"connection", b"close"))
            return
        if body is None:
            return
        if len(body) > self._limit:
            await self._refuse(send, 413, f"a body of more than {self._limit} bytes", (b"connection", b"close"))
            return
        await self._while_wanted(scope, body, receive, send)

    async def _while_wanted(self, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        """Have the request answered, unless its client leaves before."""
        left = asyncio.ensure_future(receive())
        answer = asyncio.ensure_future(self._app(scope, _replay(body, left), send))
        try:
            await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                await answer
        finally:
            for task in (answer, left):
                task.cancel()
            await asyncio.gather(answer, left, return_exceptions=True)

    async def _refuse(self, send: Send, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
        body = json.dumps(self._shape(status, detail)).encode()
        fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
        await send({"type": "http.response.body", "body": body})

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, or its beginning where it is too long; None where the client left."""
        body = bytearray()
        read = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            read += len(piece)
            body += piece[: self._limit + 1 - len(body)]
            if not message.get("more_body") or read > _DRAINED * self._limit:
                return bytes(body)


class RateLimit:
    """A token bucket a client: `rate` queries a second on average, a second's worth at once.

    A request of more queries than that passes where the bucket is full, and is paid off before the next.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`rate` may be infinite."""
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, client: str, queries: int) -> float:
        """0 where the client may ask now, else the seconds it has to wait (nothing is spent then)."""
        if self._rate == float("inf"):
            return 0.0
        now = self._clock()
        full = max(self._rate, 1.0)
        level, then = self._buckets.pop(client, (full, now))
        level = min(full, level + (now - then) * self._rate)
        # What cannot be had at once may be had from a full bucket.
        needed = min(float(queries), full)
        wait = max(0.0, (needed - level) / self._rate)
        self._buckets[client] = (level if wait else level - queries, now)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return wait


def _held(headers: list[tuple[bytes, bytes]], keys: Sequence[str]) -> str | None:
    """The key that a request carries, if it is one of ours; takes as long whichever it is."""
    given = dict(headers)
    scheme, _, token = given.get(b"authorization", b"").partition(b" ")
    candidates = [given.get(b"x-api-key", b"")]
    if scheme.lower() == b"bearer":
        candidates.append(token.strip())
    found = [key for key in keys for candidate in candidates if hmac.compare_digest(candidate, key.encode())]
    return found[0] if found else None


def _replay(body: bytes, left: asyncio.Future[Message]) -> Receive:
    """The body again, and after it what `left` brings: who streams a reply listens for its reader to leave."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await asyncio.shield(left)

    return again
