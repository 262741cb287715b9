"""Two results on the same items: tests by hand, corrections, and what counts against whom."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder import cli
from safeladder.atomic import write_text
from safeladder.evaluation.compare import as_markdown, compare_folders, holm, mcnemar, sign_flip
from safeladder.types import SafeladderError


def folder(
    path: Path,
    figures: Mapping[str, Mapping[str, float | None]],
    *,
    groups: Mapping[str, str] | None = None,
    better: str = "higher",
    **fields: Any,
) -> Path:
    """A result folder with figures `name` or `name / group` -> item -> outcome."""
    rows = []
    for key, outcomes in figures.items():
        name, *group = key.split(" / ")
        known = [v for v in outcomes.values() if v is not None]
        metric = {"value": sum(known) / len(known), "low": 0.0, "high": 1.0, "n": len(known)} if known else None
        rows.append({"name": name, "group": group, "better": better, "part": "answer", "note": "", "metric": metric})
    entry = {"suite": "own", "subset": "all", "judge": "offline: told", "max_tokens": 9, "figures": rows} | fields
    report = {"format": 1, "model": {"name": path.name}, "suites": [entry]}
    ids = list(dict.fromkeys(id for outcomes in figures.values() for id in outcomes))
    items = [
        {
            "id": id,
            "group": (groups or {}).get(id, id),
            "outcomes": {key: outcomes[id] for key, outcomes in figures.items() if id in outcomes},
        }
        for id in ids
    ]
    write_text(path / "report.json", json.dumps(report))
    lines = "".join(json.dumps(item) + "\n" for item in items)
    write_text(path / "items" / f"{entry['suite']}.{entry['subset']}.jsonl", lines)
    return path


def outcomes(values: Sequence[float | None]) -> dict[str, float | None]:
    return {f"i{number}": value for number, value in enumerate(values)}


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 · C(1,0) / 2 = 1
        (5, 0, 0.0625),  # 2 · 1 / 32
        (8, 1, 0.0390625),  # 2 · (1 + 9) / 512
        (3, 3, 1.0),  # 2 · (1 + 6 + 15 + 20) / 64 > 1
    ],
)
def test_mcnemar_by_hand(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == mcnemar(lost, gained) == p


def test_sign_flips_by_hand() -> None:
    # All signs of (1, 1, 1): |sum| >= 3 for 2 of 8, so p = 1/4.
    assert sign_flip([1.0, 1.0, 1.0], flips=20_000) == pytest.approx(0.25, abs=0.01)
    # Of (2, 1, 1): |sum| >= 2 holds for 4, 2, 2, 0, 0, -2, -2, -4, six of eight.
    assert sign_flip([2.0, 1.0, -1.0], flips=20_000) == pytest.approx(0.75, abs=0.01)
    assert sign_flip([]) == sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([1.0] * 40, flips=100) == 1 / 101


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 with factors 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.06 (never falling).
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_helps_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1.0 for p, q in zip(p_values, adjusted, strict=True))
    ranked = sorted(zip(p_values, adjusted, strict=True))
    assert [q for _, q in ranked] == sorted(q for _, q in ranked)


def test_yes_no_outcomes_are_compared_exactly(tmp_path: Path) -> None:
    # B gains eight and loses one of twenty: p = 0.0390625; A has 8, B 15 of 20.
    a = folder(tmp_path / "a", {"safe rate": outcomes([0.0] * 8 + [1.0] + [1.0] * 7 + [0.0] * 4)})
    b = folder(tmp_path / "b", {"safe rate": outcomes([1.0] * 8 + [0.0] + [1.0] * 7 + [0.0] * 4)})
    (row,) = compare_folders(a, b)["rows"]
    assert (row["test"], row["p"], row["p_holm"], row["n"]) == ("McNemar, exact", 0.0390625, 0.0390625, 20)
    assert row["difference"] == pytest.approx(0.35) and row["low"] < 0.35 < row["high"]
    assert row["verdict"] == "better"
    (back,) = compare_folders(b, a)["rows"]
    assert back["verdict"] == "worse" and back["difference"] == pytest.approx(-0.35)


def test_lower_is_better_where_it_is(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"refusals": outcomes([1.0] * 9)}, better="lower")
    b = folder(tmp_path / "b", {"refusals": outcomes([0.0] * 9)}, better="lower")
    assert compare_folders(a, b)["rows"][0]["verdict"] == "better"


def test_groups_are_no_independent_items(tmp_path: Path) -> None:
    groups = {f"i{n}": f"g{n // 4}" for n in range(12)}
    a = folder(tmp_path / "a", {"safe rate": outcomes([0.0] * 12)}, groups=groups)
    b = folder(tmp_path / "b", {"safe rate": outcomes([1.0] * 12)}, groups=groups)
    (row,) = compare_folders(a, b)["rows"]
    # Twelve items would give 2 / 2^12; three groups give 2 / 2^3.
    assert row["test"] == "sign flips" and row["p"] == pytest.approx(0.25, abs=0.02)
    assert row["verdict"] == "no difference shown"


def test_graded_outcomes_are_compared_by_sign_flips(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"score": outcomes([0.2] * 10)})
    b = folder(tmp_path / "b", {"score": outcomes([0.7] * 10)})
    (row,) = compare_folders(a, b)["rows"]
    assert row["test"] == "sign flips" and row["p"] < 0.01
    assert row["difference"] == pytest.approx(0.5)


def test_an_unscored_item_never_helps_b(tmp_path: Path) -> None:
    known: list[float | None] = [1.0] * 6
    a = folder(tmp_path / "a", {"safe rate": outcomes([None] * 6 + known)})
    b = folder(tmp_path / "b", {"safe rate": outcomes(known + [None] * 6)})
    (row,) = compare_folders(a, b)["rows"]
    # Unscored in A counts 1, unscored in B counts 0: six of twelve are lost, none gained.
    assert (row["n_unscored"], row["difference"], row["verdict"]) == (12, None, "not tested")
    some = folder(tmp_path / "some", {"safe rate": outcomes([None] * 6 + known)})
    good = folder(tmp_path / "good", {"safe rate": outcomes([1.0] * 12)})
    (row,) = compare_folders(good, some)["rows"]
    assert (row["n_unscored"], row["difference"], row["verdict"]) == (6, -0.5, "worse")
    (row,) = compare_folders(some, good)["rows"]
    assert (row["difference"], row["verdict"]) == (0.0, "no difference shown")


def test_H15_a_figure_without_outcomes_is_not_tested_and_nothing_is_zero(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"safe rate": outcomes([None, None])})
    b = folder(tmp_path / "b", {"safe rate": outcomes([None, None])})
    (row,) = compare_folders(a, b)["rows"]
    assert [row[key] for key in ("before", "after", "difference", "p", "p_holm")] == [None] * 5
    assert row["verdict"] == "not tested"
    assert "| own/all | safe rate |  |  |  |" in as_markdown(compare_folders(a, b))


def test_whole_subsets_and_categories_are_families_of_their_own(tmp_path: Path) -> None:
    won, same = outcomes([1.0] * 7), outcomes([0.0] * 7)
    names = ["x", "y", "x / one", "x / two", "x / three"]
    a = folder(tmp_path / "a", dict.fromkeys(names, same))
    b = folder(tmp_path / "b", dict.fromkeys(names, won))
    rows = compare_folders(a, b)["rows"]
    p = 2 / 2**7
    assert [row["p_holm"] for row in rows] == pytest.approx([2 * p, 2 * p, 3 * p, 3 * p, 3 * p])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judge": "another@0123456789ab"}, "A has judge 'offline: told' and B 'another"),
        ({"max_tokens": 10}, "A has max_tokens 9 and B 10"),
        ({"subset": "other"}, "no suite and subset in common"),
    ],
)
def test_only_like_is_compared(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    a = folder(tmp_path / "a", {"safe rate": outcomes([1.0])})
    b = folder(tmp_path / "b", {"safe rate": outcomes([1.0])}, **change)
    with pytest.raises(SafeladderError, match=message):
        compare_folders(a, b)


def test_other_items_are_refused(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"safe rate": outcomes([1.0] * 3)})
    b = folder(tmp_path / "b", {"safe rate": outcomes([1.0] * 2)})
    with pytest.raises(SafeladderError, match=r"A has 3 items and B 2, 1 are on one side only \(first: 'i2'\)"):
        compare_folders(a, b)


def test_the_command_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = folder(tmp_path / "a", {"safe rate": outcomes([0.0] * 9), "safe rate / x": outcomes([0.0] * 9)})
    b = folder(tmp_path / "b", {"safe rate": outcomes([1.0] * 9), "safe rate / x": outcomes([1.0] * 9)})
    assert cli.main(["eval", "--compare", str(a), str(b)]) == 0
    table = capsys.readouterr().out
    assert "| own/all | safe rate | 0.000 | 1.000 | +1.000 |" in table and "## By category" in table
    assert cli.main(["eval", "--compare", str(a), str(b), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["verdict"] == "better"
    assert cli.main(["eval", "--compare", str(a), str(tmp_path)]) == 2
    assert "no result folder" in capsys.readouterr().err
