"""How far a model's reasoning is from what a person makes of it: Levenshtein distance over words.

Normalised as d / max(|a|, |b|), so that 0 is the same reasoning and 1 shares nothing (V. I. Levenshtein, Soviet
Physics Doklady 10, 1966; the measure of edits over turns: SafeWork-R1, arXiv 2507.18576, human intervention on the
CoT). Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+|[^\w\s]")


def words(text: str) -> tuple[str, ...]:
    """Words and punctuation marks in order; every Chinese or Japanese character is a word of its own."""
    return tuple(_WORD.findall(text))


def joined(found: Sequence[str], like: Sequence[str]) -> str:
    """Words as text, with no space between two of them where one of the texts `like` has none."""
    glued = set()
    for text in like:
        hits = list(_WORD.finditer(text))
        glued |= {(a[0], b[0]) for a, b in pairwise(hits) if a.end() == b.start()}
    return "".join(f"{'' if i == 0 or (found[i - 1], word) in glued else ' '}{word}" for i, word in enumerate(found))


def levenshtein(a: Sequence[str], b: Sequence[str]) -> int:
    """The least number of insertions, deletions and replacements that turn `a` into `b`."""
    if len(a) < len(b):
        a, b = b, a
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]


def normalised(a: Sequence[str], b: Sequence[str]) -> float:
    """`levenshtein` over the longer length: in [0, 1], 0 exactly where both are equal (two empty ones are)."""
    longest = max(len(a), len(b))
    return levenshtein(a, b) / longest if longest else 0.0


def edit_distance(chain: str, corrected: str) -> float:
    """Normalised distance in words between a model's chain and what a user made of it."""
    return normalised(words(chain), words(corrected))


def common(a: Sequence[str | None], b: Sequence[str | None]) -> list[tuple[int, int]]:
    """Index pairs of a longest common subsequence, in order. None (a gap) equals nothing, itself neither."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a) - 1, -1, -1):
        for j in range(len(b) - 1, -1, -1):
            same = a[i] is not None and a[i] == b[j]
            table[i][j] = table[i + 1][j + 1] + 1 if same else max(table[i + 1][j], table[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        if a[i] is not None and a[i] == b[j] and table[i][j] == table[i + 1][j + 1] + 1:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif table[i + 1][j] >= table[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs
