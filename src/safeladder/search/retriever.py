"""What a searching policy may ask for: candidates for a query, and the full text of one of them.

`Retriever` is the interface, `MemoryRetriever` its smallest exact implementation. A retriever that cannot answer
raises `RetrievalFault`: that is the environment's failure and must never be taken for a wrong answer of the policy.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from safeladder.search.bm25 import idf, saturation
from safeladder.search.words import words
from safeladder.types import SafeladderError

ABSTRACT_CHARACTERS = 300
"""The longest abstract of a hit."""
QUERY_CHARACTERS = 2_000
"""Longer queries are cut where they travel over a network: any text a policy writes is a query, none is an error."""
_SENTENCE_ENDS = (". ", "! ", "? ", "。", "！", "？", "\n")


class RetrievalFault(Exception):
    """The retrieval could not answer: timeout, server error, malformed reply. Says nothing about the policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One page (or passage) of a corpus."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One candidate: what a policy sees before it reads. A higher `score` is better; scales differ by retriever."""

    id: str
    title: str
    abstract: str
    score: float


@runtime_checkable
class Retriever(Protocol):
    """Two-stage retrieval: titles and abstracts first, the full text of one candidate on demand."""

    def search(self, query: str, k: int) -> list[Hit]:
        """At most `k` hits, best first; none where nothing matches. Any text is a query. Raises RetrievalFault."""
        ...

    def read(self, id: str) -> Document | None:
        """The page, or None where no page has this id. Raises RetrievalFault."""
        ...


def abstract_of(text: str, limit: int = ABSTRACT_CHARACTERS) -> str:
    """The beginning of `text`, at most `limit` characters: whole sentences where one ends in its second half."""
    text = text.strip()
    if len(text) <= limit:
        return text
    head = text[:limit]
    ends = [at + len(mark.rstrip(" ")) for mark in _SENTENCE_ENDS if (at := head.rfind(mark)) >= 0]
    if max(ends, default=0) >= limit // 2:
        return head[: max(ends)].strip()
    head = head[: limit - 1]
    space = head.rfind(" ")
    return (head[:space] if space >= limit // 2 else head).rstrip() + "…"


class MemoryRetriever:
    """Exact BM25 (`search/bm25.py`) over documents held in memory, in plain Python; for a few thousand pages.

    A document's terms are those of its title and its text (`search/words.py`). Ties are in the order of the ids.
    """

    def __init__(self, documents: Iterable[Document]) -> None:
        """Raises SafeladderError where two documents have the same id."""
        self._documents: dict[str, Document] = {}
        self._lengths: dict[str, int] = {}
        self._postings: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for document in documents:
            if document.id in self._documents:
                raise SafeladderError(f"two documents have the id {document.id!r}")
            self._documents[document.id] = document
            counts = Counter(words(f"{document.title}\n{document.text}"))
            self._lengths[document.id] = counts.total()
            for term, count in counts.items():
                self._postings[term].append((document.id, count))
        self._mean_length = max(sum(self._lengths.values()), 1) / max(len(self._lengths), 1)

    def __len__(self) -> int:
        return len(self._documents)

    def search(self, query: str, k: int) -> list[Hit]:
        """The `k` best documents that share a term with the query. A repeated query term counts once."""
        scores: dict[str, float] = defaultdict(float)
        for term in sorted(set(words(query))):
            postings = self._postings.get(term, ())
            weight = idf(len(self), len(postings))
            for id, count in postings:
                scores[id] += weight * saturation(count, self._lengths[id], self._mean_length)
        best = heapq.nsmallest(max(k, 0), scores.items(), key=lambda item: (-item[1], item[0]))
        return [
            Hit(id=id, title=document.title, abstract=abstract_of(document.text), score=score)
            for id, score in best
            for document in (self._documents[id],)
        ]

    def read(self, id: str) -> Document | None:
        """The document with this id."""
        return self._documents.get(id)
