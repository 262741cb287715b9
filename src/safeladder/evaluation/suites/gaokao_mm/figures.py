"""GAOKAO-MM's figures: the score over all questions and by subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from safeladder.evaluation.metrics import Bootstrap
from safeladder.evaluation.suites.answers import accuracy_figures
from safeladder.evaluation.suites.gaokao_mm.verdicts import NAME
from safeladder.evaluation.suites.outcomes import share, values_of
from safeladder.evaluation.suites.suite import Figure
from safeladder.types import Rollout


def figures(rollouts: Sequence[Rollout], bootstrap: Bootstrap) -> list[Figure]:
    """The score (half points included) over all and by subject, and the share of wholly right answers."""
    found = accuracy_figures(rollouts, NAME, bootstrap, lambda r: [r.sample.taxonomy[:1]])
    named = [replace(f, name=f.name.replace("accuracy", "score", 1)) for f in found]
    whole = values_of(rollouts, NAME, lambda score: float(score.value == 1.0))
    return [*named, Figure(name="wholly right", metric=share(rollouts, whole, bootstrap))]
