"""Killed at any moment, `--resume` goes on, and the end is the end of an unbroken run, bit by bit."""

from __future__ import annotations

import copy
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ladder_runs import assert_same_outcome, children_of, leftovers, lines, outcome, write_recipe

from safeladder.analysis.results import RungResult
from safeladder.config import Recipe, dump_recipe, load_recipe
from safeladder.ladder import calibrate, evaluate
from safeladder.ladder import climb as climbing
from safeladder.training import checkpoint
from safeladder.training.learner import Learner
from safeladder.training.run import RungRun
from safeladder.types import SafeladderError


class Killed(BaseException):
    """Stands for SIGKILL inside one process: nothing catches it, nothing is cleaned up."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return load_recipe(write_recipe(tmp_path_factory.mktemp("recipe")))


@pytest.fixture(scope="module", autouse=True)
def quick_start() -> Iterator[None]:
    """The untrained model is built once: training its tokenizer is most of a restart."""
    build, built = climbing.build_tiny, {}

    def cached(*args: Any, **options: Any) -> Any:
        key = repr(sorted(options.items()))
        if key not in built:
            built[key] = build(*args, **options)
        return copy.deepcopy(built[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(climbing, "build_tiny", cached)
        yield


STARTED: list[tuple[str, str | None, str | None]] = []
"""(rung, rung whose weights it started from, rung the gate compared with) of the unbroken run, in order."""


@pytest.fixture(scope="module")
def unbroken(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    loaded: list[str] = []
    measured: dict[str, Any] = {}
    load, result = climbing.load_weights, evaluate.result

    def loading(model: Any, source: Path) -> None:
        loaded.append(source.name)
        load(model, source)

    def comparing(recipe: Recipe, name: str, rollouts: Any, before: Any, *rest: Any) -> Any:
        against = next((rung for rung, found in measured.items() if found is before), None)
        STARTED.append((name, loaded.pop() if loaded else None, against))
        measured[name] = rollouts
        return result(recipe, name, rollouts, before, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(climbing, "load_weights", loading)
        patch.setattr(evaluate, "result", comparing)
        assert climbing.climb(recipe, folder, resume=False) == 0
    return folder


def dying(patch: pytest.MonkeyPatch, end: Callable[[str], None]) -> None:
    """Call `end(name)` before and after everything that moves a run on."""

    def wrap(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def operation(*args: Any, **options: Any) -> Any:
            end(f"before {name}")
            result = real(*args, **options)
            end(f"after {name}")
            return result

        patch.setattr(owner, name, operation)

    wrap(Learner, "step")
    wrap(RungRun, "log_metrics")
    wrap(RungRun, "log_rollouts")
    wrap(checkpoint, "write_text")
    wrap(checkpoint, "save_file")
    wrap(climbing, "save_checkpoint")
    wrap(RungRun, "discard")
    wrap(evaluate, "keep")
    wrap(calibrate, "write_text")
    wrap(evaluate, "pass_at_k")
    wrap(RungResult, "save")
    wrap(climbing, "write_report")


@pytest.mark.parametrize(
    ("seed", "most"), [(0, 5), *(pytest.param(seed, 12, marks=pytest.mark.slow) for seed in (0, 1))]
)
def test_killed_at_many_moments_in_one_process(recipe, unbroken, tmp_path, seed, most):
    folder = tmp_path / "run"
    rng = random.Random(seed)
    moments: list[str] = []
    finished = False
    while not finished:
        left = rng.randint(3, 14)

        def end(name: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                moments.append(name)
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            if len(moments) < most:
                dying(patch, end)
            try:
                climbing.climb(recipe, folder, resume=bool(moments))
                finished = True
            except Killed:
                continue
    assert len(moments) >= min(most, 8) and len(set(moments)) >= most // 3, moments
    assert_same_outcome(folder, unbroken)


def test_a_full_disk_is_named_and_the_run_can_go_on(recipe, unbroken, tmp_path, capsys, monkeypatch):
    """Every way of writing fails once with ENOSPC; what was finished stays, and the end is the same."""
    from safeladder import cli

    path = tmp_path / "tiny.yaml"
    path.write_text(dump_recipe(recipe))
    folder = tmp_path / "run"

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.safetensors")

    for owner, name in (
        (checkpoint, "save_file"),
        (climbing, "save_checkpoint"),
        (evaluate, "keep"),
        (climbing, "write_report"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            assert cli.main(["climb", str(path), "--out", str(folder), "--resume"]) == 2
        error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("safeladder: error: ")]
        assert len(error) == 1 and "the disk is full" in error[0] and "--resume" in error[0]
        assert not leftovers(folder / "checkpoints") if (folder / "checkpoints").is_dir() else True
    assert cli.main(["climb", str(path), "--out", str(folder), "--resume"]) == 0
    assert_same_outcome(folder, unbroken)


def test_resuming_a_finished_run_trains_nothing_and_changes_nothing(recipe, unbroken, monkeypatch):
    before = outcome(unbroken)

    def step(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr(Learner, "step", step)
    assert climbing.climb(recipe, unbroken, resume=True) == 0
    assert outcome(unbroken) == before


def test_another_recipe_is_refused(recipe, unbroken, tmp_path):
    other = recipe.model_copy(update={"seed": 1})
    before = outcome(unbroken)
    with pytest.raises(SafeladderError, match="holds a run of another recipe"):
        climbing.climb(other, unbroken, resume=True)
    assert outcome(unbroken) == before


def test_a_rung_starts_from_and_is_held_against_the_rung_that_the_recipe_names(recipe, unbroken):
    """`start_from`, the rung before by default; the control starts from the base."""
    assert STARTED == [
        ("base", None, None),
        ("cot-sft", "base", "base"),
        ("m3-rl", "cot-sft", "cot-sft"),
        ("efficient-rl", "cot-sft", "cot-sft"),
        ("search-rl", "efficient-rl", "efficient-rl"),
        ("control", "base", "base"),
    ]
    report = json.loads((unbroken / "report.json").read_text())
    assert [rung["name"] for rung in report["rungs"]] == list(recipe.rungs)
    assert all(rung["gate"] in ("accepted", "rejected") for rung in report["rungs"])
    first = next(row for row in lines(unbroken / "metrics.jsonl") if row["rung"] == "m3-rl")
    (kl,) = [key for key in first if key.startswith("reference_kl") and not key.endswith("_max")]
    assert first[kl] == pytest.approx(0.0, abs=1e-6), "the reference is what the rung started from"


def test_a_rejected_rung_is_reported_as_such(recipe, tmp_path, monkeypatch):
    """What the gate says reaches the report; the ladder goes on."""
    from safeladder.evaluation.gate import Gate

    monkeypatch.setattr(evaluate, "gate", lambda _: Gate(verdict="rejected", reasons=("it fell",)))
    two = {name: recipe.rungs[name] for name in ("base", "cot-sft")}
    without = recipe.control.model_copy(update={"enabled": False})
    short = recipe.model_copy(update={"rungs": two, "control": without})
    assert climbing.climb(short, tmp_path / "run", resume=False) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [rung["gate"] for rung in report["rungs"]] == ["accepted", "rejected"]


def test_nothing_in_a_run_is_a_pickle(unbroken):
    for path in unbroken.rglob("*"):
        if path.is_file():
            assert path.suffix not in (".pt", ".pth", ".bin", ".pkl", ".ckpt"), path
            assert path.read_bytes()[:2] not in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), path
    assert not leftovers(unbroken)


def test_the_run_folder_holds_what_the_design_promises(unbroken):
    for name in (
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "rollouts.jsonl",
        "report.json",
        "report.html",
        "trajectory.png",
    ):
        assert (unbroken / name).stat().st_size > 0, name
    assert len(list((unbroken / "logs").glob("*.eval"))) == 7, "five rungs, the control, and the searches"
    assert {p.name for p in (unbroken / "checkpoints").iterdir()} == {
        "base",
        "cot-sft",
        "m3-rl",
        "efficient-rl",
        "search-rl",
        "control",
    }
    assert (unbroken / "search" / "search-rl.jsonl").stat().st_size > 0


def test_nothing_is_kept_to_resume_what_has_ended(unbroken):
    assert [p.name for p in (unbroken / "state").iterdir()] == ["seconds.json"]


def test_both_phases_of_the_search_rung_train_and_log_under_names_of_their_own(unbroken):
    rows = lines(unbroken / "metrics.jsonl")
    steps = {
        name: [row["step"] for row in rows if row["rung"] == name] for name in ("search-rl.cold-start", "search-rl")
    }
    assert steps == {"search-rl.cold-start": [3], "search-rl": [1, 2, 3]}
    learned = [row for row in rows if row["rung"] == "search-rl"]
    assert all("multiplier" in row for row in learned)
    # Two prompts a step: some steps hold searches, some replay the ladder's kinds.
    searched = [row for row in learned if "reward/world-search" in row]
    assert searched and all({"search/unreadable", "search/actions/unparsed"} <= row.keys() for row in searched)
    assert any("reward/world-rule" in row for row in learned)
    base, searched = (
        (unbroken / "checkpoints" / name / "model.safetensors").read_bytes() for name in ("efficient-rl", "search-rl")
    )
    assert base != searched


def test_a_measurement_that_was_lost_is_repeated_without_training(recipe, unbroken, monkeypatch):
    before = outcome(unbroken)
    rows = (unbroken / "search" / "search-rl.jsonl").read_text()
    (unbroken / "rungs" / "search-rl.json").unlink()

    def step(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr(Learner, "step", step)
    assert climbing.climb(recipe, unbroken, resume=True) == 0
    after = outcome(unbroken)
    # What is measured again is logged again, now behind the control's rows.
    assert sorted(map(str, after.pop("rollouts.jsonl"))) == sorted(map(str, before.pop("rollouts.jsonl")))
    assert after == before
    assert (unbroken / "search" / "search-rl.jsonl").read_text() == rows
    assert len(list((unbroken / "logs").glob("*.eval"))) == 7


def test_the_time_of_every_session_counts(recipe, unbroken):
    seconds = json.loads((unbroken / "report.json").read_text())["wall_seconds"]
    trained = sum(rung["train_seconds"] for rung in json.loads((unbroken / "report.json").read_text())["rungs"])
    assert seconds > trained
    assert climbing.climb(recipe, unbroken, resume=True) == 0
    again = json.loads((unbroken / "report.json").read_text())["wall_seconds"]
    assert again == seconds, "showing a finished run again takes none of its time"


def test_another_seed_gives_another_run(recipe, unbroken, tmp_path):
    only = recipe.model_copy(update={"seed": 1, "rungs": {"base": recipe.rungs["base"]}})
    climbing.climb(only, tmp_path / "run", resume=False)
    mine = (tmp_path / "run" / "checkpoints" / "base" / "model.safetensors").read_bytes()
    assert mine != (unbroken / "checkpoints" / "base" / "model.safetensors").read_bytes()


# --- the same through the command line, with real processes and real signals
# --------------------------------------


def command(recipe: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "safeladder",
            "climb",
            str(recipe),
            "--out",
            str(out),
            "--processes",
            "2",
            *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def gone(launcher: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not children_of(launcher):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, and PDEATHSIG is Linux")
def test_two_processes_killed_and_interrupted(tmp_path):
    """SIGKILL of the launcher leaves no worker behind; Ctrl-C ends with 130; the end is that of an
    unbroken run.
    """
    recipe = write_recipe(tmp_path)
    whole = command(recipe, tmp_path / "whole")
    said, _ = whole.communicate(timeout=240)
    assert whole.returncode == 0, said
    folder = tmp_path / "broken"
    rng = random.Random(5)
    for number in range(5):
        run = command(recipe, folder, "--resume")
        # The clock starts once the workers train or have something to go on from.
        deadline = time.monotonic() + 60
        while not (folder / "recipe.yaml").is_file() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(rng.uniform(0.5, 9.0))
        if run.poll() is not None:
            break
        interrupt = number % 2 == 1
        run.send_signal(signal.SIGINT if interrupt else signal.SIGKILL)
        said, _ = run.communicate(timeout=60)
        if interrupt:
            assert run.returncode == 130, said
            assert "Traceback" not in said
        assert gone(run.pid), "a worker outlived its launcher"
    last = command(recipe, folder, "--resume")
    said, _ = last.communicate(timeout=240)
    assert last.returncode == 0, said
    assert_same_outcome(folder, tmp_path / "whole")
    assert not leftovers(folder)
