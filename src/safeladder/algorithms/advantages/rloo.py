"""REINFORCE with a leave-one-out baseline."""

from __future__ import annotations

from torch import Tensor

from safeladder.algorithms.advantages.groups import batch_std, groups


def rloo(rewards: Tensor, group_ids: Tensor, *, normalize: bool = False) -> Tensor:
    """RLOO, arXiv 2402.14740: the baseline of a response is the mean of its K - 1 siblings::

        A = r - (sum_group r - r) / (K - 1)  =  K/(K-1) * (r - mean_group)

    `rewards` [B], `group_ids` [B] -> [B]. `normalize` divides by the standard deviation over the batch, as
    REINFORCE++-style code does (the mean over the batch is 0 already).
    """
    g = groups(rewards, group_ids)
    advantages = g.centred() * g.size / (g.size - 1).clamp(min=1)
    return advantages / (batch_std(advantages) + 1e-9) if normalize else advantages
