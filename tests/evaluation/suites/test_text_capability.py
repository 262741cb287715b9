"""GSM8K, GPQA and IFEval: real rows or files of the published layout, answers read, figures by hand."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from text_suites import BOOTSTRAP, answered, figure, judged, value, write_lines

from safeladder.evaluation.suites import gpqa, gsm8k, ifeval
from safeladder.evaluation.suites.shuffled import shuffled
from safeladder.types import SafeladderError, Sample, StopReason

GSM8K, GPQA, IFEVAL = gsm8k.SUITE, gpqa.SUITE, ifeval.SUITE


def test_gsm8k_real_rows_know_their_own_answers(real_data: Path):
    samples = GSM8K.read(real_data / "gsm8k", "test")
    assert len(samples) == GSM8K.sizes["test"] == 1319
    rollouts = judged(GSM8K, [answered(s, f"So it is\n#### {s.reference}") for s in samples[::10]], None)
    assert value(GSM8K.figures(rollouts, BOOTSTRAP), "accuracy") == 1.0


def test_gsm8k_figures_by_hand(tmp_path: Path):
    write_lines(tmp_path / "test.jsonl", [{"question": f"q{i}", "answer": "so\n#### 1,200"} for i in range(4)])
    samples = GSM8K.read(tmp_path, "test")
    replies = ["It is 1200.", "#### 1201", "I do not know.", None]
    rollouts = judged(GSM8K, [answered(s, r) for s, r in zip(samples, replies, strict=True)], None)
    figures = GSM8K.figures(rollouts, BOOTSTRAP)
    # one right of four; two gave no result and are wrong
    assert value(figures, "accuracy") == 0.25
    assert value(figures, "no result") == 0.5


@pytest.mark.parametrize("answer", ["18", "#### ", "#### eighteen", "#### 1 2", None, 5])
def test_gsm8k_answers_must_end_in_a_number(tmp_path: Path, answer: Any):
    write_lines(tmp_path / "test.jsonl", [{"question": "q", "answer": "#### 1"}, {"question": "q", "answer": answer}])
    with pytest.raises(SafeladderError, match=r"test\.jsonl row 2: "):
        GSM8K.read(tmp_path, "test")


COLUMNS = ["Record ID", "Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2",
           "Incorrect Answer 3", "High-level domain", "Subdomain", "Explanation"]  # fmt: skip


def gpqa_file(folder: Path, count: int) -> None:
    with (folder / "gpqa_diamond.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for n in range(count):
            domain = "Physics" if n % 2 else "Biology"
            writer.writerow(
                [f"rec{n}", f"Question, {n}?", f"right {n}", f"x {n}", f"y {n}", f"z {n}", domain, "Sub", "e"]
            )


def test_gpqa_shuffles_by_seed_and_record_alone(tmp_path: Path):
    gpqa_file(tmp_path, 200)
    samples = GPQA.read(tmp_path, "diamond")
    letters = Counter(s.reference for s in samples)
    assert letters.keys() == set("ABCD") and max(letters.values()) < 80, "about 50 each"
    for sample in samples:
        assert sample.meta["options"]["ABCD".index(sample.reference or "")].startswith("right")
        assert f"{sample.reference}. right" in sample.question
    gpqa_file(tmp_path, 3)
    assert GPQA.read(tmp_path, "diamond") == samples[:3], "other rows do not change a row's order"
    assert shuffled("abcd", "rec1", seed=1) != shuffled("abcd", "rec1", seed=2)


def test_H13_the_article_A_is_no_answer_and_what_is_unread_is_wrong(tmp_path: Path):
    gpqa_file(tmp_path, 4)
    samples = GPQA.read(tmp_path, "diamond")
    wrong = {s.id: "ABCD"[("ABCD".index(s.reference or "") + 1) % 4] for s in samples}
    replies = [
        "A hydrogen atom has one electron, so it depends.",
        f"Reasoning.\nAnswer: {samples[1].reference}",
        f"The answer is ({wrong[samples[2].id]}).",
        None,
    ]
    rollouts = judged(GPQA, [answered(s, r) for s, r in zip(samples, replies, strict=True)], None)
    labels = [r.scores["gpqa-letter"].label for r in rollouts]
    assert labels == ["unparsed", "correct", "wrong", "malformed"]
    figures = GPQA.figures(rollouts, BOOTSTRAP)
    # overall 1/4 with the two unread ones wrong; among the read 1/2; unread 2/4
    assert value(figures, "accuracy") == 0.25
    assert value(figures, "accuracy where an answer was read") == 0.5
    assert value(figures, "unparsed") == 0.5
    assert figure(figures, "accuracy").metric.n == 4  # type: ignore[union-attr]
    assert value(figures, "accuracy", "Biology") == 0.0


def test_gpqa_equal_answers_are_an_error(tmp_path: Path):
    row = ["r", "q", "same", "same", "y", "z", "Physics", "Sub", "e"]
    with (tmp_path / "gpqa_main.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, row])
    with pytest.raises(SafeladderError, match=r"gpqa_main\.csv row 2: the right answer is among"):
        GPQA.read(tmp_path, "main")


def test_ifeval_real_rows(real_data: Path):
    samples = IFEVAL.read(real_data / "ifeval", "test")
    assert len(samples) == IFEVAL.sizes["test"] == 541
    ids = [name for s in samples for name in s.meta["instruction_id_list"]]
    assert (len(ids), len(set(ids))) == (834, 25)
    assert len({s.id for s in samples}) == 541
    rollouts = judged(IFEVAL, [answered(s, "One short reply without anything asked for.") for s in samples[::9]], None)
    figures = IFEVAL.figures(rollouts, BOOTSTRAP)
    for level in ("prompt", "instruction"):
        strict, loose = value(figures, f"{level} accuracy, strict"), value(figures, f"{level} accuracy, loose")
        assert 0.0 <= strict <= loose < 0.6
    assert len({f.group for f in figures if "by type" in f.name}) > 15


def ifeval_rows(folder: Path, *rows: tuple[list[str], list[Any]]) -> list[Sample]:
    lines = [{"key": i, "prompt": f"p{i}", "instruction_id_list": a, "kwargs": b} for i, (a, b) in enumerate(rows)]
    write_lines(folder / "input_data.jsonl", lines)
    return IFEVAL.read(folder, "test")


def test_ifeval_four_accuracies_by_hand(tmp_path: Path):
    comma, end = "punctuation:no_comma", "startend:end_checker"
    both = ([comma, end], [{}, {"end_phrase": "the end"}])
    samples = ifeval_rows(tmp_path, both, ([comma], [None]), both)
    replies = [
        "Well, here is a line\nAll of it in the end",  # no_comma fails strictly; without its first line it holds
        "no comma here",
        None,
    ]
    rollouts = judged(IFEVAL, [answered(s, r) for s, r in zip(samples, replies, strict=True)], None)
    figures = IFEVAL.figures(rollouts, BOOTSTRAP)
    # prompts: strict (0, 1, 0) = 1/3, loose (1, 1, 0) = 2/3; instructions: strict 1 + 1 + 0 of 5, loose 2 + 1 + 0 of 5
    assert value(figures, "prompt accuracy, strict") == pytest.approx(1 / 3)
    assert value(figures, "prompt accuracy, loose") == pytest.approx(2 / 3)
    assert value(figures, "instruction accuracy, strict") == pytest.approx(2 / 5)
    assert value(figures, "instruction accuracy, loose") == pytest.approx(3 / 5)
    assert value(figures, "instruction accuracy by type, strict", "punctuation", "no_comma") == pytest.approx(1 / 3)
    assert figures[0].name == "prompt accuracy, strict"


def test_ifeval_a_failed_generation_is_unscored_and_a_truncated_one_wrong(tmp_path: Path):
    samples = ifeval_rows(tmp_path, (["punctuation:no_comma"], [{}]), (["punctuation:no_comma"], [{}]))
    rollouts = [answered(samples[0], None, stop=StopReason.ERROR), answered(samples[1], None, stop=StopReason.LENGTH)]
    figures = IFEVAL.figures(judged(IFEVAL, rollouts, None), BOOTSTRAP)
    for name in ("prompt accuracy, strict", "instruction accuracy, loose"):
        metric = figure(figures, name).metric
        assert metric is not None and (metric.value, metric.n, metric.n_unscored) == (0.0, 1, 1)


@pytest.mark.parametrize(
    ("ids", "kwargs", "cause"),
    [
        (["no:such"], [{}], "unknown instruction"),
        (["punctuation:no_comma"], [], "kwargs must be a list as long"),
        (["punctuation:no_comma"], [[1]], "kwargs must be a list of objects"),
        (["startend:end_checker"], [{}], "needs the parameter"),
        ([["x"]], [{}], "instruction_id_list holds something"),
    ],
)
def test_ifeval_malformed_rows(tmp_path: Path, ids: Any, kwargs: Any, cause: str):
    with pytest.raises(SafeladderError, match=rf"input_data\.jsonl row 2: .*{cause}"):
        ifeval_rows(tmp_path, (["punctuation:no_comma"], [{}]), (ids, kwargs))
