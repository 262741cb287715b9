"""Verifiable format instructions: a simple question and one instruction about the form of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from safeladder.world.families.general import (
    alternatives_arithmetic,
    ask_arithmetic,
    ask_colour,
    ask_count,
    key_colour,
    key_count,
    key_sum,
    numbers,
    propose_arithmetic,
    propose_colour,
    propose_count,
    view_arithmetic,
    with_value,
)
from safeladder.world.kinds import Draft, Find, Kind, Propose, Say, Scope, Truth, view_cells
from safeladder.world.lexicon import COLOURS, INSTRUCTIONS, UNSEEN_INSTRUCTIONS, pick, tr

_TASKS: dict[str, tuple[Propose, Say, Find]] = {
    "colour": (propose_colour, ask_colour, key_colour),
    "count": (propose_count, ask_count, key_count),
    "arithmetic": (propose_arithmetic, ask_arithmetic, key_sum),
}
_SEEN_INSTRUCTIONS = tuple((i, t) for i in INSTRUCTIONS for t in _TASKS if (i, t) not in UNSEEN_INSTRUCTIONS)


def propose_instruct(rng: Random, scope: Scope) -> Draft:
    instruction, task = rng.choice(sorted(UNSEEN_INSTRUCTIONS) if scope.compositional else _SEEN_INSTRUCTIONS)
    inner = _TASKS[task][0](rng, Scope(scope.grid, scope.difficulty, scope.heldout, False, scope.variant))
    truth = {**inner.truth, "instruction": instruction, "task": task}
    return Draft(
        truth=truth,
        asked=f"{inner.asked} {instruction}",
        cells=inner.cells,
        scenes=inner.scenes,
        hard=inner.hard,
        novel=scope.compositional,
    )


def ask_instruct(truth: Truth, language: str) -> str:
    question = _TASKS[truth["task"]][1](truth, language)
    return f"{question} {pick(language, *INSTRUCTIONS[truth['instruction']][:2])}"


def key_instruct(truth: Truth, language: str) -> tuple[str, str]:
    premise, conclusion = _TASKS[truth["task"]][2](truth, language)
    return f"{premise} {conclusion}".strip(), f": {answer_instruct(truth, language)}"


def answer_instruct(truth: Truth, language: str) -> str:
    return pick(language, *INSTRUCTIONS[truth["instruction"]][2:], x=truth["value"])


def alternatives_instruct(truth: Truth) -> list[Truth]:
    if truth["task"] == "arithmetic":
        return alternatives_arithmetic(truth)
    return with_value(truth, COLOURS if truth["task"] == "colour" else numbers(4))


def view_instruct(meta: Mapping[str, Any], language: str) -> tuple[str, str]:
    text_only = meta["truth"]["task"] == "arithmetic"
    return view_arithmetic(meta, language) if text_only else view_cells(meta, language)


def followed(truth: Truth, language: str, answer: str) -> bool:
    """Whether the answer says one word, whichever, in the form asked for."""
    form = pick(language, *INSTRUCTIONS[truth["instruction"]][2:]).split()
    words = answer.split()
    said = {word for word, slot in zip(words, form, strict=False) if slot == "{x}"}
    filled = [said.copy().pop() if slot == "{x}" and said else slot for slot in form]
    return len(said) == 1 and words == filled


def right_content(truth: Truth, language: str, answer: str) -> bool:
    """Whether the answer says the right word, in whatever form: nothing else but the words of forms."""
    frames = [pick(language, *form[2:]).split() for form in INSTRUCTIONS.values()]
    return set(answer.split()).difference(*frames) == {tr(language, truth["value"])}


KINDS = (
    Kind(
        name="instruct",
        family="general",
        label="instruction",
        propose=propose_instruct,
        ask=ask_instruct,
        key=key_instruct,
        answer=answer_instruct,
        alternatives=alternatives_instruct,
        view=view_instruct,
        detail=lambda truth: (truth["instruction"],),
    ),
)
