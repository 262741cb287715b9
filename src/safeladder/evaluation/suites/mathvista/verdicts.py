"""MathVista needs no judge: letters, numbers and lists are read out of the reply."""

from __future__ import annotations

import re

from safeladder.evaluation.suites.answers import ReadAnswer, by_rule
from safeladder.evaluation.suites.mathvista.reader import CHOICE
from safeladder.evaluation.suites.open_answers import as_number, rounds_to, same_words, stated
from safeladder.types import Sample
from safeladder.verifiers.choices import chosen, letters_for

NAME = "mathvista"
_LIST = re.compile(r"\[[^\[\]]*\]")


def answered(sample: Sample, reply: str) -> str | None:
    """The letter, or the stated number, list or words; None where it cannot be told."""
    form = sample.meta["form"]
    if sample.meta["kind"] == CHOICE:
        options = list(sample.meta["options"])
        # Of options with the same text, the first one stands for all.
        told = [option if option not in options[:i] else "" for i, option in enumerate(options)]
        return chosen(reply, letters_for(len(options)), told)
    if form == "list":
        found = _LIST.findall(reply)
        return found[-1] if found else None
    said = stated(reply)
    if said is None or form == "text":
        return said
    return said if as_number(said) is not None else None


def right(sample: Sample, answer: str) -> float:
    """1 where the answer is the reference: the option's text, the number at the decimals asked for, the list, or the
    words."""
    reference, form = str(sample.reference), sample.meta["form"]
    if sample.meta["kind"] == CHOICE:
        options, letters = sample.meta["options"], letters_for(len(sample.meta["options"]))
        return float(options[letters.index(answer)] == options[letters.index(reference)])
    if form in ("integer", "float"):
        return float(rounds_to(answer, reference, int(sample.meta["digits"])))
    if form == "list":
        one, other = ([as_number(item) for item in text.strip("[] ").split(",")] for text in (answer, reference))
        return float(None not in one and one == other)
    return float(same_words(answer, reference))


verifiers = by_rule(ReadAnswer(NAME, answered, right))
