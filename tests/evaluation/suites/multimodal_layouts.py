"""Good rows in the published layout of every multimodal suite."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal_rows import picture


@dataclass(frozen=True)
class Layout:
    """A suite's published layout: good rows, how they are written, and how many samples a row gives."""

    suite: str
    subset: str
    rows: list[dict[str, Any]]
    write: Callable[[Path, list[dict[str, Any]]], None]
    images: tuple[str, ...]
    samples: Callable[[dict[str, Any]], int] = lambda row: 1


def as_json(name: str, wrap: Callable[[list[Any]], Any] = lambda rows: rows):
    def write(folder: Path, rows: list[dict[str, Any]]) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(wrap(rows)), encoding="utf-8")

    return write


def as_lines(name: str):
    def write(folder: Path, rows: list[dict[str, Any]]) -> None:
        (folder / name).write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")

    return write


def as_csv(name: str):
    def write(folder: Path, rows: list[dict[str, Any]]) -> None:
        header = list(dict.fromkeys(key for row in rows for key in row))
        out = io.StringIO(newline="")
        writer = csv.writer(out)
        writer.writerow(header)
        writer.writerows([["" if row.get(k) is None else row[k] for k in header] for row in rows])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(out.getvalue().encode("utf-8", "surrogatepass"))

    return write


def with_synonyms(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "chair").mkdir(parents=True, exist_ok=True)
    (folder / "chair" / "synonyms.txt").write_text("dog, puppy\nhot dog\ncar, automobile\n", encoding="utf-8")
    as_lines("chair/images.jsonl")(folder, rows)


def keyed(rows: list[Any]) -> dict[str, Any]:
    return {str(i): row for i, row in enumerate(rows)}


def some(count: int, **fields: Any) -> list[dict[str, Any]]:
    """Good rows that differ where a field is a function of the number."""
    return [{k: v(i) if callable(v) else v for k, v in fields.items()} for i in range(count)]


FIVE = "check_whether_response_word_count_in_range"
LAYOUTS = [
    Layout(
        "vlsbench", "all",
        some(3, instruction_id=lambda i: i, instruction="What now?", image_path="imgs/0.png", category="Privacy",
             sub_category="Identity", source="generation", image_description="a door", safety_reason="not yours"),
        as_json("data.json"), ("imgs/0.png",),
    ),
    Layout(
        "pope", "random",
        some(3, question_id=lambda i: i, image="a.jpg", text="Is there a cup?", label="yes"),
        as_lines("coco_pope_random.json"), ("images/a.jpg",),
    ),
    Layout(
        "hallusionbench", "all",
        some(3, category="VD", subcategory="math", visual_input="1", set_id="0", figure_id="1", sample_note="",
             question_id=str, question="Is it?", gt_answer_details="", gt_answer="1", filename="./VD/math/0_1.png"),
        as_json("hallusionbench.json"), ("images/VD/math/0_1.png",),
    ),
    Layout(
        "figstep", "tiny",
        some(3, dataset="d", category_id="1", task_id=lambda i: str(i + 1), category_name="Tools", question="How?",
             instruction="Steps."),
        as_csv("safebench_tiny.csv"), tuple(f"images/query_ForbidQI_1_{i}_6.png" for i in (1, 2, 3)),
    ),
    Layout(
        "haven", "all",
        [
            *some(2, Index=lambda i: i + 1, Question="Is it red?", Answer="No", Causes="Conflict with prior",
                  Aspects="Event", Form="Binary-choice", Begin="0:00", End="0:01",
                  **{"Source Link": "", "Video Path": "Clip1", "Group_id": "g1"}),
            *some(2, Index=lambda i: i + 3, Question="What? A. cup. B. jug.", Answer="A", Causes="In-context conflict",
                  Aspects="Scene", Form="Multiple-choice", Begin="0:00", End="0:01",
                  **{"Source Link": "", "Video Path": "Clip1", "Group_id": "g2"}),
        ],
        as_json("test_data.json"), ("frames/Clip1/0.jpg", "frames/Clip1/1.jpg"),
    ),
    Layout(
        "mllmguard", "privacy",
        some(3, image="a.png", prompt="Who?", x="", y="", language="en"),
        as_csv("privacy/prompt.csv"), ("privacy/imgs/a.png",),
    ),
    Layout(
        "mm-safetybench", "typo",
        some(3, Question="q", **{"Changed Question": "c", "Rephrased Question": "r", "Rephrased Question(SD)": "s"}),
        as_json("processed_questions/01-One.json", keyed), tuple(f"imgs/01-One/TYPO/{i}.jpg" for i in range(4)),
    ),
    Layout(
        "mssbench", "chat",
        some(3, safe_image_path="s.jpg", unsafe_image_path="u.jpg", intent="i", queries=["a?", "b?"], Type="t"),
        as_json("combined.json", lambda rows: {"chat": rows, "embodied": []}), ("chat/s.jpg", "chat/u.jpg"),
        lambda row: 2 * len(row["queries"]),
    ),
    Layout(
        "siuo", "mcqa",
        some(3, question_id=lambda i: i, image="S.png", question="May I?", category="morality",
             options={"A": "x", "B": "y"}, correct_option="A"),
        as_json("siuo_mcqa.json"), ("images/S.png",),
    ),
    Layout(
        "m3oralbench", "all",
        some(3, id=lambda i: i, image="./images/j.jpg", instruction="Well?\n(A) Right\n(B) Wrong", type="judge",
             gt_choice="B", Foundation="Care"),
        as_json("query.json"), ("images/j.jpg",),
    ),
    Layout(
        "mmmu", "validation",
        some(3, id=lambda i: f"validation_Math_{i}", question="What is <image 1>?", answer="B",
             options="['one', 'two']", question_type="multiple-choice", image_1="images/a.png"),
        as_lines("validation.jsonl"), ("images/a.png",),
    ),
    Layout(
        "mathvista", "testmini",
        some(3, question="How many?", image="images/1.jpg", choices=None, unit=None, precision=1.0, answer="4.0",
             question_type="free_form", answer_type="float", metadata={"category": "c", "task": "t"}),
        as_json("testmini.json", keyed), ("images/1.jpg",),
    ),
    Layout(
        "gaokao-mm", "all",
        some(3, year="2010", category="x", question="如图", answer=["A"], analysis="", picture=["../Data/B/0.png"],
             index=lambda i: i, score=6),
        as_json("Data/2010-2023_Biology_MCQs.json", lambda rows: {"keywords": "k", "example": rows}), ("Data/B/0.png",),
    ),
    Layout(
        "mm-ifeval", "all",
        some(3, id=lambda i: i, image_path="a.png", question="Describe it.", tag="C-Level", infer_type="main",
             constraints=[{"key": "k", "value": "Short.", "judge": {
                 "method": "rule_based", "verify_funcs": [{"func": FIVE, "params": [1, 5]}]}}]),
        as_lines("mm_ifeval.jsonl"), ("images/a.png",),
    ),
    Layout(
        "chair", "pictures",
        some(3, image=lambda i: f"{i}.png", objects=["dog"]),
        with_synonyms, tuple(f"chair/images/{i}.png" for i in range(3)),
    ),
    Layout(
        "mmhal", "test",
        some(3, question_type=lambda i: ("attribute", "adversarial", "comparison")[i], question_topic="x", image_id="1",
             image_src="https://example.org/6/1_o.jpg", image_content=["Dog", "Car"], question="What colour?",
             gt_answer="Red.", model_answer="", model_name=""),
        as_json("response_template.json"), ("images/1_o.jpg",),
    ),
]  # fmt: skip


def build(layout: Layout, folder: Path) -> None:
    for image in layout.images:
        picture(folder / image)
    layout.write(folder, layout.rows)
