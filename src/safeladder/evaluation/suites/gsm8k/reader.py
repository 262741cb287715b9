"""GSM8K's rows as published: a question, and a worked answer that ends in ``#### result``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import Row, read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import ask
from safeladder.types import Sample
from safeladder.verifiers.maths import number

SUBSETS: Mapping[str, str] = {
    "test": "test.jsonl: 1,319 word problems",
    "train": "train.jsonl: 7,473 word problems, for training and not for reporting",
}
PROMPT = "{question}\n\nWork it out step by step. Write the result on the last line as: #### number"


def read(folder: Path, subset: str) -> list[Sample]:
    """The problems of a split; the reference is the number after ``####``.

    Raises:
        SafeladderError: unknown subset, missing file, malformed row.
    """
    require_subset("gsm8k", subset, SUBSETS)
    path = folder / f"{subset}.jsonl"
    return require_unique([_sample(row, subset, i) for i, row in enumerate(read_rows(path), start=1)], path)


def _sample(row: Row, subset: str, position: int) -> Sample:
    _, marker, reference = row.text("answer").rpartition("####")
    if not marker or number(reference.strip()) is None:
        raise row.error("the answer must end in '#### number'")
    return Sample(
        id=f"gsm8k-{subset}-{position}",
        messages=ask(PROMPT.format(question=row.text("question"))),
        label="gsm8k_rule",
        reference=reference.strip(),
        taxonomy=("gsm8k",),
        source="gsm8k",
    )
