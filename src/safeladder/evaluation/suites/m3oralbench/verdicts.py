"""M3oralBench needs no judge: the letter is read out of the reply."""

from __future__ import annotations

from safeladder.evaluation.suites.answers import ReadAnswer, by_rule, same_as_reference
from safeladder.verifiers.choices import chosen

NAME = "choice"


verifiers = by_rule(
    ReadAnswer(NAME, lambda sample, reply: chosen(reply, str(sample.meta["letters"])), same_as_reference)
)
