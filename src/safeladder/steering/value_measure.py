"""How well value heads tell what becomes of a prefix: AUC and Brier score over outcomes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from safeladder.steering.value_heads import ValueHeads
from safeladder.steering.value_training import Examples


@torch.inference_mode()
def measure(heads: ValueHeads, data: Examples) -> dict[str, Any]:
    """How well the heads tell what becomes of prefixes: a row for each principle (its own prompts) and each label.

    `auc`: of two outcomes, one accepted and one not, how often the accepted one's prefix has the higher value.
    `within`: the same over pairs of one prompt, averaged over prompts, which is what choosing among steps takes.
    `brier`, and `brier_of_mean`, that of always saying the mean. `routed`: share of prompts whose largest routing
    weight is their principle's. None where it is not defined.
    """
    logits, routes = heads(data.described)
    values = torch.sigmoid(logits).gather(1, data.column.unsqueeze(1)).squeeze(1)
    right = (routes.argmax(dim=1) == data.column).tolist()
    names = [heads.principles[i] for i in data.column.tolist()]

    def row(places: list[int]) -> dict[str, Any]:
        index = torch.tensor(places)
        p, good, n = values[index], data.accepted[index], data.n[index]
        mean = good.sum() / n.sum()
        by_prompt: dict[str, list[int]] = defaultdict(list)
        for place in places:
            by_prompt[data.prompt[place]].append(place)
        inner = [auc(values[i], data.accepted[i], data.n[i]) for i in map(torch.tensor, by_prompt.values())]
        defined = [x for x in inner if x is not None]
        routed = [right[own[0]] for own in by_prompt.values()]
        return {
            "prompts": len(by_prompt),
            "prefixes": len(places),
            "outcomes": int(n.sum()),
            "accepted": float(mean),
            "auc": auc(p, good, n),
            "within": sum(defined) / len(defined) if defined else None,
            "brier": float((good * (1 - p) ** 2 + (n - good) * p**2).sum() / n.sum()),
            "brier_of_mean": float(mean * (1 - mean)),
            "routed": sum(routed) / len(routed),
        }

    def table(keys: Sequence[str]) -> dict[str, Any]:
        groups: dict[str, list[int]] = defaultdict(list)
        for place, key in enumerate(keys):
            groups[key].append(place)
        return {key: row(places) for key, places in sorted(groups.items())}

    return {"by_principle": table(names), "by_label": table(data.label), "unscored": data.unscored}


def auc(values: Tensor, positives: Tensor, counts: Tensor) -> float | None:
    """Area under the ROC curve where value i was given to counts[i] outcomes, positives[i] of them positive; ties count
    a half. None without both kinds of outcome."""
    negatives = counts - positives
    if not float(positives.sum()) or not float(negatives.sum()):
        return None
    levels, place = torch.unique(values, return_inverse=True)
    good = torch.zeros(len(levels), dtype=torch.float64).index_add_(0, place, positives.double())
    bad = torch.zeros(len(levels), dtype=torch.float64).index_add_(0, place, negatives.double())
    below = bad.cumsum(0) - bad
    return float((good * (below + bad / 2)).sum() / (good.sum() * bad.sum()))
