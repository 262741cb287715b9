"""Corrections generalised into rules with slots, and steps that a rule fits. Pure functions over words.

Two corrections are generalised by what both share in order (a longest common subsequence); everything else becomes a
slot. This is anti-unification of word sequences (G. D. Plotkin, Machine Intelligence 5, 1970) with one kind of
variable. A slot of the edited step that always repeats a slot of the original step or of the question is *bound*: it is
filled with the words of the item at hand. What no correction explains is *open*: the model fills it.

    kill man : fine .        →  kill man : this hurts people .
    steal wallet : fine .    →  steal wallet : this robs people .
    [1] : fine .             →  [1] : this [open] people .
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from safeladder.steering.edit_distance import common, normalised, words

Template = tuple[str | None, ...]
"""Words in order; None is a slot for any number of words. Two slots never follow one another."""
Slots = tuple[tuple[str, ...], ...]
"""The words in each slot, in order."""
Sizes = tuple[tuple[int, int], ...]
"""The least and the most words of each slot."""
Bound = tuple[str, int] | None
"""Where the words of a slot come from: ("original" or "question", number of its slot); None: the model fills it."""

_SLACK = 1
"""A slot takes this many words more or fewer than were seen in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditPair:
    """One correction, or one step that a person looked at and left as it is (`edited` equals `original`).

    `context` is the reasoning before the step. `candidates` is what the model said in this place when it was sampled
    there (each distinct step with its probability, "" for those that were cut); empty where nobody sampled. `answer` is
    what the model answered after the edit, `source` names the sample.
    """

    question: str
    original: str
    edited: str
    context: str = ""
    candidates: Mapping[str, float] = field(default_factory=dict)
    answer: str = ""
    source: str = ""

    @property
    def confirmed(self) -> bool:
        """Whether the person left the step as it was."""
        return words(self.original) == words(self.edited)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What several corrections have in common.

    `bound` has one entry a slot of `edited`; `sizes` and `open_sizes` are how few and how many words a slot of
    `original`, and an open slot of `edited`, may take.
    """

    pairs: tuple[EditPair, ...]
    original: Template
    edited: Template
    question: Template
    bound: tuple[Bound, ...]
    sizes: Sizes
    open_sizes: Sizes

    def __str__(self) -> str:
        numbers = {("original", i): str(i + 1) for i in range(self.original.count(None))}
        numbers |= {("question", i): f"question {i + 1}" for i in range(self.question.count(None))}
        before = _shown(self.original, [str(i + 1) for i in range(self.original.count(None))])
        return f"{before} → {_shown(self.edited, ['open' if b is None else numbers[b] for b in self.bound])}"

    @property
    def open_slots(self) -> int:
        """How many slots of the edited step the model has to fill."""
        return self.bound.count(None)

    @property
    def proven(self) -> bool:
        """Whether it was seen more than once and spells out a word of the step it changes (not punctuation alone)."""
        return len(self.pairs) > 1 and bool(_literals(self.original))

    def fit(self, question: str, step: str) -> Fit | None:
        """How the rule fits a step; None where it does not, or where it would change nothing."""
        found = match(self.original, words(step), self.sizes)
        if found is None:
            return None
        asked = match(self.question, words(question)) or ()
        if any(b and b[0] == "question" and b[1] >= len(asked) for b in self.bound):
            return None  # the edit needs words of a question of another shape
        values = tuple(None if b is None else (found if b[0] == "original" else asked)[b[1]] for b in self.bound)
        pattern = _with(self.edited, values)
        if match(pattern, words(step), self.open_sizes) is not None:
            return None  # the step already says what the rule demands
        return Fit(rule=self, pattern=pattern)

    def similarity(self, question: str, step: str) -> float:
        """In [0, 1]: the share of a step it fits that the rule spells out, averaged with the likeness of the question
        to the nearest of the rule's own."""
        asked = words(question)
        shape = max(1 - normalised(asked, words(p.question)) for p in self.pairs)
        literal = sum(word is not None for word in self.original) / len(words(step))
        return (literal + shape) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A rule on one step. `pattern` is the edited step with the item's own words; open slots are None."""

    rule: Rule
    pattern: Template

    def accepts(self, step: str) -> bool:
        """Whether a step says what the rule demands here."""
        return match(self.pattern, words(step), self.rule.open_sizes) is not None

    def support(self, candidates: Mapping[str, float]) -> float | None:
        """The share of the sampled steps' probability that says it; None where nothing was sampled."""
        total = sum(candidates.values())
        return sum(n for text, n in candidates.items() if self.accepts(text)) / total if total else None

    def lead(self) -> tuple[str, ...]:
        """The words up to the first open slot."""
        return tuple(self.pattern[: self.pattern.index(None)] if None in self.pattern else self.pattern)  # type: ignore[arg-type]


def rules_of(pairs: Sequence[EditPair]) -> list[Rule]:
    """Corrections with something in common become one rule; confirmations become none. In the order given.

    A correction joins the rule with which it shares most of what the edit brings in (or takes out).
    """
    shapes: list[_Shape] = []
    for pair in pairs:
        if pair.confirmed:
            continue
        alone = _alone(pair)
        best, place, joined = 0, 0, None
        for i, shape in enumerate(shapes):
            if not shape.change & alone.change:
                continue
            merged = shape.join(alone)
            if (shared := merged.shared()) > best:
                best, place, joined = shared, i, merged
        if joined is None:
            shapes.append(alone)
        else:
            shapes[place] = joined
    return [shape.rule() for shape in shapes]


def generalise(a: Sequence[str | None], b: Sequence[str | None]) -> Template:
    """What both have in common, in order; a slot wherever either has something else."""
    out: list[str | None] = []
    i = j = 0
    for x, y in [*common(a, b), (len(a), len(b))]:
        if x > i or y > j:
            out.append(None)
        if x < len(a):
            out.append(a[x])
        i, j = x + 1, y + 1
    return tuple(out)


def match(template: Template, found: Sequence[str], sizes: Sequence[tuple[int, int]] | None = None) -> Slots | None:
    """What the words put into the template's slots (as few as possible, from the left); None where they do not fit.

    Args:
        template: with n slots.
        found: words.
        sizes: the least and the most words of each slot; any number where None.
    """
    end = len(found)
    free = iter(sizes or [(0, end)] * template.count(None))
    spans = [(1, 1) if word is not None else next(free) for word in template]
    # fits[i][j]: the template from i on can take exactly the words from j on.
    fits = [[False] * end + [True]]
    for word, (low, high) in zip(reversed(template), reversed(spans), strict=True):
        after, row = fits[-1], [False] * (end + 1)
        for j in range(end + 1):
            if word is not None:
                row[j] = j < end and found[j] == word and after[j + 1]
            else:
                row[j] = any(after[j + low : j + high + 1])
        fits.append(row)
    fits.reverse()
    if not fits[0][0]:
        return None
    slots, j = [], 0
    for i, (word, (low, _)) in enumerate(zip(template, spans, strict=True)):
        size = 1 if word is not None else next(n for n in range(low, end - j + 1) if fits[i + 1][j + n])
        if word is None:
            slots.append(tuple(found[j : j + size]))
        j += size
    return tuple(slots)


@dataclass(frozen=True, slots=True)
class _Shape:
    """A rule in the making: its corrections and what they share so far."""

    pairs: list[EditPair]
    original: Template
    edited: Template
    question: Template

    @property
    def change(self) -> set[str]:
        """The words that the edit brings in or takes out."""
        return _literals(self.edited) ^ _literals(self.original)

    def join(self, other: _Shape) -> _Shape:
        return _Shape(
            [*self.pairs, *other.pairs],
            generalise(self.original, other.original),
            generalise(self.edited, other.edited),
            generalise(self.question, other.question),
        )

    def shared(self) -> int:
        """How many words it brings in; where it brings in none and leaves nothing open, how many it takes out."""
        before, after = _literals(self.original), _literals(self.edited)
        return len(after - before) or (len(before - after) if None not in self.bound() else 0)

    def bound(self) -> tuple[Bound, ...]:
        rows = [
            {
                "original": match(self.original, words(pair.original)) or (),
                "question": match(self.question, words(pair.question)) or (),
                "edited": match(self.edited, words(pair.edited)) or (),
            }
            for pair in self.pairs
        ]
        found: list[Bound] = []
        for slot in range(self.edited.count(None)):
            places = [("original", i) for i in range(self.original.count(None))]
            places += [("question", i) for i in range(self.question.count(None))]
            same = (p for p in places if all(row["edited"][slot] == row[p[0]][p[1]] for row in rows))
            found.append(next(same, None))
        return tuple(found)

    def rule(self) -> Rule:
        bound = self.bound()
        sizes = _seen(self.edited, [words(pair.edited) for pair in self.pairs])
        return Rule(
            pairs=tuple(self.pairs),
            original=self.original,
            edited=self.edited,
            question=self.question,
            bound=bound,
            sizes=tuple(_seen(self.original, [words(pair.original) for pair in self.pairs])),
            open_sizes=tuple((max(1, low), high) for (low, high), b in zip(sizes, bound, strict=True) if b is None),
        )


def _alone(pair: EditPair) -> _Shape:
    """The shape of a single correction.

    Words that the edit keeps and that the question or the reasoning before it holds are the item's own: slots.
    """
    before, after = words(pair.original), words(pair.edited)
    own = {w for w in {*words(pair.question), *words(pair.context)} & {*before} & {*after} if w[0].isalnum()}
    return _Shape([pair], _slotted(before, own), _slotted(after, own), words(pair.question))


def _literals(template: Template) -> set[str]:
    return {word for word in template if word is not None and word[0].isalnum()}


def _slotted(found: Sequence[str], own: set[str]) -> Template:
    out: list[str | None] = []
    for word in found:
        if word not in own:
            out.append(word)
        elif not out or out[-1] is not None:
            out.append(None)
    return tuple(out)


def _with(template: Template, values: Sequence[tuple[str, ...] | None]) -> Template:
    """The template with the slots that have a value filled."""
    rest = iter(values)
    out: list[str | None] = []
    for word in template:
        value = next(rest) if word is None else (word,)
        out += [None] if value is None else value
    return tuple(out)


def _seen(template: Template, texts: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """For each slot, how few and how many words may stand in it: what was seen, with some slack."""
    rows = [match(template, text) for text in texts]
    sizes = [[len(row[i]) for row in rows if row is not None] for i in range(template.count(None))]
    return [(max(0, min(of) - _SLACK), max(of) + _SLACK) for of in sizes]


def _shown(template: Template, names: Sequence[str]) -> str:
    rest = iter(names)
    return " ".join(f"[{next(rest)}]" if word is None else word for word in template)
