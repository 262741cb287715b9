"""Calibration: every measure on a table small enough to do by hand, proper scoring, and the supervised loss."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from safeladder.algorithms.calibration import (
    LEVELS,
    aurc,
    auroc,
    brier,
    confidence_entropy,
    ece,
    quadrants,
    reliability,
    risk_coverage,
    selective_accuracy,
    tabulate,
    tokenized_brier_loss,
)
from safeladder.types import SafeladderError

# Six answers: right at 10, 9, 5; wrong at 9, 5, 0.
CORRECT = torch.tensor([True, True, True, False, False, False])
CONFIDENCE = torch.tensor([10, 9, 5, 9, 5, 0])
ANSWERS = st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=1, max_size=12)


def table_of(answers: list[tuple[bool, int]]) -> Tensor:
    return tabulate(torch.tensor([y for y, _ in answers]), torch.tensor([c for _, c in answers]))


def test_table_golden() -> None:
    table = tabulate(CORRECT, CONFIDENCE)
    expected = torch.zeros(11, 2, dtype=torch.float64)
    expected[10, 1] = expected[9, 1] = expected[5, 1] = expected[9, 0] = expected[5, 0] = expected[0, 0] = 1
    assert_close(table, expected)


def test_quadrants_golden_and_the_tie_is_uncertain() -> None:
    found = quadrants(tabulate(CORRECT, CONFIDENCE))
    # certain above 5: right 10, 9; wrong 9.  uncertain: right 5; wrong 5, 0
    assert [float(count) for count in found] == [2, 1, 1, 2]
    assert float(found.false_certain) == 1 and float(found.false_uncertain) == 1
    lower = quadrants(tabulate(CORRECT, CONFIDENCE), cut=4)
    assert [float(count) for count in lower] == [3, 0, 2, 1]


def test_brier_golden() -> None:
    # 0, .01, .25 | .81, .25, 0 -> 1.32 / 6
    assert float(brier(tabulate(CORRECT, CONFIDENCE))) == pytest.approx(0.22)


def test_ece_golden_and_10_shares_the_bin_of_9() -> None:
    # bin [.9, 1]: n 3, accuracy 2/3, confidence 2.8/3 -> .8;  [.5, .6): |1 - 1.0| = 0;  [0, .1): 0 -> .8 / 6
    assert float(ece(tabulate(CORRECT, CONFIDENCE))) == pytest.approx(0.8 / 6)
    # apart, 9 (right) and 10 (wrong) would miss by .1 and 1; together |1 - 1.9|, over 2
    assert float(ece(table_of([(True, 9), (False, 10)]))) == pytest.approx(0.45)
    # 0 and 1 have bins of their own: |1 - 0| and |0 - .1|, over 2
    assert float(ece(table_of([(True, 0), (False, 1)]))) == pytest.approx(0.55)


def test_auroc_golden_with_ties_half() -> None:
    # right 10 beats all 3; 9 ties one, beats two: 2.5; 5 ties one, beats one: 1.5 -> 7 / 9
    assert float(auroc(tabulate(CORRECT, CONFIDENCE))) == pytest.approx(7 / 9)


@given(ANSWERS)
def test_auroc_counts_pairs(answers: list[tuple[bool, int]]) -> None:
    right, wrong = [c for y, c in answers if y], [c for y, c in answers if not y]
    found = float(auroc(table_of(answers)))
    if not right or not wrong:
        assert math.isnan(found)
    else:
        wins = sum((r > w) + (r == w) / 2 for r in right for w in wrong)
        assert found == pytest.approx(wins / (len(right) * len(wrong)))


def test_risk_coverage_golden() -> None:
    coverage, risk = risk_coverage(tabulate(CORRECT, CONFIDENCE))
    # >= 10: 1 answer; >= 9: 3 with 1 wrong; >= 5: 5 with 2 wrong; >= 0: all, 3 wrong
    assert coverage.tolist() == pytest.approx([1, *[5 / 6] * 5, *[0.5] * 4, 1 / 6])
    assert risk.tolist() == pytest.approx([0.5, *[0.4] * 5, *[1 / 3] * 4, 0.0])
    assert torch.isnan(risk_coverage(table_of([(True, 3)]))[1][4:]).all()


def test_aurc_golden() -> None:
    # wrong among the first k: 0; half of the 9s' one error, then all of it; as the 5s; then the last
    expected = (0 + 0.5 / 2 + 1 / 3 + 1.5 / 4 + 2 / 5 + 3 / 6) / 6
    assert float(aurc(tabulate(CORRECT, CONFIDENCE))) == pytest.approx(expected)


@given(st.lists(st.tuples(st.booleans(), st.integers(4, 6)), min_size=1, max_size=5))
def test_aurc_is_the_mean_over_orders_of_ties(answers: list[tuple[bool, int]]) -> None:
    areas = []
    for order in permutations(answers):
        ranked = sorted(order, key=lambda a: -a[1])  # stable: ties stay in this permutation's order
        wrong = [sum(not y for y, _ in ranked[:k]) / k for k in range(1, len(ranked) + 1)]
        areas.append(sum(wrong) / len(wrong))
    assert float(aurc(table_of(answers))) == pytest.approx(sum(areas) / len(areas))


def test_selective_accuracy_golden() -> None:
    table = tabulate(CORRECT, CONFIDENCE)
    # the top half are 10 and both 9s: 2 right of 3;  the top third is 10 and half of the 9s: 1.5 of 2
    assert float(selective_accuracy(table, 0.5)) == pytest.approx(2 / 3)
    assert float(selective_accuracy(table, 1 / 3)) == pytest.approx(0.75)
    assert float(selective_accuracy(table, 1.0)) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="coverage"):
        selective_accuracy(table, 0.0)


def test_entropy_golden_and_collapse() -> None:
    # shares 1/6, 1/6 and two of 1/3
    expected = 2 * math.log(6) / 6 + 2 * math.log(3) / 3
    assert float(confidence_entropy(tabulate(CORRECT, CONFIDENCE))) == pytest.approx(expected)
    assert float(confidence_entropy(table_of([(True, 7), (False, 7)]))) == 0
    every = [(True, c) for c in range(LEVELS)]
    assert float(confidence_entropy(table_of(every))) == pytest.approx(math.log(11))


@given(ANSWERS, ANSWERS)
def test_tables_can_be_stacked(first: list[tuple[bool, int]], second: list[tuple[bool, int]]) -> None:
    one, two = table_of(first), table_of(second)
    both = torch.stack([one, two])
    for measure in (ece, brier, auroc, aurc, confidence_entropy, lambda t: selective_accuracy(t, 0.5)):
        assert_close(measure(both), torch.stack([measure(one), measure(two)]), equal_nan=True)


def test_an_empty_table_is_undefined_not_zero() -> None:
    empty = torch.zeros(11, 2, dtype=torch.float64)
    for measure in (ece, brier, auroc, aurc, confidence_entropy, lambda t: selective_accuracy(t, 0.5)):
        assert math.isnan(float(measure(empty)))


@pytest.mark.parametrize("bad", [[0.7], [70], [11], [-1]])
def test_L01_the_scale_is_fixed_and_never_guessed(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="whole numbers from 0 to 10"):
        tabulate(torch.tensor([True]), torch.tensor(bad))
    with pytest.raises(ValueError, match="whole numbers from 0 to 10"):
        reliability(torch.tensor([True]), torch.tensor(bad))


def test_L01_one_is_ten_percent() -> None:
    assert float(brier(table_of([(False, 1)]))) == pytest.approx(0.01)
    assert float(reliability(torch.tensor(False), torch.tensor(1), "brier")) == pytest.approx(0.99)


def test_reliability_golden() -> None:
    y, c = torch.tensor([1, 1, 0, 0, 1, 0]), torch.tensor([8, 3, 8, 3, 5, 5])
    assert reliability(y, c).tolist() == [1, 0, 0, 1, 0, 1]
    assert reliability(y, c, cut=2).tolist() == [1, 1, 0, 0, 1, 0]
    # 1 - .04, 1 - .49, 1 - .64, 1 - .09, 1 - .25
    assert reliability(y, c, "brier").tolist() == pytest.approx([0.96, 0.51, 0.36, 0.91, 0.75, 0.75])
    # (ln 16, ln 6, ln 4, ln 14, ln 10) / ln 19
    logs = [math.log(x) / math.log(19) for x in (16, 6, 4, 14, 10, 10)]
    assert reliability(y, c, "log").tolist() == pytest.approx(logs)


@pytest.mark.parametrize("kind", ["threshold", "brier", "log"])
def test_reliability_spans_zero_to_one(kind: str) -> None:
    y, c = torch.tensor([True, False, True, False]), torch.tensor([10, 0, 0, 10])
    assert reliability(y, c, kind).tolist() == pytest.approx([1, 1, 0, 0], abs=1e-6)  # type: ignore[arg-type]


def test_unknown_reliability_is_named() -> None:
    with pytest.raises(SafeladderError, match="unknown reliability 'spherical'; allowed: threshold, brier, log"):
        reliability(torch.tensor([True]), torch.tensor([5]), "spherical")  # type: ignore[arg-type]


def expected_reward(p: float, kind: str) -> Tensor:
    """Expected reliability [11] of stating each level when the answer is right with probability p."""
    levels = torch.arange(LEVELS)
    right = reliability(torch.ones(LEVELS), levels, kind).double()  # type: ignore[arg-type]
    wrong = reliability(torch.zeros(LEVELS), levels, kind).double()  # type: ignore[arg-type]
    return p * right + (1 - p) * wrong


@pytest.mark.parametrize("kind", ["brier", "log"])
@pytest.mark.parametrize("level", range(LEVELS))
def test_L03_brier_and_log_pay_most_for_the_truth(kind: str, level: int) -> None:
    rewards = expected_reward(level / 10, kind)
    others = torch.cat([rewards[:level], rewards[level + 1 :]])
    assert float(rewards[level]) > float(others.max()) + 1e-4


@given(st.floats(0, 1))
def test_L03_off_the_grid_the_best_level_is_beside_the_truth(p: float) -> None:
    assert abs(int(expected_reward(p, "brier").argmax()) - 10 * p) <= 0.5 + 1e-3
    assert abs(int(expected_reward(p, "log").argmax()) - 10 * p) <= 1


@pytest.mark.parametrize("p", [0.6, 0.7, 0.95])
def test_L03_the_threshold_is_not_proper(p: float) -> None:
    rewards = expected_reward(p, "threshold")
    assert rewards[6:].tolist() == pytest.approx([p] * 5)
    assert rewards[:6].tolist() == pytest.approx([1 - p] * 6)


def test_tokenized_brier_golden() -> None:
    # p = (1/4 on 0, 3/4 on 10): right costs 1/4, wrong 3/4;  p all on 7: right costs .09
    logits = torch.full((3, LEVELS), -1e9, dtype=torch.float64)
    logits[:2, 0], logits[:2, 10], logits[2, 7] = 0.0, math.log(3), 0.0
    output = tokenized_brier_loss(logits, torch.tensor([True, False, True]))
    assert float(output.loss) == pytest.approx((0.25 + 0.75 + 0.09) / 3)
    assert float(output.metrics["mean_confidence"]) == pytest.approx((7.5 + 7.5 + 7) / 3)
    uniform = tokenized_brier_loss(torch.zeros(1, LEVELS, dtype=torch.float64), torch.tensor([0]))
    assert float(uniform.loss) == pytest.approx(3.85 / 11)


def test_tokenized_brier_gradient_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, LEVELS, generator=generator, dtype=torch.float64, requires_grad=True)
    correct = torch.tensor([True, False, True, False])
    assert torch.autograd.gradcheck(lambda x: tokenized_brier_loss(x, correct).loss, (logits,))


def test_tokenized_brier_splits_into_micro_batches() -> None:
    logits = torch.randn(6, LEVELS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    correct = torch.tensor([1, 0, 1, 1, 0, 0])
    whole = tokenized_brier_loss(logits, correct).loss
    parts = [tokenized_brier_loss(logits[s], correct[s], normalizer=6).loss for s in (slice(0, 2), slice(2, 6))]
    assert_close(sum(parts), whole)


def test_L03_tokenized_brier_learns_the_true_probability() -> None:
    # 7 of 10 answers are right: all mass moves to the token of 7
    logits = torch.zeros(LEVELS, dtype=torch.float64, requires_grad=True)
    correct = torch.tensor([1] * 7 + [0] * 3)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        tokenized_brier_loss(logits.expand(10, LEVELS), correct).loss.backward()
        optimizer.step()
    assert float(logits.detach().softmax(-1)[7]) > 0.95


def test_tokenized_brier_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="must be"):
        tokenized_brier_loss(torch.zeros(2, 101), torch.tensor([1, 0]))
