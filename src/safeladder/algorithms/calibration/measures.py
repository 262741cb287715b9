"""Measures of calibration. With eleven levels a table of counts says everything, so all of them read one.

Tables are [..., 11, 2]: how many answers have confidence k and are wrong (0) or right (1). Leading dimensions are
independent tables, such as resamples of a bootstrap; results are [...] in float64. What is undefined is NaN, never 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from safeladder.algorithms.calibration.reward import CUT, LEVELS, check_confidence

_BINS = 10


class Quadrants(NamedTuple):
    """Counts [...] by outcome and certainty; certain where confidence > cut."""

    true_certain: Tensor
    false_uncertain: Tensor
    """Right, though uncertain."""
    false_certain: Tensor
    """Wrong, though certain: what must be rare."""
    true_uncertain: Tensor
    """Wrong, and uncertain."""


def tabulate(correct: Tensor, confidence: Tensor) -> Tensor:
    """The table [11, 2] of `correct` [N] (bool or 0/1) and `confidence` [N] (whole numbers 0..10).

    Raises `ValueError` on confidences off the scale or unequal shapes.
    """
    if correct.shape != confidence.shape or correct.ndim != 1:
        raise ValueError(f"correct {tuple(correct.shape)}, confidence {tuple(confidence.shape)} must both be [N]")
    cells = 2 * check_confidence(confidence) + correct.bool().long()
    return cells.bincount(minlength=2 * LEVELS).double().view(LEVELS, 2)


def quadrants(table: Tensor, cut: int = CUT) -> Quadrants:
    """The four quadrants of a table."""
    uncertain, certain = table[..., : cut + 1, :].sum(-2), table[..., cut + 1 :, :].sum(-2)
    return Quadrants(certain[..., 1], uncertain[..., 1], certain[..., 0], uncertain[..., 0])


def ece(table: Tensor) -> Tensor:
    """Expected calibration error (Guo et al., arXiv 1706.04599): `sum_b n_b / N * |accuracy_b - confidence_b|`.

    Ten bins of equal width on c/10, closed on the left: [0, .1), ... [.9, 1]. So every level has its own bin,
    except that 10 shares the last one with 9.
    """
    right, stated = table[..., 1], table.sum(-1) * _probabilities(table)
    gaps = right - stated
    gaps = torch.cat([gaps[..., : _BINS - 1], gaps[..., _BINS - 1 :].sum(-1, keepdim=True)], dim=-1)
    return gaps.abs().sum(-1) / table.sum((-1, -2))


def brier(table: Tensor) -> Tensor:
    """Brier score, Monthly Weather Review 78, 1950: `mean (c/10 - y)^2`."""
    p = _probabilities(table)
    return (table[..., 0] * p**2 + table[..., 1] * (1 - p) ** 2).sum(-1) / table.sum((-1, -2))


def auroc(table: Tensor) -> Tensor:
    """The chance that a right answer is more confident than a wrong one, ties counted half; NaN without both."""
    wrong, right = table.unbind(-1)
    below = wrong.cumsum(-1) - wrong / 2
    return (right * below).sum(-1) / (right.sum(-1) * wrong.sum(-1))


def risk_coverage(table: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage [..., 11] and risk [..., 11] where answers of confidence >= k count: their share of all, and
    the share of wrong ones among them (NaN where there are none)."""
    answered = table.sum(-1).flip(-1).cumsum(-1).flip(-1)
    wrong = table[..., 0].flip(-1).cumsum(-1).flip(-1)
    return answered / answered[..., :1], wrong / answered


def aurc(table: Tensor) -> Tensor:
    """Area under the risk-coverage curve (Geifman et al., arXiv 1805.08206): the mean over k = 1..N of the
    risk among the k most confident answers. Lower is better.

    Answers of one level come in random order; this is the mean over all orders. With A answers and E wrong ones
    above a level of n answers and e wrong ones, its ranks sum to (H = harmonic numbers)::

        sum_{j=1..n} (E + j e/n) / (A + j) = e + (E - A e/n) (H(A + n) - H(A))
    """
    n, e = table.sum(-1), table[..., 0]
    above, wrong_above = n.flip(-1).cumsum(-1).flip(-1) - n, e.flip(-1).cumsum(-1).flip(-1) - e
    harmonic = torch.special.digamma(above + n + 1) - torch.special.digamma(above + 1)
    return (e + (wrong_above - above * e / n.clamp(min=1)) * harmonic).sum(-1) / n.sum(-1)


def selective_accuracy(table: Tensor, coverage: float) -> Tensor:
    """Accuracy of the most confident answers, a share `coverage` of all; a level that is needed only in part
    counts at its mean. Raises `ValueError` unless 0 < coverage <= 1."""
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must be in (0, 1], got {coverage}")
    n = table.sum(-1)
    wanted = coverage * n.sum(-1, keepdim=True)
    above = n.flip(-1).cumsum(-1).flip(-1) - n
    taken = torch.minimum((wanted - above).clamp(min=0), n)
    return (taken * table[..., 1] / n.clamp(min=1)).sum(-1) / wanted.squeeze(-1)


def confidence_entropy(table: Tensor) -> Tensor:
    """Entropy of the stated confidences in nats, 0..ln 11. Near 0 the confidence has collapsed to one value
    and says nothing, whatever the calibration error."""
    n = table.sum(-1)
    return torch.special.entr(n / n.sum(-1, keepdim=True)).sum(-1)


def _probabilities(table: Tensor) -> Tensor:
    return torch.arange(LEVELS, dtype=table.dtype, device=table.device) / (LEVELS - 1)
