"""Intervals and pass@k against hand-computed numbers, and what holds for any data."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.evaluation.metrics import (
    Bootstrap,
    mean,
    paired_difference,
    pass_at_k,
    pass_rate,
    rate,
    wilson,
)

QUICK = Bootstrap(resamples=200)
outcomes = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=30)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe (1998), table I, score method without continuity correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 1 - 0.11697, 1.0),  # all pass: the other limit is n / (n + z^2)
    ],
)
def test_wilson_known_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_refuses_no_trials() -> None:
    with pytest.raises(ValueError, match="n >= 1"):
        wilson(0, 0)


@given(n=st.integers(1, 500), share=st.floats(0, 1), confidence=st.floats(0.6, 0.999))
def test_wilson_contains_the_share_and_mirrors(n: int, share: float, confidence: float) -> None:
    successes = round(share * n)
    low, high = wilson(successes, n, confidence)
    assert 0.0 <= low <= successes / n <= high <= 1.0
    mirrored = wilson(n - successes, n, confidence)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_pass_at_k_by_hand() -> None:
    # 2 correct of 4, 2 draws: 1 - C(2,2)/C(4,2) = 5/6.
    assert pass_at_k(4, 2, 2) == pytest.approx(5 / 6)
    assert pass_at_k(8, 1, 1) == pytest.approx(1 / 8)
    assert pass_at_k(8, 1, 8) == 1.0
    assert pass_at_k(8, 0, 8) == 0.0
    assert pass_at_k(5, 4, 2) == 1.0


@given(n=st.integers(1, 9), data=st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n: int, data: st.DataObject) -> None:
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    flags = [i < c for i in range(n)]
    subsets = list(itertools.combinations(flags, k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 4, 1), (3, 1, 0), (3, -1, 1)])
def test_pass_at_k_refuses_impossible_counts(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=r"pass@k"):
        pass_at_k(n, c, k)


def test_pass_rate_averages_over_items() -> None:
    metric = pass_rate({"a": [True, False, False, False], "b": [False] * 4}, 2, bootstrap=QUICK)
    assert metric is not None
    assert metric.value == pytest.approx((0.5 + 0.0) / 2)
    assert metric.n == 2


def test_rate_of_independent_outcomes_is_wilson() -> None:
    metric = rate([1.0] * 81 + [0.0] * 182, bootstrap=QUICK)
    assert metric is not None
    assert (metric.low, metric.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (metric.value, metric.n, metric.n_unscored) == (81 / 263, 263, 0)


def test_H11_a_rate_of_one_still_has_an_interval() -> None:
    metric = rate([1.0] * 50, [f"pair-{i // 2}" for i in range(50)], bootstrap=QUICK)
    assert metric is not None
    # 25 independent groups, all passed: 25 / (25 + 1.96^2).
    assert metric.low == pytest.approx(25 / (25 + 1.959964**2), abs=1e-5)
    assert metric.high == 1.0


def test_rate_of_pairs_is_wider_than_if_they_were_independent() -> None:
    rng = np.random.default_rng(3)
    values = [float(v) for v in rng.integers(0, 2, 100) for _ in range(4)]
    groups = [f"g{i // 4}" for i in range(400)]
    clustered = rate(values, groups, bootstrap=Bootstrap())
    naive = rate(values, bootstrap=Bootstrap())
    assert clustered is not None and naive is not None
    # Four copies of each outcome carry no more evidence than one: twice as wide.
    assert (clustered.high - clustered.low) / (naive.high - naive.low) == pytest.approx(2.0, rel=0.15)


def test_bootstrap_interval_brackets_the_normal_one() -> None:
    values = list(np.random.default_rng(0).uniform(0, 1, 400))
    metric = rate(values, bootstrap=Bootstrap(resamples=4000))
    assert metric is not None
    half = 1.96 * float(np.std(values)) / math.sqrt(len(values))
    assert (metric.low, metric.high) == pytest.approx((metric.value - half, metric.value + half), abs=0.004)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = list(np.random.default_rng(1).uniform(0, 1, 50))
    first, again, other = (rate(values, bootstrap=Bootstrap(seed=s)) for s in (7, 7, 8))
    assert first == again != other


def test_strata_have_equal_shares() -> None:
    metric = rate([1.0] * 90 + [0.0] * 10, strata=["risky"] * 90 + ["benign"] * 10, bootstrap=QUICK)
    assert metric is not None
    assert metric.value == 0.5
    # Both strata are constant: the bootstrap alone would claim certainty.
    assert metric.low < 0.48 and metric.high > 0.5


def test_H09_unscored_outcomes_are_counted_and_bounded_both_ways() -> None:
    metric = rate([1.0, 1.0, 0.0, None], bootstrap=QUICK)
    assert metric is not None
    assert (metric.n, metric.n_unscored) == (3, 1)
    assert metric.value == pytest.approx(2 / 3)
    assert (metric.if_all_fail, metric.if_all_pass) == (0.5, 0.75)
    assert metric.to_json()["n_unscored"] == 1


@pytest.mark.parametrize("values", [[], [None, None]])
def test_H15_no_data_is_none_and_never_zero(values: list[None]) -> None:
    assert rate(values, bootstrap=QUICK) is None
    assert mean(values, bootstrap=QUICK) is None
    assert paired_difference([], [], bootstrap=QUICK) is None
    assert pass_rate({}, 1, bootstrap=QUICK) is None


@given(values=outcomes, data=st.data())
@settings(max_examples=50, deadline=None)
def test_rate_is_inside_its_interval_and_bounds(values: list[float | None], data: st.DataObject) -> None:
    names = st.lists(st.sampled_from("abcdef"), min_size=len(values), max_size=len(values))
    metric = rate(values, data.draw(names), data.draw(names), bootstrap=QUICK)
    if metric is None:
        assert all(v is None for v in values)
        return
    assert 0.0 <= metric.low <= metric.value + 1e-12 and metric.value <= metric.high + 1e-12
    assert metric.high <= 1.0 + 1e-12
    assert metric.n + metric.n_unscored == len(values)
    assert metric.if_all_fail is not None and metric.if_all_pass is not None
    assert metric.if_all_fail <= metric.if_all_pass + 1e-12


def test_rate_refuses_values_that_are_not_rates() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        rate([1.2], bootstrap=QUICK)


def test_mean_takes_any_quantity() -> None:
    metric = mean([10.0, 20.0, None, 30.0], bootstrap=QUICK)
    assert metric is not None
    assert (metric.value, metric.n, metric.n_unscored) == (20.0, 3, 1)
    assert 10.0 <= metric.low < 20.0 < metric.high <= 30.0
    assert "if_all_fail" not in metric.to_json()


def test_paired_difference_by_hand() -> None:
    before, after = [0.0] * 8 + [1.0] * 8, [0.0] * 4 + [1.0] * 12
    found = paired_difference(before, after, bootstrap=Bootstrap())
    assert found is not None
    assert (found.before, found.after, found.value, found.n) == (0.5, 0.75, 0.25, 16)
    assert found.relative == pytest.approx(50.0)
    # The mean of 16 differences, of which 4 are 1: binomial percentiles of 16 draws at 1/4.
    assert found.low == pytest.approx(1 / 16, abs=1 / 16) and found.high == pytest.approx(8 / 16, abs=1 / 16)
    assert found.relative_low is not None and found.relative_high is not None
    assert found.relative_low < 50 < found.relative_high


def test_pairing_removes_what_both_sides_share() -> None:
    items = np.random.default_rng(2).uniform(0, 0.8, 200)
    found = paired_difference(list(items), list(items + 0.1), bootstrap=QUICK)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_relative_change_from_zero_is_unknown() -> None:
    found = paired_difference([0.0, 0.0], [1.0, 0.0], bootstrap=QUICK)
    assert found is not None
    assert found.relative is None
    assert "relative" not in found.to_json()


@given(pairs=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_swapping_sides_flips_the_difference(pairs: list[tuple[float, float]]) -> None:
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    there = paired_difference(before, after, bootstrap=QUICK)
    back = paired_difference(after, before, bootstrap=QUICK)
    assert there is not None and back is not None
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low), abs=1e-9)
