"""M3oralBench needs no judge: the letter is read out of the reply."""

from __future__ import annotations

from safeladder.evaluation.suites.answers import ReadAnswer, same_as_reference
from safeladder.types import Verifier
from safeladder.verifiers.choices import chosen
from safeladder.verifiers.judges.model import JudgeModel

NAME = "choice"


def verifiers(judge: JudgeModel | None) -> list[Verifier]:
    """The rule alone, whatever judge there is."""
    return [ReadAnswer(NAME, lambda sample, reply: chosen(reply, str(sample.meta["letters"])), same_as_reference)]
