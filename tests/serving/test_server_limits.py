"""Who may ask, how much, for how long; what happens to work that nobody waits for; stopping."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.tiny_policies import picture
from safeladder.rollout.continuous import ContinuousEngine
from safeladder.serving import api
from safeladder.serving.audit import AuditLog
from safeladder.serving.limits import Limits, read_keys
from safeladder.types import SafeladderError
from serving.live import NAME, Shown, Slow, ask, formatted, live, stream

CHAT = "/v1/chat/completions"
KEYS = ["first-key-1234", "second-key-5678"]


def error_of(response: httpx.Response) -> api.ErrorDetail:
    return api.ErrorBody.model_validate(response.json()).error


def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path]]:
    file = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    limits = Limits(waiting=2, seconds=20.0)
    with live(engine=Slow(endless()), limits=limits, audit=AuditLog(file)) as client:
        yield client, file


def endless() -> Any:
    """A policy that never ends its reply."""
    policy = formatted(ContinuousEngine).policy
    policy.logit_bias[policy.eos_token_id] = -1e9
    return policy


def test_keys_open_the_server_and_nothing_else_does():
    with live(keys=KEYS) as client:
        for path in ("/v1/models", "/metrics", "/v1/safeladder/edits"):
            assert client.get(path).status_code == 401
        for headers in ({}, {"Authorization": "Bearer nope-nope"}, {"Authorization": KEYS[0]}, {"X-API-Key": ""}):
            refused = client.post(CHAT, json=ask("x"), headers=headers)
            assert refused.status_code == 401
            assert error_of(refused).type == "authentication_error"
            assert error_of(refused).code == "invalid_api_key"
        for key in KEYS:
            assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert client.get("/v1/models", headers={"X-API-Key": KEYS[1]}).status_code == 200
        assert client.get("/health").status_code == 200
        assert client.get("/editor").status_code == 200


def test_keys_come_from_the_environment():
    assert read_keys(None, {}) is None
    assert read_keys(None, {"SAFELADDER_API_KEY": "first-key-1234, second-key-5678"}) == KEYS
    assert read_keys("MINE", {"MINE": "first-key-1234", "SAFELADDER_API_KEY": "other-key-0000"}) == KEYS[:1]
    with pytest.raises(SafeladderError, match="MINE is not set"):
        read_keys("MINE", {})
    for text in ("", "short", "first-key-1234,", "with space 12345", "ключ-ключ-ключ"):
        with pytest.raises(SafeladderError, match=r"SAFELADDER_API_KEY: every key needs 8"):
            read_keys(None, {"SAFELADDER_API_KEY": text})


def test_sizes_are_bounded_before_anything_is_decoded():
    limits = Limits(body_bytes=60_000, images=2, image_pixels=60 * 60)
    with live(limits=limits) as client:
        assert client.post(CHAT, json=ask("x", Shown(picture(1)), max_tokens=1)).status_code == 200
        large = client.post(CHAT, json=ask("x" * 70_000))
        assert (large.status_code, error_of(large).code) == (413, "request_too_large")
        for body, code in (
            (ask("x", *[Shown(picture(k)) for k in range(3)]), "invalid_value"),
            (ask("x", Shown(picture(1, 61))), "invalid_image"),
            (ask("x", Shown(picture(1, 56)), messages=[]), "invalid_value"),
        ):
            refused = client.post(CHAT, json=body)
            assert (refused.status_code, error_of(refused).code) == (400, code), refused.text


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/x.png", "https://example.org/x.png", "file:///etc/passwd", "/etc/passwd", "ftp://x/y", "",
     "data:image/png;base64,", "data:image/png;base64,AAAA", "data:image/png,AAAA", "data:text/html;base64,AAAA"],
)  # fmt: skip
def test_images_are_never_fetched_and_must_be_images(no_limits, url: str):
    body = ask("x")
    body["messages"][0]["content"].append({"type": "image_url", "image_url": {"url": url}})
    refused = no_limits.post(CHAT, json=body)
    assert (refused.status_code, error_of(refused).code) == (400, "invalid_image")


@pytest.fixture(scope="module")
def no_limits() -> Iterator[httpx.Client]:
    with live() as client:
        yield client


def test_a_client_that_asks_too_often_is_told_when_to_come_again():
    with live(limits=Limits(requests_a_minute=60.0), keys=KEYS) as client:
        one, other = ({"Authorization": f"Bearer {key}"} for key in KEYS)
        body = ask("x", max_tokens=1)
        codes = [client.post(CHAT, json=body, headers=one).status_code for _ in range(4)]
        assert 200 in codes
        assert 429 in codes
        refused = client.post(CHAT, json=body, headers=one)
        while refused.status_code != 429:
            refused = client.post(CHAT, json=body, headers=one)
        assert int(refused.headers["retry-after"]) >= 1
        assert error_of(refused).type == "rate_limit_error"
        # The other key has a rate of its own.
        assert client.post(CHAT, json=body, headers=other).status_code == 200


def test_pages_of_other_origins_are_refused_where_there_are_no_keys():
    with live(names=frozenset({"127.0.0.1", "localhost"})) as client:
        port = client.base_url.port
        body = ask("x", max_tokens=1)
        assert client.post(CHAT, json=body).status_code == 200
        assert client.post(CHAT, json=body, headers={"Origin": f"http://127.0.0.1:{port}"}).status_code == 200
        assert client.post(CHAT, json=body, headers={"Host": f"localhost:{port}"}).status_code == 200
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://localhost:{port}"},
            {"Host": "evil.example"},
            {"Host": f"evil.example:{port}"},
        ):
            refused = client.post(CHAT, json=body, headers=headers)
            assert refused.status_code == 403, headers
            assert error_of(refused).code == "forbidden"


@pytest.mark.parametrize("streamed", [False, True])
def test_who_leaves_is_no_longer_worked_for(slow, streamed: bool):
    client, file = slow
    before = len(file.read_text().splitlines())
    body = json.dumps(ask("x", max_tokens=1500, stream=streamed)).encode()
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        until(lambda: client.get("/health").json()["running"] == 1)
        if streamed:
            assert b"data: " in connection.recv(4096)
    until(lambda: client.get("/health").json()["running"] == 0, 5.0)
    until(lambda: len(file.read_text().splitlines()) == before + 1)
    row = json.loads(file.read_text().splitlines()[-1])
    assert row["status"] == 499
    assert row["choices"] == []


def test_more_than_may_wait_are_told_to_come_again(slow):
    client, _ = slow
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(client.post(CHAT, json=ask("x", max_tokens=60)).status_code))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    until(lambda: client.get("/health").json()["running"] == 2)
    refused = client.post(CHAT, json=ask("x", max_tokens=1))
    assert (refused.status_code, error_of(refused).type) == (429, "rate_limit_error")
    assert refused.headers["retry-after"]
    for thread in threads:
        thread.join()
    assert results == [200, 200]
    assert client.post(CHAT, json=ask("x", max_tokens=1)).status_code == 200


def test_a_reply_that_takes_too_long_is_an_error_and_its_row_is_freed():
    with live(engine=Slow(endless()), limits=Limits(seconds=0.6)) as client:
        late = client.post(CHAT, json=ask("x", max_tokens=1500))
        assert (late.status_code, error_of(late).type) == (408, "timeout_error")
        assert late.headers["x-should-retry"] == "false"
        events = stream(client, ask("x", max_tokens=1500))
        assert events[-1]["error"]["type"] == "timeout_error"
        assert "[DONE]" not in events
        assert len(events) > 2
        until(lambda: client.get("/health").json()["running"] == 0, 5.0)


def test_a_defect_is_a_500_that_says_nothing_of_the_inside(monkeypatch, no_limits):
    def broken(*arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError("a secret of the inside")

    for where in ("safeladder.serving.server.plan_chat", "safeladder.rollout.continuous.ContinuousEngine.submit"):
        monkeypatch.setattr(where, broken)
        for streamed in (False, True):
            reply = no_limits.post(CHAT, json=ask("x", stream=streamed))
            assert reply.status_code == 500
            assert error_of(reply).type == "server_error"
            assert "secret" not in reply.text
        monkeypatch.undo()
    assert no_limits.post(CHAT, json=ask("x", max_tokens=1)).status_code == 200


def test_a_stopping_server_ends_what_runs_and_refuses_what_comes():
    with live(engine=Slow(endless())) as client:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.extend(stream(client, ask("x", max_tokens=30))))
        thread.start()
        until(lambda: client.get("/health").json()["running"] == 1)
        client.app.state.desk.stopping = True  # type: ignore[attr-defined]
        refused = client.post(CHAT, json=ask("x"))
        assert (refused.status_code, error_of(refused).code) == (503, "stopping")
        assert client.get("/health").status_code == 503
        assert client.get("/health").json()["status"] == "stopping"
        thread.join()
    assert found[-1] == "[DONE]"
    assert found[-2]["choices"][0]["finish_reason"] == "length"


def test_limits_are_shown_to_clients(no_limits):
    served = no_limits.get("/v1/models").json()["data"][0]
    assert served["id"] == NAME
    assert served["safeladder"]["max_images"] == Limits().images
    assert math.isinf(Limits().requests_a_minute)
