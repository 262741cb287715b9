r"""OlympiadBench's open-ended problems as published: one JSON file a kind, pictures in a folder beside them.

A file is named by its kind, ``OE_TO_maths_en_COMP.json``: open-ended, text only (TO) or with pictures (MM), subject,
language, competition or entrance exam. Theorem proofs (TP) need a human grader and are not read. Pictures stand in the
text as ``<img_3362>`` (then ``images/3362.*``) or, in exports of the hub's tables, as ``<image_1>`` with a field
``image_1`` that holds a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import Row, read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import image_part
from safeladder.types import Message, Part, SafeladderError, Sample

SUBSETS: Mapping[str, str] = {
    "text-en": "OE_TO_*_en_*: open-ended, text only, English",
    "text-zh": "OE_TO_*_zh_*: open-ended, text only, Chinese",
    "images-en": "OE_MM_*_en_*: open-ended, with pictures, English",
    "images-zh": "OE_MM_*_zh_*: open-ended, with pictures, Chinese",
}
HUMAN = "Need_human_evaluate"
"""Answer type of the rows that no rule can grade."""

_KIND = re.compile(r"OE_(TO|MM)_(maths|physics)_(en|zh)_(COMP|CEE)")
_MARK = re.compile(r"<(img|image)_(\d+)>")
_SUFFIXES = (".jpg", ".jpeg", ".png")
_FORMAT = {
    "en": "Solve the problem. Put {what} in one \\boxed{{}}{unit}.",
    "zh": "请解答，并把{what}写在一个 \\boxed{{}} 里{unit}。",
}
_WHAT = {
    ("en", False): "the final answer", ("en", True): "all final answers, separated by commas,",
    ("zh", False): "最终答案", ("zh", True): "所有最终答案（用逗号隔开）",
}  # fmt: skip
_UNIT = {"en": ", without its unit ({unit})", "zh": "，不写单位（{unit}）"}


def read(folder: Path, subset: str) -> list[Sample]:
    """The problems of a subset, over all of its files in `folder` or `folder`/data.

    ``meta["answers"]`` holds the final answers as published, ``meta["tolerance"]`` the allowed absolute error of each
    or None, ``meta["unit"]`` their unit.

    Raises:
        SafeladderError: unknown subset, no file of it, malformed row, missing picture.
    """
    require_subset("olympiadbench", subset, SUBSETS)
    form, language = subset.split("-")
    pattern = f"OE_{'TO' if form == 'text' else 'MM'}_*_{language}_*"
    files = sorted(
        f for place in (folder, folder / "data") for s in (".json", ".jsonl") for f in place.glob(pattern + s)
    )
    files = [file for file in files if _KIND.fullmatch(file.stem)]
    if not files:
        raise SafeladderError(f"benchmark file {folder / pattern}.json not found")
    return [
        sample
        for file in files
        for sample in require_unique([_sample(row, folder, file.stem) for row in read_rows(file)], file)
    ]


def _sample(row: Row, folder: Path, kind: str) -> Sample:
    match = _KIND.fullmatch(kind)
    assert match is not None
    form, subject, language, source = match.groups()
    answers = row.texts("final_answer")
    kinds = row.text("answer_type").strip()
    several = row.values.get("is_multiple_answer")
    if not isinstance(several, bool):
        raise row.error("is_multiple_answer must be true or false")
    unit = row.optional("unit")
    context = row.optional("context")
    told = _UNIT[language].format(unit=unit) if unit else ""
    instruction = _FORMAT[language].format(what=_WHAT[language, several], unit=told)
    text = "\n\n".join([*([context] if context else []), row.text("question"), instruction])
    parts = _parts(text, row, folder)
    if form == "MM" and not any(part.image is not None for part in parts):
        raise row.error("a problem with pictures names none in its text")
    return Sample(
        id=f"olympiadbench-{kind}-{row.word('id')}",
        messages=(Message(role="user", parts=parts),),
        label="olympiadbench",
        reference=", ".join(answers),
        taxonomy=(subject, row.optional("subfield") or "unnamed"),
        source="olympiadbench",
        language=language,
        meta={
            "answers": tuple(answers),
            "answer_type": kinds,
            "several": several,
            "tolerance": _tolerance(row),
            "unit": unit,
            "origin": source,
        },
    )


def _parts(text: str, row: Row, folder: Path) -> tuple[Part, ...]:
    """The text with its pictures in place of their marks."""
    parts: list[Part] = []
    start = 0
    for mark in _MARK.finditer(text):
        if text[start : mark.start()].strip():
            parts.append(Part(text=text[start : mark.start()]))
        parts.append(_picture(mark[1], mark[2], row, folder))
        start = mark.end()
    if text[start:].strip():
        parts.append(Part(text=text[start:]))
    return tuple(parts)


def _picture(form: str, number: str, row: Row, folder: Path) -> Part:
    if form == "image":
        return image_part(folder, row.text(f"image_{number}"), row)
    names = [f"images/{number}{suffix}" for suffix in _SUFFIXES]
    return image_part(folder, next((n for n in names if (folder / n).is_file()), names[0]), row)


def _tolerance(row: Row) -> tuple[float, ...] | None:
    """The field `error`: nothing, one number, or one for each answer, separated by commas."""
    value = row.values.get("error")
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    trouble = row.error("error must be null, a number, or numbers separated by commas")
    if not isinstance(value, str):
        raise trouble
    try:
        found = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise trouble from None
    if not all(0 <= tolerance < float("inf") for tolerance in found):
        raise row.error("error must not be negative or infinite")
    return found
