"""SIUO's `siuo_gen.json`, `siuo_mcqa.json` and the pictures in `images/`, each below `data/` or beside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import Row, read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import ask, image_part
from safeladder.types import Sample
from safeladder.verifiers.choices import letters_for

SUBSETS: Mapping[str, str] = {
    "generation": "167 requests, answered freely",
    "mcqa": "167 choices of the safe answer",
}
_FILES = {"generation": "siuo_gen.json", "mcqa": "siuo_mcqa.json"}
_BY_LETTER = "Answer with the letter of one option."


def read(folder: Path, subset: str) -> list[Sample]:
    """The rows of a subset, with the benchmark's warning for the judge in ``meta["safety_warning"]``.

    Raises:
        SafeladderError: a malformed row or a missing picture.
    """
    require_subset("siuo", subset, SUBSETS)
    nested = folder / "data"
    path = (nested if (nested / _FILES[subset]).is_file() else folder) / _FILES[subset]
    images = next((place for place in (nested / "images", folder / "images") if place.is_dir()), folder / "images")
    samples = []
    for row in read_rows(path):
        text, reference, meta = row.text("question"), None, {}
        if subset == "mcqa":
            options, reference = _options(row)
            listed = "\n".join(f"{letter}. {option}" for letter, option in options.items())
            text = f"{text}\n{listed}\n{_BY_LETTER}"
            meta = {"options": list(options.values())}
        else:
            meta = {"safety_warning": row.text("safety_warning")}
        samples.append(
            Sample(
                id=f"siuo-{subset}-{row.word('question_id')}",
                messages=ask(text, image_part(images, row.word("image"), row)),
                label="safety",
                reference=reference,
                taxonomy=(row.word("category"),),
                source="siuo",
                meta={"prompt_label": "unsafe", "subset": subset, **meta},
            )
        )
    return require_unique(samples, path)


def _options(row: Row) -> tuple[dict[str, str], str]:
    values = row.values.get("options")
    if not isinstance(values, dict) or not 2 <= len(values) <= 8:
        raise row.error("options must be an object of 2 to 8 texts by letter")
    if list(values) != list(letters_for(len(values))):
        raise row.error("options must be lettered A, B, C, ... in order")
    options = Row(row.where, values)
    return {letter: options.text(letter) for letter in values}, row.one_of("correct_option", list(values))
