"""The before-and-after examples of the report, chosen from the rows of `rollouts.jsonl`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One evaluation item and what each rung replied to it, in the order of the ladder."""

    sample_id: str
    kind: str
    rows: tuple[Row, ...]


def choose_examples(rows: Iterable[Row], rungs: Sequence[str], most: int = 12) -> list[Example]:
    """Items evaluated at the first and the last rung, those whose reward changed most first, kinds taking
    turns.

    Only evaluation rows (`step` null) count; rungs that did not see an item are left out of its example.
    """
    if not rungs:
        return []
    seen: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.get("step") is None and row.get("rung") in rungs:
            seen.setdefault(row["sample_id"], {}).setdefault(row["rung"], row)
    whole = {key: found for key, found in seen.items() if rungs[0] in found and rungs[-1] in found}
    by_kind: dict[str, list[tuple[float, str]]] = {}
    for key, found in whole.items():
        change = abs(_reward(found[rungs[-1]]) - _reward(found[rungs[0]]))
        by_kind.setdefault(str(found[rungs[0]]["kind"]), []).append((-change, key))
    ranked = sorted(
        (turn, change, kind, key) for kind, items in by_kind.items() for turn, (change, key) in enumerate(sorted(items))
    )
    return [
        Example(sample_id=key, kind=kind, rows=tuple(whole[key][r] for r in rungs if r in whole[key]))
        for _, _, kind, key in ranked[:most]
    ]


def _reward(row: Row) -> float:
    reward = row.get("reward")
    return 0.0 if reward is None else float(reward)
