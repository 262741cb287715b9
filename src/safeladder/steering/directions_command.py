"""`safeladder directions fit`, `effects` and `show`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeladder.arguments import positive
from safeladder.types import SafeladderError

if TYPE_CHECKING:
    from safeladder.models.policy import Policy
    from safeladder.steering.directions import Directions

FOLDER = "steering/treble"
"""Where directions lie in a checkpoint's folder unless told otherwise."""
_METHODS = ("treble", "vti", "mean", "pca", "lda")
_EFFECTS = ("NV", "NT", "NVT")
_PLAIN_EVERY = 10.0
"""Seconds between lines of progress where the output is not a terminal."""


def add_parser(verbs: Any) -> None:
    """Add the verb `directions` with its actions; their `run` takes the parsed options."""
    parser = verbs.add_parser("directions", help="hidden-state directions: fit, measure what they remove, show")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    fit = actions.add_parser(
        "fit", allow_abbrev=False, help="estimate directions on a model", epilog="See docs/directions.md."
    )
    fit.add_argument("model", metavar="MODEL", help="folder of a checkpoint")
    fit.add_argument("--data", required=True, metavar="DATA", help="world, or FILE.jsonl")
    fit.add_argument(
        "--method",
        choices=_METHODS,
        default="treble",
        help="treble, vti: of pictures with a truthful and a false reply; mean, pca, lda: of pairs (default: treble)",
    )
    fit.add_argument(
        "--effects",
        nargs="+",
        choices=_EFFECTS,
        default=list(_EFFECTS),
        metavar="NAME",
        help="of treble: NV, NT, NVT (default: all three)",
    )
    fit.add_argument("--out", metavar="DIR", help=f"folder of the directions (default: MODEL/{FOLDER})")
    fit.add_argument("--n", type=positive, default=50, metavar="N", help="rows used at most (default: 50)")
    fit.add_argument("--seed", type=int, default=42, metavar="N", help="of noise and world items (default: 42)")
    fit.add_argument("--trials", type=positive, default=50, metavar="N", help="noisy copies a picture (default: 50)")
    fit.add_argument(
        "--mode", choices=("norm_preserving", "additive"), default="norm_preserving", help="default: norm_preserving"
    )
    fit.add_argument("--scale", type=float, default=0.1, metavar="X", help="default: 0.1")
    fit.add_argument("--strength", type=float, default=0.9, metavar="X", help="lambda (default: 0.9)")
    fit.set_defaults(run=run_fit)

    effects = actions.add_parser(
        "effects",
        allow_abbrev=False,
        help="how much of an answer comes directly from the picture, from the words, from both",
        epilog="See docs/directions.md.",
    )
    effects.add_argument("model", metavar="MODEL", help="folder of a checkpoint")
    effects.add_argument("--data", required=True, metavar="DATA", help="world, or FILE.jsonl")
    effects.add_argument("--directions", metavar="DIR", help="measure under these directions")
    effects.add_argument("--n", type=positive, default=200, metavar="N", help="rows used at most (default: 200)")
    effects.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of world items and the bootstrap (default: 0)"
    )
    effects.add_argument("--json", action="store_true", help="print JSON")
    effects.set_defaults(run=run_effects)

    show = actions.add_parser("show", allow_abbrev=False, help="what a folder of directions holds")
    show.add_argument("directions", metavar="DIR", help="a folder of `directions fit`")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=run_show)


def run_fit(options: argparse.Namespace) -> int:
    """Estimate and write; returns the exit code.

    Raises:
        SafeladderError: an unusable model, row or folder.
    """
    out = Path(options.out or Path(options.model, FOLDER))
    if out.exists() and not out.is_dir():
        raise SafeladderError(f"--out: {out} is not a folder")
    policy = _policy(options.model)
    with _Progress(f"{options.method} directions") as progress:
        found = _fit(policy, options, progress)
    found.save(out)
    names = ", ".join(f"{d.name} ({len(d.layers)} layers)" for d in found.items)
    print(f"{out}: {names} from {found.items[0].n} rows")
    return 0


def _fit(policy: Policy, options: argparse.Namespace, progress: _Progress) -> Directions:
    from dataclasses import replace

    from safeladder.steering import direction_data
    from safeladder.steering.directions import Directions, fingerprint
    from safeladder.steering.estimating import DirectionEstimator
    from safeladder.steering.treble import treble
    from safeladder.steering.vti import Settings, vti

    chosen = {"mode": options.mode, "scale": options.scale, "strength": options.strength}
    about = {"data": options.data, "method": options.method, "seed": options.seed}
    if options.method in ("treble", "vti"):
        rows = direction_data.demonstrations(options.data, options.n, options.seed)
        settings = Settings(
            perturbation="diffused" if options.method == "treble" else "masked",
            trials=options.trials,
            scale=options.scale,
            strength=options.strength,
            mode=options.mode,
            seed=options.seed,
        )
        if options.method == "treble":
            found = treble(policy, rows, settings, effects=options.effects, progress=progress)
        else:
            found = vti(policy, rows, settings, progress=progress)
        return replace(found, about={**about, "trials": options.trials})
    pairs = direction_data.pairs(options.data, options.n, options.seed)
    direction = DirectionEstimator(policy, method=options.method).fit(pairs, "pairs", **chosen, progress=progress)
    return Directions(family=policy.family.name, model=fingerprint(policy.model), items=(direction,), about=about)


def run_effects(options: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    from contextlib import nullcontext

    from safeladder.rollout.local import LocalEngine
    from safeladder.steering import direction_data
    from safeladder.steering.directions import load_directions
    from safeladder.steering.effects import as_json, measure
    from safeladder.steering.hooks import steered

    rows = direction_data.contrasts(options.data, options.n, options.seed)
    directions = None if options.directions is None else load_directions(options.directions)
    policy = _policy(options.model)
    if directions is not None:
        directions.require(policy.model, policy.family)
    engine = LocalEngine(policy)
    with nullcontext() if directions is None else steered(engine, directions):
        found = measure(engine, rows, seed=options.seed)
    if options.json:
        print(json.dumps(as_json(found)))
        return 0
    print(f"probability of the outcome, {found['Y'].n} questions, 95 % bootstrap intervals")
    for name, estimate in found.items():
        if estimate.value is None:
            print(f"{name:<7} not assessed")
        else:
            print(f"{name:<7} {estimate.value:+.3f}  ({estimate.low:+.3f} to {estimate.high:+.3f})")
    return 0


def run_show(options: argparse.Namespace) -> int:
    """Print what is in a folder of directions; returns the exit code."""
    from safeladder.steering.directions import load_directions

    found = load_directions(options.directions)
    rows = [
        {
            "name": d.name, "tower": d.tower, "layers": len(d.layers), "width": d.vectors.shape[-1], "grid": d.grid,
            "method": d.method, "n": d.n, "mode": d.mode, "scale": d.scale, "strength": d.strength,
        }
        for d in found.items
    ]  # fmt: skip
    if options.json:
        summary = {"family": found.family, "model": found.model, "about": dict(found.about), "directions": rows}
        print(json.dumps(summary))
        return 0
    print(f"{found.family} model {found.model}; {json.dumps(dict(found.about), ensure_ascii=False)}")
    for row in rows:
        grid = "" if row["grid"] is None else f", {row['grid'][0]} x {row['grid'][1]} places"
        print(
            f"{row['name']:<6} {row['tower']:<8} {row['layers']} layers of width {row['width']}{grid}; "
            f"{row['method']}, n = {row['n']}; {row['mode']}, scale {row['scale']:g}, strength {row['strength']:g}"
        )
    return 0


def _policy(model: str) -> Policy:
    from safeladder.models.load import load_checkpoint
    from safeladder.models.policy import Policy

    loaded, processor, family = load_checkpoint(model)
    return Policy(loaded, processor, family).eval()


class _Progress:
    """A bar on a terminal, a line now and then elsewhere."""

    def __init__(self, name: str) -> None:
        self._name, self._last = name, time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True))
            self._task = self._bar.add_task(self._name, total=None)
            self._bar.start()
        return self

    def __call__(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._last > _PLAIN_EVERY:
            self._last = time.monotonic()
            print(f"{self._name}: {done} of {total}", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
