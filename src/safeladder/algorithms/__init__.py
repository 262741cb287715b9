"""Learning algorithms as pure tensor functions: advantages, length shaping, losses, optimizers, presets.

Nothing here reads a file, logs or knows a model. Every function's docstring gives its formula, its source
and the shapes it expects: B rollouts (or sequences) of T tokens each.
"""

from __future__ import annotations

from safeladder.algorithms.algorithm import Algorithm, Preset
from safeladder.algorithms.presets import PRESETS, build

__all__ = ["PRESETS", "Algorithm", "Preset", "build"]
