"""What honest confidence earns."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from safeladder.types import SafeladderError

Reliability = Literal["threshold", "brier", "log"]

LEVELS = 11
"""Confidences 0, 1, ... 10."""

CUT = 5
"""An answer is certain where its confidence is above this."""

_CLIP = 0.05
"""Half a step of the scale: 0 and 10 stand for all that is rounded to them, and the logarithm stays finite."""


def check_confidence(confidence: Tensor) -> Tensor:
    """The confidences as int64. Raises `ValueError` unless every one is a whole number from 0 to 10."""
    levels = confidence.long()
    if not bool(((levels == confidence) & (levels >= 0) & (levels < LEVELS)).all()):
        raise ValueError(f"confidences must be whole numbers from 0 to 10, got {confidence.tolist()}")
    return levels


def reliability(correct: Tensor, confidence: Tensor, kind: Reliability = "threshold", *, cut: int = CUT) -> Tensor:
    """The reliability reward in [0, 1] of each answer, with y = correct in {0, 1}, c = confidence, p = c/10::

        threshold   1 if y == [c > cut] else 0                  certain and right, or uncertain and wrong
        brier       1 - (p - y)^2                               Brier 1950; RLCR, arXiv 2507.16806
        log         (ln q - ln .05) / (ln .95 - ln .05)         q = clip(p or 1 - p, .05, .95), whichever y is

    Expected "brier" and "log" are highest where p is the true probability of being right (proper scoring
    rules; on the grid of eleven levels at the level beside it). "threshold", that of Deliberative Searcher
    (arXiv 2507.16727), is not proper: all it asks for is which side of the cut.

    `correct` [...] bool or 0/1, `confidence` [...] whole numbers 0..10 -> [...] float. Raises
    `SafeladderError` on an unknown kind, `ValueError` on confidences off the scale.
    """
    levels = check_confidence(torch.as_tensor(confidence))
    right = torch.as_tensor(correct).bool()
    if kind == "threshold":
        return (right == (levels > cut)).float()
    p = levels.float() / (LEVELS - 1)
    stated = torch.where(right, p, 1 - p)
    if kind == "brier":
        return 1 - (1 - stated) ** 2
    if kind == "log":
        low, high = math.log(_CLIP), math.log(1 - _CLIP)
        return (stated.clamp(_CLIP, 1 - _CLIP).log() - low) / (high - low)
    raise SafeladderError(f"unknown reliability {kind!r}; allowed: {', '.join(get_args(Reliability))}")
