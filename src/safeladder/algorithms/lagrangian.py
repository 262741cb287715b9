"""Constrained RL: the reward of deliberative search, and the controller of the multiplier in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args

from torch import Tensor

from safeladder.types import SafeladderError

Kind = Literal["mw", "dual", "fixed"]
Direction = Literal["at_least", "at_most"]
Number = TypeVar("Number", float, Tensor)

_LARGEST_EXPONENT = 700.0
"""exp() of more overflows a double; the result is clipped to `maximum` anyway."""


def search_reward(r_format: Number, r_accuracy: Number, r_reliability: Number, multiplier: float) -> Number:
    """Deliberative Searcher, arXiv 2507.16727: `r = r_fmt * (0.1 * r_fmt + 0.9 * r_acc + lambda * r_rel)`.

    Numbers or tensors of one shape: `r_format` in {0, 1} gates everything, `r_accuracy` and `r_reliability`
    are in [0, 1], `multiplier` is lambda. The formula is known from a note on the paper; no code was published.
    """
    return r_format * (0.1 * r_format + 0.9 * r_accuracy + multiplier * r_reliability)


class Multiplier:
    """The Lagrange multiplier of one soft constraint on a measured mean: an adaptive reward weight.

    With the measurement m_t of a step and the target tau, the violation is (`direction`)::

        at_least   v_t = tau - m_t      e.g. mean reliability >= tau
        at_most    v_t = m_t - tau      e.g. share of false-certain answers <= epsilon

    smoothed by g_t = smoothing * g_{t-1} + (1 - smoothing) * v_t (g_1 = v_1), and with the rate eta::

        mw      lambda <- clip(lambda * exp(eta * g), minimum, maximum)    multiplicative weights
        dual    lambda <- clip(lambda + eta * g, minimum, maximum)         dual gradient ascent
        fixed   lambda stays

    So lambda rises while the constraint is violated and falls while it is met. "mw" needs minimum > 0: it
    could never leave 0. Deliberative Searcher (arXiv 2507.16727) names both updates and publishes no
    constants: all defaults are ours. Nothing here knows about search: any reward component with a target fits.

    `value` and the smoothed violation are training state (`state_dict`). On several processes the measurement
    must be the mean over all of them, so that lambda stays equal everywhere.

    Raises `SafeladderError` on an unknown kind or direction and on numbers outside their range.
    """

    def __init__(
        self,
        kind: Kind = "mw",
        *,
        value: float = 1.0,
        rate: float = 0.5,
        target: float,
        direction: Direction = "at_least",
        smoothing: float = 0.0,
        minimum: float = 1e-3,
        maximum: float = 10.0,
    ) -> None:
        for name, given, allowed in (("kind", kind, get_args(Kind)), ("direction", direction, get_args(Direction))):
            if given not in allowed:
                raise SafeladderError(f"multiplier: unknown {name} {given!r}; allowed: {', '.join(allowed)}")
        ranges = {
            "rate": (math.isfinite(rate) and rate > 0, rate, "a number > 0"),
            "target": (math.isfinite(target), target, "a finite number"),
            "smoothing": (0 <= smoothing < 1, smoothing, "0 <= smoothing < 1"),
            "minimum": (0 <= minimum <= maximum < math.inf, minimum, "0 <= minimum <= maximum, both finite"),
            "value": (minimum <= value <= maximum, value, f"from minimum {minimum} to maximum {maximum}"),
        }
        for name, (fits, given, allowed) in ranges.items():
            if not fits:
                raise SafeladderError(f"multiplier: {name} is {given}; allowed: {allowed}")
        if kind == "mw" and minimum == 0:
            raise SafeladderError("multiplier: minimum is 0; allowed for kind mw: > 0, for it can never leave 0")
        self.kind = kind
        self.rate = rate
        self.target = target
        self.direction = direction
        self.smoothing = smoothing
        self.minimum = minimum
        self.maximum = maximum
        self.value = float(value)
        self.violation: float | None = None
        """The smoothed violation g; None before the first measurement."""

    def update(self, measured: float | None) -> float:
        """Take the mean measured over the rollouts of a step; returns the new lambda.

        None where the step has no rollout that could be measured: no evidence, so nothing changes.

        Raises:
            ValueError: the measurement is not a finite number.
        """
        if measured is None:
            return self.value
        if not math.isfinite(measured):
            raise ValueError(f"a multiplier needs a finite measurement, got {measured}")
        violation = self.target - measured if self.direction == "at_least" else measured - self.target
        if self.violation is not None:
            violation = self.smoothing * self.violation + (1 - self.smoothing) * violation
        self.violation = violation
        if self.kind == "mw":
            self.value *= math.exp(min(self.rate * violation, _LARGEST_EXPONENT))
        elif self.kind == "dual":
            self.value += self.rate * violation
        self.value = min(max(self.value, self.minimum), self.maximum)
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, as JSON values."""
        return {"value": self.value, "violation": self.violation}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.value = float(state["value"])
        self.violation = None if state["violation"] is None else float(state["violation"])
