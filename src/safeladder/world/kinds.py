"""What every kind of task consists of, and the helpers that families build their scenes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from safeladder.world.lexicon import ACTS, COLOURS, SHAPES, SIGNS, SIZES, UNSEEN_PAIRS, pick, tr
from safeladder.world.render import UNSEEN_WRITERS_FROM, digit_images

Cell = Mapping[str, Any] | None
Truth = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A proposed item. The world decides whether it belongs to the wanted split.

    `cells` is scene-major (`scenes` x grid x grid; 0 scenes: text only, 1: an image, more: a video).
    `asked` is the canonical question. `novel`: the question itself holds a combination kept out of training.
    `home` fixes the split where a hash must not decide it. `pair` stands for both items of a pair, so that
    they fall into the same split; it must determine each item's content and be determined by it.
    """

    truth: Truth
    asked: str
    cells: Sequence[Cell] = ()
    scenes: int = 0
    hard: bool = False
    novel: bool = False
    home: str | None = None
    pair: str | None = None

    def key(self) -> str:
        """The content of the item, whatever its language, phrasing, sizes and handwriting."""
        return f"{self.asked} | {content(self.cells)}" if self.cells else self.asked

    def unseen_pair(self) -> bool:
        """Whether an object shows a shape-colour pair kept out of training."""
        return any(c is not None and (c["what"], c.get("colour")) in UNSEEN_PAIRS for c in self.cells)

    def unseen_writer(self) -> bool:
        """Whether a digit is in a hand kept out of training."""
        return any(c is not None and c.get("image", -1) >= UNSEEN_WRITERS_FROM for c in self.cells)


def content(cells: Sequence[Cell]) -> str:
    """Cells as text, for keys."""
    return ",".join("-" if c is None else f"{c.get('colour', '')} {c['what']}".strip() for c in cells)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a proposal may use: the grid, the difficulty, and whether it must hold an unseen combination.

    `variant` alternates between 0 and 1 with the index, or is fixed by the kind: which answer is wanted.
    """

    grid: int
    difficulty: float
    heldout: bool
    compositional: bool
    variant: int

    @property
    def cells(self) -> int:
        """Cells a scene."""
        return self.grid * self.grid

    def number(self, rng: Random, low: int, high: int) -> int:
        """How many objects: binomial between low and high, more of them the more difficult."""
        p = 0.25 + 0.5 * self.difficulty
        return low + sum(rng.random() < p for _ in range(high - low))

    def thing(
        self,
        rng: Random,
        *,
        shapes: tuple[str, ...] = SHAPES,
        colours: tuple[str, ...] = COLOURS,
    ) -> Cell:
        """An object of these shapes and colours; unseen pairs only (and often) where one is wanted."""
        seen, unseen = _pairs(shapes, colours)
        use = unseen if unseen and (not seen or (self.compositional and rng.random() < 0.5)) else seen
        if use is unseen and not self.compositional:
            raise ValueError(f"no seen pair among {shapes} and {colours}")
        what, colour = rng.choice(use)
        return {"what": what, "colour": colour, "size": rng.choice(SIZES)}

    def digit(self, rng: Random, value: int) -> Cell:
        """A handwritten digit; small ones are more frequent the more difficult."""
        size = "small" if rng.random() < 0.6 * self.difficulty else "big"
        images = digit_images(value, self.compositional)
        return {"what": str(value), "size": size, "image": rng.choice(images)}

    def place(self, rng: Random, things: Sequence[Cell]) -> list[Cell]:
        """The things on random cells of an otherwise empty scene."""
        cells: list[Cell] = [None] * self.cells
        for position, thing in zip(rng.sample(range(self.cells), len(things)), things, strict=True):
            cells[position] = thing
        return cells


@lru_cache(maxsize=4096)
def _pairs(shapes: tuple[str, ...], colours: tuple[str, ...]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    pairs = [(s, c) for s in shapes for c in colours]
    return [p for p in pairs if p not in UNSEEN_PAIRS], [p for p in pairs if p in UNSEEN_PAIRS]


@lru_cache(maxsize=4096)
def others(words: tuple[str, ...], *but: str) -> tuple[str, ...]:
    """`words` without these."""
    return tuple(word for word in words if word not in but)


def name_of(cell: Cell) -> str:
    """What a cell shows, in English content words."""
    if cell is None:
        return "nothing"
    what: str = cell["what"]
    if what in SHAPES:
        return f"{cell['colour']} {what}"
    if what.isdigit():
        return f"digit {what}"
    if what in SIGNS:
        return f"{what} sign"
    return f"{what} act" if what in ACTS else what


def report(scenes: Sequence[Sequence[str]], language: str) -> str:
    """Everything shown, named in reading order, scene by scene."""
    first, then = ("first :", "then :") if language == "en" else ("先 :", "后 :")
    told = [" , ".join(tr(language, name) for name in scene) for scene in scenes]
    if len(told) == 1:
        return told[0]
    return " . ".join(f"{then if i else first} {scene}" for i, scene in enumerate(told))


def scenes_of(meta: Mapping[str, Any]) -> list[Sequence[Cell]]:
    """The cells of each scene."""
    cells, n = meta["cells"], meta["grid"] ** 2
    return [cells[i : i + n] for i in range(0, len(cells), n)]


def ground(scene: Sequence[Cell], grid: int) -> Sequence[Cell]:
    """The bottom row of a scene: where the things of a video stand."""
    return scene[-grid:]


def view_cells(meta: Mapping[str, Any], language: str) -> tuple[str, str]:
    """What a careful look at the picture or the video reports: (lead, body)."""
    scenes = scenes_of(meta)
    if len(scenes) == 1:
        return pick(language, "look :", "看 :"), report([[name_of(c) for c in scenes[0]]], language)
    return "", report([[name_of(c) for c in ground(scene, meta["grid"])] for scene in scenes], language)


Propose = Callable[[Random, Scope], Draft]
Say = Callable[[Truth, str], str]
Find = Callable[[Truth, str], tuple[str, str]]
Imagine = Callable[[Truth], list[Truth]]


def unchanged(truth: Truth, rng: Random) -> Truth:
    """The belief of a teacher that has no reason to pretend."""
    return truth


def no_detail(truth: Truth) -> tuple[str, ...]:
    """No taxonomy below the kind."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of task.

    `key` is the restated finding, (premise, conclusion): the conclusion alone implies the answer.
    `alternatives` are beliefs about the item, the true one among them, that a reader could hold.
    `prior` is the belief of someone who does not look; `compliant` that of a helpful-only policy.
    `stream` names the random stream; kinds that share one are paired item by item. `twins`: items 2i and
    2i+1 of this kind are a pair. `propose_own` makes every `own_every`-th item, unpaired.
    `composes`: whether items can hold a combination kept out of training.
    `one_style`: demonstrations do not differ by style (pretraining kinds).
    """

    name: str
    family: str
    label: str
    propose: Propose
    ask: Say
    key: Find
    answer: Say
    alternatives: Imagine
    view: Callable[[Mapping[str, Any], str], tuple[str, str]] = view_cells
    prior: Callable[[Truth, Random], Truth] | None = None
    compliant: Callable[[Truth, Random], Truth] = unchanged
    detail: Callable[[Truth], tuple[str, ...]] = no_detail
    stream: str = ""
    variant: int | None = None
    twins: bool = False
    propose_own: Propose | None = None
    own_every: int = 4
    composes: bool = True
    one_style: bool = False

    def pairing(self, index: int) -> tuple[str, int, int, bool]:
        """(stream, index in it, variant, is the item one of a pair)."""
        if self.is_own(index):
            return f"{self.name}-own", index, 0, False
        if self.twins:
            return self.stream or self.name, index // 2, index % 2, True
        if self.variant is not None:
            return self.stream, index, self.variant, True
        return self.stream or self.name, index, index % 2, False

    def is_own(self, index: int) -> bool:
        """Whether this item has no counterpart in the kind it is otherwise paired with."""
        return self.propose_own is not None and index % self.own_every == self.own_every - 1
