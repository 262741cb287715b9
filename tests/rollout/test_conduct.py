"""One batch, several ways of rolling out: each label by its own, in the order of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from rollout.tiny_policies import ask, policy
from safeladder.rollout.collect import collect
from safeladder.rollout.conduct import Conduct, collect_each
from safeladder.rollout.local import LocalEngine
from safeladder.types import Observation, Response, Rollout, Sample, SamplingParams, StopReason

PLAIN = SamplingParams(max_new_tokens=6, n=2)
TURN = SamplingParams(max_new_tokens=3, n=2, stop=("e",))


@dataclass
class Named:
    """A format that tells who read the text."""

    name: str

    def parse(self, text: str, stop_reason: StopReason = StopReason.EOS) -> Response | None:
        return Response(answer=self.name)


class Once:
    def step(self, sample: Sample, episode: Sequence[str | Observation], tokens: int) -> Observation | None:
        return Observation(token_ids=(41,), text=sample.id) if len(episode) == 1 else None


def labelled(*labels: str) -> list[Sample]:
    return [replace(ask(f"s{i}", "how many red circles?"), label=label) for i, label in enumerate(labels)]


def simple(rollout: Rollout) -> tuple:
    return rollout.sample.id, rollout.token_ids, rollout.action_mask, rollout.stop_reason, rollout.response


@pytest.mark.parametrize("labels", [("a", "search", "b", "search"), ("a", "b"), ("search",), ()])
def test_every_label_goes_its_own_way_and_order_is_kept(labels):
    engine = LocalEngine(policy("llama"))
    samples = labelled(*labels)
    plain = Conduct(params=PLAIN, format=Named("plain"))
    search = Conduct(params=TURN, format=Named("search"), environment=Once(), max_turns=2)
    groups = collect_each(engine, samples, plain, {"search": search}, seed=3)
    assert [group[0].sample.id for group in groups] == [s.id for s in samples]
    for sample, group in zip(samples, groups, strict=True):
        assert len(group) == 2
        name = "search" if sample.label == "search" else "plain"
        assert {r.response.answer for r in group if r.response} == {name}
        if name == "plain":
            (alone,) = collect(engine, [sample], PLAIN, Named("plain"), seed=3)
        else:
            (alone,) = collect(engine, [sample], TURN, Named("search"), seed=3, environment=Once(), max_turns=2)
        assert [simple(r) for r in group] == [simple(r) for r in alone], "not changed by its company"
