"""The answer of a search against its reference, as question-answering benchmarks compare them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from safeladder.search.voting import normalise_answer
from safeladder.types import Rollout, SafeladderError, Score


class SearchAnswer:
    """Whether the answer equals the reference but for case, punctuation, English articles and spacing."""

    name = "search-answer"
    principle = "knowledge"
    requires: ClassVar[tuple[str, ...]] = ("reference",)

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """1 or 0 a rollout; unscored without a reference."""
        return [self._score(rollout) for rollout in rollouts]

    @staticmethod
    def _score(rollout: Rollout) -> Score:
        reference = rollout.sample.reference
        if reference is None:
            return Score.unscored("the sample has no reference")
        if rollout.response is None:
            return Score(value=0.0, label="malformed")
        correct = normalise_answer(rollout.response.answer) == normalise_answer(reference)
        return Score(value=float(correct), label="correct" if correct else "wrong")


def verdict_on_answer(rollout: Rollout) -> float | None:
    """The verdict on a judged rollout's answer, in [0, 1]: the lowest where several verifiers gave one.

    None where one of them could not judge. An answer counts as right from 0.5 on.

    Raises:
        SafeladderError: none of the rollout's verifiers looks at the answer.
    """
    verdicts = [score.value for name, score in rollout.scores.items() if name != "format"]
    if not verdicts:
        label = rollout.sample.label
        raise SafeladderError(f"rewards.labels.{label}: needs a verifier of the answer beside the format")
    known = [value for value in verdicts if value is not None]
    return min(known) if len(known) == len(verdicts) else None
