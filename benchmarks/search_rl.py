"""What the constraint buys: one checkpoint, the same search rung with different controllers of λ, one table.

    python benchmarks/search_rl.py RUN [--seeds 0 1 2] [--variants adaptive fixed none] [--steps 50] [--out DIR]

RUN is a finished run of a recipe with a search rung, such as runs/demo. Every variant starts from the checkpoint
that the rung started from there, with the recipe it ran by, except for `constraint`:

    adaptive          as in the recipe
    fixed             λ stays at `constraint.initial`
    none              λ = 0: accuracy and format are all that pays
    adaptive-brier    as in the recipe, with the Brier score in place of the threshold

`--steps` lengthens (or shortens) every stage's RL to so many steps. Variants of a seed share the cold start, which does
not depend on λ: the first one's is handed to the others. Runs that are there already are read, not repeated. After a
change of RUN or of options give another --out.

The table pools the held-out searches of all seeds; intervals are 95 % (Wilson, or a bootstrap over questions). A false-
certain rate counts only beside accuracy and coverage. Safety and capability are means over the seeds.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from safeladder.analysis.calibration import calibration_report
from safeladder.analysis.calibration_rows import Outcome, read_outcomes
from safeladder.analysis.results import format_number, format_percent, read_json
from safeladder.atomic import write_json
from safeladder.config import Recipe, SearchRung, load_recipe
from safeladder.types import SafeladderError

VARIANTS: dict[str, dict[str, Any]] = {
    "adaptive": {},
    "fixed": {"controller": "fixed"},
    "none": {"controller": "none"},
    "adaptive-brier": {"reliability": "brier"},
}
COLUMNS = ("false_certain", "accuracy", "coverage_answerable", "auroc", "reliability", "searches", "reads")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["adaptive", "fixed", "none"])
    parser.add_argument("--steps", type=int, help="RL steps of each stage (default: the recipe's)")
    parser.add_argument("--samples", type=int, default=400, help="held-out searches a run (default: 400)")
    parser.add_argument("--out", type=Path, default=Path("runs/search-rl"))
    options = parser.parse_args()
    recipe = load_recipe(options.run / "recipe.yaml")
    name, before = search_rung(recipe)
    for seed in options.seeds:
        climb(options, recipe, name, options.run / "checkpoints" / before, seed)
    reports = {variant: pooled(options, name, variant) for variant in options.variants}
    ladders = {variant: [_report(options, variant, seed) for seed in options.seeds] for variant in options.variants}
    start = next(rung for rung in read_json(options.run / "report.json")["rungs"] if rung["name"] == before)
    print(f"Seeds {', '.join(map(str, options.seeds))}, from {before} of {options.run}.\n")
    print(table(reports, ladders, start))
    write_json(options.out / "search_rl.json", {"from": str(options.run), "seeds": options.seeds, "variants": reports})


def search_rung(recipe: Recipe) -> tuple[str, str]:
    """The recipe's search rung, and the rung it starts from."""
    names = list(recipe.rungs)
    for position, (name, rung) in enumerate(recipe.rungs.items()):
        if isinstance(rung, SearchRung) and position:
            return name, rung.start_from or names[position - 1]
    raise SafeladderError(f"recipe {recipe.name} has no rung of kind search with a rung before it")


def climb(options: argparse.Namespace, recipe: Recipe, name: str, checkpoint: Path, seed: int) -> None:
    """Train and measure every variant of one seed that is not there yet."""
    kept = options.out / f"cold-start-{seed}"
    given: Path | None = None
    for variant in options.variants:
        folder = options.out / f"{variant}-{seed}"
        if (folder / "report.json").is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        file = options.out / f"{variant}-{seed}.yaml"
        file.write_text(yaml.safe_dump(_variant(recipe, name, checkpoint, variant, seed, options)))
        state = folder / "state" / f"{name}.cold-start"
        if given is not None and not state.exists():
            shutil.copytree(given, state)
        command = [sys.executable, "-m", "safeladder", "climb", str(file), "--out", str(folder), "--resume"]
        with subprocess.Popen(command) as process:
            while process.poll() is None:
                time.sleep(0.5)
                # The rung's state goes with its end, so what the others need is taken while it trains.
                if given is None and _ended(state, recipe.rungs[name]):
                    shutil.rmtree(kept, ignore_errors=True)
                    given = shutil.copytree(state, kept)
        if process.returncode:
            sys.exit(process.returncode)


def _ended(state: Path, rung: Any) -> bool:
    latest = state / "LATEST"
    steps = rung.cold_start.steps if rung.cold_start else 0
    return latest.is_file() and latest.read_text(encoding="utf-8") == f"step-{steps:06d}"


def _variant(
    recipe: Recipe, name: str, checkpoint: Path, variant: str, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """The recipe as it was, from the checkpoint on, with one rung."""
    plain = recipe.model_dump(mode="json")
    rung = {**plain["rungs"][name], "start_from": None}
    rung["constraint"] |= VARIANTS[variant]
    if options.steps is not None:
        rung["stages"] = {stage: {**about, "steps": options.steps} for stage, about in rung["stages"].items()}
    return plain | {
        "name": f"{recipe.name}-{variant}",
        "seed": seed,
        "model": {**plain["model"], "path": str(checkpoint.resolve())},
        "rungs": {name: rung},
        "control": {"enabled": False},
        "evaluation": {**plain["evaluation"], "search_samples": options.samples, "pass_at_k_samples": 1},
        "base_cache": None,
    }


def _report(options: argparse.Namespace, variant: str, seed: int) -> dict[str, Any]:
    return read_json(options.out / f"{variant}-{seed}" / "report.json")


def pooled(options: argparse.Namespace, name: str, variant: str) -> dict[str, Any]:
    """The calibration report of a variant's held-out searches of all seeds."""
    outcomes: list[Outcome] = []
    for seed in options.seeds:
        rows = read_outcomes(options.out / f"{variant}-{seed}" / "search" / f"{name}.jsonl")
        outcomes += [replace(o, group=f"{seed}/{i if o.group is None else o.group}") for i, o in enumerate(rows)]
    return calibration_report(outcomes)


def table(reports: dict[str, dict[str, Any]], ladders: dict[str, list[dict[str, Any]]], start: dict[str, Any]) -> str:
    """Markdown: a row a variant, and what the checkpoint was before."""
    heads = ["false-certain, of all", "accuracy", "coverage of answerable", "AUROC", "reliability", "searches", "reads"]
    lines = ["| variant | n | " + " | ".join(heads) + " | safety | capability |", "|---" * (len(heads) + 4) + "|"]
    axes = ("safety", "capability")
    before = [format_percent(start["metrics"][axis]["value"]) for axis in axes]
    lines.append("| before | – |" + " – |" * len(heads) + f" {before[0]} | {before[1]} |")
    for variant, report in reports.items():
        after = [_mean([ladder["rungs"][-1]["metrics"][axis]["value"] for ladder in ladders[variant]]) for axis in axes]
        cells = [_cell(report, column) for column in COLUMNS]
        lines.append(f"| {variant} | {_count(report)} | " + " | ".join([*cells, *after]) + " |")
    for variant, report in reports.items():
        if gain := report.get("votes", {}).get("difference"):
            low, high = (format_percent(gain.get(end, gain["value"])) for end in ("low", "high"))
            lines.append(
                f"\n{variant}: a confidence-weighted vote of {gain['confidence_samples']} against a majority of "
                f"{gain['majority_samples']}: {format_percent(gain['value'])} ({low} to {high})."
            )
    return "\n".join(lines)


def _count(report: dict[str, Any]) -> str:
    left_out = report["total"] - report["n"]
    return f"{report['n']}" + (f" (+ {left_out} left out)" if left_out else "")


def _cell(report: dict[str, Any], name: str) -> str:
    if name not in report:
        return report["undefined"].get(name, "–")
    shown = format_percent if name not in ("auroc", "searches", "reads") else lambda value: format_number(value, 2)
    interval = report["intervals"].get(name, {})
    if "low" not in interval:
        return shown(report[name])
    return f"{shown(report[name])} ({shown(interval['low'])} to {shown(interval['high'])})"


def _mean(values: Sequence[float]) -> str:
    return format_percent(statistics.mean(values))


if __name__ == "__main__":
    try:
        main()
    except SafeladderError as error:
        sys.exit(f"search_rl: error: {error}")
