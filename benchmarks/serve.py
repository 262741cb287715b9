"""Many streams against one at a time, and against `transformers serve`: the same model, the same run, the same prompts.

    python benchmarks/serve.py --run runs/demo [--rung m3-rl] [--streams 64] [--rounds 3] [--tokens 64] [--no-peer]
    python benchmarks/serve.py --run runs/demo --rung base --guided 1 8 16

Starts `safeladder serve` and `transformers serve` on one checkpoint and asks them in turn, one request at a time and
then `--streams` at once, with text questions of the laptop world, greedily and streamed. Turns are repeated, so that
whatever else the machine does falls on all of them alike. Tokens are counted by the checkpoint's tokenizer over what
came back, for both servers alike; CPU seconds are the server process's own. Ends with 1 where `--streams` streams give
less than four times the throughput of one, or the two servers say different things.

With `--guided` it asks our server alone, under value guidance (value models: RUNG/steering/value-guidance), so many at
a time as the numbers say, and ends with 1 where a reply depends on how many were asked for together.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from safeladder.world import KINDS, World, WorldConfig

LEAST = 4.0


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: its address, the name that it knows the model by, its process."""

    name: str
    url: str
    model: str
    process: psutil.Process


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the text, seconds to the first piece of it and to its end."""

    text: str
    first: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Turn:
    """One server asked in one way: replies, wall seconds, CPU seconds of the server."""

    replies: list[Reply]
    wall: float
    cpu: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--rung", default="m3-rl")
    parser.add_argument("--seed", type=int, default=0, help="of the questions")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64, help="longest reply")
    parser.add_argument("--single", type=int, default=12, help="requests of a turn that asks one at a time")
    parser.add_argument("--no-peer", action="store_true", help="leave `transformers serve` out")
    parser.add_argument("--guided", type=int, nargs="+", metavar="N", help="guided replies, so many at a time")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    if options.guided:
        options.streams, options.no_peer = max(options.guided), True
    checkpoint = (options.run / "checkpoints" / options.rung).resolve()
    questions = prompts(options.seed, options.streams)
    with contextlib.ExitStack() as stack:
        servers = [] if options.no_peer else [stack.enter_context(peer(checkpoint))]
        servers.insert(0, stack.enter_context(ours(checkpoint, guided=bool(options.guided))))
        turns = asyncio.run(measure(servers, questions, options))
    figures = summary(checkpoint, servers, turns, options)
    print(table(figures))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    if options.guided:
        return 0 if figures["same"] else 1
    return 0 if figures["speedup"] >= LEAST and figures.get("equal", 1.0) >= 0.95 else 1


def prompts(seed: int, count: int) -> list[str]:
    """Text questions of the world's held-out items."""
    world = World(WorldConfig(seed=seed, difficulty=0.2))
    found: dict[str, None] = {}
    for index in range(4 * count):
        for kind in KINDS:
            sample = world.item(kind, "heldout", index)
            if not sample.images and not sample.videos and sample.label != "search":
                found[sample.question] = None
        if len(found) >= count:
            break
    return list(found)[:count]


@contextlib.contextmanager
def ours(checkpoint: Path, *, guided: bool) -> Iterator[Served]:
    words = ["-m", "safeladder", "serve", str(checkpoint), "--port", "0"]
    words += ["--steer", "value-guidance"] if guided else []
    with started(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        yield Served(
            "safeladder serve", line.split()[3].removesuffix("/v1"), checkpoint.name, psutil.Process(process.pid)
        )


@contextlib.contextmanager
def peer(checkpoint: Path) -> Iterator[Served]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = str(Path(__file__).with_name("serve_transformers.py"))
    words = [script, "serve", str(checkpoint), "--device", "cpu", "--port", str(port)]
    with tempfile.TemporaryFile() as said, started(words, stdout=said, stderr=said) as process:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                said.seek(0)
                raise SystemExit(f"transformers serve did not start: {said.read()[-2000:].decode()}")
            time.sleep(0.5)
        try:
            yield Served("transformers serve", url, str(checkpoint), psutil.Process(process.pid))
        except SystemExit:
            said.seek(0)
            print(said.read()[-3000:].decode(), file=sys.stderr)
            raise


@contextlib.contextmanager
def started(words: Sequence[str], **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    process = subprocess.Popen([sys.executable, *words], env=environment, **streams)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


async def measure(
    servers: Sequence[Served], questions: Sequence[str], options: argparse.Namespace
) -> dict[tuple[str, int], list[Turn]]:
    turns: dict[tuple[str, int], list[Turn]] = {}
    levels = options.guided or (1, options.streams)
    more = {"seed": 0} if options.guided else {}
    limits = httpx.Limits(max_connections=options.streams)
    async with httpx.AsyncClient(timeout=600, limits=limits) as client:
        for server in servers:
            await ask(client, server, questions[0], options.tokens, more)
        for _ in range(options.rounds):
            for server in servers:
                for streams in levels:
                    asked = questions if streams > 1 else questions[: options.single]
                    turn = await take_turn(client, server, asked, streams, options.tokens, more)
                    turns.setdefault((server.name, streams), []).append(turn)
                    print(f"{server.name}, {streams} at a time: {turn.wall:.1f} s", file=sys.stderr, flush=True)
    return turns


async def take_turn(
    client: httpx.AsyncClient,
    server: Served,
    questions: Sequence[str],
    streams: int,
    tokens: int,
    more: dict[str, Any],
) -> Turn:
    gate = asyncio.Semaphore(streams)

    async def one(question: str) -> Reply:
        async with gate:
            return await ask(client, server, question, tokens, more)

    before, began = cpu(server), time.perf_counter()
    replies = await asyncio.gather(*map(one, questions))
    return Turn(replies, time.perf_counter() - began, cpu(server) - before)


async def ask(client: httpx.AsyncClient, server: Served, question: str, tokens: int, more: dict[str, Any]) -> Reply:
    body = {
        **more,
        "model": server.model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0.0,
        "stream": True,
    }
    text, began, first = "", time.perf_counter(), 0.0
    async with client.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            raise SystemExit(f"{server.name}: {answer.status_code} {(await answer.aread())[:300]!r}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line[6:]).get("choices", ()):
                said = (choice["delta"].get("reasoning_content") or "") + (choice["delta"].get("content") or "")
                if said and not first:
                    first = time.perf_counter() - began
                text += said
    return Reply(text, first, time.perf_counter() - began)


def cpu(server: Served) -> float:
    times = server.process.cpu_times()
    return times.user + times.system


def summary(
    checkpoint: Path, servers: Sequence[Served], turns: dict[tuple[str, int], list[Turn]], options: argparse.Namespace
) -> dict[str, Any]:
    """Medians over the rounds; token counts are sums."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)

    def tokens(replies: Sequence[Reply]) -> int:
        return sum(len(tokenizer(reply.text, add_special_tokens=False)["input_ids"]) for reply in replies)

    rows = []
    for (name, streams), taken in turns.items():
        replies = [reply for turn in taken for reply in turn.replies]
        rows.append(
            {
                "server": name,
                "streams": streams,
                "requests": len(replies),
                "tokens": tokens(replies),
                "tokens_per_second": median(tokens(turn.replies) / turn.wall for turn in taken),
                "tokens_per_cpu_second": median(tokens(turn.replies) / turn.cpu for turn in taken),
                "first_token_seconds": median(reply.first for reply in replies),
                "reply_seconds": median(reply.seconds for reply in replies),
            }
        )
    rates = {(row["server"], row["streams"]): row["tokens_per_second"] for row in rows}
    figures: dict[str, Any] = {
        "run": options.run.name,
        "rung": options.rung,
        "seed": options.seed,
        "rounds": options.rounds,
        "load": os.getloadavg()[0],
        "rows": rows,
        "speedup": rates[servers[0].name, options.streams] / rates[servers[0].name, min(at for _, at in rates)],
    }
    if options.guided:
        texts = [[reply.text for reply in turn.replies] for taken in turns.values() for turn in taken]
        figures["same"] = all(len(set(said)) == 1 for said in zip(*(t[: options.single] for t in texts), strict=True))
    if len(servers) > 1:
        one, other = ([turn.replies for turn in turns[server.name, options.streams]] for server in servers)
        pairs = [
            (a.text, b.text) for mine, theirs in zip(one, other, strict=True) for a, b in zip(mine, theirs, strict=True)
        ]
        figures["equal"] = sum(words(a) == words(b) for a, b in pairs) / len(pairs)
        figures["against_peer"] = rates[servers[0].name, options.streams] / rates[servers[1].name, options.streams]
    return figures


def words(text: str) -> str:
    """What a reply says, without the marks that the servers treat differently."""
    for mark in ("<think>", "</think>"):
        text = text.replace(mark, " ")
    return "".join(text.split())


def table(figures: dict[str, Any]) -> str:
    lines = ["| server | at a time | requests | tokens | tokens/s | tokens/CPU s | first token, s | reply, s |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['server']} | {r['streams']} | {r['requests']} | {r['tokens']} | {r['tokens_per_second']:.0f} "
        f"| {r['tokens_per_cpu_second']:.0f} | {r['first_token_seconds']:.3f} | {r['reply_seconds']:.3f} |"
        for r in figures["rows"]
    ]
    lines.append(f"\nspeed-up of many streams over one: {figures['speedup']:.1f}")
    if "equal" in figures:
        lines.append(f"against transformers serve, as many streams: {figures['against_peer']:.1f} times the throughput")
        lines.append(f"replies that are the same: {figures['equal']:.0%}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
