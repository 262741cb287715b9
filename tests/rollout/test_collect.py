"""The multi-turn loop: ids stay as they were sampled and said, the mask tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.tiny_policies import ask, picture, policy
from safeladder.rollout.collect import collect
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.parse import ResponseFormat
from safeladder.types import (
    Completion,
    GenerationRequest,
    Observation,
    Sample,
    SamplingParams,
    StopReason,
)

FORMAT = ResponseFormat()
EOS = 0


@dataclass
class Scripted:
    """An engine that says what it is told, turn by turn; ids decode to letters in more than one way."""

    script: dict[str, list[list[Completion]]]  # sample id -> the completions of each turn
    calls: list[tuple[list[GenerationRequest], SamplingParams, int]] = field(default_factory=list)

    def prompt_ids(self, sample: Sample) -> tuple[int, ...]:
        return (100, 101)

    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, *, seed: int
    ) -> list[list[Completion]]:
        self.calls.append((list(requests), params, seed))
        return [self.script[r.sample.id].pop(0) for r in requests]

    def decode(self, token_ids: Sequence[int]) -> str:
        # 1 is "a", 2 is "b", 12 is "ab": "ab" has two segmentations.
        ids = token_ids[:-1] if token_ids and token_ids[-1] == EOS else token_ids
        return "".join({1: "a", 2: "b", 12: "ab"}.get(i, "?") for i in ids)

    def load_weights(self, weights: Any) -> None:
        raise AssertionError("not called")


@dataclass
class Answers:
    """An environment that says what it is told and remembers what it was shown."""

    replies: list[Observation | None]
    seen: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    def step(self, sample: Sample, token_ids: Sequence[int]) -> Observation | None:
        self.seen.append((sample.id, tuple(token_ids)))
        return self.replies.pop(0)


def said(*ids: int, reason: StopReason = StopReason.STOP) -> Completion:
    return Completion(token_ids=ids, logprobs=tuple(-0.1 * i for i in ids), stop_reason=reason)


def test_one_turn():
    engine = Scripted({"s": [[said(1, EOS, reason=StopReason.EOS), said(2, reason=StopReason.LENGTH)]]})
    ((first, second),) = collect(engine, [ask("s", "?")], SamplingParams(max_new_tokens=4, n=2), FORMAT, seed=3)
    assert (first.token_ids, first.action_mask, first.stop_reason, first.text) == (
        (1, EOS), (1, 1), StopReason.EOS, "a",
    )  # fmt: skip
    assert (second.token_ids, second.stop_reason, second.length) == ((2,), StopReason.LENGTH, 1)
    assert first.prompt_ids == (100, 101)
    assert len(engine.calls) == 1 and engine.calls[0][2] == 3


def test_K01_ids_are_kept_as_sampled_on_an_ambiguous_tokenizer():
    """ "ab" was sampled as 1, 2 in one turn and as 12 in another: neither is re-encoded to the other."""
    engine = Scripted({"s": [[said(1, 2)], [said(12, EOS, reason=StopReason.EOS)]]})
    environment = Answers([Observation(token_ids=(12, 1, 2, EOS, EOS))])
    ((rollout,),) = collect(
        engine, [ask("s", "?")], SamplingParams(max_new_tokens=4), FORMAT, seed=0,
        environment=environment, max_turns=2,
    )  # fmt: skip
    assert rollout.token_ids == (1, 2, 12, 1, 2, EOS, EOS, 12, EOS)
    assert rollout.action_mask == (1, 1, 0, 0, 0, 0, 0, 1, 1)
    assert rollout.logprobs == (-0.1, -0.2, 0.0, 0.0, 0.0, 0.0, 0.0, -1.2000000000000002, 0.0)
    assert rollout.text == "abab", "the environment's words are not the policy's"
    assert engine.calls[1][0][0].prompt_ids == (100, 101, 1, 2, 12, 1, 2, EOS, EOS)
    assert environment.seen == [("s", (1, 2))]


def test_K02_the_mask_and_not_the_end_token_tells_what_is_trained():
    """An end token the policy sampled is counted; one the environment said is not."""
    engine = Scripted({"s": [[said(1, EOS, reason=StopReason.EOS)], [said(EOS, reason=StopReason.EOS)]]})
    ((rollout,),) = collect(
        engine, [ask("s", "?")], SamplingParams(max_new_tokens=4), FORMAT, seed=0,
        environment=Answers([Observation(token_ids=(EOS,))]), max_turns=2,
    )  # fmt: skip
    assert [(t, m) for t, m in zip(rollout.token_ids, rollout.action_mask, strict=True)] == [
        (1, 1), (EOS, 1), (EOS, 0), (EOS, 1),
    ]  # fmt: skip
    assert rollout.length == 3


@pytest.mark.parametrize("reason", [StopReason.LENGTH, StopReason.ERROR])
def test_a_cut_turn_ends_the_episode(reason):
    environment = Answers([])
    engine = Scripted({"s": [[said(1, 2, reason=reason)]]})
    ((rollout,),) = collect(
        engine, [ask("s", "?")], SamplingParams(max_new_tokens=2), FORMAT, seed=0,
        environment=environment, max_turns=5,
    )  # fmt: skip
    assert (rollout.stop_reason, rollout.token_ids, environment.seen) == (reason, (1, 2), [])
    assert rollout.response is None


def test_a_cut_later_turn_is_what_the_rollout_says():
    engine = Scripted({"s": [[said(1)], [said(2, reason=StopReason.LENGTH)]]})
    ((rollout,),) = collect(
        engine, [ask("s", "?")], SamplingParams(max_new_tokens=2), FORMAT, seed=0,
        environment=Answers([Observation(token_ids=(9,))]), max_turns=5,
    )  # fmt: skip
    assert (rollout.stop_reason, rollout.response) == (StopReason.LENGTH, None)


def test_episodes_end_one_by_one_and_turns_are_bounded():
    engine = Scripted(
        {
            "x": [[said(1), said(2, EOS, reason=StopReason.EOS)], [said(1)], [said(1)]],
            "y": [[said(12), said(12, reason=StopReason.LENGTH)], [said(2)], [said(2)]],
        }
    )
    nine = Observation(token_ids=(9,))
    environment = Answers([nine, None, nine, nine, nine])
    params = SamplingParams(max_new_tokens=4, n=2, temperature=0.5, stop=("b",))
    groups = collect(
        engine, [ask("x", "?"), ask("y", "?")], params, FORMAT, seed=7, environment=environment, max_turns=3
    )
    assert [[r.token_ids for r in group] for group in groups] == [
        [(1, 9, 1, 9, 1), (2, EOS)],
        [(12, 9, 2, 9, 2), (12,)],
    ]
    assert [len(requests) for requests, _, _ in engine.calls] == [2, 2, 2]
    for _, later, _ in engine.calls[1:]:
        assert (later.n, later.temperature, later.stop, later.max_new_tokens) == (1, 0.5, ("b",), 4)
    assert len({seed for _, _, seed in engine.calls}) == 3, "every turn has randomness of its own"
    assert len(environment.seen) == 5


@given(
    turns=st.lists(
        st.tuples(st.lists(st.sampled_from([1, 2, 12, EOS]), min_size=1, max_size=4), st.lists(st.integers(50, 60))),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=50, deadline=None)
def test_the_parts_add_up(turns):
    """Whatever is said: lengths agree, own tokens are the policy's in order, the rest the
    environment's verbatim.
    """
    engine = Scripted({"s": [[said(*own)] for own, _ in turns]})
    environment = Answers([Observation(token_ids=tuple(heard)) for _, heard in turns[:-1]])
    ((rollout,),) = collect(
        engine, [ask("s", "?")], SamplingParams(max_new_tokens=4), FORMAT, seed=0,
        environment=environment, max_turns=len(turns),
    )  # fmt: skip
    own = [t for t, m in zip(rollout.token_ids, rollout.action_mask, strict=True) if m]
    other = [t for t, m in zip(rollout.token_ids, rollout.action_mask, strict=True) if not m]
    assert own == [t for part, _ in turns for t in part]
    assert other == [t for _, part in turns[:-1] for t in part]
    assert len(rollout.logprobs) == len(rollout.token_ids)
    assert all(lp == 0.0 for lp, m in zip(rollout.logprobs, rollout.action_mask, strict=True) if not m)


def test_with_the_real_engine_over_an_image():
    """Two turns after an image: the second goes on from exactly what was sampled, and members may part
    ways.
    """
    engine = LocalEngine(policy("qwen2_5_vl"))
    heard = engine.policy.tokenizer("the square is blue", add_special_tokens=False)["input_ids"]

    @dataclass
    class Once:
        def step(self, sample: Sample, token_ids: Sequence[int]) -> Observation | None:
            return Observation(token_ids=tuple(heard)) if len(token_ids) <= 6 else None

    letters = [i for i in range(len(engine.policy.logit_bias)) if engine.policy.tokenizer.decode([i]) == "e"]
    engine.policy.logit_bias[letters] += 5.0
    samples = [ask("i", picture(1), "how many?"), ask("t", "what colour?")]
    params = SamplingParams(max_new_tokens=6, n=3, stop=("e",))
    groups = collect(engine, samples, params, FORMAT, seed=1, environment=Once(), max_turns=2)
    two = [r for group in groups for r in group if 0 in r.action_mask]
    assert two, "the seed must give a second turn"
    for rollout in two:
        start = rollout.action_mask.index(0)
        assert rollout.token_ids[start : start + len(heard)] == tuple(heard)
        assert rollout.text == engine.decode(
            [t for t, m in zip(rollout.token_ids, rollout.action_mask, strict=True) if m]
        )
    again = collect(engine, samples, params, FORMAT, seed=1, environment=Once(), max_turns=2)
    assert [[r.token_ids for r in g] for g in again] == [[r.token_ids for r in g] for g in groups]
    second_turns = {r.token_ids[r.action_mask.index(0) + len(heard) :] for r in two if r.sample.id == two[0].sample.id}
    assert len(second_turns) == sum(r.sample.id == two[0].sample.id for r in two)
