"""MMMU's rows as JSON lines, JSON or CSV, a file a split, with the pictures as paths below the folder."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import Row, parse_json, read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import image_part
from safeladder.types import Message, Part, SafeladderError, Sample
from safeladder.verifiers.choices import letters_for

SUBSETS: Mapping[str, str] = {"validation": "900 questions", "dev": "150 questions, meant for examples"}
DISCIPLINES: Mapping[str, tuple[str, ...]] = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Tech and Engineering": (
        "Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power",
        "Materials", "Mechanical_Engineering",
    ),
}  # fmt: skip
MULTIPLE, OPEN = "multiple-choice", "open"
MOST_IMAGES = 7

_SUBJECT = {subject: discipline for discipline, subjects in DISCIPLINES.items() for subject in subjects}
_ID = re.compile(r"[a-z]+_(.+)_\d+")
_MARKER = re.compile(r"<image (\d+)>")
_BY_LETTER = "Answer with the letter of one option."
_IN_WORDS = "End with a line that says: The answer is ..."


def read(folder: Path, subset: str) -> list[Sample]:
    """The questions of a split; pictures stand where question and options mention them (``<image 1>``).

    A picture that they do not mention belongs to the solution and is not shown.

    Raises:
        SafeladderError: a malformed row, a missing picture, or a row none of whose pictures is mentioned.
    """
    require_subset("mmmu", subset, SUBSETS)
    found = [p for s in (".jsonl", ".json", ".csv") if (p := folder / f"{subset}{s}").is_file()]
    if not found:
        raise SafeladderError(f"mmmu: no {folder / subset}.jsonl (or .json, .csv)")
    return require_unique([_sample(row, folder) for row in read_rows(found[0])], found[0])


def _sample(row: Row, folder: Path) -> Sample:
    name = row.word("id")
    matched = _ID.fullmatch(name)
    if matched is None or matched[1] not in _SUBJECT:
        raise row.error(f"id {name[:60]!r} names no subject; it must look like validation_Math_7")
    subject = matched[1]
    kind = row.one_of("question_type", (MULTIPLE, OPEN))
    options = _texts(row, "options") if kind == MULTIPLE else []
    text = row.text("question")
    if kind == MULTIPLE:
        if not 2 <= len(options) <= 26:
            raise row.error(f"{len(options)} options; 2 to 26 are needed")
        letters = letters_for(len(options))
        accepted = [row.one_of("answer", list(letters))]
        text += "".join(f"\n{letter}. {option}" for letter, option in zip(letters, options, strict=True))
        text += f"\n{_BY_LETTER}"
    else:
        accepted = _texts(row, "answer")
        text += f"\n{_IN_WORDS}"
    return Sample(
        id=f"mmmu-{name}",
        messages=(Message(role="user", parts=_interleaved(text, row, folder)),),
        label="general_rule",
        reference=accepted[0],
        taxonomy=(_SUBJECT[subject], subject),
        source="mmmu",
        meta={"kind": kind, "options": options, "accepted": accepted},
    )


def _interleaved(text: str, row: Row, folder: Path) -> tuple[Part, ...]:
    """The text cut at its picture markers, each replaced by the picture."""
    given = [n for n in range(1, MOST_IMAGES + 1) if row.has(f"image_{n}") and row.values[f"image_{n}"] != ""]
    named = {int(n) for n in _MARKER.findall(text)}
    if not named <= set(given) or (given and not named):
        raise row.error(f"the text mentions pictures {sorted(named)}, the row has {given}")
    parts: list[Part] = []
    for piece in re.split(r"(<image \d+>)", text):
        marker = _MARKER.fullmatch(piece)
        if marker is not None:
            parts.append(image_part(folder, row.word(f"image_{marker[1]}"), row))
        elif piece.strip():
            parts.append(Part(text=piece))
    return tuple(parts)


def _texts(row: Row, key: str) -> list[str]:
    """A list of texts, or its notation in a text, as JSON or as Python writes it; another text is a list of one."""
    value = row.values.get(key)
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = parse_json(value, row.where)
        except SafeladderError:
            try:
                value = ast.literal_eval(value.strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                raise row.error(f"{key} is no list") from None
    elif isinstance(value, str):
        value = [row.text(key)]
    if isinstance(value, list):
        value = [str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item for item in value]
    return Row(row.where, {key: value}).texts(key)
