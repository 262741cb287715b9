"""Treble Counterfactual against a planted language prior, and the direct effects that tell whether there is one.

    python benchmarks/treble.py --run runs/demo --seed 0

From the run's base a model first learns presence questions on scenes in which a partner is there as often as not: it
can see. Then it goes on as "prior", in whose scenes partners occur together 97 times out of a hundred, or as "control",
on more of the same. Directions come from scenes of the training split, their strengths from held-out scenes that the
figures are not from.
POPE protocol (arXiv 2305.10355): as many questions about present as about absent objects; hallucination error is the
share of absent objects that are not denied. A reply that says neither yes nor no counts as wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from safeladder.config.rungs import SftRung
from safeladder.config.sections import Optimizer
from safeladder.models.load import freeze_vision, load_checkpoint, save_checkpoint
from safeladder.models.policy import Policy
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.parse import ResponseFormat
from safeladder.steering.direction_data import contrasts, demonstrations
from safeladder.steering.directions import Directions
from safeladder.steering.effects import measure
from safeladder.steering.hooks import steered
from safeladder.steering.treble import treble
from safeladder.steering.vti import Settings, vti
from safeladder.training.parallel import Parallel, Replicated
from safeladder.training.run import RungRun, Silent
from safeladder.training.sft import Demonstrations, encode_response, train_sft
from safeladder.types import GenerationRequest, Sample, SamplingParams
from safeladder.world.families import presence

TOGETHER = {"prior": 0.97, "control": 0.5}
_BATCH = 24
_SEEING, _PLANTING = (150, 0.006), (60, 0.004)
"""Steps and Muon's learning rate of the two phases; AdamW's is 0.4 times as large."""
_BUDGET = SamplingParams(max_new_tokens=6, temperature=0.0)


def planted(base: Path, name: str, seed: int) -> tuple[Policy, float]:
    """A model of the base trained on presence questions, and the CPU seconds it took."""
    model, processor, family = load_checkpoint(base)
    freeze_vision(model, family)
    policy = Policy(model, processor, family)
    began = time.process_time()
    for (steps, rate), items in ((_SEEING, scenes("control", seed, start=0)), (_PLANTING, scenes(name, seed))):
        taught(policy, items, steps, rate, seed)
    return policy.eval(), time.process_time() - began


def taught(policy: Policy, items: Sequence[Sample], steps: int, rate: float, seed: int) -> None:
    """Supervised training on presence questions, in place."""
    rung = SftRung(
        steps=steps,
        batch_size=_BATCH,
        checkpoint_every=steps,
        optimizer=Optimizer(
            name="muon",
            learning_rate=rate,
            adamw_learning_rate=0.4 * rate,
            betas=(0.9, 0.98),
            warmup_steps=10,
            schedule="wsd",
            minimum_ratio=0.02,
        ),
    )
    data = Demonstrations(policy, encode_response(policy, ResponseFormat()), items)
    with tempfile.TemporaryDirectory() as folder:
        parallel = Parallel()
        run = RungRun(Path(folder), "presence", parallel, Silent(), seed)
        train_sft(policy, Replicated(policy, parallel), rung, data, run)


def scenes(name: str, seed: int, start: int = _SEEING[0] * _BATCH) -> list[Sample]:
    """Training scenes of a phase: the second one's, or from 0 on the first one's."""
    steps = _PLANTING[0] if start else _SEEING[0]
    return presence.presence_items("train", steps * _BATCH, seed=seed, together=TOGETHER[name], start=start)


def models(options: argparse.Namespace, name: str) -> LocalEngine:
    """The planted model, trained or read from `--keep`."""
    kept = options.keep / f"{name}-{options.seed}" if options.keep else None
    if kept is None or not kept.is_dir():
        policy, seconds = planted(options.run / "checkpoints" / "base", name, options.seed)
        print(f"{name}: {_SEEING[0]} + {_PLANTING[0]} steps in {seconds:.0f} s of CPU", file=sys.stderr, flush=True)
        if kept is None:
            return LocalEngine(policy)
        save_checkpoint(policy.model, policy.processor, kept)
    engine = LocalEngine.load(str(kept))
    freeze_vision(engine.policy.model, engine.policy.family)
    return engine


def pope(engine: LocalEngine, items: Sequence[Sample]) -> list[str | None]:
    """What the model says about each item's object."""
    asked = [GenerationRequest(sample=s, prompt_ids=engine.prompt_ids(s)) for s in items]
    replies = engine.generate(asked, _BUDGET, seed=0)
    return [
        presence.verdict(engine.decode(reply[0].token_ids), sample.meta["asked"][0])
        for sample, reply in zip(items, replies, strict=True)
    ]


class Result:
    """Verdicts on the three protocols' items, and the rates of POPE."""

    def __init__(self, engine: LocalEngine, sets: dict[str, list[Sample]]) -> None:
        flat = list({item.id: item for items in sets.values() for item in items}.values())
        said = dict(zip((item.id for item in flat), pope(engine, flat), strict=True))
        self.wrong = {
            name: [(s.group_id, truth(s), said[s.id] != truth(s), said[s.id] is None) for s in items]
            for name, items in sets.items()
        }

    def rows(self, protocol: str | None = None) -> list[tuple[str, str, bool, bool]]:
        return [row for name, rows in self.wrong.items() if protocol in (None, name) for row in rows]

    def hallucination(self, protocol: str | None = None) -> float:
        """Share of absent objects that are not denied."""
        return float(np.mean([wrong for _, right, wrong, _ in self.rows(protocol) if right == "no"]))

    def missed(self, protocol: str | None = None) -> float:
        """Share of present objects that are not affirmed."""
        return float(np.mean([wrong for _, right, wrong, _ in self.rows(protocol) if right == "yes"]))

    def accuracy(self, protocol: str | None = None) -> float:
        return float(np.mean([not wrong for _, _, wrong, _ in self.rows(protocol)]))

    def unparsed(self) -> int:
        return sum(none for _, _, _, none in self.rows())


def truth(sample: Sample) -> str:
    return str(sample.reference).split()[-1]


def compared(before: Result, after: Result, *, draws: int = 2000) -> dict[str, tuple[float, float, float]]:
    """Relative fall of the hallucination error and change of accuracy, with bootstrap intervals over scenes."""
    groups = list(dict.fromkeys(group for group, *_ in before.rows()))
    index = {group: i for i, group in enumerate(groups)}

    def sums(result: Result, absent: bool) -> np.ndarray:
        out = np.zeros(len(groups))
        for group, right, wrong, _ in result.rows():
            out[index[group]] += wrong if not absent or right == "no" else 0
        return out

    picks = np.random.default_rng(0).integers(len(groups), size=(draws, len(groups)))
    old, new = (sums(r, True) for r in (before, after))
    fall = 1 - new[picks].sum(axis=1) / np.maximum(old[picks].sum(axis=1), 1)
    count = len(before.rows())
    change = (sums(before, False) - sums(after, False)) / count
    changes = change[picks].sum(axis=1)
    return {
        "fall": (1 - new.sum() / max(old.sum(), 1), *np.quantile(fall, [0.025, 0.975])),
        "accuracy": (change.sum(), *np.quantile(changes, [0.025, 0.975])),
    }


def under(engine: LocalEngine, directions: Directions | None, sets: dict[str, list[Sample]]) -> Result:
    if directions is None:
        return Result(engine, sets)
    with steered(engine, directions):
        return Result(engine, sets)


GRID = {
    "treble": [
        {"NV": 0.9, "NT": text, "NVT": cross}
        for text in (0.0, 0.9, 1.8, 3.6, 4.2, 4.8, 5.4)
        for cross in (0.0, 0.9, 1.35, 1.8, 2.25, 2.7)
    ],
    "vti": [{"vision": 0.9, "text": text} for text in (0.9, 1.8, 3.6, 5.4, 7.2)],
}
"""Strengths that are tried, at the published scale of 0.1; the published strength is 0.9 for all."""


def chosen(
    engine: LocalEngine, directions: Directions, grid: list[dict[str, float]], sets: dict[str, list[Sample]]
) -> tuple[str, Directions]:
    """The strengths of the lowest hallucination error whose accuracy is no lower than without directions."""
    plain = Result(engine, sets)
    found = [(plain.hallucination(), -plain.accuracy(), dict.fromkeys(grid[0], 0.0))]
    for strengths in grid:
        result = under(engine, directions.with_strength(strengths), sets)
        found.append((result.hallucination(), -result.accuracy(), strengths))
    for error, accuracy, strengths in found:
        print(f"  validation {strengths}: {error:.3f}, {-accuracy:.3f}", file=sys.stderr, flush=True)
    kept = [row for row in found if -row[1] >= plain.accuracy()]
    best = min(kept, key=lambda row: row[:2])[2]
    return ", ".join(f"{name} {value:g}" for name, value in best.items()), directions.with_strength(best)


def line(name: str, result: Result, before: Result) -> str:
    cells = [f"{result.hallucination(p):.3f}" for p in presence.PROTOCOLS]
    moved = compared(before, result)
    fall, change = moved["fall"], moved["accuracy"]
    return (
        f"| {name} | {' | '.join(cells)} | {result.hallucination():.3f} | {result.missed():.3f} | "
        f"{result.accuracy():.3f} | {100 * fall[0]:+.0f} % ({100 * fall[1]:+.0f} to {100 * fall[2]:+.0f}) | "
        f"{100 * change[0]:+.1f} ({100 * change[1]:+.1f} to {100 * change[2]:+.1f}) | {result.unparsed()} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a climb")
    parser.add_argument("--seed", type=int, default=0, help="of training and scenes (default: 0)")
    parser.add_argument("--scenes", type=int, default=150, help="held-out scenes to test on (default: 150)")
    parser.add_argument("--keep", type=Path, help="keep the two trained models there, or read them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    engines = {name: models(options, name) for name in TOGETHER}
    engine = engines["prior"]
    statistics = presence.statistics_of(scenes("prior", options.seed))
    validation, test = (
        {p: presence.pope_items(p, n, statistics, seed=options.seed, start=start) for p in presence.PROTOCOLS}
        for n, start in ((100, options.scenes), (options.scenes, 0))
    )
    demos = demonstrations("world", 50, options.seed)
    began = time.process_time()
    found = {
        "treble": treble(engine.policy, demos, Settings(trials=10, seed=options.seed)),
        "vti": vti(engine.policy, demos, Settings(trials=10, seed=options.seed, perturbation="masked")),
    }
    print(f"directions: {time.process_time() - began:.0f} s of CPU", file=sys.stderr, flush=True)
    plain = Result(engine, test)
    print(
        f"\nPOPE on {options.scenes} held-out scenes, {len(plain.rows())} questions; hallucination error by protocol\n"
    )
    print("| model | random | popular | adversarial | all | missed | accuracy | fall | accuracy, points | unparsed |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print(line("control", Result(engines["control"], test), plain))
    print(line("prior", plain, plain))
    treated = found["treble"]
    for method, directions in found.items():
        label, best = chosen(engine, directions, GRID[method], validation)
        print(line(f"prior + {method} ({label})", under(engine, best, test), plain), flush=True)
        names = [d.name for d in best.items]
        for name in names if method == "treble" else ():
            rest = [n for n in names if n != name]
            print(line(f"… without {name}", under(engine, best.only(*rest), test), plain))
            print(line(f"… {name} alone", under(engine, best.only(name), test), plain), flush=True)
        if method == "treble":
            treated = best
    label, result = biased(engine, validation, test)
    print(line(f"prior, {label}", result, plain))
    print("\nDirect effects on the probability of naming the absent partner\n")
    print("| model | Y | NDE_V | NDE_T | NDE_VT | NIE | TE | n |\n|---|---|---|---|---|---|---|---|")
    rows = contrasts("world", options.scenes, options.seed)
    effects = {name: measure(e, rows) for name, e in engines.items()}
    with steered(engine, treated):
        effects["prior + treble"] = measure(engine, rows)
    for name, estimates in effects.items():
        cells = " | ".join(f"{e.value:+.3f} ({e.low:+.3f} to {e.high:+.3f})" for e in estimates.values())
        print(f"| {name} | {cells} | {estimates['Y'].n} |")


def biased(
    engine: LocalEngine, validation: dict[str, list[Sample]], test: dict[str, list[Sample]]
) -> tuple[str, Result]:
    """The plainest remedy for comparison: a constant taken off the logit of "yes", chosen in the same way."""
    ids = engine.policy.tokenizer(" yes", add_special_tokens=False)["input_ids"]
    before = engine.policy.logit_bias.clone()
    plain, best = Result(engine, validation), (1.0, 0.0)
    for size in (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0):
        engine.policy.logit_bias.copy_(before)
        engine.policy.logit_bias[ids] -= size
        result = Result(engine, validation)
        if result.accuracy() >= plain.accuracy():
            best = min(best, (result.hallucination(), size))
    engine.policy.logit_bias.copy_(before)
    engine.policy.logit_bias[ids] -= best[1]
    result = Result(engine, test)
    engine.policy.logit_bias.copy_(before)
    return f"yes - {best[1]:g}", result


if __name__ == "__main__":
    main()
