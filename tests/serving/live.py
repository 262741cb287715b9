"""A real server of ours over a tiny model, on loopback."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
from PIL import Image

from safeladder.rollout.continuous import ContinuousEngine
from safeladder.serving.server import create_app
from safeladder.serving.steered import Host
from tests.rollout.tiny_policies import policy
from tests.search.serving import serving

NAME = "tiny"


@contextlib.contextmanager
def live(
    *,
    family: str = "qwen2_5_vl",
    engine: ContinuousEngine | None = None,
    beside: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[httpx.Client]:
    """A client of a server; `beside` goes to the host, `options` to the application."""
    host = Host(engine or ContinuousEngine(policy(family)), name=NAME, revision="r1", **(beside or {}))
    app = create_app(host, grace=2.0, **options)
    with serving(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        client.app = app  # type: ignore[attr-defined]
        yield client


def ask(*content: Any, **more: Any) -> dict[str, Any]:
    """A body of a chat completion: text and images of one user message."""
    parts = [
        {"type": "text", "text": item}
        if isinstance(item, str)
        else {"type": "image_url", "image_url": {"url": item.url}}
        for item in content
    ]
    body = {"model": NAME, "messages": [{"role": "user", "content": parts}], "max_tokens": 12, "seed": 1}
    return body | more


class Shown:
    """An image as a data address."""

    def __init__(self, image: Image.Image, kind: str = "PNG") -> None:
        buffer = io.BytesIO()
        image.save(buffer, format=kind)
        self.url = f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


def events(response: httpx.Response) -> list[Any]:
    """The events of a stream; the last one is the string [DONE] where it ended well."""
    found: list[Any] = []
    for line in response.iter_lines():
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            found.append(data if data == "[DONE]" else json.loads(data))
    return found


def stream(client: httpx.Client, body: dict[str, Any], path: str = "/v1/chat/completions") -> list[Any]:
    """All events of a streamed reply."""
    with client.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        return events(response)
