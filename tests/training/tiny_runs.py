"""Rows, losses and rewards for tiny policies, shared by the tests of this room and by their worker
processes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from rollout.tiny_policies import ask, picture, policy, questions
from safeladder.algorithms import losses
from safeladder.algorithms.losses import LossOutput
from safeladder.algorithms.presets import build
from safeladder.config import Optimizer
from safeladder.models.policy import Policy, TokenOutputs
from safeladder.training.batching import MicroBatch, Row, TrainingResponse
from safeladder.training.learner import Learner, LossFunction
from safeladder.training.parallel import Parallel, Replicated, Sharded
from safeladder.training.run import RungRun, Silent
from safeladder.types import Response, Rollout, Sample, Score, StopReason
from safeladder.verifiers.recipe import RewardRecipe
from safeladder.verifiers.routing import Router

__all__ = ["ask", "picture", "policy", "questions"]


def rows(learner: Policy, samples: Sequence[Sample], *, responses: int = 3, seed: int = 0) -> list[Row]:
    """Made-up responses of unequal lengths, with masks, advantages and slightly wrong old log-
    probabilities.
    """
    rng = random.Random(seed)
    made = []
    for sample in samples:
        group = []
        for _ in range(responses):
            size = rng.randint(2, 9)
            ids = [rng.randrange(20, 250) for _ in range(size)]
            mask = [int(rng.random() < 0.8) for _ in range(size - 1)] + [1]
            group.append(
                TrainingResponse(
                    token_ids=ids,
                    mask=mask,
                    old_logprobs=[rng.uniform(-6.5, -5.0) for _ in range(size)],
                    advantage=rng.uniform(-2.0, 2.0),
                )
            )
        made.append(Row(prompt=learner.prompt(sample), responses=tuple(group)))
    return made


def sft(outputs: TokenOutputs, micro: MicroBatch, counted: float, responses: float) -> LossOutput:
    """As `train_sft` puts it together."""
    return losses.sft(outputs.logprobs, micro.mask, normalizer=counted)


def preset(name: str, **options: object) -> LossFunction:
    """As `train_rl` puts it together, without a reference policy."""
    if build(name).needs_reference:
        options["reference_kl"] = None
    algorithm = build(name, **options)

    def loss(outputs: TokenOutputs, micro: MicroBatch, counted: float, responses: float) -> LossOutput:
        return algorithm.loss(
            outputs.logprobs,
            micro.old_logprobs,
            micro.advantages,
            micro.mask,
            normalizer=counted,
            sequences=responses,
        )

    return loss


def learner_of(
    learned: Policy,
    backend: Replicated | Sharded | None = None,
    *,
    tokens: int = 4096,
    share: bool = True,
    clip: float = 1e9,
    rate: float = 1e-4,
    name: Literal["adamw", "muon"] = "adamw",
) -> Learner:
    """A learner; its gradient is left unclipped unless told otherwise."""
    config = Optimizer(name=name, learning_rate=rate, max_grad_norm=clip, weight_decay=0.1)
    return Learner(
        learned,
        backend or Replicated(learned, Parallel()),
        config,
        total_steps=10,
        micro_batch_tokens=tokens,
        share_prefix=share,
    )


def gradient(learned: Policy) -> Tensor:
    """All gradients of the last step, flat."""
    return torch.cat([p.grad.flatten().clone() for p in learned.parameters() if p.grad is not None])


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Equal to 1e-5 of the largest element (at least 1)."""
    worst = float((found - expected).abs().max())
    assert worst <= 1e-5 * max(1.0, float(expected.abs().max())), worst


class AnyText:
    """A response format that every text satisfies: a tiny random policy never writes the real one."""

    def parse(self, text: str, stop_reason: StopReason = StopReason.EOS) -> Response | None:
        return Response(answer=text or "-", reasoning="-")


@dataclass
class TokenShare:
    """A verifier with a graded verdict: the share of a response's token ids that are even."""

    name: str = "even"
    principle: str = "helpfulness"
    modulus: int = 2

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        return [
            Score(value=sum(t % self.modulus == 0 for t in r.token_ids) / max(1, len(r.token_ids))) for r in rollouts
        ]


def router(**verifiers: TokenShare) -> Router:
    """Judges every rollout of label "general" by all the verifiers, with weights 1, 2, ..."""
    found = verifiers or {"even": TokenShare()}
    weights = {name: float(i) for i, name in enumerate(found, start=1)}
    return Router(found, RewardRecipe(name="test", rows={"general": weights}))


def run_in(folder: Path, rung: str = "m3-rl", *, seed: int = 0, parallel: Parallel | None = None) -> RungRun:
    return RungRun(folder=folder, rung=rung, parallel=parallel or Parallel(), progress=Silent(), seed=seed)
