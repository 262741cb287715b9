"""CHAIR's figures: hallucinated objects of those mentioned, captions with one, recall, length."""

from __future__ import annotations

from collections.abc import Sequence

from safeladder.evaluation.metrics import Bootstrap, mean
from safeladder.evaluation.suites.chair.verdicts import NAME
from safeladder.evaluation.suites.outcomes import figures_by, score_of, share, values_of
from safeladder.evaluation.suites.suite import Figure
from safeladder.evaluation.suites.sums import of_sums, ratio
from safeladder.types import Rollout, StopReason

_MENTIONED, _HALLUCINATED, _PRESENT, _FOUND = range(4)
_COLUMNS = ("mentioned", "hallucinated", "present", "found")


def figures(rollouts: Sequence[Rollout], bootstrap: Bootstrap) -> list[Figure]:
    """CHAIR_i (objects), CHAIR_s (captions), recall of the pictures' objects, and what they must be read with."""
    scores = [score_of(r, NAME) for r in rollouts]
    read = [(r, s) for r, s in zip(rollouts, scores, strict=True) if s is not None and s.breakdown]
    columns = [tuple(score.breakdown[name] for name in _COLUMNS) for _, score in read]
    groups, missing = [r.sample.group_id for r, _ in read], len(rollouts) - len(read)
    pinned = ", ".join(sorted({r.sample.meta["list"] for r in rollouts}))
    sums = {
        "CHAIR_i": (ratio(_HALLUCINATED, _MENTIONED), f"hallucinated of all objects mentioned; list {pinned}"),
        "recall": (ratio(_FOUND, _PRESENT), "of the objects in the pictures"),
    }
    objects, recall = (
        Figure(
            name=name,
            metric=of_sums(columns, groups, statistic, bootstrap=bootstrap, n_unscored=missing),
            better="lower" if name == "CHAIR_i" else "higher",
            note=note,
        )
        for name, (statistic, note) in sums.items()
    )
    hallucinated = values_of(rollouts, NAME, lambda score: float(score.label == "hallucinated"))
    empty = [float(not s.breakdown["mentioned"]) if s is not None and s.breakdown else None for s in scores]
    words = [score.breakdown["words"] for _, score in read]
    cut = [float(r.stop_reason is StopReason.LENGTH) for r in rollouts]
    return [
        objects,
        *figures_by("CHAIR_s", rollouts, hallucinated, bootstrap, lambda r: [r.sample.taxonomy], better="lower"),
        recall,
        Figure(name="captions that name no object", metric=share(rollouts, empty, bootstrap), better="lower"),
        Figure(name="words a caption", metric=mean(words, groups, bootstrap=bootstrap), better="neither"),
        Figure(name="truncated", metric=share(rollouts, cut, bootstrap), better="lower"),
    ]
