"""GPQA's rows as published: one right and three wrong answers a question, shuffled here by a fixed seed.

The authors ask that its questions are not put online in plain text: they are read from the user's own copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import Row, read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import ask
from safeladder.evaluation.suites.shuffled import listed, shuffled
from safeladder.types import Sample
from safeladder.verifiers.choices import letters_for

SUBSETS: Mapping[str, str] = {
    "diamond": "gpqa_diamond.csv: 198 questions",
    "main": "gpqa_main.csv: 448 questions",
    "extended": "gpqa_extended.csv: 546 questions",
}
PROMPT = """\
{question}

{options}

Think it through, then end with the line "Answer: X", where X is the letter of the right option.\
"""
_ANSWERS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def read(folder: Path, subset: str) -> list[Sample]:
    """The questions of a subset; the reference is the letter of the right option.

    Raises:
        SafeladderError: unknown subset, missing file, malformed row.
    """
    require_subset("gpqa", subset, SUBSETS)
    path = folder / f"gpqa_{subset}.csv"
    return require_unique([_sample(row) for row in read_rows(path)], path)


def _sample(row: Row) -> Sample:
    name = row.word("Record ID")
    answers = [row.text(key).strip() for key in _ANSWERS]
    if answers[0] in answers[1:]:
        raise row.error("the right answer is among the wrong ones")
    order = shuffled(answers, name)
    options = [answers[place] for place in order]
    taxonomy = (row.text("High-level domain").strip(), row.text("Subdomain").strip())
    return Sample(
        id=f"gpqa-{name}",
        messages=ask(PROMPT.format(question=row.text("Question").strip(), options=listed(options))),
        label="multiple_choice",
        reference=letters_for(len(options))[order.index(0)],
        taxonomy=taxonomy,
        source="gpqa",
        meta={"options": tuple(options)},
    )
