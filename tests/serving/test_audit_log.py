"""The audit log: what a line holds, and that no finished one is lost."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import stat
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.tiny_policies import picture
from safeladder.rollout.continuous import ContinuousEngine
from safeladder.serving.audit import AuditLog, key_mark
from safeladder.types import SafeladderError
from serving.live import Shown, ask, formatted, live, stream

CHAT = "/v1/chat/completions"
QUESTION = "an unusual question about zebras"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def test_a_line_says_what_happened_and_not_what_was_said(tmp_path: Path):
    file = tmp_path / "audit.jsonl"
    with live(engine=formatted(ContinuousEngine), audit=AuditLog(file), keys=["a-long-key-1"]) as client:
        client.headers["Authorization"] = "Bearer a-long-key-1"
        image = picture(1)
        plain = client.post(CHAT, json=ask(QUESTION, Shown(image), n=2, seed=7, temperature=0.5, max_tokens=9)).json()
        streamed = stream(client, ask(QUESTION, max_tokens=5))
        client.post(CHAT, json=ask(QUESTION, n=0))
    first, second = rows(file)
    assert (first["id"], second["id"]) == (plain["id"], streamed[0]["id"])
    assert first["status"] == 200
    assert first["endpoint"] == "chat"
    assert first["key"] == hashlib.sha256(b"a-long-key-1").hexdigest()[:12]
    assert first["asked"]["characters"] == len(QUESTION)
    assert first["asked"]["images"] == [
        {"width": 56, "height": 56, "sha256": hashlib.sha256(image.tobytes()).hexdigest()}
    ]
    assert first["sampling"] == {"n": 2, "seed": 7, "temperature": 0.5, "top_p": 1.0, "max_tokens": 9}
    assert first["prompt_tokens"] == plain["usage"]["prompt_tokens"]
    assert sum(choice["tokens"] for choice in first["choices"]) == plain["usage"]["completion_tokens"]
    for choice, noted in zip(plain["choices"], first["choices"], strict=True):
        assert noted["unscored"] == choice["safeladder"]["unscored"]
        assert noted["stop_reason"] == choice["safeladder"]["stop_reason"]
    text = file.read_text()
    assert "zebras" not in text
    assert "a-long-key-1" not in text
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


def test_with_prompts_it_holds_both_sides(tmp_path: Path):
    file = tmp_path / "audit.jsonl"
    with live(engine=formatted(ContinuousEngine), audit=AuditLog(file), audit_prompts=True) as client:
        message = client.post(CHAT, json=ask(QUESTION, max_tokens=9)).json()["choices"][0]["message"]
    (row,) = rows(file)
    assert row["asked"]["text"] == [{"role": "user", "content": QUESTION}]
    assert (row["choices"][0]["reasoning"], row["choices"][0]["answer"]) == (
        message["reasoning_content"],
        message["content"],
    )
    assert row["key"] is None


def test_a_log_that_cannot_be_written_fails_the_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    log = AuditLog(tmp_path / "audit.jsonl")
    monkeypatch.setattr(log, "write", full)
    with live(audit=log) as client:
        assert client.post(CHAT, json=ask("x", max_tokens=2)).status_code == 503
        events = stream(client, ask("x", max_tokens=2))
        assert events[-1]["error"]["code"] == "audit_failed"
        assert "safeladder_audit_failures_total 2" in client.get("/metrics").text


def test_a_torn_line_stays_alone(tmp_path: Path):
    file = tmp_path / "audit.jsonl"
    file.write_text('{"a": 1}\n{"b": ')
    log = AuditLog(file)
    log.write({"c": "红"})
    log.close()
    assert file.read_text(encoding="utf-8").splitlines() == ['{"a": 1}', '{"b": ', '{"c": "红"}']
    with pytest.raises(SafeladderError, match=r"--audit: .* cannot be written"):
        AuditLog(tmp_path)


def test_threads_do_not_tear_each_others_lines(tmp_path: Path):
    log = AuditLog(tmp_path / "audit.jsonl")
    threads = [
        threading.Thread(target=lambda k=k: [log.write({"k": k, "i": i, "pad": "x" * 3000}) for i in range(20)])
        for k in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    found = rows(log.path)
    assert len(found) == 120
    for k in range(6):
        assert [row["i"] for row in found if row["k"] == k] == list(range(20))


def _writer(path: str, told: Any) -> None:
    log, number = AuditLog(path), 0
    while True:
        log.write({"number": number, "pad": "x" * 500})
        told.value = number  # only now may anybody be told that it is finished
        number += 1


def test_a_kill_takes_no_finished_line(tmp_path: Path):
    file = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    expected = 0
    for _ in range(3):
        told = context.Value("i", -1)
        process = context.Process(target=_writer, args=(str(file), told))
        process.start()
        while told.value < 20:
            pass
        process.kill()
        process.join()
        expected += told.value + 1
        lines = file.read_text().splitlines()
        whole = 0
        for line in lines:
            try:
                json.loads(line)
                whole += 1
            except ValueError:
                continue
        assert whole >= expected
        expected = whole


def test_keys_are_marked_and_not_shown():
    assert key_mark("") is None
    assert key_mark("abcdefgh") == hashlib.sha256(b"abcdefgh").hexdigest()[:12]


def test_the_line_is_there_before_the_reply_has_ended(tmp_path: Path):
    file = tmp_path / "audit.jsonl"
    with live(audit=AuditLog(file)) as client:
        assert isinstance(client, httpx.Client)
        with client.stream("POST", CHAT, json=ask("x", max_tokens=3, stream=True)) as response:
            for line in response.iter_lines():
                if line == "data: [DONE]":
                    assert len(rows(file)) == 1
        client.post(CHAT, json=ask("x", max_tokens=3))
        assert len(rows(file)) == 2
