"""Training an embedded judge: what the data mean, splits by question, and the same judge from the same seed."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safeladder.cli import main
from safeladder.types import SafeladderError
from safeladder.verifiers.embedded import EmbeddedJudge
from safeladder.verifiers.embedded.examples import XSTEST_MODELS, Example, read_examples, windows, without_refusing
from safeladder.verifiers.embedded.train import Table, choose_thresholds, fit, train


@pytest.fixture(scope="module")
def judges(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both judges, trained by the command on the small folder."""
    out = tmp_path_factory.mktemp("judges")
    for kind in ("harm", "refusal"):
        options = ["--kind", f"embedded-{kind}", "--data", str(labelled), "--out", str(out / kind)]
        assert main(["verifier", "train", *options]) == 0
    return out


def test_labels_mean_what_the_sources_say(labelled: Path):
    pairs = read_examples(labelled).pairs
    fuzz = [pair for pair in pairs if pair.source == "gptfuzz"]
    assert len(fuzz) == 12 * 4  # 12 questions, 4 replies
    assert [pair.harmful for pair in fuzz[:4]] == [True, False, True, False]
    assert [pair.refused for pair in fuzz[:4]] == [False, True, False, True]
    for pair in pairs:
        if pair.source == "xstest" and pair.group == "xstest-11":  # unsafe prompt, partial refusal
            assert pair.harmful is None and pair.refused is True
        if pair.source == "xstest" and pair.group == "xstest-0":  # safe prompt: compliance is no harm
            assert pair.harmful is False


def test_only_full_compliance_with_an_unsafe_prompt_is_harmful(real_data: Path):
    pairs = [pair for pair in read_examples(real_data).pairs if pair.source == "xstest"]
    # counts of prompts.csv x completions_*.csv: 1 + 0 + 128 compliances with unsafe prompts, 4 + 1 + 25 partial ones
    assert sum(pair.harmful is True for pair in pairs) == 129
    assert sum(pair.harmful is None for pair in pairs) == 30
    assert sum(pair.refused is True for pair in pairs) == (211 + 9) + (294 + 55) + (49 + 27)


def test_duplicates_are_dropped(labelled: Path, tmp_path: Path):
    shutil.copytree(labelled, tmp_path / "data")
    with (tmp_path / "data/gptfuzz/responses_train.csv").open("a", newline="") as file:
        csv.writer(file).writerow(list(csv.reader((labelled / "gptfuzz/responses_train.csv").open()))[1])
    once, twice = read_examples(labelled), read_examples(tmp_path / "data")
    assert twice.rows == once.rows + 1 and twice.pairs == once.pairs


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("gptfuzz/responses_train.csv", ",1\n", ",maybe\n", "responses_train.csv row 1: label 0 or 1"),
        ("gptfuzz/responses_train.csv", "label", "verdict", "missing label"),
        ("gptfuzz/question_list.csv", "\n0,", "\n99,", "question of question_list.csv"),
        ("xstest/completions_gpt4.csv", "1_full", "9_full", "allowed: 1_, 2_, 3_"),
    ],
)
def test_a_row_of_another_layout_is_named(
    labelled: Path, tmp_path: Path, file: str, old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(labelled, tmp_path / "data")
    path = tmp_path / "data" / file
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(old.encode(), new.encode(), 1))
    with pytest.raises(SafeladderError, match=message):
        read_examples(tmp_path / "data")
    options = ["--kind", "embedded-harm", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main(["verifier", "train", *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(SafeladderError, match=r"gptfuzz/question_list\.csv not found"):
        read_examples(tmp_path)


def test_windows_are_stretches_of_long_replies():
    short = Example(prompt="?", response="Short.", harmful=True, refused=None, source="gptfuzz", group="g")
    long = replace(short, response="One sentence here. " * 60)
    made = windows([short, long], seed=3)
    assert made and made == windows([short, long], seed=3)
    for number, pair in made:
        assert number == 1 and pair.response in long.response and 120 <= len(pair.response) < len(long.response)
        assert pair.harmful is True and pair.group == "g"


def test_copies_without_the_refusing_sentences_keep_what_else_was_said():
    warns = "It would break the law in most places. People could be badly hurt by it, and so could you."
    both = Example(
        prompt="?",
        response=f"I'm sorry, but I cannot help with that. {warns}\nI can't go on.",
        harmful=False,
        refused=True,
        source="gptfuzz",
        group="g",
    )
    nothing_to_drop = replace(both, response=warns)
    nothing_left = replace(both, response="I cannot help with that.")
    assert without_refusing([nothing_to_drop, nothing_left, both]) == [(2, replace(both, response=warns))]


def test_windows_of_a_held_out_question_are_held_out(labelled: Path):
    table = Table(read_examples(labelled).pairs, "harm", seed=0)
    chosen = table.pairs[table.groups[table.group_numbers[table.pairs]] != "gptfuzz-3"]
    fitted = fit(table, chosen)
    unseen = {gram for gram, known in zip(table.vocabulary.grams, fitted.known, strict=True) if not known}
    assert all(np.isin(table.parent[table.parent >= len(table.pairs)], table.pairs))
    assert fitted.weights[[g in unseen for g in table.vocabulary.grams] + [False] * len(table.dense[0])].tolist() == [
        0.0
    ] * len(unseen)


def test_the_command_writes_a_judge_that_has_learned(judges: Path):
    harm, refusal = EmbeddedJudge.load(judges / "harm"), EmbeddedJudge.load(judges / "refusal")
    refuses = ("How?", "I'm sorry, but I cannot help with that. It is wrong and can hurt people.")
    complies = ("How?", "Sure, here is how it works. First you gather the tools. Then you do it step by step.")
    low, high = (harm.judge([pair])[0].value or 0 for pair in (refuses, complies))
    assert low < 0.5 < high
    high, low = (refusal.judge([pair])[0].value or 0 for pair in (refuses, complies))
    assert low < 0.5 < high
    assert "12" in (judges / "harm/README.md").read_text()  # questions
    assert set(harm.about["measured"]) == {
        *(f"{source}, unseen {what}" for source in ("gptfuzz", "xstest") for what in ("questions", "source")),
        *(f"{model}, unseen model{more}" for model in XSTEST_MODELS for more in ("", " and questions")),
    }


def test_the_same_seed_gives_the_same_judge(labelled: Path, judges: Path):
    again = train(read_examples(labelled), "harm")
    first = EmbeddedJudge.load(judges / "harm")
    assert again.vocabulary.grams == first.vocabulary.grams
    assert again.weights.astype(np.float32).tolist() == first.weights.tolist()
    assert (again.slope, again.thresholds) == (first.slope, first.thresholds)


def test_one_class_is_not_enough(labelled: Path, tmp_path: Path):
    shutil.copytree(labelled, tmp_path / "data")
    path = tmp_path / "data/gptfuzz/responses_train.csv"
    path.write_text(path.read_text().replace(",1\n", ",0\n"))
    with pytest.raises(SafeladderError, match="gptfuzz: embedded-harm needs pairs of both classes"):
        train(read_examples(tmp_path / "data"), "harm")


def test_thresholds_need_held_out_data():
    with pytest.raises(SafeladderError, match="no held-out data"):
        choose_thresholds([(np.array([0.5]), np.array([1.0]))])


def test_options_of_a_classifier_are_refused(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--kind", "embedded-harm", "--data", str(labelled), "--out", str(tmp_path / "o"), "--steps", "3"]
    assert main(["verifier", "train", *options]) == 2
    assert "--steps is for --kind classifier" in capsys.readouterr().err
