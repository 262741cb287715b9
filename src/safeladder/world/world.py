"""The procedural world: every item is a pure function of (seed, kind, split, index)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from safeladder.types import Message, Part, SafeladderError, Sample
from safeladder.world.families import KIND_OF, KINDS, READING, SEARCH, search
from safeladder.world.families.safety import REFUSAL
from safeladder.world.kinds import Draft, Kind, Scope, Truth, scenes_of
from safeladder.world.lexicon import COLOURS, FIRST, SECOND, SIZES, WHATS, ZH, ZH_VERBS, stable_hash, tr
from safeladder.world.render import scene_image
from safeladder.world.searching import rehearse
from safeladder.world.teachers import STYLES, demonstrate

SPLITS = ("train", "heldout")
WHAT_CLASSES, COLOUR_CLASSES, SIZE_CLASSES = len(WHATS) + 1, len(COLOURS) + 1, len(SIZES) + 1
"""Numbers of classes of `World.cell_targets`; class 0 is nothing (an empty cell, no colour, no size)."""

_WHAT_ID = {what: i for i, what in enumerate(WHATS, start=1)}
_COLOUR_ID = {colour: i for i, colour in enumerate(COLOURS, start=1)}
_SIZE_ID = {size: i for i, size in enumerate(SIZES, start=1)}
_PATIENCE = 2000
_COMPOSED = 1 / 3
"""Share of held-out items that must hold a combination kept out of training."""
_TEXTS_A_KIND, _SEARCHES_A_KIND = 120, 60


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """`grid` x `grid` cells a picture (2 or 3); `difficulty` in [0, 1] sets the number of objects, scenes and
    small digits; `chinese_share` is the share of Chinese items. Errors: SafeladderError on other values."""

    seed: int = 0
    grid: int = 2
    difficulty: float = 0.5
    chinese_share: float = 0.2

    def __post_init__(self) -> None:
        if self.grid not in (2, 3):
            raise SafeladderError(f"world.grid is {self.grid!r}; allowed: 2, 3")
        for name in ("difficulty", "chinese_share"):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise SafeladderError(f"world.{name} is {share!r}; allowed: a number from 0 to 1")


def split_of(draft: Draft) -> str:
    """The one split in which this content may appear, whatever the world's seed: unseen combinations are held
    out, and of everything else the quarter that a hash of the content picks."""
    if draft.home is not None:
        return draft.home
    if draft.novel or draft.unseen_pair():
        return "heldout"
    return "heldout" if stable_hash("split", draft.pair or draft.key()) % 4 == 0 else "train"


class World:
    """Items of every kind, split by content into "train" and "heldout"."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self._libraries: dict[str, search.Library] = {}

    def item(self, kind: str, split: str, index: int) -> Sample:
        """The index-th item of a kind in a split; no state is kept. About a third of the held-out items of kinds
        that compose hold an unseen combination (`meta["compositional"]`).

        Errors: SafeladderError on an unknown kind or split.
        """
        return self._item(kind, split, index, None)

    def _item(self, name: str, split: str, index: int, language: str | None) -> Sample:
        _require_known(name, split)
        if name in SEARCH:
            return self._question(self._library(split), name, split, index)
        kind = KIND_OF[name]
        stream, position, _, paired = kind.pairing(index)
        draft, compositional, rng = self._draft(kind, split, index)
        chinese = rng.random() < self.config.chinese_share
        language = language or ("zh" if chinese else "en")
        home = f"world-{self.config.seed}-{split}"
        return self._sample(
            kind,
            draft,
            language,
            id_=f"{home}-{name}-{index}",
            group=f"{home}-{stream}-{position}" if paired else "",
            split=split,
            compositional=compositional,
        )

    def _draft(self, kind: Kind, split: str, index: int) -> tuple[Draft, bool, random.Random]:
        """An item's content, whether it holds an unseen combination, and what is left of its randomness."""
        stream, position, variant, _ = kind.pairing(index)
        rng = random.Random(stable_hash(self.config.seed, self.config.grid, stream, split, position))
        heldout = split == "heldout"
        compose = heldout and kind.composes and rng.random() < _COMPOSED
        scope = Scope(self.config.grid, self.config.difficulty, heldout, compose, variant)
        propose = kind.propose_own if kind.propose_own is not None and kind.is_own(index) else kind.propose
        for _ in range(_PATIENCE):
            draft = propose(rng, scope)
            compositional = draft.novel or draft.unseen_pair() or draft.unseen_writer()
            if split_of(draft) == split and (compositional == compose or not kind.composes):
                return draft, compositional, rng
        raise RuntimeError(f"no {kind.name} item found for the {split} split")

    def _key(self, name: str, split: str, index: int) -> str:
        """`meta["key"]` of an item, without its pictures and its words."""
        if name in SEARCH:
            return search.asked(self._truth(self._library(split), name, split, index))
        return self._draft(KIND_OF[name], split, index)[0].key()

    def _sample(
        self,
        kind: Kind,
        draft: Draft,
        language: str,
        *,
        id_: str,
        group: str,
        split: str,
        compositional: bool,
    ) -> Sample:
        meta = {
            "family": kind.family,
            "kind": kind.name,
            "split": split,
            "key": draft.key(),
            "compositional": compositional,
            "hard": draft.hard,
            "grid": self.config.grid,
            "cells": list(draft.cells),
            "truth": draft.truth,
        }
        pictures = [scene_image(cells, self.config.grid) for cells in scenes_of(meta)]
        parts = [Part(text=kind.ask(draft.truth, language))]
        if draft.scenes == 1:
            parts.insert(0, Part(image=pictures[0]))
        elif draft.scenes > 1:
            parts.insert(0, Part(video=tuple(frame for picture in pictures for frame in (picture, picture))))
        return Sample(
            id=id_,
            messages=(Message(role="user", parts=tuple(parts)),),
            label=kind.label,
            reference=kind.answer(draft.truth, language),
            taxonomy=(kind.family, kind.name, *kind.detail(draft.truth)),
            source="world",
            group_id=group,
            language=language,
            meta=meta,
        )

    def pages(self, split: str) -> list[dict[str, str]]:
        """All pages that the search items of a split are about: `id`, `title` and `text`, in the order of the ids. They
        differ by seed; no page of one split names an entity of the other.

        Errors: SafeladderError on an unknown split.
        """
        _require_split(split)
        return self._library(split).pages()

    def _library(self, split: str) -> search.Library:
        if split not in self._libraries:
            self._libraries[split] = search.Library(self.config.seed, split, self.config.chinese_share)
        return self._libraries[split]

    def _question(self, library: search.Library, name: str, split: str, index: int) -> Sample:
        truth = self._truth(library, name, split, index)
        language, value = library.language(truth), truth["value"]
        return Sample(
            id=f"world-{self.config.seed}-{split}-{name}-{index}",
            messages=(Message(role="user", parts=(Part(text=search.ask(truth, language)),)),),
            label="search",
            reference=None if value is None else tr(language, value),
            taxonomy=("search", name, truth["missing"] or ("two hops" if truth["tie"] else "one hop")),
            source="world",
            language=language,
            meta={
                "family": "search",
                "kind": name,
                "split": split,
                "key": search.asked(truth),
                # Seen syllables in an unseen pair: every held-out entity is a novel combination.
                "compositional": split == "heldout",
                "hard": truth["tie"] is not None,
                "grid": self.config.grid,
                "cells": [],
                "truth": truth,
            },
        )

    def _truth(self, library: search.Library, name: str, split: str, index: int) -> Truth:
        return library.draw(name, random.Random(stable_hash(self.config.seed, name, split, index)))

    def samples(self, split: str, n: int, mix: Mapping[str, float], *, start: int = 0) -> list[Sample]:
        """The items that `draw` names."""
        return [self.item(kind, split, index) for kind, index in self.draw(split, n, mix, start=start)]

    def draw(self, split: str, n: int, mix: Mapping[str, float], *, start: int = 0) -> list[tuple[str, int]]:
        """(kind, index) of `n` items whose kinds have exactly the shares of `mix` (rounded), shuffled; every
        kind's indices begin at `start`.

        Contents (`meta["key"]`) are unique in the held-out split. In training a kind with a small content
        (facts, arithmetic) is gone through again once it is used up: each content once a pass.

        Errors: SafeladderError on an unknown kind or split, weights that are not positive, or where the
        held-out split has too few contents of a kind.
        """
        if not mix or any(weight < 0 for weight in mix.values()) or sum(mix.values()) <= 0:
            raise SafeladderError(f"world mix {dict(mix)!r}: needs kinds with weights of at least 0, one above 0")
        out = [(kind, i) for kind, k in _quotas(n, mix).items() for i in self._distinct(kind, split, k, start)]
        random.Random(stable_hash(self.config.seed, split, start, "order")).shuffle(out)
        return out

    def _distinct(self, kind: str, split: str, n: int, start: int) -> list[int]:
        _require_known(kind, split)
        out: list[int] = []
        seen: set[str] = set()
        index, misses = start, 0
        while len(out) < n:
            key = self._key(kind, split, index)
            index += 1
            if key not in seen:
                seen.add(key)
                out.append(index - 1)
                misses = 0
                continue
            misses += 1
            if misses > 20 + 8 * len(seen):
                if split == "heldout":
                    raise SafeladderError(
                        f"the held-out world has only {len(seen)} distinct {kind!r} items; {n} were asked for"
                    )
                seen, misses = set(), 0
        return out

    @cached_property
    def _corpus(self) -> list[str]:
        rng = random.Random(0)
        lines: list[str] = []
        for kind in KINDS:
            if kind in READING:  # in the words of the searches below
                continue
            for index in range(_TEXTS_A_KIND):
                sample = self._item(kind, "train", index, "zh" if index // 4 % 4 == 3 else "en")
                lines.append(sample.question)
                styles = STYLES[:1] if KIND_OF[kind].one_style else STYLES
                for style in styles:
                    response = demonstrate(sample, style, rng)
                    lines += [response.reasoning or "", response.answer]
        lines += self._searches(rng)
        return [*lines, *REFUSAL, " ".join(_all_words())]

    def _searches(self, rng: random.Random) -> Iterator[str]:
        """Questions, turns (their tags left out) and observations of rehearsed searches."""
        library = search.Library(self.config.seed, "train", 0.25)
        pages = library.pages()
        for kind in SEARCH:
            for index in range(_SEARCHES_A_KIND):
                sample = self._question(library, kind, "train", index)
                yield sample.question
                for who, text in rehearse(sample, pages, rng):
                    if who == "policy":
                        yield from re.findall(r">([^<]+)<", text)
                    else:
                        yield f" {text}"

    def texts(self) -> list[str]:
        """A corpus for a tokenizer: prompts, reasonings and answers of every kind, style and language (one in
        four Chinese), and one line with every word that contents are made of."""
        return list(self._corpus)

    def cell_targets(self, sample: Sample) -> list[tuple[int, int, int]]:
        """(what, colour, size) class ids of each 28-px cell, scene by scene in reading order; 0 is nothing.
        Below WHAT_CLASSES, COLOUR_CLASSES and SIZE_CLASSES. Empty for text-only samples."""
        return [
            (0, 0, 0)
            if cell is None
            else (
                _WHAT_ID[cell["what"]],
                _COLOUR_ID.get(cell.get("colour"), 0),
                _SIZE_ID.get(cell.get("size"), 0),
            )
            for cell in sample.meta["cells"]
        ]


def _require_known(kind: str, split: str) -> None:
    if kind not in (*KINDS, *SEARCH):
        raise SafeladderError(f"unknown world kind {kind!r}; allowed: {', '.join((*KINDS, *SEARCH))}")
    _require_split(split)


def _require_split(split: str) -> None:
    if split not in SPLITS:
        raise SafeladderError(f"unknown split {split!r}; allowed: {', '.join(SPLITS)}")


def _quotas(n: int, mix: Mapping[str, float]) -> dict[str, int]:
    """`n` divided in proportion to the weights, remainders to the largest fractions."""
    total = sum(mix.values())
    shares = {kind: n * weight / total for kind, weight in mix.items()}
    counts = {kind: int(share) for kind, share in shares.items()}
    by_fraction = sorted(shares, key=lambda kind: counts[kind] - shares[kind])
    for kind in by_fraction[: n - sum(counts.values())]:
        counts[kind] += 1
    return counts


def _all_words() -> list[str]:
    return [
        *(str(n) for n in range(19)),
        *FIRST,
        *SECOND,
        *ZH,
        *dict.fromkeys([*ZH.values(), *ZH_VERBS.values()]),
    ]
