"""Several answers to one question: majority and confidence-weighted voting, and what voting gains with their number.

Deliberative Searcher (arXiv 2507.16727) reports that a confidence-weighted vote over 4 samples does as well as a
majority vote over 16. The score of an answer a is (n = `normalise_answer`, w = `WEIGHTS`)::

    score(a) = sum_i w(c_i) * 1[n(a_i) = a]          the vote is the a of the highest score

Ties go to the answer with more votes, then to the one that was given first. Who gives no answer abstains; in a
confidence-weighted vote so does who states no confidence. Where everybody abstains there is no winner.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from safeladder.types import SafeladderError

Weighting = Literal["majority", "confidence", "log_odds"]

_CLIP = 0.05
_WEIGHTS: dict[str, NDArray[np.float64]] = {
    "majority": np.ones(11),
    "confidence": np.arange(11, dtype=np.float64),
    # 0 and 10 stand for all that is rounded to them; the sum of two opposite weights must be exactly 0.
    "log_odds": np.round([math.log(p / (1 - p)) for p in np.clip(np.arange(11) / 10, _CLIP, 1 - _CLIP)], 9),
}
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """One sampled answer; None abstains. `confidence` is an integer 0..10, None where none was stated."""

    answer: str | None
    confidence: int | None
    correct: bool | None = None
    """Whether the answer is right, where that is known."""

    def __post_init__(self) -> None:
        if self.confidence is not None and self.confidence not in range(11):
            raise ValueError(f"confidence {self.confidence} is no integer from 0 to 10")


def normalise_answer(text: str) -> str:
    """An answer as it is compared: NFKC, case-folded, without punctuation, English articles and extra spaces.

    These are the rules of the SQuAD and HotpotQA scripts, except that the point and the sign of a number stay (there
    "3.5" equals "35") and that an answer made of nothing else ("A", "!") is not emptied.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(c for i, c in enumerate(folded) if not _is_dropped(folded, i))
    return next((words for t in (_ARTICLES.sub(" ", kept), kept, folded) if (words := " ".join(t.split()))), "")


def _is_dropped(text: str, i: int) -> bool:
    if not unicodedata.category(text[i]).startswith("P"):
        return False
    before, after = text[i - 1 : i], text[i + 1 : i + 2]
    point = text[i] == "." and before.isdigit() and after.isdigit()
    sign = text[i] == "-" and after.isdigit() and not before.isalnum()
    return not (point or sign)


def vote(ballots: Sequence[Ballot], weighting: Weighting = "confidence") -> int | None:
    """The place of the first sample that gave the winning answer; None where everybody abstains.

    `weighting`: "majority" (w = 1), "confidence" (w = c) or "log_odds" (w = ln(p / (1 - p)) with p = c/10 clipped to
    .05 and .95, so that a confidence below 5 counts against the answer).

    Raises:
        SafeladderError: unknown weighting.
    """
    count = _Count.of(ballots, weighting)
    winner = count.winners(np.arange(len(ballots))[None, :])[0, -1] if ballots else -1
    return None if winner < 0 else int(winner)


def vote_curve(
    items: Sequence[Sequence[Ballot]],
    weighting: Weighting,
    sizes: Sequence[int],
    *,
    draws: int = 64,
    seed: int = 0,
) -> NDArray[np.float64]:
    """The chance [items, sizes] that a vote of m samples is right, for every item and size m.

    Each is the mean over `draws` random subsets of the item's samples, drawn without replacement; no winner is not
    right. The draws depend on the seed and the item's place and length only, so different weightings see the same
    subsets.

    Raises:
        SafeladderError: an item with fewer samples than the largest size, a sample whose correctness is not known,
            or unknown weighting.
    """
    if not sizes or min(sizes) < 1 or any(len(ballots) < max(sizes) for ballots in items):
        raise SafeladderError(f"a vote of {list(sizes)} samples needs sizes of at least 1 and as many samples an item")
    shares = np.zeros((len(items), len(sizes)))
    for i, ballots in enumerate(items):
        if any(b.answer is not None and b.correct is None for b in ballots):
            raise SafeladderError(f"item {i}: every answer needs to be known as right or wrong")
        rng = np.random.default_rng([seed, i])
        orders = rng.permuted(np.tile(np.arange(len(ballots)), (draws, 1)), axis=1)
        winners = _Count.of(ballots, weighting).winners(orders)[:, np.array(sizes) - 1]
        # The last place, False, is what -1 (no winner) points to.
        right = np.array([*(bool(b.correct) for b in ballots), False])
        shares[i] = right[winners].mean(0)
    return shares


@dataclass(frozen=True, slots=True)
class _Count:
    """Who votes for what: candidates [samples, answers] is 1 where the sample votes for the answer."""

    candidates: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, ballots: Sequence[Ballot], weighting: Weighting) -> _Count:
        if weighting not in _WEIGHTS:
            raise SafeladderError(f"unknown weighting {weighting!r}; allowed: {', '.join(get_args(Weighting))}")
        given = [None if b.answer is None else normalise_answer(b.answer) or None for b in ballots]
        if weighting != "majority":
            given = [a if b.confidence is not None else None for a, b in zip(given, ballots, strict=True)]
        answers = list(dict.fromkeys(a for a in given if a is not None))
        candidates = np.array([[float(a == answer) for answer in answers] for a in given]).reshape(
            len(ballots), len(answers)
        )
        return cls(candidates, _WEIGHTS[weighting][[b.confidence or 0 for b in ballots]])

    def winners(self, orders: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each order of the samples [draws, samples] and each m, the vote of the first m samples [draws,
        samples]: the place of the first sample that gave the winning answer, -1 where there is none."""
        if self.candidates.shape[1] == 0:
            return np.full(orders.shape, -1)
        votes = self.candidates[orders]  # [draws, samples, answers]
        counts = votes.cumsum(1)
        scores = (votes * self.weights[orders][..., None]).cumsum(1).round(6)
        first = votes.argmax(1)  # place in the order at which an answer first appears
        scores[counts == 0] = -np.inf
        best = scores == scores.max(-1, keepdims=True)
        most = np.where(best, counts, -1)
        tied = most == most.max(-1, keepdims=True)
        chosen = np.where(tied, first[:, None, :], orders.shape[1]).argmin(-1)  # [draws, samples]
        place = np.take_along_axis(orders, np.take_along_axis(first, chosen, 1), 1)
        return np.where(counts.max(-1) > 0, place, -1)
