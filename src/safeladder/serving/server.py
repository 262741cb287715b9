"""The OpenAI-compatible server as an ASGI application: routes, admission, errors, shutdown.

A request passes the gate (origin, key, size), is admitted or told to come again, is turned into jobs on a thread, and
answered from the event loop. Every reply that is not 2xx has OpenAI's error shape. Who leaves is no longer worked for,
and no request takes longer than its limit, be it that its reader reads slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from safeladder.rollout.tickets import EngineBusy, EngineClosed
from safeladder.search.extras import import_extra
from safeladder.search.gate import Gate
from safeladder.serving import api, metrics
from safeladder.serving.audit import AuditLog
from safeladder.serving.editor_files import add_editor
from safeladder.serving.errors import Failure, LastResort, failure, failure_of, invalid
from safeladder.serving.limits import Limits, SameOrigin
from safeladder.serving.plans import Plan, plan_chat, plan_confirm, plan_edit, plan_new_edit, plan_steps
from safeladder.serving.records import Counted, Recorder
from safeladder.serving.replies import Relay, Replies
from safeladder.serving.scoring import score_names, scored
from safeladder.serving.searched import Unavailable
from safeladder.serving.steered import Host
from safeladder.serving.work import Desk, Work
from safeladder.steering.edit_rules import EditPair
from safeladder.types import SafeladderError, Verifier

_WHY = {
    400: "The request cannot be served as it is.",
    401: "No API key, or a wrong one.",
    403: "Sent by a web page of another origin, to a server without keys.",
    404: "There is nothing of this name.",
    408: "The body did not arrive, or the reply did not end, in the time allowed.",
    413: "The body is too large.",
    429: "Too many requests; come again after `Retry-After` seconds.",
    500: "A defect of the server.",
    503: "The server is stopping, or something that a reply needs has failed.",
}

_LAST_WORDS = 5.0
"""Seconds after its time limit in which a stream can still say so."""

Result = TypeVar("Result")


def create_app(
    host: Host,
    *,
    limits: Limits | None = None,
    verifiers: Sequence[Verifier] = (),
    keys: Sequence[str] | None = None,
    audit: AuditLog | None = None,
    audit_prompts: bool = False,
    names: frozenset[str] | None = None,
    grace: float = 30.0,
) -> Any:
    """The server as an ASGI application. It closes the host and the audit log when it shuts down.

    Args:
        verifiers: what `/v1/safeladder/steps` scores with, beside the value models of guidance.
        keys: any of them opens the server (``Authorization: Bearer KEY``); None = open to whoever reaches it.
        audit: where finished requests are noted; with `audit_prompts` their text too.
        names: host names that the server goes by; requests of web pages of other origins are refused. None = no check.
        grace: seconds that running replies have to end once the server is stopping.

    Raises:
        SafeladderError: FastAPI is not installed.
    """
    fastapi = import_extra("fastapi", "serve")
    limits = limits or Limits()
    desk, preparing = Desk(limits), ThreadPoolExecutor(4, thread_name_prefix="prepare")
    recorder = Recorder(host, desk, audit, with_text=audit_prompts)
    started = int(time.time())
    state: dict[str, Relay] = {}

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        state["relay"] = Relay()
        yield
        desk.stopping = True
        await asyncio.to_thread(host.close, grace)
        preparing.shutdown(wait=False, cancel_futures=True)
        if audit is not None:
            audit.close()

    app = fastapi.FastAPI(
        title="safeladder",
        summary="OpenAI-compatible chat completions with steering, search and edits of the reasoning",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.desk = desk

    async def prepared(work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(preparing, work, *arguments)

    async def answer(endpoint: str, plan_of: Callable[..., Plan], body: Any) -> Any:
        """Plain or streamed, one request from its admission to its line in the audit log."""
        arrived = time.monotonic()
        deadline = asyncio.get_running_loop().time() + limits.seconds
        with contextlib.ExitStack() as held:
            held.enter_context(desk.place())
            async with asyncio.timeout_at(deadline):
                plan = await prepared(plan_of, host, limits, body)
            id = f"chatcmpl-{uuid.uuid4().hex}"
            replies = Replies(host, plan, state["relay"], id=id, live=plan.stream)
            record = recorder.open(endpoint, replies, arrived)
            work = Work(replies, record, deadline, held.pop_all())
        if plan.stream:
            await work.open()
            return EventStream(work)
        return fastapi.Response((await work.body()).model_dump_json(), media_type="application/json")

    class EventStream(fastapi.Response):
        """Server-sent events; the work behind them ends with them, however they end."""

        media_type = "text/event-stream"

        def __init__(self, work: Work) -> None:
            super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
            del self.headers["content-length"]
            self._work = work

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                # Time runs while a slow reader takes what it is given, too.
                async with asyncio.timeout_at(self._work.deadline + _LAST_WORDS):
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    async for event in self._work.events():
                        await send({"type": "http.response.body", "body": event, "more_body": True})
                    await send({"type": "http.response.body", "body": b""})
            finally:
                await self._work.close()

    def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
        usual = (400, 401, 403, 408, 413, 500)
        return {s: {"model": api.ErrorBody, "description": _WHY[s]} for s in sorted({*usual, *statuses})}

    streamed = {
        200: {
            "model": api.Completion,
            "description": "The reply; with `stream` the events of `Chunk`.",
            "content": {"text/event-stream": {"schema": {"description": "Events; the data of each is a `Chunk`."}}},
        }
    }

    @app.post("/v1/chat/completions", responses={**streamed, **errors(404, 429, 503)}, tags=["OpenAI"])
    async def chat_completions(body: api.ChatRequest) -> Any:
        return await answer("chat", plan_chat, body)

    @app.post("/v1/safeladder/edit", responses={**streamed, **errors(404, 429, 503)}, tags=["safeladder"])
    async def edit_reasoning(body: api.EditRequest) -> Any:
        return await answer("edit", plan_edit, body)

    @app.get("/v1/models", response_model=api.ModelList, responses=errors(), tags=["OpenAI"])
    async def models() -> api.ModelList:
        return api.ModelList(data=[card()])

    @app.get("/v1/models/{model:path}", response_model=api.ModelCard, responses=errors(404), tags=["OpenAI"])
    async def model(model: str) -> api.ModelCard:
        if model != host.name:
            raise failure(404, f"no model of this name is served; there is {host.name}", code="model_not_found")
        return card()

    def card() -> api.ModelCard:
        return api.ModelCard(
            id=host.name,
            created=started,
            safeladder=api.Served(
                steer=host.steering,
                search=host.retriever is not None,
                edits=host.memory is not None,
                images=host.images,
                scores=score_names(host, verifiers),
                context_length=host.engine.context_length,
                max_tokens=min(limits.tokens, host.engine.context_length),
                max_n=limits.choices,
                max_images=limits.images,
                max_pixels=limits.image_pixels,
                max_body_bytes=limits.body_bytes,
                max_seconds=limits.seconds,
                revision=host.revision,
            ),
        )

    @app.post("/v1/safeladder/steps", responses=errors(404, 429, 503), tags=["safeladder"])
    async def steps(body: api.StepsRequest) -> api.StepsReply:
        with desk.place():
            async with asyncio.timeout(limits.seconds):
                sample = await prepared(plan_steps, host, limits, body)
                return await scored(host, verifiers, sample, body.reasoning, body.answer)

    def memory() -> Any:
        if host.memory is None:
            raise failure(404, "this server keeps no edit memory (safeladder serve --memory FILE)", code="no_memory")
        return host.memory

    @app.get("/v1/safeladder/edits", responses=errors(404), tags=["safeladder"])
    async def edits() -> api.EditList:
        return api.EditList(data=memory().edits())

    @app.post("/v1/safeladder/edits", responses=errors(404, 429, 503), tags=["safeladder"])
    async def add_edit(body: api.NewEdit) -> api.Edit:
        kept = memory()
        with desk.place():
            async with asyncio.timeout(limits.seconds):
                found = await prepared(plan_new_edit, host, limits, body)
                if isinstance(found, EditPair):
                    return await prepared(kept.add, found)
                sample, lesson = found
                return await host.in_lane(host.edit_steering, lambda lane, _: kept.learn(lane, sample, lesson, seed=0))

    @app.post("/v1/safeladder/confirm", responses=errors(404, 429, 503), tags=["safeladder"])
    async def confirm(body: api.ConfirmRequest) -> api.Confirmed:
        kept, seed = memory(), body.seed or 0
        with desk.place():
            async with asyncio.timeout(limits.seconds):
                sample = await prepared(plan_confirm, host, limits, body)
                found = await host.in_lane(
                    host.edit_steering, lambda lane, _: kept.confirm(lane, sample, body.reasoning, seed=seed)
                )
                return api.Confirmed(data=found)

    @app.delete("/v1/safeladder/edits", responses=errors(404), tags=["safeladder"])
    async def forget_edits() -> api.Deleted:
        return api.Deleted(deleted=await prepared(memory().remove, None))

    @app.delete("/v1/safeladder/edits/{id}", responses=errors(404), tags=["safeladder"])
    async def forget_edit(id: str) -> api.Deleted:
        deleted = await prepared(memory().remove, id)
        if not deleted:
            raise failure(404, "no edit has this id")
        return api.Deleted(deleted=deleted)

    @app.get("/health", responses={503: {"model": api.Health, "description": "Stopping."}}, tags=["operation"])
    async def health() -> api.Health:
        stats = host.engine.stats()
        status = "stopping" if desk.stopping else "ok"
        body = api.Health(status=status, model=host.name, running=stats.running, waiting=stats.waiting)
        if desk.stopping:
            return fastapi.responses.JSONResponse(body.model_dump(), 503)
        return body

    text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text."}}

    @app.get("/metrics", responses={**text, **errors()}, response_class=fastapi.Response, tags=["operation"])
    async def prometheus() -> Any:
        return fastapi.Response(recorder.metrics.render(), 200, None, metrics.CONTENT_TYPE)

    add_editor(app)

    def told(failed: Failure) -> Any:
        return fastapi.responses.JSONResponse(failed.body.model_dump(), failed.status, failed.headers)

    @app.exception_handler(fastapi.exceptions.RequestValidationError)
    async def malformed(request: Any, problem: Any) -> Any:
        return told(invalid(problem.errors()))

    @app.exception_handler(fastapi.exceptions.StarletteHTTPException)
    async def refused(request: Any, problem: Any) -> Any:
        failed = failure(problem.status_code, str(problem.detail))
        failed.headers.update(problem.headers or {})
        return told(failed)

    for kind in (Failure, SafeladderError, EngineBusy, EngineClosed, Unavailable, TimeoutError):

        @app.exception_handler(kind)
        async def failed(request: Any, problem: Exception) -> Any:
            return told(failure_of(problem))

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _exact(generated(), host.name)
        return app.openapi_schema

    generated, app.openapi = app.openapi, describe

    def shape(status: int, message: str) -> Any:
        return failure(status, message).body.model_dump()

    app.add_middleware(LastResort)
    app.add_middleware(
        Gate,
        body_bytes=limits.body_bytes,
        body_seconds=limits.body_seconds,
        api_key=keys,
        open_path=lambda path: path in ("/health", "/editor") or path.startswith("/editor/"),
        shape=shape,
    )
    if names is not None:
        app.add_middleware(SameOrigin, hosts=names, refuse=lambda status, message: told(failure(status, message)))
    app.add_middleware(Counted, recorder=recorder)
    return app


def _exact(schema: dict[str, Any], model: str) -> dict[str, Any]:
    """The schema with the one model there is, and without FastAPI's own 422, which is never sent."""
    schemas = schema["components"]["schemas"]
    for operation in (o for path in schema["paths"].values() for o in path.values()):
        operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name in ("ChatRequest", "EditRequest", "StepsRequest"):
        schemas[name]["properties"]["model"] = {"type": "string", "enum": [model]}
    return schema
