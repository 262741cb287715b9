"""Text to terms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.search.words import plain, words


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The Café at 5, 北京大学", ["the", "cafe", "at", "5", "北京", "京大", "大学"]),
        ("don't stop_here", ["don", "t", "stop", "here"]),
        ("Jędrzejewiczowa İstanbul ＡＢＣ", ["jedrzejewiczowa", "istanbul", "abc"]),
        ("京", ["京"]),
        ("在2008年举行", ["在", "2008", "年举", "举行"]),
        ("がか", ["がか"]),
        ("Київ", ["київ"]),
        ("", []),
        ("?!", []),
    ],
)
def test_terms_by_hand(text, terms):
    assert words(text) == terms


def test_accents_written_as_marks_of_their_own_count_as_none():
    assert words("Cafe\u0301") == words("Café") == ["cafe"]


@given(st.text())
def test_any_text_has_terms_in_lower_case_and_is_stable(text):
    terms = words(text)
    assert all(terms)
    assert words(" ".join(terms)) == terms or not plain(text).isascii()
