"""1,000 damaged files through the readers of the text suites: a sample for every row, or one error naming the place."""

from __future__ import annotations

import copy
import csv
import io
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import multimodal_layouts
import pytest

from safeladder.evaluation.suites.registry import load_suite, suite_names
from safeladder.types import SafeladderError

PATH = {"1-category": "O5: Malicious Use", "2-category": "O12: Fraud or Deceptive Action", "3-category": "O48: Spam"}
ROWS = 4
FILES = 1_000


@dataclass(frozen=True)
class Layout:
    suite: str
    subset: str
    file: str
    row: Callable[[int], dict[str, Any]]


LAYOUTS = [
    Layout("salad", "base", "base_set.json", lambda n: {"qid": n, "question": f"q {n}", "source": "GPT-Gen", **PATH}),
    Layout(
        "salad", "attack-enhanced", "attack_enhanced_set.json",
        lambda n: {"aid": n, "qid": n, "baseq": "b", "augq": f"q {n}", "method": "gptfuzz", **PATH},
    ),
    Layout(
        "salad", "defense-enhanced", "defense_enhanced_set.json",
        lambda n: {"did": n, "qid": n, "baseq": "b", "daugq": f"q {n}", "dmethod": "orig", **PATH},
    ),
    Layout(
        "salad", "mcq", "mcq_set.json",
        lambda n: {"mcq": f"q {n}\nWhich are safe?\nA. x; B. y;", "baseq": f"q {n}", "choices": "A. x; B. y;",
                   "gt": "A", **PATH},
    ),
    Layout(
        "salad", "human-checked", "question_labels.csv",
        lambda n: {"qid": n, "question": f"q {n}", "source": "x", **PATH, "1 if the question is harmful in nature": 1,
                   "1 if the 3-category is correct": 0},
    ),
    Layout(
        "flames", "1k", "flames_1k_zh.jsonl",
        lambda n: {"dimension": "Safety", "subcomponent": "Mental harm", "prompt": f"问 {n}"},
    ),
    Layout(
        "ifeval", "test", "input_data.jsonl",
        lambda n: {"key": n, "prompt": f"p {n}", "instruction_id_list": ["length_constraints:number_words"],
                   "kwargs": [{"relation": "at least", "num_words": 10}]},
    ),
    Layout("gsm8k", "test", "test.jsonl", lambda n: {"question": f"q {n}", "answer": f"so\n#### {n}"}),
    Layout(
        "truthfulqa", "mc2", "truthfulqa.csv",
        lambda n: {"Type": "Adversarial", "Category": "Myths", "Question": f"q {n}?", "Best Answer": "no",
                   "Correct Answers": "no; not so", "Incorrect Answers": "yes; always", "Source": "s"},
    ),
    Layout(
        "gpqa", "diamond", "gpqa_diamond.csv",
        lambda n: {"Record ID": f"r{n}", "Question": f"q {n}", "Correct Answer": "a", "Incorrect Answer 1": "b",
                   "Incorrect Answer 2": "c", "Incorrect Answer 3": "d", "High-level domain": "Physics",
                   "Subdomain": "s"},
    ),
    Layout(
        "olympiadbench", "text-en", "OE_TO_maths_en_COMP.json",
        lambda n: {"id": n, "subfield": "Algebra", "context": None, "question": f"q {n}", "solution": ["s"],
                   "final_answer": ["1"], "is_multiple_answer": False, "unit": None, "answer_type": "Numerical",
                   "error": "0.1"},
    ),
    Layout(
        "xstest", "all", "prompts.csv",
        lambda n: {"id": n, "prompt": f"q {n}", "type": "homonyms", "label": "safe", "focus": "kill", "note": "x"},
    ),
    Layout(
        "cyber-frr", "mitre", "mitre_frr.json",
        lambda n: {"mutated_prompt": f"q {n}", "is_malicious": False, "attack_type": "C2", "model": "m"},
    ),
    Layout(
        "malware-mcq", "malware", "cyberseceval_malware_analysis_mcq.json",
        lambda n: {"question": f"q {n}", "options": ["A. x", "B. y"], "correct_options": ["A"], "topic": "t",
                   "difficulty": "easy", "sha256": f"{n:064x}", "attack": "a"},
    ),
    Layout(
        "prompt-injection", "all", "cyberseceval_prompt_injection.json",
        lambda n: {"prompt_id": n, "test_case_prompt": "Be kind.", "user_input": f"q {n}", "judge_question": "Is it?",
                   "injection_variant": "v", "injection_type": "direct", "risk_category": "r",
                   "speaking_language": "English"},
    ),
]  # fmt: skip
SAME_FILE = {"deployment-gap": "xstest"}
"""Suite -> whose reader it reads with."""
NO_FILES = {"honesty-pressure", "sandbagging"}
"""Suites that write their own rows."""

ODD_VALUES: list[Any] = [
    None, "", "  ", 0, -3, 1.5, True, [], [None], [""], {}, {"a": 1}, "\ud800", "x" * 5000, "A", "#### ", ";;",
    "<img_1>", [1, "a"], [[]], float("nan"), 10**400, "\x00", "\"", ",", "O5", "{request}", "\u202e",
]  # fmt: skip


def write(path: Path, rows: list[Any]) -> None:
    if path.suffix == ".jsonl":
        write_lines_raw(path, rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        out = io.StringIO()
        writer = csv.DictWriter(out, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        path.write_bytes(out.getvalue().encode("utf-8", "surrogatepass"))


def write_lines_raw(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def mangle_rows(rows: list[Any], draw: random.Random, *, table: bool) -> list[Any]:
    """One row damaged; the number of rows may grow by a copy but nothing is taken away."""
    rows = copy.deepcopy(rows)
    place = draw.randrange(len(rows))
    row = rows[place]
    key = draw.choice(list(row))
    kind = draw.choice(["value", "value", "value", "missing", "renamed", "copy", "extra", "no row", "nested"])
    if kind == "value":
        row[key] = draw.choice(ODD_VALUES)
    elif kind == "missing":
        del row[key]
    elif kind == "renamed":
        row[key.upper() + "_"] = row.pop(key)
    elif kind == "copy":
        rows.insert(draw.randrange(len(rows)), copy.deepcopy(row))
    elif kind == "extra":
        row["extra"] = draw.choice(ODD_VALUES)
    elif kind == "no row" and not table:
        rows[place] = draw.choice([None, 1, "text", [], [row]])
    elif isinstance(row[key], list) and row[key]:
        row[key][0] = draw.choice(ODD_VALUES)
    return rows


def mangle_bytes(raw: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(1, len(raw))
    kind = draw.choice(["cut", "flip", "insert", "drop", "swap"])
    if kind == "cut":
        return raw[:at]
    if kind == "flip":
        return raw[:at] + bytes([draw.randrange(256)]) + raw[at + 1 :]
    if kind == "insert":
        return raw[:at] + draw.choice([b'"', b"\n", b",", b"}", b"]", b"\xff", b"\x00", b"NaN", b"\\ud800"]) + raw[at:]
    if kind == "drop":
        return raw[:at] + raw[at + draw.randrange(1, 6) :]
    return raw[: at - 1] + raw[at : at + 1] + raw[at - 1 : at] + raw[at + 1 :]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.suite}-{layout.subset}")
def test_damaged_rows_give_samples_or_one_error_that_names_file_and_row(tmp_path: Path, layout: Layout):
    suite = load_suite(layout.suite)
    path = tmp_path / layout.file
    good = [layout.row(n) for n in range(1, ROWS + 1)]
    write(path, good)
    assert len(suite.read(tmp_path, layout.subset)) == ROWS
    read = refused = 0
    for seed in range(-(-FILES // len(LAYOUTS)) * 6 // 10):
        draw = random.Random(f"{layout.suite} {layout.subset} {seed}")
        rows = mangle_rows(good, draw, table=path.suffix == ".csv")
        write(path, rows)
        try:
            samples = suite.read(tmp_path, layout.subset)
        except SafeladderError as error:
            refused += 1
            text = str(error)
            assert layout.file in text and "\n" not in text, text
            assert re.search(r"(?:row|sample|line) '?\d", text), f"seed {seed} names no row: {text[:200]}"
        else:
            read += 1
            assert len(samples) == len(rows), f"seed {seed}: {len(samples)} samples of {len(rows)} rows"
            assert all(s.question.strip() and s.id for s in samples)
            for sample in samples:
                sample.question.encode("utf-8")
    assert read and refused, "the damage must be of both kinds"


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.suite}-{layout.subset}")
def test_damaged_bytes_never_crash_a_reader(tmp_path: Path, layout: Layout):
    suite = load_suite(layout.suite)
    path = tmp_path / layout.file
    write(path, [layout.row(n) for n in range(1, ROWS + 1)])
    raw = path.read_bytes()
    refused = 0
    for seed in range(-(-FILES // len(LAYOUTS)) * 4 // 10 + 2):
        draw = random.Random(f"bytes {layout.suite} {layout.subset} {seed}")
        path.write_bytes(mangle_bytes(raw, draw))
        try:
            samples = suite.read(tmp_path, layout.subset)
        except SafeladderError as error:
            refused += 1
            assert layout.file in str(error), str(error)
        else:
            # a line lost or broken in two is a file of its own; a row that was swallowed by its neighbour is not
            assert len(samples) >= 1
    assert refused


def test_no_suite_is_left_out():
    here = {layout.suite for layout in LAYOUTS}
    assert set(SAME_FILE.values()) <= here
    pictures = {layout.suite for layout in multimodal_layouts.LAYOUTS}
    assert here | SAME_FILE.keys() | NO_FILES | pictures == set(suite_names())
    assert not NO_FILES & (here | pictures)


def test_a_suite_that_writes_its_own_rows_reads_nothing(tmp_path: Path):
    for name in NO_FILES:
        suite = load_suite(name)
        for subset in suite.subsets:
            assert len(suite.read(tmp_path / "no such folder", subset)) == suite.sizes[subset]


def test_at_least_a_thousand_files_are_damaged():
    per_layout = -(-FILES // len(LAYOUTS))
    assert len(LAYOUTS) * (per_layout * 6 // 10 + per_layout * 4 // 10 + 2) >= FILES


def test_a_quote_that_never_closes_swallows_no_rows(tmp_path: Path):
    layout = next(layout for layout in LAYOUTS if layout.suite == "truthfulqa")
    path = tmp_path / layout.file
    write(path, [layout.row(n) for n in range(1, ROWS + 1)])
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = lines[2].replace("q 2?", '"q 2?')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(SafeladderError, match=r"truthfulqa\.csv row \d+: not valid CSV"):
        load_suite("truthfulqa").read(tmp_path, "mc2")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.suite}-{layout.subset}")
def test_an_empty_file_and_another_type_are_errors(tmp_path: Path, layout: Layout):
    suite, path = load_suite(layout.suite), tmp_path / layout.file
    for content in ("", "\n\n", "[]", "{}", "null", "7", '"text"'):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(SafeladderError, match=re.escape(layout.file)):
            suite.read(tmp_path, layout.subset)
