"""Synthetic passages and queries for benchmarks/search.py: streamed, seeded, and shaped like English.

Words follow Zipf's law (the r-th commonest has a share proportional to 1/r, 200,000 words), and common words are
short, so that a token has about as many letters as in English. A passage has a title of one to three words and 40 to
120 words of text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

WORDS = 200_000
_CHUNK = 20_000
_ONSETS = [
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "w",
    "z",
    "ch",
    "st",
    "tr",
    "br",
]
_NUCLEI = ["a", "e", "i", "o", "u", "ai", "ea"]
_CODAS = ("", "n", "r", "s", "t", "l")


def vocabulary(size: int = WORDS, seed: int = 0) -> list[str]:
    """Different pronounceable words, the commonest first, shorter ones commoner."""
    rng = np.random.default_rng(seed)
    words: dict[str, None] = {}
    while len(words) < size:
        # As many syllables as words of that rank have.
        syllables = 1 + min(3, int(math.log10(len(words) + 3) / 1.6))
        parts = [_ONSETS[rng.integers(len(_ONSETS))] + _NUCLEI[rng.integers(len(_NUCLEI))] for _ in range(syllables)]
        words["".join(parts) + _CODAS[rng.integers(len(_CODAS))]] = None
    return list(words)


def passages(count: int, seed: int = 1) -> Iterator[dict[str, str]]:
    """`count` passages; memory does not grow with them."""
    words = np.array(vocabulary(), dtype=object)
    shares = np.cumsum(1 / np.arange(1, len(words) + 1))
    rng = np.random.default_rng(seed)
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        titles, texts = rng.integers(1, 4, size), rng.integers(40, 121, size)
        ends = np.cumsum(np.stack([titles, texts], axis=1).ravel())
        tokens = words[np.searchsorted(shares, rng.random(ends[-1]) * shares[-1])]
        pieces = [" ".join(piece) for piece in np.split(tokens, ends[:-1])]
        for place in range(size):
            yield {"id": str(start + place), "title": pieces[2 * place], "text": pieces[2 * place + 1]}


def write_passages(path: Path, count: int) -> None:
    """Write `count` passages as JSONL."""
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in passages(count))


def queries(kind: str, count: int, seed: int = 2) -> list[str]:
    """Queries of eight words. `words`: ranks log-uniform, like those of real questions; `frequent`: ranks 20-220."""
    words = vocabulary()
    rng = np.random.default_rng(seed)
    if kind == "words":
        ranks = np.exp(rng.random((count, 8)) * math.log(len(words))).astype(int) - 1
    else:
        ranks = rng.integers(20, 220, (count, 8))
    return [" ".join(words[rank] for rank in row) for row in ranks]
