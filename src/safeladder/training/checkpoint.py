"""Crash-safe trainer state: safetensors for tensors, JSON for the rest, nothing pickled.

A checkpoint is a folder ``step-000050`` written under another name, flushed, and renamed; ``LATEST`` names the newest
finished one and is replaced atomically. A kill at any moment leaves either the old or the new state, never half of one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from safeladder.atomic import new_folder, restore_folder, write_text
from safeladder.models.families import unwrap
from safeladder.models.load import Dtype, load_checkpoint
from safeladder.types import SafeladderError

_LATEST = "LATEST"


def save_state(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    """Store a nested mapping of tensors and plain values as checkpoint `step`, and drop older checkpoints."""
    name = f"step-{step:06d}"
    tensors: dict[str, Tensor] = {}
    plain = _flatten(state, "", tensors)
    with new_folder(folder / name) as begun:
        save_file(tensors, begun / "tensors.safetensors")
        write_text(begun / "state.json", json.dumps(plain))
    write_text(folder / _LATEST, name)
    for old in folder.glob("step-*"):
        if old.name != name:
            shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The newest finished checkpoint, or None where there is none.

    Raises:
        SafeladderError: the checkpoint that ``LATEST`` names is damaged.
    """
    pointer = folder / _LATEST
    if not pointer.is_file():
        return None
    place = folder / pointer.read_text(encoding="utf-8").strip()
    restore_folder(place)
    try:
        plain = json.loads((place / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(place / "tensors.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise SafeladderError(f"checkpoint {place} cannot be read: {error}") from None
    return _restore(plain, tensors)


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Plain JSON with ``{"__tensor__": key}`` where a tensor stood; the tensors go to `tensors`."""
    if isinstance(value, Tensor):
        while path in tensors:  # keys may hold slashes, so that two places can have one path
            path += "'"
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"__tensor__": path}
    if isinstance(value, Mapping):
        keys = [[isinstance(k, int), str(k)] for k in value]
        return {
            "__map__": [[k, _flatten(v, f"{path}/{k[1]}", tensors)] for k, v in zip(keys, value.values(), strict=True)]
        }
    if isinstance(value, list | tuple):
        kind = "__tuple__" if isinstance(value, tuple) else "__list__"
        return {kind: [_flatten(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]}
    return value


def _restore(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "__tensor__" in value:
        return tensors[value["__tensor__"]]
    if "__map__" in value:
        return {int(k[1]) if k[0] else k[1]: _restore(v, tensors) for k, v in value["__map__"]}
    if "__tuple__" in value:
        return tuple(_restore(v, tensors) for v in value["__tuple__"])
    return [_restore(v, tensors) for v in value["__list__"]]


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Put a saved checkpoint's weights into a model of the same shape; LoRA adapters start over from zero.

    Raises:
        SafeladderError: the folder holds no checkpoint, or one that does not fit.
    """
    # Released checkpoints keep older parameter names; only transformers knows how to map them.
    dtype: Dtype = "bfloat16" if unwrap(model).dtype == torch.bfloat16 else "float32"
    saved, _, _ = load_checkpoint(folder, dtype=dtype)
    state = dict(saved.named_parameters())
    plain = unwrap(model)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if ".lora_" in name:
                if ".lora_B." in name:
                    parameter.zero_()
                continue
            key = name.replace(".base_layer.", ".")
            if key not in state or state[key].shape != parameter.shape:
                raise SafeladderError(f"{folder} does not fit the model: {key} is missing or has another shape")
            parameter.copy_(state[key])
