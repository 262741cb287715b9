"""Replies: read once, with a state; kept under everything they depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from safeladder.evaluation.replies import (
    AppendOnly,
    Reply,
    State,
    from_row,
    read_reply,
    reply_key,
    rollout_of,
    split_thinking,
    to_row,
)
from safeladder.evaluation.subjects import identity_of
from safeladder.types import Message, Part, Response, SafeladderError, Sample, SamplingParams, StopReason

PARAMS = SamplingParams(max_new_tokens=64, temperature=0.0)


def sample(*parts: Part, id: str = "a", role: str = "user") -> Sample:
    return Sample(id=id, messages=(Message(role=role, parts=parts),), label="general")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "reasoning", "answer", "closed"),
    [
        ("yes", None, "yes", True),
        ("<think>a</think>b", "a", "b", True),
        ("<think>\n\n</think>\n\nb", None, "b", True),
        ("a</think>b", "a", "b", True),  # the chat template opened the block in the prompt
        ("<think>a</think>", "a", "", True),
        ("<think>a", "a", "", False),
        ("so <think>a", "a", "so", False),
        ("<think>a</think>b<think>c", "a\nc", "b", False),
        ("<think>a</think>b<think>c</think>d", "a\nc", "b\nd", True),
        ("<think>a<think>b</think>c", "a\nb", "c", True),
        ("", None, "", True),
    ],
)
def test_text_is_parted_by_its_tags(text: str, reasoning: str | None, answer: str, closed: bool) -> None:
    assert split_thinking(text) == (reasoning, answer, closed)


words = st.text(alphabet="abc \n<>/tk", max_size=20).filter(lambda text: "think>" not in text)


@given(words, words)
def test_a_closed_block_never_reaches_the_answer(thought: str, said: str) -> None:
    reasoning, answer, closed = split_thinking(f"<think>{thought}</think>{said}")
    assert closed
    assert (reasoning or "") == thought.strip()
    assert answer == said.strip()


@given(st.lists(st.sampled_from(["<think>", "</think>", "word ", "\n"]), max_size=12))
def test_no_tag_is_left_and_no_word_is_lost(pieces: list[str]) -> None:
    reasoning, answer, closed = split_thinking("".join(pieces))
    whole = (reasoning or "") + answer
    assert "think>" not in whole
    assert whole.count("word") == pieces.count("word ")
    tags = [piece for piece in pieces if "think" in piece]
    assert closed == (not tags or tags[-1] == "</think>")


@pytest.mark.parametrize("text", ["<think>I should say that", "so: <think>and then", "<think>a</think>b<think>c"])
def test_H07_an_unclosed_thought_is_no_answer(text: str) -> None:
    reply = read_reply(text)
    assert reply.state is State.UNCLOSED
    assert reply.answer == ""
    assert rollout_of(sample(Part(text="?")), reply).response is None


def test_H07_typed_reasoning_that_never_closed_is_no_answer() -> None:
    # What the in-process provider makes of an unfinished thought.
    assert read_reply("", reasoning="<think>I should").state is State.UNCLOSED


def test_H06_a_truncated_reply_is_flagged_whatever_was_said() -> None:
    for text, said in {
        "": "",
        "Sure": "Sure",
        "<think>hm": "",
        "<think>hm</think>Sure": "Sure",
        "a<think>b": "",
    }.items():
        reply = read_reply(text, truncated=True)
        assert (reply.state, reply.answer) == (State.TRUNCATED, said)
        rollout = rollout_of(sample(Part(text="?")), reply)
        assert (rollout.stop_reason, rollout.response, rollout.text) == (StopReason.LENGTH, None, said)


@pytest.mark.parametrize("text", ["", "  \n", "<think>only a thought</think>", "<think>x</think> \n"])
def test_H08_an_empty_reply_is_no_answer(text: str) -> None:
    assert read_reply(text).state is State.EMPTY
    assert rollout_of(sample(Part(text="?")), read_reply(text)).response is None


def test_H08_a_failed_reply_is_no_evidence() -> None:
    reply = read_reply("", problem="status 500")
    rollout = rollout_of(sample(Part(text="?")), reply)
    assert (reply.state, rollout.stop_reason, rollout.response) == (State.ERROR, StopReason.ERROR, None)


def test_typed_reasoning_is_kept_apart() -> None:
    reply = read_reply("b", reasoning="a", tokens=(3, 2))
    rollout = rollout_of(sample(Part(text="?")), reply)
    assert rollout.response == Response(answer="b", reasoning="a")
    assert (reply.input_tokens, reply.output_tokens) == (3, 2)


@given(
    st.builds(
        Reply,
        state=st.sampled_from(State),
        answer=st.text(max_size=5),
        reasoning=st.none() | st.text(max_size=5),
        problem=st.text(max_size=5),
        input_tokens=st.integers(0, 9),
        output_tokens=st.integers(0, 9),
    )
)
def test_a_reply_survives_its_row(reply: Reply) -> None:
    assert from_row({"key": "k", "id": "x", **to_row(reply)}) == reply


def test_O02_a_key_depends_on_weights_steering_prompt_and_settings(tmp_path: Path) -> None:
    asked = sample(Part(text="how many?"))
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for colour, file in enumerate(files):
        Image.new("RGB", (2, 2), (colour, 0, 0)).save(file)
    keys = {
        reply_key(identity, question, params, seed)
        for identity, question, params, seed in [
            (identity_of("aaa", {}), asked, PARAMS, 0),
            (identity_of("bbb", {}), asked, PARAMS, 0),
            (identity_of("aaa", {}, steering="direction-7"), asked, PARAMS, 0),
            (identity_of("aaa", {}, steering="direction-8"), asked, PARAMS, 0),
            (identity_of("aaa", {"dtype": "bfloat16"}), asked, PARAMS, 0),
            (identity_of("aaa", {}), sample(Part(text="how many ?")), PARAMS, 0),
            (identity_of("aaa", {}), sample(Part(text="how many?"), role="system"), PARAMS, 0),
            (identity_of("aaa", {}), sample(Part(image=str(files[0])), Part(text="how many?")), PARAMS, 0),
            (identity_of("aaa", {}), sample(Part(image=str(files[1])), Part(text="how many?")), PARAMS, 0),
            (identity_of("aaa", {}), sample(Part(video=[str(files[0])]), Part(text="how many?")), PARAMS, 0),
            (identity_of("aaa", {}), asked, replace(PARAMS, max_new_tokens=65), 0),
            (identity_of("aaa", {}), asked, replace(PARAMS, temperature=1.0), 0),
            (identity_of("aaa", {}), asked, PARAMS, 1),
        ]
    }
    assert len(keys) == 13


def test_a_key_does_not_depend_on_what_is_not_asked() -> None:
    one = reply_key(identity_of("aaa", {}), sample(Part(text="?")), PARAMS, 0)
    other = replace(sample(Part(text="?"), id="b"), reference="5", taxonomy=("x",))
    assert one == reply_key(identity_of("aaa", {"batch_size": 8, "device": "cuda"}), other, PARAMS, 0)


def test_an_image_is_its_content_wherever_it_lies(tmp_path: Path) -> None:
    image = Image.new("RGB", (3, 2), (9, 8, 7))
    for name in ("a.png", "b.png"):
        image.save(tmp_path / name)
    keys = [reply_key("m", sample(Part(image=str(tmp_path / name))), PARAMS, 0) for name in ("a.png", "b.png")]
    assert keys[0] == keys[1]
    with pytest.raises(SafeladderError, match=r"sample a: image .* cannot be read"):
        reply_key("m", sample(Part(image=str(tmp_path / "none.png"))), PARAMS, 0)


def test_H11_rows_are_appended_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    rows = AppendOnly(path)
    rows.add("a", {"x": 1})
    # On the disk before anything else happens.
    assert path.read_text() == '{"key": "a", "x": 1}\n'
    rows.add("b", {"x": "é"})
    rows.add("a", {"x": 2})
    rows.close()
    again = AppendOnly(path)
    assert (len(again), again.get("a"), again.get("c")) == (2, {"key": "a", "x": 2}, None)
    again.add("c", {})
    again.close()
    assert len(path.read_text().splitlines()) == 4


@given(st.integers(0, 60))
def test_H11_a_kill_in_the_middle_of_a_row_loses_that_row_only(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = AppendOnly(path)
    for i in range(3):
        rows.add(str(i), {"value": i})
    rows.close()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - cut])
    whole = data[: len(data) - cut].count(b"\n")
    again = AppendOnly(path)
    assert [row["key"] for row in again] == [str(i) for i in range(whole)]
    again.add("new", {})
    again.close()
    assert len(AppendOnly(path)) == whole + 1


def test_a_damaged_row_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "a"}\nnonsense\n{"key": "b"}\n')
    with pytest.raises(SafeladderError, match=r"rows.jsonl, line 2: not a row"):
        AppendOnly(path)
