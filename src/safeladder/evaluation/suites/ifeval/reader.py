"""IFEval's rows as published: a prompt and the verifiable instructions in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import Row, read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import ask
from safeladder.types import SafeladderError, Sample
from safeladder.verifiers.instructions import instructions

SUBSETS: Mapping[str, str] = {"test": "input_data.jsonl: 541 prompts with 834 instructions of 25 types"}


def read(folder: Path, subset: str) -> list[Sample]:
    """The prompts; every instruction is checked to be one we can verify.

    Raises:
        SafeladderError: unknown subset, missing file, malformed row, unknown instruction or wrong parameter.
    """
    require_subset("ifeval", subset, SUBSETS)
    path = folder / "input_data.jsonl"
    return require_unique([_sample(row) for row in read_rows(path)], path)


def _sample(row: Row) -> Sample:
    ids = row.texts("instruction_id_list")
    kwargs = row.values.get("kwargs")
    if not isinstance(kwargs, list) or not all(given is None or isinstance(given, dict) for given in kwargs):
        raise row.error("kwargs must be a list of objects")
    try:
        instructions(ids, kwargs, "instructions")
    except SafeladderError as error:
        raise row.error(str(error)) from None
    return Sample(
        id=f"ifeval-{row.word('key')}",
        messages=ask(row.text("prompt")),
        label="instruction",
        source="ifeval",
        meta={"instruction_id_list": ids, "kwargs": [given or {} for given in kwargs]},
    )
