"""The endpoint provider and the model of a command line, against a live server on loopback."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ContentReasoning, ContentText, GenerateConfig
from inspect_ai.tool import ToolInfo
from PIL import Image
from stub_server import choice, serving

from safeladder.evaluation.endpoint import EndpointAPI, EndpointError
from safeladder.evaluation.replies import State
from safeladder.evaluation.scorers import chat_messages, reply_of
from safeladder.evaluation.subjects import open_subject, parse_arguments
from safeladder.types import Message, Part, SafeladderError, Sample

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def ask(api: EndpointAPI, *messages: Any, **config: Any) -> Any:
    return await api.generate(list(messages) or [ChatMessageUser(content="hi")], [], "auto", GenerateConfig(**config))


def pictured(*parts: Part) -> list[Any]:
    return chat_messages(Sample(id="a", messages=(Message(role="user", parts=parts),), label="x"))


async def test_C07_settings_reach_the_server_and_what_is_not_set_does_not() -> None:
    with serving(lambda request: "yes") as stub:
        api = EndpointAPI("m", stub.url)
        output = await ask(api, max_tokens=9, temperature=0.0, seed=4, stop_seqs=["x"])
        await ask(api)
    full, bare = stub.requests
    assert {key: full[key] for key in ("model", "max_tokens", "temperature", "seed", "stop")} == {
        "model": "m", "max_tokens": 9, "temperature": 0.0, "seed": 4, "stop": ["x"],
    }  # fmt: skip
    assert full["messages"] == [{"role": "user", "content": "hi"}]
    assert set(bare) == {"model", "messages"}
    assert output.completion == "yes"
    assert output.usage.output_tokens == 1


async def test_images_and_videos_are_sent_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (4, 4), (9, 0, 0)).save(file)
    frames = [Image.new("RGB", (2, 2), (0, i, 0)) for i in range(3)]
    with serving(lambda request: "yes") as stub:
        await ask(EndpointAPI("m", stub.url), *pictured(Part(image=str(file)), Part(video=frames), Part(text="what ?")))
        await ask(EndpointAPI("m", stub.url, video="images"), *pictured(Part(video=frames), Part(text="what ?")))
    image, video, said = stub.requests[0]["messages"][0]["content"]
    assert image["type"] == "image_url"
    assert base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,")) == file.read_bytes()
    assert video["type"] == "video_url"
    assert len(video["video_url"]["url"].removeprefix("data:video/jpeg;base64,").split(",")) == 3
    assert said == {"type": "text", "text": "what ?"}
    assert [part["type"] for part in stub.requests[1]["messages"][0]["content"]] == ["image_url"] * 3 + ["text"]


async def test_a_missing_or_remote_image_is_an_error_and_nothing_is_sent(tmp_path: Path) -> None:
    with serving(lambda request: "yes") as stub:
        for image in (str(tmp_path / "none.png"), "https://example.org/x.png"):
            with pytest.raises(SafeladderError, match=r"image .*(cannot be read|nothing is downloaded)"):
                await ask(EndpointAPI("m", stub.url), *pictured(Part(image=image)))
    assert stub.requests == []


async def test_earlier_reasoning_is_not_sent_back() -> None:
    said = ChatMessageAssistant(content=[ContentReasoning(reasoning="because"), ContentText(text="two")])
    with serving(lambda request: "yes") as stub:
        await ask(EndpointAPI("m", stub.url), ChatMessageUser(content="one"), said, ChatMessageUser(content="three"))
    assert [m["content"] for m in stub.requests[0]["messages"]] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("sent", "state", "answer", "reasoning"),
    [
        (choice("b"), State.ANSWERED, "b", None),
        (choice("b", reasoning_content="a"), State.ANSWERED, "b", "a"),
        (choice("b", reasoning="a"), State.ANSWERED, "b", "a"),
        (choice("<think>a</think>b"), State.ANSWERED, "b", "a"),
        (choice("a</think>b"), State.ANSWERED, "b", "a"),
        (choice("<think>a"), State.UNCLOSED, "", "a"),
        (choice("Sure", "length"), State.TRUNCATED, "Sure", None),
        (choice(""), State.EMPTY, "", None),
        (choice("", reasoning_content="a"), State.EMPTY, "", "a"),
        (choice("", "content_filter"), State.ERROR, "", None),
        (choice("odd", None), State.ERROR, "", None),
    ],
)
async def test_H07_H08_what_comes_back_becomes_a_reply_with_a_state(
    sent: dict[str, Any], state: State, answer: str, reasoning: str | None
) -> None:
    with serving(lambda request: sent) as stub:
        reply = reply_of(await ask(EndpointAPI("m", stub.url)))
    assert (reply.state, reply.answer, reply.reasoning) == (state, answer, reasoning)


@pytest.mark.parametrize(("status", "retry"), [(500, True), (429, True), (503, True), (400, False), (422, False)])
async def test_H08_a_failed_request_is_raised_and_only_a_passing_trouble_is_tried_again(
    status: int, retry: bool
) -> None:
    with serving(lambda request: status) as stub:
        api = EndpointAPI("m", stub.url)
        with pytest.raises(EndpointError, match=str(status)) as raised:
            await ask(api)
    assert api.should_retry(raised.value) is retry


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refused_key_or_name_is_a_mistake_of_the_users(status: int) -> None:
    with serving(lambda request: status) as stub, pytest.raises(SafeladderError, match="SAFELADDER_API_KEY"):
        await ask(EndpointAPI("m", stub.url))


@pytest.mark.parametrize("sent", [{"choices": []}, {"choices": [{}]}, {"choices": None}, {}])
async def test_H08_a_reply_without_a_message_is_a_failure(sent: dict[str, Any]) -> None:
    with serving(lambda request: sent) as stub, pytest.raises(EndpointError, match="no choice"):
        await ask(EndpointAPI("m", stub.url))


async def test_tools_are_refused() -> None:
    with pytest.raises(SafeladderError, match="without tools"):
        await EndpointAPI("m", "http://127.0.0.1:9/v1").generate(
            [ChatMessageUser(content="x")], [ToolInfo(name="t", description="d")], "auto", GenerateConfig()
        )


def test_an_endpoint_is_named_by_address_and_model() -> None:
    with serving(lambda request: "yes", model="org/name") as stub:
        named, found = open_subject(f"{stub.url}#other"), open_subject(f"{stub.url}/")
    assert named.name == named.identity == f"{stub.url}#other"
    assert found.name == f"{stub.url}#org/name"
    assert (found.kind, found.revision) == ("endpoint", "")
    assert f"org/name@{stub.url.split('/')[2]}" in found.aliases


def test_arguments_that_change_replies_belong_to_the_identity() -> None:
    with serving(lambda request: "yes") as stub:
        one = open_subject(f"{stub.url}#m", {"video": "images", "timeout": 9})
    assert one.identity == f"{stub.url}#m+video=images"


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(SafeladderError, match="cannot be reached"):
        open_subject("http://127.0.0.1:9/v1#m")
    with pytest.raises(SafeladderError, match="a checkpoint folder, http"):
        open_subject("nowhere")
    with pytest.raises(SafeladderError, match=r"no model 'no-such-provider/x'"):
        open_subject("no-such-provider/x")
    with pytest.raises(SafeladderError, match="not a folder with files"):
        open_subject(str(tmp_path))
    with serving(lambda request: "yes") as stub, pytest.raises(SafeladderError, match="takes no such argument"):
        open_subject(f"{stub.url}#m", {"colour": 1})
    with serving(lambda request: "yes") as stub, pytest.raises(SafeladderError, match="allowed: video, images"):
        open_subject(f"{stub.url}#m", {"video": "gif"})


def test_model_arguments_are_pairs() -> None:
    assert parse_arguments(["batch_size=8", "dtype=bfloat16"]) == {"batch_size": 8, "dtype": "bfloat16"}
    with pytest.raises(SafeladderError, match="KEY=VALUE"):
        parse_arguments(["batch_size"])
