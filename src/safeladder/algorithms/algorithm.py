"""An algorithm: rewards to advantages, log-probabilities to a loss, by the fields of one preset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from safeladder.algorithms import advantages as advantages_
from safeladder.algorithms import losses
from safeladder.algorithms.length import cale, soft_overlong
from safeladder.algorithms.losses import LossOutput, Reduction
from safeladder.types import SafeladderError

ADVANTAGES: Mapping[str, Callable[..., Tensor]] = {
    "grpo": advantages_.grpo,
    "dr-grpo": advantages_.dr_grpo,
    "rloo": advantages_.rloo,
    "reinforce++": advantages_.reinforce_pp,
    "reinforce++-baseline": advantages_.reinforce_pp_baseline,
    "cpgd": advantages_.cpgd,
    "gdpo": advantages_.gdpo,
}
LOSSES: Mapping[str, Callable[..., LossOutput]] = {
    "ppo-clip": losses.ppo_clip,
    "gspo": losses.gspo,
    "cpgd": losses.cpgd,
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Everything that distinguishes one policy-gradient algorithm from another. Every field is used.

    advantage, advantage_options: a key of `ADVANTAGES` and its keyword options; "cale" where `length` is set.
    length: None, or CALE's {alpha, mu, beta, max_length}: the estimator then replaces the advantage.
    overlong: None, or {max_length, buffer, factor}: the soft overlong penalty is added to the reward.
    drop_degenerate: leave out groups whose rewards are all equal (`Algorithm.kept`).
    loss, loss_options: a key of `LOSSES` and its keyword options.
    reduction: how tokens are averaged; max_length: L_max of the reduction "constant" (None for the others).
    reference_kl: None, or {weight, estimator}: a KL term towards the reference policy, added to the loss.
    """

    name: str
    advantage: str
    loss: str
    reduction: Reduction = "token-mean"
    advantage_options: Mapping[str, Any] = field(default_factory=dict)
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    max_length: float | None = None
    reference_kl: Mapping[str, Any] | None = None
    drop_degenerate: bool = False
    overlong: Mapping[str, Any] | None = None
    length: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A validated preset in action; made by `presets.build`. Text and multimodal policies share it."""

    preset: Preset

    @property
    def needs_reference(self) -> bool:
        """Whether `loss` needs the reference policy's log-probabilities."""
        return self.preset.reference_kl is not None

    def advantages(self, rewards: Tensor, group_ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`rewards` [B] (or components [B, M] for gdpo), `group_ids` [B], `lengths` [B] in tokens -> [B].

        Raises `SafeladderError` where components meet an estimator of one reward, where lengths are needed
        and missing, or on a reward that is not finite.
        """
        rewards = self._shaped(rewards, lengths)
        if self.preset.length is not None:
            return cale(rewards, self._lengths(lengths, "length"), group_ids, **self.preset.length)
        return ADVANTAGES[self.preset.advantage](rewards, group_ids, **self.preset.advantage_options)

    def kept(self, rewards: Tensor, group_ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Bool [B]: False for the rollouts of degenerate groups where the preset drops them, else True."""
        if not self.preset.drop_degenerate:
            return torch.ones_like(group_ids, dtype=torch.bool)
        return ~advantages_.degenerate_groups(self._shaped(rewards, lengths), group_ids)

    def loss(
        self,
        logprobs: Tensor,
        old_logprobs: Tensor,
        advantages: Tensor,
        mask: Tensor,
        *,
        normalizer: float | Tensor | None = None,
        sequences: float | Tensor | None = None,
        ref_logprobs: Tensor | None = None,
    ) -> LossOutput:
        """The loss of one micro-batch, to be added over the micro-batches of a batch.

        `logprobs`, `old_logprobs`, `mask`, `ref_logprobs`: [B, T]; `advantages`: [B] or [B, T]. `normalizer`
        and `sequences` count the tokens and the sequences of the whole batch (default: of this call); the
        reduction picks what it divides by. Without a reference-KL term `ref_logprobs` is only measured.
        Raises `SafeladderError` where the term has no reference.
        """
        preset = self.preset
        tokens = mask.bool().sum().clamp(min=1) if normalizer is None else normalizer
        rows = mask.bool().any(-1).sum().clamp(min=1) if sequences is None else sequences
        divisor = {
            "token-mean": tokens,
            "sequence-mean": rows,
            "constant": rows * (preset.max_length or 1),
        }[preset.reduction]
        how = {"reduction": preset.reduction, "normalizer": divisor}
        output = LOSSES[preset.loss](logprobs, old_logprobs, advantages, mask, **preset.loss_options, **how)
        if ref_logprobs is not None:
            term = preset.reference_kl or {"weight": 0.0}
            output = losses.add_reference_kl(output, logprobs, ref_logprobs, mask, **term, **how)
        elif preset.reference_kl is not None:
            raise SafeladderError(f"algorithm {preset.name}: reference_kl needs the reference log-probabilities")
        if preset.reduction != "constant":
            return output
        # A sum over a constant length is no mean: metrics are rescaled to means over tokens.
        rescaled = {k: v if k.endswith("_max") else v * (divisor / tokens) for k, v in output.metrics.items()}
        return LossOutput(loss=output.loss, metrics=rescaled)

    def _shaped(self, rewards: Tensor, lengths: Tensor | None) -> Tensor:
        if rewards.ndim != 1 and self.preset.advantage != "gdpo":
            raise SafeladderError(
                f"algorithm {self.preset.name}: {self.preset.advantage} takes one reward a rollout, got "
                f"{rewards.shape[-1]} components; only gdpo combines them"
            )
        if self.preset.overlong is None:
            return rewards
        penalty = soft_overlong(self._lengths(lengths, "overlong"), **self.preset.overlong)
        return rewards + penalty.to(rewards.dtype)

    def _lengths(self, lengths: Tensor | None, option: str) -> Tensor:
        if lengths is None:
            raise SafeladderError(f"algorithm {self.preset.name}: option {option} needs the response lengths")
        return lengths
