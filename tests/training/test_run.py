"""What a loop writes: valid JSON whatever the numbers, phases apart, nothing left of what has ended."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from safeladder.ladder.clock import Clock
from training.tiny_runs import run_in


def strict(path: Path) -> list[dict]:
    """As any other tool reads JSON: NaN and Infinity are no values."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_metrics_that_are_no_numbers_are_null(tmp_path):
    run_in(tmp_path).log_metrics(1, {"loss": math.nan, "grad_norm": math.inf, "low": -math.inf, "reward": 0.5})
    assert strict(tmp_path / "metrics.jsonl") == [
        {"rung": "m3-rl", "step": 1, "loss": None, "grad_norm": None, "low": None, "reward": 0.5}
    ]


def test_a_rollout_with_such_a_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        run_in(tmp_path).log_rollouts([{"reward": math.nan}])


def test_a_phase_has_its_own_state_and_log_rows(tmp_path):
    run = run_in(tmp_path, "search-rl")
    phase = run.phase("cold-start")
    for step in (1, 2, 3):
        phase.log_metrics(step, {"loss": 1.0})
    phase.save(3, {"step": 3, "w": torch.ones(1)})
    run.log_metrics(1, {"loss": 2.0})
    run.log_metrics(2, {"loss": 2.0})
    run.save(1, {"step": 1, "w": torch.zeros(1)})
    state = run.resume()
    assert state is not None and state["step"] == 1
    rows = [(row["rung"], row["step"]) for row in strict(tmp_path / "metrics.jsonl")]
    assert rows == [
        ("search-rl.cold-start", 1),
        ("search-rl.cold-start", 2),
        ("search-rl.cold-start", 3),
        ("search-rl", 1),
    ]
    state = phase.resume()
    assert state is not None and state["step"] == 3
    other = run_in(tmp_path, "search")
    other.save(1, {"step": 1, "w": torch.ones(1)})
    run.discard()
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["search"], "that of the rung and its phases is gone"
    assert run.resume() is None and phase.resume() is None


def test_a_checkpoint_keeps_the_time(tmp_path):
    calls = []
    run = run_in(tmp_path)
    run.on_save = lambda: calls.append(len(list(run.state_folder.glob("step-*"))))
    run.save(1, {"step": 1, "w": torch.ones(1)})
    assert calls == [1], "once it is there"


def test_a_measurement_cut_short_is_forgotten_and_training_is_not(tmp_path):
    run = run_in(tmp_path)
    run.log_rollouts([{"rung": "m3-rl", "step": 4}, {"rung": "m3-rl", "step": None}, {"rung": "base", "step": None}])
    run.forget_evaluation()
    assert strict(tmp_path / "rollouts.jsonl") == [{"rung": "m3-rl", "step": 4}, {"rung": "base", "step": None}]


def test_sessions_add_up(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    first = Clock(tmp_path / "seconds.json")
    assert first.kept == 0.0
    now = 107.0
    first.keep()
    now = 110.0
    first.keep()
    now = 500.0  # killed; another process, another zero
    second = Clock(tmp_path / "seconds.json")
    assert second.kept == 10.0
    now = 505.0
    second.keep()
    assert second.kept == Clock(tmp_path / "seconds.json").kept == 15.0
