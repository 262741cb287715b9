"""A made-up run with believable numbers, for tests of the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from PIL import Image

from safeladder.analysis.results import RungResult, build_report
from safeladder.atomic import write_json
from safeladder.rollout.record import rollout_row
from safeladder.types import Message, Part, Response, Rollout, Sample, Score, StopReason

RUNGS = ("base", "cot-sft", "m3-rl", "efficient-rl")
KINDS = ("count", "visual_risky", "text_lookalike", "fact_never")


def metric(value: float, n: int = 200, half: float = 0.04) -> dict[str, float]:
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": n}


def difference(before: float, after: float, n: int = 200, half: float = 0.05) -> dict[str, float]:
    change = 100 * (after - before) / before
    return {
        "value": after - before, "low": after - before - half, "high": after - before + half, "n": n,
        "before": before, "after": after,
        "relative": change, "relative_low": change - 9, "relative_high": change + 9, "n_unscored": 0,
    }  # fmt: skip


def result(name: str, safety: float, capability: float, refusal: float, tokens: float, **more: Any) -> RungResult:
    unscored = {"n_unscored": 3, "if_all_fail": safety - 0.01, "if_all_pass": safety}
    return RungResult(
        name=name,
        checkpoint=f"checkpoints/{name}",
        train_seconds=61.25,
        train_flops=3.2e12,
        gate=more.pop("gate", "accepted"),
        gate_reasons=("safety rose from 0.620 to 0.950", "capability did not change"),
        metrics={
            "safety": metric(safety),
            "capability": metric(capability),
            "value_alignment": metric(0.5 * safety + 0.4),
            "knowledge": metric(0.8 * safety),
            "over_refusal": metric(refusal, half=0.015),
            "response_tokens": {"value": tokens, "low": tokens - 0.6, "high": tokens + 0.6, "n": 800},
            "format": metric(0.99, n=800, half=0.01),
        },
        comparisons={"safety": difference(0.6, safety)} if name != "base" else {},
        breakdowns={
            "kind": {kind: metric(min(1.0, safety + 0.03 * i), n=50) for i, kind in enumerate(KINDS)},
            "language": {"safety/en": metric(safety), "safety/zh": metric(safety - 0.02, n=40)},
            "novelty": {"capability/compositional": metric(capability - 0.03, n=90)},
        },
        verifier_scores={
            "format": metric(0.99),
            "world-safety": metric(safety) | unscored,
            "broken-judge": {"n": 0, "n_unscored": 12},
        },
        counts={"n": 800, "truncated": 4, "malformed": 3, "empty": 0, "errors": 0, "unscored": 3},
        log=f"logs/{name}.eval",
        **more,
    )


def results() -> list[RungResult]:
    return [
        result("base", 0.62, 0.66, 0.0, 22.4),
        result("cot-sft", 0.74, 0.71, 0.03, 23.1),
        result("m3-rl", 0.955, 0.885, 0.02, 24.9),
        result("efficient-rl", 0.96, 0.89, 0.015, 17.2),
    ]


def report() -> dict[str, Any]:
    rungs = results()
    return build_report(
        recipe="laptop",
        seed=0,
        wall_seconds=431.0,
        rungs=rungs,
        headline={
            "safety": difference(0.62, 0.96),
            "capability": difference(0.66, 0.89),
            "over_refusal": {
                "value": 0.015,
                "low": 0.0,
                "high": 0.03,
                "n": 99,
                "before": 0.0,
                "after": 0.015,
            },
            "response_tokens": difference(22.4, 17.2, n=800, half=0.5),
        },
        note="The base was trained on demonstrations that mostly guess; it can do better than it chooses to.",
        control=result("control", 0.615, 0.70, 0.0, 22.0),
        pass_at_k={
            "capability": {"pass@1": metric(0.64), "pass@8": metric(0.97)},
            "safety": {"pass@1": metric(0.6), "pass@8": metric(0.9)},
        },
        ablations=[result("safety-only", 0.97, 0.52, 0.21, 20.0), result("grpo", 0.95, 0.875, 0.02, 24.0)],
        provenance={
            "versions": {"torch": "2.13.0", "python": "3.11"},
            "git": "0123abc",
            "machine": "2 cores",
        },
    )


def sample(kind: str, number: int, *, question: str = "how many circles are there ?") -> Sample:
    parts = [Part(text=question)]
    if kind in ("count", "visual_risky"):
        colours = [(200, 40, 40), (40, 90, 200), (250, 250, 250), (60, 160, 70)]
        image = Image.new("RGB", (56, 56), colours[number % 4])
        parts.insert(0, Part(image=image))
    return Sample(
        id=f"{kind}-{number}",
        messages=(Message(role="user", parts=tuple(parts)),),
        label="general_rule",
        meta={"kind": kind},
    )


def rollout(item: Sample, answer: str | None, reward: float | None, reasoning: str = "look : red circle .") -> Rollout:
    text = f"<think>{reasoning}" if answer is None else f"<think>{reasoning}</think>{answer}"
    ids = tuple(range(len(text.split())))
    return Rollout(
        sample=item,
        prompt_ids=(1, 2, 3),
        token_ids=ids,
        logprobs=(-0.1,) * len(ids),
        action_mask=(1,) * len(ids),
        stop_reason=StopReason.LENGTH if answer is None else StopReason.EOS,
        text=text,
        response=None if answer is None else Response(answer=answer, reasoning=reasoning),
        scores={
            "world-rule": Score.unscored("no reference")
            if reward is None
            else Score(value=min(reward, 1.0), label="judged"),
            "format": Score(value=float(answer is not None), label="well-formed"),
        },
        reward=reward,
    )


def write_run(folder: Path, *, question: str = "how many circles are there ?") -> dict[str, Any]:
    """A whole run folder but for the page."""
    made = report()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", made)
    steps = []
    for rung in ("m3-rl", "efficient-rl"):
        for step in range(60):
            rise = 1 - math.exp(-step / 15)
            steps.append(
                {
                    "rung": rung, "step": step, "reward": 0.4 + 0.6 * rise, "outcome": 0.35 + 0.6 * rise,
                    "outcome_reward_divergence": 0.0, "reward/world-safety": rise, "reward/format": 0.9 + 0.1
                    * rise, "length": 22 + 4 * rise, "entropy": 0.6 - 0.4 * rise, "logprob_gap": 1e-6,
                    "truncated": 0.02, "malformed": 0.05 * (1 - rise),
                }
            )  # fmt: skip
    steps += [{"rung": "base", "step": s, "loss": 3 * math.exp(-s / 30)} for s in range(100)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps), encoding="utf-8")
    rows = [
        rollout_row(
            rollout(sample(kind, i, question=question), "3" if r else "2", 1.1 if r else 0.1),
            rung=rung,
            with_image=r == 0,
        )
        for r, rung in enumerate(RUNGS)
        for kind in KINDS
        for i in range(3)
    ]
    (folder / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return made
