"""A server that is killed while it answers: what was answered stands in the audit log, and the next one goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.tiny_policies import TEXTS
from safeladder.models.load import save_checkpoint
from safeladder.models.tiny import build_tiny
from serving.live import ask

CHAT = "/v1/chat/completions"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    network, processor = build_tiny("qwen2_5_vl", TEXTS, seed=0, size="test", vocab_size=310)
    save_checkpoint(network, processor, tmp_path / "tiny")
    return tmp_path / "tiny"


@contextmanager
def served(checkpoint: Path, audit: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, in a process of its own, and its address."""
    words = ["serve", checkpoint, "--port", "0", "--audit", audit]
    process = subprocess.Popen(
        [sys.executable, "-m", "safeladder", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving tiny at "), line
        yield process, line.split()[3].removesuffix("/v1")
    finally:
        process.kill()
        process.wait()


def lines(audit: Path) -> list[dict[str, Any]]:
    """All lines but one that a kill cut in two, which is followed by others only on lines of their own."""
    found = []
    for line in audit.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


@pytest.mark.slow
def test_killed_and_started_again_no_finished_line_is_lost(checkpoint, tmp_path):
    audit, finished = tmp_path / "audit.jsonl", list[str]()
    gone = threading.Event()

    def user(address: str, number: int) -> None:
        body = ask("how many?", model="tiny", max_tokens=3, seed=number)
        with httpx.Client(base_url=address, timeout=60) as client:
            while not gone.is_set():
                try:
                    if number % 2:
                        finished.append(client.post(CHAT, json=body).json()["id"])
                        continue
                    with client.stream("POST", CHAT, json={**body, "stream": True}) as answer:
                        said = [line for line in answer.iter_lines() if line]
                    if said[-1] == "data: [DONE]":
                        finished.append(json.loads(said[0].removeprefix("data: "))["id"])
                except (httpx.TransportError, ValueError, IndexError):
                    return

    with served(checkpoint, audit) as (process, address):
        users = [threading.Thread(target=user, args=(address, k)) for k in range(6)]
        for thread in users:
            thread.start()
        deadline = time.monotonic() + 60
        while len(finished) < 25 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        gone.set()
        for thread in users:
            thread.join(60)
    first = {row["id"]: row for row in lines(audit)}
    assert len(finished) >= 25 and set(finished) <= set(first), "every reply that a client had in full has its line"
    assert all(first[id]["status"] == 200 for id in finished)

    with served(checkpoint, audit) as (process, address):
        reply = httpx.post(f"{address}{CHAT}", json=ask("and now?", model="tiny", max_tokens=3), timeout=60).json()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    after = {row["id"] for row in lines(audit)}
    assert after == {*first, reply["id"]}
