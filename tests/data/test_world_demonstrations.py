"""The chain on the world's own demonstrations: good teachers pass, planted faults are found."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from safeladder.config import Curation, Rewards
from safeladder.data import consistency_check, curate, split_by_group
from safeladder.data.curation import CurationReport
from safeladder.rollout.parse import ResponseFormat
from safeladder.types import Response, Sample
from safeladder.verifiers import RewardRecipe, Router, available

world = pytest.importorskip("safeladder.world")


@pytest.fixture(scope="module")
def demonstrations() -> list[Sample]:
    from safeladder.world.teachers import demonstrate

    rng = random.Random(0)
    kinds = dict.fromkeys((*world.CAPABILITY, *world.SAFETY, *world.VALUE, *world.KNOWLEDGE), 1.0)
    samples = world.World(world.WorldConfig()).samples("train", 1500, kinds)
    return [replace(sample, response=demonstrate(sample, "careful", rng)) for sample in samples]


def chain(samples: list[Sample]) -> tuple[list[Sample], CurationReport]:
    verifiers = available()
    labels = {sample.label for sample in samples}
    router = Router(verifiers, RewardRecipe.load(Rewards(recipe="world"), verifiers, labels))
    check = consistency_check(world.judge)
    return curate(samples, Curation(), router, ResponseFormat(), lambda text: len(text.split()), checks=[check])


def test_careful_teachers_pass(demonstrations):
    kept, report = chain(demonstrations)
    # Only repeated content may go: a teacher's demonstrations are well-formed, right and safe.
    assert {stage: n for stage, n in report.counts().items() if n and stage != "near-duplicate"} == {}
    assert len(kept) > 0.8 * len(demonstrations)


def test_planted_faults_are_found(demonstrations):
    from safeladder.world.teachers import demonstrate

    rng = random.Random(1)
    planted: set[str] = set()
    rows = []
    for i, sample in enumerate(demonstrations[:600]):
        assert sample.response is not None
        if i % 6 == 0:
            response = Response(answer=sample.response.answer)
        elif i % 6 == 1:
            response = replace(sample.response, answer="purple elephant 77")
        elif i % 6 == 2 and sample.taxonomy[1] in ("text_harmful", "jailbreak_harmful", "visual_risky"):
            response = demonstrate(sample, "comply", rng)
        else:
            rows.append(sample)
            continue
        planted.add(sample.id)
        rows.append(replace(sample, response=response))
    kept, report = chain(rows)
    assert len(planted) > 200 and not planted & {row.id for row in kept}
    counts = report.counts()
    assert counts["schema"] == 100 and counts["safety"] > 5 and counts["answer"] > 50


def test_world_groups_split(demonstrations):
    train, held_out = split_by_group(demonstrations, 0.2)
    assert held_out and not {s.group_id for s in train} & {s.group_id for s in held_out}
