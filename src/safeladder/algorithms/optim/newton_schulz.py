"""The orthogonal factor of a matrix by Newton-Schulz iterations."""

from __future__ import annotations

import torch
from torch import Tensor

from safeladder import kernels

# Quintic Newton-Schulz coefficients of Keller Jordan, "Muon: an optimizer for hidden layers" (2024): the
# steepest slope at 0 that keeps singular values in about [0.7, 1.2]; they do not converge to exactly 1, by
# design.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Push every singular value of a stack of matrices [N, m, n], m <= n, towards 1 (the polar factor U V^T).

    ::

        X <- X / ||X||_F,   then `steps` times   X <- a X + (b G + c G^2) X,   G = X X^T

    Works in the dtype of the input. The polynomials may be multiplied up among [m, m] matrices, with which they
    commute, and meet X once at the end: the same product in a different order. It takes fewer operations where
    n >= 2 m, and everywhere in the compiled pass, which computes half of each symmetric matrix.
    """
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    total = kernels.newton_schulz(x @ x.mT, steps, (_A, _B, _C)) if kernels.compiled_for(x) is not None else None
    if total is not None:
        return total @ x
    if x.shape[-1] >= 2 * x.shape[-2]:
        return _product(x @ x.mT, steps) @ x
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.baddbmm(x, polynomial, x, beta=_A)
    return x


def _product(gram: Tensor, steps: int) -> Tensor:
    """The product of the polynomials P = a I + b G + c G^2 of all steps, where G <- P G P [N, m, m]."""
    total = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    for step in range(steps):
        polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(_A)
        total = polynomial @ total if step else polynomial
        if step < steps - 1:
            gram = polynomial @ gram @ polynomial
    return total
