"""Right or wrong by what is read out of a reply, and the figures of such suites.

A reply that could not be read is wrong in the accuracy, has figures of its own, and is never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from safeladder.evaluation.metrics import Bootstrap
from safeladder.evaluation.suites.outcomes import figures_by, score_of, share, values_of
from safeladder.evaluation.suites.suite import Figure
from safeladder.types import Rollout, Sample, Score, StopReason, Verifier
from safeladder.verifiers.judges.model import JudgeModel

UNREAD = ("unparsed", "truncated", "malformed")
"""Labels of a reply out of which no answer could be read; their value is 0."""


def unread(rollout: Rollout) -> Score | None:
    """The verdict on a rollout that has no answer to read, or None where it has one.

    A failed generation is unscored; a truncated reply, an unclosed reasoning block and an empty answer are wrong.
    """
    if rollout.stop_reason is StopReason.ERROR:
        return Score.unscored("the generation failed")
    if rollout.response is None or not rollout.response.answer.strip():
        label = "truncated" if rollout.stop_reason is StopReason.LENGTH else "malformed"
        return Score(value=0.0, label=label, explanation="no answer to read")
    return None


class ReadAnswer:
    """Whether the answer that is read out of the reply is right.

    Args:
        name: of the verifier.
        read: (sample, answer) -> what was answered, or None where it cannot be told.
        grade: (sample, what was answered) -> its worth in [0, 1].
    """

    principle = "general"

    def __init__(
        self, name: str, read: Callable[[Sample, str], str | None], grade: Callable[[Sample, str], float]
    ) -> None:
        self.name, self._read, self._grade = name, read, grade

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """The worth of every answer, in order; label "correct", "partly correct", "wrong" or one of `UNREAD`."""
        return [self._score(rollout) for rollout in rollouts]

    def _score(self, rollout: Rollout) -> Score:
        missing = unread(rollout)
        if missing is not None:
            return missing
        assert rollout.response is not None
        answer = self._read(rollout.sample, rollout.response.answer)
        if answer is None:
            return Score(value=0.0, label="unparsed", explanation="no answer found in the reply")
        value = self._grade(rollout.sample, answer)
        label = "correct" if value == 1.0 else "wrong" if value == 0.0 else "partly correct"
        return Score(value=value, label=label, explanation=f"read as {answer[:60]!r}")


def by_rule(rule: Verifier) -> Callable[[JudgeModel | None], list[Verifier]]:
    """`Suite.verifiers` of a suite that needs no judge: the rule alone, whatever judge there is."""
    return lambda judge: [rule]


def same_as_reference(sample: Sample, answer: str) -> float:
    """1 where the answer is the reference, letter for letter."""
    return float(answer == sample.reference)


def accuracy_figures(
    rollouts: Sequence[Rollout],
    name: str,
    bootstrap: Bootstrap,
    groups: Callable[[Rollout], Iterable[tuple[str, ...]]],
    *,
    note: str = "",
) -> list[Figure]:
    """Accuracy over all rows and by group, accuracy over the rows that could be read, and the share that could not."""
    values = values_of(rollouts, name)
    unparsed = [None if v is None else float(_is_unread(r, name)) for r, v in zip(rollouts, values, strict=True)]
    read = [i for i, missing in enumerate(unparsed) if missing == 0.0]
    valid = share([rollouts[i] for i in read], [values[i] for i in read], bootstrap)
    return [
        *figures_by("accuracy", rollouts, values, bootstrap, groups, note=note),
        Figure(
            name="accuracy where an answer was read", metric=valid, note="the others are left out: no score to quote"
        ),
        Figure(name="unparsed", metric=share(rollouts, unparsed, bootstrap), better="lower"),
    ]


def _is_unread(rollout: Rollout, name: str) -> bool:
    score = score_of(rollout, name)
    return score is not None and score.label in UNREAD
