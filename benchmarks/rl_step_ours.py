"""safeladder's side of benchmarks/rl_step.py: one rank; prints nothing, rank 0 writes the result."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from safeladder.algorithms.presets import build
from safeladder.config import Optimizer, Rewards
from safeladder.models.load import freeze_vision, load_checkpoint
from safeladder.models.policy import Policy
from safeladder.rollout.collect import collect
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.parse import ResponseFormat
from safeladder.training.batching import Row, TrainingResponse
from safeladder.training.learner import Learner
from safeladder.training.parallel import Parallel, Replicated
from safeladder.training.sft import training_flops
from safeladder.types import SamplingParams
from safeladder.verifiers import RewardRecipe, Router, available
from safeladder.world import World, WorldConfig


def main(job: dict) -> None:
    torch.set_num_threads(job["threads"])
    parallel = Parallel()
    model, processor, family = load_checkpoint(job["checkpoint"])
    policy = Policy(model, processor, family)
    freeze_vision(model, family)
    if job["setting"] == "fixed":
        policy.logit_bias[policy.eos_token_id] = -1e9
    verifiers = available()
    router = Router(verifiers, RewardRecipe.load(Rewards(recipe="world"), verifiers, ()))
    algorithm = build("dapo", drop_degenerate=False, overlong=None)
    backend = Replicated(policy, parallel)
    learner = Learner(
        policy, backend, Optimizer(learning_rate=1e-4), total_steps=job["steps"], micro_batch_tokens=16384
    )
    engine = LocalEngine(policy)
    world = World(WorldConfig(seed=job["seed"]))
    samples = world.samples(
        "train", job["prompts"] * job["steps"], {"count": 1, "compare": 1, "colour": 1, "spatial": 1}
    )
    params = SamplingParams(max_new_tokens=job["tokens"], temperature=1.0, n=job["group"])

    def loss(outputs, micro, counted, responses):
        return algorithm.loss(
            outputs.logprobs, micro.old_logprobs, micro.advantages, micro.mask, normalizer=counted, sequences=responses
        )

    log: dict[str, list[float]] = {k: [] for k in ("seconds", "generate", "judge", "logprob", "train", "lengths")}
    work: dict[str, list[float]] = {"generated": [], "trained": []}
    for step in range(job["steps"]):
        picked = samples[step * job["prompts"] : (step + 1) * job["prompts"]]
        parallel.barrier()
        start = time.perf_counter()
        policy.eval()
        engine.sync()
        groups = collect(engine, parallel.shard(picked), params, ResponseFormat(), seed=step)
        generated = time.perf_counter()
        judged, _ = router.judge([r for group in groups for r in group])
        # Advantages are per group, and groups do not cross processes.
        rewards = torch.tensor([r.reward or 0.0 for r in judged])
        ids = torch.arange(len(judged)) // job["group"]
        lengths = torch.tensor([r.length for r in judged])
        advantages = algorithm.advantages(rewards, ids, lengths)
        scored = time.perf_counter()
        rows = [
            Row(
                prompt=engine.prompt(group[0].sample),
                responses=tuple(
                    TrainingResponse(
                        token_ids=r.token_ids, mask=r.action_mask, old_logprobs=r.logprobs, advantage=float(a)
                    )
                    for r, a in zip(group, advantages[k * job["group"] :], strict=False)
                ),
            )
            for k, group in enumerate(groups)
        ]
        metrics = learner.step(rows, loss)
        parallel.barrier()
        done = time.perf_counter()
        if step >= 3:
            log["seconds"].append(done - start)
            log["generate"].append(generated - start)
            log["judge"].append(scored - generated)
            log["logprob"].append(0.0)  # the engine's own log-probabilities are the old ones
            log["train"].append(done - scored)
            log["lengths"].append(float(lengths.float().mean()))
            prompt = sum(len(r.prompt.ids) for r in rows)
            work["generated"].append(training_flops(policy, 0.0, float(lengths.sum()) + prompt))
            work["trained"].append(training_flops(policy, metrics["train_tokens"] / parallel.world_size, 0.0))
        engine.forget()
    if parallel.is_main:
        peak = _matmul_peak()
        middle = len(log["seconds"]) // 2
        generate = sorted(w / t for w, t in zip(work["generated"], log["generate"], strict=True))[middle]
        train = sorted(w / t for w, t in zip(work["trained"], log["train"], strict=True))[middle]
        result = {
            **log,
            "peak_gflops": peak / 1e9,
            "generate_share_of_peak": generate / peak,
            "train_share_of_peak": train / peak,
        }
        Path(job["out"]).write_text(json.dumps(result))
    parallel.barrier()
    parallel.close()


def _matmul_peak() -> float:
    """The best rate of a float32 matrix product with this process's threads, in FLOP/s."""
    best = 0.0
    for size in (256, 512, 1024):
        a, b = torch.randn(size, size), torch.randn(size, size)
        for _ in range(20):
            start = time.perf_counter()
            a @ b
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
