"""A deliberative searcher of rules, without a model: what a second search is worth over the best single one.

It reads the first page that the question finds, takes from it the names and years that the question does not hold (the
bridges), searches again for each of them together with what the page left open, and keeps what covers most of it. The
rules know English capitals and nothing of any data set; where a page offers no bridge the result is that of one search.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from safeladder.search.bm25 import idf
from safeladder.search.retriever import Document, Retriever
from safeladder.search.words import FUNCTION_WORDS, words

_FIRST, _SECOND = 10, 3
"""Results of the first and of each second search."""
_READ_FOR_BRIDGES, _BRIDGES = 2, 4
"""Pages of the first search that are read for bridges, and bridges of each."""
_KEPT = 3
"""Pages of the first search that stay, whatever the second ones find."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_WORD = r"[A-Z][\w.'’-]*"
_NAME_OR_YEAR = re.compile(rf"{_WORD}(?: (?:(?:of|the|and|for|de|la|van|von) ){{0,2}}(?:{_WORD}|\d+))*|\b[12]\d{{3}}\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What a searcher brings home: pages, best first, its queries in order, and how many pages it read."""

    pages: tuple[Document, ...]
    queries: tuple[str, ...]
    reads: int


def one_shot(retriever: Retriever, question: str, passages: int = 5) -> Gathered:
    """The `passages` best pages for the question itself. Raises `RetrievalFault`."""
    pages = _read(retriever, [hit.id for hit in retriever.search(question, passages)])
    return Gathered(pages=tuple(pages), queries=(question,), reads=len(pages))


def two_hop(retriever: Retriever, question: str, passages: int = 5) -> Gathered:
    """The same number of pages after a second search for each bridge of the first pages. Raises `RetrievalFault`.

    The best pages of the first search stay. For the other places every page that any search found is read, and four
    kinds of evidence, each worth at most 1, are added up: its place in the first search; its best place in a second
    one; how much of the question it speaks of; and, where its title names a bridge, how much it speaks of what the page
    of that bridge left open.
    """
    first = _read(retriever, [hit.id for hit in retriever.search(question, _FIRST)])
    found = {page.id: 1 - place / _FIRST for place, page in enumerate(first)}
    bridges = {
        bridge: open_terms(question, page)
        for page in first[:_READ_FOR_BRIDGES]
        for bridge in bridges_of(question, page)[:_BRIDGES]
    }
    queries = [" ".join([bridge, *left]) for bridge, left in bridges.items()]
    second: dict[str, float] = {}
    for query in queries:
        for place, hit in enumerate(retriever.search(query, _SECOND)):
            second[hit.id] = max(second.get(hit.id, 0.0), 1 / (1 + place))
    pages = [*first, *_read(retriever, [id for id in second if id not in found])]
    terms = {page.id: set(_terms(page)) for page in pages}
    weights = _weights(set(words(question)) - FUNCTION_WORDS, list(terms.values()))

    def worth(page: Document) -> float:
        title = set(words(page.title))
        named = [left for bridge, left in bridges.items() if set(words(bridge)) - FUNCTION_WORDS <= title]
        return (
            found.get(page.id, 0.0)
            + second.get(page.id, 0.0)
            + _share(weights, weights, terms[page.id])
            + max((_share(left, weights, terms[page.id]) for left in named), default=0.0)
        )

    # Stable: of equals, what was found first.
    best = [*first[:_KEPT], *sorted(pages[_KEPT:], key=lambda page: -worth(page))][:passages]
    return Gathered(pages=tuple(best), queries=(question, *queries), reads=len(pages))


def _weights(asked: Set[str], pages: Sequence[Set[str]]) -> dict[str, float]:
    """The weight of each term that a page holds: more, the fewer of them hold it."""
    holders = {term: sum(term in held for held in pages) for term in sorted(asked)}
    return {term: idf(len(pages), count) for term, count in holders.items() if count}


def _share(wanted: Iterable[str], weights: Mapping[str, float], held: Set[str]) -> float:
    """The weighted share of the wanted terms that a page holds; 1 where nothing is wanted."""
    worths = {term: weights.get(term, 0.0) for term in wanted}
    whole = sum(worths.values())
    return sum(worth for term, worth in worths.items() if term in held) / whole if whole else 1.0


def open_terms(question: str, page: Document) -> list[str]:
    """The question's terms, function words left out, of which the page does not speak."""
    covered = {*FUNCTION_WORDS, *_terms(page)}
    return [term for term in dict.fromkeys(words(question)) if term not in covered]


def bridges_of(question: str, page: Document) -> list[str]:
    """Names and years in the page's text but neither in the question nor in its title, the likeliest first.

    Likeliest are those whose sentence shares most terms with the question; then those that come first.
    """
    asked = set(words(question)) - FUNCTION_WORDS
    known = asked | FUNCTION_WORDS
    title = {*words(page.title), *FUNCTION_WORDS}
    found: dict[str, int] = {}
    for sentence in _SENTENCE_END.split(page.text):
        shared = len(asked & set(words(sentence)))
        for name in _names(sentence):
            terms = set(words(name))
            if terms and not terms <= known and not terms <= title:
                found.setdefault(name, shared)
    return sorted(found, key=lambda name: -found[name])


def _names(sentence: str) -> Iterator[str]:
    return (match[0].strip(" .,'’-") for match in _NAME_OR_YEAR.finditer(sentence))


def _terms(page: Document) -> list[str]:
    return words(f"{page.title}\n{page.text}")


def _read(retriever: Retriever, ids: Sequence[str]) -> list[Document]:
    return [page for id in ids if (page := retriever.read(id)) is not None]
