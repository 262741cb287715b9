"""The way up: train every rung, measure it on held-out data, hold it against the gate, report.

`climb` runs in every process of a run. All processes train; the first one evaluates, writes and shows progress.
A finished rung leaves a checkpoint and a result file; `--resume` starts after the last one, inside a rung from its
newest trainer state.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from safeladder.analysis.report import write_report
from safeladder.analysis.results import RungResult, build_report, write_json
from safeladder.config import Recipe, RlRung, Rung, SftRung
from safeladder.data.curation import curate
from safeladder.ladder import cache, evaluate
from safeladder.ladder.check import algorithm_of
from safeladder.ladder.data import LadderData
from safeladder.ladder.provenance import environment, start_run
from safeladder.ladder.show import Display
from safeladder.models.families import family_of
from safeladder.models.load import freeze_vision, load_checkpoint, save_checkpoint
from safeladder.models.lora import add_lora
from safeladder.models.policy import Policy
from safeladder.models.tiny import build_tiny
from safeladder.rollout.local import LocalEngine
from safeladder.training.checkpoint import load_weights
from safeladder.training.parallel import Parallel, Replicated
from safeladder.training.rl import train_rl
from safeladder.training.run import RungRun
from safeladder.training.sft import Demonstrations, GroundingProbe, TrainingCost, train_sft
from safeladder.types import Rollout, SafeladderError, Sample
from safeladder.verifiers import RewardRecipe, Router, available
from safeladder.world import COLOUR_CLASSES, SIZE_CLASSES, WHAT_CLASSES

CONTROL = "control"
_GAIN_NOTE = (
    "Where the gain comes from: the base already solves many held-out items in some of its samples (pass@k) but not "
    "in its most likely answer, because its training data hold hurried and compliant answers beside careful and safe "
    "ones. The ladder makes the careful, safe way the likely one; it teaches little that the base could never do. The "
    "control spends the same compute on more helpful-only data."
)


class Climb:
    """One run of a ladder."""

    def __init__(self, recipe: Recipe, folder: Path, parallel: Parallel) -> None:
        self.recipe = recipe
        self.folder = folder
        self.parallel = parallel
        self.data = LadderData(recipe)
        self.held_out = self.data.held_out()
        self.verifiers = available(world=self.data.world is not None)
        labels = {s.label for s in self.held_out} | {s.label for s in self.data.train_files}
        self.routers = {
            name: Router(self.verifiers, RewardRecipe.load(rung.rewards, self.verifiers, labels))
            for name, rung in recipe.rungs.items()
            if isinstance(rung, RlRung)
        }
        # Evaluation always reads the complete table, whatever an ablation leaves out of its rewards.
        self.judge = Router(self.verifiers, RewardRecipe.load(evaluate.rewards(recipe), self.verifiers, labels))
        self.algorithms = {name: algorithm_of(rung) for name, rung in recipe.rungs.items() if isinstance(rung, RlRung)}
        self.policy = self._policy()
        self.display = Display(recipe, enabled=parallel.is_main)
        self.rollouts: dict[str, list[Rollout]] = {}
        self.results: dict[str, RungResult] = {}
        self.costs: dict[str, TrainingCost] = {}

    def _policy(self) -> Policy:
        model = self.recipe.model
        hub: Any
        if model.path is not None:
            hub, processor, family = load_checkpoint(model.path, dtype=model.dtype)
            if family.name != model.family:
                raise SafeladderError(
                    f"model.path: {model.path} is a {family.name} checkpoint, the recipe says {model.family}"
                )
        else:
            hub, processor = build_tiny(
                model.family,
                self.data.texts(),
                seed=self.recipe.seed,
                size=model.size,
                vocab_size=model.vocab_size,
                max_pixels=model.max_pixels,
            )
            family = family_of(hub.config)
        if model.lora is not None:
            hub = add_lora(hub, family, model.lora.rank, model.lora.alpha)
        if model.gradient_checkpointing:
            hub.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        policy = Policy(hub, processor, family, system_prompt=self.recipe.data.system_prompt)
        policy.to(_device(model.device))
        return policy

    def run(self) -> None:
        """Climb every rung, then the control, and write the report."""
        begun = time.perf_counter()
        previous: str | None = None
        for name, rung in self.recipe.rungs.items():
            self.rung(name, rung, rung.start_from or previous)
            previous = name
        first = next(iter(self.recipe.rungs))
        base = self.recipe.rungs[first]
        if self.recipe.control.enabled and isinstance(base, SftRung) and len(self.recipe.rungs) > 1:
            self.rung(CONTROL, self._control(first, base), first)
        if self.parallel.is_main:
            self.report(first, time.perf_counter() - begun)
        self.parallel.barrier()

    def rung(self, name: str, rung: Rung, start_from: str | None) -> None:
        """Train one rung from the weights of another, evaluate it, and keep the result."""
        checkpoint = self.folder / "checkpoints" / name
        result_file = self.folder / "rungs" / f"{name}.json"
        finished = self.parallel.gather(result_file.is_file() and checkpoint.is_dir())[0]
        source = checkpoint if finished else self.folder / "checkpoints" / start_from if start_from else None
        if source is not None:
            load_weights(self.policy.model, source)
        if finished:
            self._reload(name)
            return
        self.display.start(name)
        run = RungRun(
            folder=self.folder, rung=name, parallel=self.parallel, progress=self.display, seed=self.recipe.seed
        )
        cost = cache.restore(self.recipe, name, self.policy) if start_from is None else None
        if cost is None:
            cost = self._train(name, rung, run)
            self._train_in(self.policy.compute_dtype)
        if self.parallel.is_main:
            save_checkpoint(self.policy.model, self.policy.processor, checkpoint)
            if start_from is None:
                cache.store(self.recipe, checkpoint, cost)
        self.costs[name] = cost
        self.parallel.barrier()
        # Every process needs the same starting point; the first one measures.
        if self.parallel.is_main:
            self._evaluate(name, start_from, cost, checkpoint)
        self.parallel.barrier()

    def _train(self, name: str, rung: Rung, run: RungRun) -> TrainingCost:
        trains_vision = isinstance(rung, SftRung) and rung.train_vision
        for parameter in self.policy.model.parameters():
            parameter.requires_grad_(self.recipe.model.lora is None)
        if self.recipe.model.lora is not None:
            for parameter_name, parameter in self.policy.model.named_parameters():
                parameter.requires_grad_(".lora_" in parameter_name)
        if self.recipe.model.freeze_vision and not trains_vision:
            freeze_vision(self.policy.model, self.policy.family)
        self._train_in(torch.float32)
        if isinstance(rung, SftRung):
            return self._train_supervised(name, rung, run)
        algorithm = self.algorithms[name]
        reference = copy.deepcopy(self.policy).eval() if algorithm.needs_reference else None
        stages = {
            stage: self.data.prompts(f"{name}/{stage}", rung.samples, settings.mix)
            for stage, settings in rung.stages.items()
        }
        return train_rl(
            self.policy,
            Replicated(self.policy, self.parallel),
            rung,
            stages,
            self.routers[name],
            algorithm,
            self.data.format,
            run,
            reference=reference,
        )

    def _train_in(self, dtype: torch.dtype) -> None:
        """Cast what trains: a step of 1e-6 on a bfloat16 weight would round to nothing."""
        for parameter in self.policy.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)

    def _train_supervised(self, name: str, rung: SftRung, run: RungRun) -> TrainingCost:
        samples: Sequence[Sample] = self.data.demonstrations(name, rung)
        if rung.curation is not None:
            tokenizer = self.policy.tokenizer
            samples, curation = curate(
                samples,
                rung.curation,
                self.judge,
                self.data.format,
                lambda text: len(tokenizer(text, add_special_tokens=False).input_ids),
                checks=self.data.reasoning_checks(),
            )
            if self.parallel.is_main:
                write_json(self.folder / "rungs" / f"{name}-curation.json", curation.as_dict())
        probe = cells = None
        if rung.grounding_weight and self.data.world is not None:
            torch.manual_seed(self.recipe.seed)
            size = self.policy.family.text_model(self.policy.model).config.hidden_size
            probe = GroundingProbe(size, (WHAT_CLASSES, COLOUR_CLASSES, SIZE_CLASSES)).to(self.policy.device)
            cells = self.data.world.cell_targets
            self.policy.probe = probe
        demonstrations = Demonstrations(
            self.policy, self.data.format, len(samples), lambda number: samples[number], cells
        )
        try:
            return train_sft(
                self.policy, Replicated(self.policy, self.parallel), rung, demonstrations, run, probe=probe
            )
        finally:
            if probe is not None:
                del self.policy.probe

    def _control(self, first: str, base: SftRung) -> SftRung:
        """The base's own rung, for as many steps as the ladder's FLOPs buy."""
        spent = sum(cost.flops for name, cost in self.costs.items() if name in self.recipe.rungs and name != first)
        steps = max(1, round(base.steps * spent / self.costs[first].flops))
        # A constant, low rate: the base ended its schedule, and a full restart would first undo it.
        optimizer = base.optimizer.model_copy(
            update={
                "learning_rate": base.optimizer.learning_rate * 0.3,
                "adamw_learning_rate": (base.optimizer.adamw_learning_rate or base.optimizer.learning_rate) * 0.3,
                "warmup_steps": min(base.optimizer.warmup_steps, steps // 10),
            }
        )
        return base.model_copy(update={"steps": steps, "optimizer": optimizer})

    def _evaluate(self, name: str, start_from: str | None, cost: TrainingCost, checkpoint: Path) -> None:
        self.display.note(name, "evaluating")
        self.policy.eval()
        rollouts, log = evaluate.rung(
            self.recipe,
            self.folder,
            name,
            LocalEngine(self.policy),
            self.held_out,
            self.judge,
            self.data.format,
            checkpoint,
        )
        before = None if start_from is None else self.rollouts[start_from]
        result = evaluate.result(self.recipe, name, rollouts, before, cost, log)
        self.rollouts[name] = rollouts
        self.results[name] = result
        evaluate.keep(self.folder, name, rollouts)
        if name == next(iter(self.recipe.rungs)):
            passes = evaluate.pass_at_k(
                self.recipe, LocalEngine(self.policy), self.held_out, self.judge, self.data.format
            )
            write_json(self.folder / "rungs" / "pass-at-k.json", passes)
        result.save(self.folder / "rungs")
        self.display.finish(name, result)

    def _reload(self, name: str) -> None:
        result = RungResult.load(self.folder / "rungs" / f"{name}.json")
        self.results[name] = result
        self.costs[name] = TrainingCost(
            seconds=result.train_seconds, train_tokens=0.0, generated_tokens=0.0, flops=result.train_flops
        )
        if self.parallel.is_main:
            self.rollouts[name] = evaluate.reload(self.folder, name, self.held_out, self.data.format)
            self.display.finish(name, result)

    def report(self, first: str, seconds: float) -> None:
        """Write report.json, report.html and trajectory.png."""
        rungs = [self.results[name] for name in self.recipe.rungs]
        control = self.results.get(CONTROL)
        report = build_report(
            recipe=self.recipe.name,
            seed=self.recipe.seed,
            wall_seconds=seconds,
            rungs=rungs,
            headline=evaluate.headline(self.recipe, self.rollouts, rungs),
            note=_GAIN_NOTE if self.data.world is not None and self.recipe.model.path is None else "",
            control=control,
            pass_at_k=evaluate.read_pass_at_k(self.folder),
            provenance=environment(self.recipe),
            confidence=self.recipe.evaluation.confidence,
        )
        write_json(self.folder / "report.json", report)
        write_report(self.folder)
        self.display.done(self.folder, rungs)


def climb(recipe: Recipe, folder: Path, *, resume: bool) -> int:
    """Run a recipe in this process (all processes call this). Returns the exit code."""
    parallel = Parallel()
    torch.set_num_threads(max(1, torch.get_num_threads() if parallel.world_size == 1 else 1))
    try:
        # Data, rewards and checkpoint are read first: a mistake in them leaves no folder behind.
        ladder = Climb(recipe, folder, parallel)
        start_run(recipe, folder, parallel, resume=resume)
        ladder.run()
    finally:
        parallel.close()
    return 0


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
