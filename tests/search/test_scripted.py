"""The searcher of rules: bridges, what is left open, and what a second search brings on real questions."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.search.retriever import Document, Hit, MemoryRetriever, RetrievalFault
from safeladder.search.scripted import bridges_of, one_shot, open_terms, two_hop

QUESTION = "In which city was the founder of the Citadel Boat Company born?"
COMPANY = Document(
    id="c",
    title="Citadel Boat Company",
    text="It makes boats in Wales. The Citadel Boat Company has a founder, Jo von Ray, since 1912. Its rival is Acme.",
)
FOUNDER = Document(id="f", title="Jo von Ray", text="Jo von Ray came from Paris to the city and loved ships.")
FILLERS = [
    Document(id=f"x{i}", title=f"City {i}", text="In which city was the citadel born? A boat company.")
    for i in range(12)
]
PAGES = MemoryRetriever([COMPANY, FOUNDER, *FILLERS])


def test_bridges_are_new_names_nearest_to_the_question_first():
    assert bridges_of(QUESTION, COMPANY) == ["Jo von Ray", "1912", "Wales", "Acme"]
    assert bridges_of("jo von ray 1912 ?", COMPANY) == ["Wales", "Acme"]
    assert bridges_of(QUESTION, Document(id="", title="", text="没有 名字 at all .")) == []


def test_what_a_page_leaves_open():
    assert open_terms(QUESTION, COMPANY) == ["city", "born"]
    assert open_terms(QUESTION, FOUNDER) == ["founder", "citadel", "boat", "company", "born"]


def test_the_second_hop_brings_what_one_search_misses():
    once = one_shot(PAGES, QUESTION, 4)
    assert FOUNDER not in once.pages and once.pages[0] == COMPANY and once.queries == (QUESTION,)
    twice = two_hop(PAGES, QUESTION, 4)
    assert twice.pages[:3] == once.pages[:3] and twice.pages[3] == FOUNDER
    assert twice.queries == (
        QUESTION, "Jo von Ray city born", "1912 city born", "Wales city born", "Acme city born",
    )  # fmt: skip
    assert twice.reads == 11, "ten of the first search, one more of the second ones"


def test_without_a_bridge_the_first_three_stay():
    lower = MemoryRetriever([Document(id=str(i), title=f"t{i}", text="no names here, but boats .") for i in range(9)])
    assert two_hop(lower, "boats", 5).pages == one_shot(lower, "boats", 5).pages
    assert two_hop(lower, "zebra", 5).pages == ()


@given(st.integers(1, 8), st.sampled_from([QUESTION, "Jo von Ray", "City 3", "?", "boat boat"]))
def test_never_more_pages_than_asked_and_none_twice(passages, question):
    found = two_hop(PAGES, question, passages)
    ids = [page.id for page in found.pages]
    assert len(ids) == len(set(ids)) <= passages
    assert found.pages[:3] == one_shot(PAGES, question, passages).pages[:3]
    assert found == two_hop(PAGES, question, passages)


class Vanished:
    """An index whose pages are gone, and one whose service is."""

    def __init__(self, down: bool = False) -> None:
        self.down = down

    def search(self, query: str, k: int) -> list[Hit]:
        return [Hit(id="1", title="", abstract="", score=1.0)]

    def read(self, id: str) -> Document | None:
        if self.down:
            raise RetrievalFault("down")
        return None


def test_K04_faults_are_raised_and_missing_pages_left_out():
    assert two_hop(Vanished(), "q").pages == ()
    with pytest.raises(RetrievalFault):
        two_hop(Vanished(down=True), "q")


@pytest.fixture(scope="module")
def benchmark(project: Path):
    spec = importlib.util.spec_from_file_location("search_two_hop", project / "benchmarks" / "search_two_hop.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_an_answer_is_words_in_order(benchmark):
    page = Document(id="1", title="The Home Rule League", text="A party.")
    assert benchmark.answered("Home Rule League", [page]) and benchmark.answered("the league", [page])
    assert not benchmark.answered("Rule Home", [page]) and not benchmark.answered("art", [page])


def test_two_hops_answer_more_real_questions(benchmark, real_data: Path):
    """Bamboogle and IRCoT (HotpotQA takes longer: the benchmark has it), also on the half that chose nothing."""
    bamboogle, hotpot, ircot = benchmark.load(real_data / "search_qa")
    sizes = [(len(q.pairs), len(q.pages)) for q in (bamboogle, hotpot, ircot)]
    assert sizes == [(125, 1818), (500, 2756), (69, 351)]
    for questions in (bamboogle, ircot):
        measured = benchmark.measure(questions, "", MemoryRetriever(questions.pages), 5)
        once, twice = measured.found.mean(0)
        assert twice - once > 0.05
        once, twice = measured.found[measured.odd].mean(0)
        assert twice - once > 0.05
