"""How much each value model counts for a prompt: the routing vector w in score = w·v + γ·mean log p."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from safeladder.types import SafeladderError, Sample


class Router(Protocol):
    """Chooses the weights of the value models by the prompt."""

    def route(self, samples: Sequence[Sample]) -> list[dict[str, float]]:
        """Name of a value model -> weight, one mapping a sample; weights are at least 0 and add up to 1."""
        ...


class FixedRouter:
    """The same weights for every prompt.

    Raises:
        SafeladderError: a weight below 0 or not finite, or none above 0.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        total = sum(weights.values())
        if not weights or any(not math.isfinite(w) or w < 0 for w in weights.values()) or total <= 0:
            raise SafeladderError(f"routing weights {dict(weights)!r}: at least 0 each, one above 0")
        self.weights = {name: weight / total for name, weight in weights.items()}

    def route(self, samples: Sequence[Sample]) -> list[dict[str, float]]:
        return [dict(self.weights) for _ in samples]


def uniform(names: Sequence[str]) -> FixedRouter:
    """Every value model counts the same."""
    return FixedRouter(dict.fromkeys(names, 1.0))


def one_hot(name: str, names: Sequence[str]) -> FixedRouter:
    """One value model decides alone.

    Raises:
        SafeladderError: it is not among `names`.
    """
    if name not in names:
        raise SafeladderError(f"no value model {name!r}; there are: {', '.join(names)}")
    return FixedRouter({other: float(other == name) for other in names})
