"""POPE needs no judge: yes or no is read out of the reply."""

from __future__ import annotations

from safeladder.evaluation.suites.answers import ReadAnswer, by_rule, same_as_reference
from safeladder.evaluation.suites.yes_no import yes_no
from safeladder.types import Sample

NAME = "yes-no"


def answered(sample: Sample, reply: str) -> str | None:
    """ "yes", "no" or None."""
    said = yes_no(reply)
    return None if said is None else "yes" if said else "no"


verifiers = by_rule(ReadAnswer(NAME, answered, same_as_reference))
