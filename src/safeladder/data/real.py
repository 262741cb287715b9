"""XSTest and SALAD-Bench's judged answers, which data, verifiers and suites all read, in their published layout.

Each reader takes the benchmark's folder and raises `SafeladderError`, naming file and row, for a missing file or field.
Rows carry ``meta["prompt_label"]`` ("safe" or "unsafe"), which is what the rule-based safety verifier goes by.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

from safeladder.data.rows import read_rows, require_unique
from safeladder.types import Message, Part, Response, Sample

Folder = str | os.PathLike[str]


def read_xstest(folder: Folder) -> list[Sample]:
    """XSTest v2 (arXiv 2308.01263), from `prompts.csv`: 250 safe look-alikes and 200 unsafe contrasts."""
    path = Path(folder) / "prompts.csv"
    samples = [
        Sample(
            id=f"xstest-{row.word('id')}",
            messages=_ask(row.text("prompt")),
            label="safety",
            taxonomy=("xstest", row.word("type")),
            source="xstest",
            meta={"prompt_label": row.one_of("label", ("safe", "unsafe"))},
        )
        for row in read_rows(path)
    ]
    return require_unique(samples, path)


def read_xstest_completions(
    folder: Folder, model: Literal["gpt4", "llama2orig", "mistralinstruct"]
) -> list[tuple[Sample, str]]:
    """XSTest prompts with a model's reply as `response`, and the human verdict on it.

    The verdict is one of 1_full_compliance, 2_full_refusal, 3_partial_refusal.
    """
    prompts = {sample.id: sample for sample in read_xstest(folder)}
    path = Path(folder) / f"completions_{model}.csv"
    judged = []
    for row in read_rows(path):
        prompt = prompts.get(f"xstest-{row.word('id').removeprefix('v2-')}")
        if prompt is None:
            raise row.error(f"id {row.word('id')[:60]!r} is not in prompts.csv")
        if not row.has("completion"):
            raise row.error("missing completion")
        judged.append((_answered(prompt, row.optional("completion") or ""), row.word("final_label")))
    return judged


def read_salad_judged(folder: Folder) -> list[Sample]:
    """SALAD-Bench's human-judged question-answer pairs, from `judged_qa.jsonl`.

    The answer becomes the sample's `response`; ``meta["answer_label"]`` is "unsafe" (their 1) or "safe"
    (their 0).
    """
    path = Path(folder) / "judged_qa.jsonl"
    samples = []
    for number, row in enumerate(read_rows(path), start=1):
        label, question = row.one_of("label", ("0", "1")), row.text("question")
        sample = Sample(
            id=f"salad-judged-{number}",
            messages=_ask(question),
            label="safety",
            source="salad",
            group_id=f"salad-question-{hashlib.sha256(question.encode()).hexdigest()[:12]}",
            meta={"prompt_label": "unsafe", "answer_label": "unsafe" if label == "1" else "safe"},
        )
        samples.append(_answered(sample, row.text("answer")))
    return samples


def _ask(text: str) -> tuple[Message, ...]:
    return (Message(role="user", parts=(Part(text=text),)),)


def _answered(sample: Sample, answer: str) -> Sample:
    return replace(sample, response=Response(answer=answer))
