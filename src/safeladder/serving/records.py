"""What is kept of requests: numbers for Prometheus, and a line of the audit log for every one that was admitted."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Protocol

from safeladder.search.gate import KEY, Message, Receive, Send
from safeladder.serving.audit import AuditLog, asked, key_mark, now
from safeladder.serving.errors import Unwritten
from safeladder.serving.metrics import Metrics
from safeladder.serving.replies import Replies
from safeladder.serving.steered import Host

_LOG = logging.getLogger(__name__)

LEFT = 499
"""Status in metrics and audit log of a request whose client left (nginx's number)."""
_PATHS = (
    "/v1/chat/completions",
    "/v1/models",
    "/v1/safeladder/confirm",
    "/v1/safeladder/edit",
    "/v1/safeladder/edits",
    "/v1/safeladder/steps",
    "/health",
    "/metrics",
    "/editor",
)


class _Busy(Protocol):
    busy: int


class Recorder:
    """Counts requests and opens their records."""

    def __init__(self, host: Host, desk: _Busy, audit: AuditLog | None, *, with_text: bool) -> None:
        self._host, self._audit, self._with_text = host, audit, with_text
        self.metrics = counted = Metrics()
        engine = host.engine
        counted.counter("safeladder_requests_total", "HTTP requests by path and status; 499: the client left")
        counted.histogram("safeladder_request_seconds", "From a request's arrival to the end of its reply")
        counted.histogram("safeladder_first_token_seconds", "From a request's arrival to its first token, of streams")
        counted.counter("safeladder_prompt_tokens_total", "Prompt tokens of finished requests")
        counted.counter("safeladder_completion_tokens_total", "Tokens of finished replies")
        counted.counter("safeladder_unscored_total", "Replies that are no evidence of a safe answer, by reason")
        counted.counter("safeladder_audit_failures_total", "Lines that the audit log could not take")
        counted.gauge("safeladder_requests_in_work", "Requests admitted and not finished", lambda: desk.busy)
        counted.gauge("safeladder_rows_running", "Replies being generated", lambda: engine.stats().running)
        counted.gauge("safeladder_rows_waiting", "Replies waiting for a place", lambda: engine.stats().waiting)
        counted.gauge(
            "safeladder_generated_tokens", "Tokens sampled since the start", lambda: engine.stats().generated_tokens
        )
        counted.gauge("safeladder_decoding_steps", "Forward passes since the start", lambda: engine.stats().steps)

    def open(self, endpoint: str, replies: Replies, arrived: float) -> Record:
        """The record of an admitted request."""
        return Record(self, endpoint, replies, arrived)

    def row(self, record: Record, status: int) -> dict[str, Any]:
        """A request's line in the audit log."""
        replies, plan = record.replies, record.replies.plan
        first = plan.jobs[0]
        done = [choice for choice in replies.choices if choice.outcome is not None]
        row: dict[str, Any] = {
            "time": now(),
            "id": replies.id,
            "endpoint": record.endpoint,
            "status": status,
            "key": record.key,
            "model": self._host.name,
            "revision": self._host.revision,
            "asked": asked(plan.sample, with_text=self._with_text),
            "sampling": {
                "n": len(plan.jobs),
                "seed": first.seed,
                "temperature": first.params.temperature,
                "top_p": first.params.top_p,
                "max_tokens": first.params.max_new_tokens,
            },
            "steering": list(first.steering),
            "search": first.search,
            "edit_memory": first.memory,
            "edit": None if plan.edit is None else {"mode": plan.edit.mode, "step": plan.edit.step},
            "prompt_tokens": len(first.prompt_ids),
            "choices": [],
            "seconds": round(time.monotonic() - record.arrived, 4),
        }
        for choice in done:
            report, outcome = replies.report(choice), choice.outcome
            assert outcome is not None
            said = {
                "index": choice.index,
                "stop_reason": report.stop_reason,
                "unscored": report.unscored,
                "tokens": choice.completion_tokens,
                "value": outcome.value,
                "confidence": report.search.confidence if report.search else None,
                "edit_memory": report.edits.outcome if report.edits else None,
            }
            if self._with_text:
                said |= {"reasoning": choice.reasoning, "answer": choice.answer}
            row["choices"].append(said)
        return row

    def write(self, record: Record, status: int) -> None:
        """Count a finished request and note it. Raises Unwritten where the audit log cannot take the line."""
        counted, replies = self.metrics, record.replies
        if status == 200:
            counted.count("safeladder_prompt_tokens_total", len(replies.plan.jobs[0].prompt_ids))
        for choice in replies.choices:
            if choice.outcome is not None:
                counted.count("safeladder_completion_tokens_total", choice.completion_tokens)
                if choice.unscored is not None:
                    counted.count("safeladder_unscored_total", reason=choice.unscored)
        if replies.live and replies.first_token is not None:
            counted.observe("safeladder_first_token_seconds", replies.first_token - record.arrived)
        if self._audit is not None:
            try:
                self._audit.write(self.row(record, status))
            except OSError as error:
                counted.count("safeladder_audit_failures_total")
                _LOG.error("audit log: %s", error)
                raise Unwritten from error

    def seen(self, path: str, status: int, seconds: float) -> None:
        """Count one HTTP request."""
        known = next((p for p in _PATHS if path == p or path.startswith(f"{p}/")), "other")
        self.metrics.count("safeladder_requests_total", path=known, status=str(status))
        self.metrics.observe("safeladder_request_seconds", seconds, path=known)


class Record:
    """One admitted request; it is noted once, however it ends."""

    def __init__(self, recorder: Recorder, endpoint: str, replies: Replies, arrived: float) -> None:
        self.endpoint, self.replies, self.arrived = endpoint, replies, arrived
        self.key = key_mark(KEY.get())
        self._recorder = recorder
        self._noted = False

    def note(self, status: int) -> None:
        """Note it now, in this thread. Raises Unwritten."""
        if not self._noted:
            self._noted = True
            self._recorder.write(self, status)

    async def finish(self) -> None:
        """Note that it was answered in full, without holding up other requests. Raises Unwritten."""
        await asyncio.to_thread(self.note, 200)


class Counted:
    """ASGI middleware that counts requests by path and status, and how long they took."""

    def __init__(self, app: Any, *, recorder: Recorder) -> None:
        self._app, self._recorder = app, recorder

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on and count it when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), LEFT

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            self._recorder.seen(scope["path"], status, time.monotonic() - began)
