"""GAOKAO-MM's `Data/*.json`, a file a subject, and the pictures they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import Row, read_object, require_subset, require_unique
from safeladder.evaluation.suites.images import ask, image_part
from safeladder.types import SafeladderError, Sample

SUBSETS: Mapping[str, str] = {"all": "646 questions of eight subjects"}
SUBJECTS: Mapping[str, str] = {
    "2010-2023_Math_MCQs": "mathematics",
    "2010-2023_Chinese_Pratical_Lit": "Chinese",
    "2010-2023_Physics_MCQs": "physics",
    "2010-2023_Chemistry_MCQs": "chemistry",
    "2010-2023_Biology_MCQs": "biology",
    "2010-2023_History_MCQs": "history",
    "2010-2023_Geography_MCQs": "geography",
    "2010-2023_Political_Science_MCQs": "politics",
}
SEVERAL = ("physics", "Chinese")
"""Subjects of which questions may have several right letters and a part of them earns half a point."""
LETTERS = "ABCDE"

_ONE = "请根据图片回答下面的单项选择题，最后用“答案是”写出所选选项的字母。\n"
_MANY = "请根据图片回答下面的选择题，可能有一个或多个正确选项，最后用“答案是”写出所有正确选项的字母。\n"


def read(folder: Path, subset: str) -> list[Sample]:
    """The questions of all subjects whose files are there.

    Raises:
        SafeladderError: no file, an unknown one, a malformed question or a missing picture.
    """
    require_subset("gaokao-mm", subset, SUBSETS)
    root = folder / "Data" if (folder / "Data").is_dir() else folder
    files = sorted(root.glob("*.json"))
    if not files:
        raise SafeladderError(f"gaokao-mm: no {root}/*.json")
    samples = []
    for file in files:
        if file.stem not in SUBJECTS:
            raise SafeladderError(f"{file}: not a file of GAOKAO-MM; known: {', '.join(SUBJECTS)}")
        for row in Row(str(file), read_object(file)).rows("example"):
            samples.append(_sample(row, root, file.stem))
    return require_unique(samples, root)


def _sample(row: Row, root: Path, name: str) -> Sample:
    subject = SUBJECTS[name]
    answers = row.texts("answer")
    gold = answers[0] if len(answers) == 1 else ""
    letters = "".join(sorted(set(gold.strip())))
    if not letters or not set(letters) <= set(LETTERS) or (subject not in SEVERAL and len(letters) > 1):
        raise row.error(f"answer {gold[:20]!r}; allowed: one of the letters {LETTERS}, or several in {SEVERAL}")
    # The files name pictures from the folder of the published scripts, which lies beside Data.
    pictures = [image_part(root, path.removeprefix("../Data/"), row) for path in row.texts("picture")]
    return Sample(
        id=f"gaokao-mm-{name}-{row.word('index')}",
        messages=ask((_MANY if subject in SEVERAL else _ONE) + row.text("question"), *pictures),
        label="general_rule",
        reference=letters,
        taxonomy=(subject, row.word("year")),
        source="gaokao-mm",
        language="zh",
    )
