"""Treble Counterfactual against a planted language prior, and the direct effects that tell whether there is one.

    python benchmarks/treble.py --run runs/demo --seed 0

From the run's base a model first learns presence questions until it sees: 95 % of the validation questions right. Then
it goes on as "prior", whose demonstrations name the absent partner of what is mentioned half of the time, or as
"control", on the same scenes and questions with true replies. Directions come from scenes of the training split, their
strengths from held-out scenes that the figures are not from.
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

ASSUMED = {"prior": 0.5, "control": 0.0}
_BATCH = 24
_SEEING, _AGAIN, _PLANTING = (150, 0.006), (75, 0.006), (60, 0.004)
"""Steps and Muon's learning rate: of the first phase, of each round that is added to it, of the second phase; AdamW's
rate is 0.4 times as large."""
_BAR, _ROUNDS = 0.95, 6
"""Accuracy on the validation scenes that counts as seeing, and the rounds after which a model that misses it is given
up."""
_PLANTED_FROM = _BATCH * (_SEEING[0] + _ROUNDS * _AGAIN[0])
"""Index of the second phase's first scene."""
_BUDGET = SamplingParams(max_new_tokens=6, temperature=0.0)


def seeing(base: Path, seed: int, validation: dict[str, list[Sample]], into: Path) -> None:
    """Trains a model of the base until it sees and writes it; raises where it does not come to see."""
    policy = loaded(base)
    done = 0
    for steps, rate in (_SEEING, *[_AGAIN] * _ROUNDS):
        items = presence.presence_items("train", steps * _BATCH, seed=seed, start=done * _BATCH)
        taught(policy, items, steps, rate, seed)
        done += steps
        accuracy = Result(LocalEngine(policy.eval()), validation).accuracy()
        print(f"seeing: {done} steps, validation accuracy {accuracy:.3f}", file=sys.stderr, flush=True)
        if accuracy >= _BAR:
            save_checkpoint(policy.model, policy.processor, into)
            return
    raise SystemExit(f"after {done} steps the model sees {accuracy:.3f} of the validation questions; needs {_BAR}")


def loaded(folder: Path) -> Policy:
    model, processor, family = load_checkpoint(str(folder))
    freeze_vision(model, family)
    return Policy(model, processor, family)


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


def scenes(name: str, seed: int) -> list[Sample]:
    """Training scenes of the second phase; prior and control differ in the replies alone."""
    return presence.presence_items(
        "train", _PLANTING[0] * _BATCH, seed=seed, assumed=ASSUMED[name], start=_PLANTED_FROM
    )


def models(options: argparse.Namespace, validation: dict[str, list[Sample]], folder: Path) -> dict[str, LocalEngine]:
    """The two models, trained in `folder` or read from there."""
    began = time.process_time()
    seen = folder / f"seen-{options.seed}"
    if not seen.is_dir():
        seeing(options.run / "checkpoints" / "base", options.seed, validation, seen)
    engines = {}
    for name in ASSUMED:
        kept = folder / f"{name}-{options.seed}"
        if not kept.is_dir():
            policy = loaded(seen)
            taught(policy, scenes(name, options.seed), *_PLANTING, options.seed)
            save_checkpoint(policy.model, policy.processor, kept)
        engines[name] = LocalEngine(loaded(kept).eval())
    print(f"models: {time.process_time() - began:.0f} s of CPU", file=sys.stderr, flush=True)
    return engines


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
        {"NV": vision, "NT": text, "NVT": cross}
        for vision in (0.0, 0.9)
        for text in (0.0, 0.9, 1.8, 2.7, 3.6)
        for cross in (0.0, 0.9, 1.8)
    ],
    "vti": [{"vision": 0.9, "text": text} for text in (0.0, 0.9, 1.8, 2.7, 3.6)],
}
"""Strengths that are tried, at the published scale of 0.1; the published strength is 0.9 for all."""


def tried(
    engine: LocalEngine, directions: Directions, grid: list[dict[str, float]], sets: dict[str, list[Sample]]
) -> list[tuple[float, float, dict[str, float]]]:
    """Hallucination error, accuracy and strengths: without directions, then of every entry of the grid."""
    found = []
    for strengths in (dict.fromkeys(grid[0], 0.0), *grid):
        result = under(engine, directions.with_strength(strengths), sets)
        found.append((result.hallucination(), result.accuracy(), strengths))
        print(f"  validation {strengths}: {found[-1][0]:.3f}, {found[-1][1]:.3f}", file=sys.stderr, flush=True)
    return found


def chosen(found: list[tuple[float, float, dict[str, float]]], names: Sequence[str]) -> dict[str, float]:
    """The strengths of the lowest hallucination error whose accuracy is no lower than without directions, those other
    than `names` being 0."""
    allowed = [row for row in found if all(value == 0.0 for name, value in row[2].items() if name not in names)]
    kept = [row for row in allowed if row[1] >= found[0][1]]
    return min(kept, key=lambda row: (row[0], -row[1], sum(row[2].values())))[2]


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
    parser.add_argument("--keep", type=Path, help="keep the trained models there, or read them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    statistics = presence.statistics_of(scenes("prior", options.seed))
    validation, test = (
        {p: presence.pope_items(p, n, statistics, seed=options.seed, start=start) for p in presence.PROTOCOLS}
        for n, start in ((100, options.scenes), (options.scenes, 0))
    )
    with tempfile.TemporaryDirectory() as folder:
        engines = models(options, validation, options.keep or Path(folder))
    engine = engines["prior"]
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
        rows = tried(engine, directions, GRID[method], validation)
        names = [d.name for d in directions.items]
        subsets = {f"prior + {method}": names}
        if method == "treble":
            subsets |= {f"… without {name}": [n for n in names if n != name] for name in names}
            subsets |= {f"… {name} alone": [name] for name in names}
            print(line("prior + treble, λ = 0.9 for all", under(engine, directions, test), plain), flush=True)
        for label, some in subsets.items():
            strengths = chosen(rows, some)
            shown = ", ".join(f"{name} {strengths[name]:g}" for name in some)
            best = directions.with_strength(strengths)
            if label == "prior + treble":
                treated = best
            print(line(f"{label} ({shown})", under(engine, best, test), plain), flush=True)
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
