"""Judging a batch: each rollout goes to the verifiers that its label names, and to no other."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from safeladder.types import Rollout, SafeladderError, Score, StopReason, Verifier
from safeladder.verifiers.recipe import RewardRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many verdicts were asked for, how many are missing, the mean of the others (None without any)."""

    n: int
    unscored: int
    mean: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Tally:
        """The tally of values, None = unscored."""
        everything = list(values)
        scored = [value for value in everything if value is not None]
        mean = math.fsum(scored) / len(scored) if scored else None
        return cls(n=len(everything), unscored=len(everything) - len(scored), mean=mean)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReport:
    """What judging a batch gave: per verifier, rewards per label, and per label and verifier."""

    verifiers: Mapping[str, Tally]
    rewards: Mapping[str, Tally]
    labels: Mapping[str, Mapping[str, Tally]]

    @property
    def unscored(self) -> int:
        """Rollouts without a reward."""
        return sum(tally.unscored for tally in self.rewards.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


class Router:
    """Applies a reward recipe to batches of rollouts.

    Args:
        verifiers: name -> instance; those that the recipe never uses are never called.
        recipe: from `RewardRecipe.load`.
        micro_batch: the most rollouts a verifier gets in one call.
    """

    def __init__(self, verifiers: Mapping[str, Verifier], recipe: RewardRecipe, *, micro_batch: int = 256) -> None:
        if micro_batch < 1:
            raise SafeladderError(f"micro_batch must be at least 1, got {micro_batch}")
        self.verifiers, self.recipe, self.micro_batch = verifiers, recipe, micro_batch

    def judge(self, rollouts: Sequence[Rollout]) -> tuple[list[Rollout], JudgeReport]:
        """The rollouts in order with `scores` and `reward`, and the report.

        A rollout that a verifier could not judge (it raised, is missing, or said so) has reward None. A
        failed generation is unscored throughout. A response that did not parse scores 0 whatever a verifier
        says.

        Raises:
            SafeladderError: a label that the recipe does not know.
        """
        rows: dict[str, list[int]] = defaultdict(list)
        for i, rollout in enumerate(rollouts):
            for name in self.recipe.row(rollout.sample.label):
                rows[name].append(i)
        scores: list[dict[str, Score]] = [{} for _ in rollouts]
        for name, indices in rows.items():
            alive = [i for i in indices if rollouts[i].stop_reason is not StopReason.ERROR]
            for i in indices:
                scores[i][name] = Score.unscored("the generation failed")
            for start in range(0, len(alive), self.micro_batch):
                chunk = alive[start : start + self.micro_batch]
                verdicts = self._ask(name, [rollouts[i] for i in chunk])
                for i, verdict in zip(chunk, verdicts, strict=True):
                    scores[i][name] = _never_a_pass(verdict) if rollouts[i].response is None else verdict
        judged = [
            rollout.judged(verdicts, self.recipe.reward(rollout.sample.label, verdicts))
            for rollout, verdicts in zip(rollouts, scores, strict=True)
        ]
        return judged, _report(judged)

    def _ask(self, name: str, rollouts: Sequence[Rollout]) -> list[Score]:
        verifier = self.verifiers.get(name)
        if verifier is None:
            return [Score.unscored("the verifier is missing")] * len(rollouts)
        try:
            verdicts = list(verifier.score(rollouts))
        except Exception as error:  # a judge that breaks must not end a training run, nor pass anything
            return [Score.unscored(f"the verifier raised {type(error).__name__}")] * len(rollouts)
        if len(verdicts) != len(rollouts) or not all(isinstance(verdict, Score) for verdict in verdicts):
            return [Score.unscored("the verifier did not give one score a rollout")] * len(rollouts)
        return verdicts


def _never_a_pass(score: Score) -> Score:
    """The verdict on a response that did not parse: nothing it says may count for it."""
    return Score(value=0.0, label=score.label, explanation="the response did not parse") if score.value else score


def _report(judged: Sequence[Rollout]) -> JudgeReport:
    by_verifier: dict[str, list[float | None]] = defaultdict(list)
    by_label: dict[str, dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    rewards: dict[str, list[float | None]] = defaultdict(list)
    for rollout in judged:
        rewards[rollout.sample.label].append(rollout.reward)
        for name, score in rollout.scores.items():
            by_verifier[name].append(score.value)
            by_label[rollout.sample.label][name].append(score.value)
    return JudgeReport(
        verifiers={name: Tally.of(values) for name, values in sorted(by_verifier.items())},
        rewards={label: Tally.of(values) for label, values in sorted(rewards.items())},
        labels={
            label: {name: Tally.of(values) for name, values in sorted(columns.items())}
            for label, columns in sorted(by_label.items())
        },
    )
