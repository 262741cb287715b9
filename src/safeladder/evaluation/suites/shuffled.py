"""Options of a multiple-choice question in an order that depends on the seed and the question alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

from safeladder.verifiers.choices import letters_for

SEED = 0
"""Of the published order of every suite here; another one is another benchmark."""


def shuffled(options: Sequence[str], name: str, *, seed: int = SEED) -> list[int]:
    """A permutation of the options' places, the same in every process and however many questions are read."""
    order = list(range(len(options)))
    random.Random(f"{seed}\x1f{name}").shuffle(order)
    return order


def listed(options: Sequence[str]) -> str:
    """The options, one a line, lettered from A."""
    letters = letters_for(len(options))
    return "\n".join(f"{letter}. {option}" for letter, option in zip(letters, options, strict=True))
