"""Batches in which some samples are answered at once and others searched for: how each label is rolled out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safeladder.rollout.collect import Format, collect
from safeladder.types import Engine, Environment, Rollout, Sample, SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """How samples are rolled out: how turns are sampled, what answers them, how the whole is read.

    Without an environment there is one turn.
    """

    params: SamplingParams
    format: Format
    environment: Environment | None = None
    max_turns: int = 1


def collect_each(
    engine: Engine, samples: Sequence[Sample], default: Conduct, conducts: Mapping[str, Conduct], *, seed: int
) -> list[list[Rollout]]:
    """`collect`, every sample by the conduct of its label, or by `default` where its label has none; in order."""
    found: dict[int, list[Rollout]] = {}
    labels = dict.fromkeys(s.label if s.label in conducts else None for s in samples)
    for label in labels:
        places = [i for i, s in enumerate(samples) if (s.label if s.label in conducts else None) == label]
        how = default if label is None else conducts[label]
        groups = collect(
            engine,
            [samples[i] for i in places],
            how.params,
            how.format,
            seed=seed,
            environment=how.environment,
            max_turns=how.max_turns,
        )
        found.update(zip(places, groups, strict=True))
    return [found[i] for i in range(len(samples))]
