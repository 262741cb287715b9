"""Group reward-decoupled normalisation for several rewards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from safeladder.algorithms.advantages.groups import batch_std
from safeladder.algorithms.advantages.grpo import grpo
from safeladder.types import SafeladderError


def gdpo(
    rewards: Tensor,
    group_ids: Tensor,
    weights: Tensor | Sequence[float] | None = None,
    *,
    normalize: bool = False,
) -> Tensor:
    """GDPO, arXiv 2601.05242: normalise every reward inside its group, then add::

        A = sum_m w_m * (r_m - mean_group r_m) / std_group r_m

    Normalising the sum instead (GRPO) maps different combinations of components to one advantage and lets the
    component of largest variance drown the others. `rewards` [B, M] components (or [B], M = 1), `group_ids`
    [B], `weights` [M] (default 1) -> [B]. `normalize` divides the sum by its standard deviation over the
    batch. With M = 1 and weight 1 this is `grpo`. Raises `SafeladderError` unless there is one finite weight
    a component.
    """
    columns = rewards.unsqueeze(-1) if rewards.ndim == 1 else rewards
    each = torch.stack([grpo(c, group_ids) for c in columns.unbind(-1)], dim=-1)
    scale = each.new_ones(each.shape[-1]) if weights is None else torch.as_tensor(weights).to(each)
    if scale.shape != each.shape[-1:] or not scale.isfinite().all():
        raise SafeladderError(f"GDPO needs {each.shape[-1]} finite weights, one a reward; got {weights}")
    advantages = each @ scale
    return advantages / (batch_std(advantages) + 1e-9) if normalize else advantages
