"""Requests that are wrong in every way a seed can think of, for a server to answer without harm."""

from __future__ import annotations

import base64
import copy
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rollout.tiny_policies import picture
from serving.live import NAME, Shown, ask


@dataclass(frozen=True, slots=True)
class Mangled:
    """A request to be sent as it is; `kind` says how it was made."""

    kind: str
    method: str
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


CHAT, EDIT, STEPS, EDITS = "/v1/chat/completions", "/v1/safeladder/edit", "/v1/safeladder/steps", "/v1/safeladder/edits"


def good() -> list[tuple[str, dict[str, Any]]]:
    """Requests that are answered with 200, of every endpoint that takes a body."""
    image = Shown(picture(1, 28))
    question = ask("how many?")["messages"]
    reasoning = "two circles. one square. so three."
    return [
        (CHAT, ask("how many?", max_tokens=4)),
        (CHAT, ask(image, "what is this?", max_tokens=4, temperature=0.5, top_p=0.9)),
        (CHAT, ask("hi", max_tokens=3, n=2, stop=["a", "b"], logprobs=True, top_logprobs=2, user="u")),
        (CHAT, ask("hi", max_tokens=3, stream=True, stream_options={"include_usage": True})),
        (CHAT, {"model": NAME, "messages": [{"role": "system", "content": "be brief"}, *question,
                {"role": "assistant", "content": "three", "reasoning_content": reasoning},
                {"role": "user", "content": "sure?"}], "max_completion_tokens": 3}),
        (CHAT, {"model": NAME, "messages": [*question, {"role": "assistant", "content": "th"}],
                "continue_final_message": True, "max_tokens": 3, "safeladder": {"steer": [], "search": False}}),
        (EDIT, {"model": NAME, "messages": question, "reasoning": reasoning,
                "step": 2, "text": "two squares.", "mode": "continue", "max_tokens": 3}),
        (STEPS, {"model": NAME, "messages": question, "reasoning": reasoning, "answer": "three"}),
        (EDITS, {"question": "how many?", "original": "one square.", "edited": "two squares."}),
    ]  # fmt: skip


JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**400, 0.5, -0.0, 1e308, 1e-320, "", " ", "\x00", "\ud800",
    "\u202e", "𝕏" * 50, "a" * 5000, "<think>", "</think>", "<|im_end|>", "<|image_pad|>", "' OR 1=1 --",
    "../../etc/passwd", "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd", "data:,",
    "data:image/png;base64,", "data:image/png;base64,####",
    [], {}, [[]], [None], {"": None}, {"type": "text"}, {"type": "image_url"}, [{}] * 40, {"role": "user"}, "NaN",
)  # fmt: skip
RAW = (
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"01",
    b"'x'",
    b"{",
    b"}",
    b"\xff\xfe",
    b"\xc0\x80",
    b"\\ud800",
    b"/**/",
)


def mangled(seed: int, count: int) -> Iterator[Mangled]:
    """`count` requests; the same seed gives the same ones."""
    chance = random.Random(seed)
    ways: list[Callable[[random.Random], Mangled]] = [
        _values,
        _values,
        _values,
        _structure,
        _bytes,
        _image,
        _http,
        _untouched,
    ]
    for _ in range(count):
        yield chance.choice(ways)(chance)


def _values(chance: random.Random) -> Mangled:
    """One to three places of a good body hold something else."""
    path, body = copy.deepcopy(chance.choice(good()))
    for _ in range(chance.randint(1, 3)):
        holder, key = chance.choice(list(_places(body)))
        holder[key] = copy.deepcopy(chance.choice(JUNK))
    return _post("values", path, body)


def _structure(chance: random.Random) -> Mangled:
    """Keys that are missing, unknown or elsewhere; lists that are long; bodies that are deep."""
    path, body = copy.deepcopy(chance.choice(good()))
    places = list(_places(body))
    holder, key = chance.choice(places)
    match chance.randrange(6):
        case 0:
            del holder[key]
        case 1:
            body[chance.choice(["", "tools", "functions", "x" * 200, "safeladder", "logit_bias"])] = chance.choice(JUNK)
        case 2 if isinstance(holder, dict):
            holder[chance.choice(["role", "type", "content", "x", "name"])] = holder[key]
        case 3 if isinstance(holder, list):
            holder *= chance.choice([0, 2, 100])
        case 4:
            deep: Any = holder[key]
            for _ in range(chance.choice([5, 100, 900])):
                deep = [deep] if chance.random() < 0.5 else {"content": deep}
            holder[key] = deep
        case _:
            path = chance.choice([CHAT, EDIT, STEPS, EDITS])
    return _post("structure", path, body)


def _bytes(chance: random.Random) -> Mangled:
    """Bytes of a good body that are flipped, cut, doubled or put in."""
    path, body = chance.choice(good())
    data = bytearray(json.dumps(body).encode())
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(data) or 1)
        match chance.randrange(5):
            case 0 if data:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + chance.randint(1, 30)]
            case 2:
                data[at:at] = data[at : at + chance.randint(1, 30)]
            case 3:
                data[at:at] = chance.choice(RAW)
            case _:
                data[at:at] = chance.randbytes(chance.randint(1, 8))
    if chance.random() < 0.05:
        data = bytearray(b"[" * chance.choice([100, 20_000, 400_000]))
    return Mangled("bytes", "POST", path, bytes(data), {"Content-Type": "application/json"})


def _untouched(chance: random.Random) -> Mangled:
    return _post("untouched", *chance.choice(good()))


def _image(chance: random.Random) -> Mangled:
    """Images that are cut, changed, of other kinds, or larger than they look."""
    kinds = ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]
    kind = chance.choice(kinds)
    buffer = io.BytesIO()
    picture(chance.randrange(3), chance.choice([1, 2, 28])).save(buffer, format=kind)
    data = bytearray(buffer.getvalue())
    match chance.randrange(5):
        case 0:
            data = data[: chance.randrange(len(data))]
        case 1:
            for _ in range(chance.randint(1, 6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        case 2:
            data = bytearray(bomb(chance.choice([1, 30_000, 2**31 - 1]), chance.choice([0, 1, 30_000])))
        case 3:
            data = bytearray(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:1/"/></svg>')
        case _:
            pass
    said = chance.choice([kind.lower(), "png", "svg+xml", "x", ""])
    url = f"data:image/{said};base64,{base64.b64encode(bytes(data)).decode()}"
    if chance.random() < 0.1:
        url = chance.choice(["data:" * 50 + url, url.replace(",", ";"), url[:-3] + "===", url + "\n", "DATA" + url[4:]])
    return _post("image", CHAT, ask(At(url), "what?", max_tokens=2, stream=chance.random() < 0.3))


def _http(chance: random.Random) -> Mangled:
    """Other paths, methods and headers."""
    path, body = chance.choice(good())
    data = json.dumps(body).encode()
    paths = ["/", "/v1", "/v1/models/x", f"{CHAT}/", "/v1/%00", "/v1/safeladder/edits/none", "/metrics", "/health",
             "/editor/../../etc/passwd", "/editor/%2e%2e/%2e%2e/pyproject.toml", "/openapi.json",
             "/v1/models/" + "x" * 3000]  # fmt: skip
    headers = chance.choice(
        [
            {},
            {"Content-Type": "text/plain"},
            {"Content-Type": "multipart/form-data; boundary=x"},
            {"Content-Type": "application/json; charset=utf-16"},
            {"Content-Encoding": "gzip", "Content-Type": "application/json"},
            {"Authorization": "Bearer " + "x" * 2000, "Content-Type": "application/json"},
            {"Accept": "text/event-stream", "Content-Type": "application/json"},
            {"Expect": "100-continue", "Content-Type": "application/json"},
            {"X-Api-Key": "\xff", "Content-Type": "application/json"},
        ]
    )
    method = chance.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
    return Mangled("http", method, chance.choice([path, *paths]), data if chance.random() < 0.7 else b"", headers)


@dataclass(frozen=True, slots=True)
class At:
    """An image at any address."""

    url: str


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is this large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def _post(kind: str, path: str, body: Any) -> Mangled:
    return Mangled(kind, "POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a body."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])
