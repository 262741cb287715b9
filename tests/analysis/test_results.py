"""Results survive a restart, the report has its schema, numbers are rounded once."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from safeladder.analysis.results import (
    FORMULA,
    RungResult,
    build_report,
    format_number,
    format_percent,
    read_json,
    read_jsonl,
)
from safeladder.analysis.schema import validate_report
from safeladder.atomic import write_json
from safeladder.evaluation.metrics import Bootstrap, rate
from safeladder.types import SafeladderError


def test_H11_a_finished_rung_is_read_back_by_a_resumed_run(tmp_path: Path) -> None:
    result = synthetic.results()[2]
    path = result.save(tmp_path / "rungs")
    assert path == tmp_path / "rungs" / "m3-rl.json"
    assert RungResult.load(path) == result
    assert [p.name for p in path.parent.iterdir()] == ["m3-rl.json"]


@pytest.mark.parametrize("content", ['{"name": "base"}', "[]", '{"broken', '{"name": "x", "surprise": 1}'])
def test_a_broken_result_is_told_by_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text(content)
    with pytest.raises(SafeladderError, match=r"base\.json"):
        RungResult.load(tmp_path / "base.json")
    with pytest.raises(SafeladderError, match="not found"):
        RungResult.load(tmp_path / "other.json")


def test_the_report_has_exactly_the_published_keys() -> None:
    report = json.loads(json.dumps(synthetic.report()))
    validate_report(report)
    assert list(report["rungs"][0]) == ["name", "checkpoint", "train_seconds", "gate", "metrics"]
    assert report["rungs"][0]["metrics"]["safety"].keys() == {"value", "low", "high", "n"}
    assert {"recipe", "seed", "wall_seconds", "rungs"} <= report.keys()
    assert report["control"]["train_flops"] == 3.2e12
    assert report["comparisons"]["base"] == {}


def test_a_report_of_one_rung_has_no_headline() -> None:
    rung = synthetic.results()[0]
    report = build_report(recipe="laptop", seed=1, wall_seconds=2.0, rungs=[rung], headline={})
    validate_report(report)
    assert "headline" not in report and "control" not in report


def test_measured_metrics_fit_the_schema() -> None:
    metric = rate([1.0, 0.0, None], bootstrap=Bootstrap(resamples=50))
    assert metric is not None
    report = synthetic.report()
    report["rungs"][0]["metrics"]["safety"] = metric.to_json()
    validate_report(report)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("seed",), 1.5, "report.seed must be an integer"),
        (("rungs",), [], "report.rungs must be a list of rungs"),
        (("rungs", 0, "gate"), "maybe", r"report.rungs\[0\].gate must be accepted or rejected"),
        (("rungs", 1, "name"), "base", "rungs with different names"),
        (("rungs", 0, "metrics", "safety", "n"), 0, "positive integer"),
        (("rungs", 0, "metrics", "safety", "value"), float("nan"), "must be a number"),
        (("rungs", 0, "metrics", "safety", "low"), 0.99, "low <= value <= high"),
        (("rungs", 0, "metrics", "safety", "high"), 1.5, "within 0..1"),
        (("rungs", 0, "metrics", "kindness"), {}, "must be one of safety"),
        (("rungs", 0, "extra"), 1, r"rungs\[0\].extra must be absent"),
        (("surprise",), 1, "report.surprise must be absent"),
        (("headline", "to"), "nowhere", "name of a rung"),
    ],
)
def test_a_report_against_the_schema_is_refused(path: tuple[Any, ...], value: Any, message: str) -> None:
    report = copy.deepcopy(synthetic.report())
    node = report
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(SafeladderError, match=message):
        validate_report(report)


def test_N02_the_headline_prints_its_formula_and_reproduces() -> None:
    headline = synthetic.report()["headline"]
    assert headline["formula"] == FORMULA == "relative change in % = 100 x (last - base) / base"
    for row in headline["metrics"].values():
        if "relative" in row:
            assert row["relative"] == pytest.approx(100 * (row["after"] - row["before"]) / row["before"])


def test_N03_numbers_are_rounded_once_from_their_decimal_form() -> None:
    cells = (95.2, 85.1, 88.9, 87.3)
    mean = sum(cells) / len(cells)
    assert format_number(mean, 3) == "89.125"
    assert format_number(89.125, 1) == "89.1"
    assert format_number(89.125, 2) == "89.13"
    assert format_percent(0.89125) == "89.1 %"
    # 2.675 is a little less than that in binary; people mean the decimal.
    assert format_number(2.675, 2) == "2.68"
    assert (format_number(-0.04), format_number(-0.05)) == ("0.0", "-0.1")


@given(value=st.floats(-1e6, 1e6), digits=st.integers(0, 4))
def test_rounding_is_off_by_at_most_half_a_digit(value: float, digits: int) -> None:
    written = format_number(value, digits)
    assert abs(float(written) - value) <= 0.5 * 10**-digits + 1e-9
    assert len(written.partition(".")[2]) == digits


def test_numbers_that_other_tools_cannot_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"a": 1})

    def full_disk(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_line_cut_short_by_a_crash_is_left_out_and_other_broken_lines_are_told(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    assert read_jsonl(path) == []
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(SafeladderError, match="line 2"):
        read_jsonl(path)
