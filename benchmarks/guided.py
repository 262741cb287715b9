"""What guided decoding gains and costs on the held-out world, against plain, best-of-N and beam decoding.

    python benchmarks/guided.py --run runs/demo [--rung base] [--guidance DIR] [--items 400] [--seed 0]
                                [--arms plain guided-4 best-of-8 ...] [--out runs/guided]

RUN is a run folder of `safeladder climb`; the value models of a rung are those of `safeladder pvm train
RUN/checkpoints/RUNG` (or --guidance DIR). Items are drawn as the evaluation of the ladder draws them, and measured
by the same code. Arms:

    plain             greedy, as the ladder evaluates
    sampled           one sample at temperature 1
    guided-K          K candidates where the likeliest step is not worth enough, no proposed steps
    proposing-K       the same, and proposed steps by the chosen margins
    best-of-N         N whole replies, the best by the same value models, routing and gamma
    beam-K            K candidates a step, two partial replies at a time
    uniform-K         proposing-K, every value model alike, with thresholds of its own: chosen as `pvm train` chooses
                      those of the routed decoder and by the same training prompts, but one for all principles
    safety-K, value-K, knowledge-K, capability-K
                      proposing-K with one value model alone, with thresholds of its own in the same way

Guided arms are also paired with the best-of-N arms that generate the next fewer and the next more tokens, and
proposing-4 with every other routing. Arms that are in the folder already are read, not repeated. `overall` is the
share of right replies over all items, `acted` that of replies in which more than the likeliest step was considered.
Differences are paired with `plain`; intervals are 95 % (bootstrap over items' groups).
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from safeladder.analysis.results import read_json
from safeladder.atomic import write_json
from safeladder.config import load_recipe
from safeladder.evaluation.gate import compare_all
from safeladder.evaluation.metrics import Bootstrap, paired_difference, rate
from safeladder.evaluation.principles import measure, outcome
from safeladder.ladder.data import LadderData
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.parse import ResponseFormat
from safeladder.steering.baselines import Decoded, beam, best_of_n, plain
from safeladder.steering.guidance import GuidedResult
from safeladder.steering.guidance_choice import choose
from safeladder.steering.guided import GuidedDecoder, load_guidance
from safeladder.steering.routing import one_hot, uniform
from safeladder.steering.value_command import prompts, routers
from safeladder.steering.value_training import verdicts_of
from safeladder.steering.values import PRINCIPLES
from safeladder.types import Rollout, SafeladderError, Sample, SamplingParams
from safeladder.world.judge import judge

ARMS = (
    "plain", "guided-4", "proposing-4", "best-of-4", "best-of-8", "beam-4", "uniform-4", "safety-4", "value-4",
    "knowledge-4", "capability-4",
)  # fmt: skip
METRICS = ("safety", "over_refusal", "capability", "value_alignment", "knowledge")
BATCH = 50
BUDGET = SamplingParams(max_new_tokens=112)
BOOTSTRAP = Bootstrap()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--rung", default="base")
    parser.add_argument("--guidance", type=Path)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--out", type=Path, default=Path("runs/guided"))
    options = parser.parse_args()
    samples = items(options.run, options.items)
    checkpoint = options.run / "checkpoints" / options.rung
    guidance = options.guidance or checkpoint / "steering" / "value-guidance"
    folder = options.out / f"{read_json(guidance / 'guidance.json')['seed']}-{options.rung}-{options.items}"
    folder.mkdir(parents=True, exist_ok=True)
    engine = None
    for arm in options.arms:
        if (folder / f"{arm}.json").is_file():
            continue
        engine = engine or LocalEngine.load(str(checkpoint))
        started = time.perf_counter()
        row = run_arm(arm, engine, guidance, samples, options.seed, folder)
        write_json(folder / f"{arm}.json", {**row, "seconds": time.perf_counter() - started})
        print(f"{arm} done in {time.perf_counter() - started:.0f} s", flush=True)
    print(table(folder, options.arms, samples))


def items(run: Path, count: int) -> list[Sample]:
    """Held-out items, as the ladder draws them for an evaluation of `count`."""
    data = LadderData(load_recipe(run / "recipe.yaml", {"evaluation.samples": str(count)}))
    return [sample for sample in data.held_out() if sample.source == "world"]


def run_arm(
    arm: str, engine: LocalEngine, guidance: Path, samples: Sequence[Sample], seed: int, folder: Path
) -> dict[str, Any]:
    """Replies of one arm with what each cost, and what guidance did on the way."""
    name, _, number = arm.rpartition("-") if arm[-1].isdigit() else (arm, "", "0")
    decoder = load_guidance(guidance, engine)
    names = [model.name for model in decoder.values]
    router = decoder.router
    if name == "uniform":
        router = uniform(names)
    elif name in names:
        router = one_hot(name, names)
    proposals = decoder.config.proposals if name in ("proposing", "uniform", *names) else 0
    config = replace(decoder.config, candidates=max(1, int(number)), proposals=proposals)
    decoder = GuidedDecoder(decoder.engine, decoder.values, router, config, tokenizer=engine.policy.tokenizer)
    if name in ("uniform", *names):
        about = read_json(guidance / "guidance.json")
        _, choice, _ = prompts(about["data"], about["drawn"], about["seed"])
        file = folder / f"{arm}-choice.jsonl"
        choose(decoder, choice, verdicts_of(routers()), BUDGET, file, seed=about["seed"], together=True)
        config = decoder.config
    replies: list[Decoded | GuidedResult] = []
    for start in range(0, len(samples), BATCH):
        chunk = samples[start : start + BATCH]
        if name in ("plain", "sampled"):
            params = replace(BUDGET, temperature=float(name == "sampled"))
            replies += plain(decoder.engine, chunk, params, seed=seed)
        elif name == "best-of":
            n = int(number)
            replies += best_of_n(decoder.engine, chunk, BUDGET, decoder.values, router, n=n, config=config, seed=seed)
        elif name == "beam":
            replies += [beam(decoder, sample, BUDGET, width=2, seed=seed) for sample in chunk]
        elif name in ("guided", "proposing", "uniform", *names):
            replies += decoder.generate_many(chunk, BUDGET, seed=seed)
        else:
            raise SafeladderError(f"unknown arm {arm!r}; see --help")
    rows = [
        {
            "text": reply.text,
            "tokens": len(reply.completion.token_ids),
            "stop_reason": str(reply.completion.stop_reason),
            "generated": reply.cost.generated_tokens,
            "positions": reply.cost.positions,
            "seconds": reply.cost.seconds,
        }
        for reply in replies
    ]
    guided = [reply for reply in replies if isinstance(reply, GuidedResult)]
    trail = [step for reply in guided for step in reply.trail]
    return {
        "replies": rows,
        "acted": sum(any(len(s.candidates) > 1 for s in r.trail) for r in guided),
        "proposed_entered": sum(any(c.source == "proposed" for s in r.trail for c in s.candidates) for r in guided),
        "proposed_kept": sum(r.proposed > 0 for r in guided),
        "decisions": len(trail),
        "thresholds": {key: asdict(own) for key, own in config.thresholds.items()},
    }


def rollouts(row: dict[str, Any], samples: Sequence[Sample]) -> list[Rollout]:
    """An arm's replies for the evaluation's own metrics."""
    form = ResponseFormat()
    found = []
    for sample, reply in zip(samples, row["replies"], strict=True):
        rollout = Rollout.of_text(sample, reply["text"], None)
        reason = type(rollout.stop_reason)(reply["stop_reason"])
        found.append(replace(rollout, stop_reason=reason, response=form.parse(reply["text"], reason)))
    return found


def table(folder: Path, arms: Sequence[str], samples: Sequence[Sample]) -> str:
    """Metrics, paired differences to plain, costs a reply, and what guidance did, as Markdown."""
    found = {arm: read_json(folder / f"{arm}.json") for arm in ("plain", *arms) if (folder / f"{arm}.json").is_file()}
    judged = {arm: rollouts(row, samples) for arm, row in found.items()}
    groups = [sample.group_id for sample in samples]
    n = {name: metric.n for name, metric in measure(judged["plain"], bootstrap=BOOTSTRAP).items()}
    shown = ", ".join(f"{name} {n[name]}" for name in METRICS if name in n)
    lines = [f"{folder.name}: {len(samples)} held-out items ({shown}).", ""]
    lines += ["| arm | overall | " + " | ".join(METRICS) + " | tokens | positions | s |"]
    lines += ["|---|" + "---|" * (len(METRICS) + 4)]
    overall = {arm: [outcome(r).correct or 0.0 for r in rows] for arm, rows in judged.items()}
    for arm, row in found.items():
        metrics = measure(judged[arm], bootstrap=BOOTSTRAP)
        share = rate(overall[arm], groups, bootstrap=BOOTSTRAP)
        cells = [_percent(share), *(_percent(metrics.get(name)) for name in METRICS)]
        for key, digits in (("generated", 1), ("positions", 1), ("seconds", 3)):
            cells.append(f"{sum(r[key] for r in row['replies']) / len(samples):.{digits}f}")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| paired with plain | overall | " + " | ".join(METRICS) + " |",
        "|---|" + "---|" * (len(METRICS) + 1),
    ]
    for arm in list(found)[1:]:
        differences = compare_all(judged["plain"], judged[arm], bootstrap=BOOTSTRAP)
        whole = paired_difference(overall["plain"], overall[arm], groups, bootstrap=BOOTSTRAP)
        cells = [_points(whole), *(_points(differences.get(name)) for name in METRICS)]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    rivals = [arm for arm in found if arm.startswith("best-of")]
    spent = {arm: sum(r["generated"] for r in row["replies"]) for arm, row in found.items()}
    if rivals:
        lines += ["", "| paired with best-of-N | tokens | overall | " + " | ".join(METRICS) + " |"]
        lines += ["|---|" + "---|" * (len(METRICS) + 2)]
    for arm in [arm for arm in found if arm.startswith(("guided", "proposing")) and rivals]:
        below = max((r for r in rivals if spent[r] <= spent[arm]), key=spent.__getitem__, default=None)
        above = min((r for r in rivals if spent[r] > spent[arm]), key=spent.__getitem__, default=None)
        for rival in [r for r in (below, above) if r is not None]:
            differences = compare_all(judged[rival], judged[arm], bootstrap=BOOTSTRAP)
            whole = paired_difference(overall[rival], overall[arm], groups, bootstrap=BOOTSTRAP)
            cells = [_points(whole), *(_points(differences.get(name)) for name in METRICS)]
            ratio = spent[arm] / spent[rival]
            lines.append(f"| {arm} against {rival} | x {ratio:.2f} | " + " | ".join(cells) + " |")
    others = [arm for arm in found if arm.split("-")[0] in ("uniform", *PRINCIPLES) and "proposing-4" in found]
    if others:
        lines += ["", "| proposing-4 paired with | overall | " + " | ".join(METRICS) + " |"]
        lines += ["|---|" + "---|" * (len(METRICS) + 1)]
    for arm in others:
        differences = compare_all(judged[arm], judged["proposing-4"], bootstrap=BOOTSTRAP)
        whole = paired_difference(overall[arm], overall["proposing-4"], groups, bootstrap=BOOTSTRAP)
        lines.append(
            f"| {arm} | " + " | ".join([_points(whole), *(_points(differences.get(m)) for m in METRICS)]) + " |"
        )
    lines += [
        "",
        "| arm | acted | proposed entered | proposed kept | verdicts on risky items |",
        "|---|---|---|---|---|",
    ]
    for arm, row in found.items():
        verdicts = Counter(
            judge(r.sample, r.response).label
            for r in judged[arm]
            if r.sample.meta["kind"] in ("visual_risky", "text_harmful", "jailbreak_harmful")
        )
        said = ", ".join(f"{label} {count}" for label, count in verdicts.most_common())
        counts = " | ".join(str(row[key]) for key in ("acted", "proposed_entered", "proposed_kept"))
        lines.append(f"| {arm} | {counts} | {said} |")
    return "\n".join(lines)


def _percent(metric: Any) -> str:
    return "–" if metric is None else f"{100 * metric.value:.1f} [{100 * metric.low:.1f}, {100 * metric.high:.1f}]"


def _points(difference: Any) -> str:
    if difference is None:
        return "–"
    return f"{100 * difference.value:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
