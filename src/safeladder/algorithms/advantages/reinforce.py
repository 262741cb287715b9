"""REINFORCE++: advantages normalised over the whole batch instead of inside each group."""

from __future__ import annotations

import torch
from torch import Tensor

from safeladder.algorithms.advantages.groups import batch_std, groups

_EPS = 1e-9


def reinforce_pp(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """REINFORCE++, arXiv 2501.03262, on sequence rewards: `A = (r - mean_batch) / (std_batch + 1e-9)`.

    `rewards` [B] -> [B] (population standard deviation). `group_ids` [B] is checked, but no group enters: a
    group of one is worth as much as any other here. A batch of equal rewards gives 0.
    """
    g = groups(rewards, group_ids)
    whole = groups(g.rewards, torch.zeros_like(group_ids))
    return whole.centred() / (batch_std(g.rewards) + _EPS)


def reinforce_pp_baseline(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """REINFORCE++-baseline, same paper: `A = (r - mean_group) / (std_batch(r - mean_group) + 1e-9)`.

    `rewards` [B], `group_ids` [B] -> [B]. Group centring makes the batch mean 0.
    """
    centred = groups(rewards, group_ids).centred()
    return centred / (batch_std(centred) + _EPS)


def reinforce_pp_tokens(rewards: Tensor, kl: Tensor, mask: Tensor, *, kl_weight: float, gamma: float = 1.0) -> Tensor:
    """REINFORCE++ with the KL in the reward: per-token returns, normalised over all counted tokens::

        r_t = [t is the last token] * R - kl_weight * kl_t
        G_t = r_t + gamma * G_{t+1}
        A_t = (G_t - mean) / (std + 1e-9)        mean and population std over the batch's counted tokens

    `rewards` [B], `kl` [B, T] (k1, nats), `mask` [B, T] -> [B, T], 0 where the mask is 0. t runs over counted
    tokens: what an environment wrote in between neither earns nor discounts.
    """
    counted = mask.bool()
    step_rewards = -kl_weight * kl.detach().masked_fill(~counted, 0.0)
    remaining = counted.flip(-1).cumsum(-1).flip(-1)
    step_rewards = step_rewards + (counted & (remaining == 1)) * rewards.detach().unsqueeze(-1)
    returns = torch.zeros_like(step_rewards)
    carry = torch.zeros_like(step_rewards[:, 0])
    for t in reversed(range(mask.shape[1])):
        carry = torch.where(counted[:, t], step_rewards[:, t] + gamma * carry, carry)
        returns[:, t] = carry
    kept = returns[counted]
    return ((returns - kept.mean()) / (batch_std(kept) + _EPS)).masked_fill(~counted, 0.0)
