"""M3oralBench's `query.json` and `images/`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safeladder.data.rows import read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import ask, image_part
from safeladder.types import Sample

TASKS = ("judge", "classification", "response")
SUBSETS: Mapping[str, str] = {
    "all": "the three tasks",
    "judge": "is the act shown morally wrong?",
    "classification": "which moral foundation does it violate?",
    "response": "what would be the right thing to say?",
}
_OPTION = re.compile(r"\(([A-H])\)\s*([^\n(]+)")


def read(folder: Path, subset: str) -> list[Sample]:
    """The questions of a task; the instruction holds the options and is asked as it is published.

    Raises:
        SafeladderError: a malformed row, a missing picture, or a right answer that is not among the options.
    """
    require_subset("m3oralbench", subset, SUBSETS)
    path = folder / "query.json"
    samples = []
    for row in read_rows(path):
        task, instruction = row.one_of("type", TASKS), row.text("instruction")
        options = {letter: text.strip() for letter, text in _OPTION.findall(instruction)}
        # The closing words repeat letters: what counts is that A, B, ... are there.
        letters = "".join(sorted(options))
        if letters != "ABCDEFGH"[: len(letters)] or len(letters) < 2:
            raise row.error("the instruction has no options (A), (B), ...")
        gold, image = row.one_of("gt_choice", list(options)), row.word("image")
        if subset not in ("all", task):
            continue
        samples.append(
            Sample(
                id=f"m3oralbench-{row.word('id')}",
                messages=ask(instruction, image_part(folder, image.removeprefix("./"), row)),
                label="value",
                reference=gold,
                taxonomy=(task, row.word("Foundation")),
                source="m3oralbench",
                group_id=f"m3oralbench-{image}",
                meta={"letters": letters},
            )
        )
    return require_unique(samples, path)
