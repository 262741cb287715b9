"""The way up: train every rung, measure it on held-out data, hold it against the gate, report.

`climb` runs in every process of a run. All processes train; the first one evaluates, writes and shows progress.
A finished rung leaves a checkpoint and a result file; `--resume` starts after the last one, inside a rung from its
newest trainer state.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from safeladder.analysis.report import write_report
from safeladder.analysis.results import RungResult, build_report, read_json
from safeladder.atomic import write_json
from safeladder.config import SEARCH_LABEL, ColdStart, Recipe, RlRung, Rung, SearchRung, SftRung
from safeladder.data.curation import curate
from safeladder.ladder import cache, calibrate, evaluate, searching
from safeladder.ladder.check import algorithm_of
from safeladder.ladder.clock import Clock
from safeladder.ladder.data import LadderData
from safeladder.ladder.provenance import environment, start_run
from safeladder.ladder.show import Display
from safeladder.models.families import family_of
from safeladder.models.load import freeze_vision, load_checkpoint, save_checkpoint
from safeladder.models.lora import add_lora
from safeladder.models.policy import Policy
from safeladder.models.tiny import build_tiny
from safeladder.rollout.local import LocalEngine
from safeladder.search.environment import SearchEnvironment
from safeladder.training.auxiliary import GroundingProbe, grounding, stated_confidence
from safeladder.training.checkpoint import load_weights
from safeladder.training.parallel import Parallel, Replicated
from safeladder.training.rl import train_rl
from safeladder.training.run import RungRun
from safeladder.training.sft import Demonstrations, TrainingCost, encode_response, train_sft
from safeladder.training.shaping import HonestConfidence
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
        searches = any(isinstance(rung, SearchRung) for rung in recipe.rungs.values())
        self.held_out_searches = self.data.held_out_searches() if searches else []
        labels = {s.label for s in (*self.held_out, *self.held_out_searches, *self.data.train_files)}
        self.routers = {
            name: Router(self.verifiers, RewardRecipe.load(rung.rewards, self.verifiers, labels))
            for name, rung in recipe.rungs.items()
            if isinstance(rung, RlRung)
        }
        # Evaluation always reads the complete table, whatever an ablation leaves out of its rewards.
        self.judge = Router(self.verifiers, RewardRecipe.load(recipe.judged_by, self.verifiers, labels))
        self.algorithms = {name: algorithm_of(rung) for name, rung in recipe.rungs.items() if isinstance(rung, RlRung)}
        self.policy = self._policy()
        self.display = Display(recipe, enabled=parallel.is_main)
        self.clock = Clock(folder / "state" / "seconds.json")
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
        previous: str | None = None
        for name, rung in self.recipe.rungs.items():
            self.rung(name, rung, rung.start_from or previous)
            previous = name
        first = next(iter(self.recipe.rungs))
        base = self.recipe.rungs[first]
        if self.recipe.control.enabled and isinstance(base, SftRung) and len(self.recipe.rungs) > 1:
            self.rung(CONTROL, self._control(first, base), first)
        if self.parallel.is_main:
            self.report(first)
        self.parallel.barrier()

    def rung(self, name: str, rung: Rung, start_from: str | None) -> None:
        """Train one rung from the weights of another, evaluate it, and keep the result.

        A rung that is trained but not measured (its result was removed, or never written) is only measured.
        """
        checkpoint = self.folder / "checkpoints" / name
        run = RungRun(
            folder=self.folder,
            rung=name,
            parallel=self.parallel,
            progress=self.display,
            seed=self.recipe.seed,
            on_save=self.clock.keep,
        )
        result_file, cost_file = (self.folder / "rungs" / f"{name}{end}.json" for end in ("", "-cost"))
        trained, finished = self.parallel.gather(
            (checkpoint.is_dir() and cost_file.is_file(), checkpoint.is_dir() and result_file.is_file())
        )[0]
        done = trained or finished
        source = checkpoint if done else self.folder / "checkpoints" / start_from if start_from else None
        if source is not None:
            load_weights(self.policy.model, source)
        if finished:
            run.discard()
            self._reload(name)
            return
        self.display.start(name)
        self._freeze(rung)
        cost = TrainingCost(**read_json(cost_file)) if trained else None
        if trained:
            run.forget_evaluation()
        if cost is None and start_from is None:
            cost = cache.restore(self.recipe, name, self.policy)
        if cost is None:
            cost = self._train(name, rung, run)
            self._train_in(self.policy.compute_dtype)
        if self.parallel.is_main and not trained:
            save_checkpoint(self.policy.model, self.policy.processor, checkpoint)
            if isinstance(rung, SearchRung):
                searching.settings_of(rung).save(checkpoint)
            write_json(cost_file, asdict(cost))
            if start_from is None:
                cache.store(self.recipe, checkpoint, cost)
        self.costs[name] = cost
        self._evaluate(name, rung, start_from, cost, checkpoint)
        if self.parallel.is_main:
            run.discard()
            self.clock.keep()
        # Every process needs the same starting point.
        self.parallel.barrier()

    def _freeze(self, rung: Rung) -> None:
        """Let the rung's parameters train and no other."""
        trains_vision = isinstance(rung, SftRung) and rung.train_vision
        lora = self.recipe.model.lora is not None
        for name, parameter in self.policy.model.named_parameters():
            parameter.requires_grad_(".lora_" in name or not lora)
        if self.recipe.model.freeze_vision and not trains_vision:
            freeze_vision(self.policy.model, self.policy.family)

    def _train(self, name: str, rung: Rung, run: RungRun) -> TrainingCost:
        self._train_in(torch.float32)
        if isinstance(rung, SftRung):
            return self._train_supervised(name, rung, run)
        if isinstance(rung, SearchRung):
            return self._train_search(name, rung, run)
        return self._train_rl(name, rung, run)

    def _train_rl(self, name: str, rung: RlRung, run: RungRun, **options: Any) -> TrainingCost:
        algorithm = self.algorithms[name]
        reference = copy.deepcopy(self.policy).eval() if algorithm.needs_reference else None
        search = isinstance(rung, SearchRung)
        stages: dict[str, Sequence[Sample]] = {
            stage: self.data.prompts(f"{name}/{stage}", rung.samples, settings.mix, search=search)
            for stage, settings in rung.stages.items()
        }
        if isinstance(rung, SearchRung):
            stages = {stage: searching.Instructed(rung, prompts) for stage, prompts in stages.items()}
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
            **options,
        )

    def _train_search(self, name: str, rung: SearchRung, run: RungRun) -> TrainingCost:
        """The cold start, where the rung has one, then constrained RL."""
        place = searching.environment(rung, searching.retriever(rung, self.data.world, "train"), self.policy)
        start = rung.cold_start
        before = None if start is None else self._imitate_search(name, rung, start, place, run.phase("cold-start"))
        how = searching.conduct(rung, place, temperature=rung.temperature, n=rung.group_size)
        cost = self._train_rl(name, rung, run, conducts={SEARCH_LABEL: how}, shaper=HonestConfidence(rung.constraint))
        return cost if before is None else before + cost

    def _imitate_search(
        self, name: str, rung: SearchRung, start: ColdStart, place: SearchEnvironment, run: RungRun
    ) -> TrainingCost:
        plain = encode_response(self.policy, self.data.format)
        samples = searching.Instructed(rung, self.data.demonstrations(run.rung, start))
        encode = searching.encode_search(self.policy, place, start, f"{run.seed}/{run.rung}", plain)
        data = Demonstrations(self.policy, encode, samples)
        term = stated_confidence(self.policy, start.brier_weight, data) if start.brier_weight else None
        return train_sft(self.policy, Replicated(self.policy, self.parallel), start, data, run, auxiliary=term)

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
        data = Demonstrations(self.policy, encode_response(self.policy, self.data.format), samples)
        backend = Replicated(self.policy, self.parallel)
        if not rung.grounding_weight or self.data.world is None:
            return train_sft(self.policy, backend, rung, data, run)
        torch.manual_seed(self.recipe.seed)
        size = self.policy.family.text_model(self.policy.model).config.hidden_size
        probe = GroundingProbe(size, (WHAT_CLASSES, COLOUR_CLASSES, SIZE_CLASSES)).to(self.policy.device)
        self.policy.probe = probe
        try:
            term = grounding(probe, rung.grounding_weight, data, self.data.world.cell_targets)
            return train_sft(self.policy, backend, rung, data, run, auxiliary=term)
        finally:
            del self.policy.probe

    def _control(self, first: str, base: SftRung) -> SftRung:
        """The base's own rung, for as many FLOPs as the ladder took.

        Search rungs are left out: they buy another skill than the two that the control is compared on. Twice the batch
        in half the steps is the same work in less time.
        """
        rungs = self.recipe.rungs
        climbed = [n for n in rungs if n != first and not isinstance(rungs[n], SearchRung)]
        spent = sum(self.costs[name].flops for name in climbed)
        steps = max(1, round(base.steps * spent / self.costs[first].flops / 2))
        # A constant, low rate: the base ended its schedule, and a full restart would first undo it.
        optimizer = base.optimizer.model_copy(
            update={
                "learning_rate": base.optimizer.learning_rate * 0.3,
                "adamw_learning_rate": (base.optimizer.adamw_learning_rate or base.optimizer.learning_rate) * 0.3,
                "warmup_steps": min(base.optimizer.warmup_steps, steps // 10),
            }
        )
        return base.model_copy(update={"steps": steps, "batch_size": 2 * base.batch_size, "optimizer": optimizer})

    def _held_out_search(self, rung: SearchRung) -> calibrate.HeldOutSearch:
        source = searching.retriever(rung, self.data.world, "heldout")
        return calibrate.HeldOutSearch(
            recipe=self.recipe,
            rung=rung,
            engine=LocalEngine(self.policy),
            held_out=searching.Instructed(rung, self.held_out_searches),
            place=searching.environment(rung, source, self.policy),
            judge=self.judge,
            plain=self.data.format,
        )

    def _evaluate(self, name: str, rung: Rung, start_from: str | None, cost: TrainingCost, checkpoint: Path) -> None:
        """Measure the policy. All processes vote; the first one does the rest."""
        self.display.note(name, "evaluating")
        self.policy.eval()
        search = self._held_out_search(rung) if isinstance(rung, SearchRung) else None
        votes = search.vote(self.parallel) if search is not None else {}
        if not self.parallel.is_main:
            return
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
        searched = search.measure(self.folder, name, checkpoint, votes) if search is not None else None
        result = evaluate.result(self.recipe, name, rollouts, before, cost, log, searched)
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

    def report(self, first: str) -> None:
        """Write report.json, report.html and trajectory.png."""
        rungs = [self.results[name] for name in self.recipe.rungs]
        control = self.results.get(CONTROL)
        report = build_report(
            recipe=self.recipe.name,
            seed=self.recipe.seed,
            wall_seconds=self.clock.kept,
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
