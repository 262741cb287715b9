"""Continuous batching: a request's ids are those of `LocalEngine`, whoever comes and goes beside it."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from rollout.comparing import FAMILIES, near
from rollout.tiny_policies import ask, picture, policy, questions, requests
from safeladder.models.policy import Policy
from safeladder.rollout import continuous
from safeladder.rollout.continuous import ContinuousEngine
from safeladder.rollout.lane import Lane
from safeladder.rollout.local import LocalEngine, text_weights
from safeladder.rollout.tickets import EngineBusy, EngineClosed, SampledToken, Ticket
from safeladder.types import Completion, GenerationRequest, SafeladderError, SamplingParams, StopReason

LONG = SamplingParams(max_new_tokens=200)


@contextmanager
def serving(learner: Policy | None = None, **limits: int) -> Iterator[ContinuousEngine]:
    engine = ContinuousEngine(learner or endless(), **limits)
    try:
        yield engine
    finally:
        engine.close()
    assert not engine._worker.is_alive()


def endless() -> Policy:
    """A policy that never ends its turn, so that only budgets do."""
    learner = policy("llama")
    learner.logit_bias[learner.eos_token_id] = -1e9
    return learner


def asked(engine: LocalEngine, count: int = 1) -> list[GenerationRequest]:
    return requests(engine, [ask(f"q{i}", "how many red circles?" + " blue" * (i % 5)) for i in range(count)])


def alone(engine: LocalEngine, request: GenerationRequest, params: SamplingParams, seed: int) -> list[list[Completion]]:
    return LocalEngine(engine.policy).generate([request], params, seed=seed)


def shifted(by: float) -> Callable[[int, torch.Tensor], torch.Tensor]:
    return lambda layer, update: update + by * (layer + 1)


class Gate:
    """A callback that holds the engine at its `at`-th token until it is opened."""

    def __init__(self, at: int) -> None:
        self.at, self.tokens = at, list[SampledToken]()
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, token: SampledToken) -> None:
        self.tokens.append(token)
        if len(self.tokens) == self.at:
            self.reached.set()
            assert self.opened.wait(60)


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_those_of_the_local_engine(name):
    """Images, videos and text; requests that are sampled in different ways, from several threads at once."""
    learner = policy(name)
    local = LocalEngine(learner)
    samples = requests(local, questions(name))
    ways = [
        SamplingParams(max_new_tokens=9, n=3, top_logprobs=2),
        SamplingParams(max_new_tokens=14, temperature=0.0),
        SamplingParams(max_new_tokens=11, temperature=0.7, top_p=0.6),
        SamplingParams(max_new_tokens=14, n=2, stop=("a", "th")),
    ]
    with serving(learner, max_rows=9) as engine, ThreadPoolExecutor(len(ways)) as pool:
        work = [pool.submit(engine.generate, samples, params, seed=k) for k, params in enumerate(ways)]
        for k, params in enumerate(ways):
            expected = local.generate(samples, params, seed=k)
            found = work[k].result(60)
            assert found == near(expected)
            for mine, theirs in zip(found, expected, strict=True):
                for a, b in zip(mine, theirs, strict=True):
                    assert len(a.top_logprobs) == len(b.top_logprobs) == (len(a.token_ids) if k == 0 else 0)
                    for x, y in zip(a.top_logprobs, b.top_logprobs, strict=True):
                        assert [logprob for _, logprob in x] == pytest.approx([p for _, p in y], abs=1e-4)
    assert {c.stop_reason for group in work[3].result() for c in group} & {StopReason.STOP, StopReason.EOS}


def test_later_turns_and_the_same_request_twice():
    with serving(policy("qwen2_5_vl")) as engine:
        local = LocalEngine(engine.policy)
        first = requests(engine, questions("qwen2_5_vl")[1:3])
        follow = [replace(r, prompt_ids=(*r.prompt_ids, 7, 8, 9)) for r in first] * 2
        params = SamplingParams(max_new_tokens=6)
        expected = local.generate(follow, params, seed=1)
        assert engine.generate(follow, params, seed=1) == near(expected)
        assert expected[0][0].token_ids != expected[2][0].token_ids
        assert engine.generate([], params, seed=1) == []


def test_more_samples_than_rows():
    with serving(max_rows=4) as engine:
        params = SamplingParams(max_new_tokens=5, n=11)
        (request,) = asked(engine)
        assert engine.generate([request], params, seed=2) == near(alone(engine, request, params, 2))


def test_tokens_are_heard_as_they_are_sampled():
    with serving() as engine:
        heard: list[SampledToken] = []
        params = SamplingParams(max_new_tokens=7, n=3, top_logprobs=2)
        found = engine.submit(asked(engine)[0], params, seed=0, on_token=heard.append).result(60)
        for k, completion in enumerate(found):
            mine = [token for token in heard if token.sample == k]
            assert tuple(token.token_id for token in mine) == completion.token_ids
            assert tuple(token.logprob for token in mine) == completion.logprobs
            assert tuple(token.top_logprobs for token in mine) == completion.top_logprobs
        gate = Gate(at=2)
        ticket = engine.submit(asked(engine)[0], params, seed=0, on_token=gate)
        assert gate.reached.wait(60) and not ticket.done, "the first tokens are heard before the last is sampled"
        gate.opened.set()
        assert [c.token_ids for c in ticket.result(60)] == [c.token_ids for c in found]


def test_newcomers_join_rows_that_are_running():
    with serving() as engine:
        first, second = asked(engine, 2)
        gate = Gate(at=5)
        running = engine.submit(first, SamplingParams(max_new_tokens=30), seed=0, on_token=gate)
        assert gate.reached.wait(60)
        newcomer = engine.submit(second, SamplingParams(max_new_tokens=3), seed=0)
        gate.opened.set()
        newcomer.result(60)
        seen = len(gate.tokens)
        assert [running.result(60)] == near(alone(engine, first, SamplingParams(max_new_tokens=30), 0))
        assert seen < 30, "the newcomer was done before the one that ran when it came"


def test_rows_are_steered_each_by_its_own_edit():
    with serving(max_rows=8) as engine:
        samples, params = asked(engine, 4), SamplingParams(max_new_tokens=8, n=2)
        edits = [None, shifted(0.3), None, shifted(-0.4)]
        local = LocalEngine(engine.policy)
        plain = local.generate(samples, params, seed=3)
        tickets = [engine.submit(r, params, seed=3, edit=edit) for r, edit in zip(samples, edits, strict=True)]
        for i, (ticket, edit) in enumerate(zip(tickets, edits, strict=True)):
            local.edit = edit
            expected = local.generate([samples[i]], params, seed=3)
            assert [ticket.result(60)] == near(expected)
            assert (expected == near(plain[i : i + 1])) is (edit is None)
        engine.edit = local.edit = shifted(0.2)
        assert engine.generate(samples, params, seed=3) == near(local.generate(samples, params, seed=3))
        lane = Lane(engine, edit=edits[1])
        local.edit = edits[1]
        assert lane.generate(samples, params, seed=3) == near(local.generate(samples, params, seed=3))
        assert lane.context_length == engine.context_length
        assert lane.decode(lane.prompt_ids(samples[0].sample)) == engine.decode(samples[0].prompt_ids)


def test_an_edit_with_a_state_sees_its_own_request_only():
    seen: dict[str, list[tuple[int, ...]]] = {"a": [], "b": []}

    def noting(name: str) -> Callable[[int, torch.Tensor], torch.Tensor]:
        def edit(layer: int, update: torch.Tensor) -> torch.Tensor:
            if layer == 0:
                seen[name].append(tuple(update.shape[:2]))
            return update

        return edit

    with serving(max_rows=4) as engine:
        first, second = asked(engine, 2)
        a = engine.submit(first, SamplingParams(max_new_tokens=4, n=2), seed=0, edit=noting("a"))
        b = engine.submit(second, SamplingParams(max_new_tokens=3), seed=0, edit=noting("b"))
        for ticket in (a, b):
            ticket.result(60)
    assert [rows for rows, _ in seen["a"]] == [1, 2, 2, 2] and seen["a"][0][1] >= len(first.prompt_ids)
    assert [rows for rows, _ in seen["b"]] == [1, 1, 1] and seen["b"][0][1] >= len(second.prompt_ids)
    assert {size for calls in seen.values() for _, size in calls[1:]} == {1}


@pytest.mark.parametrize("frozen", [True, False])
def test_the_vision_tower_is_steered_for_one_request_only(frozen):
    learner = policy("qwen2_5_vl").requires_grad_(not frozen)
    tower = learner.family.vision_module(learner.model)
    assert tower is not None

    @contextmanager
    def brighter() -> Iterator[None]:
        def more(module, given, output):
            output.pooler_output = output.pooler_output + 3.0
            return output

        handle = tower.register_forward_hook(more)
        try:
            yield
        finally:
            handle.remove()

    params = SamplingParams(max_new_tokens=8)
    with serving(learner) as engine:
        samples = requests(engine, [ask("i1", picture(1), "how many?"), ask("i2", picture(2), "how many?")])
        for _ in range(2):  # the second time with what the first one remembered
            plain = engine.submit(samples[0], params, seed=0)
            steered = engine.submit(samples[0], params, seed=0, vision_edit=brighter)
            other = engine.submit(samples[1], params, seed=0)
            local = LocalEngine(policy("qwen2_5_vl"))
            expected = local.generate(samples, params, seed=0)
            assert [plain.result(60), other.result(60)] == near(expected)
            found = steered.result(60)
            with brighter():
                assert [found] == near(LocalEngine(learner).generate(samples[:1], params, seed=0))
            assert [found] != near(expected[:1])


def test_a_cancelled_request_frees_its_rows_before_the_next_token():
    with serving(max_rows=2) as engine:
        first, second, third = asked(engine, 3)
        gate, ignored = Gate(at=3), list[SampledToken]()
        running = engine.submit(first, SamplingParams(max_new_tokens=40), seed=0, on_token=gate)
        victim = engine.submit(second, LONG, seed=0, on_token=ignored.append)
        waiting = engine.submit(third, SamplingParams(max_new_tokens=2), seed=0)
        assert gate.reached.wait(60)
        heard = len(ignored)
        victim.cancel()
        gate.opened.set()
        waiting.result(60)
        assert len(gate.tokens) < 40, "the one that waited took the place at once"
        assert len(ignored) <= heard + 1, "at most the token that was being sampled"
        with pytest.raises(CancelledError):
            victim.result()
        assert [running.result(60)] == near(alone(engine, first, SamplingParams(max_new_tokens=40), 0))
        victim.cancel()
        running.cancel()
        stats = engine.stats()
        assert (stats.accepted, stats.finished, stats.cancelled, stats.failed) == (3, 2, 1, 0)


def test_who_is_cancelled_while_waiting_never_runs():
    with serving(max_rows=1) as engine:
        first, second = asked(engine, 2)
        gate = Gate(at=1)
        running = engine.submit(first, SamplingParams(max_new_tokens=3), seed=0, on_token=gate)
        assert gate.reached.wait(60)
        heard: list[SampledToken] = []
        waiting = engine.submit(second, LONG, seed=0, on_token=heard.append)
        assert engine.stats().waiting == 1
        waiting.cancel()
        assert engine.stats().waiting == 0
        gate.opened.set()
        running.result(60)
        assert heard == []


def test_awaited_and_cancelled_from_asyncio():
    async def ask_twice(engine: ContinuousEngine) -> Sequence[Completion]:
        first, second = asked(engine, 2)
        task = asyncio.ensure_future(asyncio.wrap_future(engine.submit(first, LONG, seed=0).future))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await asyncio.wrap_future(engine.submit(second, SamplingParams(max_new_tokens=3), seed=0).future)

    with serving() as engine:
        assert len(asyncio.run(ask_twice(engine))[0].token_ids) == 3
        assert engine.stats().cancelled == 1


def test_a_full_queue_refuses_and_callers_who_wait_are_not_refused():
    with serving(max_rows=1, max_waiting=2) as engine:
        samples, params = asked(engine, 6), SamplingParams(max_new_tokens=2)
        gate = Gate(at=1)
        tickets = [engine.submit(samples[0], params, seed=0, on_token=gate)]
        assert gate.reached.wait(60)
        tickets += [engine.submit(r, params, seed=0) for r in samples[1:3]]
        with pytest.raises(EngineBusy, match="2 requests"):
            engine.submit(samples[3], params, seed=0)
        with ThreadPoolExecutor(1) as pool:
            patient = pool.submit(engine.generate, samples[4:], params, seed=0)
            gate.opened.set()
            assert [len(group) for group in patient.result(60)] == [1, 1]
        assert [len(ticket.result(60)) for ticket in tickets] == [1, 1, 1]
        assert engine.submit(samples[3], params, seed=0).result(60)
        assert engine.stats().refused == 1


class Failing(Exception):
    pass


def fails(*_: object) -> torch.Tensor:
    raise Failing


def not_finite(layer: int, update: torch.Tensor) -> torch.Tensor:
    return update * torch.nan


def late(layer: int, update: torch.Tensor) -> torch.Tensor:
    if update.shape[1] == 1:
        raise Failing
    return update


@contextmanager
def no_sight() -> Iterator[None]:
    raise Failing
    yield


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"on_token": fails}, Failing),
        ({"edit": fails}, Failing),
        ({"edit": late}, Failing),
        ({"edit": lambda layer, update: update[..., :3]}, RuntimeError),
        ({"edit": not_finite}, ArithmeticError),
        ({"vision_edit": no_sight}, Failing),
    ],
    ids=["callback", "edit", "edit-later", "edit-shape", "not-finite", "vision"],
)
def test_who_fails_fails_alone(how, error):
    with serving() as engine:
        samples, params = asked(engine, 3), SamplingParams(max_new_tokens=6, n=2)
        gate = Gate(at=1)
        running = engine.submit(samples[0], params, seed=0, on_token=gate)
        assert gate.reached.wait(60)
        broken = engine.submit(samples[1], params, seed=0, **how)
        beside = engine.submit(samples[2], params, seed=0)
        gate.opened.set()
        with pytest.raises(error):
            broken.result(60)
        expected = LocalEngine(engine.policy).generate(samples, params, seed=0)
        assert [running.result(60), beside.result(60)] == near([expected[0], expected[2]])
        assert engine.generate(samples[1:2], params, seed=0) == near(expected[1:2])
        stats = engine.stats()
        assert (stats.failed, stats.finished) == (1, 3)


def test_a_batch_that_fails_as_a_whole_leaves_a_working_engine(monkeypatch):
    with serving() as engine:
        (request,) = asked(engine)
        params = SamplingParams(max_new_tokens=4)
        with monkeypatch.context() as patch:
            patch.setattr(engine.decoder, "forward", fails)
            with pytest.raises(Failing):
                engine.generate([request], params, seed=0)
        gate = Gate(at=1)
        ticket = engine.submit(request, params, seed=0, on_token=gate)
        assert gate.reached.wait(60)
        with monkeypatch.context() as patch:
            patch.setattr(engine.decoder, "forward", fails)
            gate.opened.set()
            with pytest.raises(Failing):
                ticket.result(60)
        assert engine.generate([request], params, seed=0) == near(alone(engine, request, params, 0))


def test_closing_lets_running_requests_finish_within_the_grace():
    with serving() as engine:
        gate = Gate(at=1)
        ticket = engine.submit(asked(engine)[0], SamplingParams(max_new_tokens=5), seed=0, on_token=gate)
        assert gate.reached.wait(60)
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(engine.close, 60)
            while not engine._closed:
                pass
            with pytest.raises(EngineClosed):
                engine.submit(asked(engine)[0], LONG, seed=0)
            gate.opened.set()
            closing.result(60)
        assert len(ticket.result(0)[0].token_ids) == 5


def test_closing_without_grace_fails_what_runs_and_what_waits():
    engine = ContinuousEngine(endless(), max_rows=1)
    gate = Gate(at=1)
    tickets = [engine.submit(r, LONG, seed=0, on_token=gate) for r in asked(engine, 3)]
    assert gate.reached.wait(60)
    threading.Timer(0.05, gate.opened.set).start()
    engine.close()
    assert not engine._worker.is_alive()
    for ticket in tickets:
        with pytest.raises(EngineClosed):
            ticket.result(0)
    engine.close()


def test_new_weights_wait_for_running_rows_and_hold_for_waiting_ones():
    other = policy("llama", seed=5)
    with serving(max_rows=1) as engine:
        samples, params = asked(engine, 2), SamplingParams(max_new_tokens=6)
        before = alone(engine, samples[0], params, 0)
        gate = Gate(at=2)
        running = engine.submit(samples[0], params, seed=0, on_token=gate)
        waiting = engine.submit(samples[1], params, seed=0)
        assert gate.reached.wait(60)
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(engine.load_weights, text_weights(other))
            while not engine._holders:
                pass
            gate.opened.set()
            loading.result(60)
        assert [running.result(60)] == near(before)
        other.logit_bias.copy_(engine.policy.logit_bias)
        assert [waiting.result(60)] == near(LocalEngine(other).generate(samples[1:], params, seed=0))


def test_two_samples_of_one_id_are_never_mixed_up():
    params = SamplingParams(max_new_tokens=6)
    with serving(policy("qwen2_5_vl")) as engine:
        pair = [ask("same", picture(k), "how many circles?") for k in (1, 2)]
        tickets = [engine.submit(requests(engine, [s])[0], params, seed=0) for s in pair]
        for sample, ticket in zip(pair, tickets, strict=True):
            fresh = LocalEngine(engine.policy)
            assert [ticket.result(60)] == near(fresh.generate(requests(fresh, [sample]), params, seed=0))
        again = ask("same", picture(2), "how many circles?")
        assert engine.prompt(again) is engine.prompt(pair[1]), "the same content is encoded once"
        assert tickets[0].result()[0].logprobs != tickets[1].result()[0].logprobs


def test_remembered_prompts_are_bounded():
    with serving() as engine:
        for i in range(300):
            engine.prompt_ids(ask(f"s{i}", "hi"))
        assert len(engine._recent) == 256
        engine.forget()
        assert not engine._recent


def test_pictures_of_remembered_prompts_are_bounded_by_their_size(monkeypatch):
    with serving(policy()) as engine:
        first = engine.prompt(ask("s0", picture(0), "hi"))
        assert first.encoded.pixel_values is not None
        size = first.encoded.pixel_values.nbytes
        monkeypatch.setattr(continuous, "_PIXEL_BYTES", 3 * size)
        for i in range(1, 6):
            engine.prompt_ids(ask(f"s{i}", picture(i), "hi"))
        assert list(engine._recent) == ["s3", "s4", "s5"]
        monkeypatch.setattr(continuous, "_PIXEL_BYTES", size // 2)
        engine.prompt_ids(ask("s6", picture(6), "hi"))
        assert list(engine._recent) == ["s6"], "the latest is kept, however large"


def test_memory_of_keys_and_values_is_bounded():
    """Prompt and budget take about 30 positions: no more than 4 rows fit into 128, whatever `max_rows` says."""
    with serving(max_positions=128) as engine:
        samples = requests(engine, [ask(f"s{i}", "hi") for i in range(9)])
        room = 128 // 4 - len(samples[0].prompt_ids)
        assert room > 2
        most, params = 0, SamplingParams(max_new_tokens=room)

        def note(_: SampledToken) -> None:
            nonlocal most
            most = max(most, len(engine._batch.rows))

        tickets = [engine.submit(r, params, seed=0, on_token=note) for r in samples]
        assert [len(t.result(60)[0].token_ids) for t in tickets] == [room] * 9
        assert most == 4
        (alone_,) = asked(engine)
        assert engine.submit(alone_, LONG, seed=0).result(60), "a row that is too long for company runs alone"


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (SamplingParams(max_new_tokens=0), "max_new_tokens 0"),
        (SamplingParams(max_new_tokens=1, n=0), "n 0"),
        (SamplingParams(max_new_tokens=1, temperature=-1.0), "temperature -1"),
        (SamplingParams(max_new_tokens=1, temperature=float("nan")), "temperature nan"),
        (SamplingParams(max_new_tokens=1, temperature=1e9), "temperature"),
        (SamplingParams(max_new_tokens=1, stop=("",)), "stop"),
        (SamplingParams(max_new_tokens=1, top_logprobs=1000), "top_logprobs 1000"),
        (SamplingParams(max_new_tokens=10**6), "prompt and budget"),
    ],
)
def test_what_cannot_be_sampled_is_refused_at_once(params, said):
    with serving() as engine:
        (request,) = asked(engine)
        with pytest.raises(SafeladderError, match=f"q0.*{said}"):
            engine.submit(request, params, seed=0)
        with pytest.raises(SafeladderError, match="ids"):
            engine.submit(replace(request, prompt_ids=request.prompt_ids[1:]), LONG, seed=0)
        assert engine.stats().accepted == 0


def test_a_lane_is_cancelled_as_a_whole():
    with serving() as engine, ThreadPoolExecutor(1) as pool:
        lane, other = Lane(engine), Lane(engine)
        work = pool.submit(lane.generate, asked(engine, 2), LONG, seed=0)
        while engine.stats().running < 2:
            pass
        lane.cancel()
        with pytest.raises(CancelledError):
            work.result(60)
        with pytest.raises(CancelledError):
            lane.generate(asked(engine), LONG, seed=0)
        assert other.generate(asked(engine), SamplingParams(max_new_tokens=2), seed=0)
        assert engine.stats().cancelled == 3


def test_counters_add_up():
    with serving() as engine:
        samples = asked(engine, 3)
        engine.generate(samples, SamplingParams(max_new_tokens=5, n=2), seed=0)
        engine.close()
        stats = engine.stats()
        assert (stats.accepted, stats.finished, stats.running, stats.waiting) == (3, 3, 0, 0)
        assert stats.prompt_tokens == sum(len(r.prompt_ids) for r in samples)
        assert stats.generated_tokens == 3 * 2 * 5
        assert stats.steps >= 4 and stats.prefills >= 1 and stats.busy_seconds > 0


def test_random_joins_cancels_and_failures():
    """Six threads, five rows: whoever is neither cancelled nor broken gets the ids it gets alone."""
    with serving(policy("llama"), max_rows=5) as engine:
        local = LocalEngine(engine.policy)
        samples = requests(local, [ask(f"s{i}", "how many red circles?" + " is blue" * i) for i in range(8)])
        outcomes: list[tuple[Ticket, GenerationRequest, SamplingParams, int, bool, bool]] = []

        def visitor(number: int) -> None:
            chance = random.Random(number)
            for turn in range(8):
                params = SamplingParams(
                    max_new_tokens=chance.randint(1, 25),
                    temperature=chance.choice([0.0, 0.6, 1.0]),
                    n=chance.randint(1, 3),
                    top_p=chance.choice([1.0, 0.7]),
                    stop=chance.choice([(), ("e",)]),
                )
                broken, cancelled, at = chance.random() < 0.2, chance.random() < 0.3, chance.randint(1, 20)
                count = 0

                def hear(token: SampledToken, broken: bool = broken, at: int = at) -> None:
                    nonlocal count
                    count += 1
                    if broken and count == at:
                        raise Failing

                request, seed = chance.choice(samples), 100 * number + turn
                ticket = engine.submit(request, params, seed=seed, on_token=hear)
                outcomes.append((ticket, request, params, seed, broken, cancelled))
                if cancelled:
                    threading.Event().wait(chance.random() / 50)
                    ticket.cancel()
                elif chance.random() < 0.5:
                    ticket.future.exception(60)

        visitors = [threading.Thread(target=visitor, args=(k,)) for k in range(6)]
        for thread in visitors:
            thread.start()
        for thread in visitors:
            thread.join(60)
        whole = 0
        for ticket, request, params, seed, broken, cancelled in outcomes:
            try:
                found = ticket.result(60)
            except Failing:
                assert broken
            except CancelledError:
                assert cancelled
            else:
                whole += 1
                assert [found] == near(local.generate([request], params, seed=seed))
        assert len(outcomes) == 48 and whole >= 20
        stats = engine.stats()
        assert stats.accepted == 48 == stats.finished + stats.failed + stats.cancelled
        assert stats.finished == whole
    assert not engine._open and not engine._queue and not engine._batch.rows
    assert engine._batch._cache.capacity == (0, 0)
