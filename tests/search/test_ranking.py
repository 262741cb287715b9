"""Ranking by hand: parts of a score, feedback terms, the selection that covers the question."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.search.bm25 import saturation
from safeladder.search.ranking import COVERED, Candidate, Question, candidate, feedback, select
from safeladder.search.retriever import Document

STEMS = {"runs": "run", "run": "run", "running": "run", "fast": "fast", "dogs": "dog", "dog": "dog", "the": "the"}
IDF = {"runs": 2.0, "run": 2.5, "running": 3.0, "fast": 1.0, "dogs": 4.0, "dog": 3.0, "the": 0.1}


def page(id: str, text: str, question: Question) -> Candidate:
    document = Document(id=id, title="", text=text)
    return candidate(document, text.split(), question, idf=IDF, mean_length=5.0)


def test_a_part_is_half_exact_and_half_stemmed():
    question = Question(["runs", "fast"], STEMS)
    found = page("1", "the dog runs running fast", question)
    assert found.parts == pytest.approx(
        {"runs": 2.0 * (saturation(1, 5, 5.0) + saturation(2, 5, 5.0)) / 2, "fast": 1.0 * saturation(1, 5, 5.0)}
    )
    assert found.score == pytest.approx(sum(found.parts.values()))
    assert set(found.forms) == {"runs", "running", "fast"}
    assert found.length == 5


def test_a_form_alone_counts_half():
    question = Question(["runs"], STEMS)
    assert page("1", "running the dog fast the", question).parts == pytest.approx({"runs": 2.0 * 0.5})
    assert page("1", "the dog", question).parts == {}


def test_feedback_by_hand():
    """Two pages of equal score and length: shares 1/2 · count/4; weights ∝ idf · share; their sum half the query's."""
    question = Question(["fast"], STEMS)
    pages = [page("1", "fast dog dog the", question), page("2", "fast run the the", question)]
    added = feedback(question, pages, idf=IDF)
    shares = {"dog": 2 * 3.0, "run": 1 * 2.5, "the": 3 * 0.1}
    assert added == pytest.approx({term: 0.5 * share / sum(shares.values()) for term, share in shares.items()})


def test_feedback_leaves_out_what_the_query_says_in_another_form():
    question = Question(["runs"], STEMS)
    assert set(feedback(question, [page("1", "runs running run dog", question)], idf=IDF)) == {"dog"}


def test_feedback_of_nothing_is_nothing():
    question = Question(["runs"], STEMS)
    assert feedback(question, [], idf=IDF) == {}
    assert feedback(question, [page("1", "the dog", question)], idf=IDF) == {}


def parts(id: str, **parts: float) -> Candidate:
    document = Document(id=id, title="", text="")
    return Candidate(document=document, counts={}, length=1, forms=(), parts=parts, score=sum(parts.values()))


def chosen(pages: list[Candidate], k: int, added: dict[str, float] | None = None) -> list[tuple[str, float]]:
    taken = select(pages, added or {}, k, idf=IDF, mean_length=1.0)
    return [(page.document.id, pytest.approx(worth)) for page, worth in taken]


def test_a_page_about_what_is_covered_comes_later():
    """b repeats a; c speaks of the other half. Its 8 beats b's 10 · 0.8² once a is taken twice over, not before."""
    pages = [parts("a", x=10.0), parts("b", x=9.9), parts("c", y=7.95)]
    assert chosen(pages, 3) == [("a", 10.0), ("c", 7.95), ("b", 9.9 * COVERED)]
    assert [id for id, _ in chosen([*pages, parts("d", x=9.95)], 3)] == ["a", "d", "c"]


def test_added_terms_count_in_every_page():
    document = Document(id="a", title="", text="")
    page = Candidate(document=document, counts={"dog": 1}, length=1, forms=(), parts={"x": 1.0}, score=1.0)
    assert chosen([page, parts("b", x=2.0)], 2, {"dog": 0.5}) == [("a", 1.0 + 0.5 * 3.0), ("b", 2.0 * COVERED)]


def test_ties_are_in_the_order_of_the_ids():
    assert [id for id, _ in chosen([parts("b", x=1.0), parts("c", y=1.0), parts("a", z=1.0)], 3)] == ["a", "b", "c"]


@given(st.lists(st.dictionaries(st.sampled_from("xyz"), st.floats(0, 10), max_size=3), max_size=8), st.integers(0, 10))
def test_worths_never_rise_and_more_results_only_add(rows, k):
    pages = [parts(str(i), **row) for i, row in enumerate(rows)]
    taken = select(pages, {}, k, idf=IDF, mean_length=1.0)
    worths = [worth for _, worth in taken]
    assert len(taken) == min(k, len(pages))
    assert all(after <= before + 1e-9 for before, after in pairwise(worths))
    assert select(pages, {}, k + 1, idf=IDF, mean_length=1.0)[: len(taken)] == taken
