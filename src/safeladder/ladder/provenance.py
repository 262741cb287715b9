"""What a run leaves behind so that it can be understood and repeated."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from safeladder.atomic import write_text
from safeladder.config import Recipe, dump_recipe
from safeladder.training.parallel import Parallel
from safeladder.types import SafeladderError

_PACKAGES = ("safeladder", "torch", "transformers", "tokenizers", "inspect-ai", "peft", "numpy", "scikit-learn")


def start_run(recipe: Recipe, folder: Path, parallel: Parallel, *, resume: bool) -> None:
    """Write recipe.yaml and environment.json, or check that a resumed run has the same recipe.

    Raises:
        SafeladderError: `resume` with another recipe: its numbers would mix two experiments.
    """
    text = dump_recipe(recipe)
    path = folder / "recipe.yaml"
    if parallel.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        if resume and path.is_file():
            if path.read_text(encoding="utf-8") != text:
                raise SafeladderError(
                    f"{folder} holds a run of another recipe; give the same recipe and options, or another --out"
                )
        else:
            write_text(path, text)
            write_text(folder / "environment.json", json.dumps(environment(recipe), indent=1) + "\n")
    parallel.barrier()


def environment(recipe: Recipe) -> dict[str, Any]:
    """Versions, revision, machine and seed."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "python": platform.python_version(),
        "git_revision": _revision(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "seed": recipe.seed,
    }


def _revision() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
