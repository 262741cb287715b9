"""How a direction is made of hidden states: mean difference, principal component, linear discriminant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from safeladder.models.policy import Policy
from safeladder.steering.directions import Direction, Mode
from safeladder.steering.hooks import language_states
from safeladder.types import SafeladderError, Sample

Method = Literal["mean", "pca", "lda"]
METHODS: tuple[Method, ...] = get_args(Method)
Position = Literal["last", "mean"]
Progress = Callable[[int, int], None]
"""(done, of how many)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What hidden states are read from: a prompt, and what was said after it (plain text, may be empty)."""

    sample: Sample
    said: str = ""


def estimate(positive: Tensor, negative: Tensor, method: Method) -> Tensor:
    """Directions [layers, width] from `negative` towards `positive`, both [pairs, layers, width].

    mean: the mean difference. pca: first principal component + mean of the differences, layers side by side in one
    long vector (VTI, arXiv 2410.15778; see `component`). lda: Σ⁻¹(μ₊ - μ₋) a layer, Σ the within-class covariance
    shrunk by OAS (Chen et al. 2010, arXiv 0907.4698), scaled to the length of the mean difference.

    Raises:
        SafeladderError: no pairs, or fewer than 2 for pca and lda; an unknown method.
    """
    if method not in METHODS:
        raise SafeladderError(f"unknown method {method!r}; allowed: {', '.join(METHODS)}")
    least = 1 if method == "mean" else 2
    if len(positive) != len(negative) or len(positive) < least:
        raise SafeladderError(f"{method}: {len(positive)} and {len(negative)} states; needs {least} pairs or more")
    differences = positive.float() - negative.float()
    if method == "mean":
        return differences.mean(dim=0)
    if method == "pca":
        return component(differences.flatten(1)).view(differences.shape[1:])
    return torch.stack([_discriminant(positive[:, i].double(), negative[:, i].double()) for i in range(
        positive.shape[1])]).float()  # fmt: skip


def component(differences: Tensor) -> Tensor:
    """First principal component + mean of rows [..., n, features] -> [..., features].

    The component has unit length; its sign makes the score of largest size positive, as in scikit-learn.
    """
    mean = differences.mean(dim=-2)
    centred = differences - mean.unsqueeze(-2)
    # n is small and features are many: the eigenvectors of the n x n Gram matrix are the left singular vectors.
    _, vectors = torch.linalg.eigh((centred @ centred.mT).double())
    scores = vectors[..., -1].to(centred)
    along = (centred.mT @ scores.unsqueeze(-1)).squeeze(-1)
    sign = scores.gather(-1, scores.abs().argmax(dim=-1, keepdim=True)).sign()
    length = along.norm(dim=-1, keepdim=True)
    # Differences that are all alike have no component.
    return mean + torch.where(length > 1e-6, sign * along / length.clamp_min(1e-6), 0.0)


def _discriminant(positive: Tensor, negative: Tensor) -> Tensor:
    difference = positive.mean(dim=0) - negative.mean(dim=0)
    within = torch.cat((positive - positive.mean(dim=0), negative - negative.mean(dim=0)))
    n, width = within.shape
    covariance = within.mT @ within / n
    trace, square = covariance.trace(), (covariance**2).sum()
    wanted = (1 - 2 / width) * square + trace**2
    rho = (wanted / ((n + 1 - 2 / width) * (square - trace**2 / width)).clamp_min(1e-300)).clamp(0, 1)
    shrunk = (1 - rho) * covariance + (rho * trace / width + 1e-12) * torch.eye(width, dtype=covariance.dtype)
    found = torch.linalg.solve(shrunk, difference)
    return found * difference.norm() / found.norm().clamp_min(1e-300)


class DirectionEstimator:
    """Estimates a direction of the language model from pairs of inputs.

    Args:
        policy: whose states are read (under whatever steers it now).
        method: see `estimate`.
        position: the last token's state, or the mean over what was said (over the prompt where nothing was).
        layers: numbers of the layers that get a vector; None: all.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        method: Method = "mean",
        position: Position = "last",
        layers: Sequence[int] | None = None,
    ) -> None:
        self.policy, self.layers = policy, layers
        self.method: Method = method
        self.position: Position = position

    def states(self, reading: Reading) -> Tensor:
        """[layers, width] at the position."""
        said = self.policy.tokenizer(reading.said, add_special_tokens=False)["input_ids"] if reading.said else []
        states = language_states(self.policy, self.policy.prompt(reading.sample), said)
        if self.position == "last":
            return states[:, -1].cpu()
        return (states[:, -len(said) :] if said else states).mean(dim=1).cpu()

    def fit(
        self,
        pairs: Sequence[tuple[Reading, Reading]],
        name: str,
        *,
        mode: Mode = "norm_preserving",
        scale: float = 0.1,
        strength: float = 0.9,
        progress: Progress | None = None,
    ) -> Direction:
        """The direction from the second to the first reading of each pair.

        Raises:
            SafeladderError: too few pairs, or a layer that is not there.
        """
        states: list[list[Tensor]] = [[], []]
        for done, pair in enumerate(pairs, start=1):
            for side, reading in zip(states, pair, strict=True):
                side.append(self.states(reading))
            if progress is not None:
                progress(done, len(pairs))
        if not pairs:
            raise SafeladderError(f"direction {name}: no pairs to estimate it from")
        vectors = estimate(torch.stack(states[0]), torch.stack(states[1]), self.method)
        layers = tuple(range(len(vectors))) if self.layers is None else tuple(sorted(self.layers))
        if not layers or layers[0] < 0 or layers[-1] >= len(vectors):
            raise SafeladderError(f"layers {layers}: the language model has layers 0 to {len(vectors) - 1}")
        return Direction(
            name=name,
            tower="language",
            layers=layers,
            vectors=vectors[list(layers)],
            method=self.method,
            n=len(pairs),
            mode=mode,
            scale=scale,
            strength=strength,
        )
