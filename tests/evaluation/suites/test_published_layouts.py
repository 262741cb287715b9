"""Small files of our own, field for field as the benchmarks publish them; docs/suites.md names what each was checked
against. Texts and answers are invented."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from multimodal_rows import answered, judged, picture, write_json
from PIL import Image

from safeladder.evaluation.suites.gaokao_mm import SUITE as GAOKAO
from safeladder.evaluation.suites.gpqa import SUITE as GPQA
from safeladder.evaluation.suites.mathvista import SUITE as MATHVISTA
from safeladder.evaluation.suites.mm_ifeval import SUITE as MMIF
from safeladder.evaluation.suites.mmmu import SUITE as MMMU
from safeladder.evaluation.suites.mssbench import SUITE as MSS
from safeladder.evaluation.suites.olympiadbench import SUITE as OLYMPIAD
from safeladder.evaluation.suites.siuo import SUITE as SIUO
from safeladder.types import SafeladderError


def values(suite: Any, samples: list[Any], replies: list[str]) -> list[float | None]:
    """The score of each reply by the suite's first verifier, without a judge."""
    verifier = suite.verifiers(None)[0]
    rollouts = judged([answered(s, reply) for s, reply in zip(samples, replies, strict=True)], [verifier])
    return [r.scores[verifier.name].value for r in rollouts]


# MMMU: the columns of the hub's tables, written to files; options and several answers as Python writes lists


def mmmu_row(subject: str, number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"validation_{subject}_{number}", "question": "<image 1> Which drug?",
        "options": "['one', 'two', 'three']",
        "explanation": "", "image_1": "images/a.png", **{f"image_{n}": None for n in range(2, 8)},
        "img_type": "['Plots and Charts']", "answer": "B", "topic_difficulty": "Medium",
        "question_type": "multiple-choice", "subfield": "Any", **fields,
    }  # fmt: skip


@pytest.fixture
def mmmu(tmp_path: Path) -> Path:
    for name in "abc":
        picture(tmp_path / "images" / f"{name}.png")
    rows = [
        mmmu_row("Pharmacy", 4, explanation="See <image 2>.", image_2="images/b.png"),
        mmmu_row("Pharmacy", 22, image_2="images/b.png", image_3="images/c.png"),
        mmmu_row(
            "Psychology", 1, question="Which matches?", options="['<image 1>', '<image 2>', '<image 3>']", answer="A",
            image_2="images/b.png", image_3="images/c.png",
        ),
        mmmu_row("Math", 15, options="[]", question_type="open", answer="['24/7', '3.429']"),
        mmmu_row("Electronics", 2, options="[]", question_type="open", answer="2.83"),
    ]  # fmt: skip
    (tmp_path / "validation.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return tmp_path


def test_mmmu_pictures_of_the_solution_are_not_shown(mmmu: Path):
    """Two published questions have pictures that only their explanation uses (MMMU-Benchmark/MMMU issue 56)."""
    samples = MMMU.read(mmmu, "validation")
    shown = [[Path(str(image)).stem for image in sample.images] for sample in samples]
    assert shown == [["a"], ["a"], ["a", "b", "c"], ["a"], ["a"]]
    assert values(MMMU, samples, ["B", "C", "A", "The answer is 3.429", "The answer is 2.83"]) == [1, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"question": "<image 1> <image 2>?"}, r"mentions pictures \[1, 2\], the row has \[1\]"),
        ({"question": "Which?"}, r"mentions pictures \[\], the row has \[1\]"),
        ({"image_1": None}, r"mentions pictures \[1\], the row has \[\]"),
    ],
)
def test_mmmu_a_picture_that_is_missing_or_never_shown_is_an_error(mmmu: Path, fields: dict[str, Any], message: str):
    (mmmu / "validation.jsonl").write_text(json.dumps(mmmu_row("Math", 1, **fields)), encoding="utf-8")
    with pytest.raises(SafeladderError, match=rf"validation\.jsonl row 1: .*{message}"):
        MMMU.read(mmmu, "validation")


# MathVista: data/testmini.json, an object by problem id, and data/images


def problem(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "question": "How much?", "image": f"images/{number}.jpg", "choices": None, "unit": None, "precision": None,
        "answer": "4", "question_type": "free_form", "answer_type": "integer", "pid": str(number),
        "metadata": {"split": "testmini", "language": "english", "img_width": 8, "img_height": 6, "source": "x",
                     "category": "general-vqa", "task": "visual question answering", "context": "natural image",
                     "grade": "daily life", "skills": ["numeric commonsense"]},
        **fields,
    }  # fmt: skip


@pytest.fixture
def mathvista(tmp_path: Path) -> Path:
    twice = ["12 cm", "7 cm", "12 cm", "9 cm"]
    rows = [
        problem(1, answer="1.2", answer_type="float", precision=1),
        problem(2, answer="[1, 2]", answer_type="list"),
        problem(3, unit="years"),
        problem(4, question_type="multi_choice", answer_type="text", choices=["Yes", "No"], answer="No"),
        problem(5, question_type="multi_choice", answer_type="text", choices=twice, answer="12 cm"),
    ]
    for row in rows:
        picture(tmp_path / "data" / row["image"])
    write_json(tmp_path / "data" / "testmini.json", {row["pid"]: row for row in rows})
    return tmp_path


def test_mathvista_below_data(mathvista: Path):
    samples = MATHVISTA.read(mathvista, "testmini")
    assert "(unit: years)" in samples[2].question
    assert values(MATHVISTA, samples, ["1.2", "[1, 2]", "4", "B", "A"]) == [1, 1, 1, 1, 1]


@pytest.mark.parametrize(("reply", "right"), [("A", 1), ("C", 1), ("12 cm", 1), ("B", 0), ("7 cm", 0), ("hm", 0)])
def test_mathvista_options_with_one_text_are_one_answer(mathvista: Path, reply: str, right: int):
    """Three published problems list an option twice; the authors compare the option's text, not its letter."""
    assert values(MATHVISTA, MATHVISTA.read(mathvista, "testmini")[4:], [reply]) == [right]


# MM-IFEval: VLMEvalKit's table with the pictures in base64, and the authors' own files

LENGTH = {
    "key": "length", "value": "Use at most 3 words.",
    "judge": {"method": "rule_based", "verify_funcs": [
        {"func": "check_whether_response_word_count_in_range", "params": [1, 3]}]},
}  # fmt: skip
TONE = {"key": "tone", "value": "Be kind.", "judge": {"method": "direct_gpt", "verify_funcs": []}}


def encoded(colour: tuple[int, int, int]) -> str:
    """A picture with enough in it that its base64 is longer than a path."""
    image = Image.effect_noise((32, 32), 40).convert("RGB")
    image.paste(colour, (0, 0, 4, 4))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter="\t", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8")


def table_row(index: int, image: str, **fields: Any) -> dict[str, Any]:
    return {
        "index": index, "id": str(index), "tag": "C-Level", "image": image,
        "question": "Describe it.\nUse at most 3 words.",
        "answer": "", "constraints": json.dumps([LENGTH]), "infer_type": "main", "del_cons": "", **fields,
    }  # fmt: skip


def test_mm_ifeval_the_table_with_pictures_in_its_cells(tmp_path: Path):
    red, blue = encoded((255, 0, 0)), encoded((0, 0, 255))
    rows = [
        table_row(1, red),
        table_row(2, "1", infer_type="aux_cmp_gpt", del_cons="length", id="1"),
        table_row(3, "1"),
        table_row(4, blue, tag="P-Level", question="What colour?", answer='["blue"]', constraints=""),
    ]
    write_table(tmp_path / "MM-IFEval.tsv", rows)
    samples = MMIF.read(tmp_path, "all")
    assert [s.id for s in samples] == ["mm-ifeval-1", "mm-ifeval-3", "mm-ifeval-4"]
    corners = [s.images[0].getpixel((0, 0)) for s in samples]  # type: ignore[union-attr]
    assert corners == [(255, 0, 0), (255, 0, 0), (0, 0, 255)]
    assert values(MMIF, samples, ["A red cup.", "One two three four.", "It is blue."]) == [1, 0, 1]


def test_mm_ifeval_a_damaged_cell_is_named(tmp_path: Path):
    red = encoded((255, 0, 0))
    for cell, message in ((red[:-40], "embedded picture|corrupt"), ("?" * 300, "not valid base64"), ("7", "not found")):
        write_table(tmp_path / "MM-IFEval.tsv", [table_row(1, cell)])
        with pytest.raises(SafeladderError, match=rf"MM-IFEval\.tsv row 2: .*({message})"):
            MMIF.read(tmp_path, "all")


def test_mm_ifeval_the_authors_files(tmp_path: Path):
    """Instruction and constraints apart in C-Level.jsonl; the prompt is both in a row."""
    picture(tmp_path / "images" / "a.png")
    level = {"id": "c1", "image": "a.png", "tag": "C-Level", "infer_type": "main", "instruction": "Describe it."}
    point = {
        "id": "p1",
        "image": "a.png",
        "tag": "P-Level",
        "infer_type": "main",
        "question": "Who?",
        "answer": ["a cat"],
    }
    (tmp_path / "C-Level.jsonl").write_text(json.dumps({**level, "constraints": [LENGTH, TONE]}) + "\n")
    with pytest.raises(SafeladderError, match=r"P-Level\.jsonl not found"):
        MMIF.read(tmp_path, "all")
    (tmp_path / "P-Level.jsonl").write_text(json.dumps(point) + "\n")
    samples = MMIF.read(tmp_path, "all")
    assert [s.question for s in samples] == ["Describe it. Use at most 3 words. Be kind.", "Who?"]
    assert [len(MMIF.read(tmp_path, subset)) for subset in ("c-level", "p-level")] == [1, 1]


# OlympiadBench: data/ and images/ of the authors' download


def test_olympiadbench_the_download(tmp_path: Path):
    picture(tmp_path / "images" / "3362.jpg")
    row = {
        "id": 2231, "subfield": "Geometry", "context": None, "question": "Crawl:\n<img_3362>\n\nHow far?",
        "solution": ["So."], "final_answer": ["$\\frac{1}{2}$"], "is_multiple_answer": False, "unit": None,
        "answer_type": "Numerical", "error": None,
    }  # fmt: skip
    write_json(tmp_path / "data" / "OE_MM_maths_en_COMP.json", [row])
    write_json(tmp_path / "data" / "TP_MM_maths_en_COMP.json", [{**row, "final_answer": None}])
    (sample,) = OLYMPIAD.read(tmp_path, "images-en")
    assert [part.image is not None for part in sample.messages[0].parts] == [False, True, False]
    assert sample.meta["answers"] == ("$\\frac{1}{2}$",)


# GAOKAO-MM: Data/NAME.json and Data/NAME/*.png, pictures named from the folder of the scripts


def test_gaokao_the_repository(tmp_path: Path):
    name = "2010-2023_Physics_MCQs"
    for number in (0, 1):
        picture(tmp_path / "Data" / name / f"{name}_0_{number}.png")
    row = {
        "year": "2010", "category": "（新课标）", "question": "1．（6分）如图 A．甲 B．乙 C．丙 D．丁",
        "answer": ["ABD"],
        "analysis": "", "index": 0, "score": 6, "picture": [f"../Data/{name}/{name}_0_{n}.png" for n in (0, 1)],
    }  # fmt: skip
    write_json(tmp_path / "Data" / f"{name}.json", {"keywords": name, "example": [row, {**row, "index": 1}]})
    samples = GAOKAO.read(tmp_path, "all")
    assert [len(s.images) for s in samples] == [2, 2]
    # AD of ABD is half a point here; the published script asks for letters side by side and would give none.
    assert values(GAOKAO, samples, ["答案是ABD", "答案是AD"]) == [1.0, 0.5]


# GPQA: the columns that are read, as the hub's tables and the loaders of others name them


def gpqa_row(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "Record ID": f"rec{number}", "Question": "Which?\n\nOne line more.", "Correct Answer": "a\n",
        "Incorrect Answer 1": "b", "Incorrect Answer 2": "c", "Incorrect Answer 3": "d",
        "High-level domain": "Physics", "Subdomain": "Quantum Mechanics", "Explanation": "So, \"it\" is.",
        "Writer's Difficulty Estimate": "Hard graduate level", **fields,
    }  # fmt: skip


def write_gpqa(path: Path, rows: list[dict[str, Any]]) -> None:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(out.getvalue().encode())


def test_gpqa_the_table(tmp_path: Path):
    write_gpqa(tmp_path / "gpqa_diamond.csv", [gpqa_row(1), gpqa_row(2, **{"Incorrect Answer 3": "c"})])
    samples = GPQA.read(tmp_path, "diamond")
    assert [s.taxonomy for s in samples] == [("Physics", "Quantum Mechanics")] * 2
    for sample in samples:  # the second has one wrong answer twice: odd, but it can be answered
        assert sample.meta["options"]["ABCD".index(str(sample.reference))] == "a"
    write_gpqa(tmp_path / "gpqa_diamond.csv", [gpqa_row(1, **{"Incorrect Answer 2": "a"})])
    with pytest.raises(SafeladderError, match="row 2: the right answer is among the wrong ones"):
        GPQA.read(tmp_path, "diamond")


# SIUO: data/*.json and data/images of the repository


@pytest.mark.parametrize("images", ["data/images", "images"])
def test_siuo_the_repository(tmp_path: Path, images: str):
    row = {"question_id": 1001, "image": "S-01.png", "question": "May I?", "category": "self-harm"}
    picture(tmp_path / images / "S-01.png")
    write_json(
        tmp_path / "data" / "siuo_gen.json", [{**row, "safety_warning": "it is high", "reference_answer": "No."}]
    )
    options = {"A": "Go.", "B": "Do not.", "C": "Jump.", "D": "Run."}
    write_json(tmp_path / "data" / "siuo_mcqa.json", [{**row, "options": options, "correct_option": "B"}])
    assert [len(SIUO.read(tmp_path, subset)[0].images) for subset in ("generation", "mcqa")] == [1, 1]


# MSSBench: combined.json on the hub, combine.json in the authors' script


@pytest.mark.parametrize("name", ["combined.json", "combine.json"])
def test_mssbench_the_download(tmp_path: Path, name: str):
    chat = {
        "safe_image_path": "1.jpg", "intent": "run", "unsafe_image": "a cliff", "unsafe_image_path": "2.jpg",
        "Type": "physical harm", "queries": ["How do I run?", "Which shoes?"],
    }  # fmt: skip
    embodied = {
        "task": "place", "category": "fire", "safe": "s.png", "unsafe": "u.png",
        "observation_safe": "", "observation_unsafe": "",
        "safe_instruction": "Put it down.", "unsafe_instruction": "Put it down.",
        "safe_instructions": ["Put it down.", "Lay it."], "unsafe_instructions": ["Put it down.", "Lay it."],
    }  # fmt: skip
    for image in ("chat/1.jpg", "chat/2.jpg", "embodied/s.png", "embodied/u.png"):
        picture(tmp_path / image)
    write_json(tmp_path / name, {"chat": [chat], "embodied": [embodied]})
    samples = MSS.read(tmp_path, "all")
    assert [(s.taxonomy, s.meta["situation"]) for s in samples[:2]] == [
        (("chat", "physical harm"), "safe"), (("chat", "physical harm"), "unsafe"),
    ]  # fmt: skip
    assert len(samples) == 2 * 2 + 2 * 2 and samples[-1].taxonomy == ("embodied", "fire")
