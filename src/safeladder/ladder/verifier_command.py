"""`safeladder verifier train`: embedded judges, and classification judges on one of our policies."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeladder.arguments import positive
from safeladder.types import SafeladderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from safeladder.evaluation.classification import Judgement
    from safeladder.training.classifier import LabelledReply
    from safeladder.types import Sample
    from safeladder.verifiers.classifier import Classifier

WORLD = "world"
_WORLD_REPLIES, _WORLD_HELD_OUT, _HELD_OUT_SHARE = 8000, 600, 0.2
_SETTINGS, _REPORT = "training.json", "report.json"
_PLAIN_EVERY = 20.0
"""Seconds between lines of progress where the output is not a terminal."""
_IMAGES = {"pictured": "with images", "blanked": "images blanked"}


def add_parser(verbs: Any) -> None:
    """Add the verb `verifier` with its action `train`; its `run` takes the parsed options."""
    verifier = verbs.add_parser("verifier", help="trained verifiers")
    actions = verifier.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser(
        "train",
        allow_abbrev=False,
        help="train a judge; the same command continues where it was stopped",
        epilog="See docs/judges.md for the data that each kind takes.",
    )
    train.add_argument(
        "--kind",
        required=True,
        choices=("embedded-harm", "embedded-refusal", "classifier"),
        help="a small text judge, or a classification head on a policy",
    )
    train.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help="embedded: the folder of gptfuzz/ and xstest/; classifier: FILE.jsonl of labelled replies, or 'world'",
    )
    train.add_argument("--out", required=True, metavar="DIR", help="folder of the judge")
    train.add_argument("--model", metavar="CHECKPOINT", help="classifier: the policy that the head is put on")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")
    train.add_argument("--steps", type=positive, metavar="N", help="classifier: optimizer steps (default: 300)")
    train.add_argument("--batch-size", type=positive, metavar="N", help="classifier: replies a step (default: 32)")
    train.add_argument("--learning-rate", type=_rate, metavar="X", help="classifier: peak of AdamW's (default: 1e-4)")
    train.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, save, and print what was measured on held-out rows; returns the exit code.

    Raises:
        SafeladderError: an option that the kind does not take, unusable data or model, a folder of something else.
    """
    if options.kind == "classifier":
        return _classifier(options)
    for name in ("model", "steps", "batch_size", "learning_rate"):
        if getattr(options, name) is not None:
            raise SafeladderError(f"--{name.replace('_', '-')} is for --kind classifier")
    return _embedded(options)


def _embedded(options: argparse.Namespace) -> int:
    from safeladder.verifiers.embedded.card import model_card
    from safeladder.verifiers.embedded.examples import read_examples
    from safeladder.verifiers.embedded.train import train

    out = Path(options.out)
    if out.exists() and not out.is_dir():
        raise SafeladderError(f"--out: {out} is not a folder")
    examples = read_examples(options.data)
    started = time.monotonic()

    def progress(what: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {what}", file=sys.stderr, flush=True)

    kind = "harm" if options.kind == "embedded-harm" else "refusal"
    judge = train(examples, kind, seed=options.seed, progress=progress)
    judge.save(out, model_card(judge))
    for name, row in judge.about["measured"].items():
        print(f"{name:30} n {row['n']:5}  AUC {_shown(row['auc'])}  accuracy {_shown(row['accuracy'])}")
    print(f"wrote {out}")
    return 0


def _classifier(options: argparse.Namespace) -> int:
    if options.model is None:
        raise SafeladderError("--kind classifier needs --model CHECKPOINT")
    out = Path(options.out)
    if (out / "verifier.json").exists():
        raise SafeladderError(f"--out: {out} holds a trained verifier already")
    import torch

    from safeladder.atomic import write_json
    from safeladder.models.load import load_checkpoint
    from safeladder.training.classifier import finished, train_classifier
    from safeladder.verifiers.classifier import Classifier, check_labels

    train, held_out, data = _replies(options)
    labels = check_labels([reply.label for reply in train])
    unseen = sorted({reply.label for reply in held_out} - set(labels))
    if unseen:
        raise SafeladderError(f"{options.data}: the held-out rows have the label {unseen[0]!r}, the others have not")
    settings = {
        "model": str(options.model),
        "data": data,
        "seed": options.seed,
        "steps": options.steps or 300,
        "batch_size": options.batch_size or 32,
        "learning_rate": options.learning_rate or 1e-4,
    }
    _same_run(out, settings)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    classifier = Classifier(*load_checkpoint(options.model, device=device), labels)
    train_classifier(
        classifier,
        train,
        out,
        steps=settings["steps"],
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        seed=options.seed,
        progress=_Lines(),
    )
    report = {**measure(classifier, held_out), "train_rows": len(train)}
    write_json(out / _REPORT, report)
    classifier.save(out, settings)
    finished(out)
    print(_text(report))
    print(f"wrote {out}")
    return 0


def measure(classifier: Classifier, replies: Sequence[LabelledReply]) -> dict[str, Any]:
    """Agreement with the labels: everything, by source, by language (`evaluation.classification`).

    Where replies have images, `pictured` holds the measures over these replies, `blanked` those of the same replies
    with every image black: a judge that decides by the words alone scores the same in both.
    """
    from safeladder.evaluation.classification import classification_report
    from safeladder.verifiers.classifier import UNSAFE

    def report(judgements: list[Judgement]) -> dict[str, Any]:
        return classification_report(judgements, classifier.labels, positive=UNSAFE)

    judgements = _judgements(classifier, replies, [reply.conversation for reply in replies])
    found = report(judgements)
    pictured = [number for number, reply in enumerate(replies) if reply.sample.images]
    if pictured:
        shown = [replies[number] for number in pictured]
        blank = _judgements(classifier, shown, [blanked(reply.conversation) for reply in shown])
        found["pictured"] = report([judgements[number] for number in pictured])["all"]
        found["blanked"] = report(blank)["all"]
    return found


def _judgements(
    classifier: Classifier, replies: Sequence[LabelledReply], conversations: Sequence[Sample]
) -> list[Judgement]:
    from safeladder.evaluation.classification import Judgement
    from safeladder.verifiers.classifier import TrainedVerifier

    rows = TrainedVerifier(classifier).rows([classifier.prompt(conversation) for conversation in conversations])
    return [
        Judgement(
            label=reply.label,
            probabilities=tuple(row),
            source=reply.sample.source or "(none)",
            language=reply.sample.language,
            group=reply.sample.group_id,
        )
        for reply, row in zip(replies, rows, strict=True)
    ]


def blanked(sample: Sample) -> Sample:
    """The sample with every image black and of its own size."""
    from PIL import Image

    from safeladder.models.pixels import load_rgb
    from safeladder.types import Part

    def blank(part: Part) -> Part:
        if part.image is None:
            return part
        height, width = load_rgb(part.image, sample.id).shape[:2]
        return Part(image=Image.new("RGB", (width, height)))

    messages = tuple(replace(message, parts=tuple(map(blank, message.parts))) for message in sample.messages)
    return replace(sample, messages=messages)


def _replies(options: argparse.Namespace) -> tuple[list[LabelledReply], list[LabelledReply], str]:
    """Rows to train on, rows held out, and what they are."""
    from safeladder.data.splits import split_by_group
    from safeladder.training.classifier import default_world, read_labelled, world_replies

    if options.data == WORLD:
        world = default_world()
        train = world_replies(world, "train", _WORLD_REPLIES, seed=options.seed)
        return train, world_replies(world, "heldout", _WORLD_HELD_OUT, seed=options.seed), WORLD
    replies = read_labelled(options.data)
    by_id = {reply.sample.id: reply for reply in replies}
    parts = split_by_group([reply.sample for reply in replies], _HELD_OUT_SHARE, seed=options.seed)
    digest = hashlib.sha256(Path(options.data).read_bytes()).hexdigest()
    return [by_id[s.id] for s in parts[0]], [by_id[s.id] for s in parts[1]], f"{options.data} {digest}"


def _same_run(out: Path, settings: dict[str, Any]) -> None:
    """Start a run in an empty folder, or continue the one that was begun with the same settings."""
    from safeladder.atomic import write_json

    file = out / _SETTINGS
    if not file.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SafeladderError(f"--out: {out} is not an empty folder")
        write_json(file, settings)
        return
    begun = json.loads(file.read_text(encoding="utf-8"))
    for key, value in settings.items():
        if begun.get(key) != value:
            raise SafeladderError(f"--out: {out} was begun with {key} {begun.get(key)!r}, not {value!r}")


class _Lines:
    """A line of progress now and then."""

    def __init__(self) -> None:
        self._last = 0.0

    def update(self, done: int, total: int, note: str) -> None:
        if done == total or time.monotonic() - self._last > _PLAIN_EVERY:
            self._last = time.monotonic()
            print(f"step {done} of {total}, {note}", file=sys.stderr, flush=True)


def _text(report: dict[str, Any]) -> str:
    slices = {"all": report["all"], **report["by_source"], **report["by_language"]}
    slices |= {name: report[key] for key, name in _IMAGES.items() if key in report}
    lines = [f"{'held out':14}  {'n':>5}  {'accuracy':>19}  {'F1 unsafe':>19}  {'AUC unsafe':>19}  {'ECE':>5}"]
    for name, row in slices.items():
        cells = "  ".join(f"{_interval(row[key]):>19}" for key in ("accuracy", "f1", "auc"))
        lines.append(f"{name:14}  {row['n']:5}  {cells}  {_shown(row['ece'] and row['ece']['value']):>5}")
    return "\n".join(lines)


def _interval(metric: dict[str, float] | None) -> str:
    return "–" if metric is None else f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number between 0 and 1")
    return value
