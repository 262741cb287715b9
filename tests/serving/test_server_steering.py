"""Steering, search and edits over HTTP: what is asked for is applied to that request alone, and reported."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from rollout.tiny_policies import picture, policy
from safeladder.cli import _parser
from safeladder.models.load import save_checkpoint
from safeladder.rollout.continuous import ContinuousEngine
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.prefix import PrefixEngine
from safeladder.search.retriever import Document, MemoryRetriever, RetrievalFault
from safeladder.serving import api
from safeladder.serving.chat import sample_of
from safeladder.serving.limits import Limits
from safeladder.serving.memory import MemoryFile
from safeladder.serving.scoring import shipped_verifiers
from safeladder.serving.serve_command import load_host
from safeladder.steering import value_heads
from safeladder.steering.directions import Direction, Directions, fingerprint, load_directions
from safeladder.steering.edit_memory import EditMemory
from safeladder.steering.edit_session import EditSession
from safeladder.steering.edit_transfer import Outcome
from safeladder.steering.editing import written_reasoning
from safeladder.steering.guided import load_guidance
from safeladder.steering.hooks import steered
from safeladder.steering.values import PRINCIPLES
from safeladder.types import GenerationRequest, SafeladderError, SamplingParams
from serving.live import GRAMMAR, NAME, SEARCHING, Shown, ask, formatted, live, stream

CHAT, EDIT, STEPS, EDITS, CONFIRM = (
    f"/v1/{p}"
    for p in ("chat/completions", "safeladder/edit", "safeladder/steps", "safeladder/edits", "safeladder/confirm")
)
FLOORS = {name: {"floor": 0.5} for name in PRINCIPLES}
GUIDANCE = {"candidates": 2, "step_tokens": 4, "backtracks": 1, "proposals": 0, "thresholds": FLOORS}


def said(client: httpx.Client, body: dict[str, Any], path: str = CHAT) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def refused(client: httpx.Client, body: dict[str, Any], path: str = CHAT, status: int = 400) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    return api.ErrorBody.model_validate(response.json()).error.model_dump()


def reply(client: httpx.Client, body: dict[str, Any], **wishes: Any) -> tuple[Any, dict[str, Any]]:
    (choice,) = said(client, {**body, "safeladder": wishes} if wishes else body)["choices"]
    return choice["message"], choice["safeladder"]


def told_live(events: list[Any], name: str) -> list[Any]:
    """What a stream told before its last chunk: steps of guidance, turns of a search."""
    reports = [c.get("safeladder") or {} for event in events[:-1] for c in event["choices"]]
    return [report[name] for report in reports if name in report]


# A checkpoint with value guidance and directions beside it, loaded as the command loads it.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / NAME
    made = policy()
    save_checkpoint(made.model, made.processor, folder)
    torch.manual_seed(0)
    width = made.family.text_model(made.model).config.hidden_size
    about = {"config": GUIDANCE, "model": value_heads.fingerprint(LocalEngine(made))}
    value_heads.ValueHeads(width, PRINCIPLES).save(folder / "steering/value-guidance", about)
    generator = torch.Generator().manual_seed(1)
    vision = made.model.config.vision_config
    towers = (("NT", "language", width), ("NV", "vision", vision.hidden_size))
    items = []
    for name, tower, size in towers:
        vectors = torch.randn(1, size, generator=generator)
        items.append(Direction(name=name, tower=tower, layers=(0,), vectors=vectors, method="mean", n=1, scale=3.0))
    directions = Directions(family="qwen2_5_vl", model=fingerprint(made.model), items=tuple(items))
    directions.save(folder / "steering/treble")
    return folder


def parsed(*words: str) -> argparse.Namespace:
    return _parser().parse_args(["serve", *words])


@pytest.fixture(scope="module")
def client(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    memory = tmp_path_factory.mktemp("memory") / "edits.jsonl"
    options = parsed(str(checkpoint), "--memory", str(memory))
    host = load_host(options, ("value-guidance", "treble"), Limits())
    with live(host=host, verifiers=shipped_verifiers()) as found:
        yield found


@pytest.fixture(scope="module")
def local(checkpoint: Path) -> LocalEngine:
    return LocalEngine.load(str(checkpoint))


def plainly(engine: LocalEngine, body: dict[str, Any], **params: Any) -> str:
    sample = sample_of(api.ChatRequest.model_validate(body).messages, Limits())
    request = GenerationRequest(sample=sample, prompt_ids=engine.prompt_ids(sample))
    sampling = SamplingParams(max_new_tokens=body["max_tokens"], **params)
    return engine.decode(engine.generate([request], sampling, seed=body["seed"])[0][0].token_ids).strip()


def test_directions_steer_the_requests_that_ask_for_them_and_no_others(client, local, checkpoint):
    body = ask(Shown(picture(1)), "how many red circles?", max_tokens=10)
    plain, straight = reply(client, body, steer=[])
    moved, report = reply(client, body, steer=["treble"])
    assert straight["steering"] == []
    assert report["steering"] == ["treble"]
    assert plain["content"] == plainly(local, body)
    with steered(local, load_directions(checkpoint / "steering/treble")) as engine:
        assert moved["content"] == plainly(engine, body)
    assert moved["content"] != plain["content"]
    wishes = [{"steer": []}, {"steer": ["treble"]}] * 6
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda w: reply(client, body, **w)[0], wishes))
    assert found == [plain, moved] * 6


def test_guidance_chooses_steps_and_leaves_a_trail(client, local, checkpoint):
    body = ask("how many red circles?", max_tokens=12, temperature=0.3)
    message, report = reply(client, body, steer=["value-guidance"], trail=True)
    decoder = load_guidance(checkpoint / "steering/value-guidance", local)
    sample = sample_of(api.ChatRequest.model_validate(body).messages, Limits())
    expected = decoder.generate(sample, SamplingParams(max_new_tokens=12), seed=1)
    assert ((message["reasoning_content"] or "") + (message["content"] or "")).strip() == expected.text.strip()
    assert report["steering"] == ["value-guidance"]
    assert report["ignored"] == ["temperature"]
    assert len(report["trail"]) == len(expected.trail)
    for told, step in zip(report["trail"], expected.trail, strict=True):
        assert told["action"] == step.action
        assert [c["total"] for c in told["candidates"]] == pytest.approx([c.score for c in step.candidates])
        assert sum(c["chosen"] for c in told["candidates"]) == (step.action == "keep")
        assert set(told["weights"]) == set(PRINCIPLES)
    assert report["cost"]["generated_tokens"] == expected.cost.generated_tokens

    events = stream(client, {**body, "safeladder": {"steer": ["value-guidance"]}})
    assert [step["action"] for step in told_live(events, "step")] == [step["action"] for step in report["trail"]]
    assert events[-1] == "[DONE]"
    assert reply(client, body, steer=["value-guidance"])[1]["trail"] is None


def test_guided_replies_share_the_server_and_end_with_their_time_or_their_reader(checkpoint, monkeypatch):
    logits = PrefixEngine._logits

    def slow(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return logits(self, hidden)

    monkeypatch.setattr(PrefixEngine, "_logits", slow)
    host = load_host(parsed(str(checkpoint)), ("value-guidance",), Limits())
    with live(host=host, limits=Limits(seconds=2.0)) as client:
        body = ask("how many red circles?", max_tokens=200, safeladder={"steer": ["value-guidance"]})
        with client.stream("POST", CHAT, json={**body, "stream": True}) as response:
            assert next(response.iter_lines())  # and off again
        assert refused(client, body, status=408)["code"] == "timeout"
        assert "timeout" in stream_or_error(client, body)["error"]["code"]
        until = time.monotonic() + 30
        joined = host.guidance["value-guidance",]
        while joined.remembered or client.app.state.desk.busy:  # type: ignore[attr-defined]
            assert time.monotonic() < until, "somebody is still worked for"
            time.sleep(0.05)
        count = joined.batches
        time.sleep(0.3)
        assert joined.batches == count


def test_everything_the_server_was_started_with_is_the_default(client):
    body = ask(Shown(picture(1)), "how many?", max_tokens=6)
    message, report = reply(client, body)
    assert report["steering"] == ["value-guidance", "treble"]
    again, named = reply(client, body, steer=["treble", "value-guidance"])
    assert (message, named["steering"]) == (again, report["steering"])
    assert reply(client, body, steer=["value-guidance"])[0] != message
    card = client.get("/v1/models").json()["data"][0]["safeladder"]
    assert card["steer"] == ["value-guidance", "treble"]
    assert card["edits"] is True
    assert card["scores"][:2] == ["embedded-safety", "embedded-refusal"]
    assert card["scores"][2:] == [f"value-model-{name}" for name in PRINCIPLES]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"top_logprobs": 2, "logprobs": True}, "top_logprobs"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"safeladder": {"edits": True}, "stop": "x"}, "stop"),
        ({"safeladder": {"edits": True}, "logprobs": True}, "logprobs"),
        ({"safeladder": {"edits": True, "steer": ["value-guidance"]}}, "safeladder"),
        ({"safeladder": {"search": True}}, "safeladder.search"),
    ],
)
def test_what_does_not_go_together_is_refused(client, more: dict[str, Any], param: str):
    assert refused(client, ask("how many?", **more))["param"] == param


def test_every_step_is_scored_by_every_scorer(client):
    body = {
        "model": NAME,
        "messages": [{"role": "user", "content": "how many red circles?"}],
        "reasoning": "there are two red circles. and one blue square.",
        "answer": "two",
    }
    found = api.StepsReply.model_validate(said(client, body, STEPS))
    assert [step.text for step in found.steps] == ["there are two red circles. ", "and one blue square."]
    assert found.answer is not None
    names = ["embedded-safety", "embedded-refusal", *(f"value-model-{name}" for name in PRINCIPLES)]
    for scores in (*(step.scores for step in found.steps), found.answer):
        assert list(scores) == names
        assert all(scores[name].value is not None for name in names[2:])
        assert all(s.value is None or 0 <= s.value <= 1 for s in scores.values())
    assert found == api.StepsReply.model_validate(said(client, body, STEPS))
    without = api.StepsReply.model_validate(said(client, {**body, "messages": [], "answer": None}, STEPS))
    assert without.answer is None
    assert without.steps[0].scores["value-model-safety"].value is None
    # A judge of text alone does not pass what depends on an image.
    body["messages"][0]["content"] = ask(Shown(picture(1)), "how many?")["messages"][0]["content"]
    assert said(client, body, STEPS)["steps"][0]["scores"]["embedded-safety"]["value"] is None
    assert said(client, {**body, "reasoning": ""}, STEPS)["steps"] == []


# Edits of the reasoning.


def edit(**more: Any) -> dict[str, Any]:
    body = {
        "model": NAME,
        "messages": [{"role": "user", "content": "how many?"}],
        "reasoning": "a a. aaa. a",
        "step": 2,
        "text": "aa.",
        "max_tokens": 20,
        "seed": 3,
    }
    return body | more


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path]]:
    file = tmp_path_factory.mktemp("memory") / "edits.jsonl"
    with live(engine=formatted(ContinuousEngine), beside={"memory": MemoryFile(file)}) as found:
        yield found, file


@pytest.mark.parametrize("seed", range(4))
def test_a_chain_is_continued_behind_the_edited_step(editor, seed: int):
    from safeladder.steering.editing import continue_from, re_answer

    client, _ = editor
    engine = formatted(LocalEngine)
    sample = sample_of(api.EditRequest.model_validate(edit()).messages, Limits())
    params = SamplingParams(max_new_tokens=20)
    for mode, kept, rollout in (
        ("continue", "a a. aa.", continue_from(engine, sample, "a a. aa.", params, seed=seed)),
        ("re-answer", "a a. aa. a", re_answer(engine, sample, "a a. aa. a", params, seed=seed)),
    ):
        (choice,) = said(client, edit(mode=mode, seed=seed), EDIT)["choices"]
        message, report = choice["message"], choice["safeladder"]
        assert message["reasoning_content"].startswith(kept)
        assert report["edit"]["kept"] == kept
        assert report["well_formed"] is (rollout.response is not None)
        if rollout.response is not None:
            assert (message["reasoning_content"], message["content"]) == (
                rollout.response.reasoning,
                rollout.response.answer,
            )
        if mode == "re-answer":
            assert message["reasoning_content"] == kept
        events = stream(client, edit(mode=mode, seed=seed), EDIT)
        pieces = [c["delta"].get("reasoning_content") or "" for e in events[:-1] for c in e["choices"]]
        assert "".join(pieces) == message["reasoning_content"]


def test_the_distance_of_an_edit_is_counted_in_words(editor):
    client, _ = editor
    (choice,) = said(client, edit(mode="re-answer", reasoning="a b. c d", text="a x.", step=1), EDIT)["choices"]
    # "a b . c d" -> "a x . c d": one of five words.
    assert choice["safeladder"]["edit"]["distance"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"step": 9}, "step"),
        ({"step": 0}, "step"),
        ({"reasoning": ""}, "step"),
        ({"step": 1, "text": " "}, "text"),
        ({"text": "a</think>b"}, None),
        ({"mode": "rewrite"}, "mode"),
        ({"safeladder": {"search": True}}, "safeladder"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "messages"),
    ],
)
def test_edits_that_cannot_be_made_are_refused(editor, more: dict[str, Any], param: str | None):
    assert refused(editor[0], edit(**more), EDIT)["param"] == param


def test_edits_are_kept_in_a_file(editor):
    client, file = editor
    assert said_edits(client) == []
    one = client.post(EDITS, json={"question": "q", "original": "a", "edited": "b"}).json()
    assert client.post(EDITS, json={"question": "q", "original": "a", "edited": "b"}).json() == one
    two = said(client, edit(remember=True), EDIT)["choices"][0]["safeladder"]["edit"]["remembered"]
    kept = said_edits(client)
    assert [row["id"] for row in kept] == [one["id"], two]
    assert kept[1] | {"id": ""} == {
        "id": "", "object": "safeladder.edit", "question": "how many?", "original": "aaa.", "edited": "aa.",
        "context": "a a. ", "confirmed": False, "calibrated": True,
    }  # fmt: skip
    assert kept[0]["calibrated"] is False  # nobody said what was asked, so nobody could ask the model
    assert [api.Edit.model_validate(row) for row in kept] == MemoryFile(file).edits()
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 2
    (choice,) = said(client, ask("how many?", safeladder={"edits": True}))["choices"]
    assert choice["safeladder"]["edits"]["outcome"]
    assert client.delete(f"{EDITS}/{one['id']}").json()["deleted"] == 1
    assert client.delete(f"{EDITS}/{one['id']}").status_code == 404
    assert client.delete(EDITS).json()["deleted"] == 1
    assert said_edits(client) == []


def test_what_is_remembered_over_http_is_what_the_command_remembers(tmp_path: Path):
    # Thoughts begin with a space, as text that is put back into a prompt does.
    grammar = GRAMMAR | {"<think>": {" ": 0.95, "</think>": 0.05}}
    beside = {"memory": MemoryFile(tmp_path / "edits.jsonl")}
    with live(engine=formatted(ContinuousEngine, grammar=grammar), beside=beside) as client:
        compare_with_the_command(client, tmp_path / "edits.jsonl", formatted(LocalEngine, grammar=grammar))


def compare_with_the_command(client: httpx.Client, file: Path, engine: LocalEngine) -> None:
    memory = EditMemory()
    session = EditSession(engine, SamplingParams(max_new_tokens=30), memory=memory, seed=0)
    applied, seen = [], set()
    # Corrected: "a." should be "aa."; confirmed: whatever the rule would have changed; then questions anew.
    for seed in range(12):
        session.seed = seed
        body = ask("how many?", max_tokens=30, seed=seed, safeladder={"edits": True})
        sample = sample_of(api.ChatRequest.model_validate(body).messages, Limits())
        turn = session.ask(sample)
        message, report = (choice := said(client, body)["choices"][0])["message"], choice["safeladder"]["edits"]
        mine = turn.applied
        assert mine is not None
        assert (report["applied"], report["outcome"]) == (mine.outcome == Outcome.APPLIED, str(mine.outcome))
        assert (report["step"], report["original"], report["edited"], report["rule"], report["forced"]) == (
            mine.number, mine.original, mine.edited, mine.rule, mine.forced,
        )  # fmt: skip
        assert report["support"] == (mine.support if mine.support is None else pytest.approx(mine.support, abs=1e-4))
        if report["support"] is not None and not report["forced"]:
            assert report["applied"] == (report["support"] >= report["needed"] and report["support"] > 0)
        seen.add(report["outcome"])
        thought = message["reasoning_content"] or ""
        if not thought or written_reasoning(turn.shown.text) is None:
            continue
        assert thought == written_reasoning(turn.shown.text)
        applied.append(report["applied"])
        asked = {"model": NAME, "messages": body["messages"], "reasoning": thought, "seed": seed}
        if seed % 3 == 2:
            found = said(client, asked, CONFIRM)["data"]
            assert len(found) == session.accept()
            assert all(edit["confirmed"] and edit["calibrated"] for edit in found)
        elif mine.outcome != Outcome.APPLIED:
            answer = session.correct(1, "aa.")
            more = {"step": 1, "text": "aa.", "remember": True, "temperature": 1.0, "max_tokens": 30}
            (choice,) = said(client, {**asked, **more}, EDIT)["choices"]
            assert choice["safeladder"]["edit"]["remembered"]
            assert choice["message"]["reasoning_content"] == written_reasoning(answer.text)
    assert {True, False} <= set(applied)
    stored = EditMemory.load(file).pairs
    unique = {(p.question, p.original, p.edited, p.context): p for p in memory.pairs}
    assert len(stored) == len(unique) > 2
    for pair in stored:
        mine = unique[pair.question, pair.original, pair.edited, pair.context]
        assert pair.candidates == pytest.approx(mine.candidates, abs=1e-4)
        assert sum(pair.candidates.values()) > 0


def test_an_edit_is_calibrated_where_its_messages_are_known_and_an_undone_one_is_a_confirmation(editor):
    client, _ = editor
    client.delete(EDITS)
    one = {"question": "how many?", "original": "aaa.", "edited": "aa.", "context": "a a. "}
    blind = client.post(EDITS, json=one).json()
    assert blind["calibrated"] is False
    shown = client.post(EDITS, json={**one, "question": "", "messages": edit()["messages"]}).json()
    assert shown == {**blind, "calibrated": True}  # the same edit, known better now
    assert said_edits(client) == [shown]
    for more, param in (
        ({"question": "another?", "messages": edit()["messages"]}, "question"),
        ({"question": ""}, "question"),
        ({"original": "a. a.", "messages": edit()["messages"]}, "original"),
    ):
        assert refused(client, {**one, **more}, EDITS)["param"] == param
    undone = edit(reasoning="a a. aa. a", text="aaa.", remember=True, undo=True)
    remembered = said(client, undone, EDIT)["choices"][0]["safeladder"]["edit"]["remembered"]
    (found,) = [row for row in said_edits(client) if row["id"] == remembered]
    assert (found["original"], found["edited"], found["confirmed"], found["context"]) == ("aaa.", "aaa.", True, "a a. ")
    assert refused(client, {**undone, "remember": False}, EDIT)["param"] == "undo"
    for text in ("", "a. a."):  # what is put back is one step: nothing is generated for anything else
        assert refused(client, {**undone, "text": text}, EDIT)["param"] == "text"
    assert refused(client, {"model": NAME, "messages": edit()["messages"], "reasoning": " "}, CONFIRM)["param"]
    client.delete(EDITS)


@pytest.mark.parametrize("path", [EDIT, STEPS, CONFIRM])
def test_reasoning_that_the_model_cannot_have_said_is_not_worked_on(editor, monkeypatch, path: str):
    monkeypatch.setattr("safeladder.serving.plans._STEPS", 3)
    more = {"step": 1, "text": "x."} if path == EDIT else {}
    body = {"model": NAME, "messages": edit()["messages"], **more}
    context = editor[0].get("/v1/models").json()["data"][0]["safeladder"]["context_length"]
    for reasoning, says in (
        ("a" * 40 * context, "longer than the model's context"),
        ("? " * context, "longer than the model's context"),
        ("a. </think> a.", "tag"),
        ("a. " * 4, "4 steps; at most 3"),
    ):
        found = refused(editor[0], {**body, "reasoning": reasoning}, path)
        assert found["param"] == "reasoning"
        assert says in found["message"]


def test_a_full_memory_says_so_before_anything_is_made(editor, monkeypatch):
    client, _ = editor
    client.delete(EDITS)
    monkeypatch.setattr("safeladder.serving.memory.MOST", 0)
    assert "as many as it may" in refused(client, edit(remember=True), EDIT)["message"]
    assert said_edits(client) == []


def said_edits(client: httpx.Client) -> list[dict[str, Any]]:
    return api.EditList.model_validate(client.get(EDITS).json()).model_dump()["data"]


def test_a_server_without_a_memory_says_so():
    with live() as client:
        assert client.get(EDITS).status_code == 404
        assert client.delete(EDITS).status_code == 404
        assert refused(client, edit(remember=True), EDIT)["param"] == "remember"
        confirmed = {"model": NAME, "messages": edit()["messages"], "reasoning": "a."}
        assert client.post(CONFIRM, json=confirmed).status_code == 404
        assert refused(client, ask("x", safeladder={"edits": True}))["param"] == "safeladder.edits"


# Search.

PAGES = [Document(id="p1", title="a", text="a b"), Document(id="p2", title="b", text="b a")]


class Faulty:
    """An index that is down."""

    def search(self, query: str, k: int) -> Any:
        raise RetrievalFault("the index is down")

    def read(self, id: str) -> Any:
        raise RetrievalFault("the index is down")


def test_a_search_tells_its_turns_its_sources_and_how_certain_it_is():
    engine = formatted(ContinuousEngine, grammar=SEARCHING)
    with live(engine=engine, beside={"retriever": MemoryRetriever(PAGES)}) as client:
        seen = set()
        for seed in range(6):
            body = ask("b?", max_tokens=900, seed=seed, safeladder={"search": True})
            (choice,) = said(client, body)["choices"]
            report = choice["safeladder"]["search"]
            assert choice["message"]["content"] == "b"
            assert choice["safeladder"]["well_formed"] is True
            assert [turn["action"] for turn in report["turns"]] == ["search", "answer"]
            assert {source["id"] for source in report["sources"]} == {"p1", "p2"}
            assert report["verdict"] == ("certain" if report["confidence"] == 9 else "uncertain")
            seen.add(report["confidence"])
            events = stream(client, body)
            assert [turn["action"] for turn in told_live(events, "turn")] == ["search", "answer"]
            assert events[-2]["choices"][0]["safeladder"]["search"] == report
            if seen == {2, 9}:
                break
        assert seen == {2, 9}
        # Without the wish the same model is not asked to search.
        (choice,) = said(client, ask("b?"))["choices"]
        assert choice["safeladder"]["search"] is None


def test_a_search_without_an_answer_is_none_and_a_broken_index_is_an_error():
    with live(beside={"retriever": MemoryRetriever(PAGES)}) as client:
        (choice,) = said(client, ask("b?", max_tokens=200, safeladder={"search": True}))["choices"]
        assert choice["message"]["content"] is None
        assert choice["safeladder"]["unscored"] in ("no-search-answer", "truncated")
        assert choice["safeladder"]["search"]["verdict"] is None
    with live(engine=formatted(ContinuousEngine, grammar=SEARCHING), beside={"retriever": Faulty()}) as client:
        body = ask("b?", max_tokens=900, safeladder={"search": True})
        assert refused(client, body, status=503)["code"] == "search_failed"
        assert stream_or_error(client, body)["error"]["code"] == "search_failed"


def stream_or_error(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """The error of a stream, whether it came before or after its beginning."""
    with client.stream("POST", CHAT, json={**body, "stream": True}) as response:
        text = response.read().decode()
    if response.status_code != 200:
        return json.loads(text)
    return json.loads([line for line in text.splitlines() if line.startswith("data: ")][-1].removeprefix("data: "))


# What the command says when something is not there.


@pytest.mark.parametrize(
    ("steer", "maker"), [("value-guidance", "safeladder pvm train"), ("treble", "safeladder directions fit")]
)
def test_steering_that_is_not_there_names_the_command_that_makes_it(tmp_path: Path, steer: Any, maker: str):
    with pytest.raises(SafeladderError, match=rf"--steer {steer}: .*{steer} is not there; make it with `{maker}`"):
        load_host(parsed(str(tmp_path)), (steer,), Limits())


def test_directions_of_another_model_are_refused(checkpoint: Path, tmp_path: Path):
    other = policy(seed=1)
    save_checkpoint(other.model, other.processor, tmp_path / "other")
    (tmp_path / "other/steering").mkdir()
    (tmp_path / "other/steering/treble").symlink_to(checkpoint / "steering/treble")
    with pytest.raises(SafeladderError, match="other weights"):
        load_host(parsed(str(tmp_path / "other")), ("treble",), Limits())
