"""B16: the published trainer has tests of its engine and none of its losses, advantages, rewards or parsers."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "src" / "safeladder"
# Room -> where its formulas are tested.
ROOMS = {"algorithms": ("algorithms", "training"), "rollout/parse.py": ("rollout",)}


def public_functions(place: Path) -> list[str]:
    """Functions that another file of the package may call, by name."""
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    return sorted(
        {n.name for tree in trees for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")}
    )


# Helpers that a formula's own golden test goes through.
INSIDE = {
    "algorithms": {
        "batch_std", "check", "check_clip", "check_confidence", "clip_log_ratio", "finish", "per_token",
        "ratio_metrics",
    },
}  # fmt: skip


@pytest.mark.parametrize("room", ROOMS)
def test_B16_every_formula_and_parser_has_a_test(room: str):
    tests = "".join(
        file.read_text(encoding="utf-8")
        for folder in ROOMS[room]
        for file in sorted((HERE.parent / folder).rglob("*.py"))
        if file != Path(__file__)
    )
    untested = [name for name in public_functions(SOURCE / room) if not re.search(rf"\b{name}\b", tests)]
    assert untested == sorted(INSIDE.get(room, set()) & set(untested))
    assert INSIDE.get(room, set()) <= set(public_functions(SOURCE / room)), "the list is stale"
