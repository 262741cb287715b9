"""What is installed, what each extra would add, what the machine has, and whether it suits a recipe."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from safeladder import __version__
from safeladder.config import Recipe
from safeladder.ladder import check
from safeladder.ladder.memory import HEADROOM, gigabytes
from safeladder.types import SafeladderError

EXTRAS = {
    "world": "the handwritten digits of the laptop world",
    "eval": "evaluation after each rung",
    "plot": "the report's figures",
    "lora": "low-rank adapters",
    "verify": "equality of mathematical answers",
    "search": "an index of pages on disk, and its server",
    "serve": "the OpenAI-compatible server and its editor page",
    "all": "all of the above",
    "dev": "work on safeladder",
}
"""Extra -> what it is for. The packages come from the installed metadata."""

_CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What to print, and whether the machine suits the recipe (True without one)."""

    lines: tuple[str, ...]
    suits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Sizes in bytes. `gpus`: name and memory of each GPU that torch sees; None where torch is missing. `kernels`:
    whether `kernels.c` is compiled, or why not.
    """

    cores: int
    memory: int
    disk: int
    gpus: tuple[tuple[str, int], ...] | None
    kernels: str


def diagnose(recipe: Recipe | None = None) -> Diagnosis:
    """Look at the installation and the machine, and at the recipe's needs where one is given."""
    machine = look()
    lines = [
        f"safeladder {__version__}, Python {platform.python_version()}, {platform.platform()}",
        "",
        "installed",
    ]
    lines += [f"  {line}" for line in _core()]
    lines += ["", "extras", *(f"  {line}" for line in _extras())]
    lines += ["", "machine", *(f"  {line}" for line in _machine(machine))]
    if recipe is None:
        return Diagnosis(lines=tuple(lines), suits=True)
    verdicts, suits = _suits(recipe, machine)
    lines += ["", f"recipe {recipe.name}", *(f"  {line}" for line in verdicts)]
    return Diagnosis(lines=tuple(lines), suits=suits)


def look() -> Machine:
    """This machine, as far as this process may use it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP.read_text().strip() if _CGROUP.is_file() else "max"
    return Machine(
        cores=cores,
        memory=min(total, int(limit)) if limit.isdigit() else total,
        disk=shutil.disk_usage(".").free,
        gpus=_gpus(),
        kernels=_kernels(),
    )


def _kernels() -> str:
    try:
        from safeladder import kernels
    except ImportError:
        return "torch is not installed"
    return kernels.status()


def _gpus() -> tuple[tuple[str, int], ...] | None:
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return ()
    properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return tuple((p.name, p.total_memory) for p in properties)


def _requirements() -> list[Requirement]:
    try:
        return [Requirement(line) for line in importlib.metadata.requires("safeladder") or ()]
    except importlib.metadata.PackageNotFoundError:
        raise SafeladderError("safeladder itself is not installed: pip install -e . (or make venv)") from None


def _core() -> Iterator[str]:
    for requirement in _requirements():
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _state(requirement)


def _extras() -> Iterator[str]:
    """One line an extra: its packages, what is missing, what it is for."""
    for extra, purpose in EXTRAS.items():
        wanted = [
            r for r in _requirements() if r.marker and r.marker.evaluate({"extra": extra}) and r.name != "safeladder"
        ]
        states = ", ".join(_state(r) for r in wanted)
        missing = any(_version(r.name) is None for r in wanted)
        install = f"; add: pip install 'safeladder[{extra}]'" if missing else ""
        yield f"{extra:7}{purpose}{': ' if states else ''}{states}{install}"


def _state(requirement: Requirement) -> str:
    version = _version(requirement.name)
    if version is None:
        return f"{requirement.name} missing"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} {version} (needs {requirement.specifier})"
    return f"{requirement.name} {version}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine(machine: Machine) -> Iterator[str]:
    memory, disk = gigabytes(machine.memory), gigabytes(machine.disk)
    yield f"{machine.cores} cores, {memory} memory, {disk} free disk here"
    yield f"passes between matrix products on the CPU: {machine.kernels}"
    if machine.gpus is None:
        yield "GPU: unknown, torch is not installed"
    elif not machine.gpus:
        yield "GPU: none that torch sees"
    else:
        yield from (f"GPU {i}: {name}, {gigabytes(size)}" for i, (name, size) in enumerate(machine.gpus))


def _suits(recipe: Recipe, machine: Machine) -> tuple[list[str], bool]:
    if machine.gpus is None:
        return ["cannot tell: torch is not installed"], False
    lines = check.check(recipe)[1:]
    need = check.memory(recipe)
    if need is None:
        return [*lines, "cannot tell: the model's size is not known; pass a recipe with model.path"], False
    processes = check.process_count(recipe)
    on_gpu = bool(machine.gpus) and recipe.model.device != "cpu"
    problems: list[str] = []
    if recipe.model.device == "cuda" and not machine.gpus:
        problems.append("model.device is 'cuda', and torch sees no GPU")
    if on_gpu:
        smallest = min(size for _, size in machine.gpus)
        if processes > len(machine.gpus):
            problems.append(f"{processes} processes need as many GPUs, the machine has {len(machine.gpus)}")
        if need.total > smallest * (1 - HEADROOM):
            problems.append(f"{gigabytes(need.total)} a GPU with {gigabytes(smallest)}")
    elif need.total * processes > machine.memory * (1 - HEADROOM):
        problems.append(f"{processes} processes need {gigabytes(need.total * processes)}")
    # Two training states and one exported checkpoint a rung.
    checkpoints = (need.weights + 2 * (need.weights + need.optimizer)) * len(recipe.rungs)
    if checkpoints > machine.disk:
        problems.append(f"checkpoints take {gigabytes(checkpoints)} of disk")
    if not problems:
        return [*lines, f"suits this machine ({HEADROOM:.0%} of the memory is left to activations)"], True
    return [*lines, *(f"does not suit this machine: {problem}" for problem in problems)], False
