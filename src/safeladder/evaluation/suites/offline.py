"""The judges that need no model: trained, embedded ones, by name; and verdicts read as yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from safeladder.types import Rollout, SafeladderError, Score, Verifier


def embedded(name: str) -> Verifier:
    """The embedded judge `name` ("embedded-safety", "embedded-refusal").

    Raises:
        SafeladderError: it is not installed.
    """
    from safeladder.verifiers import registry

    constructors = registry(world=False)
    if name not in constructors:
        raise SafeladderError(f"the offline judge {name!r} is not installed; name a judge with --judge")
    return constructors[name]()


class Called:
    """`value` where the inner judge's label is one of `labels`, else 1 - `value`: a probability as yes or no.

    The judge's label goes by its own threshold. Unscored where there is no reply or the judge gave no verdict.
    """

    def __init__(self, name: str, inner: Verifier, labels: Sequence[str], *, value: float = 1.0) -> None:
        self.name, self.principle = name, inner.principle
        self._inner, self._labels, self._value = inner, labels, value

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """One score a rollout, in order."""
        return [
            Score.unscored("no answer to read") if rollout.response is None else self._called(score)
            for rollout, score in zip(rollouts, self._inner.score(rollouts), strict=True)
        ]

    def _called(self, score: Score) -> Score:
        if score.value is None:
            return score
        return replace(score, value=self._value if score.label in self._labels else 1.0 - self._value)
