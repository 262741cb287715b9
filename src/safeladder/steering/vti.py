"""Visual and textual intervention (VTI, Liu et al. 2024, arXiv 2410.15778): how vision and text directions are read.

Written from the formulas. A demonstration is a picture, a question, and two things to say about it: a truthful one and
one that names what is not there. The vision direction leads from the states of the picture to their mean over pictures
in which little can be seen; the text direction from the states after the hallucinated words to those after the truthful
ones. `vti` estimates both; `treble` builds on the same two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from safeladder.models.families import unwrap
from safeladder.models.policy import Policy
from safeladder.steering.directions import Direction, Directions, Mode, fingerprint
from safeladder.steering.estimating import DirectionEstimator, Progress, Reading, component
from safeladder.steering.hooks import vision_states
from safeladder.steering.noise import diffused, masked
from safeladder.types import SafeladderError, Sample

_AT_ONCE = 10
"""Perturbed copies of a picture in one pass of the vision tower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """A picture with its question (`sample`), and two replies: `truthful`, and `hallucinated`."""

    sample: Sample
    truthful: str
    hallucinated: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How directions are estimated and added; the defaults are the published ones.

    Attributes:
        method: "pca" (first component + mean) or "mean".
        perturbation: of pictures: "diffused" (Treble) or "masked" (VTI).
        trials: perturbed copies a picture.
        step: of the diffusion, 0 to 999.
        hidden: share of patches that are masked.
        places: vision directions keep a vector for each place of the picture and are interpolated to other sizes
            ("interpolate"), or are the mean over places ("pool").
        strength, scale, mode: how every direction is added, see `directions.shifted`.
        seed: of the perturbations.
    """

    method: Literal["pca", "mean"] = "pca"
    perturbation: Literal["diffused", "masked"] = "diffused"
    trials: int = 50
    step: int = 500
    hidden: float = 0.99
    places: Literal["interpolate", "pool"] = "interpolate"
    strength: float = 0.9
    scale: float = 0.1
    mode: Mode = "norm_preserving"
    seed: int = 42


def vti(
    policy: Policy, demonstrations: Sequence[Demonstration], settings: Settings, *, progress: Progress | None = None
) -> Directions:
    """VTI's two directions: "vision" for the vision tower and "text" for the language model.

    Raises:
        SafeladderError: no demonstrations, one without exactly one picture, or a model without vision.
    """
    check(demonstrations)
    tell = counting(progress, 2 * len(demonstrations))
    items = (
        vision_direction(policy, demonstrations, settings, name="vision", progress=tell),
        text_direction(policy, demonstrations, settings, name="text", progress=tell),
    )
    return Directions(family=policy.family.name, model=fingerprint(policy.model), items=items)


def check(demonstrations: Sequence[Demonstration]) -> None:
    """Raise a `SafeladderError` unless there are two demonstrations or more, each with one picture."""
    if len(demonstrations) < 2:
        raise SafeladderError(f"{len(demonstrations)} demonstrations; directions need 2 or more")
    for demonstration in demonstrations:
        if len(demonstration.sample.images) != 1:
            raise SafeladderError(f"demonstration {demonstration.sample.id}: needs exactly one image")


def counting(progress: Progress | None, total: int) -> Callable[[], None]:
    """Counts up to a total over several loops."""
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return tell


def vision_direction(
    policy: Policy,
    demonstrations: Sequence[Demonstration],
    settings: Settings,
    *,
    name: str,
    progress: Callable[[], None] = lambda: None,
) -> Direction:
    """From the states of a picture to their mean over perturbed copies, in every layer of the vision tower.

    Pictures of different sizes are brought to the grid that most of them have.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    differences = []
    for demonstration in demonstrations:
        differences.append(_vision_difference(policy, demonstration.sample, settings, generator))
        progress()
    rows, columns = Counter(tuple(d.shape[1:3]) for d in differences).most_common(1)[0][0]
    stacked = torch.stack([_resized(d, rows, columns) for d in differences])
    vectors = stacked.mean(dim=0) if settings.method == "mean" else place_components(stacked)
    direction = Direction(
        name=name,
        tower="vision",
        layers=tuple(range(len(vectors))),
        vectors=vectors.contiguous(),
        method=settings.method,
        n=len(demonstrations),
        mode=settings.mode,
        scale=settings.scale,
        strength=settings.strength,
    )
    return direction.pooled() if settings.places == "pool" else direction


def place_components(differences: Tensor) -> Tensor:
    """`component` of every place by itself: [n, layers, rows, columns, width] -> [layers, rows, columns, width].

    A place's layers stand side by side in one long vector.
    """
    n, layers, rows, columns, width = differences.shape
    by_place = differences.permute(2, 3, 0, 1, 4).reshape(rows * columns, n, layers * width)
    return component(by_place).view(rows, columns, layers, width).permute(2, 0, 1, 3)


def _vision_difference(policy: Policy, sample: Sample, settings: Settings, generator: torch.Generator) -> Tensor:
    """[layers, rows, columns, width]; tiles of a picture are averaged."""
    encoded = policy.prompt(sample).encoded
    pixels, grid = encoded.pixel_values, encoded.image_grid_thw
    if pixels is None:
        raise SafeladderError(f"demonstration {sample.id}: the {policy.family.name} family sees no image")
    config = unwrap(policy.model).config.vision_config
    frames = int(getattr(config, "temporal_patch_size", 1))
    patch = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[0]

    def perturbed() -> Tensor:
        if settings.perturbation == "diffused":
            return diffused(pixels, frames, settings.step, generator)
        return masked(pixels, frames, patch, settings.hidden, generator)

    def mean_states(copies: list[Tensor]) -> Tensor:
        grids = None if grid is None else grid.repeat(len(copies), 1)
        return torch.stack(vision_states(policy, torch.cat(copies), grids)).mean(dim=0)

    clean, total, left = mean_states([pixels]), torch.zeros(()), settings.trials
    while left:
        now = min(left, _AT_ONCE)
        total = total + now * mean_states([perturbed() for _ in range(now)])
        left -= now
    return total / settings.trials - clean


def _resized(states: Tensor, rows: int, columns: int) -> Tensor:
    """[layers, h, w, width] -> [layers, rows, columns, width], bilinear."""
    if states.shape[1:3] == (rows, columns):
        return states
    moved = F.interpolate(states.permute(0, 3, 1, 2), (rows, columns), mode="bilinear", align_corners=False)
    return moved.permute(0, 2, 3, 1)


def text_direction(
    policy: Policy,
    demonstrations: Sequence[Demonstration],
    settings: Settings,
    *,
    name: str,
    progress: Callable[[], None] = lambda: None,
) -> Direction:
    """From the last token's state after the hallucinated reply to that after the truthful one, each demonstration under
    its own picture and question."""
    pairs = [
        (Reading(sample=d.sample, said=d.truthful), Reading(sample=d.sample, said=d.hallucinated))
        for d in demonstrations
    ]
    return language_direction(policy, pairs, settings, name=name, progress=progress)


def language_direction(
    policy: Policy,
    pairs: Sequence[tuple[Reading, Reading]],
    settings: Settings,
    *,
    name: str,
    progress: Callable[[], None] = lambda: None,
) -> Direction:
    """The direction of the last token's states, from the second to the first reading of each pair."""
    found = DirectionEstimator(policy, method=settings.method).fit(pairs, name, progress=lambda done, of: progress())
    return replace(found, mode=settings.mode, scale=settings.scale, strength=settings.strength)
