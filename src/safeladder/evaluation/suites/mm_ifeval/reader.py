"""MM-IFEval's rows as VLMEvalKit's table (`MM-IFEval.tsv`, pictures in its cells), as the authors' own files
(`C-Level.jsonl`, `P-Level.jsonl`) or as one export (`mm_ifeval.jsonl`, `.json`, `.tsv`), pictures below `images/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safeladder.data.rows import Row, parse_json, read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import ask, embedded_part, image_part
from safeladder.evaluation.suites.mm_ifeval.checks import valid
from safeladder.types import Part, SafeladderError, Sample

SUBSETS: Mapping[str, str] = {
    "all": "compose-level and perception-level prompts",
    "c-level": "prompts with several constraints on the reply",
    "p-level": "questions with a constraint that needs the picture, with a reference",
}
COMPOSE, PERCEPTION = "C-Level", "P-Level"
RULE, DIRECT, COMPARED = "rule_based", "direct_gpt", "cmp_gpt"
_AUXILIARY = "aux_cmp_gpt"
_WHOLE = ("MM-IFEval.tsv", "mm_ifeval.jsonl", "mm_ifeval.json", "mm_ifeval.tsv")
_LONGEST_PATH = 255
"""A longer `image` is the picture itself, in base64."""


def read(folder: Path, subset: str) -> list[Sample]:
    """The prompts of a subset.

    ``meta["constraints"]`` lists key, words, and the checks of those that are decided by rule; ``meta["points"]`` what
    the answer to a perception question must name. Rows marked as auxiliary (a prompt with one constraint taken out) are
    not asked.

    Raises:
        SafeladderError: a malformed row, an unknown check, or a missing picture.
    """
    require_subset("mm-ifeval", subset, SUBSETS)
    files = _files(folder, subset)
    rows = [row for file in files for row in read_rows(file)]
    shared = {row.word("index"): str(row.values["image"]) for row in rows if row.has("index") and _embedded(row)}
    samples = []
    for row in rows:
        if row.optional("infer_type") and row.one_of("infer_type", ("main", _AUXILIARY)) == _AUXILIARY:
            continue
        sample = _sample(row, folder / "images", shared)
        if subset == "all" or sample.taxonomy[0].lower() == subset:
            samples.append(sample)
    return require_unique(samples, files[0])


def _files(folder: Path, subset: str) -> list[Path]:
    for name in _WHOLE:
        if (folder / name).is_file():
            return [folder / name]
    files = [folder / f"{level}.jsonl" for level in (COMPOSE, PERCEPTION)]
    if not any(file.is_file() for file in files):
        raise SafeladderError(
            f"mm-ifeval: no {folder / _WHOLE[0]}, nor C-Level.jsonl, P-Level.jsonl or mm_ifeval.jsonl"
        )
    return [file for file in files if subset in ("all", file.stem.lower())]


def _embedded(row: Row) -> bool:
    return len(str(row.values.get("image") or "")) > _LONGEST_PATH


def _picture(row: Row, images: Path, shared: Mapping[str, str]) -> Part:
    """The picture in the row's cell, in that of the row whose index the cell holds, or in a file."""
    if _embedded(row):
        return embedded_part(row.text("image"), row)
    name = row.word("image_path" if row.has("image_path") else "image")
    return embedded_part(shared[name], row) if name in shared else image_part(images, name, row)


def _prompt(row: Row) -> str:
    """The authors' own files hold a compose-level prompt in parts: instruction, then the words of its constraints."""
    if row.has("question") or not row.has("instruction"):
        return row.text("question")
    return " ".join(
        [row.text("instruction"), *(c.text("value") for c in _list(row, "constraints").rows("constraints"))]
    )


def _sample(row: Row, images: Path, shared: Mapping[str, str]) -> Sample:
    level = row.one_of("tag", (COMPOSE, PERCEPTION))
    points = _list(row, "answer").texts("answer") if level == PERCEPTION else []
    constraints = [_constraint(c) for c in _list(row, "constraints").rows("constraints")] if level == COMPOSE else []
    keys = [constraint["key"] for constraint in constraints]
    if level == COMPOSE and (not keys or len(set(keys)) < len(keys)):
        raise row.error("constraints must be some, each with a key of its own")
    return Sample(
        id=f"mm-ifeval-{row.word('id')}",
        messages=ask(_prompt(row), _picture(row, images, shared)),
        label="instruction",
        taxonomy=(level,),
        source="mm-ifeval",
        meta={"constraints": constraints, "points": points},
    )


def _constraint(row: Row) -> dict[str, Any]:
    """Key, words and checks; no checks where a judge decides."""
    judged = row.values.get("judge")
    if not isinstance(judged, dict):
        raise row.error("judge must be an object")
    judge = Row(f"{row.where} judge", judged)
    checks = []
    if judge.one_of("method", (RULE, DIRECT, COMPARED)) == RULE:
        for check in judge.rows("verify_funcs"):
            name, params = check.word("func"), check.values.get("params")
            if not valid(name, params):
                raise check.error(f"no check {name[:80]!r} with these params")
            checks.append({"name": name, "params": params})
        if not checks:
            raise judge.error("verify_funcs is empty")
    return {"key": row.word("key"), "words": row.text("value"), "checks": checks}


def _list(row: Row, key: str) -> Row:
    """The row with the list that a TSV cell holds as JSON."""
    value = row.values.get(key)
    return Row(row.where, {key: parse_json(value, f"{row.where} {key}") if isinstance(value, str) else value})
