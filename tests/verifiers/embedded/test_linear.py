"""The small numerics of the embedded judges, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.verifiers.embedded.linear import Sparse, auc, fit_logistic, fit_platt, minimise, sigmoid
from safeladder.verifiers.embedded.train import balanced, choose_thresholds, common_scaled_down, measure


def matrix() -> Sparse:
    """[[1, 0, 2], [0, 0, 0], [0, 3, 0]]"""
    return Sparse.of(
        [
            (np.array([0, 2]), np.array([1.0, 2.0])),
            (np.array([], dtype=np.int64), np.array([])),
            (np.array([1]), np.array([3.0])),
        ],
        3,
    )


def test_sparse_products_are_the_dense_ones():
    rows = matrix()
    assert rows.times(np.array([1.0, 10.0, 100.0])).tolist() == [201.0, 0.0, 30.0]  # 1·1 + 2·100; nothing; 3·10
    assert rows.transposed_times(np.array([1.0, 5.0, 2.0])).tolist() == [1.0, 6.0, 2.0]


def test_sparse_rows_and_columns_can_be_picked():
    assert matrix().take(np.array([2, 0])).times(np.array([1.0, 10.0, 100.0])).tolist() == [30.0, 201.0]
    assert matrix().only(np.array([True, True, False])).times(np.ones(3)).tolist() == [1.0, 0.0, 3.0]


def test_columns_are_counted_once_a_group():
    rows = Sparse.of([(np.array([0]), np.ones(1))] * 3 + [(np.array([1]), np.ones(1))], 2)
    # column 0 in rows 0, 1 (group 0) and 2 (group 1); column 1 in row 3 (group 1)
    assert rows.groups_of_columns(np.array([0, 0, 1, 1])).tolist() == [2, 1]


def test_logistic_regression_without_a_feature_is_the_log_odds():
    rows = Sparse.of([(np.array([], dtype=np.int64), np.array([]))] * 4, 1)
    beta, bias = fit_logistic(rows, np.array([1.0, 1.0, 1.0, 0.0]), weights=np.ones(4), scales=np.ones(1), penalty=1.0)
    assert beta.tolist() == [0.0]
    assert bias == pytest.approx(math.log(3), abs=1e-3)  # 3 of 4: log(0.75 / 0.25)


def test_logistic_regression_is_at_a_stationary_point():
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(60, 3))
    rows = Sparse.of([(np.arange(3), row) for row in dense], 3)
    targets = (dense[:, 0] + rng.normal(size=60) > 0).astype(float)
    scales = np.array([1.0, 2.0, 0.0])
    beta, bias = fit_logistic(rows, targets, weights=np.ones(60), scales=scales, penalty=0.1, iterations=500)
    residual = (sigmoid(dense @ beta + bias) - targets) / 60
    assert beta[2] == 0.0  # scale 0
    # d/dβ of the loss plus penalty · β / scale²
    assert dense[:, :2].T @ residual + 0.1 * beta[:2] / scales[:2] ** 2 == pytest.approx(0.0, abs=2e-4)
    assert residual.sum() == pytest.approx(0.0, abs=2e-4)


def test_minimise_finds_the_bottom_of_a_bowl():
    def bowl(point: np.ndarray) -> tuple[float, np.ndarray]:
        gap = point - np.array([1.0, -2.0])
        return float(gap @ (np.array([1.0, 50.0]) * gap)), 2 * np.array([1.0, 50.0]) * gap

    assert minimise(bowl, np.zeros(2), iterations=100) == pytest.approx([1.0, -2.0], abs=1e-3)


def test_platt_gives_back_the_frequencies():
    # logit -1: 1 of 4 positive; logit +1: 3 of 4. Smoothed targets (Platt): 5/6 and 1/6, so (5/6 + 3/6) / 4 = 1/3.
    logits = np.repeat([-1.0, 1.0], 4)
    targets = np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=float)
    slope, offset = fit_platt(logits, targets, np.ones(8))
    assert sigmoid(slope * np.array([-1.0, 1.0]) + offset) == pytest.approx([1 / 3, 2 / 3], abs=2e-3)


def test_auc_counts_ties_half():
    # pairs (positive, negative): 3>1, 3>2, 2>1 won, 2=2 tied: 3.5 of 4
    assert auc(np.array([3.0, 2.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0, 0.0])) == 3.5 / 4
    assert auc(np.array([1.0]), np.array([1.0])) is None


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_ordered_pairs(items: list[tuple[int, bool]]):
    values, targets = np.array([float(v) for v, _ in items]), np.array([float(t) for _, t in items])
    pairs = [(a > b) + 0.5 * (a == b) for a, s in items for b, t in items if s and not t]
    found = auc(values, targets)
    assert found is None if not pairs else found == pytest.approx(sum(pairs) / len(pairs))


def test_measure_at_a_threshold():
    # called: .9 (right), .6 (wrong); missed: .2 -> accuracy 2/4, F1 = 2·1 / (2 + 2); ECE: bins hold one item each:
    # (|.9 - 1| + |.6 - 0| + |.2 - 1| + |.1 - 0|) / 4 = .4
    found = measure(np.array([0.9, 0.6, 0.2, 0.1]), np.array([1.0, 0.0, 1.0, 0.0]), 0.5)
    assert found == {"n": 4, "positive": 2, "auc": 0.75, "ece": 0.4, "accuracy": 0.5, "f1": 0.5}


def test_H15_measures_of_nothing_are_none():
    found = measure(np.array([]), np.array([]), 0.5)
    assert found["n"] == 0
    assert {found[key] for key in ("auc", "ece", "accuracy", "f1")} == {None}


def test_balanced_weights_even_out_sources_and_classes():
    # 100 and 50 rows of "a", 10 and 50 of "b": 1 / 100, 1 / 50, 0.5 / 50; the 10 count as part of 50: 0.5 / 50
    sources = np.repeat(["a", "a", "b", "b"], [100, 50, 10, 50])
    targets = np.repeat([1.0, 0.0, 1.0, 0.0], [100, 50, 10, 50])
    weights = balanced(sources, targets, {"a": 1.0, "b": 0.5})
    assert weights.tolist() == [0.01] * 100 + [0.02] * 50 + [0.01] * 60


def test_common_columns_are_scaled_down_and_the_rows_keep_their_length():
    square, known = np.array([0.04, 0.0001, 0.5]), np.array([True, True, False])
    scales = common_scaled_down(square, known)
    # a ratio of 400 in mean square, to the power -0.35 / 2: 400 ** -0.175 = 0.3505
    assert scales[0] / scales[1] == pytest.approx(0.3505, abs=1e-4)
    assert scales[2] == 0.0
    assert (scales**2 * square).sum() == pytest.approx(0.0401)
    assert common_scaled_down(square, np.zeros(3, dtype=bool)).tolist() == [0.0, 0.0, 0.0]


def test_squares_of_sparse_rows():
    rows = Sparse.of([(np.array([0, 2]), np.array([3.0, -2.0])), (np.array([2]), np.array([1.0]))], 3)
    # column 0: 1 * 9; column 2: 1 * 4 + 2 * 1
    assert rows.squared().transposed_times(np.array([1.0, 2.0])).tolist() == [9.0, 0.0, 6.0]


def test_the_default_threshold_is_the_best_on_average_over_the_conditions():
    positives, negatives = np.full(30, 0.6), np.full(30, 0.4)
    easy = (np.concatenate([positives, negatives]), np.repeat([1.0, 0.0], 30))
    low = (np.concatenate([positives - 0.3, negatives - 0.3]), np.repeat([1.0, 0.0], 30))
    # alone each is separable: (0.4, 0.6] and (0.1, 0.3]
    assert choose_thresholds([easy])["default"] == 0.5  # the nearest to 0.5 of what is equally good
    assert choose_thresholds([low])["default"] == 0.3
    # of two that are separable low and one that is separable high, the two decide: J 2/3 against 1/3
    assert choose_thresholds([easy, low, low])["default"] == 0.3
    # a condition with too few pairs has no say
    assert choose_thresholds([easy, (np.array([0.01, 0.0]), np.array([1.0, 0.0]))]) == choose_thresholds([easy])
