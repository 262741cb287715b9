"""MathVista's `testmini.json` (an object by problem id, or exported rows; also `testmini.jsonl`) and `images/`, both
below `data/` or beside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import (
    Row,
    keyed_rows,
    parse_json,
    read_rows,
    read_text,
    require_subset,
    require_unique,
)
from safeladder.evaluation.suites.images import ask, image_part
from safeladder.types import SafeladderError, Sample
from safeladder.verifiers.choices import letters_for

SUBSETS: Mapping[str, str] = {"testmini": "the 1,000 problems with public answers"}
CHOICE, FREE = "multi_choice", "free_form"
ANSWER_TYPES = ("text", "integer", "float", "list")

_ENDING = "End with a line that says: The answer is ..."
_FORMATS = {
    "integer": "The answer is a whole number.",
    "list": "The answer is a list such as [1, 2, 3].",
    "text": "The answer is a word or a short phrase.",
}


def read(folder: Path, subset: str) -> list[Sample]:
    """The problems; ``meta`` holds the options, the answer type and the decimals asked for.

    Raises:
        SafeladderError: a malformed row, a missing picture, or a right answer that is not among the choices.
    """
    require_subset("mathvista", subset, SUBSETS)
    names = [f"{place}{subset}{suffix}" for place in ("data/", "") for suffix in (".jsonl", ".json")]
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[-1])
    folder = path.parent
    samples = []
    for row in _rows(path):
        kind, form = row.one_of("question_type", (CHOICE, FREE)), row.one_of("answer_type", ANSWER_TYPES)
        answer, image = row.word("answer"), row.word("image")
        options, reference, ending = [], answer, _ENDING
        if kind == CHOICE:
            options = row.texts("choices")
            if not 2 <= len(options) <= 26 or answer not in options:
                raise row.error("the answer is not among the choices, of which there must be 2 to 26")
            letters = letters_for(len(options))
            reference = letters[options.index(answer)]
            listed = "".join(f"\n{letter}. {option}" for letter, option in zip(letters, options, strict=True))
            ending = f"{listed.strip()}\nAnswer with the letter of one option."
        digits = _digits(row) if form == "float" else 0
        hint = _FORMATS.get(form, f"Round the answer to {digits} decimals.") if kind == FREE else ""
        unit = f" (unit: {row.word('unit')})" if row.has("unit") else ""
        metadata = Row(row.where, row.values["metadata"] if isinstance(row.values.get("metadata"), dict) else {})
        samples.append(
            Sample(
                id=f"mathvista-{row.word('pid')}",
                messages=ask(
                    "\n".join(filter(None, (f"{row.text('question')}{unit}", hint, ending))),
                    image_part(folder, image, row),
                ),
                label="general_rule",
                reference=reference,
                taxonomy=(metadata.word("category"), metadata.word("task")),
                source="mathvista",
                group_id=f"mathvista-{image}",
                meta={"kind": kind, "form": form, "digits": digits, "options": options},
            )
        )
    return require_unique(samples, path)


def _rows(path: Path) -> list[Row]:
    if path.suffix == ".jsonl":
        return read_rows(path)
    values = parse_json(read_text(path), str(path))
    if isinstance(values, list):
        return read_rows(path)
    if not isinstance(values, dict):
        raise SafeladderError(f"{path}: an object by problem id or an array of rows is needed")
    return [
        row if row.has("pid") else Row(row.where, {**row.values, "pid": pid})
        for pid, row in zip(values, keyed_rows(values, str(path)), strict=True)
    ]


def _digits(row: Row) -> int:
    value = row.values.get("precision")
    if not isinstance(value, int | float) or isinstance(value, bool) or value != int(value) or not 0 <= value <= 10:
        raise row.error("precision must be a whole number of decimals, 0 to 10, where the answer is a float")
    return int(value)
