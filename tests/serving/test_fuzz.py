"""Mangled requests: no 5xx, no hang, no memory growth, and the next good request is answered as ever."""

from __future__ import annotations

import base64
import gc
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from rollout.tiny_policies import picture
from safeladder.rollout.continuous import ContinuousEngine
from safeladder.rollout.tickets import Ticket
from safeladder.serving.limits import Limits
from safeladder.serving.memory import MemoryFile
from serving.fuzzing import CHAT, At, Mangled, bomb, good, mangled
from serving.live import NAME, Shown, ask, live
from serving.wordy import wordy

SEED = int(os.environ.get("SAFELADDER_FUZZ_SEED", "0"))
LIMITS = Limits(body_bytes=300_000, image_pixels=100_000, tokens=6, choices=3, messages=20, images=4, seconds=20)
GROWTH = 32 * 2**20
"""Bytes that a process may grow by after its first requests: caches that fill up, memory that is not given back."""


@pytest.fixture(scope="module")
def engine() -> ContinuousEngine:
    return ContinuousEngine(wordy())


@pytest.fixture(scope="module")
def client(engine: ContinuousEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    memory = MemoryFile(tmp_path_factory.mktemp("memory") / "edits.jsonl")
    with live(engine=engine, limits=LIMITS, beside={"memory": memory}) as found:
        yield found


def send(client: httpx.Client, request: Mangled) -> str:
    """The status, or what is wrong with the answer."""
    headers = {name.encode(): value.encode("latin-1") for name, value in request.headers.items()}

    def once() -> httpx.Response:
        return client.request(request.method, request.path, content=request.body, headers=headers, timeout=40)

    try:
        try:
            answer = once()
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            answer = once()  # an idle connection may be closed in the very moment it is used again
    except httpx.TimeoutException:
        return "hang"
    except httpx.TransportError as error:
        return repr(error)
    if answer.status_code >= 500:
        return f"{answer.status_code}: {answer.text[:200]}"
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        last = answer.text.rstrip().rpartition("\n\n")[2]
        if last != "data: [DONE]" and "error" not in json.loads(last.removeprefix("data: ")):
            return "a stream without an end"
    elif answer.status_code >= 400 and request.method != "HEAD":
        error = answer.json()["error"]
        if not error["message"] or not error["type"]:
            return f"an error that says nothing: {error}"
    return str(answer.status_code)


def attack(client: httpx.Client, requests: Sequence[Mangled]) -> Counter[str]:
    """Send all, four at a time; how many got which status. What must not happen is a failure."""
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(4) as pool:
        for request, said in zip(requests, pool.map(lambda r: send(client, r), requests), strict=True):
            assert said.isdigit(), (said, request.kind, request.method, request.path, request.body[:2000])
            counts[said] += 1
    return counts


def resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def check_at_rest(client: httpx.Client, engine: ContinuousEngine) -> None:
    """Nothing is running, waiting or kept that belongs to a request that is over."""
    for _ in range(200):
        health = client.get("/health").json()
        if health["running"] == health["waiting"] == 0:
            break
        time.sleep(0.02)
    else:
        pytest.fail("something is still running")
    assert client.app.state.desk.busy == 0  # type: ignore[attr-defined]
    assert not engine._open and not engine._queue
    gc.collect()
    alive = [ticket for ticket in gc.get_objects() if type(ticket) is Ticket]
    assert len(alive) <= 4, "tickets of requests that are over are kept"


def run(client: httpx.Client, engine: ContinuousEngine, count: int, warm: int) -> Counter[str]:
    wanted = ask(Shown(picture(1)), "how many?", logprobs=True)
    before = client.post(CHAT, json=wanted).json()["choices"]
    requests = list(mangled(SEED, count))
    counts = attack(client, requests[:warm])
    base = resident()
    counts += attack(client, requests[warm:])
    grown = resident() - base
    assert grown < GROWTH, f"{grown / 2**20:.0f} MiB more after {count - warm} requests"
    check_at_rest(client, engine)
    assert client.post(CHAT, json=wanted).json()["choices"] == before
    return counts


@pytest.mark.parametrize("number", range(len(good())))
def test_what_is_mangled_was_good(client, number):
    path, body = good()[number]
    assert client.post(path, json=body).status_code == 200


def test_mangling_is_reproducible_and_of_every_kind():
    first, again, other = list(mangled(1, 300)), list(mangled(1, 300)), list(mangled(2, 300))
    assert first == again != other
    assert {request.kind for request in first} == {"values", "structure", "bytes", "image", "http", "untouched"}


def test_mangled_requests_do_no_harm(client, engine):
    counts = run(client, engine, 800, warm=400)
    # A fuzzer all of whose requests are refused at the door (or pass) tests little.
    assert counts["200"] >= 130 and counts["400"] >= 320 and {"404", "405", "413"} <= set(counts)


@pytest.mark.slow
def test_ten_thousand_mangled_requests_do_no_harm(client, engine):
    counts = run(client, engine, 10_000, warm=2000)
    print(f"\nseed {SEED}: {dict(counts.most_common())}", file=sys.stderr)


def _ask(cases: Any, examples: int, check: Callable[[Any], None]) -> None:
    quiet = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
    )
    quiet(given(cases)(check))()


def api_calls(client: httpx.Client, examples: int, only: str = "") -> Counter[str]:
    """Requests made from our own OpenAPI, right and wrong ones; answers must be those that it promises."""
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")

    def answered(case: Any, seen: Counter[str]) -> None:
        answer = case.call_and_validate(checks=checks, timeout=40)
        seen.update([case.operation.label, str(answer.status_code)])

    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    seen: Counter[str] = Counter()
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        if only and operation.label != only:
            continue
        for mode in modes:
            try:
                _ask(operation.as_strategy(generation_mode=mode), examples, lambda case: answered(case, seen))
            except Unsatisfiable:
                assert mode is schemathesis.GenerationMode.NEGATIVE, (
                    "only what has no parameters cannot be asked wrongly"
                )
    return seen


def test_our_openapi_is_what_the_server_does(client, engine):
    seen = api_calls(client, 8, only=f"POST {CHAT}")
    assert seen[f"POST {CHAT}"] >= 16 and seen["400"] and seen["200"]
    check_at_rest(client, engine)


@pytest.mark.slow
def test_all_of_our_openapi_is_what_the_server_does(client, engine):
    seen = api_calls(client, 40)
    assert seen["400"] and seen["200"] and seen["404"]
    check_at_rest(client, engine)


def test_what_is_no_http_closes_one_connection_only(client):
    address = (client.base_url.host, client.base_url.port)
    for said in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ):
        with socket.create_connection(address, timeout=20) as raw:
            raw.sendall(said)
            raw.shutdown(socket.SHUT_WR)
            answer = raw.recv(4096)
        assert answer == b"" or answer.split(b" ")[1].startswith(b"4"), (said[:40], answer[:80])
    assert client.get("/health").status_code == 200


def test_an_image_that_says_it_is_huge_is_refused_before_it_is_decoded(client):
    huge = At("data:image/png;base64," + base64.b64encode(bomb(30_000, 30_000)).decode())
    before = resident()
    answer = client.post(CHAT, json=ask(huge, "what?"))
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_image"
    assert resident() - before < 64 * 2**20, "decoded, it would take 2.7 GB"


def test_readers_who_leave_leave_nothing_behind(client, engine):
    for turn in range(30):
        with client.stream("POST", CHAT, json=ask("hi", max_tokens=6, n=3, stream=True, seed=turn)) as answer:
            if turn % 3:
                next(answer.iter_bytes())
    check_at_rest(client, engine)
    assert client.post(CHAT, json=ask("hi", model=NAME)).status_code == 200
