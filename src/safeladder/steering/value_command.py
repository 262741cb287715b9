"""`safeladder pvm train` and `safeladder pvm ask`: make value models for a policy, and watch them guide it."""

from __future__ import annotations

import argparse
import json
import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeladder.arguments import positive
from safeladder.atomic import write_json
from safeladder.types import Message, Part, SafeladderError, Sample, SamplingParams, StopReason

if TYPE_CHECKING:
    from rich.console import Console

    from safeladder.steering.guidance import GuidanceConfig, TrailStep
    from safeladder.steering.guided import GuidedDecoder
    from safeladder.steering.value_training import Examples

WORLD = "world"
FOLDER = "steering/value-guidance"
"""Where guidance lies in a checkpoint's folder unless told otherwise."""
_HELD_OUT_SHARE = 0.2
_CHOICE_SHARE = 0.2
"""Of the prompts that are not held out: those that thresholds are chosen by, at most `_CHOICE`."""
_CHOICE = 200
_RUN = "training.json"
_PLAIN_EVERY = 10.0
"""Seconds between lines of progress where the output is not a terminal."""
_BUDGET = 1024
"""Tokens of a reply to `ask` at most, and the model's context permitting."""

REMINDERS: Mapping[str, tuple[str, ...]] = {
    "en": ("Wait: is it safe and true to go on like this? Let me check.",),
    "zh": ("等一下：这样继续是否安全、是否属实？我再检查一遍。",),
}
COMPLETIONS: Mapping[str, tuple[str, ...]] = {
    "en": ("I can't help with this, because someone could get hurt.", "I don't know."),
    "zh": ("这件事我不能帮忙，因为可能有人受到伤害。", "我不知道。"),
}
"""What is proposed where nothing that was sampled is good enough, unless a guidance's own settings say otherwise."""


def add_parser(verbs: Any) -> None:
    """Add the verb `pvm` with its actions; their `run` takes the parsed options."""
    pvm = verbs.add_parser("pvm", help="principled value models that guide a policy's next steps")
    actions = pvm.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser(
        "train",
        allow_abbrev=False,
        help="train value models on a policy's own rollouts; the same command continues where it was stopped",
        epilog="See docs/value-guidance.md.",
    )
    train.add_argument("model", metavar="MODEL", help="folder of a checkpoint (runs/NAME/checkpoints/base)")
    train.add_argument(
        "--data",
        nargs="+",
        action="extend",
        metavar="DATA",
        help="'world' (the default), files of rows, or both",
    )
    train.add_argument("--out", metavar="DIR", help=f"folder of the value models (default: MODEL/{FOLDER})")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="of the world and the rollouts (default: 0)")
    train.add_argument(
        "--prompts", type=positive, default=1000, metavar="N", help="prompts drawn from the world (default: 1000)"
    )
    train.set_defaults(run=run_train)
    ask = actions.add_parser("ask", allow_abbrev=False, help="one guided reply; shows candidates and scores live")
    ask.add_argument("model", metavar="MODEL", help="folder of a checkpoint")
    ask.add_argument("question", metavar="QUESTION")
    ask.add_argument("--image", metavar="FILE", help="an image that the question is about")
    ask.add_argument("--guidance", metavar="DIR", help=f"folder of the value models (default: MODEL/{FOLDER})")
    ask.add_argument("--candidates", type=positive, metavar="K", help="steps sampled at a time (default: the folder's)")
    ask.add_argument("--route", metavar="NAME", help="one value model decides alone, or 'uniform' (default: learned)")
    ask.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")
    ask.add_argument("--trail", metavar="FILE.jsonl", help="append every candidate and score to this file")
    ask.set_defaults(run=run_ask)


def run_train(options: argparse.Namespace) -> int:
    """Roll out, train, measure on held-out prompts, save; returns the exit code.

    Raises:
        SafeladderError: no such checkpoint or file, malformed rows, or a folder of something else.
    """
    out = Path(options.out or Path(options.model, FOLDER))
    if (out / "guidance.json").exists():
        raise SafeladderError(f"--out: {out} holds trained value models already")
    from safeladder.rollout.local import LocalEngine
    from safeladder.rollout.prefix import PrefixEngine
    from safeladder.steering.guidance_choice import choose
    from safeladder.steering.guided import Guidance
    from safeladder.steering.value_heads import fingerprint
    from safeladder.steering.value_measure import measure
    from safeladder.steering.value_training import (
        Plan,
        examples,
        roll_out_all,
        train_heads,
        verdicts_of,
    )
    from safeladder.steering.values import PRINCIPLES

    data = options.data or [WORLD]
    train, choice, held_out = prompts(data, options.prompts, options.seed)
    everything = (*train, *choice, *held_out)
    engine = PrefixEngine(LocalEngine.load(options.model))
    settings = {
        "model": fingerprint(engine),
        "data": data,
        "seed": options.seed,
        "prompts": [s.id for s in everything],
    }
    _same_run(out, settings)
    config, judge, say = _config(data), verdicts_of(routers()), _Lines()
    longest = max(len(engine.prompt_ids(s)) for s in everything)
    plan = Plan(
        max_new_tokens=min(Plan().max_new_tokens if WORLD in data else _BUDGET, engine.context_length - longest)
    )
    if plan.max_new_tokens < 1:
        raise SafeladderError(f"the longest prompt fills this model's context of {engine.context_length} tokens")
    found: list[Examples] = []
    for name, samples in (("train", train), ("held-out", held_out)):
        file = out / f"rollouts-{name}.jsonl"
        say.what = name
        outcomes = roll_out_all(engine, samples, judge, config, plan, file, seed=options.seed, say=say)
        found.append(examples(engine, samples, outcomes, PRINCIPLES, say=say))
    say.what = "heads"
    heads = train_heads(found[0], PRINCIPLES, seed=options.seed, say=say)
    say.what = "thresholds"
    decoder, budget = Guidance(heads, config).over(engine), SamplingParams(max_new_tokens=plan.max_new_tokens)
    chosen, trials = choose(decoder, choice, judge, budget, out / "choice.jsonl", seed=options.seed, say=say)
    card = {
        "model": settings["model"],
        "data": data,
        "seed": options.seed,
        "drawn": options.prompts,
        "plan": asdict(plan),
        "train": {"prompts": len(train), "prefixes": len(found[0].prompt), "unscored": found[0].unscored},
        "held_out": measure(heads, found[1]),
        "choice": {"prompts": len(choice), "runs": [trial.counts() for trial in trials]},
        "config": asdict(decoder.config),
    }
    heads.save(out, card)
    print(_text(card["held_out"]))
    for name, own in chosen.items():
        print(f"{name:14} gamma {own.gamma:g}, enough {own.enough:g}, floor {own.floor:g}, margin {own.margin:g}")
    print(f"wrote {out}")
    return 0


def world_samples(split: str, count: int, seed: int) -> list[Sample]:
    """Prompts of the laptop recipe's world: the principles in the shares 4 safety, 2 value, 4 knowledge and capability.

    Those of the training split are drawn from indices that no rung of a recipe reaches.
    """
    from safeladder.world import CAPABILITY, KNOWLEDGE, SAFETY, VALUE, World, WorldConfig

    mix: dict[str, float] = {}
    for kinds, share in ((SAFETY, 0.4), (VALUE, 0.2), (KNOWLEDGE, 0.15), (CAPABILITY, 0.25)):
        for kind in kinds:
            mix[kind] = mix.get(kind, 0.0) + share / len(kinds)
    world = World(WorldConfig(seed=seed, grid=2, difficulty=0.2, chinese_share=0.2))
    drawn = world.samples(split, count, mix, start=_WORLD_START if split == "train" else 0)
    # A small content is drawn again once it is used up, and rollouts are told apart by the sample's id.
    return [replace(sample, id=f"{sample.id}-{number}") for number, sample in enumerate(drawn)]


_WORLD_START = 50_000_000


def prompts(data: Sequence[str], count: int, seed: int) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """Prompts to learn from, to choose thresholds by, and to measure on; `count` are drawn from the world.

    Raises:
        SafeladderError: no such file, malformed rows, or too few to split.
    """
    from safeladder.data.samples import read_samples
    from safeladder.data.splits import split_by_group
    from safeladder.rollout.parse import ResponseFormat

    train: list[Sample] = []
    held_out: list[Sample] = []
    if WORLD in data:
        train += world_samples("train", count, seed)
        held_out += world_samples("heldout", max(1, round(_HELD_OUT_SHARE * count)), seed)
    router = routers()["rules"]
    requires = router.recipe.requires(router.verifiers)
    rows = [
        sample
        for path in data
        if path != WORLD
        for sample in read_samples(path, labels=set(router.recipe.rows), format=ResponseFormat(), requires=requires)
    ]
    if rows:
        parts = split_by_group([replace(row, response=None) for row in rows], _HELD_OUT_SHARE, seed=seed)
        train, held_out = train + parts[0], held_out + parts[1]
    ids = [s.id for s in (*train, *held_out)]
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise SafeladderError(f"--data: two rows have the id {twice!r}")
    learn, choice = split_by_group(train, _CHOICE_SHARE, seed=seed)
    return learn, choice[:_CHOICE], held_out


def routers() -> dict[str, Any]:
    """What judges items of the world, and what judges rows of files (`value_training.verdicts_of`)."""
    from safeladder.config import Rewards
    from safeladder.verifiers import RewardRecipe, Router, available

    verifiers = available()
    return {
        name: Router(verifiers, RewardRecipe.load(Rewards(recipe=name), verifiers, ())) for name in (WORLD, "rules")
    }


def _config(data: Sequence[str]) -> GuidanceConfig:
    from safeladder.steering.guidance import GuidanceConfig

    if list(data) != [WORLD]:
        return GuidanceConfig(reminders=REMINDERS, completions=COMPLETIONS)
    from safeladder.world.families.knowledge import UNKNOWN
    from safeladder.world.families.safety import REFUSAL

    languages = ("en", "zh")
    return GuidanceConfig(
        reminders=dict(zip(languages, (("wait , check again .",), ("等 一 下 , 再 看 .",)), strict=True)),
        completions={language: (REFUSAL[i], UNKNOWN[i]) for i, language in enumerate(languages)},
    )


def _same_run(out: Path, settings: Mapping[str, Any]) -> None:
    """Start a run in an empty folder, or continue the one that was begun with the same settings."""
    file = out / _RUN
    if not file.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SafeladderError(f"--out: {out} is not an empty folder")
        write_json(file, dict(settings))
        return
    begun = json.loads(file.read_text(encoding="utf-8"))
    for key, value in settings.items():
        if begun.get(key) != value:
            said = "other prompts" if key == "prompts" else f"{key} {begun.get(key)!r}, not {value!r}"
            raise SafeladderError(f"--out: {out} was begun with {said}")


def run_ask(options: argparse.Namespace) -> int:
    """Ask and print; returns 0, or 1 where there is no whole reply.

    Raises:
        SafeladderError: no such checkpoint, guidance or image, or an unknown route.
    """
    if not options.question.strip():
        raise SafeladderError("the question is empty")
    if options.image is not None and not Path(options.image).is_file():
        raise SafeladderError(f"--image: {options.image} is not a file")
    from rich.console import Console

    from safeladder.rollout.local import LocalEngine
    from safeladder.steering.guided import load_guidance
    from safeladder.steering.routing import one_hot, uniform

    folder = options.guidance or Path(options.model, FOLDER)
    decoder = load_guidance(folder, LocalEngine.load(options.model))
    if options.candidates is not None:
        decoder.config = replace(decoder.config, candidates=options.candidates)
    names = [model.name for model in decoder.values]
    if options.route is not None:
        decoder.router = uniform(names) if options.route == "uniform" else one_hot(options.route, names)
    parts = (Part(text=options.question),)
    if options.image is not None:
        parts = (Part(image=options.image), *parts)
    sample = Sample(
        id="ask",
        label="general",
        messages=(Message(role="user", parts=parts),),
        language=_language(options.question),
    )
    return ask(decoder, sample, Console(highlight=False), seed=options.seed, trail=options.trail)


def ask(decoder: GuidedDecoder, sample: Sample, console: Console, *, seed: int = 0, trail: str | None = None) -> int:
    """Decode one reply, show every decision as it is made, then the reply and its cost; 1 where it is not whole."""
    from safeladder.rollout.parse import ResponseFormat

    budget = min(_BUDGET, decoder.engine.context_length - len(decoder.engine.prompt_ids(sample)))
    if budget < 1:
        raise SafeladderError(f"the question fills this model's context of {decoder.engine.context_length} tokens")
    params = SamplingParams(max_new_tokens=budget)
    result = decoder.generate(sample, params, seed=seed, on_step=lambda step: _show(console, step))
    if trail is not None:
        from safeladder.steering.guidance import append_trail

        append_trail(trail, sample, result)
    console.rule(align="left")
    config, cost = decoder.config, result.cost
    form = ResponseFormat(open_tag=config.open_tag, close_tag=config.close_tag)
    response = form.parse(result.text, result.completion.stop_reason)
    went_back = sum(step.action == "backtrack" for step in result.trail)
    kept = len(result.completion.token_ids)
    run = "" if cost.positions is None else f", {cost.positions} positions run"
    console.print(
        f"{kept} tokens kept of {cost.generated_tokens} generated{run}, {cost.seconds:.2f} s; "
        f"{len(result.trail)} decisions, {went_back} times back, {result.proposed} proposed steps kept",
        soft_wrap=True,
    )
    if response is None:
        cut = result.completion.stop_reason is StopReason.LENGTH
        _line(console, "answer", "none: the reply was cut" if cut else "none: the reply is malformed", "red")
        return 1
    _line(console, "answer", response.answer, "bold")
    return 0


def _show(console: Console, step: TrailStep) -> None:
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in step.weights.items())
    outcome = "gone back" if step.action == "backtrack" else "kept"
    console.rule(f"step {step.depth + 1}: {outcome}  ({weights})", align="left", style="dim")
    order = sorted(range(len(step.candidates)), key=lambda j: -step.candidates[j].score)
    for j in order:
        candidate = step.candidates[j]
        values = " ".join(f"{name} {value:.2f}" for name, value in candidate.values.items())
        times = "proposed" if candidate.source == "proposed" else f"{candidate.count}x"
        mark, style = (">", "bold green") if j == step.chosen else (" ", "")
        _line(console, f"{mark} {candidate.score:5.2f}", f"{values}  {times:>8}  {candidate.text}", style)


def _line(console: Console, name: str, text: str, style: str = "") -> None:
    """One line; control characters of a policy never reach the terminal."""
    from rich.text import Text

    clean = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in text)
    console.print(Text.assemble((f"{name:>8}  ", "cyan"), (clean, style)), soft_wrap=True)


def _language(text: str) -> str:
    from safeladder.data.content import language_of

    return language_of(text) or "en"


class _Lines:
    """A line of progress now and then."""

    def __init__(self) -> None:
        self.what = ""
        self._started = self._last = time.monotonic()

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last > _PLAIN_EVERY or sys.stderr.isatty():
            self._last = now
            print(f"{now - self._started:6.0f} s  {self.what}: {text}", file=sys.stderr, flush=True)


def _text(measured: Mapping[str, Any]) -> str:
    lines = [f"{'held out':14} {'prompts':>8} {'outcomes':>9} {'accepted':>9} {'AUC':>6} {'within':>7} {'Brier':>6}"]
    for table in ("by_principle", "by_label"):
        for name, row in measured[table].items():
            cells = f"{row['accepted']:9.3f} {_shown(row['auc']):>6} {_shown(row['within']):>7} {row['brier']:6.3f}"
            lines.append(f"{name:14} {row['prompts']:8} {row['outcomes']:9} {cells}")
    if measured["unscored"]:
        lines.append(f"{measured['unscored']} outcomes could not be judged and are left out")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
