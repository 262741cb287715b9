"""Near-duplicates: exact similarity by hand, recall of the bands, and order."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.data import duplicates
from safeladder.data.content import words
from safeladder.data.duplicates import near_duplicates


def grams(text):
    found = words(text)
    return {tuple(found[i : i + 3]) for i in range(max(1, len(found) - 2))}


def test_jaccard_by_hand():
    a, b = np.array([1, 2, 3, 4], dtype=np.uint64), np.array([3, 4, 5], dtype=np.uint64)
    assert duplicates.jaccard(a, b) == pytest.approx(2 / 5)


def test_the_first_stays():
    texts = ["one two three four", "five six seven eight", "ONE two, three four!", "one two three four"]
    assert near_duplicates(texts, [b""] * 4, 0.95) == {2: 0, 3: 0}


def test_other_images_are_no_duplicates():
    assert near_duplicates(["what is it?"] * 3, [b"a", b"b", b"a"], 0.5) == {2: 0}


def test_threshold_is_included():
    # 3-grams: {abc, bcd, cde} and {abc, bcd, cdf}: 2 of 4 shared
    texts = ["a b c d e", "a b c d f"]
    assert near_duplicates(texts, [b""] * 2, 0.5) == {1: 0}
    assert near_duplicates(texts, [b""] * 2, 0.51) == {}


def test_numbers_and_chinese_characters_count_as_words():
    assert near_duplicates(["3 plus 4", "3 plus 5"], [b""] * 2, 0.95) == {}
    assert near_duplicates(["红色的圆有几个", "红色的圆有几个？", "红色的方有几个"], [b""] * 3, 0.95) == {1: 0}


def test_texts_without_words():
    assert near_duplicates(["", "", "?", "!"], [b""] * 4, 0.95) == {1: 0}


def test_a_copy_of_a_near_duplicate_points_to_the_kept_text():
    kept = " ".join(f"w{i}" for i in range(100))
    near = kept + " w100"
    assert near_duplicates([kept, near, near], [b""] * 3, 0.95) == {1: 0, 2: 0}


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 0.95])
def test_recall_against_all_pairs(similarity):
    rng = random.Random(3)
    texts = []
    for _ in range(60):
        base = [rng.choice("abcdefghijklmnop") for _ in range(40)]
        texts.append(" ".join(base))
        for _ in range(4):
            changed = list(base)
            for _ in range(rng.randint(0, 6)):
                changed[rng.randrange(40)] = rng.choice("abcdefghijklmnop")
            texts.append(" ".join(changed))
    expected: dict[int, int] = {}
    sets = [grams(text) for text in texts]
    for i in range(len(texts)):
        for j in range(i):
            if j not in expected and len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= similarity:
                expected[i] = j
                break
    assert near_duplicates(texts, [b""] * len(texts), similarity) == expected


@given(st.lists(st.text(alphabet="ab 你", max_size=12), max_size=12), st.sampled_from([0.0, 0.5, 0.95, 1.0]))
@settings(max_examples=50, deadline=None)
def test_kept_and_duplicates(texts, similarity):
    found = near_duplicates(texts, [b""] * len(texts), similarity)
    assert not set(found) & set(found.values()) and all(kept < i for i, kept in found.items())
    for i, text in enumerate(texts):
        if text in texts[:i]:
            assert i in found


def test_bands_are_as_selective_as_the_threshold_allows():
    for similarity in (0.5, 0.8, 0.9, 0.95, 0.99):
        rows = duplicates._rows_per_band(similarity)
        assert duplicates.HASHES % rows == 0
        assert (1 - similarity**rows) ** (duplicates.HASHES // rows) <= 1e-3
    assert duplicates._rows_per_band(0.95) == 8 and duplicates._rows_per_band(0.5) < 4


def test_minhash_estimates_jaccard():
    rng = random.Random(0)
    shared = [rng.getrandbits(64) for _ in range(300)]
    pair = [np.unique(np.array(shared + [rng.getrandbits(64) for _ in range(100)], dtype=np.uint64)) for _ in range(2)]
    one, two = duplicates._signatures(pair)
    assert (one == two).mean() == pytest.approx(300 / 500, abs=0.19)  # three standard errors of 64 hashes


def test_long_texts_are_hashed_in_chunks(monkeypatch):
    texts = [" ".join(f"w{i}" for i in range(start, start + 40)) for start in range(0, 400, 20)]
    whole = duplicates._signatures(duplicates._shingles(texts))
    monkeypatch.setattr(duplicates, "_CHUNK", 50)
    assert (duplicates._signatures(duplicates._shingles(texts)) == whole).all()
