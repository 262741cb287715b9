"""Where a model is steered: every layer of a tower and its MLP, by exact module path.

One entry a family and tower. Names are never matched by substring: ``mlp`` is also part of Qwen2.5-VL's merger and of
other projectors, and a hook there would steer something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from safeladder.models.families import Family, unwrap
from safeladder.types import SafeladderError

Tower = Literal["language", "vision"]
TOWERS: tuple[Tower, ...] = ("language", "vision")


@dataclass(frozen=True, slots=True)
class LayerPath:
    """Where a tower keeps its layers. `layers` is the path of the module list, `depth` names the config's count."""

    layers: str
    config: str
    depth: str
    mlp: str = "mlp"


LAYERS: dict[tuple[str, Tower], LayerPath] = {
    ("qwen2_5_vl", "language"): LayerPath("model.language_model.layers", "text_config", "num_hidden_layers"),
    ("qwen2_5_vl", "vision"): LayerPath("model.visual.blocks", "vision_config", "depth"),
    ("internvl", "language"): LayerPath("model.language_model.layers", "text_config", "num_hidden_layers"),
    ("internvl", "vision"): LayerPath("model.vision_tower.encoder.layer", "vision_config", "num_hidden_layers"),
    ("llama", "language"): LayerPath("model.layers", "", "num_hidden_layers"),
}


def tower_layers(model: Any, family: Family, tower: Tower) -> list[Any]:
    """Every layer module of a tower, first to last.

    Args:
        model: the Hugging Face model, LoRA-wrapped or not.
        family: the model's family.
        tower: the decoder ("language") or the vision tower ("vision").

    Raises:
        SafeladderError: the family has no such tower, or another number of layers than the config says.
    """
    path = LAYERS.get((family.name, tower))
    if path is None:
        raise SafeladderError(f"the {family.name} family has no {tower} tower to steer")
    plain = unwrap(model)
    layers = list(plain.get_submodule(path.layers))
    config = getattr(plain.config, path.config) if path.config else plain.config
    expected = int(getattr(config, path.depth))
    if len(layers) != expected:
        raise SafeladderError(f"{path.layers} has {len(layers)} layers, the config says {expected}")
    return layers


def tower_mlps(model: Any, family: Family, tower: Tower) -> list[Any]:
    """The MLP of every layer of a tower: where directions are added. Errors: see `tower_layers`."""
    name = LAYERS[family.name, tower].mlp if (family.name, tower) in LAYERS else ""
    return [layer.get_submodule(name) for layer in tower_layers(model, family, tower)]


def tower_width(model: Any, family: Family, tower: Tower) -> int:
    """Hidden size of a tower."""
    config = unwrap(model).config
    path = LAYERS[family.name, tower]
    return int((getattr(config, path.config) if path.config else config).hidden_size)
