"""Supervised training: helpful-only pretraining of the base, the curated cold start, and the equal-compute control."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from safeladder.algorithms import losses
from safeladder.algorithms.losses import LossOutput
from safeladder.config import SftRung
from safeladder.models.policy import Policy, Prompt, TokenOutputs
from safeladder.rollout.parse import ResponseFormat
from safeladder.training.batching import MicroBatch, Row, TrainingResponse
from safeladder.training.learner import Learner
from safeladder.training.parallel import Replicated, Sharded
from safeladder.training.run import RungRun
from safeladder.types import SafeladderError, Sample

_BUCKET_BATCHES = 16
"""Batches are cut from windows of this many batches, sorted by length: little padding, still shuffled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCost:
    """What a rung cost: wall seconds, tokens through the learner and tokens sampled, and the FLOPs they stand for."""

    seconds: float
    train_tokens: float
    generated_tokens: float
    flops: float


class Demonstrations:
    """Samples with responses, encoded when they are needed.

    Args:
        count: how many there are.
        sample: number -> sample with its `response`.
        cells: sample -> class ids of its image cells, for the grounding probe; None where it is off.
    """

    def __init__(
        self,
        policy: Policy,
        response_format: ResponseFormat,
        count: int,
        sample: Callable[[int], Sample],
        cells: Callable[[Sample], Sequence[tuple[int, int, int]]] | None = None,
    ) -> None:
        self.policy = policy
        self.format = response_format
        self.count = count
        self._sample = sample
        self._cells = cells
        self._rows: dict[int, Row] = {}
        self._targets: dict[int, Tensor] = {}  # by id of the prompt object

    def row(self, number: int) -> Row:
        """Demonstration `number` as a training row: the whole response counts, the end token included."""
        found = self._rows.get(number)
        if found is not None:
            return found
        sample = self._sample(number)
        if sample.response is None:
            raise SafeladderError(f"sample {sample.id} has no response to train on")
        ids = self.policy.tokenizer(self.format.render(sample.response), add_special_tokens=False)["input_ids"]
        ids = (*ids, self.policy.eos_token_id)
        prompt = self.policy.prompt(sample)
        row = Row(prompt=prompt, responses=(TrainingResponse(token_ids=ids, mask=(1,) * len(ids)),))
        self._rows[number] = row
        if self._cells is not None and prompt.has_visuals:
            self._targets[id(prompt)] = torch.tensor(self._cells(sample))
        return row

    def forget(self) -> None:
        """Drop encoded rows: pixels of a whole rung would fill the memory, encoding again costs little."""
        self._rows.clear()
        self._targets.clear()

    def cell_targets(self, prompts: Sequence[Prompt]) -> Tensor:
        """Class ids [n, 3] in the order of `Policy.visual_features`: images of all prompts, then videos."""
        images = [p for p in prompts if p.encoded.pixel_values is not None]
        videos = [p for p in prompts if p.encoded.video_pixel_values is not None]
        return torch.cat([self._targets[id(p)] for p in images + videos])


class GroundingProbe(nn.Module):
    """Linear heads that name what each image cell shows. Trained with the base, then thrown away.

    Without it a vision tower trained from scratch through a language loss alone sits at the language prior for most
    of a laptop's budget; the probe gives every cell a direct gradient. It never sees held-out items.
    """

    def __init__(self, hidden_size: int, classes: tuple[int, int, int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(hidden_size, count) for count in classes])

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over the three heads; features [n, hidden], targets [n, 3]."""
        if len(features) != len(targets):
            raise SafeladderError(
                f"grounding: {len(targets)} image cells but {len(features)} image tokens; "
                "set grounding_weight to 0 for a model whose tokens are not cells"
            )
        parts = [F.cross_entropy(head(features), targets[:, k]) for k, head in enumerate(self.heads)]
        return torch.stack(parts).mean()


def train_sft(
    policy: Policy,
    backend: Replicated | Sharded,
    rung: SftRung,
    data: Demonstrations,
    run: RungRun,
    *,
    probe: GroundingProbe | None = None,
) -> TrainingCost:
    """Run (or resume) a supervised rung in place.

    Every process draws batches from its own share of the data; a step averages over all of them. `probe`, where
    given, must already be an attribute of the policy, so that the backend trains it.
    """
    parallel = run.parallel
    mine = list(range(data.count))[parallel.rank :: parallel.world_size]
    batch_size = rung.batch_size // parallel.world_size
    if not batch_size or len(mine) < batch_size:
        raise SafeladderError(
            f"rung {run.rung}: {data.count} samples in batches of {rung.batch_size} do not fill "
            f"{parallel.world_size} processes; lower batch_size or processes"
        )
    learner = Learner(
        policy,
        backend,
        rung.optimizer,
        total_steps=rung.steps,
        micro_batch_tokens=rung.micro_batch_tokens,
    )
    tokens = seconds = 0.0
    state = run.resume()
    if state is not None:
        backend.load_model(state["model"])
        learner.load_state_dict(state["learner"])
        tokens, seconds = state["train_tokens"], state["seconds"]

    def loss(outputs: TokenOutputs, micro: MicroBatch, counted: float, responses: float) -> LossOutput:
        result = losses.sft(outputs.logprobs, micro.mask, normalizer=counted)
        if probe is None or outputs.features is None:
            return result
        targets = data.cell_targets([p for p in micro.batch.prompts if p.has_visuals]).to(outputs.features.device)
        grounding = probe(outputs.features, targets)
        share = micro.batch.shape[0] / responses  # micro-batches weigh by their rows
        metrics = {**result.metrics, "grounding": grounding.detach() * share}
        return LossOutput(loss=result.loss + rung.grounding_weight * share * grounding, metrics=metrics)

    batches: list[list[int]] = []
    window = -1
    while learner.steps_done < rung.steps:
        start = time.perf_counter()
        step = learner.steps_done
        if step // _BUCKET_BATCHES != window:
            window = step // _BUCKET_BATCHES
            data.forget()
            batches = _bucketed_window(mine, batch_size, window, f"{run.seed}/{run.rung}", data)
        metrics = learner.step([data.row(i) for i in batches[step % _BUCKET_BATCHES]], loss)
        metrics.pop("logprob_gap", None)
        tokens += metrics["train_tokens"]
        seconds += time.perf_counter() - start
        done = learner.steps_done
        if done % 10 == 0 or done == rung.steps:
            run.log_metrics(done, metrics)
            run.progress.update(done, rung.steps, f"loss {metrics['loss']:.3f}")
        if done % rung.checkpoint_every == 0 or done == rung.steps:
            run.save(done, {
                "step": done,
                "model": backend.full_state_dict(),
                "learner": learner.state_dict(),
                "train_tokens": tokens,
                "seconds": seconds,
            })  # fmt: skip
    return TrainingCost(
        seconds=seconds,
        train_tokens=tokens,
        generated_tokens=0.0,
        flops=training_flops(policy, tokens, 0.0),
    )


def training_flops(policy: Policy, train_tokens: float, generated_tokens: float) -> float:
    """6·N a trained and 2·N a sampled token, N = the language model's parameters without its embedding table.

    Forward 2·N, backward 4·N (Kaplan et al. 2020, arXiv 2001.08361, §2.1); vision tower and attention are left out.
    """
    text = policy.family.text_model(policy.model)
    size = sum(p.numel() for name, p in text.named_parameters() if "embed_tokens" not in name)
    size += policy.family.lm_head(policy.model).weight.numel()
    return size * (6.0 * train_tokens + 2.0 * generated_tokens)


def _bucketed_window(
    mine: Sequence[int], batch_size: int, window: int, seed: str, data: Demonstrations
) -> list[list[int]]:
    """The batches of one window: a run of the epoch permutations, sorted by length, cut, and shuffled.

    The shuffles are the same on every process: all take a batch of about the same length at a time, and none waits.
    """
    size = batch_size * _BUCKET_BATCHES
    positions = range(window * size, (window + 1) * size)
    orders: dict[int, list[int]] = {}
    picked = []
    for position in positions:
        epoch, place = divmod(position, len(mine))
        if epoch not in orders:
            orders[epoch] = list(mine)
            random.Random(f"{seed}/epoch/{epoch}").shuffle(orders[epoch])
        picked.append(orders[epoch][place])
    picked.sort(key=lambda i: data.row(i).length)
    batches = [picked[k : k + batch_size] for k in range(0, size, batch_size)]
    random.Random(f"{seed}/window/{window}").shuffle(batches)
    return batches
