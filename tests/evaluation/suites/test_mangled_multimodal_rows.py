"""A thousand mangled rows through the readers of the multimodal suites: samples, or one error that names file and row.

Good rows of every published layout are damaged one at a time, with a fixed seed: fields lost, of another type, blank,
absurdly long or deep, not Unicode, pointing out of the folder, rows repeated. None may crash a reader, and none may
vanish: where a file is read, every row of it has its samples.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from multimodal_layouts import LAYOUTS, Layout, as_lines, build, some

from safeladder.evaluation.leakage import read_pairs
from safeladder.evaluation.suites.registry import load_suite
from safeladder.types import SafeladderError

ROUNDS = 64
"""Mangled rows a layout; 16 layouts make 1,024."""


DEEP: Any = "x"
for _ in range(300):
    DEEP = [DEEP]
ODD: tuple[Any, ...] = (
    None, "", "   ", 0, -1, 7, 1.5, True, [], {}, [None], ["", "x"], [[]], {"a": 1}, "\ud800", "x\0y", "y" * 20_000,
    "../../etc/passwd", "/etc/passwd", "no/such/file.png", "A", "yes", "Ａ", "\u202e", DEEP, [1, 2, 3], "[", "['a'",
    "{}", "9" * 400, 10**30,
)  # fmt: skip


def mangled(rows: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """The rows with one of them damaged."""
    rows = json.loads(json.dumps(rows))
    number = rng.randrange(len(rows))
    row = rows[number]
    key = rng.choice(list(row))
    action = rng.choice(("odd", "odd", "odd", "lose", "rename", "swap", "twice", "inner", "nonsense"))
    if action == "odd":
        row[key] = rng.choice(ODD)
    elif action == "lose":
        del row[key]
    elif action == "rename":
        row[f"{key} "] = row.pop(key)
    elif action == "swap":
        other = rng.choice(list(row))
        row[key], row[other] = row[other], row[key]
    elif action == "twice":
        rows.append(json.loads(json.dumps(row)))
    elif action == "inner" and isinstance(row[key], list | dict) and row[key]:
        place = rng.choice(list(row[key]) if isinstance(row[key], dict) else range(len(row[key])))
        row[key][place] = rng.choice(ODD)
    else:
        rows[number] = rng.choice(({}, {"x": 1}, {key: row[key]}))
    return rows


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.suite)
def test_good_rows_are_read(layout: Layout, tmp_path: Path):
    build(layout, tmp_path)
    samples = load_suite(layout.suite).read(tmp_path, layout.subset)
    assert len(samples) == sum(map(layout.samples, layout.rows))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.suite)
def test_mangled_rows_give_samples_or_one_error(layout: Layout, tmp_path: Path):
    rng = random.Random(f"mangled {layout.suite}")
    suite = load_suite(layout.suite)
    build(layout, tmp_path)
    refused = 0
    for number in range(ROUNDS):
        rows = mangled(layout.rows, rng)
        layout.write(tmp_path, rows)
        try:
            samples = suite.read(tmp_path, layout.subset)
        except SafeladderError as error:
            refused += 1
            message = str(error)
            assert len(message.splitlines()) == 1, (number, message[:300])
            length = len(message)
            assert length < 1_000, (number, message[:300])
            assert any(word in message for word in (" row ", " item ", " sample ")), (number, message[:300])
            assert str(tmp_path) in message, (number, message[:300])
            continue
        wanted = sum(map(layout.samples, rows))
        auxiliary = sum(row.get("infer_type") == "aux_cmp_gpt" for row in rows)
        assert len(samples) == wanted - auxiliary, number
        assert len({s.id for s in samples}) == len(samples)
        for sample in samples:
            assert sample.messages[0].parts and sample.question.encode()
    assert refused > ROUNDS / 4, "the damage hardly hurt: the test is too mild"


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.suite)
def test_damaged_files_give_one_error(layout: Layout, tmp_path: Path):
    """Cut off anywhere, or with bytes changed: an error that names the file, or all the samples it still holds."""
    rng = random.Random(f"damaged {layout.suite}")
    suite = load_suite(layout.suite)
    build(layout, tmp_path)
    (path,) = [p for p in tmp_path.rglob("*") if p.suffix in (".json", ".jsonl", ".csv")]
    whole = path.read_bytes()
    for _ in range(12):
        raw = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.5 else whole)
        for _ in range(rng.randrange(4)):
            if raw:
                raw[rng.randrange(len(raw))] = rng.randrange(256)
        path.write_bytes(bytes(raw))
        try:
            samples = suite.read(tmp_path, layout.subset)
        except SafeladderError as error:
            assert str(tmp_path) in str(error)
            continue
        assert samples


def test_mangled_pairs_of_the_leakage_audit(tmp_path: Path):
    rng = random.Random("mangled pairs")
    rows = some(3, id=str, text="How?", image="a.png", category="x", label="unsafe")
    write = as_lines("pairs.jsonl")
    for _ in range(ROUNDS):
        changed = mangled(rows, rng)
        write(tmp_path, changed)
        try:
            pairs = read_pairs(tmp_path / "pairs.jsonl")
        except SafeladderError as error:
            assert " row " in str(error) and "pairs.jsonl" in str(error)
            continue
        assert len(pairs) == len(changed)
