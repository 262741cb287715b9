"""Every reply that is not 2xx: what happened, in OpenAI's shape."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from safeladder.rollout.tickets import EngineBusy, EngineClosed
from safeladder.search.gate import Message, Receive, Send
from safeladder.serving import api
from safeladder.serving.chat import Refused
from safeladder.serving.searched import Unavailable
from safeladder.types import SafeladderError

_LOG = logging.getLogger(__name__)
_RETRY_AFTER = 1
"""Seconds; sent with 429 and 503."""
_TYPES: dict[int, Any] = {401: "authentication_error", 408: "timeout_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 408: "timeout",
          413: "request_too_large", 429: "rate_limit_exceeded", 503: "overloaded"}  # fmt: skip
_FORMS = ("string_type", "list_type")
"""Where one of two forms is allowed, what is wrong with the other one says more."""
_NAME, _LINE = 100, 500
"""Most characters of a name that a client sent, and of a message, in a reply."""


class Unwritten(Exception):
    """The audit log could not take a line: the reply it was about does not count as given."""


class Failure(Exception):
    """A reply that is no 2xx."""

    def __init__(self, status: int, body: api.ErrorBody, headers: dict[str, str] | None = None) -> None:
        super().__init__(body.error.message)
        self.status, self.body, self.headers = status, body, headers or {}


def failure(status: int, message: str, *, param: str | None = None, code: str | None = None) -> Failure:
    """A failure in OpenAI's shape."""
    kind = _TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    detail = api.ErrorDetail(message=message, type=kind, param=param, code=code or _CODES.get(status))
    headers = {"Retry-After": str(_RETRY_AFTER)} if status in (429, 503) else {}
    if status == 408:  # the same request would take as long again
        headers["x-should-retry"] = "false"
    return Failure(status, api.ErrorBody(error=detail), headers)


def failure_of(error: BaseException) -> Failure:
    """What a client is told about an error; a defect's text stays in the log."""
    match error:
        case Failure():
            return error
        case Refused():
            status = 404 if error.code == "model_not_found" else 400
            return failure(status, str(error), param=error.param, code=error.code or "invalid_value")
        case SafeladderError():
            return failure(400, str(error), code="invalid_value")
        case EngineBusy():
            return failure(429, "too many requests are waiting")
        case EngineClosed():
            return failure(503, "the server is stopping", code="stopping")
        case Unavailable():
            return failure(503, f"the search index failed: {error}", code="search_failed")
        case Unwritten():
            return failure(503, "the audit log cannot be written", code="audit_failed")
        case TimeoutError():
            return failure(408, "the reply took longer than this server allows")
    _LOG.error("a request failed", exc_info=error)
    return failure(500, "internal error")


def invalid(problems: Sequence[Mapping[str, Any]]) -> Failure:
    """The first thing that is wrong with a body. What was sent is not repeated: it need not even be text."""
    problem = next((p for p in problems if p["loc"][1:2] == problems[0]["loc"][1:2] and p["type"] not in _FORMS), None)
    problem = problem or problems[0]
    place = [str(part)[:_NAME] for part in problem["loc"][1:]]
    param, name, top = ".".join(place), place[-1] if place else "", place[0] if place else ""
    if problem["type"] == "extra_forbidden":
        if name in api.UNSUPPORTED:
            return failure(400, f"{name}: {api.UNSUPPORTED[name]}", param=param, code="unsupported_parameter")
        return failure(400, f"unknown parameter {name}", param=param, code="unknown_parameter")
    if top in api.UNSUPPORTED:
        return failure(400, f"{top}: {api.UNSUPPORTED[top]}", param=param, code="unsupported_parameter")
    if name == "detail":
        return failure(400, f"detail: {api.UNSUPPORTED[name]}", param=param, code="unsupported_parameter")
    return failure(400, f"{param or 'body'}: {problem['msg']}"[:_LINE], param=param or None, code="invalid_value")


class LastResort:
    """ASGI middleware: a defect is answered with 500 and logged, and the connection lives on.

    Starlette's own would raise it again, whereupon the server closes the connection under a client's next request.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        started = False

        async def sent(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            failed = failure_of(error)
            body = failed.body.model_dump_json().encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": failed.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
