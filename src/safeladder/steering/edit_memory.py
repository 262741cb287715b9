"""What people corrected, kept so that later questions profit: an edit memory.

A stored correction is a pair (original step, edited step) with its question and the steps before it. Pairs that change
the same thing are generalised into a rule with slots (`edit_rules`); the rule is then applied to analogous steps of
other chains, with the words of the item at hand in the slots. An edit that does not fit is never applied silently:
every refusal says why and is counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from safeladder.types import Engine, Rollout, Sample, SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class EditPair:
    """One correction, or one step that a person looked at and left as it is (`edited` equals `original`).

    `context` is the reasoning before the step. `candidates` is what the model said in this place when it was sampled
    there (step text to count); empty where nobody sampled. `source` names the sample.
    """

    question: str
    original: str
    edited: str
    context: str = ""
    candidates: Mapping[str, int] = field(default_factory=dict)
    source: str = ""

    @property
    def confirmed(self) -> bool:
        """Whether the person left the step as it was."""
        return self.original.strip() == self.edited.strip()


Outcome = Literal["applied", "no analogous step", "the model does not support it", "a confirmed step is nearer"]
"""What became of the memory on a question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A question answered with the memory.

    `rollout` is what to show: the edited chain where `outcome` is "applied", else the draft. `step` (from 1) is the
    step that was edited, `original` what it said, `edited` what it says now, `rule` the rule in words. `support` is the
    share of the model's own samples in this place that said what the rule says. `tokens` counts everything sampled.
    """

    rollout: Rollout
    draft: Rollout
    outcome: Outcome
    step: int | None = None
    original: str = ""
    edited: str = ""
    rule: str = ""
    support: float | None = None
    forced: bool = False
    tokens: int = 0


class EditMemory:
    """Corrections on disk (JSONL, one pair a row) and the rules that follow from them."""

    def __init__(self, pairs: Sequence[EditPair] = ()) -> None:
        self.pairs = list(pairs)

    def add(self, pair: EditPair) -> None:
        """Remember a correction or a confirmation."""
        raise NotImplementedError

    def find(self, question: str, reasoning: str) -> list:
        """Every rule that fits a step of the reasoning, the most similar first."""
        raise NotImplementedError

    def apply(self, engine: Engine, sample: Sample, params: SamplingParams, *, seed: int) -> Applied:
        """Draft a chain, find the first step that a rule fits, edit it and let the model go on from there."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pairs as JSONL, atomically."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EditMemory:
        """Read a memory.

        Raises:
            SafeladderError: no such file, or a row that is no pair (file and row are named).
        """
        raise NotImplementedError
