"""The objects that a caption may name, and their names in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

from safeladder.types import SafeladderError

_IRREGULAR = {
    "man": "men", "woman": "women", "person": "people", "child": "children", "knife": "knives", "wolf": "wolves",
    "mouse": "mice", "goose": "geese", "foot": "feet", "tooth": "teeth", "sheep": "sheep", "fish": "fish",
}  # fmt: skip
_SENTENCE_END = re.compile(r"[.!?。！？]+[\"'”’)]*(?=\s|$)|[。！？]")


Names = tuple[tuple[str, ...], ...]
"""A line an object: its own name, then the others."""


@dataclass(frozen=True)
class Lexicon:
    """The objects and their names. A name stands for one object, else `SafeladderError`."""

    names: Names

    def __post_init__(self) -> None:
        owners: dict[str, str] = {}
        for thing, *others in self.names:
            for name in (thing, *others):
                owner = owners.setdefault(name.casefold(), thing)
                if owner != thing:
                    raise SafeladderError(f"the name {name!r} stands for {owner!r} and for {thing!r}")

    @classmethod
    @cache
    def of(cls, names: Names) -> Lexicon:
        """The lexicon of these lines, compiled once."""
        return cls(names)

    @cached_property
    def _of(self) -> dict[str, str]:
        plain = {name.casefold(): line[0] for line in self.names for name in line}
        plurals = {plural: thing for name, thing in plain.items() for plural in _plurals(name)}
        return {**plurals, **plain}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._of, key=len, reverse=True)
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")

    def mentioned(self, text: str) -> set[str]:
        """The objects that a text names; of names that overlap the longest counts ("hot dog" is no dog)."""
        return {self._of[name] for name in self._pattern.findall(" ".join(text.casefold().split()))}


def finished(text: str, *, cut: bool) -> str:
    """The text; where the generation was cut, only up to the end of its last whole sentence."""
    if not cut:
        return text.strip()
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]].strip() if ends else ""


def _plurals(name: str) -> Iterable[str]:
    head, _, last = name.rpartition(" ")
    if last in _IRREGULAR:
        many = _IRREGULAR[last]
    elif re.search(r"[^aeiou]y$", last):
        many = f"{last[:-1]}ies"
    else:
        many = f"{last}es" if re.search(r"(?:s|x|z|ch|sh)$", last) else f"{last}s"
    yield f"{head} {many}".strip()
