"""MMMU needs no judge: letters and short answers are read out of the reply."""

from __future__ import annotations

from safeladder.evaluation.suites.answers import ReadAnswer, by_rule
from safeladder.evaluation.suites.mmmu.reader import MULTIPLE
from safeladder.evaluation.suites.open_answers import rounds_to, same_words, stated
from safeladder.types import Sample
from safeladder.verifiers.choices import chosen, letters_for

NAME = "mmmu"
_DIGITS = 2


def answered(sample: Sample, reply: str) -> str | None:
    """The letter or the stated answer; None where it cannot be told."""
    if sample.meta["kind"] != MULTIPLE:
        return stated(reply)
    options = list(sample.meta["options"])
    return chosen(reply, letters_for(len(options)), options)


def right(sample: Sample, answer: str) -> float:
    """1 where one of the accepted answers was given: the letter, the same words, or the same number to 2 decimals."""
    accepted = [str(text) for text in sample.meta["accepted"]]
    if sample.meta["kind"] == MULTIPLE:
        return float(answer in accepted)
    return float(any(same_words(answer, a) or rounds_to(answer, a, _DIGITS) for a in accepted))


verifiers = by_rule(ReadAnswer(NAME, answered, right))
