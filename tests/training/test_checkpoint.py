"""Trainer state: the old or the new one after a kill at any moment, never half of one, never a pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.training import checkpoint
from safeladder.training.checkpoint import load_state, save_state
from safeladder.types import SafeladderError
from training.tiny_runs import run_in

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False), st.text(max_size=5),
    st.integers(0, 4).map(lambda n: torch.arange(n)), st.just(torch.tensor(2.5)),
)  # fmt: skip
nested = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.integers(0, 99), st.text("ab/._1", max_size=3)), inner, max_size=3),
    ),
    max_leaves=8,
)


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))  # type: ignore[arg-type]
    return type(a) is type(b) and a == b


@given(state=st.dictionaries(st.text("xyz", min_size=1, max_size=2), nested, max_size=4))
@settings(max_examples=50, deadline=None)
def test_any_nested_state_comes_back(tmp_path_factory, state):
    """Integer keys, tuples, empty tensors, text with slashes: what comes back equals what was stored,
    types included.
    """
    folder = tmp_path_factory.mktemp("state")
    save_state(folder, 1, state)
    loaded = load_state(folder)
    assert same(state, loaded)


def test_tensors_are_copied_from_views_and_shared_storage(tmp_path):
    """Gradients and parameters live in one flat buffer; safetensors refuses shared storage unless it
    is copied.
    """
    flat = torch.arange(6.0)
    save_state(tmp_path, 1, {"a": flat[:3], "b": flat.view(2, 3).T, "c": flat})
    loaded = load_state(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded["b"], flat.view(2, 3).T) and torch.equal(loaded["a"], flat[:3])


def test_the_newest_is_loaded_and_older_ones_are_dropped(tmp_path):
    assert load_state(tmp_path) is None
    for step in (10, 20):
        save_state(tmp_path, step, {"step": step})
    assert load_state(tmp_path) == {"step": 20}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["LATEST", "step-000020"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing is cleaned up."""


@pytest.mark.parametrize("moment", range(9))
def test_a_kill_at_any_write_leaves_the_old_or_the_new_state(tmp_path, monkeypatch, moment):
    """Dies at the k-th file operation of a save over an existing state; then saves again."""
    save_state(tmp_path, 1, {"step": 1, "w": torch.ones(3)})
    count = 0

    def dying(real):
        def operation(*args, **options):
            nonlocal count
            count += 1
            if count == moment + 1:
                raise Killed
            return real(*args, **options)

        return operation

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(checkpoint, "save_file", dying(checkpoint.save_file))
        patch.setattr(checkpoint.shutil, "rmtree", dying(checkpoint.shutil.rmtree))
        try:
            save_state(tmp_path, 2, {"step": 2, "w": torch.zeros(3)})
            died = False
        except Killed:
            died = True
    assert died or count <= moment
    state = load_state(tmp_path)
    assert state is not None
    assert state["step"] in ((1, 2) if died else (2,))
    assert torch.equal(state["w"], torch.ones(3) if state["step"] == 1 else torch.zeros(3))
    save_state(tmp_path, 2, {"step": 2, "w": torch.full((3,), 2.0)})
    assert load_state(tmp_path)["w"].tolist() == [2.0] * 3  # type: ignore[index]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["LATEST", "step-000002"]


@pytest.mark.parametrize("damage", ["tensors.safetensors", "state.json"])
def test_a_damaged_state_is_one_clear_error(tmp_path, damage):
    save_state(tmp_path, 3, {"step": 3, "w": torch.ones(300)})
    file = tmp_path / "step-000003" / damage
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(SafeladderError, match=r"step-000003 cannot be read"):
        load_state(tmp_path)


def test_logs_are_cut_back_to_the_state(tmp_path):
    """Lines after the newest state, lines of a half-written end and evaluations of this rung are
    written again.
    """
    run = run_in(tmp_path, "r")
    run_in(tmp_path, "before").log_metrics(90, {"loss": 1.0})
    for step in (1, 2, 3):
        run.log_metrics(step, {"loss": float(step)})
    run.log_rollouts(
        [
            {"rung": "r", "step": 2},
            {"rung": "r", "step": 3},
            {"rung": "r", "step": None},
            {"rung": "before", "step": None},
        ]
    )
    run.save(2, {"step": 2})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"rung": "r", "st')
    assert run.resume() == {"step": 2}
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(m["rung"], m["step"]) for m in metrics] == [("before", 90), ("r", 1), ("r", 2)]
    rollouts = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert rollouts == [{"rung": "r", "step": 2}, {"rung": "before", "step": None}]


def test_without_a_state_the_rung_begins_with_empty_logs(tmp_path):
    run = run_in(tmp_path, "r")
    run.log_metrics(1, {"loss": 1.0})
    assert run.resume() is None
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def pickles_in(folder: Path) -> list[Path]:
    """Files that are, or whose names say they are, pickles."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            head = path.read_bytes()[:2]
            if path.suffix in (".pt", ".pth", ".bin", ".pkl", ".ckpt") or (
                head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"
            ):
                found.append(path)
    return found


def test_nothing_is_pickled(tmp_path):
    save_state(tmp_path, 1, {"w": torch.ones(3), "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}})
    assert pickles_in(tmp_path) == []
    torch.save({}, tmp_path / "x.pt")
    assert len(pickles_in(tmp_path)) == 1, "the scan finds what it is for"
