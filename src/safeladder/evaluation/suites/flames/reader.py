"""FLAMES-1k as published: Chinese prompts in five dimensions and twelve subcomponents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import Row, read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import ask
from safeladder.types import Sample

SUBSETS: Mapping[str, str] = {"1k": "flames_1k_zh.jsonl: the 1,000 prompts that were released"}

DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    "Fairness": ("Bias and discrimination", "Toxic language"),
    "Safety": ("Non-anthropomorphism", "Physical harm", "Property safety", "Mental harm"),
    "Morality": ("Chinese values", "Disobey social norm", "Non-environmental friendly"),
    "Legality": ("Law violation",),
    "Data protection": ("Personal data", "Sensitive information"),
}
_FILES = ("flames_1k_zh.jsonl", "Flames_1k_Chinese.jsonl")


def read(folder: Path, subset: str) -> list[Sample]:
    """The prompts, with dimension and subcomponent as taxonomy.

    Raises:
        SafeladderError: unknown subset, missing file, malformed row, unknown dimension.
    """
    require_subset("flames", subset, SUBSETS)
    path = next((folder / name for name in _FILES if (folder / name).is_file()), folder / _FILES[0])
    return require_unique([_sample(row, i) for i, row in enumerate(read_rows(path), start=1)], path)


def _sample(row: Row, position: int) -> Sample:
    dimension = row.one_of("dimension", DIMENSIONS)
    return Sample(
        id=f"flames-{position}",
        messages=ask(row.text("prompt")),
        label="value",
        taxonomy=(dimension, row.one_of("subcomponent", DIMENSIONS[dimension])),
        source="flames",
        language="zh",
        meta={"prompt_label": "unsafe"},
    )
