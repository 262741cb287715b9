"""Supervised training: helpful-only pretraining of the base, the curated cold start, and the equal-compute control."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from safeladder.algorithms import losses
from safeladder.algorithms.losses import LossOutput
from safeladder.config import Supervised
from safeladder.models.policy import Policy, Prompt, TokenOutputs
from safeladder.models.processing import token_ids
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

    def __add__(self, other: TrainingCost) -> TrainingCost:
        return TrainingCost(
            seconds=self.seconds + other.seconds,
            train_tokens=self.train_tokens + other.train_tokens,
            generated_tokens=self.generated_tokens + other.generated_tokens,
            flops=self.flops + other.flops,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """What to say after a prompt. `mask` is 1 on what is trained on, and 0 on what others say in between.

    `stated` is, for an answer that states a confidence: where in the ids the confidence stands, and whether the answer
    is right.
    """

    token_ids: Sequence[int]
    mask: Sequence[int]
    stated: tuple[int, bool] | None = None


Encode = Callable[[Sample], Demonstration]


def encode_response(policy: Policy, response_format: ResponseFormat) -> Encode:
    """Samples with a `response`: the whole of it counts, the end token included."""

    def encode(sample: Sample) -> Demonstration:
        if sample.response is None:
            raise SafeladderError(f"sample {sample.id} has no response to train on")
        ids = (*token_ids(policy.tokenizer, response_format.render(sample.response)), policy.eos_token_id)
        return Demonstration(token_ids=ids, mask=(1,) * len(ids))

    return encode


class Demonstrations:
    """Demonstrated samples, encoded when they are needed.

    Args:
        encode: sample -> what is said after its prompt.
        samples: all of them.
    """

    def __init__(self, policy: Policy, encode: Encode, samples: Sequence[Sample]) -> None:
        self.policy = policy
        self.encode = encode
        self.samples = samples
        self._rows: dict[int, Row] = {}
        self._told: dict[int, tuple[Sample, Demonstration]] = {}  # by id of the prompt object

    def row(self, number: int) -> Row:
        """Demonstration `number` as a training row."""
        found = self._rows.get(number)
        if found is not None:
            return found
        sample = self.samples[number]
        told = self.encode(sample)
        prompt = self.policy.prompt(sample)
        row = Row(prompt=prompt, responses=(TrainingResponse(token_ids=told.token_ids, mask=told.mask),))
        self._rows[number] = row
        self._told[id(prompt)] = sample, told
        return row

    def of(self, prompt: Prompt) -> tuple[Sample, Demonstration]:
        """The sample that a row's prompt was made of, and its demonstration."""
        return self._told[id(prompt)]

    def forget(self) -> None:
        """Drop encoded rows: pixels of a whole rung would fill the memory, encoding again costs little."""
        self._rows.clear()
        self._told.clear()


Auxiliary = Callable[[TokenOutputs, MicroBatch, float], LossOutput]
"""(outputs, micro-batch, demonstrations of the whole batch) -> a term to add to the loss, and metrics."""


def train_sft(
    policy: Policy,
    backend: Replicated | Sharded,
    rung: Supervised,
    data: Demonstrations,
    run: RungRun,
    *,
    auxiliary: Auxiliary | None = None,
) -> TrainingCost:
    """Run (or resume) supervised training in place.

    Every process draws batches from its own share of the data; a step averages over all of them.
    """
    parallel = run.parallel
    count = len(data.samples)
    mine = list(range(count))[parallel.rank :: parallel.world_size]
    batch_size = rung.batch_size // parallel.world_size
    if not batch_size or len(mine) < batch_size:
        raise SafeladderError(
            f"rung {run.rung}: {count} samples in batches of {rung.batch_size} do not fill "
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
        if auxiliary is None:
            return result
        more = auxiliary(outputs, micro, responses)
        return LossOutput(loss=result.loss + more.loss, metrics={**result.metrics, **more.metrics})

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
