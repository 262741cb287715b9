"""Losses. Token losses take [batch, time] tensors, a mask (1 = counted), `reduction` and `normalizer`."""

from __future__ import annotations

from safeladder.algorithms.losses.cpgd import cpgd
from safeladder.algorithms.losses.dpo import dpo
from safeladder.algorithms.losses.gspo import gspo
from safeladder.algorithms.losses.ppo_clip import ppo_clip
from safeladder.algorithms.losses.reduce import LossOutput, Reduction, add_metrics, reduce
from safeladder.algorithms.losses.reference_kl import add_reference_kl
from safeladder.algorithms.losses.sft import sft
from safeladder.algorithms.losses.tdpo import edited_tokens, segment_score, tdpo

__all__ = [
    "LossOutput",
    "Reduction",
    "add_metrics",
    "add_reference_kl",
    "cpgd",
    "dpo",
    "edited_tokens",
    "gspo",
    "ppo_clip",
    "reduce",
    "segment_score",
    "sft",
    "tdpo",
]
