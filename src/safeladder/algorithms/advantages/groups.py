"""Statistics inside groups of rollouts: the arithmetic that the estimators share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safeladder.types import SafeladderError


@dataclass(frozen=True, slots=True)
class Groups:
    """Rewards [B] and the group of each: `index` [B] in 0..count-1, `size` [B] of the own group."""

    rewards: Tensor
    index: Tensor
    size: Tensor
    count: int

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` [B] over each one's own group, [B]."""
        return values.new_zeros(self.count).index_add(0, self.index, values)[self.index] / self.size

    def centred(self) -> Tensor:
        """Reward minus group mean [B]; exactly 0 in a degenerate group."""
        return (self.rewards - self.mean(self.rewards)).masked_fill(self.degenerate(), 0.0)

    def std(self) -> Tensor:
        """The unbiased standard deviation of each one's own group [B]; 0 in a group of one."""
        squares = self.mean(self.centred().square()) * self.size
        return (squares / (self.size - 1).clamp(min=1)).sqrt()

    def degenerate(self) -> Tensor:
        """True where the group's rewards are equal [B] up to rounding.

        Sums of the same components in another order differ in the last bits, which a division by the standard
        deviation would blow up to advantages of order 1.
        """
        high = self._extreme(self.rewards, "amax")
        low = self._extreme(self.rewards, "amin")
        scale = torch.maximum(high.abs(), low.abs())
        return high - low <= 8 * torch.finfo(self.rewards.dtype).eps * scale

    def _extreme(self, values: Tensor, kind: str) -> Tensor:
        empty = values.new_empty(self.count)
        return empty.scatter_reduce(0, self.index, values, kind, include_self=False)[self.index]


def groups(rewards: Tensor, group_ids: Tensor) -> Groups:
    """Check `rewards` [B] and `group_ids` [B] (integers) and index the groups.

    Raises `SafeladderError` on a reward that is not finite, `ValueError` on shapes or types that do not fit.
    """
    if rewards.ndim != 1 or rewards.shape != group_ids.shape:
        raise ValueError(f"rewards {tuple(rewards.shape)} and group_ids {tuple(group_ids.shape)} must both be [B]")
    if group_ids.is_floating_point():
        raise ValueError("group_ids must be integers")
    if not rewards.is_floating_point():
        rewards = rewards.to(torch.get_default_dtype())
    if not rewards.isfinite().all():
        where = int((~rewards.isfinite()).nonzero()[0])
        raise SafeladderError(f"the reward of rollout {where} is {rewards[where].item()}; rewards must be finite")
    unique, index, size = group_ids.unique(return_inverse=True, return_counts=True)
    return Groups(rewards=rewards.detach(), index=index, size=size[index], count=len(unique))


def batch_std(values: Tensor) -> Tensor:
    """The population standard deviation over all values (a scalar)."""
    return values.std(correction=0)


def degenerate_groups(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """True for every rollout of a group whose reward has zero variance: it carries no learning signal.

    `rewards` [B], or [B, M] components (degenerate when every component is); returns bool [B]. This is the
    test of DAPO's dynamic sampling (arXiv 2503.14476, eq. 11) for rewards of any scale, not only 0 and 1.
    """
    columns = rewards.unsqueeze(-1) if rewards.ndim == 1 else rewards
    return torch.stack([groups(c, group_ids).degenerate() for c in columns.unbind(-1)]).all(0)
