"""What the length of a response does to its reward or advantage."""

from __future__ import annotations

from safeladder.algorithms.length.cale import cale
from safeladder.algorithms.length.overlong import soft_overlong

__all__ = ["cale", "soft_overlong"]
