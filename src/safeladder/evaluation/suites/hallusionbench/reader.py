"""HallusionBench's `hallusionbench.json` (or `HallusionBench.json`) and its pictures in `images/`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import ask, image_part
from safeladder.types import Sample

SUBSETS: Mapping[str, str] = {
    "all": "1,129 questions, 951 of them about a picture (below images/)",
    "text-only": "the 178 questions that are asked without a picture: what the model believes unseen",
}
_CATEGORIES = {"VD": "visual dependent", "VS": "visual supplement"}
_INSTRUCTION = "Answer with yes or no."


def read(folder: Path, subset: str) -> list[Sample]:
    """The questions of a subset; those of one set (a topic with its variants) share a group.

    ``meta`` names the figure (one picture, or none) and the question (the same words over the figures of a set).

    Raises:
        SafeladderError: a malformed row, a missing picture, or a picture where visual_input says that there is none.
    """
    require_subset("hallusionbench", subset, SUBSETS)
    published = folder / "HallusionBench.json"
    path = published if published.is_file() else folder / "hallusionbench.json"
    samples = []
    for row in read_rows(path):
        category, visual = row.one_of("category", _CATEGORIES), row.one_of("visual_input", ("0", "1", "2"))
        kind, topic = row.word("subcategory"), row.word("set_id")
        figure, question = row.word("figure_id"), row.word("question_id")
        if (visual == "0") is row.has("filename"):
            raise row.error(f"visual_input is {visual} but filename is {'there' if row.has('filename') else 'missing'}")
        gold = "yes" if row.one_of("gt_answer", ("0", "1")) == "1" else "no"
        asked = row.text("question")
        if visual != "0" and subset == "text-only":
            continue
        shown = () if visual == "0" else (image_part(folder / "images", row.word("filename"), row),)
        group = f"{category}-{kind}-{topic}"
        samples.append(
            Sample(
                id=f"hallusionbench-{group}-{figure}-{question}",
                messages=ask(f"{asked} {_INSTRUCTION}", *shown),
                label="general_rule",
                reference=gold,
                taxonomy=(_CATEGORIES[category], kind),
                source="hallusionbench",
                group_id=group,
                meta={"figure": f"{group}-{figure}", "question": f"{group}-{question}", "visual_input": visual},
            )
        )
    return require_unique(samples, path)
