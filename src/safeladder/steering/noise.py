"""What a picture looks like when little can be seen in it: the perturbations that vision directions are read from.

Both work on pixel values as the processor leaves them (normalised, so that 0 is the mean colour), for Qwen2.5-VL's
patches as well as for tiles, and draw from a generator of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS = 1000


def diffusion_signal(step: int) -> float:
    """ᾱ of a diffusion step: the share of the signal's variance that is left.

    ᾱ_t = Π_{s ≤ t} (1 - β_s), β = σ(linspace(-6, 6, 1000)) · (5e-3 - 1e-5) + 1e-5: the schedule of visual contrastive
    decoding (arXiv 2311.16922), which Treble Counterfactual (arXiv 2503.06169) uses at step 500.

    Raises:
        ValueError: `step` is outside [0, 1000).
    """
    if not 0 <= step < _STEPS:
        raise ValueError(f"diffusion step {step} is outside [0, {_STEPS})")
    beta = torch.sigmoid(torch.linspace(-6, 6, _STEPS, dtype=torch.float64)) * (5e-3 - 1e-5) + 1e-5
    return float((1 - beta)[: step + 1].prod())


def diffused(pixels: Tensor, frames: int, step: int, generator: torch.Generator) -> Tensor:
    """x_t = √ᾱ_t · x + √(1 - ᾱ_t) · ε.

    Args:
        pixels: [patches, channels x frames x side x side] (Qwen2.5-VL) or [tiles, 3, height, width] (`frames` 1).
        frames: frames that a patch spans: a still picture shows the same noise in each.
        step: of the diffusion.
        generator: source of ε.
    """
    shape = (len(pixels), 3, frames, -1)
    x = pixels.reshape(shape)
    noise = torch.randn((*x.shape[:2], 1, x.shape[3]), generator=generator, dtype=torch.float32).to(pixels)
    signal = diffusion_signal(step)
    return (signal**0.5 * x + (1 - signal) ** 0.5 * noise).reshape(pixels.shape)


def masked(pixels: Tensor, frames: int, patch: int, share: float, generator: torch.Generator) -> Tensor:
    """One picture with a share of its patches set to its mean in each channel (VTI, arXiv 2410.15778).

    Args:
        pixels: as in `diffused`, of one picture.
        frames: as in `diffused`.
        patch: side of a patch, in pixels.
        share: of the patches, rounded to a whole number; at least one stays visible unless it is 1.
        generator: chooses them.
    """
    out = pixels.clone()
    if pixels.ndim == 2:
        x = out.view(len(pixels), 3, frames, -1)
        hidden = _chosen(len(x), share, generator)
        x[hidden] = x.mean(dim=(0, 2, 3)).view(1, 3, 1, 1).expand(len(hidden), *x.shape[1:])
        return out
    tiles, _, height, width = out.shape
    rows, columns = height // patch, width // patch
    hidden = torch.zeros(tiles * rows * columns, dtype=torch.bool)
    hidden[_chosen(len(hidden), share, generator)] = True
    hidden = hidden.view(tiles, 1, rows, columns).repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)
    return torch.where(hidden.to(out.device), out.mean(dim=(0, 2, 3)).view(1, 3, 1, 1), out)


def _chosen(count: int, share: float, generator: torch.Generator) -> Tensor:
    hidden = round(share * count)
    if share < 1.0:
        hidden = min(hidden, count - 1)
    return torch.randperm(count, generator=generator)[:hidden]
