"""The learner: a policy, its optimizer, and one `step(rows, loss)` for every loss.

Supervised and reinforcement learning differ only in the rows (do they carry advantages?) and in the loss function.
A step runs micro-batches of similar length, adds their gradients with one normaliser taken over the whole batch and
all processes, clips by the global norm, and updates. Everything that must survive a crash is in `state_dict`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from safeladder.algorithms.losses import LossOutput
from safeladder.algorithms.optim import Muon, build_optimizer, learning_rate
from safeladder.config import Optimizer as OptimizerConfig
from safeladder.models.policy import Policy, Prompt, TokenOutputs
from safeladder.models.processing import Encoded
from safeladder.training.batching import (
    MicroBatch,
    Row,
    TrainingResponse,
    collate,
    micro_batches,
    split_rows,
    to_device,
)
from safeladder.training.parallel import Replicated, Sharded, gathered, shard_like
from safeladder.types import SafeladderError

LossFunction = Callable[[TokenOutputs, MicroBatch, float, float], LossOutput]
"""(outputs, micro-batch, counted tokens of the whole batch, responses of the whole batch) -> loss and metrics."""

_MAX_BAD_STEPS = 3
"""Consecutive steps with a non-finite loss or gradient before the run stops."""


class Learner:
    """Trains a policy.

    Args:
        policy: the policy; parameters with `requires_grad` are trained.
        backend: `Replicated` or `Sharded`.
        config: optimizer settings of the rung.
        total_steps: length of the learning-rate schedule.
        micro_batch_tokens: padded tokens a micro-batch may hold.
        share_prefix: run a prompt once for all its responses.
        temperature: of the sampling distribution that log-probabilities refer to.
    """

    def __init__(
        self,
        policy: Policy,
        backend: Replicated | Sharded,
        config: OptimizerConfig,
        *,
        total_steps: int,
        micro_batch_tokens: int,
        share_prefix: bool = True,
        temperature: float = 1.0,
    ) -> None:
        self.policy = policy
        self.backend = backend
        self.config = config
        self.total_steps = total_steps
        self.micro_batch_tokens = micro_batch_tokens
        self.share_prefix = share_prefix
        self.temperature = temperature
        self.steps_done = 0
        self.bad_steps = 0
        backend.attach()
        self.optimizer = build_optimizer(
            backend.module,
            config.name,
            lr=config.adamw_learning_rate or config.learning_rate,
            muon_lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            lr_scaling="original",
        )
        for part in self.optimizer.optimizers:
            if isinstance(part, Muon) and backend.parallel.world_size > 1:
                part.share(backend.parallel.rank, backend.parallel.world_size, backend.parallel.add_up)

    def step(self, rows: Sequence[Row], loss: LossFunction) -> dict[str, float]:
        """One optimizer step on this process's rows.

        Returns:
            Metrics of the whole batch (summed over processes): loss, the loss's own metrics, entropy,
            engine-learner log-probability gap, gradient norm, learning rate, token counts.

        Raises:
            SafeladderError: the loss or gradient was not finite several times in a row.
        """
        parallel = self.backend.parallel
        counted, responses = parallel.sum(sum(r.counted for r in rows), sum(len(r.responses) for r in rows))
        self.policy.train()
        self.backend.zero_grad()
        totals: dict[str, float] = {"train_tokens": 0.0, "seconds_train": -time.perf_counter()}
        if counted:
            for micro in self._micro_batches(rows):
                self._accumulate(micro, loss, counted, responses, totals)
        norm = self.backend.reduce_and_clip(self.config.max_grad_norm)
        summed = _combined(parallel.gather(totals))
        seconds = summed.pop("seconds_train")
        rate = self._set_learning_rate()
        finite = math.isfinite(float(norm)) and math.isfinite(summed.get("loss", 0.0))
        self.bad_steps = 0 if finite else self.bad_steps + 1
        if finite and counted:
            self.optimizer.step()
        elif self.bad_steps >= _MAX_BAD_STEPS:
            raise SafeladderError(
                f"training diverged: loss or gradient was not finite for {_MAX_BAD_STEPS} steps in a row "
                f"(step {self.steps_done}); lower the learning rate or resume from an earlier checkpoint"
            )
        self.steps_done += 1
        summed.update(
            grad_norm=float(norm),
            learning_rate=rate,
            skipped_nonfinite=float(not finite),
            counted_tokens=counted,
            seconds_train=seconds / parallel.world_size + time.perf_counter(),
        )
        return summed

    def _micro_batches(self, rows: Sequence[Row]) -> list[MicroBatch]:
        rows = split_rows(rows, share_prefix=self.share_prefix)
        micros = list(micro_batches(rows, max_tokens=self.micro_batch_tokens, pad_id=self.policy.pad_token_id))
        missing = self.backend.even_out(len(micros)) - len(micros)
        # Sharded only: stand-ins whose loss counts nothing keep the collectives in step.
        return micros + [self._stand_in()] * missing

    def _stand_in(self) -> MicroBatch:
        """The smallest micro-batch there is, counting nothing."""
        pad = (self.policy.pad_token_id,)
        positions = torch.zeros(self.policy.family.rope_dimensions, 1, dtype=torch.long)
        prompt = Prompt(ids=pad, positions=positions, next_position=1, encoded=Encoded(prompt_ids=pad))
        row = Row(prompt=prompt, responses=(TrainingResponse(token_ids=pad, mask=(1,)),))
        micro = collate([row], pad_id=self.policy.pad_token_id)
        micro.mask.zero_()
        micro.tokens = 0
        return micro

    def _accumulate(
        self, micro: MicroBatch, loss: LossFunction, counted: float, responses: float, totals: dict[str, float]
    ) -> None:
        micro = to_device(micro, self.policy.device)
        outputs = self.backend.module(micro.batch, self.temperature)
        result = loss(outputs, micro, counted, responses)
        (result.loss * self.backend.loss_scale).backward()
        with torch.no_grad():
            mask = micro.mask
            found: dict[str, Tensor | float] = {
                "loss": result.loss,
                "entropy": (outputs.entropy * mask).sum() / counted,
                "logprob_gap": ((outputs.logprobs - micro.old_logprobs).abs() * mask).sum() / counted,
                **result.metrics,
            }
            totals["train_tokens"] += micro.tokens
            for name, value in found.items():
                if name.endswith("_max"):
                    totals[name] = max(totals.get(name, 0.0), float(value))
                else:
                    totals[name] = totals.get(name, 0.0) + float(value)

    def _set_learning_rate(self) -> float:
        config = self.config
        factor = learning_rate(
            self.steps_done,
            self.total_steps,
            peak=1.0,
            warmup=min(config.warmup_steps, self.total_steps),
            kind=config.schedule,
            minimum_ratio=config.minimum_ratio,
            decay_start=max(min(config.warmup_steps, self.total_steps), round(config.decay_start * self.total_steps)),
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return config.learning_rate * factor

    def state_dict(self) -> dict[str, Any]:
        """Optimizer state and counters. Tensors are whole, also where sharded: every process calls this."""
        optimizer = gathered(self.optimizer.state_dict())
        return {"optimizer": optimizer, "steps_done": self.steps_done, "bad_steps": self.bad_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.optimizer.load_state_dict(state["optimizer"])
        for optimizer in self.optimizer.optimizers:
            shard_like(optimizer.state)
        self.steps_done = int(state["steps_done"])
        self.bad_steps = int(state["bad_steps"])


def _combined(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of all processes: names ending in `_max` by their largest value, the others by their sum."""
    names = sorted(set().union(*parts))
    return {n: (max if n.endswith("_max") else sum)(part.get(n, 0.0) for part in parts) for n in names}
