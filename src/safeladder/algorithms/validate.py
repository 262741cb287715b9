"""Checks that find a wrong preset when it is built, not after the first generation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

import torch

from safeladder.algorithms.algorithm import ADVANTAGES, LOSSES, Algorithm, Preset
from safeladder.algorithms.length import cale, soft_overlong
from safeladder.algorithms.losses import Reduction, add_reference_kl
from safeladder.types import SafeladderError

# Parameters that a training step fills in; the others of a function are its options.
_DATA = {"rewards", "group_ids", "lengths", "advantages", "mask", "reduction", "normalizer", "output"}
_DATA |= {"logprobs", "old_logprobs", "ref_logprobs"}


def known(name: str, allowed: Iterable[str], what: str) -> None:
    """Raise `SafeladderError` unless `name` is allowed."""
    allowed = list(allowed)
    if name not in allowed:
        raise SafeladderError(f"unknown {what} {name!r}; allowed: {', '.join(allowed)}")


def options(function: Callable[..., Any]) -> dict[str, bool]:
    """The options of an advantage, length, KL or loss function, and whether each is required."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default is p.empty for p in parameters if p.name not in _DATA}


def check(preset: Preset) -> None:
    """Raise `SafeladderError` unless every field is of its registry and has an effect beside the others."""
    where = f"algorithm {preset.name}"
    if preset.length is None:
        known(preset.advantage, ADVANTAGES, f"advantage of {where}:")
        _options(f"{where}: advantage_options", preset.advantage_options, ADVANTAGES[preset.advantage])
    elif preset.advantage != "cale" or preset.advantage_options:
        raise SafeladderError(f"{where}: length replaces the advantage; give one of the two")
    known(preset.loss, LOSSES, f"loss of {where}:")
    known(preset.reduction, get_args(Reduction), f"reduction of {where}:")
    _options(f"{where}: loss_options", preset.loss_options, LOSSES[preset.loss])
    for field, function in (
        ("length", cale),
        ("overlong", soft_overlong),
        ("reference_kl", add_reference_kl),
    ):
        given = getattr(preset, field)
        if given is not None:
            _options(f"{where}: {field}", given, function)
    if (preset.reduction == "constant") != (preset.max_length is not None):
        raise SafeladderError(f'{where}: max_length belongs to reduction "constant", and to no other')
    if preset.overlong is not None and preset.advantage == "gdpo":
        raise SafeladderError(f"{where}: gdpo takes the overlong penalty as a reward component of its own")
    try:
        if preset.max_length is not None and not preset.max_length > 0:
            raise SafeladderError(f"{where}: max_length is {preset.max_length}; it must be > 0")
        if preset.reference_kl is not None and not preset.reference_kl["weight"] > 0:
            raise SafeladderError(f"{where}: reference_kl weight must be > 0; give null to leave the term out")
        _rehearse(Algorithm(preset))
    except (TypeError, ValueError) as error:
        raise SafeladderError(f"{where}: an option has the wrong type: {error}") from error


def _options(where: str, given: Mapping[str, Any], function: Callable[..., Any]) -> None:
    allowed = options(function)
    for key in given:
        known(key, allowed, f"option of {where}:")
    missing = [key for key, required in allowed.items() if required and key not in given]
    if missing:
        raise SafeladderError(f"{where} lacks {', '.join(missing)}")


def _rehearse(algorithm: Algorithm) -> None:
    """Run the algorithm on one group of two rollouts of two tokens: every range check runs."""
    rewards, group_ids = torch.tensor([0.0, 1.0]), torch.tensor([0, 0])
    weights = algorithm.preset.advantage_options.get("weights")
    if weights is not None:
        rewards = rewards.unsqueeze(-1).expand(2, len(weights))
    advantages = algorithm.advantages(rewards, group_ids, torch.tensor([1, 2]))
    tokens = torch.zeros(2, 2)
    algorithm.loss(tokens, tokens, advantages, torch.ones(2, 2), ref_logprobs=tokens)
