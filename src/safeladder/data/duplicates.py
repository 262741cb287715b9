"""Near-duplicate search by MinHash and locality-sensitive hashing, in numpy.

Sources: Broder 1997 (MinHash estimates Jaccard similarity); Leskovec, Rajaraman & Ullman, "Mining of Massive
Datasets" ch. 3 (banding). Candidates from the bands are checked with the exact Jaccard similarity.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from safeladder.data.content import words

HASHES = 64
GRAM = 3

_MISSED = 1e-3
"""Chance that the bands miss a pair right at the threshold."""
_CHUNK = 1 << 20
"""Shingles hashed at once: bounds memory to about 16 MB whatever the length of the texts."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_Ints = NDArray[np.uint64]


def near_duplicates(texts: Sequence[str], keys: Sequence[bytes], similarity: float) -> dict[int, int]:
    """Which texts repeat an earlier one.

    Two texts are near-duplicates when their `keys` are equal (the same images, say) and the Jaccard
    similarity of their sets of word 3-grams is at least `similarity`. The first of them stays.

    Returns:
        position of a duplicate -> position of the kept text it repeats.
    """
    duplicate_of: dict[int, int] = {}
    first: dict[tuple[bytes, str], int] = {}
    fresh: list[int] = []
    for position, (text, key) in enumerate(zip(texts, keys, strict=True)):
        earlier = first.setdefault((key, text), position)
        if earlier == position:
            fresh.append(position)
        else:
            duplicate_of[position] = earlier
    shingles = _shingles([texts[position] for position in fresh])
    signatures = _signatures(shingles)
    bands = _band_keys(signatures, _rows_per_band(similarity))
    # Four standard errors below the threshold: an estimate that low settles it without the exact similarity.
    least = HASHES * (similarity - 4.0 * (similarity * (1.0 - similarity) / HASHES) ** 0.5)
    buckets: dict[tuple[int, int, bytes], list[int]] = defaultdict(list)
    for local, position in enumerate(fresh):
        places = [(band, int(value), keys[position]) for band, value in enumerate(bands[local])]
        candidates = np.array(sorted({other for place in places for other in buckets.get(place, ())}), dtype=int)
        agreeing = (signatures[candidates] == signatures[local]).sum(axis=1)
        likely = candidates[agreeing >= least].tolist()
        match = next((other for other in likely if jaccard(shingles[other], shingles[local]) >= similarity), None)
        if match is not None:
            duplicate_of[position] = fresh[match]
            continue
        for place in places:
            buckets[place].append(local)
    # An exact copy of a text that itself turned out to repeat another one.
    return {position: duplicate_of.get(kept, kept) for position, kept in sorted(duplicate_of.items())}


def jaccard(a: _Ints, b: _Ints) -> float:
    """|a ∩ b| / |a ∪ b| of two sorted arrays without repeats."""
    shared = np.intersect1d(a, b, assume_unique=True).size
    return shared / (a.size + b.size - shared)


def _shingles(texts: Sequence[str]) -> list[_Ints]:
    """Each text's set of word 3-grams as sorted 64-bit hashes; a shorter text is one gram."""
    known: dict[str, int] = {}
    result = []
    for text in texts:
        sequence = words(text) or [text]
        for word in sequence:
            if word not in known:
                digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                known[word] = int.from_bytes(digest, "big")
        ids = np.array([known[word] for word in sequence], dtype=np.uint64)
        size = min(GRAM, ids.size)
        grams = np.zeros(ids.size - size + 1, dtype=np.uint64)
        for offset in range(size):
            grams = _mix(grams ^ ids[offset : offset + grams.size])
        result.append(np.unique(grams))
    return result


def _mix(x: _Ints) -> _Ints:
    """A bijective scrambling of 64-bit integers (the finalizer of splitmix64)."""
    x = x + _MIX
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _signatures(shingles: Sequence[_Ints]) -> _Ints:
    """MinHash signatures, [texts, HASHES]."""
    signatures = np.empty((len(shingles), HASHES), dtype=np.uint64)
    random = np.random.default_rng(0)
    multipliers = random.integers(0, 2**64, HASHES, dtype=np.uint64) | np.uint64(1)
    offsets = random.integers(0, 2**64, HASHES, dtype=np.uint64)
    start = 0
    while start < len(shingles):
        stop, size = start + 1, shingles[start].size
        while stop < len(shingles) and size + shingles[stop].size <= _CHUNK:
            size += shingles[stop].size
            stop += 1
        flat = np.concatenate(shingles[start:stop])
        begins = np.cumsum([0, *(s.size for s in shingles[start : stop - 1])])
        for k in range(HASHES):
            signatures[start:stop, k] = np.minimum.reduceat(flat * multipliers[k] + offsets[k], begins)
        start = stop
    return signatures


def _rows_per_band(similarity: float) -> int:
    """The most rows a band may have so that few pairs at the threshold are missed (`_MISSED`)."""
    for rows in (16, 8, 4, 2):
        if (1.0 - similarity**rows) ** (HASHES // rows) <= _MISSED:
            return rows
    return 1


def _band_keys(signatures: _Ints, rows: int) -> _Ints:
    """One 64-bit key a band, [texts, HASHES // rows]."""
    banded = signatures.reshape(len(signatures), HASHES // rows, rows)
    keys = np.zeros(banded.shape[:2], dtype=np.uint64)
    for row in range(rows):
        keys = _mix(keys ^ banded[:, :, row])
    return keys
