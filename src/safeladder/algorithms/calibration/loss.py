"""A supervised cold start for the confidence."""

from __future__ import annotations

import torch
from torch import Tensor

from safeladder.algorithms.calibration.reward import LEVELS
from safeladder.algorithms.losses.reduce import LossOutput


def tokenized_brier_loss(logits: Tensor, correct: Tensor, *, normalizer: float | Tensor | None = None) -> LossOutput:
    """ConfTuner's tokenized Brier score, arXiv 2508.18847, on our scale of eleven levels::

        p = softmax over the eleven confidence tokens;   L = 1/N sum_i sum_k p_ik (y_i - k/10)^2

    Proper: its expectation is lowest where all of p lies on the level nearest to the true probability.

    `logits` [N, 11] at the position where the confidence is written, of the tokens of 0, 1, ... 10 in this
    order; `correct` [N] bool or 0/1: whether the answer it belongs to is right. `normalizer` is N of the whole
    batch (default: of this call). Metrics: `mean_confidence`, in 0..10. Raises `ValueError` on other shapes.
    """
    if logits.ndim != 2 or logits.shape[1] != LEVELS or correct.shape != logits.shape[:1]:
        raise ValueError(f"logits {tuple(logits.shape)} and correct {tuple(correct.shape)} must be [N, 11] and [N]")
    count = max(len(logits), 1) if normalizer is None else normalizer
    levels = torch.arange(LEVELS, device=logits.device, dtype=logits.dtype)
    p = logits.softmax(-1)
    distances = (correct.to(logits.dtype).unsqueeze(-1) - levels / (LEVELS - 1)) ** 2
    return LossOutput(
        loss=(p * distances).sum() / count,
        metrics={"mean_confidence": (p.detach() @ levels).sum() / count},
    )
