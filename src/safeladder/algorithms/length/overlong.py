"""The soft penalty near the token budget."""

from __future__ import annotations

from torch import Tensor

from safeladder.types import SafeladderError


def soft_overlong(lengths: Tensor, max_length: int, buffer: int, factor: float = 1.0) -> Tensor:
    """DAPO's soft overlong punishment, arXiv 2503.14476, eq. 13; to be added to the reward::

        penalty = -factor * clip( (length - (max_length - buffer)) / buffer, 0, 1 )

    `lengths` [B] in tokens -> [B] in [-factor, 0], of the default float type. Raises `SafeladderError` unless
    0 < buffer <= max_length and factor >= 0.
    """
    if not 0 < buffer <= max_length or not factor >= 0:
        raise SafeladderError(
            f"overlong: max_length {max_length}, buffer {buffer}, factor {factor}; "
            "allowed: 0 < buffer <= max_length, factor >= 0"
        )
    excess = (lengths - (max_length - buffer)) / buffer
    return -factor * excess.clamp(0, 1)
