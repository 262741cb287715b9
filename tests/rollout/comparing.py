"""How the engine's completions are held against the learner and against each other."""

from __future__ import annotations

import pytest
import torch

from safeladder.models.policy import Policy
from safeladder.rollout.local import LocalEngine
from safeladder.training.batching import Row, TrainingResponse, micro_batches, split_rows
from safeladder.types import Completion

FAMILIES = ("qwen2_5_vl", "internvl", "llama")


def rows_of(engine: LocalEngine, samples: list, groups: list[list[Completion]]) -> list[Row]:
    return [
        Row(
            prompt=engine.prompt(sample),
            responses=tuple(
                TrainingResponse(token_ids=c.token_ids, mask=(1,) * len(c.token_ids), old_logprobs=c.logprobs)
                for c in group
            ),
        )
        for sample, group in zip(samples, groups, strict=True)
    ]


def gap(learner: Policy, rows: list[Row], *, share: bool, temperature: float, max_tokens: int = 300) -> float:
    worst = 0.0
    with torch.no_grad():
        for micro in micro_batches(
            split_rows(rows, share_prefix=share), max_tokens=max_tokens, pad_id=learner.pad_token_id
        ):
            outputs = learner(micro.batch, temperature)
            worst = max(worst, float(((outputs.logprobs - micro.old_logprobs).abs() * micro.mask).max()))
    return worst


class near:
    """Equal ids and reasons, log-probabilities within rounding (matrix products depend on the batch's
    shape).
    """

    def __init__(self, groups: list[list[Completion]]) -> None:
        self.groups = groups

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, list)
        flat, mine = [c for g in other for c in g], [c for g in self.groups for c in g]
        return [len(g) for g in other] == [len(g) for g in self.groups] and all(
            a.token_ids == b.token_ids
            and a.stop_reason == b.stop_reason
            and a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
            for a, b in zip(flat, mine, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]
