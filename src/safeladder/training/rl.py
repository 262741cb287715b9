"""The reinforcement-learning loop: sample, judge, estimate advantages, update.

One loop for every algorithm preset and every rung. On each process the engine samples a share of the prompts, the
router judges them, rewards are gathered so that advantages see the whole batch, and the learner takes one step on the
sum of gradients. Randomness depends on (seed, rung, step, sample) only, so a resumed run repeats the broken one.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from safeladder.algorithms.advantages import degenerate_groups
from safeladder.algorithms.algorithm import Algorithm
from safeladder.algorithms.losses import LossOutput
from safeladder.config import RlRung
from safeladder.models.policy import Policy, TokenOutputs
from safeladder.rollout.conduct import Conduct, collect_each
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.parse import ResponseFormat
from safeladder.rollout.record import rollout_row
from safeladder.training.batching import MicroBatch, Row, TrainingResponse
from safeladder.training.learner import Learner
from safeladder.training.monitors import CollapseAlarm, Divergence
from safeladder.training.parallel import Replicated, Sharded
from safeladder.training.run import RungRun
from safeladder.training.sft import TrainingCost, training_flops
from safeladder.training.shaping import AsJudged, Shaper
from safeladder.types import Rollout, SafeladderError, Sample, SamplingParams
from safeladder.verifiers.routing import Router

_LOGGED_ROLLOUTS = 2
"""Rollouts a step that are written to rollouts.jsonl."""


def train_rl(
    policy: Policy,
    backend: Replicated | Sharded,
    rung: RlRung,
    stages: Mapping[str, Sequence[Sample]],
    router: Router,
    algorithm: Algorithm,
    response_format: ResponseFormat,
    run: RungRun,
    *,
    reference: Policy | None = None,
    conducts: Mapping[str, Conduct] | None = None,
    shaper: Shaper | None = None,
) -> TrainingCost:
    """Run (or resume) an RL rung in place.

    Args:
        stages: the prompts of every stage, by the stage's name, in the recipe's order.
        response_format: of replies in a single turn.
        reference: a frozen copy of the starting policy, where the algorithm has a reference KL.
        conducts: labels whose samples are rolled out in another way than a single turn.
        shaper: what changes the rewards after judging; None = nothing does.

    Raises:
        SafeladderError: entropy collapse, divergence, or a stage without prompts.
    """
    parallel = run.parallel
    schedule = [name for name, stage in rung.stages.items() for _ in range(stage.steps)]
    for name in rung.stages:
        if len(stages.get(name, ())) < rung.prompts_per_step:
            raise SafeladderError(
                f"rung {run.rung}, stage {name}: {len(stages.get(name, ()))} prompts, "
                f"one step needs {rung.prompts_per_step}"
            )
    learner = Learner(
        policy,
        backend,
        rung.optimizer,
        total_steps=len(schedule) * rung.updates_per_batch,
        micro_batch_tokens=rung.micro_batch_tokens,
        share_prefix=rung.share_prefix,
        temperature=rung.temperature,
    )
    alarm = CollapseAlarm(rung.collapse_entropy, rung.collapse_patience)
    divergence = Divergence()
    shaper = shaper or AsJudged()
    step, train_tokens, generated_tokens, seconds = 0, 0.0, 0.0, 0.0
    state = run.resume()
    if state is not None:
        backend.load_model(state["model"])
        learner.load_state_dict(state["learner"])
        step, seconds = state["step"], state["seconds"]
        train_tokens, generated_tokens = state["train_tokens"], state["generated_tokens"]
        alarm.load_state_dict(state["alarm"])
        divergence.load_state_dict(state["divergence"])
        shaper.load_state_dict(state["shaper"])
    engine = LocalEngine(policy)
    params = SamplingParams(max_new_tokens=rung.max_new_tokens, temperature=rung.temperature, n=rung.group_size)
    single_turn = Conduct(params=params, format=response_format)

    def loss(outputs: TokenOutputs, micro: MicroBatch, counted: float, responses: float) -> LossOutput:
        anchor = None
        if reference is not None:
            with torch.no_grad():
                anchor = reference(micro.batch, rung.temperature).logprobs
        return algorithm.loss(
            outputs.logprobs,
            micro.old_logprobs,
            micro.advantages,
            micro.mask,
            normalizer=counted,
            sequences=responses,
            ref_logprobs=anchor,
        )

    while step < len(schedule):
        begun = time.perf_counter()
        stage = schedule[step]
        pool = stages[stage]
        picked = [pool[i] for i in _prompts_of_step(len(pool), schedule[:step].count(stage), rung, run, stage)]
        mine = parallel.shard(picked)
        policy.eval()
        engine.forget()  # pixels of all prompts would fill the memory
        engine.sync()
        groups = collect_each(engine, mine, single_turn, conducts or {}, seed=_seed(run, step))
        generated = time.perf_counter()
        judged_flat, _ = router.judge([r for group in groups for r in group])
        judged_flat, shaping = shaper.shape(judged_flat, run)
        judged = time.perf_counter()
        rows, signal = _training_rows(engine, judged_flat, algorithm, router, rung, parallel.rank, run)
        metrics: dict[str, float] = {}
        for _ in range(rung.updates_per_batch):
            update = learner.step(rows, loss)
            train_tokens += update["train_tokens"]
            # The first update's gap compares the engine with the same weights in the learner; later ones do not.
            metrics = {**update, **{k: metrics[k] for k in ("logprob_gap",) if k in metrics}}
        step += 1
        tokens = sum(parallel.sum(sum(r.length for r in judged_flat)))
        generated_tokens += tokens
        elapsed = time.perf_counter() - begun
        seconds += elapsed
        metrics.update(signal)
        metrics.update(shaping)
        metrics.update(_reward_metrics(judged_flat, parallel))
        metrics.update(
            stage=float(list(rung.stages).index(stage)),
            seconds=elapsed,
            seconds_generate=generated - begun,
            seconds_judge=judged - generated,
            outcome_reward_divergence=divergence.update(metrics["reward"], metrics["outcome"]),
        )
        run.log_metrics(step, metrics)
        run.log_rollouts(_logged(judged_flat, run.rung, step))
        run.progress.update(step, len(schedule), f"{stage}: reward {metrics['reward']:.2f}")
        if "entropy" in metrics:  # absent where every group was dropped
            alarm.update(metrics["entropy"], run.rung, step)
        if step % rung.checkpoint_every == 0 or step == len(schedule):
            run.save(step, {
                "step": step,
                "model": backend.full_state_dict(),
                "learner": learner.state_dict(),
                "train_tokens": train_tokens,
                "generated_tokens": generated_tokens,
                "seconds": seconds,
                "alarm": alarm.state_dict(),
                "divergence": divergence.state_dict(),
                "shaper": shaper.state_dict(),
            })  # fmt: skip
    return TrainingCost(
        seconds=seconds,
        train_tokens=train_tokens,
        generated_tokens=generated_tokens,
        flops=training_flops(policy, train_tokens, generated_tokens),
    )


def _training_rows(
    engine: LocalEngine,
    rollouts: Sequence[Rollout],
    algorithm: Algorithm,
    router: Router,
    rung: RlRung,
    rank: int,
    run: RungRun,
) -> tuple[list[Row], dict[str, float]]:
    """Rows of this process with advantages taken over the whole batch, and what was dropped.

    A rollout that a verifier could not score has no reward: it is left out of its group and counted.
    """
    numbers = _groups(rollouts, rung.group_size, rank)
    scored = [r for r in rollouts if r.reward is not None]
    groups = [number for r, number in zip(rollouts, numbers, strict=True) if r.reward is not None]
    separate = rung.rewards.combine == "gdpo"
    values = [_components(r) if separate else r.reward for r in scored]
    gathered = run.parallel.gather((values, groups, [r.length for r in scored]))
    everything = [v for part in gathered for v in part[0]]
    group_ids = torch.tensor([g for part in gathered for g in part[1]])
    lengths = torch.tensor([n for part in gathered for n in part[2]])
    if not everything:
        raise SafeladderError(f"rung {run.rung}: no rollout of this step could be scored; see rollouts.jsonl")
    if separate:
        rewards, weights = _reward_matrix(everything, router)
        options = {**algorithm.preset.advantage_options, "weights": weights}
        algorithm = Algorithm(replace(algorithm.preset, advantage_options=options))
    else:
        rewards = torch.tensor(everything, dtype=torch.float32)
    advantages = algorithm.advantages(rewards, group_ids, lengths)
    kept = algorithm.kept(rewards, group_ids, lengths)
    flat = degenerate_groups(rewards, group_ids)
    before = sum(len(part[1]) for part in gathered[:rank])

    by_group: dict[int, list[tuple[Rollout, float]]] = defaultdict(list)
    for i, (rollout, group) in enumerate(zip(scored, groups, strict=True), start=before):
        if kept[i]:
            by_group[group].append((rollout, float(advantages[i])))
    rows = [
        Row(
            prompt=engine.prompt(members[0][0].sample),
            responses=tuple(
                TrainingResponse(
                    token_ids=r.token_ids, mask=r.action_mask, old_logprobs=r.logprobs, advantage=advantage
                )
                for r, advantage in members
            ),
        )
        for members in by_group.values()
    ]
    unscored, total = run.parallel.sum(len(rollouts) - len(scored), len(rollouts))
    return rows, {
        "unscored_share": unscored / total,
        "degenerate_share": float(flat.float().mean()),
        "advantage_abs": float(advantages.abs().mean()),
    }


def _groups(rollouts: Sequence[Rollout], size: int, rank: int) -> list[int]:
    """A number for every rollout, the same within its group and unique over processes.

    Advantages compare the members of a group, so a group is `size` rollouts of one prompt and nothing else.
    """
    for start in range(0, len(rollouts), size):
        members = rollouts[start : start + size]
        if len(members) != size or any(r.prompt_ids != members[0].prompt_ids for r in members):
            raise ValueError(f"rollouts {start} to {start + size - 1} are no group of {size} rollouts of one prompt")
    return [rank * 1_000_000 + i // size for i in range(len(rollouts))]


def _components(rollout: Rollout) -> dict[tuple[str, str], float]:
    """(label, verifier) -> value of a scored rollout."""
    label = rollout.sample.label
    return {(label, name): s.value for name, s in rollout.scores.items() if s.value is not None}


def _reward_matrix(components: Sequence[Mapping[tuple[str, str], float]], router: Router) -> tuple[Tensor, list[float]]:
    """Components [B, M] for GDPO and their weights [M].

    A column is a verifier of one label, so that its weight is one number. Where a rollout's label is another
    the value is 0: constant within a group, hence without effect.
    """
    columns = sorted(set().union(*components))
    matrix = torch.tensor([[row.get(column, 0.0) for column in columns] for row in components])
    return matrix, [router.recipe.row(label)[name] for label, name in columns]


def _prompts_of_step(count: int, occurrence: int, rung: RlRung, run: RungRun, stage: str) -> list[int]:
    """Prompt numbers of the stage's `occurrence`-th step: epoch after epoch, each in its own order."""
    size = rung.prompts_per_step
    per_epoch = count // size
    epoch, place = divmod(occurrence, per_epoch)
    order = list(range(count))
    random.Random(f"{run.seed}/{run.rung}/{stage}/{epoch}").shuffle(order)
    return order[place * size : (place + 1) * size]


def _seed(run: RungRun, step: int) -> int:
    return random.Random(f"{run.seed}/{run.rung}/{step}/sampling").getrandbits(62)


def _reward_metrics(rollouts: Sequence[Rollout], parallel) -> dict[str, float]:
    """Mean reward, every verifier's mean, lengths and stop reasons, over all processes."""
    sums: dict[str, float] = defaultdict(float)
    for r in rollouts:
        sums["n/rollouts"] += 1
        sums["sum/length"] += r.length
        sums["sum/truncated"] += r.stop_reason == "length"
        sums["sum/malformed"] += r.response is None
        if r.reward is not None:
            sums["n/reward"] += 1
            sums["sum/reward"] += r.reward
        outcome = [s for name, s in r.scores.items() if name != "format" and s.value is not None]
        if outcome:
            sums["n/outcome"] += 1
            sums["sum/outcome"] += min(s.value for s in outcome if s.value is not None)
        for name, score in r.scores.items():
            if score.value is not None:
                sums[f"n/reward/{name}"] += 1
                sums[f"sum/reward/{name}"] += score.value
        for label in {s.label for s in r.scores.values() if s.label}:
            sums[f"sum/label/{label}"] += 1
    total: dict[str, float] = defaultdict(float)
    for part in parallel.gather(dict(sums)):
        for name, value in part.items():
            total[name] += value
    metrics = {}
    for name, value in total.items():
        if name.startswith("sum/"):
            key = name[4:]
            metrics[key] = value / total.get(f"n/{key}", total["n/rollouts"])
    metrics.setdefault("reward", 0.0)
    metrics.setdefault("outcome", 0.0)
    return metrics


def _logged(rollouts: Sequence[Rollout], rung: str, step: int) -> list[dict[str, object]]:
    return [rollout_row(r, rung=rung, step=step) for r in rollouts[:_LOGGED_ROLLOUTS]]
