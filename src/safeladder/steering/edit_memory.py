"""What people corrected, kept so that later questions profit: an edit memory, and when its rules may be applied.

A stored correction is a pair (original step, edited step) with its question and the steps before it. Pairs that change
the same thing are generalised into a rule with slots (`edit_rules`); `edit_transfer` carries rules over to other
questions. How much of the model's own support an edit needs is calibrated here: on what the model said where people
corrected it, against what it said where they looked and left the step alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path

from safeladder.atomic import write_text
from safeladder.steering.edit_distance import words
from safeladder.steering.edit_rules import EditPair, Fit, Rule, rules_of
from safeladder.steering.edit_transfer import Applied, Gate, Match, observed, transfer
from safeladder.steering.editing import reasoning_steps, written_reasoning
from safeladder.steering.steps import split_steps
from safeladder.types import Engine, Rollout, SafeladderError, Sample, SamplingParams

_UNCALIBRATED = 0.15
"""The support that an edit needs where the memory holds no samples to calibrate it on."""
_FLOOR = 0.2
"""Least similarity of a step to a rule."""


class EditMemory:
    """Corrections (`pairs`) and the rules that follow from them."""

    def __init__(self, pairs: Sequence[EditPair] = ()) -> None:
        self.pairs = list(pairs)
        self._rules: list[Rule] | None = None
        self._gates: dict[int, Gate] = {}

    @property
    def rules(self) -> list[Rule]:
        """What the corrections have in common."""
        if self._rules is None:
            self._rules = rules_of(self.pairs)
        return self._rules

    def add(self, pair: EditPair) -> None:
        """Remember a correction, or a step that somebody confirmed."""
        self.pairs.append(pair)
        self._rules = None
        self._gates = {}

    def copy(self) -> EditMemory:
        """The memory as it is now: what is added to either does not reach the other. Shares what was worked out."""
        twin = EditMemory(self.pairs)
        twin._rules, twin._gates = self.rules, self._gates
        return twin

    def confirm(self, engine: Engine, rollout: Rollout, *, seed: int) -> int:
        """Remember that a person left this chain as it is: every step that a rule would have changed.

        Returns:
            How many steps were remembered.
        """
        places = dict.fromkeys(m.number for m in self.find(rollout.sample.question, rollout.text))
        for number in places:
            step = reasoning_steps(rollout)[number - 1].text.strip()
            self.add(observed(engine, rollout, number, step, seed=seed))
        return len(places)

    def find(self, question: str, text: str) -> list[Match]:
        """Every rule that fits a step of the reasoning in a reply's text, the most similar first."""
        reasoning = written_reasoning(text)
        if reasoning is None:
            return []
        found = []
        for number, step in enumerate(split_steps(reasoning), start=1):
            for rule in self.rules:
                fit = rule.fit(question, step.text)
                similarity = 0.0 if fit is None else rule.similarity(question, step.text)
                if fit is not None and similarity >= _FLOOR:
                    found.append(Match(number=number, step=step.text.strip(), fit=fit, similarity=similarity))
        return sorted(found, key=lambda m: -m.similarity)

    def gate(self, rule: Rule) -> Gate:
        """What this memory has shown a rule to need: the threshold between supports of corrected and of confirmed
        steps with the best balanced accuracy, in the middle of the widest such interval; half the mean support of the
        corrected ones where nothing was confirmed. Forced where the model never once said what people wrote.
        """
        if id(rule) not in self._gates:
            self._gates[id(rule)] = self._calibrated(rule)
        return self._gates[id(rule)]

    def _calibrated(self, rule: Rule) -> Gate:
        edits = _known([fit.support(p.candidates) for p, fit in _own_fits(rule)])
        if not edits:
            return Gate(support=_UNCALIBRATED, forced=False)
        if not any(edits):
            return Gate(support=0.0, forced=True)
        kept = _known([fit.support(p.candidates) for p, fit in self.confirmed(rule)])
        return Gate(support=threshold(edits, kept) if kept else sum(edits) / len(edits) / 2, forced=False)

    def confirmed(self, rule: Rule) -> list[tuple[EditPair, Fit]]:
        """Confirmed steps that the rule would have changed."""
        fits = [(p, rule.fit(p.question, p.original)) for p in self.pairs if p.confirmed]
        return [(pair, fit) for pair, fit in fits if fit is not None]

    def apply(self, engine: Engine, sample: Sample, params: SamplingParams, *, seed: int) -> Applied:
        """`apply_all` on one question."""
        return self.apply_all(engine, [sample], params, seed=seed)[0]

    def apply_all(
        self, engine: Engine, samples: Sequence[Sample], params: SamplingParams, *, seed: int
    ) -> list[Applied]:
        """Draft a chain for every question, edit the first step that may be edited, go on from there.

        Args:
            engine: any engine that shows its tokenizer.
            samples: questions; ids must be unique.
            params: for the draft and for what follows an edit. Candidates are sampled at temperature 1.
            seed: of the sampling.
        """
        return transfer(self, engine, samples, params, seed=seed)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pairs as JSONL, atomically.

        Raises:
            SafeladderError: the folder does not exist.
        """
        file = Path(path)
        if not file.parent.is_dir():
            raise SafeladderError(f"edit memory: folder {file.parent} not found")
        write_text(file, "".join(json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in self.pairs))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EditMemory:
        """Read a memory.

        Raises:
            SafeladderError: no such file, or a row that is no pair (file and row are named).
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SafeladderError(f"edit memory {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
        return cls([_pair(line, f"{path}, row {n}") for n, line in enumerate(lines, start=1) if line.strip()])


def threshold(edits: Sequence[float], kept: Sequence[float]) -> float:
    """The cut between two samples with the best balanced accuracy (edits at or above it, kept below).

    In the middle of the widest interval that is as good. Neither may be empty.
    """
    values = sorted({0.0, *edits, *kept, 1.0})
    cuts = list(pairwise(values))

    def quality(cut: tuple[float, float]) -> tuple[float, float]:
        middle = sum(cut) / 2
        right = sum(e >= middle for e in edits) / len(edits) + sum(k < middle for k in kept) / len(kept)
        return right, cut[1] - cut[0]

    return sum(max(cuts, key=quality)) / 2


def _own_fits(rule: Rule) -> list[tuple[EditPair, Fit]]:
    fits = [(pair, rule.fit(pair.question, pair.original)) for pair in rule.pairs]
    return [(pair, fit) for pair, fit in fits if fit is not None]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _pair(line: str, where: str) -> EditPair:
    try:
        row = json.loads(line)
    except ValueError:
        raise SafeladderError(f"{where}: not JSON") from None
    names = {f.name for f in fields(EditPair)}
    if not isinstance(row, dict) or not {"question", "original", "edited"} <= row.keys() <= names:
        raise SafeladderError(f"{where}: needs question, original and edited; allowed: {', '.join(sorted(names))}")
    for name, value in row.items():
        if name == "candidates":
            if not (isinstance(value, dict) and all(_is_probability(share) for share in value.values())):
                raise SafeladderError(f"{where}: candidates must give step texts a probability")
        elif not isinstance(value, str):
            raise SafeladderError(f"{where}: {name} must be a text")
    if not words(row["original"]) or not words(row["edited"]):
        raise SafeladderError(f"{where}: original and edited must hold words")
    return EditPair(**row)


def _is_probability(value: object) -> bool:
    return isinstance(value, float) and 0.0 <= value <= 1.0
