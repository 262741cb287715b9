"""Two ways to give corrections to a model through its prompt alone: the baselines of an edit memory.

*In context*: stored corrections are shown as earlier questions with their corrected reasoning. *Dialogue*: the
conversation in which a person objected to a reply goes on with the next question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from safeladder.rollout.parse import ResponseFormat
from safeladder.steering.edit_distance import normalised, words
from safeladder.steering.edit_rules import EditPair
from safeladder.types import Message, Part, Response, Role, Rollout, Sample

TOLD = "That is wrong: {original} It should say: {edited}"
"""What a person says to a wrong step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """A reply that a person objected to, and what it became. `original` and `edited` are the step before and after."""

    wrong: Rollout
    original: str
    edited: str
    right: Rollout


def in_context(sample: Sample, pairs: Sequence[EditPair], *, most: int = 4) -> Sample:
    """The question behind the `most` stored corrections whose questions are most like it, the nearest last.

    A correction is shown as its question (without its image, which no memory keeps) and the reasoning up to the edited
    step, with the answer that followed. The sample gets an id of its own.
    """
    asked = words(sample.question)
    edits = [pair for pair in pairs if not pair.confirmed]
    nearest = sorted(edits, key=lambda pair: normalised(asked, words(pair.question)))[:most]
    turns: list[Message] = []
    for pair in reversed(nearest):
        reasoning = f"{pair.context}{pair.edited}".strip()
        turns += [_message("user", pair.question), _reply(Response(reasoning=reasoning, answer=pair.answer))]
    return _after(turns, sample)


def dialogue(sample: Sample, objections: Sequence[Objection], *, told: str = TOLD) -> Sample:
    """The question as the next turn of a conversation in which a person objected to replies.

    For each objection: the question with its image, the wrong reply, what the person said (`told`, with `{original}`
    and `{edited}`), and the right reply, as if the model had taken the correction in. The sample gets an id of its own.
    """
    turns: list[Message] = []
    for one in objections:
        said = told.format(original=one.original, edited=one.edited)
        turns += [
            *one.wrong.sample.messages,
            _message("assistant", one.wrong.text),
            _message("user", said),
            _message("assistant", one.right.text),
        ]
    return _after(turns, sample)


def _after(turns: Sequence[Message], sample: Sample) -> Sample:
    """The sample behind earlier turns. Engines remember prompts by id, so the id tells which turns they were."""
    said = "\x1f".join(turn.text for turn in turns)
    digest = hashlib.blake2b(said.encode(), digest_size=6).hexdigest()
    return replace(sample, id=f"{sample.id}+{digest}", messages=(*turns, *sample.messages))


def _message(role: Role, text: str) -> Message:
    return Message(role=role, parts=(Part(text=text),))


def _reply(response: Response) -> Message:
    return _message("assistant", ResponseFormat().render(response).strip())
