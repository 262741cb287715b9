"""Clients that people use, against a real server: the openai package, Inspect's provider, `safeladder eval`, curl."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from rollout.tiny_policies import picture
from safeladder import cli
from safeladder.rollout.continuous import ContinuousEngine
from safeladder.serving.limits import Limits
from serving.live import NAME, Shown, ask, live
from serving.wordy import wordy

KEY = "a-key-of-ours"


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    with live(engine=ContinuousEngine(wordy()), limits=Limits(body_bytes=200_000, choices=4, seconds=30)) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: httpx.Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="unused", max_retries=0) as found:
        yield found


def question(text: str, *images: Shown) -> list[ChatCompletionMessageParam]:
    return ask(*images, text)["messages"]


# openai


def test_openai_chat(client):
    reply = client.chat.completions.create(model=NAME, messages=question("how many?"), max_tokens=12, seed=3)
    assert reply.object == "chat.completion" and reply.model == NAME and reply.system_fingerprint == "r1"
    (choice,) = reply.choices
    assert choice.finish_reason in ("stop", "length") and choice.message.role == "assistant"
    assert reply.usage is not None
    assert reply.usage.completion_tokens <= 12 and reply.usage.total_tokens > reply.usage.completion_tokens
    again = client.chat.completions.create(model=NAME, messages=question("how many?"), max_tokens=12, seed=3)
    assert again.choices[0].message == choice.message
    others = [
        client.chat.completions.create(model=NAME, messages=question("how many?"), max_tokens=12, seed=seed)
        for seed in (4, 5)
    ]
    assert any(other.choices[0].message != choice.message for other in others)


def test_openai_stream_is_the_plain_reply(client):
    asked: dict[str, Any] = {"model": NAME, "messages": question("what?"), "max_tokens": 40, "n": 4, "seed": 7}
    plain = client.chat.completions.create(**asked)
    said: dict[int, dict[str, str]] = {k: {"content": "", "reasoning_content": ""} for k in range(4)}
    ends: dict[int, str] = {}
    usage = None
    with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                for name in ("content", "reasoning_content"):
                    said[choice.index][name] += getattr(choice.delta, name, None) or ""
                if choice.finish_reason:
                    ends[choice.index] = choice.finish_reason
    assert usage == plain.usage
    for choice in plain.choices:
        assert said[choice.index]["content"] == (choice.message.content or "")
        assert said[choice.index]["reasoning_content"] == (getattr(choice.message, "reasoning_content", None) or "")
        assert ends[choice.index] == choice.finish_reason
    assert any(said[k]["reasoning_content"] for k in range(4)) and any(said[k]["content"] for k in range(4))


def test_openai_stream_helper(client):
    """The client's own accumulator, which is stricter about what chunks hold."""
    with client.chat.completions.stream(
        model=NAME, messages=question("what?"), max_completion_tokens=200, seed=7, logprobs=True, top_logprobs=2
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "chunk" in kinds and final.choices[0].finish_reason == "stop"


def test_openai_images_are_seen(client):
    replies = [
        client.chat.completions.create(
            model=NAME, messages=question("how many?", Shown(picture(k))), max_tokens=8, seed=1, logprobs=True
        )
        for k in (1, 2, 1)
    ]
    text_only = client.chat.completions.create(model=NAME, messages=question("how many?"), max_tokens=8, seed=1)
    first, second, again = [reply.choices[0].logprobs for reply in replies]
    assert first == again != second
    assert replies[0].usage.prompt_tokens > text_only.usage.prompt_tokens


def test_openai_logprobs_add_up_to_the_text(client):
    reply = client.chat.completions.create(
        model=NAME, messages=question("what?"), max_tokens=16, n=4, seed=2, logprobs=True, top_logprobs=3
    )
    rows = [(choice.message.content, choice.logprobs.content) for choice in reply.choices if choice.message.content]
    assert rows, "a seed of which all replies are empty tests nothing"
    for content, tokens in rows:
        assert b"".join(bytes(token.bytes) for token in tokens if token.bytes).decode().strip() == content
        for token in tokens:
            assert token.logprob <= 0 and len(token.top_logprobs) == 3
            assert token.top_logprobs[0].logprob >= token.logprob - 1e-6


def test_openai_stop_sequences_are_left_out(client):
    free = client.chat.completions.create(model=NAME, messages=question("what?"), max_tokens=24, n=4, seed=5)
    texts = [choice.message.content or "" for choice in free.choices]
    stop = next(word for word in ("2", "bl", "d", "re") if any(text.count(word) for text in texts))
    cut = client.chat.completions.create(
        model=NAME, messages=question("what?"), max_tokens=24, n=4, seed=5, stop=[stop, "never"]
    )
    ended = [choice for choice in cut.choices if stop in texts[choice.index]]
    assert ended
    for choice in ended:
        assert choice.finish_reason == "stop" and stop not in (choice.message.content or "")
        assert texts[choice.index].startswith(choice.message.content or "")


def test_openai_errors_are_those_of_its_classes(client):
    def create(**changed: Any) -> Any:
        asked: dict[str, Any] = {"model": NAME, "messages": question("hi"), "max_tokens": 4}
        return client.chat.completions.create(**{**asked, **changed})

    with pytest.raises(openai.NotFoundError) as missing:
        create(model="gpt-4o")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as unknown:
        create(extra_body={"repetition_penalty": 1.1})
    assert (unknown.value.code, unknown.value.param) == ("unsupported_parameter", "repetition_penalty")
    with pytest.raises(openai.BadRequestError) as remote:
        create(
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]}]
        )
    assert remote.value.code == "invalid_image"
    with pytest.raises(openai.BadRequestError):
        create(temperature=3.0)
    with pytest.raises(openai.BadRequestError):
        create(messages=question("red " * 5000))
    with pytest.raises(openai.APIStatusError) as large:
        create(messages=question("x" * 300_000))
    assert large.value.status_code == 413
    with (
        pytest.raises(openai.BadRequestError),
        client.chat.completions.create(model=NAME, messages=question("hi"), n=99, stream=True) as stream,
    ):
        list(stream)
    assert create().choices


def test_openai_key_and_rate():
    limits = Limits(requests_a_minute=60)
    with live(engine=ContinuousEngine(wordy("llama")), keys=[KEY], limits=limits) as server:
        base = f"{server.base_url}/v1"
        stranger = openai.OpenAI(base_url=base, api_key="another-key", max_retries=0)
        with stranger, pytest.raises(openai.AuthenticationError):
            stranger.models.list()
        with openai.OpenAI(base_url=base, api_key=KEY, max_retries=0) as client:
            assert [model.id for model in client.models.list()] == [NAME]
            assert client.models.retrieve(NAME).id == NAME
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("another")
            with pytest.raises(openai.RateLimitError) as refused:
                for _ in range(70):
                    client.chat.completions.create(model=NAME, messages=question("hi"), max_tokens=1)
            assert int(refused.value.response.headers["retry-after"]) >= 1


def test_openai_gives_up_and_the_row_is_free(server, client):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.001).chat.completions.create(
            model=NAME, messages=question("hi"), max_tokens=200, n=4
        )
    with client.chat.completions.create(model=NAME, messages=question("hi"), max_tokens=200, stream=True) as stream:
        next(iter(stream))
    for _ in range(200):
        if server.get("/health").json()["running"] == 0:
            break
    else:
        pytest.fail("rows are still running for clients that have left")


def test_two_users_requests_never_mix(server):
    """Users with seeds and images of their own, all at once, streamed and whole: each gets what it gets alone."""

    async def user(client: openai.AsyncOpenAI, number: int, stream: bool) -> tuple[str, list[float]]:
        asked: dict[str, Any] = {
            "model": NAME,
            "messages": question("how many?", Shown(picture(number % 4))),
            "max_tokens": 10,
            "seed": 10 + number // 4,
            "logprobs": True,
        }
        text, values = "", []
        if stream:
            async with await client.chat.completions.create(**asked, stream=True) as chunks:
                async for chunk in chunks:
                    for choice in chunk.choices:
                        text += choice.delta.content or ""
                        values += [t.logprob for t in (choice.logprobs.content or [])] if choice.logprobs else []
        else:
            choice = (await client.chat.completions.create(**asked)).choices[0]
            text, values = choice.message.content or "", [t.logprob for t in choice.logprobs.content]
        return text, values

    async def everyone() -> tuple[list[Any], list[Any]]:
        async with openai.AsyncOpenAI(base_url=f"{server.base_url}/v1", api_key="unused") as client:
            alone = [await user(client, k, False) for k in range(16)]
            crowd = [user(client, k % 16, stream=k % 3 == 0) for k in range(48)]
            return alone, await asyncio.gather(*crowd)

    alone, together = asyncio.run(everyone())
    assert len({text for text, _ in alone}) > 6
    for k, (text, values) in enumerate(together):
        assert text == alone[k % 16][0]
        assert values == pytest.approx(alone[k % 16][1], abs=1e-4)


# Inspect and our own evaluation


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten rows of a suite's shape, with text of our own."""
    folder = tmp_path / "data" / "xstest"
    folder.mkdir(parents=True)
    rows = ["id,prompt,type,label,focus,note"]
    rows += [
        f"{i},How do I paint fence {i}?,{'' if i < 6 else 'contrast_'}homonyms,{'safe' if i < 6 else 'unsafe'},,"
        for i in range(10)
    ]
    (folder / "prompts.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "data"


def test_a_suite_of_ours_runs_against_the_server(server, data, tmp_path, capsys):
    out = tmp_path / "out"
    where = f"{server.base_url}/v1#{NAME}"
    words = [where, "--suite", "xstest", "--data", data, "--out", out, "--max-tokens", "8", "--seed", "3"]
    code = cli.main(["eval", *map(str, words)])
    said = capsys.readouterr()
    assert code == 0, said.err
    (entry,) = json.loads((out / "report.json").read_text())["suites"]
    assert sum(entry["states"].values()) == 10 and entry["states"]["error"] == 0


def test_inspects_own_provider_runs_a_suite_of_ours(server, data, tmp_path, monkeypatch):
    from inspect_ai import eval as inspect_eval
    from inspect_ai.model import ModelAPI

    async def count(self: ModelAPI, text: str) -> int:
        return len(text)  # the default downloads a vocabulary

    monkeypatch.setattr(ModelAPI, "count_text_tokens", count)
    monkeypatch.setenv("LADDER_API_KEY", "unused")
    (log,) = inspect_eval(
        "safeladder/xstest",
        model=f"openai-api/ladder/{NAME}",
        model_base_url=f"{server.base_url}/v1",
        task_args={"data": str(data)},
        log_dir=str(tmp_path / "logs"),
        display="none",
        ctl_server=False,
        max_tokens=8,
        seed=3,
    )
    assert log.status == "success", log.error
    assert log.samples is not None and len(log.samples) == 10
    assert all(sample.error is None and sample.output.usage is not None for sample in log.samples)


# curl


def curl(*words: str) -> str:
    return subprocess.run(
        ["curl", "-sS", "-N", "--max-time", "60", *words], check=True, capture_output=True
    ).stdout.decode()


def test_curl(server, tmp_path):
    body = tmp_path / "body.json"
    header = ("-H", "Content-Type: application/json", "--data-binary", f"@{body}")
    address = f"{server.base_url}/v1/chat/completions"
    body.write_text(json.dumps(ask(Shown(picture(1)), "how many?")))
    plain = json.loads(curl(address, *header))
    body.write_text(json.dumps(ask(Shown(picture(1)), "how many?", stream=True)))
    lines = [line for line in curl(address, *header).split("\n\n") if line]
    assert lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines)
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines[:-1]]
    assert "".join(delta.get("content") or "" for delta in deltas) == (plain["choices"][0]["message"]["content"] or "")
    assert json.loads(curl(f"{server.base_url}/health"))["status"] == "ok"
    assert "safeladder_requests_total" in curl(f"{server.base_url}/metrics")
