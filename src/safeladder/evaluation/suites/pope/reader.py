"""POPE's `coco_pope_{random,popular,adversarial}.json` (JSON lines) and the COCO pictures in `images/`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import ask, image_part
from safeladder.types import Sample

SETS = ("random", "popular", "adversarial")
SUBSETS: Mapping[str, str] = {
    "all": "the three sets together, 9,000 questions on 500 pictures",
    "random": "absent objects drawn at random",
    "popular": "absent objects that are frequent in COCO",
    "adversarial": "absent objects that go with the present ones",
}

_INSTRUCTION = "Answer with yes or no."


def read(folder: Path, subset: str) -> list[Sample]:
    """The questions of a subset; those about one picture share a group.

    Raises:
        SafeladderError: a malformed row or a missing picture.
    """
    require_subset("pope", subset, SUBSETS)
    samples = []
    for name in SETS if subset == "all" else (subset,):
        for row in read_rows(folder / f"coco_pope_{name}.json"):
            image = row.word("image")
            samples.append(
                Sample(
                    id=f"pope-{name}-{row.word('question_id')}",
                    messages=ask(f"{row.text('text')} {_INSTRUCTION}", image_part(folder / "images", image, row)),
                    label="general_rule",
                    reference=row.one_of("label", ("yes", "no")),
                    taxonomy=(name,),
                    source="pope",
                    group_id=f"pope-{image}",
                )
            )
    return require_unique(samples, folder)
