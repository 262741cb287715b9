"""Advantage estimators: rewards [B] and group ids [B] in, one advantage a rollout [B] out.

A group is the set of responses to one prompt, marked by an equal integer id; groups may have any size and
come in any order. A group of one has nothing to compare with and gets advantage 0.
"""

from __future__ import annotations

from safeladder.algorithms.advantages.cpgd import cpgd
from safeladder.algorithms.advantages.gdpo import gdpo
from safeladder.algorithms.advantages.groups import degenerate_groups
from safeladder.algorithms.advantages.grpo import dr_grpo, grpo
from safeladder.algorithms.advantages.reinforce import (
    reinforce_pp,
    reinforce_pp_baseline,
    reinforce_pp_tokens,
)
from safeladder.algorithms.advantages.rloo import rloo

__all__ = [
    "cpgd",
    "degenerate_groups",
    "dr_grpo",
    "gdpo",
    "grpo",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "reinforce_pp_tokens",
    "rloo",
]
