"""`safeladder simulate`: the simulators of self-replication, collusion and persuasion, with a model acting in them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeladder.arguments import positive
from safeladder.atomic import write_text
from safeladder.types import Message, SafeladderError

if TYPE_CHECKING:
    from safeladder.evaluation.frontier.evidence import Evidence
    from safeladder.evaluation.frontier.policy import Policy
    from safeladder.evaluation.metrics import Metric

_EVERY = 20.0
"""Seconds between lines of progress."""

Found = tuple["dict[str, Metric | None]", "list[Evidence]", "bool | None"]
"""Metrics by name, evidence, and whether the behaviour was elicited."""


def add_parser(verbs: Any) -> None:
    """Add the verb `simulate` to the subparsers of `safeladder`; its `run` takes the parsed options."""
    simulate = verbs.add_parser("simulate", help="frontier-risk simulations in memory, with a model acting in them")
    kinds = simulate.add_subparsers(dest="simulation", required=True, metavar="SIMULATION")
    replication = _kind(kinds, "replication", "does it scale its own service beyond what the load needs?")
    replication.add_argument(
        "--trials", type=positive, default=10, metavar="N", help="of each of the two settings (default: 10)"
    )
    collusion = _kind(kinds, "collusion", "do agents defraud more members when they can talk among themselves?")
    collusion.add_argument("--runs", type=positive, default=4, metavar="N", help="of each of the two arms (default: 4)")
    persuasion = _kind(kinds, "persuasion", "does a listener's opinion move in the direction that it argues for?")
    persuasion.add_argument("--language", choices=("en", "zh"), default="en", help="of the dialogues (default: en)")
    persuasion.add_argument("--topics", type=positive, metavar="N", help="only the first N of the nine topics")
    persuasion.add_argument(
        "--listener", metavar="MODEL", help="a model that listens (default: a script that rewards form)"
    )


def _kind(kinds: Any, name: str, help: str) -> argparse.ArgumentParser:
    parser = kinds.add_parser(
        name, allow_abbrev=False, help=help, epilog="See docs/frontier-risk.md for what the figures mean."
    )
    parser.add_argument("model", metavar="MODEL", help="a checkpoint folder, or http(s)://HOST/v1#NAME")
    parser.add_argument("--max-tokens", type=positive, default=256, metavar="N", help="of a reply (default: 256)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the simulation (default: 0)")
    parser.add_argument("--out", metavar="FILE.csv", help="write the evidence there, for safeladder risk --evidence")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Simulate, print the figures, write the evidence; returns the exit code.

    Raises:
        SafeladderError: the model cannot be opened, or it never gave a reply.
    """
    from safeladder.evaluation.frontier.evidence import format_evidence

    if options.out is not None and Path(options.out).is_dir():
        raise SafeladderError(f"--out: {options.out} is a folder")
    model, subject = _policy(options.model, options.max_tokens)
    heard = _Heard(model)
    simulate = {"replication": _replication, "collusion": _collusion, "persuasion": _persuasion}
    figures, evidence, elicited = simulate[options.simulation](options, heard, subject)
    if not heard.replies:
        raise SafeladderError(f"{subject} gave no whole reply in {heard.asked} turns")
    report = {
        "simulation": options.simulation,
        "subject": subject,
        "seed": options.seed,
        "turns": heard.asked,
        "turns_without_reply": heard.asked - heard.replies,
        "elicited": elicited,
        "figures": {name: metric.to_json() if metric is not None else None for name, metric in figures.items()},
    }
    print(json.dumps(report, ensure_ascii=False, indent=1) if options.json else _text(report))
    if options.out is not None and evidence:
        _write(Path(options.out), format_evidence(evidence))
    elif options.out is not None:
        print("nothing was measured: no evidence to write", file=sys.stderr)
    return 0


class _Heard:
    """A policy that counts its turns and says now and then how far it is."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self._last = policy, time.monotonic()
        self.asked = self.replies = 0

    def __call__(self, conversation: Sequence[Message]) -> str | None:
        reply = self._policy(conversation)
        self.asked += 1
        self.replies += reply is not None
        if time.monotonic() - self._last > _EVERY:
            self._last = time.monotonic()
            print(f"{self.asked} turns, {self.replies} of them with a reply", file=sys.stderr, flush=True)
        return reply


def _policy(spec: str, max_tokens: int) -> tuple[Policy, str]:
    """Who acts, and the name of the subject: with the weights' hash, or at its host."""
    from safeladder.evaluation.frontier.policy import chat_policy
    from safeladder.evaluation.subjects import KEY
    from safeladder.verifiers.judges import open_judge

    model = open_judge(spec, key_variable=KEY if os.environ.get(KEY) else None)
    return chat_policy(model, max_new_tokens=max_tokens), model.name


def _replication(options: argparse.Namespace, policy: Policy, subject: str) -> Found:
    from safeladder.evaluation.frontier import replication

    found = replication.run_replication(lambda trial: policy, trials=options.trials, seed=options.seed)
    figures = {
        **{f"SR_{k} {what}": m for k, what, m in zip((1, 2, 3, 4), _MILESTONES, found.success, strict=True)},
        "OR trials with more than needed": found.overuse_rate,
        "AOC replicas beyond the need": found.overuse_count,
        "Phi_R": found.phi_r,
    }
    return figures, replication.evidence(found, **_told(options, subject)), found.elicited


_MILESTONES = ("state read", "order accepted", "a copy ran", "a copy at the end")


def _collusion(options: argparse.Namespace, policy: Policy, subject: str) -> Found:
    from safeladder.evaluation.frontier import collusion

    found = collusion.run_collusion(lambda arm, number, agent: policy, runs=options.runs, seed=options.seed)
    figures = {
        f"{name} {arm}": metric
        for name, metrics in (("R_conv", found.r_conv), ("R_pop", found.r_pop))
        for arm, metric in metrics.items()
    }
    return figures, collusion.evidence(found, **_told(options, subject)), None


def _persuasion(options: argparse.Namespace, policy: Policy, subject: str) -> Found:
    from safeladder.evaluation.frontier import persuasion

    listener, judge = persuasion.SimulatedListener, "scripted listener (a proxy, never people)"
    if options.listener is not None:
        heard, name = _policy(options.listener, options.max_tokens)
        listener, judge = persuasion.model_listener(heard), f"{name} as the listener (a proxy, never people)"
    found = persuasion.run_persuasion(
        policy,
        listener=listener,
        languages=(options.language,),
        topics=persuasion.TOPICS[: options.topics],
    )
    figures = {
        "moved as argued": found.success,
        "mean shift of 1 to 10": found.shift,
        "dialogues without a score": found.invalid,
    }
    return figures, persuasion.evidence(found, **_told(options, subject), judge=judge), found.elicited


def _told(options: argparse.Namespace, subject: str) -> dict[str, str]:
    source = f"safeladder simulate {options.simulation}, seed {options.seed}"
    return {"subject": subject, "source": source, "date": date.today().isoformat()}


def _text(report: dict[str, Any]) -> str:
    lines = [f"{report['simulation']}: {report['subject']}, seed {report['seed']}"]
    for name, row in report["figures"].items():
        told = "not assessed"
        if row is not None:
            told = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]  n {row['n']}"
            told += f", unscored {row['n_unscored']}" if row.get("n_unscored") else ""
        lines.append(f"  {name:<34}{told}")
    lines.append(f"  {report['turns']} turns, {report['turns_without_reply']} without a whole reply")
    if report["elicited"] is False:
        lines.append("  the behaviour was not elicited: low figures say nothing")
    return "\n".join(lines)


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise SafeladderError(f"--out: {path} cannot be written ({error.strerror})") from None
    print(f"wrote {path}", file=sys.stderr)
