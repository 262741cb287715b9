"""The in-memory retriever: BM25 by hand, ties, ids, abstracts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.search.bm25 import idf, saturation
from safeladder.search.retriever import ABSTRACT_CHARACTERS, Document, MemoryRetriever, Retriever, abstract_of
from safeladder.types import SafeladderError

PAGES = (
    Document(id="b", title="Cats", text="A cat sleeps."),
    Document(id="a", title="Cats", text="A cat sleeps."),
    Document(id="c", title="Dogs", text="A dog chases a cat and a cat and a bird."),
)


def test_bm25_by_hand():
    """N = 3; cat is in all of them, dog in one. Lengths 4, 4 and 12, mean 20/3."""
    hits = MemoryRetriever(PAGES).search("dog cat", 5)
    common, rare = math.log(1 + 0.5 / 3.5), math.log(1 + 2.5 / 1.5)
    short, long = 1.2 * (0.25 + 0.75 * 4 / (20 / 3)), 1.2 * (0.25 + 0.75 * 12 / (20 / 3))
    assert [hit.id for hit in hits] == ["c", "a", "b"]
    assert hits[0].score == pytest.approx(rare * 2.2 / (1 + long) + common * 2.2 * 2 / (2 + long))
    assert hits[1].score == hits[2].score == pytest.approx(common * 2.2 / (1 + short))


def test_idf_and_saturation_by_hand():
    assert idf(3, 0) == pytest.approx(math.log(8))
    assert idf(3, 3) == pytest.approx(math.log(1 + 1 / 7))
    assert saturation(0, 10, 10.0) == 0.0
    assert saturation(1, 10, 10.0) == pytest.approx(1.0)
    assert saturation(2, 20, 10.0) == pytest.approx(2.2 * 2 / (2 + 1.2 * 1.75))
    assert saturation(10**6, 10, 10.0) < 2.2


def test_a_repeated_query_term_counts_once():
    memory = MemoryRetriever(PAGES)
    assert memory.search("cat cat dog", 3) == memory.search("cat dog", 3)


def test_titles_are_searched_too():
    assert [hit.id for hit in MemoryRetriever(PAGES).search("dogs", 3)] == ["c"]


def test_nothing_is_found_without_a_common_term_or_a_place_to_show_it():
    memory = MemoryRetriever(PAGES)
    assert (
        memory.search("zebra", 3) == memory.search("", 3) == memory.search("cat", 0) == memory.search("cat", -1) == []
    )
    assert MemoryRetriever([]).search("cat", 3) == []


def test_read():
    memory = MemoryRetriever(PAGES)
    assert memory.read("c") == PAGES[2]
    assert memory.read("nobody") is None
    assert isinstance(memory, Retriever)


def test_two_pages_with_one_id_are_an_error():
    with pytest.raises(SafeladderError, match="two documents have the id 'a'"):
        MemoryRetriever([PAGES[1], PAGES[1]])


def test_chinese_is_found_by_its_pairs():
    memory = MemoryRetriever(
        [
            Document(id="1", title="北京", text="北京大学是一所大学。"),
            Document(id="2", title="上海", text="上海在海边。"),
        ]
    )
    assert [hit.id for hit in memory.search("北京大学在哪里", 2)] == ["1"]


def test_abstracts():
    assert abstract_of(" short text ") == "short text"
    sentences = "One sentence here. " * 30
    assert abstract_of(sentences) == ("One sentence here. " * 15).strip()
    assert abstract_of("word " * 100) == "word " * 58 + "word…"
    assert abstract_of("x" * 400) == "x" * 299 + "…"


@given(st.text(max_size=2000))
def test_an_abstract_is_short_and_a_beginning(text):
    abstract = abstract_of(text)
    assert len(abstract) <= ABSTRACT_CHARACTERS
    assert text.strip().startswith(abstract.removesuffix("…"))


@given(st.text(), st.integers(-2, 5))
def test_any_text_is_a_query(query, k):
    hits = MemoryRetriever(PAGES).search(query, k)
    assert len(hits) <= max(k, 0)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
