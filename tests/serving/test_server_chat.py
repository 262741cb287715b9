"""Chat completions over HTTP: what the engine says is what the client gets, whole and in streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from rollout.tiny_policies import ask as local_sample
from rollout.tiny_policies import picture, policy
from safeladder.rollout.continuous import ContinuousEngine
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.parse import ResponseFormat
from safeladder.serving import api
from safeladder.serving.chat import sample_of
from safeladder.serving.limits import Limits
from safeladder.types import GenerationRequest, SamplingParams, StopReason
from serving.live import NAME, Shown, ask, formatted, live, stream

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with live(engine=formatted(ContinuousEngine), limits=Limits(choices=12, messages=6)) as found:
        yield found


@pytest.fixture(scope="module")
def reference() -> LocalEngine:
    return formatted(LocalEngine)


@pytest.fixture(scope="module")
def sighted() -> Iterator[tuple[httpx.Client, LocalEngine]]:
    """A server whose model looks at its prompt (and says nothing sensible), and the same in this process."""
    with live() as found:
        yield found, LocalEngine(policy())


def said(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    response = client.post(CHAT, json=body)
    assert response.status_code == 200, response.text
    api.Completion.model_validate(response.json())
    return response.json()


def refused(client: httpx.Client, body: Any, status: int = 400) -> dict[str, Any]:
    response = client.post(CHAT, json=body)
    assert response.status_code == status, response.text
    return api.ErrorBody.model_validate(response.json()).error.model_dump()


def expected(engine: LocalEngine, body: dict[str, Any], seed: int, **params: Any) -> tuple[str, StopReason]:
    """What the in-process engine says to the same messages."""
    request = api.ChatRequest.model_validate(body)
    sample = sample_of(request.messages, Limits())
    sampling = SamplingParams(max_new_tokens=body["max_tokens"], temperature=1.0, **params)
    ((completion,),) = engine.generate(
        [GenerationRequest(sample=sample, prompt_ids=engine.prompt_ids(sample))], sampling, seed=seed
    )
    return engine.decode(completion.token_ids), completion.stop_reason


def joined(events: list[Any], index: int = 0) -> tuple[str | None, str | None, dict[str, Any]]:
    """Reasoning, answer and the last chunk of one choice of a stream."""
    chunks = [c for event in events[:-1] for c in event["choices"] if c["index"] == index]
    parts = {
        name: [c["delta"][name] for c in chunks if c["delta"].get(name)] for name in ("reasoning_content", "content")
    }
    last = next(c for c in chunks if c["finish_reason"])
    reasoning, answer = ("".join(found) or None for found in parts.values())
    return reasoning, answer, last


@pytest.mark.parametrize("seed", range(8))
def test_a_reply_is_the_engines_and_is_split_as_the_house_splits_it(client, reference, seed: int):
    body = ask("how many red circles?", seed=seed, max_tokens=24)
    text, reason = expected(reference, body, seed)
    reply = said(client, body)
    (choice,) = reply["choices"]
    response = ResponseFormat().parse(text, reason)
    report = choice["safeladder"]
    assert report["well_formed"] is (response is not None)
    assert (report["unscored"] is None) is (response is not None)
    assert report["seed"] == seed
    if response is not None:
        assert choice["message"]["reasoning_content"] == response.reasoning
        assert choice["message"]["content"] == response.answer
    assert choice["finish_reason"] == ("length" if reason is StopReason.LENGTH else "stop")

    streamed = stream(client, body)
    assert streamed[-1] == "[DONE]"
    reasoning, answer, last = joined(streamed)
    assert (reasoning or "", answer) == (choice["message"]["reasoning_content"] or "", choice["message"]["content"])
    assert last["finish_reason"] == choice["finish_reason"]
    assert last["safeladder"] == report
    for event in streamed[:-1]:
        api.Chunk.model_validate(event)


def test_a_truncated_reply_is_never_taken_for_an_answer(client):
    message = {"role": "assistant", "reasoning_content": "red blue"}
    for seed in range(20):
        body = ask("how many?", max_tokens=1, seed=seed, continue_final_message=True)
        body["messages"].append(message)
        (choice,) = said(client, body)["choices"]
        if choice["finish_reason"] == "length":
            assert choice["message"]["content"] is None
            assert choice["safeladder"]["unscored"] == "truncated"
            return
    pytest.fail("no reply was cut")


def test_images_are_seen_and_those_of_two_users_are_told_apart(sighted):
    client, reference = sighted
    one = ask(Shown(picture(1)), "how many?", max_tokens=16, seed=3)
    two = ask(Shown(picture(2)), "how many?", max_tokens=16, seed=3)
    both = ask(Shown(picture(1)), "and", Shown(picture(2, 84), "WEBP"), "how many?", max_tokens=16, seed=3)
    replies = [said(client, body) for body in (one, two, one, both)]
    texts = [expected(reference, body, 3)[0] for body in (one, two)]
    assert replies[0]["choices"][0]["message"] == replies[2]["choices"][0]["message"]
    assert texts[0] != texts[1]
    assert replies[0]["choices"][0]["message"] != replies[1]["choices"][0]["message"]
    # 56 pixels square are 4 by 4 patches of 14, merged 2 by 2: 4 tokens; 84 pixels square are 9.
    text_only = said(client, ask("how many?", max_tokens=1))["usage"]["prompt_tokens"]
    assert replies[0]["usage"]["prompt_tokens"] - text_only >= 4
    assert replies[3]["usage"]["prompt_tokens"] - replies[0]["usage"]["prompt_tokens"] >= 9


def test_the_same_seed_gives_the_same_reply_and_another_one_another(client):
    body = ask("what colour is the square?", max_tokens=24, n=3, seed=5)
    first, again = said(client, body), said(client, body)
    assert [c["message"] for c in first["choices"]] == [c["message"] for c in again["choices"]]
    assert len({str(c["message"]) for c in first["choices"]}) > 1
    assert len({c["safeladder"]["seed"] for c in first["choices"]}) == 3
    # Every choice can be had alone, by the seed it reports.
    for choice in first["choices"]:
        alone = said(client, {**body, "n": 1, "seed": choice["safeladder"]["seed"]})
        assert alone["choices"][0]["message"] == choice["message"]
    assert sum(1 for _ in first["choices"]) == 3
    unseeded = {str(said(client, ask("red?", max_tokens=24, seed=None))["choices"][0]["message"]) for _ in range(4)}
    assert len(unseeded) > 1


def test_a_stream_of_several_choices_is_the_plain_reply(client):
    body = ask("what colour?", max_tokens=20, n=3, seed=9, stream_options={"include_usage": True})
    plain = said(client, {k: v for k, v in body.items() if k != "stream_options"})
    streamed = stream(client, body)
    for choice in plain["choices"]:
        reasoning, answer, last = joined(streamed, choice["index"])
        assert (reasoning or "") == (choice["message"]["reasoning_content"] or "")
        assert answer == choice["message"]["content"]
        assert last["safeladder"] == choice["safeladder"]
    assert streamed[-2]["choices"] == []
    assert streamed[-2]["usage"] == plain["usage"]
    assert all(event["usage"] is None for event in streamed[:-2])


def test_usage_adds_up(client):
    reply = said(client, ask("what colour?", max_tokens=5, n=2))
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 2 <= usage["completion_tokens"] <= 10


@pytest.mark.parametrize("streamed", [False, True])
def test_logprobs_are_the_engines_and_belong_to_the_answer_or_the_reasoning(client, reference, streamed: bool):
    body = ask("how many red circles?", max_tokens=12, seed=2, logprobs=True, top_logprobs=3)
    sample = sample_of(api.ChatRequest.model_validate(body).messages, Limits())
    sampling = SamplingParams(max_new_tokens=12, temperature=1.0, top_logprobs=3)
    request = GenerationRequest(sample=sample, prompt_ids=reference.prompt_ids(sample))
    ((completion,),) = reference.generate([request], sampling, seed=2)
    by_token = [(reference.decode([i]), p) for i, p in zip(completion.token_ids, completion.logprobs, strict=True)]
    if streamed:
        chunks = [c["logprobs"] for e in stream(client, body)[:-1] for c in e["choices"] if c["logprobs"]]
        rows = [row for part in chunks for row in part["reasoning_content"] + part["content"]]
    else:
        found = said(client, body)["choices"][0]["logprobs"]
        rows = found["reasoning_content"] + found["content"]
    said_tokens = [(text, logprob) for text, logprob in by_token if text not in ("<think>", "</think>", "")]
    assert [row["token"] for row in rows] == [text for text, _ in said_tokens]
    for row, (_, logprob) in zip(rows, said_tokens, strict=True):
        assert row["logprob"] == pytest.approx(logprob, abs=1e-4)
        assert len(row["top_logprobs"]) == 3
        assert row["top_logprobs"][0]["logprob"] >= row["logprob"] - 1e-6


def test_the_error_is_that_of_the_form_that_was_used(client):
    response = client.post("/v1/chat/completions", json=ask("x", stop=list("abcde")))
    assert "at most 4" in response.json()["error"]["message"]


def test_a_stop_sequence_ends_a_reply_and_is_no_part_of_it(client, reference):
    body = ask("what colour?", max_tokens=24)
    texts = [expected(reference, body, seed)[0] for seed in range(30)]
    seed, text = next((i, t) for i, t in enumerate(texts) if t.partition("</think>")[2].find("b?") > 0)
    stop, answer = "b?", text.partition("</think>")[2]
    before = answer[: answer.index(stop)]
    for wish in (stop, [stop, "never said"]):
        (choice,) = said(client, {**body, "seed": seed, "stop": wish})["choices"]
        assert choice["message"]["content"] == before
        assert choice["finish_reason"] == "stop"
        assert choice["safeladder"]["stop_reason"] == "stop"
    reasoning, said_, _ = joined(stream(client, {**body, "seed": seed, "stop": stop}))
    assert (f"<think>{reasoning}</think>", said_) == (text.partition("</think>")[0].rstrip() + "</think>", before)


def test_a_reply_can_be_begun_by_the_client(client, reference):
    body = ask("how many?", max_tokens=16, seed=4, continue_final_message=True)
    body["messages"].append({"role": "assistant", "reasoning_content": "a a", "content": None})
    (choice,) = said(client, body)["choices"]
    sample = sample_of(api.ChatRequest.model_validate(ask("how many?")).messages, Limits())
    tokenizer = reference.policy.tokenizer
    begun = tokenizer.encode("<think> a a", add_special_tokens=False)
    prompt = (*reference.prompt_ids(sample), *begun)
    request = GenerationRequest(sample=sample, prompt_ids=prompt)
    ((completion,),) = reference.generate([request], SamplingParams(max_new_tokens=16), seed=4)
    whole = "<think> a a" + reference.decode(completion.token_ids)
    head, closed, tail = whole.removeprefix("<think>").partition("</think>")
    assert ("a a" + (choice["message"]["reasoning_content"] or "")).strip() == head.strip()
    assert (choice["message"]["content"] or "") == (tail.strip() if closed else "")


def test_what_came_back_can_be_sent_back(client):
    body = ask("how many?", seed=1)
    message = said(client, body)["choices"][0]["message"]
    message["content"] = message["content"] or ""
    body["messages"] += [message, {"role": "user", "content": "and now?"}]
    assert said(client, body)["usage"]["prompt_tokens"] > 20


def test_roles_and_forms_of_content(client):
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "how many?"},
        {"role": "assistant", "content": [{"type": "text", "text": "12"}]},
        {"role": "user", "content": [{"type": "text", "text": "red"}, {"type": "text", "text": " blue"}]},
    ]
    assert said(client, {"model": NAME, "messages": messages, "max_tokens": 2})
    messages[0]["role"] = "developer"
    assert said(client, {"model": NAME, "messages": messages, "max_completion_tokens": 2})


NEUTRAL = {
    "tools": [], "tool_choice": "none", "functions": [], "response_format": {"type": "text"}, "presence_penalty": 0,
    "frequency_penalty": 0.0, "logit_bias": {}, "modalities": ["text"], "store": False, "service_tier": "auto",
    "user": "someone", "metadata": {"a": "b"}, "parallel_tool_calls": True,
}  # fmt: skip
ASKING = {
    "tools": [{"type": "function"}], "tool_choice": "required", "functions": [{}], "presence_penalty": 0.5,
    "response_format": {"type": "json_object"}, "frequency_penalty": 1, "logit_bias": {"1": 5}, "modalities": ["audio"],
    "store": True, "service_tier": "flex", "top_k": 5, "min_p": 0.1, "reasoning_effort": "low", "audio": {},
    "prediction": {}, "web_search_options": {}, "verbosity": "low", "repetition_penalty": 1.1,
}  # fmt: skip


def test_parameters_that_ask_for_nothing_are_accepted(client):
    plain = said(client, ask("how many?"))
    assert said(client, ask("how many?", **NEUTRAL))["choices"] == plain["choices"]


@pytest.mark.parametrize("name", ASKING)
def test_parameters_that_would_change_a_reply_are_refused_by_name(client, name: str):
    error = refused(client, ask("how many?", **{name: ASKING[name]}))
    assert error["code"] == "unsupported_parameter"
    assert error["type"] == "invalid_request_error"
    assert name in error["param"]
    assert api.UNSUPPORTED[name] in error["message"]


LONG = "red " * 3000
WRONG: dict[str, tuple[dict[str, Any], str | None]] = {
    "an unknown parameter": ({"colour": 1}, "unknown_parameter"),
    "an unknown wish": ({"safeladder": {"steer": [], "magic": True}}, "unknown_parameter"),
    "a tool's message": ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value"),
    "no message": ({"messages": []}, "invalid_value"),
    "too many messages": ({"messages": [{"role": "user", "content": "x"}] * 7}, "invalid_value"),
    "no content": ({"messages": [{"role": "user", "content": []}]}, "invalid_value"),
    "a temperature beyond": ({"temperature": 2.5}, "invalid_value"),
    "a nucleus of nothing": ({"top_p": 0}, "invalid_value"),
    "no tokens": ({"max_tokens": 0}, "invalid_value"),
    "too many choices": ({"n": 13}, "invalid_value"),
    "five stops": ({"stop": ["a", "b", "c", "d", "e"]}, "invalid_value"),
    "likeliest tokens without logprobs": ({"top_logprobs": 2}, "invalid_value"),
    "stream options without a stream": ({"stream_options": {"include_usage": True}}, "invalid_value"),
    "a seed beyond 64 bits": ({"seed": 2**70}, "invalid_value"),
    "nothing to go on with": ({"continue_final_message": True}, "invalid_value"),
    "a steering that is not there": ({"safeladder": {"steer": ["treble"]}}, "not_available"),
    "an index that is not there": ({"safeladder": {"search": True}}, "not_available"),
    "a prompt that is too long": (
        {"messages": [{"role": "user", "content": "red " * 3000}]},
        "context_length_exceeded",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_served_is_refused_with_the_reason(client, name: str):
    more, code = WRONG[name]
    error = refused(client, {**ask("how many?"), **more})
    assert error["code"] == code
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]


def test_another_model_is_not_found(client):
    error = refused(client, {**ask("how many?"), "model": "gpt-9"}, 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


HALF = b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}'


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": NaN}', b"\xff\xfe", b"[" * 5000, HALF])
def test_a_body_that_is_no_request_is_refused(client, body: bytes):
    response = client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400, response.text
    api.ErrorBody.model_validate(response.json())


@pytest.mark.parametrize("text", ["<|im_end|>", "<|image_pad|>", "<|im_start|>system", "<think>", "</think>"])
def test_text_that_spells_a_control_token_is_only_text(client, text: str):
    plain = said(client, ask("how many?", max_tokens=1))["usage"]["prompt_tokens"]
    assert said(client, ask(f"how many?{text}", max_tokens=1))["usage"]["prompt_tokens"] > plain


def test_paths_and_methods_that_are_not_there(client):
    for response, status in ((client.get("/v1/nothing"), 404), (client.put(CHAT), 405), (client.get(CHAT), 405)):
        assert response.status_code == status
        api.ErrorBody.model_validate(response.json())
    assert "POST" in client.get(CHAT).headers["allow"]


def test_models_health_and_metrics(client):
    listed = api.ModelList.model_validate(client.get("/v1/models").json()).data
    assert [card.id for card in listed] == [NAME]
    assert client.get(f"/v1/models/{NAME}").json() == listed[0].model_dump(mode="json")
    assert client.get("/v1/models/other").status_code == 404
    assert listed[0].safeladder.context_length == 2048
    assert api.Health.model_validate(client.get("/health").json()).status == "ok"
    before = _metric(client, 'safeladder_requests_total{path="/v1/chat/completions",status="200"}')
    said(client, ask("how many?", max_tokens=3))
    stream(client, ask("how many?", max_tokens=3))
    assert _metric(client, 'safeladder_requests_total{path="/v1/chat/completions",status="200"}') == before + 2
    assert _metric(client, "safeladder_first_token_seconds_count") >= 1
    assert _metric(client, "safeladder_requests_in_work") == 0


def _metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next((float(line.removeprefix(name)) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_a_text_model_refuses_images_and_answers_text():
    with live(family="llama") as client:
        assert said(client, ask("how many?", max_tokens=2))
        assert refused(client, ask("how many?", Shown(picture(1))))["code"] == "images_not_supported"
        assert client.get("/v1/models").json()["data"][0]["safeladder"]["images"] is False


def test_the_id_of_a_conversation_is_all_that_it_says_and_shows():
    def id_of(*content: Any) -> str:
        return sample_of(api.ChatRequest.model_validate(ask(*content)).messages, Limits()).id

    assert id_of("a", Shown(picture(1))) == id_of("a", Shown(picture(1), "BMP"))
    different = [
        id_of("a"), id_of("b"), id_of("a", "b"), id_of("ab"),
        id_of("a", Shown(picture(1))), id_of("a", Shown(picture(2))), id_of(Shown(picture(1)), "a"),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert (
        local_sample("x", "a").messages
        == sample_of(api.ChatRequest.model_validate(ask("a")).messages, Limits()).messages
    )
