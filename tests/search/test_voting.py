"""Voting: golden votes, ties, abstentions, and the curve over the number of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest

from safeladder.search.voting import Ballot, Weighting, normalise_answer, vote, vote_curve
from safeladder.types import SafeladderError


def ballots(*given: tuple[str | None, int | None]) -> list[Ballot]:
    return [Ballot(answer=a, confidence=c, correct=a == "right") for a, c in given]


def winner(given: Sequence[Ballot], weighting: Weighting) -> str | None:
    place = vote(given, weighting)
    return None if place is None else given[place].answer


def test_weighted_vote_golden() -> None:
    given = ballots(("x", 2), ("y", 7), ("x", 3))
    # majority: x 2, y 1;  confidence: x 5, y 7;  log-odds: x ln(1/4) + ln(3/7) < 0, y ln(7/3)
    assert winner(given, "majority") == "x"
    assert winner(given, "confidence") == "y"
    assert winner(given, "log_odds") == "y"


def test_confidence_and_log_odds_differ() -> None:
    # confidence: x 5 + 5 = 10 > y 9;  log-odds: x 0 < y ln 9
    given = ballots(("x", 5), ("x", 5), ("y", 9))
    assert winner(given, "confidence") == "x"
    assert winner(given, "log_odds") == "y"


def test_log_odds_at_the_ends_are_finite() -> None:
    # 10 counts ln 19 = 2.94, twice 9 counts 2 ln 9 = 4.39
    assert 2 * math.log(9) > math.log(19)
    assert winner(ballots(("x", 10), ("y", 9), ("y", 9)), "log_odds") == "y"
    assert winner(ballots(("x", 0), ("y", 1)), "log_odds") == "y"


def test_ties_go_to_more_votes_then_to_the_first() -> None:
    assert winner(ballots(("x", 6), ("y", 3), ("y", 3)), "confidence") == "y"
    assert winner(ballots(("x", 6), ("y", 6)), "confidence") == "x"
    assert winner(ballots(("y", 6), ("x", 6)), "majority") == "y"
    # 3 and 7 cancel exactly
    assert winner(ballots(("x", 3), ("x", 7), ("y", 5), ("z", 5), ("z", 5), ("z", 5)), "log_odds") == "z"


def test_the_winner_is_the_first_sample_that_said_so() -> None:
    given = ballots(("Paris", 1), ("the paris.", 9), ("London", 8))
    assert vote(given, "confidence") == 0


def test_abstentions() -> None:
    assert winner(ballots((None, 9), ("x", 1)), "confidence") == "x"
    assert winner(ballots(("  ", 9), ("x", 1)), "majority") == "x"
    assert vote(ballots((None, 9), (None, None)), "majority") is None
    assert vote([], "majority") is None


def test_L04_no_confidence_is_no_weight_and_never_a_full_one() -> None:
    given = ballots(("x", None), ("y", 1))
    assert winner(given, "confidence") == "y"
    assert winner(given, "log_odds") == "y"
    assert winner(given, "majority") == "x"
    assert vote(ballots(("x", None)), "confidence") is None


def test_zero_confidence_still_is_a_vote() -> None:
    assert winner(ballots(("x", 0)), "confidence") == "x"


def test_unknown_weighting_is_named() -> None:
    with pytest.raises(SafeladderError, match="unknown weighting 'softmax'; allowed: majority, confidence, log_odds"):
        vote(ballots(("x", 1)), "softmax")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The  Eiffel Tower.", "eiffel tower"),
        ("1,000", "1000"),
        ("Ｐａｒｉｓ", "paris"),
        ("“Hamlet”", "Hamlet"),
        ("北京大学。", "北京大学"),
        ("A.", "a"),
        ("straße", "STRASSE"),
    ],
)
def test_answers_that_are_the_same(one: str, other: str) -> None:
    assert normalise_answer(one) == normalise_answer(other)


@pytest.mark.parametrize(("one", "other"), [("3.5", "35"), ("-5", "5"), ("a", "the"), ("!", "?"), ("no", "not")])
def test_answers_that_are_not(one: str, other: str) -> None:
    assert normalise_answer(one) != normalise_answer(other)


def test_curve_against_all_subsets() -> None:
    given = ballots(("right", 9), ("wrong", 4), ("wrong", 3), ("other", 2), (None, 8))
    sizes = [1, 2, 3, 4, 5]
    curve = vote_curve([given], "confidence", sizes, draws=4000)[0]
    # One of five samples is right, and it wins wherever it is drawn: the chance is m / 5.
    assert curve == pytest.approx([m / 5 for m in sizes], abs=0.03)
    exact = [np.mean([winner(list(s), "majority") == "right" for s in combinations(given, m)]) for m in (1, 5)]
    assert vote_curve([given], "majority", [1, 5], draws=4000)[0] == pytest.approx(exact, abs=0.03)


def test_curve_at_full_size_is_the_vote() -> None:
    items = [ballots(("right", 9), ("wrong", 4), ("wrong", 3)), ballots(("right", 1), ("wrong", 4), ("wrong", 3))]
    assert vote_curve(items, "confidence", [3]).tolist() == [[1.0], [0.0]]
    assert vote_curve(items, "majority", [3]).tolist() == [[0.0], [0.0]]


def test_curve_is_seeded_and_shares_its_subsets_between_weightings() -> None:
    items = [ballots(("right", 5), ("wrong", 5), ("other", 5), ("right", 5))] * 3
    first = vote_curve(items, "confidence", [1, 2, 3], draws=8, seed=3)
    assert np.array_equal(first, vote_curve(items, "confidence", [1, 2, 3], draws=8, seed=3))
    assert np.array_equal(first, vote_curve(items, "majority", [1, 2, 3], draws=8, seed=3))
    assert not np.array_equal(first, vote_curve(items, "confidence", [1, 2, 3], draws=8, seed=4))


def test_informative_confidence_needs_fewer_samples() -> None:
    """Samples are right with p = .45 and say so: 4 weighted ones do at least as well as 16 counted ones."""
    rng = np.random.default_rng(0)
    items = []
    for _ in range(120):
        right = rng.random(16) < 0.45
        said = np.where(right, rng.integers(6, 11, 16), rng.integers(0, 6, 16))
        wrong = rng.integers(0, 2, 16)
        items.append(
            [
                Ballot(answer="right" if r else f"wrong {w}", confidence=int(c), correct=bool(r))
                for r, c, w in zip(right, said, wrong, strict=True)
            ]
        )
    weighted = vote_curve(items, "confidence", [4])[:, 0].mean()
    assert weighted > vote_curve(items, "majority", [16])[:, 0].mean()


def test_curve_refuses_too_few_samples_and_unknown_truth() -> None:
    with pytest.raises(SafeladderError, match="as many samples"):
        vote_curve([ballots(("right", 5))], "majority", [2])
    with pytest.raises(SafeladderError, match="item 0: every answer needs"):
        vote_curve([[Ballot(answer="x", confidence=5)]], "majority", [1])


@pytest.mark.parametrize("bad", [0.7, 11, -1, 70])
def test_L01_a_ballot_has_the_fixed_scale(bad: float) -> None:
    with pytest.raises(ValueError, match="no integer from 0 to 10"):
        Ballot(answer="x", confidence=bad)  # type: ignore[arg-type]
