"""Pictures with the objects in them: a pinned list of yours, or captions of the laptop world."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from safeladder.data.rows import read_rows, read_text, require_subset, require_unique
from safeladder.evaluation.suites.chair.lexicon import Lexicon, Names
from safeladder.evaluation.suites.images import ask, image_part
from safeladder.types import SafeladderError, Sample

WORLD = "world"
WORLD_CAPTIONS = 200
SUBSETS: Mapping[str, str] = {
    "pictures": "your list of pictures with their objects (chair/images.jsonl, chair/synonyms.txt, chair/images/)",
    WORLD: "200 held-out pictures of the laptop world; needs no files",
}
_REQUEST = "Describe the picture in detail."


def read(folder: Path, subset: str) -> list[Sample]:
    """A sample a picture: `meta` holds its `objects`, the `lexicon` and the digest of the `list` of pictures.

    Raises:
        SafeladderError: a malformed row, a missing picture, an object without a line in synonyms.txt.
    """
    require_subset("chair", subset, SUBSETS)
    return _world() if subset == WORLD else _pictures(folder / "chair")


def read_synonyms(path: Path) -> Names:
    """The published layout: a line an object, its names separated by commas, the first the object's own.

    Raises:
        SafeladderError: the file is missing or empty, or a name stands for two objects.
    """
    lines = [[name.strip() for name in line.split(",") if name.strip()] for line in read_text(path).splitlines()]
    names = tuple(tuple(line) for line in lines if line)
    if not names or len({line[0] for line in names}) < len(names):
        raise SafeladderError(f"{path} holds no objects, or one of them twice")
    try:
        Lexicon.of(names)
    except SafeladderError as error:
        raise SafeladderError(f"{path}: {error}") from None
    return names


@cache
def world_names(language: str) -> Names:
    """What the laptop world can show, by its words in a language."""
    from safeladder.world.lexicon import WHATS, tr

    return tuple((what, tr(language, what)) for what in WHATS)


def _pictures(folder: Path) -> list[Sample]:
    path = folder / "images.jsonl"
    rows, names = read_rows(path), read_synonyms(folder / "synonyms.txt")
    listed = digest([f"{row.word('image')}: {', '.join(sorted(row.texts('objects')))}" for row in rows])
    samples = []
    for row in rows:
        name, objects = row.word("image"), row.texts("objects")
        unknown = sorted(set(objects) - {line[0] for line in names})
        if unknown:
            raise row.error(f"the object {unknown[0][:60]!r} has no line in synonyms.txt")
        samples.append(
            Sample(
                id=f"chair-{name}",
                messages=ask(_REQUEST, image_part(folder / "images", name, row)),
                label="general",
                taxonomy=("pictures",),
                source="chair",
                meta={"objects": sorted(set(objects)), "lexicon": names, "list": listed},
            )
        )
    return require_unique(samples, path)


def _world() -> list[Sample]:
    from safeladder.world import World, WorldConfig

    found = World(WorldConfig(grid=2, difficulty=0.2, chinese_share=0.2)).samples(
        "heldout", WORLD_CAPTIONS, {"caption": 1.0}
    )
    listed = digest([sample.id for sample in found])
    return [
        Sample(
            id=sample.id,
            messages=sample.messages,
            label=sample.label,
            taxonomy=(WORLD, sample.language),
            source="chair",
            language=sample.language,
            meta={
                "objects": sorted({cell["what"] for cell in sample.meta["cells"] if cell is not None}),
                "lexicon": world_names(sample.language),
                "list": listed,
            },
        )
        for sample in found
    ]


def digest(entries: list[str]) -> str:
    """Twelve hex digits of a list whatever its order: which pictures a number is about."""
    return hashlib.sha256("\n".join(sorted(entries)).encode()).hexdigest()[:12]
