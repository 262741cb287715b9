"""Is it there? Presence questions as POPE asks them, with a knob for which objects occur together.

Not among the world's kinds: no mixture of the ladder draws these items. They serve to plant a language prior and to
measure what it does. Twelve pictograms form six pairs. In a scene one partner brings the other with probability
`together`; a question says truly that one object is there and asks for another. Where `together` is 0.5 the words of a
question do not tell the answer; the nearer to 1, the more they do, and a model may stop looking.

POPE (Li et al. 2023, arXiv 2305.10355): as many questions about present as about absent objects; absent ones are drawn
at random, are the most frequent ones, or those that most often occur with what is shown (adversarial).
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from safeladder.types import Message, Part, Response, SafeladderError, Sample
from safeladder.world.kinds import Cell, content, name_of, report
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
_PATIENCE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """How often objects occur in a set of scenes, alone and with each other."""

    count: Mapping[str, int]
    together: Mapping[tuple[str, str], int]


def presence_items(
    split: str, n: int, *, seed: int = 0, together: float = 0.5, mention: float = 1.0, start: int = 0
) -> list[Sample]:
    """Presence questions about 2 x 2 scenes, half of which (where possible) ask for the partner of what is mentioned.

    Args:
        split: "train" or "heldout"; a scene belongs to one of them by its content, whatever the seed.
        n: how many.
        seed: of the items; item i is a function of (seed, split, together, i).
        together: probability that an object's partner is in the scene too, in [0, 1].
        mention: share of questions that say what else is there.
        start: index of the first.

    Returns:
        Samples with `reference` "yes" or "no" and `response` to train on. `meta` has `cells`, `grid`, `asked`,
        `context` (what is mentioned, or ""), `present` (names) and `partner` (is the partner asked for).
    """
    _check(split, together)
    if not 0.0 <= mention <= 1.0:
        raise SafeladderError(f"mention is {mention!r}; allowed: a number from 0 to 1")
    return [_item(split, index, seed, together, mention) for index in range(start, start + n)]


def pope_items(
    protocol: Protocol, n: int, statistics: Statistics, *, seed: int = 0, together: float = 0.5, start: int = 0
) -> list[Sample]:
    """Two questions, one about a present and one about an absent object, on each of `n` held-out scenes.

    Args:
        protocol: how the absent object is chosen.
        n: scenes; both questions of a scene share `group_id`, and the first is the same whatever the protocol.
        statistics: of the scenes that the model was trained on.
        seed, together, start: of the scenes, see `presence_items`.
    """
    _check("heldout", together)
    if protocol not in PROTOCOLS:
        raise SafeladderError(f"unknown protocol {protocol!r}; allowed: {', '.join(PROTOCOLS)}")
    items = []
    for index in range(start, start + n):
        rng = random.Random(stable_hash("pope", seed, together, index))
        cells = _scene(rng, "heldout", together, least=2)
        present = _present(cells)
        context = rng.choice(present)
        there = rng.choice([x for x in present if x != context])
        absent = _absent(rng, protocol, context, present, statistics)
        home = f"pope-{seed}-{index}"
        for asked, tag in ((there, "yes"), (absent, protocol)):
            items.append(_sample(f"{home}-{tag}", home, cells, context, asked, "heldout"))
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


def captions(sample: Sample) -> tuple[str, str]:
    """What the scene shows, cell by cell, and the same with an absent object named: the mentioned one's partner where
    that is absent, else any. It stands in for an empty cell, or where there is none, for the last object but the
    mentioned one."""
    cells, present = sample.meta["cells"], sample.meta["present"]
    rng = random.Random(stable_hash("caption", sample.id))
    partner = PARTNER.get(sample.meta["context"], "")
    false = partner if partner and partner not in present else rng.choice([x for x in OBJECTS if x not in present])
    empty = [i for i, cell in enumerate(cells) if cell is None]
    other = [i for i, cell in enumerate(cells) if cell is not None and cell["what"] != sample.meta["context"]]
    place = rng.choice(empty) if empty else other[-1]
    told = [*cells]
    told[place] = {"what": false}
    return report([[name_of(c) for c in cells]], "en"), report([[name_of(c) for c in told]], "en")


def question(asked: str, context: str = "") -> str:
    """The words of a presence question; `context` is mentioned as being there."""
    there = f"there is a {name_of({'what': context})} . " if context else ""
    return f"{there}is there a {name_of({'what': asked})} ?"


def _check(split: str, together: float) -> None:
    if split not in ("train", "heldout"):
        raise SafeladderError(f"unknown split {split!r}; allowed: train, heldout")
    if not 0.0 <= together <= 1.0:
        raise SafeladderError(f"together is {together!r}; allowed: a number from 0 to 1")


def _item(split: str, index: int, seed: int, together: float, mention: float) -> Sample:
    rng = random.Random(stable_hash("presence", seed, split, together, index))
    cells = _scene(rng, split, together)
    present = _present(cells)
    context = rng.choice(present)
    others = [x for x in present if x not in (context, PARTNER[context])]
    absent = [x for x in OBJECTS if x not in present and x != PARTNER[context]]
    if rng.random() < 0.5:
        asked = PARTNER[context]
    else:
        asked = rng.choice(others) if others and rng.random() < 0.5 else rng.choice(absent)
    told = context if rng.random() < mention else ""
    id_ = f"presence-{seed}-{together:g}-{split}-{index}"
    return _sample(id_, id_, cells, told, asked, split)


def _sample(id_: str, group: str, cells: Sequence[Cell], context: str, asked: str, split: str) -> Sample:
    present = _present(cells)
    answer = ANSWERS[asked not in present]
    return Sample(
        id=id_,
        group_id=group,
        messages=(
            Message(
                role="user",
                parts=(Part(image=scene_image(cells, 2)), Part(text=question(asked, context))),
            ),
        ),
        label="general_rule",
        reference=answer,
        source="world",
        taxonomy=("presence",),
        response=Response(answer=answer),
        meta={
            "family": "presence",
            "kind": "presence",
            "split": split,
            "key": f"presence {context} {asked} | {content(cells)}",
            "grid": 2,
            "cells": list(cells),
            "asked": asked,
            "context": context,
            "present": present,
            "partner": PARTNER.get(context) == asked,
        },
    )


def _scene(rng: random.Random, split: str, together: float, *, least: int = 1) -> list[Cell]:
    """One or two pairs, of each both objects or one of them, on random cells."""
    for _ in range(_PATIENCE):
        things: list[str] = []
        for pair in dict.fromkeys(rng.choices(PARTNERS, _WEIGHTS, k=rng.randint(1, 2))):
            one = rng.randrange(2)
            things += pair if rng.random() < together else (pair[one],)
        cells: list[Cell] = [None] * 4
        for place, what in zip(rng.sample(range(4), len(things)), things, strict=True):
            cells[place] = {"what": what}
        heldout = stable_hash("presence", content(cells)) % 4 == 0
        if len(things) >= least and heldout == (split == "heldout"):
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


def blank_scene() -> Any:
    """The picture of an empty scene: the reference image of effects."""
    return scene_image([None] * 4, 2)
