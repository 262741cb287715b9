"""Optimizers and learning-rate schedules."""

from __future__ import annotations

from safeladder.algorithms.optim.build import Optimizers, build_optimizer, parameter_groups
from safeladder.algorithms.optim.muon import Muon
from safeladder.algorithms.optim.newton_schulz import orthogonalize
from safeladder.algorithms.optim.schedule import learning_rate

__all__ = ["Muon", "Optimizers", "build_optimizer", "learning_rate", "orthogonalize", "parameter_groups"]
