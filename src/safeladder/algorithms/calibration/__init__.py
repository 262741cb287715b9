"""Stated confidence against what was right: rewards, a loss and measures.

A confidence is an integer from 0 to 10, read as the probability c/10 of being right. The scale is fixed: a
number is never rescaled by its size. An answer is *certain* where c > cut; c == cut is uncertain.
"""

from __future__ import annotations

from safeladder.algorithms.calibration.loss import tokenized_brier_loss
from safeladder.algorithms.calibration.measures import (
    Quadrants,
    aurc,
    auroc,
    brier,
    confidence_entropy,
    ece,
    quadrants,
    risk_coverage,
    selective_accuracy,
    tabulate,
)
from safeladder.algorithms.calibration.reward import CUT, LEVELS, Reliability, reliability

__all__ = [
    "CUT",
    "LEVELS",
    "Quadrants",
    "Reliability",
    "aurc",
    "auroc",
    "brier",
    "confidence_entropy",
    "ece",
    "quadrants",
    "reliability",
    "risk_coverage",
    "selective_accuracy",
    "tabulate",
    "tokenized_brier_loss",
]
