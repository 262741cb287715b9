"""The smallest ladder that has every kind of rung, and what two runs of it must agree on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "processes": 1,
    "model": {
        "family": "qwen2_5_vl",
        "size": "test",
        "vocab_size": 320,
        "max_pixels": 12544,
        "device": "cpu",
    },
    "rungs": {
        "base": {
            "kind": "sft",
            "steps": 5,
            "batch_size": 4,
            "samples": 48,
            "train_vision": True,
            "grounding_weight": 1.0,
            "styles": {"comply": 1},
            "mix": {"count": 1, "text_harmful": 1},
            "checkpoint_every": 2,
            "optimizer": {"name": "muon", "learning_rate": 0.001},
        },
        "cot-sft": {
            "kind": "sft",
            "steps": 3,
            "batch_size": 4,
            "samples": 48,
            "styles": {"careful": 1},
            "curation": {},
            "mix": {"count": 1, "text_harmful": 1},
            "checkpoint_every": 2,
            "optimizer": {"learning_rate": 0.001},
        },
        "m3-rl": {
            "kind": "rl",
            "samples": 8,
            "prompts_per_step": 2,
            "group_size": 2,
            "max_new_tokens": 8,
            "stages": {
                "general": {"steps": 2, "mix": {"count": 1}},
                "joint": {"steps": 1, "mix": {"text_harmful": 1}},
            },
            "checkpoint_every": 2,
            "collapse_entropy": 0.0,
            "optimizer": {"learning_rate": 0.001},
            "algorithm": {"preset": "grpo"},
        },
        "efficient-rl": {
            "kind": "rl",
            "start_from": "cot-sft",
            "samples": 8,
            "prompts_per_step": 2,
            "group_size": 2,
            "max_new_tokens": 8,
            "stages": {"joint": {"steps": 2, "mix": {"count": 1}}},
            "checkpoint_every": 1,
            "collapse_entropy": 0.0,
            "optimizer": {"learning_rate": 0.001},
            "algorithm": {"options": {"length": {"alpha": 0.96, "mu": 1.0, "beta": 0.0, "max_length": 8}}},
        },
        "search-rl": {
            "kind": "search",
            "samples": 8,
            "prompts_per_step": 2,
            "group_size": 2,
            "max_new_tokens": 8,
            "turn_tokens": 8,
            "max_turns": 3,
            "observation_tokens": 120,
            "episode_tokens": 400,
            "stages": {"joint": {"steps": 3, "mix": {"search_one_hop": 1, "count": 1}}},
            "checkpoint_every": 2,
            "collapse_entropy": 0.0,
            "optimizer": {"learning_rate": 0.001},
            "algorithm": {"preset": "grpo"},
            "constraint": {"target": 0.9, "alarm_patience": 2},
            "cold_start": {
                "steps": 3,
                "batch_size": 4,
                "samples": 16,
                "styles": {"careful": 1},
                "mix": {"search_two_hop": 1, "search_missing": 1, "text_harmful": 1},
                "brier_weight": 0.5,
                "checkpoint_every": 2,
                "optimizer": {"learning_rate": 0.001},
            },
        },
    },
    "evaluation": {
        "samples": 20,
        "max_new_tokens": 8,
        "pass_at_k": 2,
        "pass_at_k_samples": 6,
        "bootstrap": 50,
        "search_samples": 8,
        "votes": 2,
        "vote_samples": 2,
    },
}

_OF_THE_MOMENT = ("seconds", "seconds_", "train_seconds", "wall_seconds")


def write_recipe(folder: Path, **changes: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}, sort_keys=False))
    return path


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def timeless(value: Any) -> Any:
    """A nested value without what differs between two runs of the same thing: seconds and names of logs."""
    if isinstance(value, dict):
        return {
            key: timeless(each)
            for key, each in value.items()
            if not key.startswith(_OF_THE_MOMENT) and key not in ("log", "created", "provenance")
        }
    return [timeless(each) for each in value] if isinstance(value, list) else value


def outcome(folder: Path) -> dict[str, Any]:
    """Everything a finished run says, but for times: weights byte by byte, logs line by line, the report."""
    found: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("checkpoints/*/*.safetensors"))
    }
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        found[name] = timeless(lines(folder / name))
    found["report.json"] = timeless(json.loads((folder / "report.json").read_text()))
    return found


def assert_same_outcome(found: Path, expected: Path) -> None:
    mine, theirs = outcome(found), outcome(expected)
    assert mine.keys() == theirs.keys() and len(mine) > 4
    for key, value in theirs.items():
        assert mine[key] == value, key


def leftovers(folder: Path) -> list[str]:
    """Files of writes that were never finished."""
    return [
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.name.endswith(".tmp") or (p.name.startswith(".") and p.name not in (".", ".."))
    ]


def children_of(launcher: int) -> list[int]:
    """Living processes that a launcher started, found by their environment (they may have lost their
    parent).
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"SAFELADDER_PARENT={launcher}".encode() in environment and state != "Z":
                found.append(int(entry.name))
    return found
