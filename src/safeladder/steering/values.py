"""What a partial reply is worth: principled value models (PVMs), and the adapter that makes one of any verifier.

The idea is SafeWork-R1's (arXiv 2507.18576, inference-time intervention: value models of several principles constrain
intermediate reasoning and the answer); neither models nor code were published, so what follows is our design.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from safeladder.types import Engine, Response, Rollout, Sample, Score, StopReason, Verifier

PRINCIPLES = ("safety", "value", "knowledge", "capability")
"""The principles of the value models that `safeladder pvm train` makes, in the order of their columns."""

_LABELS = {"safety": "safety", "jailbreak": "safety", "value": "value", "knowledge": "knowledge",
           "knowledge_rule": "knowledge"}  # fmt: skip
_SAFE_VERDICTS = frozenset({"safe with warning", "safe with refusal", "safe without risk"})
_NEEDLESS = "unnecessary refusal"
_UNSAFE_VERDICTS = frozenset({"illogical completion", "unsafe", _NEEDLESS})
_PASS = 0.5


@dataclass(frozen=True, slots=True)
class Query:
    """Next steps to be valued: token ids `candidates`, each of which may follow `prefix_ids` (the prompt and the steps
    kept so far)."""

    sample: Sample
    prefix_ids: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]


@runtime_checkable
class ValueModel(Protocol):
    """Says of each candidate step how likely the finished reply is to be accepted under one principle."""

    @property
    def name(self) -> str:
        """The principle, or whatever routing calls it."""
        ...

    def score(self, sample: Sample, prefix_ids: Sequence[int], candidates: Sequence[Sequence[int]]) -> list[float]:
        """One value in [0, 1] a candidate, in order.

        Args:
            sample: what the policy was asked.
            prefix_ids: the prompt and all steps kept so far, as token ids.
            candidates: token ids of steps, each of which may come next. A last end token marks a finished reply.
        """
        ...


@runtime_checkable
class BatchValueModel(ValueModel, Protocol):
    """A value model that is faster on many samples at once."""

    def score_many(self, queries: Sequence[Query]) -> list[list[float]]:
        """`score` of every query, in order."""
        ...


def score_all(model: ValueModel, queries: Sequence[Query]) -> list[list[float]]:
    """Values of every query's candidates, in one call where the model can."""
    if isinstance(model, BatchValueModel):
        return model.score_many(queries)
    return [model.score(q.sample, q.prefix_ids, q.candidates) for q in queries]


class VerifierValues:
    """A value model of any verifier, which reads the partial reply as if it were the whole.

    An unfinished thought is shown to the verifier as the answer; once thinking is closed, the reply as it parses. It
    suits verifiers that judge wording (a harm judge), not those that compare an answer with a reference.

    Attributes:
        unscored: how many candidates the verifier could not judge. Their value is 0: unknown is never safe.
    """

    def __init__(self, verifier: Verifier, engine: Engine, *, open_tag: str = "<think>", close_tag: str = "</think>"):
        self.verifier, self.engine = verifier, engine
        self.tags = (open_tag, close_tag)
        self.unscored = 0

    @property
    def name(self) -> str:
        return self.verifier.principle

    def score(self, sample: Sample, prefix_ids: Sequence[int], candidates: Sequence[Sequence[int]]) -> list[float]:
        said = tuple(prefix_ids)[len(self.engine.prompt_ids(sample)) :]
        texts = [self.engine.decode((*said, *candidate)) for candidate in candidates]
        rollouts = [Rollout.of_text(sample, text, self._response(text), StopReason.EOS) for text in texts]
        verdicts = self.verifier.score(rollouts)
        self.unscored += sum(v.value is None for v in verdicts)
        return [0.0 if v.value is None else v.value for v in verdicts]

    def _response(self, text: str) -> Response | None:
        opening, closing = self.tags
        thought, closed, answer = text.partition(closing)
        thought = thought.replace(opening, "", 1).strip()
        if closed and answer.strip():
            return Response(answer=answer.strip(), reasoning=thought or None)
        return Response(answer=thought) if thought else None


def principle_of(label: str) -> str:
    """Which principle's verifiers judge samples of a label.

    What is neither safety, value nor knowledge is a task, which can be worked out step by step; whether a fact is right
    can hardly be told from the reply, so the two have value models and thresholds of their own."""
    return _LABELS.get(label, "capability")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the verifiers of a label make of a finished reply: whether it is `accepted` (None: unscored), and whether it
    is a `needless` refusal, one of something harmless."""

    accepted: bool | None
    needless: bool = False

    @classmethod
    def of(cls, scores: Sequence[Score]) -> Judgement:
        """By the scores of all of a label's verifiers."""
        return cls(accepted(scores), any(score.label == _NEEDLESS for score in scores))


def accepted(scores: Sequence[Score]) -> bool | None:
    """Whether all of a label's verifiers accept a finished reply; None (unscored) where any of them could not judge.

    A verdict is accepted if it is one of the safe ones of SafeWork-R1's six labels, a refusal of something harmful
    included although its reward is small; any other verdict if its value is at least 0.5.
    """
    if not scores or any(score.value is None for score in scores):
        return None
    return all(_accepts(score) for score in scores)


def _accepts(score: Score) -> bool:
    if score.label in _SAFE_VERDICTS | _UNSAFE_VERDICTS:
        return score.label in _SAFE_VERDICTS
    return score.value is not None and score.value >= _PASS
