"""A reply taken apart while it grows: reasoning and answer, stop sequences, tokens and their log-probabilities."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.rollout.parse import ResponseFormat
from safeladder.serving import api
from safeladder.serving.chat import NO_LOGPROB, Piece, Reader, Refused, Token, begun_reply, logprobs_of, partial
from safeladder.types import StopReason


class Bytes:
    """Tokens that are pieces of UTF-8, as in byte-level BPE; id 0 is the end token and has no text."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = [b""]

    def encode(self, text: str, cuts: Sequence[int]) -> list[int]:
        raw = text.encode()
        ends = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
        ids = []
        for start, end in itertools.pairwise(ends):
            self.pieces.append(raw[start:end])
            ids.append(len(self.pieces) - 1)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", "replace")


def read(text: str, cuts: Sequence[int] = (), stop: Sequence[str] = (), **options):
    """The reader after all tokens, pushed one by one, and the pieces that came out."""
    table = Bytes()
    reader = Reader(table.decode, stop, **options)
    pieces: list[Piece] = []
    for id in table.encode(text, cuts or range(len(text.encode()))):
        pieces += reader.push([Token(id, -1.0)])
    pieces += reader.finish()
    return reader, pieces


def joined(pieces: Sequence[Piece], kind: str) -> str:
    return "".join(piece.text for piece in pieces if piece.kind == kind)


TEXTS = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<", "think", ">", "</", " ", "\n", "a", "b.", "红", "é", "STOP", "ST", "x"]
    )
).map("".join)


@given(text=TEXTS, cuts=st.lists(st.integers(0, 80)))
def test_pieces_do_not_depend_on_how_the_tokens_were_cut(text: str, cuts: list[int]):
    whole, whole_pieces = read(text, [10_000])
    parts, pieces = read(text, cuts)
    single, single_pieces = read(text)
    for reader, found in ((parts, pieces), (single, single_pieces)):
        assert joined(found, "reasoning") == joined(whole_pieces, "reasoning") == (reader.reasoning or "")
        assert joined(found, "answer") == joined(whole_pieces, "answer") == reader.answer
        assert reader.text == whole.text == text


@given(text=TEXTS, reason=st.sampled_from([StopReason.EOS, StopReason.LENGTH, StopReason.STOP]))
def test_a_well_formed_reply_is_what_the_house_parser_reads(text: str, reason: StopReason):
    reader, pieces = read(text)
    response = ResponseFormat().parse(text, reason)
    assert (reader.unscored(reason) is None) == (response is not None)
    if response is not None:
        assert joined(pieces, "reasoning") == response.reasoning
        assert joined(pieces, "answer") == response.answer


@given(text=TEXTS, cuts=st.lists(st.integers(0, 80)))
def test_a_stop_sequence_ends_the_text_and_is_never_seen(text: str, cuts: list[int]):
    reader, pieces = read(text, cuts, ["STOP"])
    assert reader.text == text.partition("STOP")[0]
    assert "STOP" not in joined(pieces, "answer") + joined(pieces, "reasoning")
    plain, plain_pieces = read(text.partition("STOP")[0])
    assert joined(pieces, "answer") == joined(plain_pieces, "answer")
    assert reader.reasoning == plain.reasoning


@pytest.mark.parametrize(
    ("text", "reason", "unscored", "reasoning", "answer"),
    [
        ("<think> two</think> 2", StopReason.EOS, None, "two", "2"),
        ("<think> two</think> 2", StopReason.LENGTH, "truncated", "two", "2"),
        ("<think> two", StopReason.LENGTH, "truncated", "two", ""),
        ("<think> two", StopReason.EOS, "unclosed-reasoning", "two", ""),
        ("just an answer", StopReason.EOS, "no-reasoning", None, "just an answer"),
        ("", StopReason.EOS, "empty", None, ""),
        ("<think> two</think>", StopReason.EOS, "malformed", "two", ""),
        ("<think> a</think> b</think> c", StopReason.EOS, "malformed", "a", "b</think> c"),
    ],
)
def test_what_is_cut_or_broken_is_marked_and_never_an_answer_by_mistake(text, reason, unscored, reasoning, answer):
    reader, pieces = read(text)
    assert reader.unscored(reason) == unscored
    assert reader.reasoning == reasoning
    assert joined(pieces, "answer") == answer


def test_tokens_go_with_their_part_and_tags_and_the_end_with_none():
    table = Bytes()
    words = ["<think>", " two", " red", "</think>", " 2", "."]
    ids = [i for word in words for i in table.encode(word, [])] + [0]
    reader = Reader(table.decode)
    pieces = [p for k, id in enumerate(ids) for p in reader.push([Token(id, -float(k))])] + reader.finish()
    found = logprobs_of(pieces, lambda id: table.decode([id]))
    assert [(row.token, row.logprob) for row in found.reasoning_content] == [(" two", -1.0), (" red", -2.0)]
    assert [(row.token, row.logprob) for row in found.content] == [(" 2", -4.0), (".", -5.0)]
    # The tag before and after, and the two words: four tokens of reasoning.
    assert reader.reasoning_tokens == 4


def test_a_character_of_several_tokens_comes_out_whole_and_its_tokens_have_no_text_of_their_own():
    _reader, pieces = read("红色")
    assert [p.text for p in pieces] == ["红", "色"]
    assert sum(len(p.tokens) for p in pieces) == 6  # three bytes each
    table = Bytes()
    ids = table.encode("红", range(3))
    (row, *_) = logprobs_of([Piece("answer", "红", [Token(ids[0])])], lambda id: table.decode([id])).content
    assert row.bytes is None


def test_an_impossible_token_has_a_finite_number():
    found = logprobs_of([Piece("answer", "a", [Token(1, -float("inf"))])], lambda id: "a")
    assert found.content[0].logprob == NO_LOGPROB


@given(text=TEXTS)
def test_a_begun_reply_gives_back_only_what_is_new_and_is_read_as_one(text: str):
    begun = "<think> two red"
    reader, pieces = read(text, begun=begun)
    plain, _ = read(begun + text)
    assert (reader.reasoning, reader.answer, reader.closed) == (plain.reasoning, plain.answer, plain.closed)
    _shown, both = read(text, begun=begun, whole=True)
    assert joined(both, "reasoning") == plain.reasoning
    assert "two red" + joined(pieces, "reasoning") == plain.reasoning


@given(text=st.text("<>/think ab", max_size=12))
def test_only_what_can_become_a_mark_is_held_back(text: str):
    marks = ("</think>", "ab")
    held = partial(text, marks)
    expected = [n for n in range(1, len(text) + 1) if any(len(m) > n and m.startswith(text[-n:]) for m in marks)]
    assert held == max(expected, default=0)


def test_a_begun_reply_is_written_as_the_policy_writes():
    message = api.AssistantMessage(role="assistant", reasoning_content="two red", content="2")
    assert begun_reply(message) == "<think> two red</think> 2"
    assert begun_reply(message.model_copy(update={"content": None})) == "<think> two red"
    assert begun_reply(message.model_copy(update={"reasoning_content": None})) == "2"
    with pytest.raises(Refused, match="tag"):
        begun_reply(message.model_copy(update={"reasoning_content": "a</think>b"}))
    with pytest.raises(Refused, match="empty"):
        begun_reply(api.AssistantMessage(role="assistant"))
