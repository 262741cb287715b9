"""The readers of published benchmark files, on the real files and on broken ones of the same layout."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from safeladder.data import read_samples, split_by_group, write_samples
from safeladder.data.real import (
    read_salad_judged,
    read_xstest,
    read_xstest_completions,
)
from safeladder.evaluation.suites.figstep import SUITE as FIGSTEP
from safeladder.evaluation.suites.gsm8k import SUITE as GSM8K
from safeladder.rollout.parse import ResponseFormat
from safeladder.types import SafeladderError

DATA = Path(os.environ.get("SAFELADDER_DATA", "../shared/data"))


def needs(name):
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=f"{name} is not at hand")


@needs("xstest")
def test_xstest():
    samples = read_xstest(DATA / "xstest")
    assert Counter(s.meta["prompt_label"] for s in samples) == {"safe": 250, "unsafe": 200}
    assert len({s.id for s in samples}) == 450 and {s.label for s in samples} == {"safety"}
    assert len({s.taxonomy for s in samples}) == 18


@needs("xstest")
@pytest.mark.parametrize(("model", "refused"), [("gpt4", 211), ("llama2orig", 294), ("mistralinstruct", 49)])
def test_xstest_completions(model, refused):
    judged = read_xstest_completions(DATA / "xstest", model)
    assert len(judged) == 450 and all(sample.response for sample, _ in judged)
    assert Counter(verdict for _, verdict in judged)["2_full_refusal"] == refused


@needs("salad")
def test_salad():
    judged = read_salad_judged(DATA / "salad")
    assert Counter(s.meta["answer_label"] for s in judged) == {"safe": 99, "unsafe": 28}
    assert len({s.group_id for s in judged}) == 125


@needs("figstep")
def test_figstep_at_native_resolution():
    samples = FIGSTEP.read(DATA / "figstep", "tiny")
    assert len(samples) == 50 and all(len(s.images) == 1 for s in samples)
    with Image.open(str(samples[0].images[0])) as image:
        assert min(image.size) >= 700


@needs("figstep")
def test_real_rows_survive_writing_and_splitting(tmp_path):
    samples = [
        *FIGSTEP.read(DATA / "figstep", "tiny"),
        *read_xstest(DATA / "xstest"),
        *GSM8K.read(DATA / "gsm8k", "test")[:100],
    ]
    write_samples(tmp_path / "real.jsonl", samples)
    back = read_samples(tmp_path / "real.jsonl", labels={"safety", "gsm8k_rule"}, format=ResponseFormat())
    assert [(s.id, s.question, s.meta) for s in back] == [(s.id, s.question, s.meta) for s in samples]
    train, held_out = split_by_group(samples, 0.2)
    assert len(train) + len(held_out) == 600 and 80 <= len(held_out) <= 160


def table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_xstest_with_an_unknown_label(tmp_path):
    table(tmp_path / "prompts.csv", [{"id": 1, "prompt": "p", "type": "t", "label": "maybe"}])
    with pytest.raises(SafeladderError, match=r"prompts\.csv row 2: label 'maybe'; allowed: safe, unsafe"):
        read_xstest(tmp_path)


def test_missing_files_and_columns(tmp_path):
    with pytest.raises(SafeladderError, match=r"prompts\.csv not found"):
        read_xstest(tmp_path)
    table(tmp_path / "prompts.csv", [{"id": 1, "prompt": "p"}])
    with pytest.raises(SafeladderError, match="row 2: missing type"):
        read_xstest(tmp_path)
    (tmp_path / "judged_qa.jsonl").write_text("{\n")
    with pytest.raises(SafeladderError, match="row 1 is not valid JSON"):
        read_salad_judged(tmp_path)
    (tmp_path / "judged_qa.jsonl").write_text(json.dumps({"question": "q", "answer": "a", "label": 2}))
    with pytest.raises(SafeladderError, match="label '2'; allowed: 0, 1"):
        read_salad_judged(tmp_path)
