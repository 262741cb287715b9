"""Group-relative advantages."""

from __future__ import annotations

from torch import Tensor

from safeladder.algorithms.advantages.groups import groups


def grpo(rewards: Tensor, group_ids: Tensor, *, eps: float = 1e-9) -> Tensor:
    """GRPO, arXiv 2402.03300, section 4.1.2: `A = (r - mean_group) / (std_group + eps)`.

    `rewards` [B], `group_ids` [B] -> [B]. The standard deviation is the unbiased one, as in the released
    training code (LightRFT, `group_norm`). Equal rewards and groups of one give exactly 0.
    """
    g = groups(rewards, group_ids)
    return g.centred() / (g.std() + eps)


def dr_grpo(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """Dr.GRPO, arXiv 2503.20783: `A = r - mean_group`, without the division that favours easy and hard
    prompts.

    `rewards` [B], `group_ids` [B] -> [B]. Its loss divides by a constant length: reduction "constant".
    """
    return groups(rewards, group_ids).centred()
