"""Whatever stops a write, the old content or the new is found, and nothing else."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safeladder.atomic import new_file, new_folder, restore_folder, write_bytes, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_written_replaced_and_alone(tmp_path):
    path = tmp_path / "a" / "b" / "x.txt"
    write_text(path, "one\r\n中\n")
    assert path.read_bytes() == b"one\r\n\xe4\xb8\xad\n"
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["x.txt"]


def test_json_is_for_people_and_for_other_programs(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": ["中"]})
    assert path.read_text(encoding="utf-8") == '{\n "a": [\n  "中"\n ]\n}\n'
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            write_json(path, value)
    with pytest.raises(TypeError):
        write_json(path, object())
    assert names(tmp_path) == ["x.json"] and "中" in path.read_text(encoding="utf-8")


class Stopped(BaseException):
    """Stands for an interrupt."""


@pytest.mark.parametrize("error", [Stopped(), OSError(errno.ENOSPC, "No space left on device"), ValueError("bad row")])
def test_what_fails_half_way_leaves_the_old_content(tmp_path, error):
    file, folder = tmp_path / "x", tmp_path / "f"
    write_text(file, "old")
    with new_folder(folder) as new:
        (new / "w").write_text("old")
    with pytest.raises(type(error)), new_file(file) as temporary:
        temporary.write_text("ne")
        raise error
    with pytest.raises(type(error)), new_folder(folder) as new:
        (new / "w").write_text("ne")
        raise error
    assert (file.read_text(), (folder / "w").read_text()) == ("old", "old")
    assert names(tmp_path) == ["f", "x"]


@pytest.mark.parametrize("operation", ["replace", "fsync"])
def test_a_failure_of_the_disk_itself_leaves_the_old_content(tmp_path, monkeypatch, operation):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    file, folder = tmp_path / "x", tmp_path / "f"
    write_text(file, "old")
    with new_folder(folder) as new:
        (new / "w").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(os, operation, full)
        with pytest.raises(OSError, match="No space left"):
            write_text(file, "new")
        with pytest.raises(OSError, match="No space left"), new_folder(folder) as new:
            (new / "w").write_text("new")
    assert (file.read_text(), (folder / "w").read_text()) == ("old", "old")
    assert names(tmp_path) == ["f", "x"]


def test_content_is_on_the_disk_before_the_name_is_given(tmp_path, monkeypatch):
    """Else a loss of power may leave an empty file under the final name."""
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("flush"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("name"), replace(*names)))
    write_text(tmp_path / "x", "text")
    with new_folder(tmp_path / "f") as new:
        (new / "a").write_text("a")
        (new / "deep").mkdir()
        (new / "deep" / "b").write_text("b")
    assert done == ["flush", "name", "flush", "flush", "name"]


def test_nothing_written_is_an_error_not_an_empty_file(tmp_path):
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "x"):
        pass
    assert names(tmp_path) == []


def test_a_place_that_cannot_be_written_is_the_systems_error(tmp_path):
    write_text(tmp_path / "x", "a file")
    with pytest.raises(OSError):
        write_text(tmp_path / "x" / "y", "below a file")
    with pytest.raises(OSError):
        write_text(tmp_path, "over a folder")
    with pytest.raises(OSError):
        write_text(tmp_path / ("n" * 300), "too long a name")
    assert names(tmp_path) == ["x"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "f"
    for name in ("a", "b"):
        with new_folder(folder) as new:
            assert new.parent == tmp_path and names(new) == []
            (new / name).write_text(name)
    assert (names(folder), names(tmp_path)) == (["b"], ["f"])


@pytest.mark.parametrize("moment", range(1, 8))
def test_a_folder_survives_a_kill_at_every_step(tmp_path, monkeypatch, moment):
    """Dies at the k-th step that changes the disk, and nothing is cleaned up after it: as after SIGKILL."""
    folder = tmp_path / "f"
    with new_folder(folder) as new:
        (new / "w").write_text("old")
    count = 0

    def dying(real):
        def operation(*args, **options):
            nonlocal count
            count += 1
            if count >= moment:
                raise Stopped
            return real(*args, **options)

        return operation

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(shutil, "rmtree", dying(shutil.rmtree))
        try:
            with new_folder(folder) as new:
                (new / "w").write_text("new")
            killed = False
        except Stopped:
            killed = True
    assert killed == (moment <= 6)  # rmtree of a left-over, of the last old, two moves, rmtree of the old, clean-up
    restore_folder(folder)
    assert (folder / "w").read_text() == ("old" if moment <= 4 else "new")
    with new_folder(folder) as new:
        (new / "w").write_text("newer")
    assert ((folder / "w").read_text(), names(tmp_path)) == ("newer", ["f"])


def test_restoring_never_replaces_what_is_there(tmp_path):
    restore_folder(tmp_path / "f")
    assert names(tmp_path) == []
    for name in ("f", ".f.previous"):
        (tmp_path / name).mkdir()
    restore_folder(tmp_path / "f")
    assert names(tmp_path) == [".f.previous", "f"]


WRITER = """
import sys
from safeladder.atomic import write_text
for n in range(10**9):
    write_text(sys.argv[1], f"{n % 10}" * 200_000)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "x"
    write_text(path, "0" * 200_000)
    for pause in (0.0, 0.013, 0.029):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        begun = path.stat().st_ino
        while path.stat().st_ino == begun:
            assert writer.poll() is None
            time.sleep(0.005)
        time.sleep(pause)
        writer.kill()
        writer.wait()
        text = path.read_text()
        assert len(text) == 200_000 and len(set(text)) == 1
