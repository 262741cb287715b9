"""A server that speaks our JSON and says what a test wants: for the states of the editor page that a model does not
reach at will. Everything it sends goes through the models of `safeladder.serving.api`."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from safeladder.search.extras import import_extra
from safeladder.serving import api
from safeladder.serving.editor_files import add_editor
from safeladder.steering.steps import split_steps

SERVED = api.Served(
    steer=["value-guidance", "treble"],
    search=True,
    edits=True,
    images=True,
    scores=["safety", "value"],
    context_length=256,
    max_tokens=128,
    max_n=4,
    max_images=2,
    max_pixels=4_000_000,
    max_body_bytes=4_000_000,
    max_seconds=30.0,
    revision="0" * 12,
)


@dataclass
class Reply:
    """What the model says next. `hold` waits after this many chunks for `FakeServer.free`; `cut` ends the connection
    there. `live` are the decisions or turns that go before the text."""

    reasoning: str = "There are two red circles. There is one blue square. So there are three shapes."
    answer: str = "Three."
    unscored: api.Unscored | None = None
    stop_reason: str = "eos"
    hold: int | None = None
    cut: int | None = None
    error: dict[str, str] | None = None
    live: list[api.Live] = field(default_factory=list)
    search: api.SearchReport | None = None
    cost: dict[str, float | None] | None = None
    ignored: list[str] = field(default_factory=list)
    memory: api.MemoryReport | None = None


@dataclass
class FakeServer:
    """State that tests set and read."""

    key: str | None = None
    served: api.Served = field(default_factory=lambda: SERVED)
    reply: Reply = field(default_factory=Reply)
    refusals: list[tuple[str, int, str, dict[str, str]]] = field(default_factory=list)
    """Taken one by one: (path's end, status, message, headers)."""
    scores: dict[str, float | None] = field(default_factory=lambda: {"safety": 0.92, "value": 0.41})
    labels: dict[str, str] = field(default_factory=dict)
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    confirms: int = 0
    """Steps that are remembered as right when a chain is confirmed."""
    left: int = 0
    """Streams whose reader went away."""
    free: threading.Event = field(default_factory=threading.Event)
    edits: list[api.NewEdit] = field(default_factory=list)

    def last(self, path: str) -> dict[str, Any]:
        """The newest body sent to this path."""
        return next(body for at, body in reversed(self.told) if at.endswith(path))


def create_app(fake: FakeServer) -> Any:
    """The application."""
    fastapi = import_extra("fastapi", "serve")
    responses = import_extra("fastapi.responses", "serve")
    app = fastapi.FastAPI()
    add_editor(app)

    def error(status: int, message: str, headers: dict[str, str] | None = None) -> Any:
        kind = {401: "authentication_error", 429: "rate_limit_error", 504: "timeout_error"}.get(status)
        detail = api.ErrorDetail(message=message, type=kind or "invalid_request_error")  # type: ignore[arg-type]
        return responses.JSONResponse(api.ErrorBody(error=detail).model_dump(), status, headers)

    def refusal(request: Any) -> Any:
        if fake.key and request.headers.get("authorization") != f"Bearer {fake.key}":
            return error(401, "no such key")
        for entry in fake.refusals:
            if request.url.path.endswith(entry[0]):
                fake.refusals.remove(entry)
                return error(*entry[1:])
        return None

    async def models(request: Any) -> Any:
        card = api.ModelCard(id="tiny", created=0, safeladder=fake.served)
        return refusal(request) or responses.JSONResponse(api.ModelList(data=[card]).model_dump())

    async def steps(request: Any) -> Any:
        body = api.StepsRequest(**await told(request))
        if refused := refusal(request):
            return refused
        scores = {
            name: api.StepScore(value=v, label=fake.labels.get(name, "") if v is not None else f"no {name} judge")
            for name, v in fake.scores.items()
        }
        found = [
            api.ScoredStep(step=n, text=s.text, start=s.start, end=s.end, scores=scores)
            for n, s in enumerate(split_steps(body.reasoning), 1)
        ]
        reply = api.StepsReply(steps=found, answer=scores if body.answer else None)
        return responses.JSONResponse(reply.model_dump())

    async def chat(request: Any) -> Any:
        body = api.ChatRequest(**await told(request))
        return refusal(request) or stream(body, fake.reply.reasoning, None)

    async def edit(request: Any) -> Any:
        body = api.EditRequest(**await told(request))
        if refused := refusal(request):
            return refused
        texts = [step.text for step in split_steps(body.reasoning)]
        texts[body.step - 1] = f"{body.text} " if body.text else ""
        rest = fake.reply.reasoning if body.mode == "continue" else "".join(texts[body.step :])
        kept = "".join(texts[: body.step])
        report = api.EditReport(
            mode=body.mode, step=body.step, kept=kept, distance=0.25, remembered="e1" if body.remember else None
        )
        return stream(body, kept + rest, report)

    async def confirm(request: Any) -> Any:
        body = api.ConfirmRequest(**await told(request))
        if refused := refusal(request):
            return refused
        edits = [
            api.Edit(id=s.text, question="?", original=s.text, edited=s.text, confirmed=True, calibrated=True)
            for s in split_steps(body.reasoning)[: fake.confirms]
        ]
        return responses.JSONResponse(api.Confirmed(data=edits).model_dump())

    async def told(request: Any) -> dict[str, Any]:
        body = await request.json()
        fake.told.append((request.url.path, body))
        return body

    def stream(body: api.Sampling, reasoning: str, edited: api.EditReport | None) -> Any:
        return responses.StreamingResponse(events(body, reasoning, edited), media_type="text/event-stream")

    async def events(body: api.Sampling, reasoning: str, edited: api.EditReport | None) -> AsyncIterator[str]:
        reply = fake.reply
        chunks: list[api.ChunkChoice] = [
            api.ChunkChoice(index=0, delta=api.Delta(role="assistant")),
            *(api.ChunkChoice(index=0, delta=api.Delta(), safeladder=live) for live in reply.live),
            *(api.ChunkChoice(index=0, delta=api.Delta(reasoning_content=piece)) for piece in pieces(reasoning)),
            *(api.ChunkChoice(index=0, delta=api.Delta(content=piece)) for piece in pieces(reply.answer)),
        ]
        for number, choice in enumerate(chunks):
            if number == reply.hold:
                try:
                    while not fake.free.is_set():
                        await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    fake.left += 1
                    raise
            if number == reply.cut:
                if reply.error:
                    yield f"data: {json.dumps({'error': reply.error})}\n\n"
                return
            yield event(body, [choice], None)
        report = api.Report(
            stop_reason="length" if reply.unscored == "truncated" else "eos",
            well_formed=reply.unscored is None,
            unscored=reply.unscored,
            seed=body.seed if body.seed is not None else 77,
            steering=(body.safeladder.steer if body.safeladder else None) or [],
            cost=reply.cost,
            trail=[live.step for live in reply.live if live.step] or None,
            search=reply.search,
            edit=edited,
            edits=reply.memory,
            ignored=reply.ignored,
        )
        finish = "length" if report.stop_reason == "length" else "stop"
        yield event(body, [api.ChunkChoice(index=0, delta=api.Delta(), finish_reason=finish, safeladder=report)], None)
        yield event(body, [], api.Usage(prompt_tokens=9, completion_tokens=len(chunks), total_tokens=9 + len(chunks)))
        yield "data: [DONE]\n\n"

    def event(body: api.Sampling, choices: list[api.ChunkChoice], usage: api.Usage | None) -> str:
        chunk = api.Chunk(id="c", created=0, model=body.model, system_fingerprint="f", choices=choices, usage=usage)
        data = chunk.model_dump(mode="json")
        for told, choice in zip(data["choices"], choices, strict=True):
            if isinstance(choice.safeladder, api.Live):
                told["safeladder"] = choice.safeladder.model_dump(mode="json", exclude_none=True)
        return f"data: {json.dumps(data)}\n\n"

    for path, handler, method in (
        ("/v1/models", models, "GET"),
        ("/v1/safeladder/steps", steps, "POST"),
        ("/v1/chat/completions", chat, "POST"),
        ("/v1/safeladder/edit", edit, "POST"),
        ("/v1/safeladder/confirm", confirm, "POST"),
    ):
        app.add_route(path, handler, methods=[method])
    return app


def pieces(text: str) -> list[str]:
    """Words, each with the space after it, as a tokenizer would give them."""
    return [f"{word} " for word in text.split(" ")[:-1]] + text.split(" ")[-1:] if text else []
