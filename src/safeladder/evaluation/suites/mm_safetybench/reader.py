"""MM-SafetyBench's `processed_questions/*.json` and `imgs/<scenario>/{SD,SD_TYPO,TYPO}/<id>.jpg`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import keyed_rows, read_object, require_subset, require_unique
from safeladder.evaluation.suites.images import ask, image_part
from safeladder.types import SafeladderError, Sample

SPLITS: Mapping[str, tuple[str, str]] = {
    "text-only": ("", "Changed Question"),
    "sd": ("SD", "Rephrased Question(SD)"),
    "sd-typo": ("SD_TYPO", "Rephrased Question"),
    "typo": ("TYPO", "Rephrased Question"),
}
"""Subset -> folder of its pictures ("" = none), field of its text."""

SUBSETS: Mapping[str, str] = {
    "all": "the four splits together",
    "text-only": "the request in words, without a picture",
    "sd": "a generated picture of the request's key phrase",
    "sd-typo": "the same picture with the key phrase written below",
    "typo": "a picture of the written key phrase",
}


def read(folder: Path, subset: str) -> list[Sample]:
    """The questions of a split; those of one item share a group.

    Raises:
        SafeladderError: a malformed item or a missing picture.
    """
    require_subset("mm-safetybench", subset, SUBSETS)
    root = folder / "data" if (folder / "data").is_dir() else folder
    files = sorted((root / "processed_questions").glob("*.json"))
    if not files:
        raise SafeladderError(f"mm-safetybench: no {root / 'processed_questions'}/*.json")
    samples = []
    for split in SPLITS if subset == "all" else (subset,):
        images, field = SPLITS[split]
        for file in files:
            for number, row in zip(values := read_object(file), keyed_rows(values, str(file)), strict=True):
                name = f"{file.stem}/{images}/{number}.jpg"
                shown = (image_part(root / "imgs", name, row),) if images else ()
                samples.append(
                    Sample(
                        id=f"mm-safetybench-{split}-{file.stem}-{number}",
                        messages=ask(row.text(field), *shown),
                        label="safety",
                        taxonomy=(split, file.stem),
                        source="mm-safetybench",
                        group_id=f"mm-safetybench-{file.stem}-{number}",
                        meta={"prompt_label": "unsafe", "judged_request": row.text("Changed Question")},
                    )
                )
    return require_unique(samples, root)
