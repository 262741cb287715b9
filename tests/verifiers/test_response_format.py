"""The response format: parsing undoes rendering, and no text breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.rollout.parse import ResponseFormat
from safeladder.types import Response, StopReason

FORMATS = (ResponseFormat(), ResponseFormat(open_tag="[reason]", close_tag="[/reason]"))
part = st.text(min_size=1).map(str.strip).filter(bool)


@pytest.mark.parametrize("format", FORMATS, ids=["think", "custom"])
@given(reasoning=part, answer=part)
@settings(max_examples=50, deadline=None)
def test_round_trip(format, reasoning, answer):
    response = Response(answer=answer, reasoning=reasoning)
    if not any(tag in text for tag in (format.open_tag, format.close_tag) for text in (reasoning, answer)):
        assert format.parse(format.render(response)) == response


fragments = st.lists(st.sampled_from(["<think>", "</think>", "<think", "a", " ", "\n", "你"]), max_size=8).map("".join)


@given(st.one_of(st.text(), fragments), st.sampled_from(StopReason))
@settings(max_examples=50, deadline=None)
def test_any_text_parses_to_a_clean_response_or_none(text, stop_reason):
    response = ResponseFormat().parse(text, stop_reason)
    if response is not None:
        assert stop_reason not in (StopReason.LENGTH, StopReason.ERROR)
        assert response.answer.strip() and response.reasoning and response.reasoning.strip()
        assert not any(tag in response.answer for tag in ("<think>", "</think>"))


@given(st.text(alphabet="ab \n<>/think", max_size=30))
@settings(max_examples=50, deadline=None)
def test_H07_without_a_closing_tag_there_is_no_answer(text):
    if "</think>" not in text:
        assert ResponseFormat().parse("<think>" + text) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "answer", "<think></think>answer", "<think>a</think>", "a<think>b</think>c",
        "<think>a<think>b</think>c", "<think>a</think>b</think>c", "</think>answer",
    ],
)  # fmt: skip
def test_malformed(text):
    assert ResponseFormat().parse(text) is None
