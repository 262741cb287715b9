"""From BM25 candidates to a ranked list: relevance feedback and a selection that covers the whole question.

One-shot BM25 tends to return five pages about the same half of a question. Two classic remedies, both without training:

- *feedback* (Rocchio 1971; RM3: Abdul-Jaleel et al., TREC 2004): the weightiest other terms of the best pages join the
  query, which brings in what the best pages speak of, such as the second hop;
- *coverage* (after maximal marginal relevance, Carbonell and Goldstein 1998; xQuAD, Santos et al. 2010): pages are
  taken one by one, and what a page says about a term is worth less each time the term was covered before.

docs/search.md has what each of the two brings.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from safeladder.search.bm25 import saturation
from safeladder.search.retriever import Document

FEEDBACK_PAGES = 2
FEEDBACK_TERMS = 10
FEEDBACK_WEIGHT = 0.5
"""The added terms' weights sum to this share of the query's."""
COVERED = 0.8
"""What a term is worth after one more page has covered it."""
STEMMED = 0.5
"""The share of matches by word stem in a score, the rest being exact matches."""
_START = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A page with its terms counted.

    `forms` are those of its terms that share a stem with the query; `parts` is what each query term adds to its score,
    which is BM25, half by exact matches and half by stems.
    """

    document: Document
    counts: Mapping[str, int]
    length: int
    forms: Collection[str]
    parts: Mapping[str, float]
    score: float


class Question:
    """A query's distinct terms in order with their stems."""

    def __init__(self, terms: Iterable[str], stems: Mapping[str, str]) -> None:
        """`stems`: the stem of any term."""
        self.stems = {term: stems[term] for term in terms}
        self._all = stems
        self._roots = frozenset(self.stems.values())
        # Stemming keeps a word's beginning ("dying" and its like aside), and looking up a stem costs more than this.
        self._starts = frozenset(root[:_START] for root in self._roots)

    def __len__(self) -> int:
        return len(self.stems)

    def forms(self, terms: Iterable[str]) -> dict[str, str]:
        """Those of `terms` that share a stem with the query, each with the stem."""
        starts = self._starts
        likely = [(term, self._all[term]) for term in terms if term[:_START] in starts]
        return {term: root for term, root in likely if root in self._roots}


def candidate(
    document: Document, terms: Sequence[str], question: Question, *, idf: Mapping[str, float], mean_length: float
) -> Candidate:
    """Score one page.

    Args:
        terms: the page's terms, with repetitions.
        idf: the weight of any term.
    """
    counts = Counter(terms)
    forms = question.forms(counts)
    alike: dict[str, int] = defaultdict(int)
    for term, root in forms.items():
        alike[root] += counts[term]
    parts = {}
    for term, root in question.stems.items():
        # A term is a form of its own stem, so that without the stem it is not there either.
        if root in alike:
            exact = saturation(counts[term], len(terms), mean_length)
            stemmed = saturation(alike[root], len(terms), mean_length)
            parts[term] = idf[term] * ((1 - STEMMED) * exact + STEMMED * stemmed)
    score = sum(parts.values())
    return Candidate(document=document, counts=counts, length=len(terms), forms=forms, parts=parts, score=score)


def feedback(question: Question, best: Collection[Candidate], *, idf: Mapping[str, float]) -> dict[str, float]:
    """Terms to add to the query, with weights (a term of the query itself weighs 1).

    ``w(t) ∝ idf(t) · Σ_d score(d)/Σ score · f(t, d)/|d|`` over the best pages, for the `FEEDBACK_TERMS` weightiest
    terms that share no stem with the query.
    """
    total = sum(page.score for page in best)
    if total <= 0:
        return {}
    shares: dict[str, float] = defaultdict(float)
    for page in best:
        share = page.score / total / page.length
        for term, count in page.counts.items():
            if term not in page.forms:
                shares[term] += share * count
    weighted = sorted(((share * idf[term], term) for term, share in shares.items()), reverse=True)[:FEEDBACK_TERMS]
    norm = sum(weight for weight, _ in weighted)
    return {term: FEEDBACK_WEIGHT * len(question) * weight / norm for weight, term in weighted if norm > 0}


def select(
    candidates: Iterable[Candidate], added: Mapping[str, float], k: int, *, idf: Mapping[str, float], mean_length: float
) -> list[tuple[Candidate, float]]:
    """The `k` pages to show, in order, each with the worth it had when it was taken (never rising).

    ``worth(d) = Σ_t part(t, d) · COVERED^(pages taken that hold t) + Σ_a w(a) · bm25(a, d)``
    over query terms t and the terms a added by feedback.
    """
    rest = sorted(candidates, key=_by_score)
    worths = [
        page.score
        + sum(
            weight * idf[term] * saturation(page.counts[term], page.length, mean_length)
            for term, weight in added.items()
            if term in page.counts
        )
        for page in rest
    ]
    left = dict.fromkeys(itertools.chain.from_iterable(page.parts for page in rest), 1.0)
    taken: list[tuple[Candidate, float]] = []
    while rest and len(taken) < k:
        best = max(range(len(rest)), key=worths.__getitem__)
        page = rest.pop(best)
        taken.append((page, worths.pop(best)))
        for term in page.parts:
            lost = left[term] * (1 - COVERED)
            left[term] -= lost
            for place, other in enumerate(rest):
                if term in other.parts:
                    worths[place] -= lost * other.parts[term]
    return taken


def _by_score(page: Candidate) -> tuple[float, str]:
    return -page.score, page.document.id
