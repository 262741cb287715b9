"""BM25, the ranking function (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009).

``score(q, d) = Σ_t idf(t) · (k1+1)·f / (f + k1·(1 − b + b·|d|/mean|d|))``, f the number of times term t occurs in d.
k1 and b are those of Lucene and tantivy, which does not let them be changed.
"""

from __future__ import annotations

import math

K1 = 1.2
B = 0.75


def idf(documents: int, containing: int) -> float:
    """``ln(1 + (N − n + ½)/(n + ½))``, Lucene's form, never negative. N documents, n of them contain the term."""
    return math.log(1 + (documents - containing + 0.5) / (containing + 0.5))


def saturation(count: int, length: int, mean_length: float) -> float:
    """What `count` occurrences in a document of `length` terms are worth, in [0, k1+1)."""
    return (K1 + 1) * count / (count + K1 * (1 - B + B * length / mean_length)) if count else 0.0
