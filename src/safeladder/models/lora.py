"""LoRA adapters on the text model, through peft (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from safeladder.models.families import Family, unwrap
from safeladder.types import SafeladderError


def add_lora(model: Any, family: Family, rank: int, alpha: int, targets: Sequence[str] | None = None) -> nn.Module:
    """Wrap a model so that only low-rank updates of its text model train: W + alpha/rank B A, B = 0 at first.

    The vision tower gets no adapter, also where its layers carry the same names.

    Args:
        model: a plain Hugging Face model; its layers are modified in place.
        family: the model's family.
        rank: inner dimension of the update.
        alpha: scale of the update.
        targets: names of the linear layers to adapt; the family's defaults where None.

    Raises:
        SafeladderError: peft is not installed, `rank` is not positive, or a target names no layer.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise SafeladderError("LoRA needs peft: install safeladder[lora]") from None
    if rank < 1:
        raise SafeladderError(f"LoRA rank must be at least 1, not {rank}")
    linear = [n for n, m in family.text_model(model).named_modules() if isinstance(m, nn.Linear)]
    known = {name.rpartition(".")[2] for name in linear}
    chosen = list(family.lora_targets if targets is None else targets)
    unknown = [target for target in chosen if target not in known]
    if unknown or not chosen:
        raise SafeladderError(f"unknown LoRA targets {unknown}; allowed: {', '.join(sorted(known))}")
    layers = rf"{re.escape(family.text_path)}\.(.+\.)?({'|'.join(map(re.escape, chosen))})"
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers, lora_dropout=0.0)
    with warnings.catch_warnings():
        # peft still asks transformers for this attribute by its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(model, config)


def is_lora(model: Any) -> bool:
    """Whether a model carries adapters."""
    return unwrap(model) is not model


def merge(model: Any) -> Any:
    """Fold the adapters into the weights and return the plain model; without adapters it comes back as is."""
    return model.merge_and_unload() if is_lora(model) else model


def merged_state_dict(model: Any) -> dict[str, Tensor]:
    """The merged weights under plain Hugging Face names; the model itself stays as it is, adapters and all.

    What a checkpoint or another engine is given. (Merging in place and taking the update out again would
    change the weights by a rounding error at each export.)
    """
    base = unwrap(model)
    if base is model:
        return dict(model.state_dict())
    adapted = {name: module for name, module in base.named_modules() if hasattr(module, "get_delta_weight")}
    weights: dict[str, Tensor] = {}
    for name, value in base.state_dict().items():
        layer, marker, rest = name.rpartition(".base_layer.")
        if marker:
            module = adapted[layer]
            if rest == "weight":
                for adapter in module.active_adapters:
                    value = value + module.get_delta_weight(adapter).to(value.dtype)
            weights[f"{layer}.{rest}"] = value.detach()
        elif name.partition(".lora_")[0] not in adapted:
            weights[name] = value
    return weights
