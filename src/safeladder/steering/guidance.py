"""Settings of guided decoding, what it decided on the way, and what a reply cost."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from safeladder.types import Completion, SafeladderError, Sample

EVERY_LANGUAGE = "*"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What decides between steps.

    Attributes:
        gamma: γ, weight of a step's mean log-probability beside its value.
        enough: κ; where the likeliest step is worth more, it is kept and no other is sampled. In [0, 1]; 1 never does.
        floor: τ; a step below it counts as hopeless. In [0, 1]; 0 never does.
        margin: δ, by how much a proposed step must be worth more than the sampled one that it would replace. In [0, 1];
            at 1 none is proposed.
    """

    gamma: float = 0.3
    enough: float = 1.0
    floor: float = 0.15
    margin: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("gamma", math.inf), ("enough", 1.0), ("floor", 1.0), ("margin", 1.0)):
            _in_range(name, getattr(self, name), most)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidanceConfig:
    """How steps are sampled and chosen.

    Attributes:
        candidates: k, steps sampled at a time, the most likely one among them.
        temperature: of the others.
        step_tokens: a step that has not ended by then is taken as it is.
        thresholds: name of a value model -> its own; those of a prompt are their mean by the routing weights.
        widening: steps sampled more where all are hopeless, once a decision.
        backtracks: how often a reply may go back, in all, where they stay hopeless.
        proposals: how often proposed steps may enter after that.
        reminders: language -> a thought to propose; `*` for every other language.
        completions: language -> an answer to propose (it ends the reply); `*` for every other language.
        open_tag, close_tag: around the reasoning.
    """

    candidates: int = 4
    temperature: float = 1.0
    step_tokens: int = 48
    thresholds: Mapping[str, Thresholds] = field(default_factory=dict)
    widening: int = 12
    backtracks: int = 0
    proposals: int = 1
    reminders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    completions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    open_tag: str = "<think>"
    close_tag: str = "</think>"

    def __post_init__(self) -> None:
        least_of = {"candidates": 1, "step_tokens": 1, "widening": 0, "backtracks": 0, "proposals": 0}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise SafeladderError(f"{name}: {getattr(self, name)} is too small, at least {least} is needed")
        _in_range("temperature", self.temperature, math.inf)

    def at(self, weights: Mapping[str, float]) -> Thresholds:
        """The thresholds of a prompt with these routing weights; a value model without its own has the defaults."""
        if not weights:
            return Thresholds()
        parts = [(w, self.thresholds.get(name, Thresholds())) for name, w in weights.items()]
        total = math.fsum(w for w, _ in parts)
        return Thresholds(
            **{f.name: math.fsum(w * getattr(own, f.name) for w, own in parts) / total for f in fields(Thresholds)}
        )

    @classmethod
    def of_json(cls, row: Mapping[str, Any], where: str) -> GuidanceConfig:
        """The inverse of `dataclasses.asdict` after a way through JSON.

        Raises:
            SafeladderError: an unknown key, or a value out of range.
        """
        own = {
            name: _known(Thresholds, found, f"{where}: thresholds of {name}")
            for name, found in row.get("thresholds", {}).items()
        }
        texts = {
            name: {language: tuple(found) for language, found in row.get(name, {}).items()}
            for name in ("reminders", "completions")
        }
        return _known(cls, {**row, **texts, "thresholds": own}, where)


def _known(cls: type[T], row: Mapping[str, Any], where: str) -> T:
    unknown = sorted(row.keys() - {f.name for f in fields(cls)})  # pyright: ignore[reportArgumentType]
    if unknown:
        raise SafeladderError(f"{where}: unknown key {unknown[0]!r}")
    return cls(**row)


def _in_range(name: str, value: float, most: float) -> None:
    if not (0 <= value <= most and math.isfinite(value)):
        raise SafeladderError(f"{name}: {value} is not between 0 and {most}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A step that was considered. `source` is `sampled` or `proposed`; `count` is how often it was sampled; `values`
    are the value models' by name, `value` is w·v, and `score` is what it competed with. `ends`: the reply ends here."""

    text: str
    token_ids: tuple[int, ...]
    source: str
    count: int
    mean_logprob: float | None
    values: Mapping[str, float]
    value: float
    score: float
    ends: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailStep:
    """One decision: `action` is `keep` (candidate number `chosen`), or `backtrack` (none was; the last kept step, if
    any, was dropped). `depth` is how many steps were kept before it."""

    depth: int
    action: str
    chosen: int | None
    weights: Mapping[str, float]
    candidates: tuple[Candidate, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON-able form, with every candidate's text, values and score."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a reply cost.

    Attributes:
        generated_tokens: sampled, thrown away or kept.
        proposed_tokens: of proposed steps that were valued.
        positions: token positions that went through the model, for sampling and for valuing; None where the engine
            does not count them.
        calls: of the engine.
        seconds: wall time; of replies decoded together, an equal share.
    """

    generated_tokens: int
    proposed_tokens: int
    positions: int | None
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedResult:
    """A guided reply. `completion` holds the kept ids (log-probabilities of proposed tokens are the policy's own, or
    -inf where the engine cannot tell them), `text` is what they say, `trail` every decision on the way."""

    completion: Completion
    text: str
    trail: tuple[TrailStep, ...]
    cost: Cost

    @property
    def proposed(self) -> int:
        """How many proposed steps the reply holds."""
        return sum(step.chosen is not None and step.candidates[step.chosen].source == "proposed" for step in self.trail)


def append_trail(path: str | Path, sample: Sample, result: GuidedResult) -> None:
    """Add a reply's decisions to a JSONL file: one row a decision, with every candidate, its values and its score."""
    rows = [{"sample_id": sample.id, "decision": number, **step.as_json()} for number, step in enumerate(result.trail)]
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
