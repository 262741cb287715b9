"""A real server of ours over a tiny model, on loopback."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import httpx
import torch
from PIL import Image

from rollout.tiny_policies import policy
from safeladder.rollout.continuous import ContinuousEngine
from safeladder.rollout.local import LocalEngine, text_weights
from safeladder.serving.server import create_app
from safeladder.serving.steered import Host
from search.serving import serving

NAME = "tiny"


GRAMMAR = {
    "": {"<think>": 0.9, "b": 0.1},
    "<think>": {"a": 0.95, "</think>": 0.05},
    "a": {"a": 0.3, " ": 0.3, ".": 0.15, "</think>": 0.25},
    " ": {"a": 0.8, "</think>": 0.2},
    ".": {" ": 0.7, "</think>": 0.3},
    "</think>": {"b": 0.9, "END": 0.1},
    "b": {"b": 0.4, "?": 0.35, "END": 0.25},
    "?": {"b": 0.6, "END": 0.4},
}
"""What a formatted policy says next, by what it said last: letters a think, letters b answer."""


SEARCHING = {
    "": {"<search>": 1.0},
    "<search>": {"a": 1.0},
    "a": {"</search>": 1.0},
    "</information>": {"<confidence>": 1.0},
    "<confidence>": {"9": 0.5, "2": 0.5},
    "9": {"</confidence>": 1.0},
    "2": {"</confidence>": 1.0},
    "</confidence>": {"<answer>": 1.0},
    "<answer>": {"b": 1.0},
    "b": {"</answer>": 1.0},
    "</search>": {"END": 1.0},
    "</answer>": {"END": 1.0},
}
"""One search, then an answer that is certain or not."""


def formatted(
    make: type[LocalEngine], family: str = "qwen2_5_vl", grammar: dict[str, dict[str, float]] = GRAMMAR
) -> Any:
    """An engine of a policy that mostly keeps to the response format: it reads nothing but its last token.

    All layers are switched off, so that a token's hidden state is its embedding; every token of the grammar has a
    direction of its own, and the head turns it into the log-probabilities of what may follow.
    """
    made = policy(family)
    tokenizer = made.tokenizer
    ids = {text: tokenizer.encode(text, add_special_tokens=False) for text in grammar if text}
    assert all(len(found) == 1 for found in ids.values())
    place = {text: found[0] for text, found in ids.items()} | {"END": made.eos_token_id}
    weights = {name: value.detach().clone() for name, value in text_weights(made).items()}
    for name in weights:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name].zero_()
    weights["norm.weight"].fill_(1.0)
    width = weights["embed_tokens.weight"].shape[1]
    directions = torch.eye(width) * width**-0.5  # of length 1 after the norm, which scales to width ** 0.5
    embeddings, head = (
        directions[0].repeat(len(weights["embed_tokens.weight"]), 1),
        torch.zeros_like(weights["lm_head.weight"]),
    )
    for number, (said, follows) in enumerate(grammar.items()):
        if said:
            embeddings[place[said]] = directions[number]
        for text in place:
            head[place[text], number] = math.log(follows.get(text, 1e-12)) * width**-0.5
    made.logit_bias.fill_(-1e9)
    made.logit_bias[list(place.values())] = 0.0
    engine = make(made)
    engine.load_weights({**weights, "embed_tokens.weight": embeddings, "lm_head.weight": head})
    return engine


class Slow(ContinuousEngine):
    """Takes its time over every token, so that a reply can be caught while it runs."""

    def submit(self, *arguments: Any, on_token: Any = None, **options: Any) -> Any:
        def slowly(token: Any) -> None:
            time.sleep(0.02)
            if on_token is not None:
                on_token(token)

        return super().submit(*arguments, on_token=slowly, **options)


@contextlib.contextmanager
def live(
    *,
    family: str = "qwen2_5_vl",
    engine: ContinuousEngine | None = None,
    host: Host | None = None,
    beside: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[httpx.Client]:
    """A client of a server; `beside` goes to the host, `options` to the application."""
    host = host or Host(engine or ContinuousEngine(policy(family)), name=NAME, revision="r1", **(beside or {}))
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
