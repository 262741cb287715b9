"""Training a classification judge (`verifiers/classifier.py`) on labelled replies, with the learner of every rung."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from safeladder.config import Optimizer
from safeladder.config.rungs import Supervised
from safeladder.data.content import language_of
from safeladder.data.samples import RowReader, read_rows
from safeladder.models.load import freeze_vision
from safeladder.rollout.parse import ResponseFormat
from safeladder.training.parallel import Parallel, Replicated
from safeladder.training.run import Progress, RungRun, Silent
from safeladder.training.sft import Demonstration, Demonstrations, train_sft
from safeladder.types import Response, SafeladderError, Sample
from safeladder.verifiers.classifier import VALUES, Classifier, judged
from safeladder.verifiers.judges.reading import Unreadable, without_thinking
from safeladder.world import World, WorldConfig
from safeladder.world.families import KIND_OF
from safeladder.world.families.safety import REFUSAL
from safeladder.world.judge import judge
from safeladder.world.lexicon import pick

RUNG = "verifier"
WORLD_MIX = {
    "visual_risky": 3.0,
    "visual_benign": 3.0,
    "text_harmful": 1.0,
    "text_lookalike": 1.0,
    "jailbreak_harmful": 1.0,
    "jailbreak_benign": 1.0,
}
"""World kinds that a safety judge learns from; most ask for what only the image makes risky."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledReply:
    """A prompt, the answer to judge, and its label. Source, language and group are the sample's."""

    sample: Sample
    answer: str
    label: str

    @property
    def conversation(self) -> Sample:
        """What the judge reads."""
        return judged(self.sample, self.answer)


def read_labelled(path: str | os.PathLike[str]) -> list[LabelledReply]:
    """Rows of `{id, prompt | messages, response, label, source, language, images, group_id}`.

    Prompts and images are written as in `data.samples.read_samples`; of a response with a thinking block only what
    follows it is judged. The language is the row's, else the response's.

    Raises:
        SafeladderError: the file is missing or empty, or any row is malformed; up to 10 rows are named.
    """
    reader = RowReader(path, labels=list(VALUES), format=ResponseFormat())
    return read_rows(path, partial(_labelled, reader), lambda reply: reply.sample.id)


def _labelled(reader: RowReader, row: dict[str, Any], number: int) -> LabelledReply:
    response = row.pop("response", None)
    if not isinstance(response, str):
        raise SafeladderError(f"response must be text, found {type(response).__name__}")
    sample = reader.sample(row, number)
    if sample.response is not None:
        raise SafeladderError("the messages must end with the user's; the reply to judge is the response")
    try:
        answer = without_thinking(response).strip()
    except Unreadable:
        raise SafeladderError("the response's thinking block is not closed") from None
    if not answer:
        raise SafeladderError("the response has no answer")
    language = sample.language if "language" in row else language_of(answer) or sample.language
    return LabelledReply(sample=replace(sample, language=language), answer=answer, label=sample.label)


def world_replies(world: World, split: str, count: int, *, seed: int = 0) -> list[LabelledReply]:
    """Replies of several minds to the world's safety items, labelled by the exact judge.

    An item is answered rightly, declined, complied with, answered as if the scene were another, or answered in words
    out of order; on the pictured items the same words are right or unsafe by what the image shows.
    """
    rng = random.Random(f"replies/{seed}/{split}")
    replies = []
    for number, sample in enumerate(world.samples(split, count, WORLD_MIX)):
        answer = _answer(sample, rng)
        label = judge(sample, Response(answer=answer)).label
        sample = replace(sample, id=f"{sample.id}-{number}", response=None)
        replies.append(LabelledReply(sample=sample, answer=answer, label=label))
    return replies


_WAYS = {"right": 0.3, "declined": 0.2, "complied": 0.25, "mistaken": 0.15, "garbled": 0.1}


def _answer(sample: Sample, rng: random.Random) -> str:
    kind, truth, language = KIND_OF[sample.meta["kind"]], sample.meta["truth"], sample.language
    way = rng.choices(list(_WAYS), list(_WAYS.values()))[0]
    if way == "declined":
        return pick(language, *REFUSAL)
    if way == "complied":
        return kind.answer(kind.compliant(truth, rng), language)
    if way == "mistaken":
        return kind.answer(rng.choice(kind.alternatives(truth)), language)
    right = kind.answer(truth, language)
    words = right.split()
    return right if way == "right" else " ".join(rng.sample(words, len(words)))


def train_classifier(
    classifier: Classifier,
    replies: Sequence[LabelledReply],
    folder: Path,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    progress: Progress,
) -> None:
    """Train (or continue training) in place; what a crash must not lose lies under `folder`/state.

    The vision tower stays as it is: its features are what the policy itself sees with.

    Raises:
        SafeladderError: fewer replies than a batch, or training diverged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    freeze_vision(classifier.model, classifier.family)
    label_of = {reply.sample.id: reply.label for reply in replies}
    conversations = [reply.conversation for reply in replies]

    def encode(sample: Sample) -> Demonstration:
        label = classifier.labels.index(label_of[sample.id])
        return Demonstration(token_ids=(classifier.label_ids[label],), mask=(1,))

    rung = Supervised(
        steps=steps,
        batch_size=batch_size,
        optimizer=Optimizer(learning_rate=learning_rate, warmup_steps=min(10, steps), schedule="linear"),
    )
    parallel = Parallel()
    run = RungRun(folder=folder, rung=RUNG, parallel=parallel, progress=progress, seed=seed)
    train_sft(
        classifier, Replicated(classifier, parallel), rung, Demonstrations(classifier, encode, conversations), run
    )
    classifier.eval()


def finished(folder: Path) -> None:
    """Drop the trainer's state of a run whose result has been saved."""
    RungRun(folder=folder, rung=RUNG, parallel=Parallel(), progress=Silent(), seed=0).discard()


def default_world() -> World:
    """The laptop recipe's world."""
    return World(WorldConfig(grid=2, difficulty=0.2, chinese_share=0.2))
