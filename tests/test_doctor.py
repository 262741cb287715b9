"""The doctor: installed packages, extras, machine, recipe."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from safeladder import cli, doctor
from safeladder.config import Recipe, load_recipe
from safeladder.doctor import EXTRAS, Machine, diagnose
from safeladder.types import SafeladderError

GB = 10**9


@pytest.fixture
def tiny(tmp_path: Path) -> Recipe:
    path = tmp_path / "tiny.yaml"
    path.write_text("name: tiny\nprocesses: 2\nrungs: {base: {kind: sft, steps: 1, batch_size: 1}}\n")
    return load_recipe(path)


def on(monkeypatch: pytest.MonkeyPatch, **sizes) -> None:
    machine = {"cores": 2, "memory": 16 * GB, "disk": 100 * GB, "gpus": (), "kernels": "compiled", **sizes}
    monkeypatch.setattr(doctor, "look", lambda: Machine(**machine))


def test_the_extras_are_those_of_the_project(project: Path):
    extras = tomllib.loads((project / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert list(EXTRAS) == list(extras)


def test_installed_versions_and_machine_are_named():
    text = "\n".join(diagnose().lines)
    for package in ("torch", "transformers", "pydantic"):
        assert f"{package} {importlib.metadata.version(package)}" in text
    assert "cores" in text
    assert "GPU" in text
    assert "passes between matrix products on the CPU: " in text


def test_B18_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch):
    installed = importlib.metadata.version

    def version(package: str) -> str:
        if package == "peft":
            raise importlib.metadata.PackageNotFoundError(package)
        return "4.0.0" if package == "transformers" else installed(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    text = "\n".join(diagnose().lines)
    assert "peft missing; add: pip install 'safeladder[lora]'" in text
    assert "transformers 4.0.0 (needs " in text


def test_running_without_installation_says_so(monkeypatch: pytest.MonkeyPatch):
    def requires(package: str):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    with pytest.raises(SafeladderError, match="not installed"):
        diagnose()


def test_the_real_machine_has_sizes():
    machine = doctor.look()
    assert machine.cores >= 1
    assert machine.memory > GB // 2
    assert machine.disk > 0


def test_a_container_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(doctor, "_CGROUP", limit)
    limit.write_text("123456789\n")
    assert doctor.look().memory == 123456789
    limit.write_text("max\n")
    assert doctor.look().memory > 123456789


def test_the_laptop_model_suits_a_laptop(monkeypatch, tiny):
    on(monkeypatch)
    report = diagnose(tiny)
    assert report.suits
    assert "suits this machine" in report.lines[-1]


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"memory": GB}, "2 processes need"),
        ({"disk": 100}, "checkpoints take"),
        ({"gpus": (("small", GB // 2),)}, "2 processes need as many GPUs, the machine has 1"),
        ({"gpus": (("small", GB // 2), ("small", GB // 2))}, "a GPU with"),
        ({"gpus": None}, "torch is not installed"),
    ],
)
def test_what_does_not_suit_is_said(monkeypatch, tiny, sizes, words):
    on(monkeypatch, **sizes)
    report = diagnose(tiny)
    assert not report.suits
    assert any(words in line for line in report.lines)


def test_a_gpu_recipe_needs_a_gpu(monkeypatch, project: Path):
    on(monkeypatch)
    report = diagnose(load_recipe(project / "recipes" / "qwen2.5-vl-7b.yaml"))
    assert not report.suits
    assert any("torch sees no GPU" in line for line in report.lines)


def test_the_exit_code_tells(monkeypatch, tmp_path, tiny, capsys):
    recipe = str(tmp_path / "tiny.yaml")
    on(monkeypatch)
    assert cli.main(["doctor", recipe]) == 0
    on(monkeypatch, memory=GB)
    assert cli.main(["doctor", recipe]) == 1
    assert "does not suit" in capsys.readouterr().out
