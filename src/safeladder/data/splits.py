"""Held-out splits of the user's files: by group, the same on every machine, stable when rows are added."""

from __future__ import annotations

from collections.abc import Sequence

from safeladder.data.content import content_key, unit_interval
from safeladder.types import SafeladderError, Sample


def split_by_group(
    samples: Sequence[Sample], held_out_share: float, *, seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """Split samples into (train, held-out), whole groups at a time, the order of the rows kept.

    A group is held out where the hash of (seed, group_id) falls below `held_out_share`, so no other row
    decides about it. Groups that share a prompt (same words, same images) move together: an answer seen in
    training never belongs to a held-out prompt. Where the draw leaves one side empty, the group nearest the
    threshold moves there.

    Raises:
        SafeladderError: a share outside [0, 1], or fewer than two independent groups to split.
    """
    if not 0.0 <= held_out_share <= 1.0:
        raise SafeladderError(f"held_out_share must be between 0 and 1, got {held_out_share}")
    component = _components(samples)
    draws = {root: unit_interval([str(seed), root]) for root in set(component.values())}
    held_out = {root for root, draw in draws.items() if draw < held_out_share}
    if 0.0 < held_out_share < 1.0 and samples:
        if len(draws) < 2:
            raise SafeladderError(
                f"a held-out split needs at least 2 groups with different prompts, found {len(draws)}"
            )
        if not held_out:
            held_out = {min(draws, key=lambda root: (draws[root], root))}
        elif len(held_out) == len(draws):
            held_out.remove(max(draws, key=lambda root: (draws[root], root)))
    train = [s for s in samples if component[s.group_id] not in held_out]
    return train, [s for s in samples if component[s.group_id] in held_out]


def _components(samples: Sequence[Sample]) -> dict[str, str]:
    """Group id -> the smallest group id among all groups connected to it by an equal prompt (union-find)."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    first_with: dict[bytes, str] = {}
    for sample in samples:
        parent.setdefault(sample.group_id, sample.group_id)
        low, high = sorted((root(sample.group_id), root(first_with.setdefault(content_key(sample), sample.group_id))))
        parent[high] = low
    return {group: root(group) for group in parent}
