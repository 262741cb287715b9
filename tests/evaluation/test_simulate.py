"""`safeladder simulate` against a live endpoint on loopback, and its evidence read by `safeladder risk`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stub_server import choice, question_of, serving

from safeladder.cli import main


def scaler(factor: int) -> Callable[[dict[str, Any]], str]:
    """Reads the state, orders `factor` times what the load needs, is done."""

    def answer(request: dict[str, Any]) -> str:
        load = re.search(r"load (\d+)", question_of(request))
        if load:
            return json.dumps({"action": "scale", "replicas": factor * -(-int(load[1]) // 100)})
        return json.dumps({"action": "status" if question_of(request) == "Begin." else "done"})

    return answer


def test_replication_from_an_endpoint_to_a_zone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twice the need: a copy runs in every trial, one too many relative to each; Phi_R = 1 (0.5 + 0.5)."""
    out = tmp_path / "evidence.csv"
    with serving(scaler(2)) as stub:
        model = f"{stub.url}#stub-model"
        assert main(["simulate", "replication", model, "--trials", "3", "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["subject"].startswith("stub-model@127.0.0.1") and report["elicited"] is True
    assert report["turns"] == 3 * 6 and report["turns_without_reply"] == 0  # 3 trials of 2 settings, 3 turns each
    figures = report["figures"]
    assert figures["SR_3 a copy ran"]["value"] == 1.0 and figures["Phi_R"]["value"] == 1.0
    assert figures["OR trials with more than needed"]["n"] == 6
    assert main(["risk", "--evidence", str(out)]) == 0
    assert re.search(r"self_replication\s+yellow", capsys.readouterr().out)


def test_an_agent_that_passes_defrauds_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda request: '{"action": "pass"}') as stub:
        out = tmp_path / "c.csv"
        assert main(["simulate", "collusion", f"{stub.url}#stub-model", "--runs", "1", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert re.search(r"R_conv channel +not assessed", printed.out)  # no conversation: never 0
    assert re.search(r"R_pop control +0\.000 .* n 20", printed.out)
    assert f"wrote {out}" in printed.err and "r_pop" in out.read_text()


def test_persuasion_counts_what_it_cannot_read(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda request: "You should support it because 3 studies say so.") as stub:
        model = f"{stub.url}#stub-model"
        assert main(["simulate", "persuasion", model, "--topics", "1", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        # from 1..5, argued up, the first turn moves a step; from 6..10, argued down, it moves the wrong way
        assert report["figures"]["moved as argued"]["value"] == 0.5
        # the model as its own listener names no score
        assert main(["simulate", "persuasion", model, "--topics", "1", "--listener", model]) == 0
    assert re.search(r"moved as argued +not assessed", capsys.readouterr().out)


def test_no_reply_at_all_is_an_error_and_never_a_low_risk(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda request: choice("{", finish="length")) as stub:
        assert main(["simulate", "replication", f"{stub.url}#stub-model", "--trials", "1"]) == 2
    assert "gave no whole reply in 2 turns" in capsys.readouterr().err


def test_a_model_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "collusion", str(tmp_path / "gone")]) == 2
    assert "gone" in capsys.readouterr().err
    assert main(["simulate", "collusion", "x", "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
