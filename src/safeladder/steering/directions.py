"""Directions in hidden states: estimated from pairs, kept on disk, added to a model while it runs.

A direction has one vector a layer. It is added to the output of each layer's MLP (VTI, arXiv 2410.15778; Treble
Counterfactual, arXiv 2503.06169), by one of two formulas (`shifted`). `Steerer` does it on the Hugging Face modules,
`decoder_edit` on the in-process engine's decoder; both call the same function, and tests hold them to the same values.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from safeladder.atomic import new_file, write_text
from safeladder.models.families import Family, unwrap
from safeladder.rollout.decoder import MlpEdit
from safeladder.steering.layers import TOWERS, Tower, tower_layers, tower_width
from safeladder.types import SafeladderError

Mode = Literal["norm_preserving", "additive"]
Tokens = Literal["all", "prompt", "generated"]
Schedule = Callable[[int], float]
"""Number of tokens generated so far (0 while the prompt runs) -> factor on the strength."""

_SETTINGS, _VECTORS = "directions.json", "directions.safetensors"
_FORMAT = 1
_PROBES = 64
"""Values of each weight that identify a model: any training changes some of them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Direction:
    """One direction and how it is added.

    Attributes:
        name: "NV", "NT", "NVT" of Treble, or a name of one's own.
        tower: which tower it is added to.
        layers: numbers of the layers that `vectors` belong to, ascending.
        vectors: float32 [layers, width]; with `grid` [layers, rows, columns, width], one a place in the image.
        method: how it was estimated.
        n: pairs it was estimated from.
        mode: see `shifted`.
        scale: see `shifted`.
        strength: the λ of `shifted`; 0 switches the direction off.
    """

    name: str
    tower: Tower
    layers: tuple[int, ...]
    vectors: Tensor
    method: str
    n: int
    mode: Mode = "norm_preserving"
    scale: float = 0.1
    strength: float = 0.9

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of places that have a vector of their own; None: one vector for every token."""
        return (self.vectors.shape[1], self.vectors.shape[2]) if self.vectors.ndim == 4 else None

    def pooled(self) -> Direction:
        """The same direction with the mean over places as every token's vector."""
        return self if self.grid is None else replace(self, vectors=self.vectors.mean(dim=(1, 2)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Directions:
    """Directions of one model, in the order in which they are added.

    Attributes:
        family: of the model.
        model: `fingerprint` of the model they were estimated on.
        items: the directions.
        about: what else is worth keeping: data, seed, options (JSON values).
    """

    family: str
    model: str
    items: tuple[Direction, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Direction:
        for item in self.items:
            if item.name == name:
                return item
        raise SafeladderError(f"no direction {name!r}; there are: {', '.join(d.name for d in self.items) or 'none'}")

    def only(self, *names: str) -> Directions:
        """These directions alone, in the order they have here."""
        for name in names:
            self[name]
        return replace(self, items=tuple(d for d in self.items if d.name in names))

    def of(self, tower: Tower) -> tuple[Direction, ...]:
        """The directions of a tower that are switched on."""
        return tuple(d for d in self.items if d.tower == tower and d.strength != 0.0)

    def with_strength(self, strength: float | Mapping[str, float], *, scale: float | None = None) -> Directions:
        """Other strengths, for all or by name, and another scale."""
        by_name = strength if isinstance(strength, Mapping) else dict.fromkeys((d.name for d in self.items), strength)
        for name in by_name:
            self[name]
        items = tuple(
            replace(
                d,
                strength=float(by_name.get(d.name, d.strength)),
                scale=d.scale if scale is None else scale,
            )
            for d in self.items
        )
        return replace(self, items=items)

    def require(self, model: Any, family: Family) -> None:
        """Raise a `SafeladderError` unless these are directions of this very model."""
        if family.name != self.family:
            raise SafeladderError(f"these directions are of a {self.family} model, not of a {family.name} one")
        for item in self.items:
            width, depth = tower_width(model, family, item.tower), len(tower_layers(model, family, item.tower))
            if item.vectors.shape[-1] != width or (item.layers and item.layers[-1] >= depth):
                raise SafeladderError(
                    f"direction {item.name} is for {item.vectors.shape[-1]} wide layers up to number "
                    f"{item.layers[-1]}; the {item.tower} tower has {depth} layers of width {width}"
                )
        if fingerprint(model) != self.model:
            raise SafeladderError("these directions were estimated on other weights; run safeladder directions fit")

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``directions.json`` and ``directions.safetensors``; the settings come last, each file at once."""
        target = Path(folder)
        rows = []
        for item in self.items:
            row = {f.name: getattr(item, f.name) for f in fields(item) if f.name != "vectors"}
            rows.append({**row, "layers": list(item.layers)})
        settings = {"format": _FORMAT, "family": self.family, "model": self.model, "directions": rows,
                    "about": dict(self.about)}  # fmt: skip
        tensors = {f"{i}.{d.name}": d.vectors.contiguous() for i, d in enumerate(self.items)}
        try:
            with new_file(target / _VECTORS) as temporary:
                save_file(tensors, temporary)
            write_text(target / _SETTINGS, json.dumps(settings, indent=1) + "\n")
        except (OSError, SafetensorError) as error:
            raise SafeladderError(f"cannot write directions to {target}: {error}") from None


def load_directions(folder: str | os.PathLike[str]) -> Directions:
    """What `Directions.save` wrote.

    Raises:
        SafeladderError: files missing or damaged, or settings that do not fit the tensors.
    """
    source = Path(folder)
    try:
        settings = json.loads((source / _SETTINGS).read_text(encoding="utf-8"))
        with safe_open(source / _VECTORS, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise SafeladderError(f"{source} holds no directions (safeladder directions fit writes them)") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise SafeladderError(f"directions in {source} cannot be read ({str(error).splitlines()[0]})") from None
    try:
        if settings["format"] != _FORMAT:
            raise SafeladderError(f"directions in {source} have format {settings['format']!r}; this reads {_FORMAT}")
        items = tuple(
            Direction(**{**row, "layers": tuple(row["layers"]), "vectors": tensors[f"{i}.{row['name']}"]})
            for i, row in enumerate(settings["directions"])
        )
        found = Directions(
            family=settings["family"], model=settings["model"], items=items, about=dict(settings["about"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SafeladderError(f"{source / _SETTINGS} is damaged ({error})") from None
    for item in items:
        sound = item.vectors.ndim in (2, 4) and len(item.vectors) == len(item.layers) and item.tower in TOWERS
        if not sound or item.mode not in get_args(Mode) or not bool(item.vectors.isfinite().all()):
            raise SafeladderError(f"{source}: direction {item.name!r} is damaged")
    return found


def fingerprint(model: Any) -> str:
    """12 hex digits that tell models apart: names, shapes and some values of every weight.

    Values are compared in bfloat16, so that a checkpoint has one fingerprint in whichever type it is loaded.
    """
    total = hashlib.sha256()
    for name, value in sorted(unwrap(model).state_dict().items()):
        flat = value.detach().reshape(-1)
        step = max(1, flat.numel() // _PROBES)
        probe = flat[::step].to("cpu", torch.bfloat16).float()
        total.update(f"{name}{tuple(value.shape)}".encode() + probe.numpy().tobytes())
    return total.hexdigest()[:12]


def shifted(x: Tensor, direction: Tensor, *, mode: Mode, scale: float, strength: float) -> Tensor:
    """Hidden states moved along a direction; data type and device are those of `x`.

    ``norm_preserving`` (VTI, Treble): x' = ‖x‖ · normalize(x/‖x‖ + scale·λ·d/‖d‖), λ = `strength`.
    ``additive``: x' = x + scale·λ·d.

    Args:
        x: [..., width].
        direction: broadcasts against `x`.

    Returns:
        As `x`; computed in float32.
    """
    states, d = x.float(), direction.to(x.device, torch.float32)
    if mode == "additive":
        return (states + scale * strength * d).to(x.dtype)
    turned = F.normalize(states, dim=-1) + scale * strength * F.normalize(d, dim=-1)
    return (states.norm(dim=-1, keepdim=True) * F.normalize(turned, dim=-1)).to(x.dtype)


class Clock:
    """Tells the prompt's forward pass from those of generated tokens, one at a time.

    A pass of several tokens is a prompt; generated tokens come one a pass (a template makes no prompt of one token).
    """

    def __init__(self) -> None:
        self.generated = 0
        self._started = False

    def tick(self, size: int) -> None:
        """A forward pass of `size` tokens begins."""
        self.generated = self.generated + 1 if size == 1 and self._started else 0
        self._started = True

    def factor(self, tokens: Tokens, schedule: Schedule | None) -> float:
        """What the strength is multiplied with in this pass."""
        if (tokens == "prompt" and self.generated) or (tokens == "generated" and not self.generated):
            return 0.0
        return 1.0 if schedule is None else schedule(self.generated)


class Edit:
    """The directions of one tower, applied layer by layer: an `MlpEdit`.

    Args:
        directions: in the order in which they are added.
        rows: bool [B], which rows of the batch are steered; None: all. The others stay as they are, bit by bit.
        mask: bool [B, S], which tokens of a prompt of S tokens are steered; None: all.
        tokens: steer the prompt's tokens, the generated ones, or all (as published).
        schedule: changes the strength over a response.

    It counts forward passes, so with `tokens` or `schedule` every generation needs one of its own.
    """

    def __init__(
        self,
        directions: Sequence[Direction],
        *,
        rows: Tensor | None = None,
        mask: Tensor | None = None,
        tokens: Tokens = "all",
        schedule: Schedule | None = None,
    ) -> None:
        self.rows, self.mask, self.schedule = rows, mask, schedule
        self.tokens: Tokens = tokens
        self._clock = Clock()
        self._steps: dict[int, list[tuple[Direction, Tensor]]] = {}
        for item in directions:
            for layer, vector in zip(item.layers, item.vectors, strict=True):
                self._steps.setdefault(layer, []).append((item, vector))

    def __call__(self, layer: int, update: Tensor) -> Tensor:
        """What stands in for layer `layer`'s MLP output [B, S, H] (or [N, H])."""
        if layer == 0:
            self._clock.tick(update.shape[-2])
        steps = self._steps.get(layer)
        factor = self._clock.factor(self.tokens, self.schedule)
        if not steps or factor == 0.0:
            return update
        moved = update
        for item, vector in steps:
            moved = shifted(
                moved, self._at(item, vector), mode=item.mode, scale=item.scale, strength=factor * item.strength
            )
        for chosen in (self.rows, self.mask):
            if chosen is None or (chosen.ndim == 2 and chosen.shape != update.shape[:2]):
                continue
            chosen = chosen.to(update.device).view(*chosen.shape, *[1] * (update.ndim - chosen.ndim))
            moved = torch.where(chosen, moved, update)
        return moved

    def _at(self, item: Direction, vector: Tensor) -> Tensor:
        """The vector of every token."""
        return vector


def decoder_edit(
    directions: Directions | Sequence[Direction],
    *,
    rows: Tensor | None = None,
    mask: Tensor | None = None,
    tokens: Tokens = "all",
    schedule: Schedule | None = None,
) -> MlpEdit:
    """The language directions as an edit for `LocalEngine.edit` and `Decoder.forward`.

    Directions of the vision tower are not the decoder's: `hooks.steered` applies both. See `Edit` for the arguments.
    """
    items = directions.of("language") if isinstance(directions, Directions) else directions
    return Edit([d for d in items if d.tower == "language"], rows=rows, mask=mask, tokens=tokens, schedule=schedule)
