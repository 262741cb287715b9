"""`safeladder serve`: what it refuses before it loads anything, and how it stops."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from safeladder.cli import main
from safeladder.rollout.continuous import ContinuousEngine
from safeladder.search.server import listen
from safeladder.serving import serve_command
from safeladder.serving.audit import AuditLog
from safeladder.serving.server import create_app
from safeladder.serving.steered import Host
from serving.live import NAME, Slow, ask, formatted, stream


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere"], "nowhere"),
        (["nowhere", "--host", "0.0.0.0"], "set API keys (SAFELADDER_API_KEY), or say --no-api-key"),
        (["nowhere", "--steer", "magic"], "--steer: no steering 'magic'; allowed: value-guidance, treble"),
        (["nowhere", "--steer", "treble"], "make it with `safeladder directions fit`"),
        (["nowhere", "--key-env", "NOT_SET_ANYWHERE"], "--key-env: the environment variable NOT_SET_ANYWHERE is not"),
        (["nowhere", "--audit-prompts"], "--audit-prompts: give --audit FILE too"),
        (["nowhere", "--audit", "/nowhere/at/all.jsonl"], "--audit: /nowhere/at/all.jsonl cannot be written"),
        (["nowhere", "--search", "/nowhere"], "/nowhere"),
        (["nowhere", "--memory", "/nowhere/edits.jsonl"], "--memory: /nowhere/edits.jsonl cannot be written"),
        (["nowhere", "--device", "toaster"], "--device toaster: PyTorch has no such device on this machine"),
        (["nowhere", "--max-tokens", "0"], "'0' is no number above 0"),
        (["nowhere", "--port", "70000"], "'70000' is no port"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_2(words: list[str], line: str, monkeypatch, capsys):
    monkeypatch.delenv("SAFELADDER_API_KEY", raising=False)
    assert main(["serve", *words, *([] if "--port" in words else ["--port", "0"])]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_keys_that_contradict_an_open_door(monkeypatch, capsys):
    monkeypatch.setenv("SAFELADDER_API_KEY", "a-long-key-1")
    assert main(["serve", "nowhere", "--no-api-key"]) == 2
    assert "--no-api-key: API keys are set" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line(capsys):
    with listen("127.0.0.1", 0, protected=True) as at:
        assert main(["serve", "nowhere", "--port", str(at.getsockname()[1])]) == 2
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


def test_told_to_stop_it_ends_what_runs_and_takes_nothing_new(tmp_path: Path):
    made = formatted(ContinuousEngine).policy
    made.logit_bias[made.eos_token_id] = -1e9
    engine, file = Slow(made), tmp_path / "audit.jsonl"
    app = create_app(Host(engine, name=NAME, revision="r1"), audit=AuditLog(file), grace=1.0)
    found: dict[str, Any] = {}
    with listen("127.0.0.1", 0, protected=True) as at:
        url = f"http://127.0.0.1:{at.getsockname()[1]}"

        def reader() -> None:
            with httpx.Client(base_url=url, timeout=30) as client:
                found["events"] = stream(client, ask("x", max_tokens=40))

        def stopper() -> None:
            try:
                thread = threading.Thread(target=reader)
                thread.start()
                until = time.monotonic() + 30
                while httpx.get(f"{url}/health", timeout=30).json()["running"] != 1 and time.monotonic() < until:
                    time.sleep(0.02)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
            try:
                found["late"] = httpx.post(f"{url}/v1/chat/completions", json=ask("x"), timeout=5).status_code
            except httpx.TransportError:
                found["late"] = "refused"
            thread.join()

        helper = threading.Thread(target=stopper)
        before = signal.getsignal(signal.SIGTERM)
        helper.start()
        serve_command.serve(app, at)  # in the main thread, where signals arrive
        helper.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert found["events"][-1] == "[DONE]"
    assert found["late"] in ("refused", 503)
    (row,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert (row["status"], row["choices"][0]["tokens"]) == (200, 40)
    assert engine.stats().running == 0
