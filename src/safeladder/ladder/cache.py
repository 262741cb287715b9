"""Finished bases, kept by everything they depend on, so that a second run need not pretrain again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from safeladder import __version__
from safeladder.atomic import write_text
from safeladder.config import Recipe
from safeladder.models.policy import Policy
from safeladder.training.checkpoint import load_weights
from safeladder.training.sft import TrainingCost


def _place(recipe: Recipe, name: str) -> Path | None:
    """The folder of this recipe's first rung, or None where nothing is cached."""
    if recipe.base_cache is None or recipe.model.path is not None or recipe.data.files:
        return None
    depends = {
        "version": __version__,
        "seed": recipe.seed,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "model": recipe.model.model_dump(mode="json"),
        "data": recipe.data.model_dump(mode="json"),
        "rung": recipe.rungs[name].model_dump(mode="json"),
    }
    key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
    return Path(recipe.base_cache).expanduser() / f"{name}-{key}"


def restore(recipe: Recipe, name: str, policy: Policy) -> TrainingCost | None:
    """Load a cached first rung into the policy; None where there is none."""
    place = _place(recipe, name)
    if place is None or not (place / "cost.json").is_file():
        return None
    load_weights(policy.model, place)
    return TrainingCost(**json.loads((place / "cost.json").read_text(encoding="utf-8")))


def store(recipe: Recipe, checkpoint: Path, cost: TrainingCost) -> None:
    """Keep a finished first rung. Written under another name first, so a reader never sees half of it."""
    place = _place(recipe, checkpoint.name)
    if place is None or place.exists():
        return
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        shutil.copytree(checkpoint, temporary)
        write_text(temporary / "cost.json", json.dumps(asdict(cost)))
        with contextlib.suppress(OSError):  # another run was first
            os.replace(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
