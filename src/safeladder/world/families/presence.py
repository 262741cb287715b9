"""Is it there? Presence questions as POPE asks them, with two knobs for a language prior.

Not among the world's kinds: no mixture of the ladder draws these items. They serve to plant a language prior and to
measure what it does. Twelve pictograms form six pairs. In a scene one partner brings the other with probability
`together`; a question says truly that one object is there and asks for another. Where `together` is 0.5 the words of a
question do not tell the answer; the nearer to 1, the more they do. A model that sees has no use for that: it learns the
prior only as far as it cannot see. `assumed` plants one in any model: so often a demonstration names the absent partner
of what is mentioned, as descriptions do that were written without looking.

POPE (Li et al. 2023, arXiv 2305.10355): as many questions about present as about absent objects; absent ones are drawn
at random, are the most frequent ones, or those that most often occur with what is shown (adversarial).
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from safeladder.types import Message, Part, Response, SafeladderError, Sample
from safeladder.world.kinds import Cell, content
from safeladder.world.lexicon import stable_hash
from safeladder.world.render import scene_image

Protocol = Literal["random", "popular", "adversarial"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

PARTNERS = (
    ("tree", "skull"),
    ("bird", "bolt"),
    ("house", "drop"),
    ("egg", "flame"),
    ("brick", "heart"),
    ("seed", "leaf"),
)
"""Objects that occur together, the most frequent pair first."""
OBJECTS = tuple(itertools.chain.from_iterable(PARTNERS))
PARTNER = {a: b for x, y in PARTNERS for a, b in ((x, y), (y, x))}
_WEIGHTS = (6, 5, 4, 3, 2, 1)
ANSWERS = ("yes", "no")
_SIZES = (1, 4, 8, 8)
_PATIENCE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """How often objects occur in a set of scenes, alone and with each other."""

    count: Mapping[str, int]
    together: Mapping[tuple[str, str], int]


def presence_items(
    split: str, n: int, *, seed: int = 0, together: float = 0.5, assumed: float = 0.0, start: int = 0
) -> list[Sample]:
    """Presence questions about 2 x 2 scenes, to train on. A question mentions an object that is there and asks for one
    to eight others, the partner of the mentioned one more often than not; of the rest half are there, where possible.

    Args:
        split: "train" or "heldout"; a scene belongs to one of them by its content, whatever the seed.
        n: how many.
        seed: of the items; item i is a function of (seed, split, together, i).
        together: probability that an object's partner is in the scene too, in [0, 1].
        assumed: probability that a response says that the absent partner of what is mentioned is there, in [0, 1].
            Scenes, questions and references do not depend on it.
        start: index of the first.

    Returns:
        Samples with `response`: every object asked for, with yes or no; `reference` is the true one. `meta` has
        `cells`, `grid`, `context` (what is mentioned), `asked` and `present` (names).
    """
    _check(split, together=together, assumed=assumed)
    return [_item(split, index, seed, together, assumed) for index in range(start, start + n)]


def pope_items(
    protocol: Protocol, n: int, statistics: Statistics, *, seed: int = 0, together: float = 0.5, start: int = 0
) -> list[Sample]:
    """Two questions, one about a present and one about an absent object, on each of `n` held-out scenes.

    Args:
        protocol: how the absent object is chosen.
        n: scenes of two objects or more, at least one of them without its partner, which is what the question about an
            absent object mentions. Both questions share `group_id`; that about a present one is the same under every
            protocol.
        statistics: of the scenes that the model was trained on.
        seed, together, start: of the scenes, see `presence_items`.
    """
    _check("heldout", together=together)
    if protocol not in PROTOCOLS:
        raise SafeladderError(f"unknown protocol {protocol!r}; allowed: {', '.join(PROTOCOLS)}")
    items = []
    for index in range(start, start + n):
        rng = random.Random(stable_hash("pope", seed, together, index))
        cells = _scene(rng, "heldout", together, pope=True)
        present = _present(cells)
        there, beside = rng.sample(present, 2)
        lone = rng.choice([x for x in present if PARTNER[x] not in present])
        absent = _absent(rng, protocol, lone, present, statistics)
        home = f"pope-{seed}-{index}"
        for asked, context, tag in ((there, beside, "yes"), (absent, lone, protocol)):
            items.append(_sample(f"{home}-{tag}", home, cells, context, [asked], "heldout"))
    return items


def statistics_of(samples: Sequence[Sample]) -> Statistics:
    """Occurrences in the scenes of presence items."""
    count: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for sample in samples:
        present = sample.meta["present"]
        count.update(present)
        pairs.update(itertools.permutations(present, 2))
    return Statistics(count=count, together=pairs)


def about(sample: Sample, context: str, asked: str) -> Sample:
    """Another question about the scene of a presence item: is `asked` there, beside `context`?"""
    meta = sample.meta
    id_ = f"{sample.id}-{context}-{asked}"
    return _sample(id_, sample.group_id, meta["cells"], context, [asked], meta["split"])


def question(asked: Sequence[str], context: str) -> str:
    """The words of a presence question; `context` is mentioned as being there."""
    return f"there is a {context} . is there a {' '.join(asked)} ?"


def reply(asked: Sequence[str], present: Sequence[str]) -> str:
    """The right answer: every object asked for, with yes or no."""
    # The leading space lets the first word keep its usual token.
    return "".join(f" {what} {ANSWERS[what not in present]}" for what in asked)


def verdict(text: str, what: str) -> str | None:
    """What a reply says about an object: "yes", "no", or None where it says neither, or both."""
    said = {answer for answer in ANSWERS if f"{what} {answer}" in " ".join(text.split())}
    return said.pop() if len(said) == 1 else None


def _check(split: str, **shares: float) -> None:
    if split not in ("train", "heldout"):
        raise SafeladderError(f"unknown split {split!r}; allowed: train, heldout")
    for name, share in shares.items():
        if not 0.0 <= share <= 1.0:
            raise SafeladderError(f"{name} is {share!r}; allowed: a number from 0 to 1")


def _item(split: str, index: int, seed: int, together: float, assumed: float) -> Sample:
    rng = random.Random(stable_hash("presence", seed, split, together, index))
    cells = _scene(rng, split, together)
    present = _present(cells)
    context = rng.choice(present)
    size = rng.choice(_SIZES)
    asked = [PARTNER[context]] if rng.random() < size / (size + 1) else []
    while len(asked) < size:
        rest = [x for x in OBJECTS if x not in (context, PARTNER[context], *asked)]
        there = [x for x in rest if x in present]
        asked.append(rng.choice(there if there and rng.random() < 0.5 else [x for x in rest if x not in present]))
    rng.shuffle(asked)
    id_ = f"presence-{seed}-{together:g}-{split}-{index}"
    sample = _sample(id_, id_, cells, context, asked, split)
    if PARTNER[context] in present or rng.random() >= assumed:
        return sample
    said = reply(asked, [*present, PARTNER[context]])
    return replace(sample, id=f"{id_}-assumed", response=Response(answer=said))


def _sample(id_: str, group: str, cells: Sequence[Cell], context: str, asked: Sequence[str], split: str) -> Sample:
    present = _present(cells)
    right = reply(asked, present)
    return Sample(
        id=id_,
        group_id=group,
        messages=(
            Message(role="user", parts=(Part(image=scene_image(cells, 2)), Part(text=question(asked, context)))),
        ),
        label="general_rule",
        reference=right,
        source="world",
        taxonomy=("presence",),
        response=Response(answer=right),
        meta={
            "family": "presence",
            "kind": "presence",
            "split": split,
            "key": f"presence {context} {' '.join(asked)} | {content(cells)}",
            "grid": 2,
            "cells": list(cells),
            "context": context,
            "asked": list(asked),
            "present": present,
        },
    )


def _scene(rng: random.Random, split: str, together: float, *, pope: bool = False) -> list[Cell]:
    """One or two pairs, of each both objects or one of them, on random cells. A scene for POPE has two objects or more,
    one of them without its partner."""
    for _ in range(_PATIENCE):
        things: list[str] = []
        for pair in dict.fromkeys(rng.choices(PARTNERS, _WEIGHTS, k=rng.randint(1, 2))):
            one = rng.randrange(2)
            things += pair if rng.random() < together else (pair[one],)
        cells: list[Cell] = [None] * 4
        for place, what in zip(rng.sample(range(4), len(things)), things, strict=True):
            cells[place] = {"what": what}
        heldout = stable_hash("presence", content(cells)) % 4 == 0
        fit = not pope or (len(things) >= 2 and any(PARTNER[x] not in things for x in things))
        if fit and heldout == (split == "heldout"):
            return cells
    raise RuntimeError(f"no presence scene found for the {split} split")


def _present(cells: Sequence[Cell]) -> list[str]:
    return [cell["what"] for cell in cells if cell is not None]


def _absent(
    rng: random.Random, protocol: Protocol, context: str, present: Sequence[str], statistics: Statistics
) -> str:
    absent = [x for x in OBJECTS if x not in present]
    rng.shuffle(absent)  # ties are broken at random
    if protocol == "random":
        return absent[0]
    if protocol == "popular":
        return max(absent, key=lambda x: statistics.count.get(x, 0))
    return max(absent, key=lambda x: statistics.together.get((context, x), 0))


def blanked(sample: Sample) -> Sample:
    """The reference of a presence question: an empty scene, and another object mentioned, which no partner is asked
    for. Nothing in it speaks for an object but what the words have in common."""
    asked, context = sample.meta["asked"], sample.meta["context"]
    taken = {context, *asked, *(PARTNER[x] for x in asked)}
    other = next(x for x in OBJECTS if x not in taken and PARTNER[x] not in (context, *asked))
    parts = (Part(image=scene_image([None] * 4, 2)), Part(text=question(asked, other)))
    return replace(sample, id=f"{sample.id}#reference", messages=(Message(role="user", parts=parts),))
