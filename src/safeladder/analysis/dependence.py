"""How strongly the state of each generated token depends on the state of a reference answer, and where that peaks.

MI-Peaks and the report on SafeWork-R1 (arXiv 2507.18576, section 5.3) call the quantity mutual information. It is a
kernel measure, normalised HSIC, in which every hidden dimension is one sample of a one-dimensional variable: with
K_ij = exp(-(x_i - x_j)^2 / 2 sigma^2), K_c = K H, R = K_c (K_c + eps d I)^-1, dependence(x, y) = sum(R_x * R_y^T). At
sigma = 50, far above the spread of ordinary states, it is a shrunken squared correlation over dimensions:

    dependence ~ r^2 * v_x / (v_x + eps sigma^2) * v_y / (v_y + eps sigma^2)

with Pearson's r and the variances v over dimensions. That closed form costs O(d) a token and agrees to three digits
while the standard deviations are at most 1; `exact_dependence` is there to check it. A few dimensions of large value
can make up all of r, so a peak counts as one only where it stands in `Trace.control` too, which leaves them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from safeladder.types import SafeladderError

SIGMA = 50.0
"""Width of the Gaussian kernel, as published."""
EPSILON = 1e-5
"""Regularisation of the inverse, as published; it is multiplied by the number of dimensions."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Dependence by token.

    Attributes:
        values: [T] of all dimensions.
        control: [T] without each token's `dropped` dimensions that add most to the covariance.
        dropped: how many dimensions the control leaves out.
    """

    values: np.ndarray
    control: np.ndarray
    dropped: int


def dependence(states: Any, reference: Any) -> np.ndarray:
    """The closed form, [T], of token states [T, d] on a reference state [d]; computed in float64.

    0 where either side is constant over its dimensions. Raises SafeladderError on shapes that do not fit or on
    numbers that are not finite.
    """
    x, y = _checked(states, reference)
    return _closed(x, np.broadcast_to(y, x.shape))


def exact_dependence(state: Any, reference: Any) -> float:
    """The measure itself, of two states [d], in float64: O(d^3) in time, 8 d^2 bytes a matrix. Raises as `dependence`.

    In float32 the inverse is off by up to a quarter at d = 1024.
    """
    x, y = _checked(np.asarray(state)[None], reference)
    one, other = _resolvent(x[0]), _resolvent(y)
    return float((one * other.T).sum())


def trace(states: Any, reference: Any, *, dropped: int = 8) -> Trace:
    """The dependence of every token with its control.

    Args:
        states: [T, d] hidden states of the generated tokens at one layer.
        reference: [d], of the reference answer's last token at the same layer.
        dropped: dimensions that the control leaves out of each token.

    Raises:
        SafeladderError: as `dependence`, or fewer than two dimensions would be left.
    """
    x, y = _checked(states, reference)
    if not 1 <= dropped <= x.shape[1] - 2:
        raise SafeladderError(f"dropped is {dropped}; allowed: 1 to {x.shape[1] - 2} of {x.shape[1]} dimensions")
    share = np.abs((x - x.mean(1, keepdims=True)) * (y - y.mean()))
    kept = np.argpartition(share, x.shape[1] - dropped, axis=1)[:, : x.shape[1] - dropped]
    control = _closed(np.take_along_axis(x, kept, 1), y[kept])
    return Trace(_closed(x, np.broadcast_to(y, x.shape)), control, dropped)


def peaks(values: Any, count: int = 20) -> list[int]:
    """Positions of the `count` largest values (all, where there are fewer), in order of position; of equals the first.

    Raises:
        SafeladderError: `count` below 1, or values that are no row of finite numbers.
    """
    row = np.asarray(values, dtype=np.float64)
    if count < 1 or row.ndim != 1 or not np.isfinite(row).all():
        raise SafeladderError("peaks need a row of finite values and a count of at least 1")
    return sorted(int(i) for i in np.argsort(-row, kind="stable")[:count])


def _closed(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[T] from two arrays [T, d]."""
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    v_x, v_y, both = (x * x).mean(1), (y * y).mean(1), (x * y).mean(1)
    # r^2 v_x v_y is the squared covariance: no division by a variance that may be 0.
    return both**2 / ((v_x + EPSILON * SIGMA**2) * (v_y + EPSILON * SIGMA**2))


def _resolvent(x: np.ndarray) -> np.ndarray:
    """R = K_c (K_c + eps d I)^-1, [d, d]."""
    kernel = np.exp(-((x[:, None] - x[None]) ** 2) / (2 * SIGMA**2))
    centred = kernel - kernel.mean(1, keepdims=True)
    # R commutes with its inverse factor: solving from the left gives the same matrix.
    return np.linalg.solve(centred + EPSILON * len(x) * np.eye(len(x)), centred)


def _checked(states: Any, reference: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(states, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 1 or x.shape[1] != y.shape[0] or y.shape[0] < 2:
        raise SafeladderError(f"dependence needs states [T, d] and a reference [d], not {x.shape} and {y.shape}")
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise SafeladderError("dependence needs finite states")
    return x, y
