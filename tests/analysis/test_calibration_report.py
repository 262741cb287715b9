"""The calibration report: rows, figures by hand, intervals, votes, text, HTML, PNG and the command."""

from __future__ import annotations

import argparse
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from safeladder.analysis import calibration_section as calibration_section_module
from safeladder.analysis.calibration import calibration_report
from safeladder.analysis.calibration_command import add_parser
from safeladder.analysis.calibration_figures import calibration_png
from safeladder.analysis.calibration_intervals import Intervals
from safeladder.analysis.calibration_rows import Outcome, parse_outcome, read_outcomes
from safeladder.analysis.calibration_section import calibration_section, calibration_text
from safeladder.analysis.figures import DARK
from safeladder.types import SafeladderError

# Right at 10, 9, 5; wrong at 9, 5, 0: 2 right and certain, 1 right but uncertain, 1 wrong but certain, 2 neither.
SIX = [(True, 10), (True, 9), (True, 5), (False, 9), (False, 5), (False, 0)]
NAMES = ("false_certain", "false_certain_given_wrong", "false_certain_given_certain")


def outcomes(*answers: tuple[bool | None, int | None], **more: Any) -> list[Outcome]:
    return [Outcome(correct=y, confidence=c, **more) for y, c in answers]


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sampled(path: Path) -> Path:
    """Questions with 16 samples each, whose confidence tells right from wrong."""
    rng = np.random.default_rng(0)

    def answer() -> dict[str, Any]:
        right = bool(rng.random() < 0.45)
        text = "right" if right else f"wrong {rng.integers(2)}"
        return {"answer": text, "confidence": int(rng.integers(6, 11) if right else rng.integers(0, 6))}

    rows = [{**answer(), "reference": "right", "samples": [answer() for _ in range(16)]} for _ in range(60)]
    return write(path, *rows)


def test_report_golden() -> None:
    report = calibration_report(outcomes(*SIX))
    assert report["n"] == report["total"] == 6 and report["unparsed"] == report["unscored"] == 0
    assert report["accuracy"] == pytest.approx(3 / 6)
    assert report["coverage"] == pytest.approx(3 / 6)
    assert report["false_certain"] == pytest.approx(1 / 6)
    assert report["false_certain_given_wrong"] == pytest.approx(1 / 3)
    assert report["false_certain_given_certain"] == pytest.approx(1 / 3)
    assert report["reliability"] == pytest.approx(4 / 6)
    assert report["ece"] == pytest.approx(0.8 / 6)
    assert report["brier"] == pytest.approx(0.22)
    assert report["auroc"] == pytest.approx(7 / 9)
    assert report["aurc"] == pytest.approx((0 + 0.25 + 1 / 3 + 0.375 + 0.4 + 0.5) / 6)
    assert report["selective_accuracy_50"] == pytest.approx(2 / 3)
    assert report["mean_confidence"] == pytest.approx(38 / 6)
    assert report["quadrants"] == {"true_certain": 2, "false_uncertain": 1, "false_certain": 1, "true_uncertain": 2}
    assert report["histogram"][9] == {"confidence": 9, "right": 1, "wrong": 1}
    assert [row["confidence"] for row in report["risk_coverage"]] == [0, 5, 9, 10]
    assert report["risk_coverage"][2] == {"confidence": 9, "coverage": 0.5, "risk": pytest.approx(1 / 3)}
    assert "worst_case" not in report and "votes" not in report


def test_the_cut_moves_the_quadrants_only() -> None:
    report = calibration_report(outcomes(*SIX), cut=4)
    assert report["coverage"] == pytest.approx(5 / 6) and report["false_certain"] == pytest.approx(2 / 6)
    assert report["auroc"] == pytest.approx(7 / 9)
    for cut in (-1, 10):
        with pytest.raises(SafeladderError, match="allowed: an integer from 0 to 9"):
            calibration_report(outcomes(*SIX), cut=cut)


def test_denominators_are_the_n_of_the_intervals() -> None:
    intervals = calibration_report(outcomes(*SIX))["intervals"]
    assert [intervals[name]["n"] for name in NAMES] == [6, 3, 3]


def test_intervals_of_independent_rates_are_wilsons() -> None:
    # z = 1.959964: 0 of 10 -> high z^2 / (10 + z^2) = .27753;  5 of 10 -> .23659 to .76341
    report = calibration_report(outcomes(*[(True, 9)] * 5, *[(False, 2)] * 5))
    assert report["intervals"]["false_certain"] == {"n": 10, "low": 0.0, "high": pytest.approx(0.27753, abs=1e-5)}
    accuracy = report["intervals"]["accuracy"]
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((0.23659, 0.76341), abs=1e-5)


def test_groups_are_resampled_together() -> None:
    alone = calibration_report(outcomes(*SIX * 10))
    grouped = [Outcome(correct=y, confidence=c, group=f"g{i}") for i, (y, c) in enumerate(SIX) for _ in range(10)]
    together = calibration_report(grouped)
    for name in ("accuracy", "brier", "auroc"):
        assert together[name] == pytest.approx(alone[name])
        wide, narrow = together["intervals"][name], alone["intervals"][name]
        assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])


def test_a_group_that_never_fails_is_one_piece_of_evidence() -> None:
    # 20 rows of 4 groups, none false-certain: Wilson over 4, z^2 / (4 + z^2)
    rows = [Outcome(correct=True, confidence=c, group=str(g)) for g in range(4) for c in (6, 7, 8, 9, 10)]
    assert calibration_report(rows)["intervals"]["false_certain"]["high"] == pytest.approx(0.48990, abs=1e-5)


def test_the_bootstrap_is_seeded_and_close_to_theory() -> None:
    rows = outcomes(*SIX * 50)
    first = calibration_report(rows)
    assert calibration_report(rows) == first
    assert calibration_report(rows, intervals=Intervals(seed=1)) != first
    # Brier: 300 values with a standard deviation of .2852, so +- 1.96 * .2852 / sqrt(300) = .0323
    interval = first["intervals"]["brier"]
    assert interval["high"] - interval["low"] == pytest.approx(2 * 0.0323, rel=0.08)


def test_undefined_is_absent_and_says_why() -> None:
    report = calibration_report(outcomes((True, 3), (True, 4)))
    assert "auroc" not in report and "auroc" not in report["intervals"]
    assert report["undefined"].keys() == {"auroc", "false_certain_given_wrong", "false_certain_given_certain"}
    assert report["undefined"]["auroc"] == "needs right and wrong answers"
    assert "undefined: needs right and wrong answers" in calibration_text(report)
    # What never varies has no interval rather than one of no width.
    assert "low" not in calibration_report(outcomes((True, 7), (True, 7)))["intervals"]["brier"]


def test_L04_a_missing_confidence_is_left_out_and_counted() -> None:
    report = calibration_report(outcomes(*SIX, (False, None), (True, None), (None, 9)))
    assert (report["n"], report["total"], report["unparsed"], report["unscored"]) == (6, 9, 2, 1)
    for name in ("accuracy", "false_certain", "brier", "mean_confidence"):
        assert report[name] == calibration_report(outcomes(*SIX))[name]
    # 3 rows were left out: at worst all of them are wrong, and certain of it
    assert report["worst_case"] == pytest.approx(
        {"accuracy": 3 / 9, "coverage": 3 / 9, "false_certain": 4 / 9, "reliability": 4 / 9}
    )
    text = calibration_text(report)
    assert "6 of 9 answers counted, 2 without a readable confidence, 1 not judged" in text
    with pytest.raises(SafeladderError, match="none of the 2 rows can be counted: 1 have no confidence, 1 no"):
        calibration_report(outcomes((True, None), (None, 3)))


def test_coverage_of_the_answerable_and_effort() -> None:
    rows = [
        Outcome(correct=True, confidence=9, answerable=True, searches=2, reads=1),
        Outcome(correct=False, confidence=3, answerable=True, searches=1, reads=0),
        Outcome(correct=False, confidence=9, answerable=False, searches=3, reads=0),
        Outcome(correct=False, confidence=None, answerable=True, searches=4),
    ]
    report = calibration_report(rows)
    assert report["coverage"] == pytest.approx(2 / 3)
    assert report["coverage_answerable"] == pytest.approx(1 / 2)
    assert report["intervals"]["coverage_answerable"]["n"] == 2
    assert report["searches"] == pytest.approx(2.5) and report["intervals"]["searches"]["n"] == 4
    assert report["reads"] == pytest.approx(1 / 3) and report["intervals"]["reads"]["n"] == 3
    assert "coverage_answerable" not in calibration_report(outcomes(*SIX))
    none = calibration_report(outcomes(*SIX, answerable=False))
    assert none["undefined"]["coverage_answerable"] == "no counted question is answerable"


def test_rows_of_both_forms(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.jsonl",
        {"correct": True, "confidence": 10, "anything": "else"},
        {"answer": "the Eiffel Tower.", "reference": "Eiffel tower", "confidence": 9},
        {"answer": "Rome", "reference": ["Paris", "City of Light"], "confidence": 9, "group": "q1"},
        {"answer": "city of light", "reference": ["Paris", "City of Light"], "confidence": 0},
        {"answer": None, "reference": "x", "confidence": None},
        {"correct": None, "confidence": 4},
    )
    path.write_text("\ufeff" + path.read_text(encoding="utf-8") + "\n  \n", encoding="utf-8")
    found = read_outcomes(path)
    assert [(o.correct, o.confidence) for o in found] == [
        (True, 10), (True, 9), (False, 9), (True, 0), (False, None), (None, 4),
    ]  # fmt: skip
    assert found[2].group == "q1" and found[0].group is None


@pytest.mark.parametrize(
    "bad", ["0.7", "70", "11", "-1", "7.0", "1.0", '"7"', '"1%"', "true", "[7]", "NaN", "1e400", "7" * 90]
)
def test_L01_confidence_off_the_scale_is_an_error_with_its_line(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"correct": true, "confidence": 8}}\n{{"correct": true, "confidence": {bad}}}\n')
    with pytest.raises(SafeladderError) as caught:
        read_outcomes(path)
    assert f"{path}, line 2: confidence is " in str(caught.value)
    assert "allowed: an integer from 0 to 10" in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 140


def test_L01_one_is_one_of_ten(tmp_path: Path) -> None:
    report = calibration_report(read_outcomes(write(tmp_path / "r.jsonl", {"correct": False, "confidence": 1})))
    assert report["brier"] == pytest.approx(0.01) and report["false_certain"] == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "[1] is no JSON object"),
        ({"confidence": 5}, 'needs "correct", or "answer" and "reference"'),
        ({"answer": "x", "confidence": 5}, 'needs "correct", or "answer" and "reference"'),
        ({"correct": 1, "confidence": 5}, "correct is 1; allowed: true, false, or null"),
        ({"correct": "yes"}, 'correct is "yes"; allowed'),
        ({"answer": 5, "reference": "5"}, "answer is 5; allowed: a text"),
        ({"answer": "x", "reference": None}, "reference is null; allowed: a text or a list"),
        ({"answer": "x", "reference": []}, "reference is []; allowed"),
        ({"answer": "x", "reference": ["y", " "]}, "none empty"),
        ({"correct": True, "answerable": "no"}, 'answerable is "no"; allowed: true or false'),
        ({"correct": True, "searches": -1}, "searches is -1; allowed: a whole number from 0"),
        ({"correct": True, "reads": 1.5}, "reads is 1.5; allowed: a whole number from 0"),
        ({"correct": True, "group": 3}, "group is 3; allowed: a string"),
        ({"correct": True, "samples": "x"}, "samples must be a list"),
        ({"correct": True, "samples": [{"confidence": 3}]}, 'samples[0]: needs "answer"'),
        ({"correct": True, "samples": [{"answer": "x"}]}, 'samples[0]: needs "correct", or'),
        (
            {"correct": True, "samples": [{"answer": "x", "correct": True, "confidence": 70}]},
            "samples[0]: confidence is 70",
        ),
    ],
)
def test_wrong_rows_are_named(row: object, message: str) -> None:
    with pytest.raises(SafeladderError) as caught:
        parse_outcome(row, "f.jsonl, line 7")
    assert str(caught.value).startswith("f.jsonl, line 7") and message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"\n \n", "has no rows"),
        (b'{"correct": true, "confidence": 3}\n{"correct": tr', "line 2: not valid JSON"),
        (b"\xff\xfe", "is not a UTF-8 text file"),
        (b"[" * 100_000, "line 1: not valid JSON"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "f.jsonl").write_bytes(content)
    with pytest.raises(SafeladderError, match=re.escape(message)):
        read_outcomes(tmp_path / "f.jsonl")
    with pytest.raises(SafeladderError, match=r"none\.jsonl not found"):
        read_outcomes(tmp_path / "none.jsonl")


def test_votes_from_samples(tmp_path: Path) -> None:
    report = calibration_report(read_outcomes(sampled(tmp_path / "s.jsonl")))
    votes = report["votes"]
    assert votes["n"] == 60 and votes["unscored"] == 0
    assert [row["samples"] for row in votes["curves"]["majority"]] == list(range(1, 17))
    first = {name: curve[0]["value"] for name, curve in votes["curves"].items()}
    assert first["majority"] == pytest.approx(0.45, abs=0.06)
    assert first["majority"] == first["confidence"] == first["log_odds"]
    assert votes["curves"]["confidence"][3]["value"] > votes["curves"]["majority"][15]["value"]
    assert votes["difference"]["value"] == pytest.approx(
        votes["curves"]["confidence"][3]["value"] - votes["curves"]["majority"][15]["value"]
    )
    assert votes["difference"]["low"] > 0
    assert "by confidence with 4 minus majority with 16: +" in calibration_text(report)


def test_votes_leave_out_what_was_not_judged(tmp_path: Path) -> None:
    known = {"answer": "x", "confidence": 7, "correct": True}
    unknown = {"answer": "y", "confidence": 9, "correct": None}
    rows = [{"correct": True, "confidence": 7, "samples": s} for s in ([known, known], [known, unknown])]
    votes = calibration_report(read_outcomes(write(tmp_path / "v.jsonl", *rows)))["votes"]
    assert (votes["n"], votes["unscored"]) == (1, 1)
    assert "difference" not in votes
    uneven = write(tmp_path / "u.jsonl", rows[0], rows[0] | {"samples": [known]})
    with pytest.raises(SafeladderError, match="line 2: 1 samples, line 1 has 2; allowed: equally many"):
        read_outcomes(uneven)


def says_everything(text: str, report: Mapping[str, Any]) -> bool:
    """False certainty with each denominator, and accuracy, coverage and AUROC beside it."""
    shares = ("of all answers", "of the wrong answers", "of the certain answers")
    return all(f"false-certain, {share}" in text for share in shares) and all(
        re.search(pattern, text) for pattern in ("accuracy", "coverage: certain, of all answers", "AUROC")
    )


@pytest.mark.parametrize("answers", [SIX, [(True, 0), (False, 0)], [(True, 9)], [(False, 9)]])
def test_L02_false_certainty_is_never_shown_alone(
    answers: list[tuple[bool, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_section_module, "calibration_png", lambda report, theme: bytes(32))
    report = calibration_report(outcomes(*answers))
    assert says_everything(calibration_text(report), report)
    section = calibration_section({"x": report})
    assert section is not None and says_everything(section, report)
    assert {"accuracy", "coverage", "false_certain"} <= report.keys()
    assert ("auroc" in report) != ("auroc" in report["undefined"])


def test_L02_always_answering_zero_is_seen_through() -> None:
    report = calibration_report(outcomes(*[(i % 2 == 0, 0) for i in range(20)]))
    assert report["false_certain"] == 0
    assert report["coverage"] == 0 and report["auroc"] == 0.5 and report["confidence_entropy"] == 0


def test_section_compares_runs_and_escapes_their_names() -> None:
    runs = {
        "adaptive λ": calibration_report(outcomes(*SIX, answerable=True), multiplier=[(0, 1.0), (1, 1.2)]),
        "<b>none</b>": calibration_report(outcomes(*SIX, (True, None))),
    }
    section = calibration_section(runs)
    assert section is not None
    assert "<b>" not in section and "&lt;b&gt;none" in section
    assert section.count("data:image/png;base64,") == 4
    assert "not measured" in section and "16.7 %" in section
    assert calibration_section({}) is None


def size(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


def test_figures_of_a_whole_report(tmp_path: Path) -> None:
    report = calibration_report(read_outcomes(sampled(tmp_path / "s.jsonl")), multiplier=[(1, 0.5)])
    dark = calibration_png(json.loads(json.dumps(report)), DARK)
    assert size(dark) == (1530, 900)
    assert Image.open(io.BytesIO(dark)).convert("RGB").getpixel((0, 0)) == (0x17, 0x1B, 0x21)


@pytest.mark.parametrize("answers", [[(True, 0)], [(False, 10), (True, 10)]])
def test_figures_of_little(answers: list[tuple[bool, int]]) -> None:
    assert size(calibration_png(calibration_report(outcomes(*answers)))) == (1530, 450)


def command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["report", *arguments])
    return options.run(options)


def test_command_prints_text_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "rows.jsonl", *({"correct": y, "confidence": c} for y, c in SIX))
    figure = tmp_path / "figure.png"
    assert command(str(path), "--figure", str(figure)) == 0
    printed = capsys.readouterr().out
    assert "accuracy" in printed and f"wrote {figure}" in printed
    assert size(figure.read_bytes()) == (1530, 450)


def test_command_prints_json_with_the_promised_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "rows.jsonl", *({"correct": y, "confidence": c} for y, c in SIX), {"correct": True})
    assert command(str(path), "--json", "--cut", "4") == 0
    report = json.loads(capsys.readouterr().out)
    promised = ("accuracy", "coverage", *NAMES, "reliability", "ece", "brier", "auroc")
    assert all(isinstance(report[name], float) for name in promised)
    assert (report["n"], report["unparsed"], report["cut"]) == (6, 1, 4)


def test_command_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"correct": True, "confidence": 5}, {"correct": True, "confidence": 0.5})
    with pytest.raises(SafeladderError, match=r"line 2: confidence is 0\.5"):
        command(str(path))
    with pytest.raises(SafeladderError, match=r"must end in \.png"):
        command(str(path), "--figure", str(tmp_path / "x.svg"))
    with pytest.raises(SafeladderError, match=r"--figure: folder .* not found"):
        command(str(path), "--figure", str(tmp_path / "none" / "x.png"))


def test_the_documented_rows_and_names_are_real(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (project / "docs" / "calibration.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```(json|python)\n(.*?)```", page, re.DOTALL))
    rows = [parse_outcome(json.loads(line), "docs") for line in blocks["json"].splitlines()]
    report = calibration_report([*rows, *outcomes(*SIX, answerable=True)])
    table = page.split("| name in `--json` | |")[1].split("\n\n")[0]
    documented = re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table.splitlines() if line))
    assert set(documented) <= report.keys()
    # What has no row of its own in that table is named in the text below it.
    assert all(f"`{name}`" in page for name in report.keys() - {"cut", "level"})
    exec(blocks["python"], {})
    assert capsys.readouterr().out.split() == re.findall(r"# ([\d.]+\d)", blocks["python"])
