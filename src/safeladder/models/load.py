"""Checkpoints on disk: load, save, and look without loading.

A checkpoint is a local Hugging Face directory with safetensors weights. Pickled weights are refused, the
network is never asked, and a load that would leave a weight at its random initial value is an error.
"""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers.utils import logging as hf_logging

from safeladder.atomic import new_folder, restore_folder
from safeladder.models.families import (
    Family,
    family_of,
    require_family,
    tokenizer_of,
    unwrap,
    vocabulary_rows,
)
from safeladder.models.lora import is_lora, merged_state_dict
from safeladder.models.processors import load_processor, save_processor
from safeladder.types import SafeladderError

Dtype = Literal["float32", "bfloat16"]

_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_INDEX = "model.safetensors.index.json"
_MAX_HEADER = 100_000_000
"""The safetensors format's own limit on its header, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """What a checkpoint's config and safetensors headers say.

    Attributes:
        family: the model's family.
        parameters: elements of all stored tensors (tied weights are stored, and counted, once).
        dtype: data type of most of the parameters, as torch names it.
        bytes: size of all stored tensors.
        shards: weight files.
    """

    family: Family
    parameters: int
    dtype: str
    bytes: int
    shards: int


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    dtype: Dtype = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    expected: str | None = None,
) -> tuple[Any, Any, Family]:
    """A local checkpoint's model (evaluation mode), processor and family.

    Args:
        path: the checkpoint directory.
        dtype: data type of the weights in memory.
        device: where the weights go.
        trust_remote_code: run Python code shipped with the checkpoint.
        expected: name of the family the caller needs, or None for any we support.

    Raises:
        SafeladderError: nothing there, another family than expected, pickled or damaged or missing weights,
            or a processor whose image token or vocabulary is not the model's.
    """
    folder = _checkpoint_folder(path)
    info = check_shapes(folder)
    if expected is not None:
        require_family(info.family, [expected], str(folder))
    processor = load_processor(folder, trust_remote_code=trust_remote_code)
    auto_class = getattr(transformers, info.family.auto_class)
    try:
        with _no_progress_bar():
            model, report = auto_class.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SafeladderError(f"cannot load {folder}: {_first_line(error)}") from None
    _check_complete(report, folder)
    check_tokens(model, processor, info.family, folder)
    return model.to(device).eval(), processor, info.family


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Commands show their own progress; a second bar would tear it apart."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def _check_complete(report: dict[str, Any], folder: Path) -> None:
    """Weights that were missing or misshapen were filled with random numbers: refuse them."""
    for problem in ("missing_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in report.get(problem) or ())
        if keys:
            raise SafeladderError(f"{folder}: {len(keys)} {problem.replace('_', ' ')} in the weights, e.g. {keys[0]}")


def check_tokens(model: Any, processor: Any, family: Family, where: str | os.PathLike[str]) -> None:
    """Check that model and processor agree on the visual placeholders and that every token has an embedding.

    Raises:
        SafeladderError: they do not.
    """
    tokenizer = tokenizer_of(processor)
    config = unwrap(model).config
    vocabulary = tokenizer.get_vocab()
    pairs = [("image", family.image_token, family.image_token_id(config))]
    pairs.append(("video", family.video_token, family.video_token_id(config)))
    for kind, token, expected in pairs:
        if token is not None and vocabulary.get(token) != expected:
            raise SafeladderError(
                f"{where}: the model's {kind} token id is {expected}, but {token} is {vocabulary.get(token)} "
                "in the tokenizer"
            )
    largest = max(vocabulary.values()) + 1
    rows = family.text_model(model).get_input_embeddings().weight.shape[0]
    if min(rows, vocabulary_rows(config)) < largest:
        raise SafeladderError(f"{where}: the model has {rows} embedding rows, but the tokenizer has {largest} tokens")
    if tokenizer.eos_token_id is None:
        raise SafeladderError(f"{where}: the tokenizer has no end token")


def save_checkpoint(model: Any, processor: Any, path: str | os.PathLike[str]) -> None:
    """Write model and processor as a Hugging Face checkpoint, all or nothing.

    Everything is written beside `path` and moved there at the end; an existing checkpoint is replaced. A
    LoRA model is written merged, and is itself left as it was. Plain `AutoProcessor` and `AutoModel...` read
    the result.

    Raises:
        SafeladderError: it cannot be written (a full disk, say); what was at `path` is still there.
    """
    target = Path(path)
    try:
        with new_folder(target) as begun:
            weights = merged_state_dict(model) if is_lora(model) else None
            with _no_progress_bar():
                unwrap(model).save_pretrained(begun, state_dict=weights)
            save_processor(processor, begun)
    except (OSError, SafetensorError) as error:
        raise SafeladderError(f"cannot write checkpoint {target}: {_first_line(error)}") from None


def _checkpoint_folder(path: str | os.PathLike[str]) -> Path:
    folder = Path(path)
    restore_folder(folder)
    if not folder.is_dir():
        raise SafeladderError(f"checkpoint {folder} does not exist (a local directory is needed)")
    return folder


def check_shapes(path: str | os.PathLike[str]) -> CheckpointInfo:
    """Family, size and data type of a checkpoint, from its config and safetensors headers only.

    Raises:
        SafeladderError: no or damaged config, an unknown family, pickled weights, or missing, damaged or
            truncated weight files.
    """
    folder = _checkpoint_folder(path)
    if not (folder / "config.json").is_file():
        raise SafeladderError(f"{folder} is not a checkpoint: it has no config.json")
    config = _read_json(folder / "config.json")
    family = family_of(str(config.get("model_type")))
    elements: Counter[str] = Counter()
    size = 0
    shards = _weight_files(folder)
    for shard in shards:
        for tensor in _safetensors_header(shard).values():
            elements[tensor["dtype"]] += prod(tensor["shape"])
            size += tensor["data_offsets"][1] - tensor["data_offsets"][0]
    return CheckpointInfo(
        family=family,
        parameters=elements.total(),
        dtype=_DTYPES.get(elements.most_common(1)[0][0], elements.most_common(1)[0][0]),
        bytes=size,
        shards=len(shards),
    )


_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _INDEX).is_file():
        names = sorted(set(_read_json(folder / _INDEX).get("weight_map", {}).values()))
        for name in names:
            if not (folder / name).is_file():
                raise SafeladderError(f"{folder}: weight file {name} is missing")
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"] if (folder / "model.safetensors").is_file() else []
    if files:
        return files
    pickled = sorted(f.name for f in folder.iterdir() if f.suffix in _PICKLED)
    if pickled:
        raise SafeladderError(
            f"{folder}: {pickled[0]} is a pickle, which can run code; only safetensors weights are loaded"
        )
    raise SafeladderError(f"{folder} has no weights (model.safetensors or {_INDEX})")


def _safetensors_header(file: Path) -> dict[str, dict[str, Any]]:
    """Name -> dtype, shape and data offsets; checked against the file's length."""
    length = file.stat().st_size
    with open(file, "rb") as handle:
        start = handle.read(8)
        header_size = struct.unpack("<Q", start)[0] if len(start) == 8 else _MAX_HEADER + 1
        header = handle.read(header_size) if header_size <= min(_MAX_HEADER, length) else b""
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        end = max((t["data_offsets"][1] for t in tensors.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError):
        raise SafeladderError(f"{file} is not a safetensors file, or is damaged") from None
    if 8 + header_size + end != length:
        raise SafeladderError(f"{file} is truncated: {length} bytes, {8 + header_size + end} expected")
    if not tensors:
        raise SafeladderError(f"{file} holds no weights")
    return tensors


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SafeladderError(f"cannot read {file}: {_first_line(error)}") from None
    if not isinstance(content, dict):
        raise SafeladderError(f"{file} does not hold a JSON object")
    return content


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def freeze_vision(model: nn.Module, family: Family) -> None:
    """Stop training whatever turns pixels into features, the projector included; text-only models are left.

    With the projector frozen too, a prompt's features never change and can be computed once.
    """
    for path in family.frozen_paths:
        unwrap(model).get_submodule(path).requires_grad_(False)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter, for the parameters that train; a tied parameter appears once."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}
