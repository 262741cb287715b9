"""Edit distance over words, and what two texts have in common."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.steering.edit_distance import common, edit_distance, joined, levenshtein, normalised, words

WORDS = st.lists(st.sampled_from("abc"), max_size=8)


def test_words_are_words_marks_and_single_chinese_characters():
    assert words("It's 3.5 m, no?\n红色 ok") == ("It", "'", "s", "3", ".", "5", "m", ",", "no", "?", "红", "色", "ok")


def test_distances_by_hand():
    assert levenshtein("kitten", "sitting") == 3  # k→s, e→i, +g
    assert levenshtein((), ("a", "b")) == 2
    # [kill man : fine .] → [kill man : this hurts people .]: fine→this, +hurts, +people = 3; longer: 7 words
    assert edit_distance("kill man : fine .", "kill man : this hurts people .") == pytest.approx(3 / 7)
    assert edit_distance("a  b", "a b") == 0, "white space is no word"
    assert normalised((), ()) == 0
    assert normalised((), ("a",)) == 1


@given(WORDS, WORDS, WORDS)
def test_it_is_a_distance(a: list[str], b: list[str], c: list[str]):
    assert levenshtein(a, b) == levenshtein(b, a)
    assert (levenshtein(a, b) == 0) == (a == b)
    assert levenshtein(a, c) <= levenshtein(a, b) + levenshtein(b, c)
    assert abs(len(a) - len(b)) <= levenshtein(a, b) <= max(len(a), len(b))
    assert 0 <= normalised(a, b) <= 1


@given(WORDS, WORDS)
def test_what_is_common_is_in_both_in_order_and_as_long_as_can_be(a: list[str], b: list[str]):
    pairs = common(a, b)
    assert all(a[i] == b[j] for i, j in pairs)
    assert all(i < k and j < m for (i, j), (k, m) in pairwise(pairs))
    # Deleting everything else turns a into b by insertions and deletions only: |a| + |b| - 2·common ≥ Levenshtein.
    assert levenshtein(a, b) <= len(a) + len(b) - 2 * len(pairs)
    assert len(common(a, a)) == len(a)


def test_a_slot_is_common_to_nothing():
    assert common((None, "a"), (None, "a")) == [(1, 1)]


def test_words_are_joined_as_their_models_are():
    assert joined(("no", ",", "it", "'", "s", "off", "."), ["He's in, isn't it's.", "ok, off."]) == "no , it's off."
    assert joined((), ["x"]) == ""
