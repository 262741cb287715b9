"""Thinking-based direct preference optimisation: the edited tokens of a chain of thought weigh more than the others."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from torch import Tensor

from safeladder.algorithms.losses.dpo import dpo
from safeladder.algorithms.losses.reduce import LossOutput, masked
from safeladder.types import SafeladderError


def tdpo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    chosen_mask: Tensor,
    rejected_mask: Tensor,
    chosen_edited: Tensor,
    rejected_edited: Tensor,
    *,
    beta: float,
    gamma: float,
    normalizer: float | Tensor | None = None,
) -> LossOutput:
    """HAVEN, arXiv 2503.19622, section 5 (no code published; segment weights as in RLHF-V)::

        L = -1/N sum_b ln sigma( beta [ (s_pi - s_ref)(chosen) - (s_pi - s_ref)(rejected) ] )

    with s of `segment_score`. Log-probabilities, masks (1 = the response) and `edited` (1 = changed by the editor,
    `edited_tokens`) are [B, T] of the chosen and [B, T'] of the rejected response, nats. `normalizer` is N, the pairs
    of the whole batch (default: of this call). Metrics are `dpo`'s. Raises `SafeladderError` unless beta > 0 and
    gamma > 0, or where a response has no token.
    """
    if not gamma > 0:
        raise SafeladderError(f"loss option gamma is {gamma}; it must be > 0")
    chosen, rejected = (chosen_mask, chosen_edited, gamma), (rejected_mask, rejected_edited, gamma)
    return dpo(
        segment_score(policy_chosen, *chosen),
        segment_score(policy_rejected, *rejected),
        segment_score(ref_chosen, *chosen),
        segment_score(ref_rejected, *rejected),
        beta=beta,
        normalizer=normalizer,
    )


def segment_score(logprobs: Tensor, mask: Tensor, edited: Tensor, gamma: float) -> Tensor:
    """[B]: the weighted mean of ln p over a response, its edited tokens with weight gamma::

    s(y) = ( sum_{t untouched} ln p_t + gamma sum_{t edited} ln p_t ) / ( |untouched| + gamma |edited| )
    """
    weights = masked(1.0 + (gamma - 1.0) * edited.to(logprobs.dtype), mask)
    total = weights.sum(-1)
    if not bool((total > 0).all()):
        raise SafeladderError("a response of a preference pair has no token")
    return (weights * masked(logprobs, mask)).sum(-1) / total


def edited_tokens(chosen: Sequence[int], rejected: Sequence[int]) -> tuple[list[int], list[int]]:
    """1 for every token of the chosen, and of the rejected, response that the other one does not share in place.

    The longest common runs are aligned, in order (difflib). What the editor only deleted is marked on the rejected
    side alone, what the editor only added on the chosen side alone.
    """
    marks = [1] * len(chosen), [1] * len(rejected)
    for block in SequenceMatcher(None, chosen, rejected, autojunk=False).get_matching_blocks():
        marks[0][block.a : block.a + block.size] = [0] * block.size
        marks[1][block.b : block.b + block.size] = [0] * block.size
    return marks
