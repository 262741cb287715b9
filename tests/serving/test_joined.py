"""Guided replies side by side: each is what it is alone, in fewer batches, and leaves nothing behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from rollout.tiny_policies import ask, picture
from safeladder.rollout.continuous import ContinuousEngine
from safeladder.rollout.prefix import PrefixEngine
from safeladder.rollout.tickets import EngineClosed
from safeladder.serving.joined import JoinedGuidance, Left, Seat
from safeladder.steering.guidance import GuidanceConfig, GuidedResult, Thresholds
from safeladder.steering.guided import Guidance, OnStep
from safeladder.steering.value_heads import ValueHeads
from safeladder.steering.values import PRINCIPLES
from safeladder.types import SafeladderError, Sample, SamplingParams
from serving.wordy import wordy

CONFIG = GuidanceConfig(
    candidates=3,
    step_tokens=5,
    backtracks=1,
    thresholds={name: Thresholds(floor=0.9) for name in PRINCIPLES},
    reminders={"*": ("red 12",)},
    completions={"*": ("blue",)},
)
"""Steps are hopeless under heads that know nothing, so replies go back and proposed steps come in."""


def guidance(engine: ContinuousEngine) -> Guidance:
    torch.manual_seed(0)
    return Guidance(ValueHeads(engine.decoder.hidden_size, PRINCIPLES).eval(), CONFIG)


@pytest.fixture(scope="module")
def engine() -> Iterator[ContinuousEngine]:
    with ContinuousEngine(wordy()) as made:
        yield made


@pytest.fixture
def joined(engine: ContinuousEngine) -> Iterator[JoinedGuidance]:
    made = JoinedGuidance(guidance(engine), engine)
    yield made
    made.close()


def questions() -> list[Sample]:
    """Prompts of several lengths, with an image and without; the first is asked twice."""
    asked = [ask("a", "red?"), ask("b", picture(1), "how many red?"), ask("c", "12 or blue or red 12?")]
    return [*asked, asked[0], *(ask(f"d{i}", picture(i), "what?") for i in range(2))]


def budgets() -> list[SamplingParams]:
    return [SamplingParams(max_new_tokens=n) for n in (7, 12, 3, 20, 12, 9)]


def reply(joined: JoinedGuidance, sample: Sample, params: SamplingParams, seed: int, hear: OnStep | None = None) -> Any:
    with (seat := joined.seat()).taken(sample) as decoder:
        return decoder.generate(sample, params, seed=seed, on_step=hear), seat.positions


def same(found: GuidedResult, expected: GuidedResult) -> None:
    assert found.completion.token_ids == expected.completion.token_ids
    assert found.completion.stop_reason == expected.completion.stop_reason
    assert found.completion.logprobs == pytest.approx(expected.completion.logprobs, abs=1e-4)
    assert [step.action for step in found.trail] == [step.action for step in expected.trail]
    for mine, theirs in zip(found.trail, expected.trail, strict=True):
        assert [c.token_ids for c in mine.candidates] == [c.token_ids for c in theirs.candidates]
        assert [c.score for c in mine.candidates] == pytest.approx([c.score for c in theirs.candidates], abs=1e-4)


def test_replies_side_by_side_are_those_made_alone_in_fewer_batches(engine, joined):
    samples, params = questions(), budgets()
    alone = [
        guidance(engine).over(PrefixEngine(joined.source)).generate(s, p, seed=i)
        for i, (s, p) in enumerate(zip(samples, params, strict=True))
    ]
    # What the test is about does happen: replies that go back, proposed steps, budgets that cut.
    assert {step.action for one in alone for step in one.trail} == {"keep", "backtrack"}
    assert any(c.source == "proposed" for one in alone for step in one.trail for c in step.candidates)
    assert len({len(one.trail) for one in alone}) > 1
    for i, (sample, p) in enumerate(zip(samples, params, strict=True)):
        same(reply(joined, sample, p, i)[0], alone[i])
    calls, joined.batches = joined.batches, 0
    with ThreadPoolExecutor(len(samples)) as pool:
        together = list(pool.map(lambda i: reply(joined, samples[i], params[i], i), range(len(samples))))
    for (found, positions), expected in zip(together, alone, strict=True):
        same(found, expected)
        assert found.cost.generated_tokens == expected.cost.generated_tokens
        assert found.cost.positions == positions
    assert joined.batches < 0.7 * calls


def test_nothing_is_remembered_once_everybody_has_left(joined):
    samples = questions()
    kept = []

    def hear(_: Any) -> None:
        kept.append(joined.remembered)

    reply(joined, samples[1], SamplingParams(max_new_tokens=12), 0, hear)
    assert min(kept) > 0
    for _ in range(100):
        if not joined.remembered:
            break
        time.sleep(0.02)
    assert joined.remembered == 0


def test_who_gives_up_is_let_go_at_once_and_the_others_go_on(joined):
    idle, sample = joined.seat(), ask("idle", "red?")
    other = ask("e", "blue?")
    given_up = joined.seat()

    def work(seat: Seat, asked: Sample) -> GuidedResult:
        with seat.taken(asked) as decoder:
            return decoder.generate(asked, SamplingParams(max_new_tokens=8), seed=0)

    with ThreadPoolExecutor(2) as pool:
        with idle.taken(sample):
            first, second = pool.submit(work, given_up, other), pool.submit(work, joined.seat(), other)
            time.sleep(0.2)
            assert not first.done()  # it waits for the idle one
            given_up.cancel()
            with pytest.raises(Left):
                first.result(timeout=5)
            assert not second.done()
        same(second.result(timeout=20), reply(joined, other, SamplingParams(max_new_tokens=8), 0)[0])
    with pytest.raises(Left):  # and whoever gave up before sitting down never begins
        work(given_up, other)


def test_a_batch_that_nobody_waits_for_is_not_finished(joined, monkeypatch):
    sample = ask("f", "red?")
    seat = joined.seat()
    steps, began = [], threading.Event()
    logits = PrefixEngine._logits

    def slow(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        steps.append(1)
        began.set()
        time.sleep(0.05)
        return logits(self, hidden)

    monkeypatch.setattr(PrefixEngine, "_logits", slow)

    def work() -> None:
        with seat.taken(sample) as decoder:
            decoder.generate(sample, SamplingParams(max_new_tokens=200), seed=0)

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(work)
        began.wait(10)
        seat.cancel()
        with pytest.raises(Left):
            found.result(timeout=5)
        time.sleep(0.1)
        count = len(steps)
        time.sleep(0.2)
    assert len(steps) == count


def test_a_reply_that_fails_fails_alone(engine, joined, monkeypatch):
    good, bad = ask("g", "red?"), ask("h", "red 12?")
    encoded = joined._rows._prompt_of

    def prompt_of(sample: Sample) -> Any:
        if sample.id == "h":
            raise SafeladderError("damaged")
        return encoded(sample)

    monkeypatch.setattr(joined._rows, "_prompt_of", prompt_of)
    expected = (
        guidance(engine).over(PrefixEngine(joined.source)).generate(good, SamplingParams(max_new_tokens=8), seed=0)
    )
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(reply, joined, s, SamplingParams(max_new_tokens=8), 0) for s in (good, bad)]
        same(found[0].result(20)[0], expected)
        with pytest.raises(SafeladderError, match="damaged"):
            found[1].result(20)


def test_a_closed_one_tells_who_waits_and_who_comes(engine):
    joined = JoinedGuidance(guidance(engine), engine)
    sample = ask("k", "red?")
    with joined.seat().taken(ask("idle", "red?")), ThreadPoolExecutor(1) as pool:
        found = pool.submit(reply, joined, sample, SamplingParams(max_new_tokens=8), 0)
        time.sleep(0.2)
        joined.close(grace=0.05)
        with pytest.raises(EngineClosed):
            found.result(timeout=5)
    with pytest.raises(EngineClosed):
        reply(joined, sample, SamplingParams(max_new_tokens=8), 0)
