"""JSON over HTTP that either answers or says that it could not: timeouts, retries, and nothing in between."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from safeladder.search.extras import import_extra
from safeladder.search.retriever import RetrievalFault
from safeladder.types import SafeladderError

TIMEOUT = 10.0
"""Seconds to connect, and between two pieces of a reply."""
ATTEMPTS = 4
FIRST_PAUSE = 0.5
"""Seconds before the first repetition; each further one waits twice as long, give or take a half."""
LONGEST_PAUSE = 30.0
REPLY_BYTES = 64 * 2**20
_MISCONFIGURED = {401: "the API key is wrong or missing", 403: "the API key may not do this"}


class JsonClient:
    """Requests to one server. Threads may share it; connections are kept open."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`sleep` waits before a repetition.

        Raises:
            SafeladderError: `url` is not http(s)://HOST…, or httpx is not installed.
        """
        self._httpx = import_extra("httpx")
        try:
            parsed = self._httpx.URL(url)
        except self._httpx.InvalidURL:
            parsed = None
        if parsed is None or parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) > 65535:
            raise SafeladderError(f"{url!r} is no address of a server: http://HOST:PORT or https://HOST")
        self._attempts = attempts
        self._sleep = sleep
        self.url = url.rstrip("/")
        # trust_env=False: a proxy variable must not send a loopback request elsewhere.
        self._client = self._httpx.Client(
            headers=dict(headers or {}), timeout=timeout, trust_env=False, follow_redirects=False
        )

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and parsed body of a 2xx or 404 reply.

        Repeated after: no connection, a timeout, 429 and 5xx (waiting as long as `Retry-After` says, within reason).

        Raises:
            RetrievalFault: no usable reply after all attempts, or a reply that is no JSON.
            SafeladderError: the server refuses the API key: repeating the run would not help.
        """
        # Half a surrogate pair, which a policy may well write, is no character and cannot be sent.
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        what = f"{method} {self.url}{path}"
        trouble, told = "", None
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(_pause(attempt, told))
            told = None
            try:
                reply = self._client.request(
                    method, self.url + path, content=content, headers={"content-type": "application/json"}
                )
            except self._httpx.TimeoutException as error:
                trouble = f"timeout ({type(error).__name__})"
                continue
            except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
                trouble = f"{type(error).__name__}: {error}"
                continue
            if reply.status_code == 429 or reply.status_code >= 500:
                trouble = f"status {reply.status_code}"
                told = reply.headers.get("retry-after")
                continue
            if reply.status_code in _MISCONFIGURED:
                raise SafeladderError(f"{what}: status {reply.status_code}, {_MISCONFIGURED[reply.status_code]}")
            if not reply.is_success and reply.status_code != 404:
                raise RetrievalFault(f"{what}: status {reply.status_code}, {reply.text[:200]!r}")
            return reply.status_code, _parse(reply, what)
        raise RetrievalFault(f"{what}: {trouble}, {self._attempts} attempts")


def _pause(attempt: int, told: str | None) -> float:
    if told is not None and told.isdigit():
        return min(float(told), LONGEST_PAUSE)
    return min(FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5), LONGEST_PAUSE)


def _parse(reply: Any, what: str) -> Any:
    if len(reply.content) > REPLY_BYTES:
        raise RetrievalFault(f"{what}: a reply of {len(reply.content)} bytes")
    try:
        return json.loads(reply.content)
    except (ValueError, RecursionError) as error:
        raise RetrievalFault(f"{what}: the reply is not JSON ({error})") from None


def field(row: Any, key: str, kind: type, what: str) -> Any:
    """A value of a reply. Raises RetrievalFault where it is missing or of another type."""
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise RetrievalFault(f"{what}: malformed reply, no {key!r} of type {kind.__name__}")
    return value


def number(row: Any, key: str, what: str) -> float:
    """A finite number of a reply."""
    value = row.get(key) if isinstance(row, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise RetrievalFault(f"{what}: malformed reply, {key!r} is no number")
    return float(value)
