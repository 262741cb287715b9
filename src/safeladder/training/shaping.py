"""What may change the rewards of a step's rollouts after they are judged. Constrained RL is one such thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from safeladder.algorithms.calibration import LEVELS, confidence_entropy, quadrants, reliability, tabulate
from safeladder.algorithms.lagrangian import Multiplier, search_reward
from safeladder.config import SEARCH_LABEL, Constraint
from safeladder.search.trace import action_rates
from safeladder.training.monitors import ConfidenceAlarm
from safeladder.training.run import RungRun
from safeladder.types import Rollout
from safeladder.verifiers.search import verdict_on_answer


class Shaper(Protocol):
    """Changes rewards, and may learn from what it sees. Its state is part of every checkpoint."""

    def shape(self, rollouts: Sequence[Rollout], run: RungRun) -> tuple[list[Rollout], dict[str, float]]:
        """This process's judged rollouts with their final rewards, and metrics over all processes."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class AsJudged:
    """Leaves the rewards as they are."""

    def shape(self, rollouts: Sequence[Rollout], run: RungRun) -> tuple[list[Rollout], dict[str, float]]:
        return list(rollouts), {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return None


class HonestConfidence:
    """The reward of a search, and the multiplier in it (Deliberative Searcher, arXiv 2507.16727)::

        r = r_fmt * (0.1 * r_fmt + 0.9 * r_acc + lambda * r_rel)

    `r_fmt` is 1 for a well-formed trace, `r_acc` the verdict on its answer, `r_rel` what its confidence earns
    (`Constraint.reliability`). Rollouts of other labels keep their rewards. After each step lambda follows the mean
    over all processes' readable searches; an unreadable one has reward 0, is left out of that mean and counted. An
    unscored one (a failed environment, a judge without a verdict) keeps no reward.
    """

    def __init__(self, settings: Constraint) -> None:
        self.settings = settings
        free = settings.controller == "none"
        at_most = settings.measure == "false_certain"
        self.multiplier = Multiplier(
            "fixed" if settings.controller == "none" else settings.controller,
            value=0.0 if free else settings.initial,
            rate=settings.rate,
            target=settings.target,
            direction="at_most" if at_most else "at_least",
            smoothing=settings.smoothing,
            minimum=0.0 if free else settings.minimum,
            maximum=settings.maximum,
        )
        self.alarm = ConfidenceAlarm(settings.alarm_entropy, settings.alarm_patience)

    def shape(self, rollouts: Sequence[Rollout], run: RungRun) -> tuple[list[Rollout], dict[str, float]]:
        searches = [i for i, r in enumerate(rollouts) if r.sample.label == SEARCH_LABEL]
        scored = [i for i in searches if rollouts[i].reward is not None]
        readable = [i for i in scored if rollouts[i].confidence is not None]
        verdicts = torch.tensor([verdict_on_answer(rollouts[i]) or 0.0 for i in readable])
        right, stated = verdicts >= 0.5, torch.tensor([int(rollouts[i].confidence or 0) for i in readable])
        used = self.multiplier.value
        earned = search_reward(torch.ones(len(readable)), verdicts, self._reliability(right, stated), used)
        rewards = dict.fromkeys(scored, 0.0) | dict(zip(readable, earned.tolist(), strict=True))
        shaped = [r.judged(r.scores, rewards[i]) if i in rewards else r for i, r in enumerate(rollouts)]

        *cells, unreadable, unscored = run.parallel.sum(
            *tabulate(right, stated).flatten().tolist(), len(scored) - len(readable), len(searches) - len(scored)
        )
        table = torch.tensor(cells, dtype=torch.float64).view(LEVELS, 2)
        metrics = {"multiplier": used, **self._measured(table, unreadable, unscored, run)}
        return shaped, metrics | _over_processes([rollouts[i] for i in searches], run)

    def _reliability(self, correct: Tensor, confidence: Tensor) -> Tensor:
        return reliability(correct, confidence, self.settings.reliability, cut=self.settings.cut)

    def _measured(self, table: Tensor, unreadable: float, unscored: float, run: RungRun) -> dict[str, float]:
        """What the step's searches were like, by the table [11, 2] of all of them; moves the multiplier."""
        n = float(table.sum())
        total = n + unreadable + unscored
        if not total:
            return {}
        metrics = {"search/unreadable": unreadable / total, "search/unscored": unscored / total}
        if not n:
            return metrics
        levels = torch.arange(LEVELS)
        grid = torch.stack([self._reliability(torch.full((LEVELS,), right), levels) for right in (False, True)], dim=1)
        found = quadrants(table, self.settings.cut)
        metrics |= {f"search/{name}": float(count) / n for name, count in found._asdict().items()}
        metrics["search/accuracy"] = float(table[:, 1].sum()) / n
        metrics["search/reliability"] = float((table * grid).sum()) / n
        metrics["search/confidence"] = float(table.sum(1) @ levels.double()) / n
        metrics["search/confidence_entropy"] = entropy = float(confidence_entropy(table))
        metrics |= {f"search/confidence/{k}": float(table[k].sum()) / n for k in range(LEVELS)}
        metrics["search/confidence_collapsed"] = float(self.alarm.update(entropy, run.rung))
        self.multiplier.update(metrics[f"search/{self.settings.measure}"])
        assert self.multiplier.violation is not None
        metrics["violation"] = self.multiplier.violation
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"multiplier": self.multiplier.state_dict(), "alarm": self.alarm.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.multiplier.load_state_dict(state["multiplier"])
        self.alarm.load_state_dict(state["alarm"])


def _over_processes(searches: Sequence[Rollout], run: RungRun) -> dict[str, float]:
    """`action_rates` of all processes' searches together: each rate weighed by what it was divided by."""
    rates = action_rates(searches)
    episodes = len(searches) * (1.0 - rates.get("failed", 0.0))
    weights = dict.fromkeys(rates, episodes) | {"failed": len(searches), "unparsed": episodes * rates.get("turns", 0.0)}
    names = ("failed", "turns", "searches", "reads", "unparsed", "answered", "well_formed")
    parts = [(rates.get(name, 0.0) * weights.get(name, 0.0), weights.get(name, 0.0)) for name in names]
    sums = run.parallel.sum(*(value for pair in parts for value in pair))
    pairs = zip(names, sums[::2], sums[1::2], strict=True)
    return {f"search/actions/{name}": value / weight for name, value, weight in pairs if weight}
