"""What one request may ask for, who may ask, and from where: limits, API keys, the origin of a page."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from safeladder.search.gate import Message, Receive, Send
from safeladder.types import SafeladderError

KEY_VARIABLE = "SAFELADDER_API_KEY"
"""Environment variable of the keys; `safeladder eval` reads its own from the same one."""
_SHORTEST_KEY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one request, of one client, and of all together."""

    body_bytes: int = 32 * 2**20
    body_seconds: float = 30.0
    """A body that takes longer is refused."""
    images: int = 16
    """Of one request."""
    image_pixels: int = 16_000_000
    """Of one image, before it is decoded."""
    messages: int = 256
    tokens: int = 4096
    """Longest reply; also the default where the request names none."""
    choices: int = 8
    """`n` of a request."""
    seconds: float = 300.0
    """From a request's arrival to the end of its reply."""
    requests_a_minute: float = math.inf
    """Of one key, or of one client address where there are no keys."""
    rows: int = 64
    """Replies generated together."""
    waiting: int = 256
    """Requests in work or waiting; more are refused with 429."""


def read_keys(variable: str | None, environment: Mapping[str, str] = os.environ) -> list[str] | None:
    """The API keys in an environment variable, separated by commas; None where none is wanted.

    Args:
        variable: as given on the command line; None = `KEY_VARIABLE`, which may be unset.

    Raises:
        SafeladderError: the named variable is not set, or a key is short or cannot be sent in a header.
    """
    name = variable or KEY_VARIABLE
    text = environment.get(name)
    if text is None:
        if variable is not None:
            raise SafeladderError(f"--key-env: the environment variable {name} is not set")
        return None
    keys = [key.strip() for key in text.split(",")]
    for key in keys:
        if len(key) < _SHORTEST_KEY or not (key.isascii() and key.isprintable()) or " " in key:
            raise SafeladderError(
                f"{name}: every key needs {_SHORTEST_KEY} or more printable ASCII characters without spaces"
            )
    return keys


class SameOrigin:
    """ASGI middleware for a server without keys: 403 for what a web page of another origin sends.

    A page that someone on this machine opens could otherwise use a server on loopback through their browser, its name
    resolving to 127.0.0.1 included (DNS rebinding): browsers name the page's origin in every such request, and the
    name in ``Host`` must be one that this server goes by.

    Args:
        hosts: names that the server goes by, without port.
    """

    def __init__(self, app: Any, *, hosts: frozenset[str], refuse: Any) -> None:
        self._app, self._hosts, self._refuse = app, hosts, refuse

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and (problem := self._problem(dict(scope["headers"]))):
            await self._refuse(403, problem)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _problem(self, headers: Mapping[bytes, bytes]) -> str:
        host = headers.get(b"host", b"").decode("latin-1")
        if _name(f"//{host}") not in self._hosts:
            return "the Host header names another server"
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and urlsplit(origin).netloc != host:
            return "requests of other origins are not served"
        return ""


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
