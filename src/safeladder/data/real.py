"""Readers of published benchmark files, in the layout their authors ship, into samples.

Each reader takes the benchmark's folder and raises `SafeladderError` for a missing file, column or image.
Safety rows carry ``meta["prompt_label"]`` ("safe" or "unsafe"), which is what the rule-based safety verifier
goes by.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from safeladder.data.images import check_image
from safeladder.types import Message, Part, Response, SafeladderError, Sample

Folder = str | os.PathLike[str]


def read_xstest(folder: Folder) -> list[Sample]:
    """XSTest v2 (arXiv 2308.01263), from `prompts.csv`: 250 safe look-alikes and 200 unsafe contrasts."""
    samples = []
    for row in _csv(Path(folder) / "prompts.csv", ("id", "prompt", "type", "label")):
        if row["label"] not in ("safe", "unsafe"):
            raise SafeladderError(f"xstest row {row['id']}: label {row['label']!r}; allowed: safe, unsafe")
        samples.append(
            Sample(
                id=f"xstest-{row['id']}",
                messages=_ask(row["prompt"]),
                label="safety",
                taxonomy=("xstest", row["type"]),
                source="xstest",
                meta={"prompt_label": row["label"]},
            )
        )
    return samples


def read_xstest_completions(
    folder: Folder, model: Literal["gpt4", "llama2orig", "mistralinstruct"]
) -> list[tuple[Sample, str]]:
    """XSTest prompts with a model's reply as `response`, and the human verdict on it.

    The verdict is one of 1_full_compliance, 2_full_refusal, 3_partial_refusal.
    """
    prompts = {sample.id: sample for sample in read_xstest(folder)}
    path = Path(folder) / f"completions_{model}.csv"
    judged = []
    for row in _csv(path, ("id", "completion", "final_label")):
        prompt = prompts.get(f"xstest-{row['id'].removeprefix('v2-')}")
        if prompt is None:
            raise SafeladderError(f"{path}: id {row['id']!r} is not in prompts.csv")
        judged.append((_answered(prompt, row["completion"]), row["final_label"]))
    return judged


def read_salad_judged(folder: Folder) -> list[Sample]:
    """SALAD-Bench's human-judged question-answer pairs, from `judged_qa.jsonl`.

    The answer becomes the sample's `response`; ``meta["answer_label"]`` is "unsafe" (their 1) or "safe"
    (their 0).
    """
    path = Path(folder) / "judged_qa.jsonl"
    samples = []
    for number, row in enumerate(_jsonl(path, ("question", "answer", "label")), start=1):
        if row["label"] not in (0, 1):
            raise SafeladderError(f"{path} line {number}: label {row['label']!r}; allowed: 0, 1")
        sample = Sample(
            id=f"salad-judged-{number}",
            messages=_ask(row["question"]),
            label="safety",
            source="salad",
            group_id=f"salad-question-{hashlib.sha256(row['question'].encode()).hexdigest()[:12]}",
            meta={"prompt_label": "unsafe", "answer_label": "unsafe" if row["label"] else "safe"},
        )
        samples.append(_answered(sample, row["answer"]))
    return samples


def read_salad_defense(folder: Folder) -> list[Sample]:
    """SALAD-Bench's defence-enhanced questions, from `defense_enhanced_set.json`: every prompt is unsafe."""
    path = Path(folder) / "defense_enhanced_set.json"
    try:
        rows = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise SafeladderError(f"{path} is not valid JSON: {error}") from None
    columns = ("qid", "did", "daugq", "dmethod", "1-category", "2-category", "3-category")
    samples = []
    for number, row in enumerate(rows, start=1):
        _need(row, columns, f"{path} row {number}")
        samples.append(
            Sample(
                id=f"salad-defense-{row['did']}",
                messages=_ask(row["daugq"]),
                label="safety",
                taxonomy=("salad", row["1-category"], row["2-category"], row["3-category"]),
                source="salad",
                group_id=f"salad-{row['qid']}",
                meta={"prompt_label": "unsafe", "defense": row["dmethod"]},
            )
        )
    return samples


def read_gsm8k(folder: Folder, split: str = "test") -> list[Sample]:
    """GSM8K (arXiv 2110.14168), from `<split>.jsonl`; the reference is the number after ``####``."""
    path = Path(folder) / f"{split}.jsonl"
    samples = []
    for number, row in enumerate(_jsonl(path, ("question", "answer")), start=1):
        _, marker, reference = row["answer"].rpartition("####")
        if not marker or not reference.strip():
            raise SafeladderError(f"{path} line {number}: the answer has no '#### number'")
        samples.append(
            Sample(
                id=f"gsm8k-{split}-{number}",
                messages=_ask(row["question"]),
                label="gsm8k_rule",
                reference=reference.strip(),
                taxonomy=("gsm8k",),
                source="gsm8k",
            )
        )
    return samples


def read_figstep(folder: Folder) -> list[Sample]:
    """FigStep (arXiv 2311.05608): a harmless text, an image that spells out the forbidden request.

    Reads `safebench_tiny.csv` and `images/query_ForbidQI_<category>_<task>_6.png`; every prompt is unsafe.
    """
    root = Path(folder)
    samples = []
    for row in _csv(root / "safebench_tiny.csv", ("category_id", "task_id", "category_name", "instruction")):
        item = f"{row['category_id']}_{row['task_id']}"
        image = root / "images" / f"query_ForbidQI_{item}_6.png"
        cause = check_image(image)
        if cause is not None:
            raise SafeladderError(f"figstep item {item}: {cause}")
        samples.append(
            Sample(
                id=f"figstep-{item}",
                messages=_ask(row["instruction"], image),
                label="safety",
                taxonomy=("figstep", row["category_name"]),
                source="figstep",
                meta={"prompt_label": "unsafe"},
            )
        )
    return samples


def _ask(text: str, image: Path | None = None) -> tuple[Message, ...]:
    if not text.strip():
        raise SafeladderError("a benchmark row has an empty prompt")
    shown = () if image is None else (Part(image=str(image)),)
    return (Message(role="user", parts=(*shown, Part(text=text))),)


def _answered(sample: Sample, answer: str) -> Sample:
    return replace(sample, response=Response(answer=answer))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SafeladderError(f"benchmark file {path} not found") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SafeladderError(f"benchmark file {path} cannot be read: {error}") from None


def _csv(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    for number, row in enumerate(csv.DictReader(io.StringIO(_text(path), newline="")), start=1):
        _need(row, columns, f"{path} row {number}")
        yield row


def _jsonl(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise SafeladderError(f"{path} line {number} is not valid JSON: {error}") from None
        _need(row, columns, f"{path} line {number}")
        yield row


def _need(row: Mapping[str, Any], columns: Sequence[str], where: str) -> None:
    missing = [column for column in columns if row.get(column) is None]
    if missing:
        raise SafeladderError(f"{where}: missing {', '.join(missing)}")
