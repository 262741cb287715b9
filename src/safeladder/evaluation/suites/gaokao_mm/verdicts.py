"""GAOKAO-MM needs no judge: letters are read out of the reply."""

from __future__ import annotations

from safeladder.evaluation.suites.answers import ReadAnswer, by_rule
from safeladder.evaluation.suites.gaokao_mm.reader import LETTERS, SEVERAL
from safeladder.types import Sample
from safeladder.verifiers.choices import chosen

NAME = "gaokao"


def points(sample: Sample, answer: str) -> float:
    """1 for all right letters; half for a part of them where several may be right; else 0."""
    reference = str(sample.reference)
    if answer == reference:
        return 1.0
    return 0.5 if sample.taxonomy[0] in SEVERAL and set(answer) < set(reference) else 0.0


def _letters(sample: Sample, reply: str) -> str | None:
    return chosen(reply, LETTERS, several=sample.taxonomy[0] in SEVERAL)


verifiers = by_rule(ReadAnswer(NAME, _letters, points))
