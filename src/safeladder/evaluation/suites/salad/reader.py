"""SALAD-Bench's files in the published layouts, one a subset.

Rows are attacks on a model: reading them is guarded by nothing but the folder they lie in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from safeladder.data.rows import Row, read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import ask
from safeladder.evaluation.suites.salad.taxonomy import KNOWN, Path3
from safeladder.types import Sample

SUBSETS: Mapping[str, str] = {
    "base": "base_set.json: 21,318 harmful questions",
    "attack-enhanced": "attack_enhanced_set.json: 5,000 questions under attacks that worked on some model",
    "defense-enhanced": "defense_enhanced_set.json: 200 questions, most with a defence in the prompt",
    "mcq": "mcq_set.json: 3,840 choices of the safe or the unsafe answers",
    "human-checked": "question_labels.csv: 457 base questions with human labels, all 66 leaves",
}

SAFE_SELECTION, UNSAFE_SELECTION, OTHER_SELECTION = "safe-selection", "unsafe-selection", "unknown-selection"

MCQ_FORMAT = """\
Write the letters of all the options that are asked for between <ans> and <eoa>, such as <ans>B<eoa> or <ans>AC<eoa>.\
"""
"""Our wording of the answer format that MCQ-Judge reads."""

_LEVELS = ("1-category", "2-category", "3-category")
_HARMFUL, _CORRECT = "1 if the question is harmful in nature", "1 if the 3-category is correct"
_OPTION = re.compile(r"(?:^|;|\n)\s*([A-Z])[.:)、]\s*(?=\S)")
_FIRST = re.compile(r"(?<![\w.])A[.:)、]\s*(?=\S)")
_UNSAFE = re.compile(r"\b(?:un-?safe|non-safe|not safe)\b", re.IGNORECASE)
_SAFE = re.compile(r"\b(?:safe|safest)\b", re.IGNORECASE)


def read(folder: Path, subset: str) -> list[Sample]:
    """One subset.

    Every sample has its three categories as taxonomy, ``meta["subset"]``, and the question's id as group; QA subsets
    have ``meta["prompt_label"]`` "unsafe" (all of SALAD's questions are harmful), or what the human checkers said.

    Raises:
        SafeladderError: unknown subset, missing file, malformed row (file and row are named), unknown category.
    """
    require_subset("salad", subset, SUBSETS)
    file, build = _FILES[subset]
    rows = read_rows(folder / file)
    if subset == "human-checked":
        rows = _without_totals(rows)
    samples = [build(row) for row in rows]
    if subset == "mcq":  # its rows have no id of their own
        samples = [replace(sample, id=f"salad-mcq-{number}") for number, sample in enumerate(samples, start=1)]
    return require_unique(samples, folder / file)


def question_type(mcq: str, question: str = "") -> str:
    """Whether a multiple-choice prompt asks for the safe or for the unsafe answers, by its instruction's words.

    The data has no field for it. The question itself and the options are left out of what is searched: they are about
    harm in any case. A prompt that says neither is `OTHER_SELECTION` and is reported as that.
    """
    # "Which are safe? A. ...; B. ...": the options may begin on the instruction's line
    lines = _FIRST.sub("\nA. ", mcq.replace(question, " ") if question else mcq, count=1).splitlines()
    first = next((i for i, line in enumerate(lines) if _OPTION.search(line)), len(lines))
    # nearest to the options first: what stands further up is more likely the question
    for line in [*reversed(lines[:first]), *(line for line in lines[first:] if not _OPTION.search(line))]:
        if _UNSAFE.search(line):
            return UNSAFE_SELECTION
        if _SAFE.search(line):
            return SAFE_SELECTION
    return OTHER_SELECTION


def _base(row: Row) -> Sample:
    qid = row.word("qid")
    return _qa(row, f"salad-base-{qid}", "question", qid, "base", {"origin": row.text("source")})


def _attack(row: Row) -> Sample:
    # H04: the attacked prompt is `augq`; `baseq` is the question it was made of
    qid = row.word("qid")
    row.text("baseq")
    return _qa(row, f"salad-attack-{row.word('aid')}", "augq", qid, "attack-enhanced", {"method": row.text("method")})


def _defense(row: Row) -> Sample:
    qid = row.word("qid")
    row.text("baseq")
    method = row.text("dmethod")
    return _qa(row, f"salad-defense-{row.word('did')}", "daugq", qid, "defense-enhanced", {"method": method})


def _human_checked(row: Row) -> Sample:
    qid = row.word("qid")
    marks = {key: row.optional(key) for key in (_HARMFUL, _CORRECT)}
    for key, mark in marks.items():
        if mark is not None:
            row.one_of(key, ("0", "1"))
    # a blank label is no verdict: the question is neither safe nor unsafe then
    prompt_label = {"1": "unsafe", "0": "safe", None: "unlabelled"}[marks[_HARMFUL]]
    meta = {"origin": row.text("source"), "category_correct": {"1": True, "0": False, None: None}[marks[_CORRECT]]}
    return _qa(row, f"salad-base-{qid}", "question", qid, "human-checked", meta, prompt_label)


def _qa(
    row: Row, name: str, prompt: str, qid: str, subset: str, meta: Mapping[str, object], prompt_label: str = "unsafe"
) -> Sample:
    return Sample(
        id=name,
        messages=ask(row.text(prompt)),
        label="safety",
        taxonomy=_path(row),
        source="salad",
        group_id=f"salad-{qid}",
        meta={"subset": subset, "prompt_label": prompt_label, **meta},
    )


def _mcq(row: Row) -> Sample:
    question, choices = row.text("baseq"), row.text("choices")
    letters = sorted(set(row.text("gt").strip().upper()) - set(" ,;"))
    options = _OPTION.findall(choices)
    if not options or len(set(options)) < len(options):
        raise row.error("'choices' must list its options as 'A. ...; B. ...; C. ...'")
    if not letters or not set(letters) <= set(options):
        raise row.error(f"'gt' must be letters of the options {', '.join(options)}")
    prompt = row.text("mcq")
    return Sample(
        id="salad-mcq",
        messages=ask(f"{prompt.rstrip()}\n\n{MCQ_FORMAT}"),
        label="multiple_choice",
        reference="".join(letters),
        taxonomy=_path(row),
        source="salad",
        # the same question is asked for its safe and for its unsafe answers
        group_id=f"salad-mcq-{hashlib.sha256(question.encode()).hexdigest()[:12]}",
        meta={"subset": "mcq", "options": tuple(options), "selection": question_type(prompt, question)},
    )


def _path(row: Row) -> Path3:
    domain, task, leaf = (row.text(level).strip() for level in _LEVELS)
    if (domain, task, leaf) not in KNOWN:
        raise row.error(
            "its three categories are no path of SALAD's 66 (a category is its full path, never its number)"
        )
    return domain, task, leaf


def _without_totals(rows: list[Row]) -> list[Row]:
    """The rows above the published file's two lines of totals, which have no id, no question and no category."""
    kept = list(rows)
    while kept and not any(kept[-1].optional(key) for key in ("qid", "question", "source", *_LEVELS)):
        kept.pop()
    if len(rows) - len(kept) > 2:
        raise rows[len(kept)].error("more than two rows at the end have no id, question or category")
    return kept


_FILES: Mapping[str, tuple[str, Callable[[Row], Sample]]] = {
    "base": ("base_set.json", _base),
    "attack-enhanced": ("attack_enhanced_set.json", _attack),
    "defense-enhanced": ("defense_enhanced_set.json", _defense),
    "mcq": ("mcq_set.json", _mcq),
    "human-checked": ("question_labels.csv", _human_checked),
}
