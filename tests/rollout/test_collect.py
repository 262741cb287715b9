"""The multi-turn loop: ids stay as they were sampled and said, the mask tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Barrier
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
    EnvironmentFault,
    GenerationRequest,
    Observation,
    Response,
    Sample,
    SamplingParams,
    StopReason,
)
from safeladder.verifiers.rules import FormatVerifier

FORMAT = ResponseFormat()
EOS = 0


@dataclass
class Scripted:
    """An engine that says what it is told, turn by turn; ids decode to letters in more than one way."""

    script: dict[str, list[list[Completion]]]  # sample id -> the completions of each turn
    calls: list[tuple[list[GenerationRequest], SamplingParams, int]] = field(default_factory=list)
    context_length: int = 1000

    def prompt_ids(self, sample: Sample) -> tuple[int, ...]:
        return (100, 101)

    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, *, seed: int
    ) -> list[list[Completion]]:
        self.calls.append((list(requests), params, seed))
        return [self.script[r.sample.id].pop(0) for r in requests]

    def decode(self, token_ids: Sequence[int]) -> str:
        # 1 is "a", 2 is "b", 12 is "ab": "ab" has two segmentations. 5, 6 and 67 spell "/s>" and run over its end.
        ids = token_ids[:-1] if token_ids and token_ids[-1] == EOS else token_ids
        letters = {1: "a", 2: "b", 12: "ab", 5: "/s", 6: ">", 67: ">x"}
        return "".join(letters.get(i, "?") for i in ids)

    def load_weights(self, weights: Any) -> None:
        raise AssertionError("not called")


@dataclass
class Answers:
    """An environment that says what it is told, by sample or to all, and remembers what it was shown."""

    replies: list[Observation | EnvironmentFault | None] | dict[str, list[Observation | EnvironmentFault | None]]
    seen: list[tuple[str, tuple[str | Observation, ...], int]] = field(default_factory=list)

    def step(self, sample: Sample, episode: Sequence[str | Observation], tokens: int) -> Observation | None:
        self.seen.append((sample.id, tuple(episode), tokens))
        replies = self.replies[sample.id] if isinstance(self.replies, dict) else self.replies
        reply = replies.pop(0)
        if isinstance(reply, EnvironmentFault):
            raise reply
        return reply


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
    assert environment.seen == [("s", ("ab",), 2)]
    assert rollout.observations == (Observation(token_ids=(12, 1, 2, EOS, EOS)),)


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


STOP_PARAMS = SamplingParams(max_new_tokens=8, stop=("/s>",))


@pytest.mark.parametrize(
    ("sampled", "kept"),
    [
        ((1, 5, 6), (1, 5, 6)),  # the engine stopped by itself
        ((1, 5, 6, 2, 2, EOS), (1, 5, 6)),  # it went on
        ((1, 5, 67), (1, 5, 67)),  # the last token runs over the end of the tag
        ((1, 5, 67, 5, 6), (1, 5, 67)),  # a second tag
        ((5, 6), (5, 6)),
    ],
)
@pytest.mark.parametrize("reason", [StopReason.STOP, StopReason.EOS, StopReason.LENGTH])
def test_K08_what_follows_a_closing_tag_is_cut_before_masking(sampled, kept, reason):
    """Whole tokens after the tag are dropped with their log-probabilities; the one that completes it stays, as sampled;
    the text ends with the tag.
    """
    engine = Scripted({"s": [[said(*sampled, reason=reason)], [said(2, EOS, reason=StopReason.EOS)]]})
    environment = Answers([Observation(token_ids=(9,))])
    ((rollout,),) = collect(engine, [ask("s", "?")], STOP_PARAMS, FORMAT, seed=0, environment=environment, max_turns=2)
    assert rollout.token_ids == (*kept, 9, 2, EOS)
    assert rollout.action_mask == (*[1] * len(kept), 0, 1, 1)
    assert rollout.logprobs[: len(kept)] == said(*kept).logprobs
    assert rollout.text == ("a" if 1 in kept else "") + "/s>b"
    assert environment.seen[0][1:] == (("a/s>" if 1 in kept else "/s>",), len(kept))


def test_K08_a_tag_that_is_not_complete_stops_nothing():
    engine = Scripted({"s": [[said(1, 5, EOS, reason=StopReason.EOS)]]})
    ((rollout,),) = collect(engine, [ask("s", "?")], STOP_PARAMS, FORMAT, seed=0)
    assert (rollout.token_ids, rollout.stop_reason) == ((1, 5, EOS), StopReason.EOS)


@pytest.mark.parametrize(("room", "turns"), [(17, 1), (18, 2), (25, 2), (26, 3)])
def test_an_episode_that_outgrows_the_context_is_truncated(room, turns):
    """Prompt 2, turns of at most 8 tokens (1 is said), observations of 7: the second turn needs 2 + 8 + 8 positions."""
    engine = Scripted({"s": [[said(1)], [said(1)], [said(1)]]}, context_length=room)
    heard = Observation(token_ids=(9,) * 7)
    ((rollout,),) = collect(
        engine, [ask("s", "?")], SamplingParams(max_new_tokens=8), FORMAT, seed=0,
        environment=Answers([heard] * 3), max_turns=3,
    )  # fmt: skip
    assert rollout.stop_reason is (StopReason.STOP if turns == 3 else StopReason.LENGTH)
    assert (rollout.length, len(engine.calls)) == (turns, turns)
    assert rollout.response is None


def test_K04_a_failing_environment_ends_one_episode_and_is_no_answer(caplog):
    engine = Scripted({"x": [[said(1)]], "y": [[said(1)], [said(2, EOS, reason=StopReason.EOS)]]})
    environment = Answers({"x": [EnvironmentFault("retrieval: timeout")], "y": [Observation(token_ids=(9,))]})
    ((x,), (y,)) = collect(
        engine, [ask("x", "?"), ask("y", "?")], SamplingParams(max_new_tokens=4), AnyText(), seed=0,
        environment=environment, max_turns=2,
    )  # fmt: skip
    assert (x.stop_reason, x.token_ids, x.response) == (StopReason.ERROR, (1,), None)
    assert (y.stop_reason, y.token_ids) == (StopReason.EOS, (1, 9, 2, EOS))
    assert "sample x: retrieval: timeout" in caplog.text
    assert [s.value for s in FormatVerifier().score([x, y])] == [None, 1.0], "unscored, not wrong"


def test_K05_one_slow_answer_does_not_hold_up_the_others():
    """Sixteen episodes wait for a server together, and each gets its own answer."""
    together = Barrier(16)

    class Slow:
        def step(self, sample: Sample, episode: Sequence[str | Observation], tokens: int) -> Observation | None:
            together.wait(timeout=20)  # broken unless all sixteen are here at once
            return Observation(token_ids=(50 + int(sample.id),))

    engine = Scripted({str(i): [[said(1)], [said(2, EOS, reason=StopReason.EOS)]] for i in range(16)})
    groups = collect(
        engine, [ask(str(i), "?") for i in range(16)], SamplingParams(max_new_tokens=4), FORMAT, seed=0,
        environment=Slow(), max_turns=2,
    )  # fmt: skip
    assert [r.token_ids for (r,) in groups] == [(1, 50 + i, 2, EOS) for i in range(16)]


def test_a_defect_of_the_environment_is_not_swallowed():
    with pytest.raises(IndexError):
        collect(
            Scripted({"s": [[said(1)]]}), [ask("s", "?")], SamplingParams(max_new_tokens=4), FORMAT, seed=0,
            environment=Answers([]), max_turns=2,
        )  # fmt: skip


class AnyText:
    """A format that takes anything and is three tenths sure of it."""

    def parse(self, text: str, stop_reason: StopReason) -> Response | None:
        return None if stop_reason is StopReason.ERROR else Response(answer=text, confidence=3)


def test_the_confidence_is_the_responses():
    engine = Scripted({"s": [[said(1), said(1, reason=StopReason.ERROR)]]})
    ((sure, failed),) = collect(engine, [ask("s", "?")], SamplingParams(max_new_tokens=4, n=2), AnyText(), seed=0)
    assert (sure.confidence, failed.confidence) == (3, None)


def test_episodes_end_one_by_one_and_turns_are_bounded():
    engine = Scripted(
        {
            "x": [[said(1), said(2, EOS, reason=StopReason.EOS)], [said(1)], [said(1)]],
            "y": [[said(12), said(12, reason=StopReason.LENGTH)], [said(2)], [said(2)]],
        }
    )

    class Nine:
        calls = 0

        def step(self, sample: Sample, episode: Sequence[str | Observation], tokens: int) -> Observation | None:
            self.calls += 1
            return None if episode == ("b",) else Observation(token_ids=(9,))

    environment = Nine()
    params = SamplingParams(max_new_tokens=4, n=2, temperature=0.5, stop=("/s>",))
    groups = collect(
        engine, [ask("x", "?"), ask("y", "?")], params, FORMAT, seed=7, environment=environment, max_turns=3
    )
    assert [[r.token_ids for r in group] for group in groups] == [
        [(1, 9, 1, 9, 1), (2, EOS)],
        [(12, 9, 2, 9, 2), (12,)],
    ]
    assert [len(requests) for requests, _, _ in engine.calls] == [2, 2, 2]
    for _, later, _ in engine.calls[1:]:
        assert (later.n, later.temperature, later.stop, later.max_new_tokens) == (1, 0.5, ("/s>",), 4)
    assert len({seed for _, _, seed in engine.calls}) == 3, "every turn has randomness of its own"
    assert environment.calls == 5


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
        def step(self, sample: Sample, episode: Sequence[str | Observation], tokens: int) -> Observation | None:
            return Observation(token_ids=tuple(heard)) if tokens <= 6 else None

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
        turns = (engine.decode(rollout.token_ids[:start]), engine.decode(rollout.token_ids[start + len(heard) :]))
        assert rollout.text == "".join(t[: t.find("e") + 1] if "e" in t else t for t in turns)
    again = collect(engine, samples, params, FORMAT, seed=1, environment=Once(), max_turns=2)
    assert [[r.token_ids for r in g] for g in again] == [[r.token_ids for r in g] for g in groups]
    second_turns = {r.token_ids[r.action_mask.index(0) + len(heard) :] for r in two if r.sample.id == two[0].sample.id}
    assert len(second_turns) == sum(r.sample.id == two[0].sample.id for r in two)
