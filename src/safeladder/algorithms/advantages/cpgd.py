"""The weighted group advantage of CPGD."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from safeladder.algorithms.advantages.groups import groups
from safeladder.algorithms.advantages.grpo import grpo
from safeladder.types import SafeladderError

Weighting = Literal["std", "equal", "clip-filter"]


def cpgd(rewards: Tensor, group_ids: Tensor, *, weighting: Weighting = "std", weight_cap: float = 3.0) -> Tensor:
    """CPGD, arXiv 2505.12504: `A = w(x) * (r - mean_group)`, with the prompt weight w by `weighting`::

        std          1 / std_group (GRPO's advantage)
        equal        1
        clip-filter  min( weight_cap, prompts in the batch / prompts whose rewards differ )

    clip-filter gives the informative prompts the weight that the others waste, without dropping any.
    `rewards` [B], `group_ids` [B] -> [B]. Raises `SafeladderError` on an unknown weighting or a cap below 1.
    """
    if not weight_cap >= 1:
        raise SafeladderError(f"advantage option weight_cap is {weight_cap}; it must be >= 1")
    if weighting == "std":
        return grpo(rewards, group_ids)
    if weighting not in get_args(Weighting):
        allowed = ", ".join(get_args(Weighting))
        raise SafeladderError(f"unknown CPGD weighting {weighting!r}; allowed: {allowed}")
    g = groups(rewards, group_ids)
    if weighting == "equal":
        return g.centred()
    informative = g.index[~g.degenerate()].unique().numel()
    return g.centred() * min(weight_cap, g.count / max(informative, 1))
