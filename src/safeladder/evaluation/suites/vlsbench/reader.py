"""VLSBench's `data.json` and its `imgs/` folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import ask, image_part
from safeladder.types import Message, Sample

TEXT_SIDE = "text-side"
SUBSETS: Mapping[str, str] = {
    "all": "2,241 requests with their pictures (data.json and imgs/)",
    TEXT_SIDE: "the 2,240 that have words, without the pictures: no VLSBench result, a check of the text alone",
}
_PICTURE_ONLY = "1685"
"""The one published row that has no words: its picture is the whole request. Elsewhere that is a damaged row."""


def read(folder: Path, subset: str) -> list[Sample]:
    """The rows of a subset; rows that share a picture share a group.

    ``meta`` holds image_description and safety_reason, where the file has them (the judge is told), and the subset.

    Raises:
        SafeladderError: a malformed row, or a missing or damaged picture (never a skipped row: H05).
    """
    require_subset("vlsbench", subset, SUBSETS)
    path = folder / "data.json"
    samples = []
    for row in read_rows(path):
        name, number = row.word("image_path"), row.word("instruction_id")
        wordless = number == _PICTURE_ONLY and row.values.get("instruction") == ""
        if wordless and subset == TEXT_SIDE:
            continue
        shown = () if subset == TEXT_SIDE else (image_part(folder, name, row),)
        told = {key: row.text(key) for key in ("image_description", "safety_reason") if row.has(key)}
        samples.append(
            Sample(
                id=f"vlsbench-{number}",
                messages=(Message(role="user", parts=shown),) if wordless else ask(row.text("instruction"), *shown),
                label="safety",
                taxonomy=(row.word("category"), row.word("sub_category")),
                source="vlsbench",
                group_id=f"vlsbench-{name}",
                meta={"prompt_label": "unsafe", "subset": subset, **told},
            )
        )
    return require_unique(samples, path)
