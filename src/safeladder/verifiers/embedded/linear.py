"""Logistic regression on sparse rows in numpy: what an embedded judge is made of and trained with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sparse:
    """n rows of `width` columns: row i holds `values[k]` at `columns[k]` for k in `starts[i]:starts[i + 1]`."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: Vector
    width: int

    @classmethod
    def of(cls, rows: Sequence[tuple[NDArray[np.int64], Vector]], width: int) -> Sparse:
        """Stack rows of (columns, values)."""
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(columns) for columns, _ in rows], out=starts[1:])
        if not rows:
            return cls(starts, np.zeros(0, dtype=np.int64), np.zeros(0), width)
        return cls(starts, np.concatenate([c for c, _ in rows]), np.concatenate([v for _, v in rows]), width)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def times(self, weights: Vector) -> Vector:
        """X w, [n]. A row's sum does not depend on the rows around it, not even in its last digit."""
        row = np.repeat(np.arange(len(self)), np.diff(self.starts))
        return np.bincount(row, weights=self.values * weights[self.columns], minlength=len(self)).astype(np.float64)

    def transposed_times(self, residuals: Vector) -> Vector:
        """Xᵀ r, [width]."""
        repeated = np.repeat(residuals, np.diff(self.starts))
        return np.bincount(self.columns, weights=self.values * repeated, minlength=self.width).astype(np.float64)

    def squared(self) -> Sparse:
        """Every entry squared."""
        return Sparse(self.starts, self.columns, self.values**2, self.width)

    def take(self, rows: NDArray[np.int64]) -> Sparse:
        """The given rows, in that order."""
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate(([0], np.cumsum(lengths)))
        picked = np.repeat(self.starts[:-1][rows] - starts[:-1], lengths) + np.arange(starts[-1])
        return Sparse(starts, self.columns[picked], self.values[picked], self.width)

    def only(self, columns: NDArray[np.bool_]) -> Sparse:
        """The entries of the columns that are True; width and numbering stay."""
        kept = columns[self.columns]
        starts = np.concatenate(([0], np.cumsum(kept)))[self.starts]
        return Sparse(starts, self.columns[kept], self.values[kept], self.width)

    def groups_of_columns(self, group_of_row: NDArray[np.int64]) -> NDArray[np.int64]:
        """In how many different groups of rows each column has an entry, [width]."""
        groups = int(group_of_row.max()) + 1 if len(group_of_row) else 1
        seen = np.unique(self.columns * groups + np.repeat(group_of_row, np.diff(self.starts)))
        return np.bincount(seen // groups, minlength=self.width)


def sigmoid(logits: Vector) -> Vector:
    """1 / (1 + exp(-x)) without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits))


def fit_logistic(
    rows: Sparse, targets: Vector, *, weights: Vector, scales: Vector, penalty: float, iterations: int = 150
) -> tuple[Vector, float]:
    """Coefficients [width] and bias of the penalised logistic regression.

    Minimises Σ wᵢ·log(1 + exp(-sᵢ)) / Σ wᵢ + ½·penalty·Σ (βⱼ / scaleⱼ)², sᵢ the signed logit: a column with a larger
    scale is penalised less. The bias is not penalised; a column of scale 0 gets coefficient 0.
    """
    share = weights / weights.sum()
    scaled = Sparse(rows.starts, rows.columns, rows.values * scales[rows.columns], rows.width)

    def loss(point: Vector) -> tuple[float, Vector]:
        beta, bias = point[:-1], point[-1]
        logits = scaled.times(beta) + bias
        value = float(share @ (np.logaddexp(0.0, logits) - targets * logits) + 0.5 * penalty * (beta @ beta))
        residuals = share * (sigmoid(logits) - targets)
        return value, np.append(scaled.transposed_times(residuals) + penalty * beta, residuals.sum())

    point = minimise(loss, np.zeros(rows.width + 1), iterations=iterations)
    return point[:-1] * scales, float(point[-1])


def minimise(
    loss: Callable[[Vector], tuple[float, Vector]], start: Vector, *, iterations: int, memory: int = 12
) -> Vector:
    """L-BFGS with a backtracking line search (Nocedal & Wright, Numerical Optimization, algorithm 7.4)."""
    point = start
    value, gradient = loss(point)
    steps: list[Vector] = []
    changes: list[Vector] = []
    for _ in range(iterations):
        direction = -_inverse_hessian_times(gradient, steps, changes)
        slope = float(gradient @ direction)
        if slope > -1e-12:
            break
        length = 1.0 if steps else min(1.0, 1.0 / float(np.abs(gradient).sum()))
        for _ in range(40):
            candidate = point + length * direction
            new_value, new_gradient = loss(candidate)
            if new_value <= value + 1e-4 * length * slope:
                break
            length *= 0.5
        else:
            break
        step, change = candidate - point, new_gradient - gradient
        if float(step @ change) > 1e-12:
            steps, changes = [*steps, step][-memory:], [*changes, change][-memory:]
        done = value - new_value < 1e-8
        point, value, gradient = candidate, new_value, new_gradient
        if done:
            break
    return point


def _inverse_hessian_times(gradient: Vector, steps: Sequence[Vector], changes: Sequence[Vector]) -> Vector:
    result = gradient.copy()
    alphas = []
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        alpha = float(step @ result) / float(step @ change)
        result -= alpha * change
        alphas.append(alpha)
    if steps:
        result *= float(steps[-1] @ changes[-1]) / float(changes[-1] @ changes[-1])
    for step, change, alpha in zip(steps, changes, reversed(alphas), strict=True):
        result += step * (alpha - float(change @ result) / float(step @ change))
    return result


def fit_platt(logits: Vector, targets: Vector, weights: Vector) -> tuple[float, float]:
    """Slope and offset so that sigmoid(slope·logit + offset) is calibrated; smoothed targets (Platt 1999, eq. 10)."""
    positive, negative = float(targets.sum()), float((1.0 - targets).sum())
    smoothed = np.where(targets > 0.5, (positive + 1.0) / (positive + 2.0), 1.0 / (negative + 2.0))
    spread = float(np.std(logits)) or 1.0
    rows = Sparse(np.arange(len(logits) + 1), np.zeros(len(logits), dtype=np.int64), logits / spread, 1)
    beta, bias = fit_logistic(rows, smoothed, weights=weights, scales=np.ones(1), penalty=1e-6)
    return float(beta[0]) / spread, bias


def auc(values: Vector, targets: Vector) -> float | None:
    """Area under the ROC curve, ties counted half; None where a class is absent."""
    positives = values[targets > 0.5]
    negatives = np.sort(values[targets <= 0.5])
    if not len(positives) or not len(negatives):
        return None
    below, above = np.searchsorted(negatives, positives, "left"), np.searchsorted(negatives, positives, "right")
    return float((below + above).sum() / (2.0 * len(positives) * len(negatives)))
