"""GAOKAO-MM needs no judge: letters are read out of the reply."""

from __future__ import annotations

from safeladder.evaluation.suites.answers import ReadAnswer
from safeladder.evaluation.suites.gaokao_mm.reader import LETTERS, SEVERAL
from safeladder.types import Sample, Verifier
from safeladder.verifiers.choices import chosen
from safeladder.verifiers.judges.model import JudgeModel

NAME = "gaokao"


def verifiers(judge: JudgeModel | None) -> list[Verifier]:
    """The rule alone, whatever judge there is."""
    return [ReadAnswer(NAME, _letters, points)]


def points(sample: Sample, answer: str) -> float:
    """1 for all right letters; half for a part of them where several may be right; else 0."""
    reference = str(sample.reference)
    if answer == reference:
        return 1.0
    return 0.5 if sample.taxonomy[0] in SEVERAL and set(answer) < set(reference) else 0.0


def _letters(sample: Sample, reply: str) -> str | None:
    return chosen(reply, LETTERS, several=sample.taxonomy[0] in SEVERAL)
