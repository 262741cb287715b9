"""Alarms of a training run. Their windows are state: a resumed run raises the same alarm at the same step."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import Any

from safeladder.types import SafeladderError

_LOG = logging.getLogger(__name__)


class CollapseAlarm:
    """Stops a run whose policy has become deterministic.

    Below `floor` nats of mean token entropy every sample of a group is the same, no group has a signal, and whatever
    mode the policy fell into is final.
    """

    def __init__(self, floor: float, patience: int) -> None:
        self.floor = floor
        self.patience = patience
        self.low = 0

    def update(self, entropy: float, rung: str, step: int) -> None:
        """Raises `SafeladderError` once entropy was below the floor for `patience` steps in a row."""
        self.low = self.low + 1 if entropy < self.floor else 0
        if self.low >= self.patience:
            raise SafeladderError(
                f"rung {rung}, step {step}: entropy below {self.floor} for {self.patience} steps, the policy has "
                "collapsed; lower the learning rate, or set collapse_entropy 0 to go on regardless"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"low": self.low}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.low = int(state["low"])


class ConfidenceAlarm:
    """Warns when stated confidences have become one and the same value: they then say nothing, however rewarded.

    The run goes on: a run without a constraint is expected to end so, and is what the others are compared with.
    """

    def __init__(self, floor: float, patience: int) -> None:
        self.floor = floor
        self.patience = patience
        self.low = 0

    def update(self, entropy: float, rung: str) -> bool:
        """Whether the entropy (nats) of the stated confidences was below the floor for `patience` steps in a row."""
        self.low = self.low + 1 if entropy < self.floor else 0
        if self.low == self.patience:
            _LOG.warning(
                "rung %s: stated confidences have collapsed, their entropy was below %g nats for %d steps in a row",
                rung,
                self.floor,
                self.patience,
            )
        return self.low >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"low": self.low}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.low = int(state["low"])


class Divergence:
    """Trained reward up while the outcome falls: the sign that a reward is being gamed.

    `update` returns the rise of the reward minus the rise of the outcome between the two halves of a sliding window,
    where the reward rose and the outcome fell; 0 otherwise.
    """

    def __init__(self, window: int = 20) -> None:
        self.rewards: deque[float] = deque(maxlen=window)
        self.outcomes: deque[float] = deque(maxlen=window)

    def update(self, reward: float, outcome: float) -> float:
        self.rewards.append(reward)
        self.outcomes.append(outcome)
        if len(self.rewards) < (self.rewards.maxlen or 0):
            return 0.0
        up, down = _rise(self.rewards), _rise(self.outcomes)
        return up - down if up > 0 > down else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"rewards": list(self.rewards), "outcomes": list(self.outcomes)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rewards.extend(state["rewards"])
        self.outcomes.extend(state["outcomes"])


def _rise(values: deque[float]) -> float:
    half = len(values) // 2
    items = list(values)
    return sum(items[half:]) / (len(items) - half) - sum(items[:half]) / half
