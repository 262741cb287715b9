"""Conditional advantage for length-based estimation."""

from __future__ import annotations

import torch
from torch import Tensor

from safeladder.algorithms.advantages.groups import groups
from safeladder.types import SafeladderError


def cale(
    rewards: Tensor,
    lengths: Tensor,
    group_ids: Tensor,
    *,
    alpha: float,
    mu: float,
    beta: float,
    max_length: float,
) -> Tensor:
    """CANON's length estimator, arXiv 2509.23962, `dr_length_on_mean`.

    Each group of G is sorted by length; the first G//2 are its short half, the rest its long half, with mean
    rewards m_s and m_l. Each response is compared with the other half (share mu) and with its own (1 - mu)::

        long :  A = [ mu * (alpha * r - m_s + beta) + (1 - mu) * (r - m_l) ] / max_length
        short:  A = [ mu * (r - alpha * m_l - beta) + (1 - mu) * (r - m_s) ] / max_length

    alpha < 1 discounts reward earned by long responses, so that length is pressed only where reward is
    earned: a short wrong answer gains nothing. beta > 0 favours long responses at any reward. With mu = 1/2,
    alpha = 1, beta = 0 and an even G this is Dr.GRPO's advantage over max_length. The report that names CALE
    does not print its equation; that CALE is this estimator with mu = 1 is our identification.

    `rewards` [B], `lengths` [B] in tokens, `group_ids` [B] -> [B]. Equal lengths keep their order in the
    batch; groups of one get 0. max_length is the loss's constant length: give 1 where the loss divides by
    tokens itself. Raises `SafeladderError` unless 0 <= mu <= 1, alpha and beta are finite and max_length > 0.
    """
    if not 0 <= mu <= 1 or not max_length > 0 or not abs(alpha) + abs(beta) < float("inf"):
        raise SafeladderError(
            f"CALE: mu {mu}, max_length {max_length}, alpha {alpha}, beta {beta}; "
            "allowed: 0 <= mu <= 1, max_length > 0, alpha and beta finite"
        )
    if lengths.shape != rewards.shape:
        raise ValueError(f"lengths {tuple(lengths.shape)} and rewards {tuple(rewards.shape)} must both be [B]")
    g = groups(rewards, group_ids)

    # Stable sorts by length, then by group, leave each group contiguous and ordered by length.
    order = lengths.argsort(stable=True)
    order = order[g.index[order].argsort(stable=True)]
    sizes = g.index.bincount(minlength=g.count)
    starts = sizes.cumsum(0) - sizes
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - starts[g.index[order]]
    is_long = rank >= g.size // 2

    total = g.rewards.new_zeros(g.count, 2).index_put((g.index, is_long.long()), g.rewards, accumulate=True)
    m_s = (total[:, 0] / (sizes // 2).clamp(min=1))[g.index]
    m_l = (total[:, 1] / (sizes - sizes // 2))[g.index]
    r = g.rewards
    long = mu * (alpha * r - m_s + beta) + (1 - mu) * (r - m_l)
    short = mu * (r - alpha * m_l - beta) + (1 - mu) * (r - m_s)
    return torch.where(is_long, long, short).masked_fill(g.size == 1, 0.0) / max_length
