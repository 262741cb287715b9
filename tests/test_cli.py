"""The command line: overrides, errors in one line, exit codes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from safeladder import __version__, cli
from safeladder.types import SafeladderError

RECIPE = """
name: tiny
processes: 1
rungs:
  base: {kind: sft, steps: 2, batch_size: 4}
  m3-rl: {kind: rl, prompts_per_step: 2, group_size: 4, stages: {general: {steps: 1}}}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    Path("recipe.yaml").write_text(RECIPE)
    return "recipe.yaml"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Replaces the climb itself; what it was called with."""
    seen: list[tuple] = []
    module = types.ModuleType("safeladder.ladder.climb")

    def climb(recipe, out, *, resume):
        seen.append((recipe, out, resume))
        return 0

    module.climb = climb  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "safeladder.ladder.climb", module)
    return seen


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def climb(recipe, out, *, resume):
        raise error

    module = types.ModuleType("safeladder.ladder.climb")
    module.climb = climb  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "safeladder.ladder.climb", module)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.err.startswith("safeladder: error: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.out + captured.err
    return captured.err


def test_climb_hands_over_recipe_folder_and_resume(recipe, calls):
    assert cli.main(["climb", recipe]) == 0
    made, out, resume = calls[0]
    assert (made.name, out, resume) == ("tiny", Path("runs/tiny"), False)


def test_options_and_overrides_in_any_order_and_both_spellings(recipe, calls):
    given = ["climb", "--rungs.m3-rl.group_size", "8", recipe, "--processes=1", "--out", "o", "--seed", "5"]
    given += ["--rungs.base.optimizer.learning_rate=1e-3", "--data.world.chinese_share", "0.5", "--resume"]
    assert cli.main(given) == 0
    made, out, resume = calls[0]
    assert made.rungs["m3-rl"].group_size == 8
    assert made.rungs["base"].optimizer.learning_rate == 1e-3
    assert made.data.world.chinese_share == 0.5
    assert (made.processes, made.seed, out, resume) == (1, 5, Path("o"), True)


def test_several_processes_are_launched_with_the_same_arguments(recipe, calls, monkeypatch):
    from safeladder.training import launch

    seen = []
    monkeypatch.setattr(launch, "launch", lambda processes, arguments: seen.append((processes, arguments)) or 3)
    given = ["climb", recipe, "--processes", "2", "--out", "o", "--rungs.base.steps=1"]
    assert cli.main(given) == 3
    assert seen == [(2, given)]
    assert calls == []


def test_a_worker_climbs_itself_and_only_the_first_one_minds_the_folder(recipe, calls, monkeypatch):
    Path("o").mkdir()
    Path("o/recipe.yaml").write_text("")
    given = ["climb", recipe, "--processes", "2", "--out", "o"]
    monkeypatch.setenv("RANK", "1")
    assert cli.main(given) == 0
    monkeypatch.setenv("RANK", "0")
    assert cli.main(given) == 2
    assert len(calls) == 1


def test_the_exit_code_of_the_climb_is_passed_on(recipe, monkeypatch):
    module = types.ModuleType("safeladder.ladder.climb")
    module.climb = lambda recipe, out, *, resume: 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "safeladder.ladder.climb", module)
    assert cli.main(["climb", recipe]) == 7


@pytest.mark.parametrize(
    ("extra", "files", "world"),
    [
        ([], (), True),
        (["--data", "a.jsonl"], ("a.jsonl",), False),
        (["--data", "a.jsonl", "b.jsonl"], ("a.jsonl", "b.jsonl"), False),
        (["--data", "a.jsonl", "--data", "b.jsonl"], ("a.jsonl", "b.jsonl"), False),
        (["--data", "a.jsonl", "--data.world", "{}"], ("a.jsonl",), True),
        (["--data", "a.jsonl", "--data.world.grid", "3"], ("a.jsonl",), True),
    ],
)
def test_data_replaces_the_world_unless_it_is_asked_for(recipe, calls, extra, files, world):
    for name in ("a.jsonl", "b.jsonl"):
        Path(name).write_text("{}\n")
    assert cli.main(["climb", recipe, *extra]) == 0
    made = calls[0][0]
    assert made.data.files == files
    assert (made.data.world is not None) is world


def test_data_keeps_a_world_that_the_recipe_names_beside_files(recipe, calls):
    Path("a.jsonl").write_text("{}\n")
    Path(recipe).write_text(RECIPE + "data: {files: [z.jsonl], world: {grid: 3}}\n")
    assert cli.main(["climb", recipe, "--data", "a.jsonl"]) == 0
    made = calls[0][0]
    assert made.data.files == ("a.jsonl",)
    assert made.data.world.grid == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], ["VERB"]),
        (["fly"], ["fly"]),
        (["climb"], ["RECIPE"]),
        (["climb", "absent.yaml"], ["absent.yaml not found"]),
        (["climb", "recipe.yaml", "other.yaml"], ["other.yaml"]),
        (["climb", "recipe.yaml", "--seed", "x"], ["--seed", "'x'"]),
        (["climb", "recipe.yaml", "--sed", "1"], ["unknown option --sed", "--seed", "recipe keys"]),
        (["climb", "recipe.yaml", "--learning_rate", "1"], ["unknown option --learning_rate", "options:"]),
        (["climb", "recipe.yaml", "--rungs.base.stps", "1"], ["rungs.base.stps", "did you mean 'steps'"]),
        (["climb", "recipe.yaml", "--rungs.base.steps"], ["--rungs.base.steps needs a value"]),
        (["climb", "recipe.yaml", "--rungs.base.steps", "--check"], ["--rungs.base.steps needs a value"]),
        (["climb", "recipe.yaml", "--rungs.base.steps", "-1"], ["rungs.base.steps", "greater than 0", "-1"]),
        (["climb", "recipe.yaml", "--data", "no.jsonl"], ["no.jsonl not found"]),
        (["climb", "recipe.yaml", "--data", "a", "--data.files", "[b]"], ["not both"]),
        (["climb", "recipe.yaml", "--data.world", "null"], ["no data", "--data FILE.jsonl"]),
        (["climb", "recipe.yaml", "--model.hub_id", "org/model"], ["org/model", "--model.path DIR"]),
        (["climb", "recipe.yaml", "--out", "recipe.yaml"], ["recipe.yaml", "not a folder"]),
        (["world"], ["ACTION"]),
        (["world", "show", "--out", "sheet.txt"], [".png or .html"]),
        (["world", "show", "--out", "nowhere/sheet.png"], ["nowhere", "not found"]),
        (["world", "show", "--per-kind", "0"], ["--per-kind", "'0'"]),
        (["world", "show", "--split", "test"], ["--split", "'test'", "heldout"]),
        (["doctor", "absent.yaml"], ["absent.yaml not found"]),
    ],
)
def test_mistakes_end_with_one_line_and_2(recipe, calls, capsys, given, words):
    assert cli.main(given) == 2
    line = one_line(capsys)
    for word in words:
        assert word in line
    assert calls == []
    assert sorted(p.name for p in Path().iterdir()) == ["recipe.yaml"], "nothing half-written"


SEARCH = """
  search-rl:
    kind: search
    prompts_per_step: 2
    group_size: 4
    stages: {joint: {steps: 1}}
    constraint: {target: 0.9}
    cold_start: {steps: 2, batch_size: 4, styles: {careful: 1}}
"""


def test_own_rows_leave_out_the_rung_that_searches_the_worlds_pages(recipe, calls, capsys):
    Path(recipe).write_text(RECIPE + SEARCH)
    Path("a.jsonl").write_text("")
    Path("index").mkdir()
    assert cli.main(["climb", recipe, "--data", "a.jsonl"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("rung search-rl is left out: ") and "--rungs.search-rl.corpus DIR" in said
    assert list(calls[-1][0].rungs) == ["base", "m3-rl"]
    given = ["climb", recipe, "--data", "a.jsonl", "--rungs.search-rl.corpus", "index", "--out", "o"]
    assert cli.main([*given, "--rungs.search-rl.cold_start", "null"]) == 0
    assert list(calls[-1][0].rungs) == ["base", "m3-rl", "search-rl"]
    assert cli.main(["climb", recipe, "--data", "a.jsonl", "--data.world", "{}", "--out", "p"]) == 0
    assert list(calls[-1][0].rungs) == ["base", "m3-rl", "search-rl"], "the pages are still there"
    assert "left out" not in capsys.readouterr().out


def test_a_folder_in_use_names_both_ways_out(recipe, calls, capsys):
    Path("runs/tiny").mkdir(parents=True)
    assert cli.main(["climb", recipe]) == 0, "an empty folder is free"
    Path("runs/tiny/recipe.yaml").write_text("")
    assert cli.main(["climb", recipe]) == 2
    line = one_line(capsys)
    assert "--resume" in line
    assert "--out" in line
    assert cli.main(["climb", recipe, "--resume"]) == 0
    assert len(calls) == 2


def _torch_oom() -> BaseException:
    return type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (KeyboardInterrupt(), ["interrupted", "--resume"], 130),
        (SafeladderError("what\nwhere"), ["what where"], 2),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.safetensors"),
            ["disk is full", "x.safetensors"],
            2,
        ),
        (RuntimeError("I/O error: No space left on device (os error 28)"), ["disk is full"], 2),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), ["Permission denied", "/x"], 2),
        (MemoryError(), ["out of memory", "micro_batch_tokens"], 2),
        (_torch_oom(), ["out of memory"], 2),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), ["out of memory"], 2),
        (
            ValueError("a bug\nhere"),
            ["internal error", "ValueError", "a bug here", "SAFELADDER_TRACEBACK"],
            1,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_whatever_goes_wrong_is_one_line(recipe, capsys, monkeypatch, error, words, code):
    monkeypatch.delenv("SAFELADDER_TRACEBACK", raising=False)
    raising(error, monkeypatch)
    assert cli.main(["climb", recipe]) == code
    line = one_line(capsys)
    for word in words:
        assert word in line


def test_the_cause_behind_an_error_is_found(recipe, capsys, monkeypatch):
    error = ValueError("could not save")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    raising(error, monkeypatch)
    assert cli.main(["climb", recipe]) == 2
    assert "disk is full" in one_line(capsys)


def test_tracebacks_can_be_asked_for(recipe, monkeypatch):
    monkeypatch.setenv("SAFELADDER_TRACEBACK", "1")
    raising(ZeroDivisionError("deep"), monkeypatch)
    with pytest.raises(ZeroDivisionError):
        cli.main(["climb", recipe])


def _run(*given: str, cwd: Path | None = None, code: str = "") -> subprocess.CompletedProcess[str]:
    script = code or "import sys; from safeladder.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", script, *given], capture_output=True, text=True, cwd=cwd)


def test_version_help_and_module_entry():
    done = subprocess.run([sys.executable, "-m", "safeladder", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"safeladder {__version__}\n")
    assert _run("climb", "--help").returncode == 0


@pytest.mark.parametrize(
    "given",
    [["--help"], ["climb", "x.yaml", "--check"], ["climb", "x.yaml", "--foo", "1"], ["doctor", "x.yaml"]],
)
def test_help_and_mistakes_start_fast(given):
    """They must not wait for torch."""
    code = (
        "import sys; from safeladder.cli import main; main()\n"
        "print('HEAVY', {'torch', 'transformers', 'inspect_ai', 'matplotlib'} & set(sys.modules))"
    )
    assert "HEAVY set()" in _run(*given, code=code).stdout


PRINTS = """
import sys
from safeladder import cli
cli._run = lambda given: print("x") or 0
sys.exit(cli.main([]))
"""


def test_full_disk_for_real(recipe):
    """Output to a device that is always full: no traceback, not a clean exit."""
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", PRINTS], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error(recipe):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", PRINTS], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert "Traceback" not in done.stderr


SWALLOWED = """
import sys, time, weakref
from safeladder import cli

class Thing:
    def __del__(self):
        if {case!r} == "del":
            raise {error}

def broken(_):
    if {case!r} == "weakref":
        raise {error}

def verb(given):
    thing = Thing()
    watch = weakref.ref(thing, broken)
    del thing
    time.sleep({wait})
    return 0

cli._run = verb
sys.argv = ["safeladder", "climb"]
sys.exit(cli.main())
"""


@pytest.mark.parametrize("case", ["del", "weakref"])
def test_an_interrupt_that_python_swallows_arrives_all_the_same(case):
    done = _run(code=SWALLOWED.format(case=case, error="KeyboardInterrupt", wait=30))
    assert done.returncode == 130, done.stderr
    assert done.stderr == "safeladder: error: interrupted; rerun with --resume\n"


def test_other_swallowed_errors_are_shown_as_before():
    done = _run(code=SWALLOWED.format(case="del", error="ValueError", wait=0))
    assert done.returncode == 0
    assert "Exception ignored" in done.stderr and "ValueError" in done.stderr


def test_main_leaves_the_hook_of_its_caller(recipe, calls):
    before = sys.unraisablehook
    assert cli.main(["climb", recipe]) == 0
    assert sys.unraisablehook is before


EARLY = """
import sys, time
print("up", flush=True)
time.sleep(0.5)  # as long as imports may take
from safeladder import cli
cli._run = lambda given: time.sleep(30)
sys.argv = ["safeladder", "climb"]
sys.exit(cli.main())
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals are held back on POSIX")
def test_a_worker_that_is_still_starting_takes_an_interrupt_in_one_line():
    from safeladder.training import launch

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with launch._interrupts_held():
        worker = subprocess.Popen(
            [sys.executable, "-c", EARLY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert worker.stdout is not None and worker.stdout.readline() == "up\n"
    worker.send_signal(signal.SIGINT)
    _, said = worker.communicate(timeout=20)
    assert worker.returncode == 130
    assert said == "safeladder: error: interrupted; rerun with --resume\n"


def test_world_show_writes_a_sheet(tmp_path: Path, capsys):
    pytest.importorskip("safeladder.world.show", reason="the world's contact sheet is not there yet")
    for name in ("sheet.png", "sheet.html"):
        assert cli.main(["world", "show", "--out", str(tmp_path / name), "--per-kind", "1"]) == 0
        assert (tmp_path / name).stat().st_size > 1000
        assert str(tmp_path / name) in capsys.readouterr().out
