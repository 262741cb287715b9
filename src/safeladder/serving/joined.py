"""Guided replies side by side: each is ordinary code on a thread of its own, and what they ask of the model is joined.

A `Seat` is one reply's place. It looks like a `PrefixEngine`, but a call waits until every seated reply has asked for
something; then all that ask for states run as one batch, or, where none does, all that sample: every row with its own
seed, temperature and budget. So replies of any phase share batches, and ids are those of a reply decoded alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from safeladder.models.policy import Prompt
from safeladder.rollout.continuous import ContinuousEngine
from safeladder.rollout.decoder import Decoder, MlpEdit
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.prefix import Pass, PrefixEngine
from safeladder.rollout.sampling import first_numbers
from safeladder.rollout.tickets import EngineClosed, VisionEdit
from safeladder.steering.guided import Guidance, GuidedDecoder
from safeladder.types import Completion, GenerationRequest, Sample, SamplingParams, StopReason


class Left(Exception):
    """Nobody waits for this reply any more."""


class View(LocalEngine):
    """Another engine's weights for one caller at a time, steered by an edit of its own; nothing is copied."""

    def __init__(self, engine: LocalEngine, edit: MlpEdit | None) -> None:
        self._of = engine
        super().__init__(engine.policy, max_rows=engine.max_rows)
        self.edit = edit

    def sync(self) -> None:
        """Nothing to copy."""

    @property
    def decoder(self) -> Decoder:
        return self._of.decoder


@dataclass(slots=True, eq=False, kw_only=True)
class _Call:
    """What a seat waits for. `params` are those of a call that samples; of one that reads states they are None."""

    seat: Seat
    requests: Sequence[GenerationRequest]
    params: SamplingParams | None = None
    seed: int = 0
    tails: Sequence[int] = ()
    logprobs: bool = False
    future: Future[list[Any]] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Calls of one kind run as one batch."""
        params = self.params
        return (self.logprobs,) if params is None else (params.stop, params.top_p, params.top_logprobs)


class JoinedGuidance:
    """Guided decoding for many callers at once, over the weights of a continuous engine. Close it.

    Args:
        guidance: value models and settings.
        engine: its weights are used, and the prompts that it has encoded.
        edit, vision_edit: steer every reply.
    """

    def __init__(
        self,
        guidance: Guidance,
        engine: ContinuousEngine,
        *,
        edit: MlpEdit | None = None,
        vision_edit: VisionEdit | None = None,
    ) -> None:
        self.guidance, self.source = guidance, View(engine, edit)
        self._rows = _Rows(self.source, engine.prompt, vision_edit)
        self.prompt = engine.prompt
        self._wake = threading.Condition()
        self._calls: list[_Call] = []
        self._seated: Counter[str] = Counter()
        self._gone: list[str] = []
        self._closed = False
        self.batches = 0
        """Batches that were run."""
        self._worker = threading.Thread(target=self._work, name="guiding", daemon=True)
        self._worker.start()

    @property
    def names(self) -> list[str]:
        """Of the value models."""
        return list(self.guidance.heads.principles)

    @property
    def remembered(self) -> int:
        """Bytes of keys and values that are kept of prompts and steps."""
        return self._rows.remembered

    def seat(self) -> Seat:
        """A place for one reply; nobody waits for it before it is `taken`."""
        return Seat(self)

    def decoder(self, seat: Seat) -> GuidedDecoder:
        """Decodes one reply at a seat."""
        return self.guidance.over(seat)

    def close(self, grace: float = 0.0) -> None:
        """Seat nobody else, give the seated up to `grace` seconds, fail what they ask then, and stop."""
        with self._wake:
            self._wake.wait_for(lambda: not self._seated, timeout=grace)
            self._closed = True
            self._wake.notify_all()
        self._worker.join()

    # On the seats' threads.

    def enter(self, sample: Sample) -> None:
        """Somebody sits down; batches wait for them from now on."""
        with self._wake:
            self._seated[sample.id] += 1

    def leave(self, sample: Sample) -> None:
        """Somebody leaves; what is remembered of a prompt goes with the last one who asked it."""
        with self._wake:
            self._seated[sample.id] -= 1
            if not self._seated[sample.id]:
                del self._seated[sample.id]
                self._gone.append(sample.id)
            self._wake.notify_all()

    def ask(self, call: _Call) -> list[Any]:
        """Wait for a call's outcome.

        Raises:
            Left: the seat was given up.
            EngineClosed: the server is stopping.
        """
        with self._wake:
            if call.seat.left:
                raise Left
            if self._closed:
                raise EngineClosed("the engine was closed")
            call.seat.call = call
            self._calls.append(call)
            self._wake.notify_all()
        return call.future.result()

    def give_up(self, seat: Seat) -> None:
        """End what a seat waits for; from any thread."""
        with self._wake:
            seat.left = True
            if seat.call is not None:
                if seat.call in self._calls:
                    self._calls.remove(seat.call)
                _fail(seat.call, Left())
            self._wake.notify_all()

    # On the worker's thread.

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(self._due)
                gone, self._gone = [id for id in self._gone if id not in self._seated], []
                if self._closed:
                    for call in self._calls:
                        _fail(call, EngineClosed("the engine was closed before this reply was done"))
                    return
                batch: list[_Call] = []
                if self._calls and len(self._calls) >= self._seated.total():
                    # States are quick to have, and whoever has got them joins the next batch that samples.
                    reading = [call for call in self._calls if call.params is None]
                    batch = reading or self._calls
                    self._calls = [call for call in self._calls if call not in batch]
            for id in gone:
                self._rows.drop(id)
            for kind in dict.fromkeys(call.kind for call in batch):
                self._run([call for call in batch if call.kind == kind])

    def _due(self) -> bool:
        waiting = len(self._calls)
        return self._closed or bool(self._gone) or (waiting > 0 and waiting >= self._seated.total())

    def _run(self, calls: Sequence[_Call]) -> None:
        """One batch of one kind. Who fails, fails alone."""
        self.batches += 1
        try:
            found = self._rows.run(calls)
        except Left:
            return
        except Exception as error:
            if len(calls) == 1:
                _fail(calls[0], error)
            else:
                for call in calls:
                    self._run([call])
            return
        for call, (results, positions) in zip(calls, found, strict=True):
            call.seat.positions += positions
            with contextlib.suppress(InvalidStateError):  # given up in this very moment
                call.future.set_result(results)


class Seat(PrefixEngine):
    """One reply's place among others, as a `PrefixEngine`; one thread calls it. `positions` counts its own alone."""

    def __init__(self, joined: JoinedGuidance) -> None:
        super().__init__(joined.source)
        self._joined = joined
        self.left = False
        self.call: _Call | None = None

    @contextlib.contextmanager
    def taken(self, sample: Sample) -> Iterator[GuidedDecoder]:
        """Sit down with a decoder while a reply to `sample` is made."""
        self._joined.enter(sample)
        try:
            yield self._joined.decoder(self)
        finally:
            self._joined.leave(sample)

    def cancel(self) -> None:
        """Give up; from any thread. What is asked here raises `Left` from now on."""
        self._joined.give_up(self)

    def prompt(self, sample: Sample) -> Prompt:
        return self._joined.prompt(sample)

    def forget(self) -> None:
        """What others may share is forgotten when the last of them leaves."""

    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, *, seed: int
    ) -> list[list[Completion]]:
        self._require_room(requests, params)
        return self._joined.ask(_Call(seat=self, requests=requests, params=params, seed=seed))

    def passes(
        self, requests: Sequence[GenerationRequest], tails: Sequence[int] | None = None, *, logprobs: bool = False
    ) -> list[Pass]:
        wanted = [1] * len(requests) if tails is None else tails
        return self._joined.ask(_Call(seat=self, requests=requests, tails=wanted, logprobs=logprobs))


class _Rows(PrefixEngine):
    """Runs calls of one kind as one batch; only the worker's thread calls it."""

    def __init__(
        self, source: LocalEngine, prompt_of: Callable[[Sample], Prompt], vision_edit: VisionEdit | None
    ) -> None:
        super().__init__(source)
        self._prompt_of, self._vision_edit = prompt_of, vision_edit
        self._seats: list[Seat] = []

    def prompt(self, sample: Sample) -> Prompt:
        found = self._prompts.get(sample.id)
        if found is None:
            found = self._prompts[sample.id] = replace(self._prompt_of(sample))
            if self._vision_edit is not None:  # features that others have computed are not steered
                found.features = None
        return found

    @property
    def remembered(self) -> int:
        return self._bytes

    def drop(self, id: str) -> None:
        """Forget a sample and all that was said to it."""
        self._prompts.pop(id, None)
        self._lengths.pop(id, None)
        for key in [key for key in self._kept if key[0] == id]:
            self._bytes -= self._kept.pop(key).nbytes

    def run(self, calls: Sequence[_Call]) -> list[tuple[list[Any], int]]:
        """Every call's outcome, and how many token positions it took.

        Raises:
            Left: none of the callers is there any more.
        """
        self._seats = [call.seat for call in calls]
        looking = self._vision_edit() if self._vision_edit else contextlib.nullcontext()
        try:
            with looking:
                return self._sample(calls) if calls[0].params is not None else self._read(calls)
        finally:
            self._record = None

    def _read(self, calls: Sequence[_Call]) -> list[tuple[list[Any], int]]:
        requests = [request for call in calls for request in call.requests]
        tails = [tail for call in calls for tail in call.tails]
        costs = iter([self._missing(request) for request in requests])
        found = iter(self.passes(requests, tails, logprobs=calls[0].logprobs))
        return [([next(found) for _ in call.requests], sum(next(costs) for _ in call.requests)) for call in calls]

    @torch.inference_mode()
    def _sample(self, calls: Sequence[_Call]) -> list[tuple[list[Any], int]]:
        self._check()
        rows = [row for call in calls for row in _rows_of(call)]
        costs = [self._missing(row.request) for row in rows]
        budget = max(row.params.max_new_tokens for row in rows)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].request.prompt_ids))
        found: dict[int, Completion] = {}
        for start in range(0, len(order), self.max_rows):
            chunk = [rows[i] for i in order[start : start + self.max_rows]]
            params = replace(chunk[0].params, max_new_tokens=budget, n=1)
            groups = self._generate_batch(
                [row.request for row in chunk],
                [row.number for row in chunk],
                params,
                [row.seed for row in chunk],
                [row.params.temperature for row in chunk],
            )
            for i, (completion,) in zip(order[start : start + self.max_rows], groups, strict=True):
                costs[i] += len(completion.token_ids) - 1
                found[i] = _cut(completion, rows[i].params.max_new_tokens)
        outcomes, at = [], 0
        for call in calls:
            assert call.params is not None
            n = call.params.n
            size = len(call.requests) * n
            mine = [found[i] for i in range(at, at + size)]
            outcomes.append(([mine[i : i + n] for i in range(0, size, n)], sum(costs[at : at + size])))
            at += size
        return outcomes

    def _missing(self, request: GenerationRequest) -> int:
        """How many positions of a context no kept prefix covers."""
        return len(request.prompt_ids) - self._longest(request)

    def _logits(self, hidden: Tensor) -> Tensor:
        if all(seat.left for seat in self._seats):
            raise Left
        return super()._logits(hidden)


@dataclass(frozen=True, slots=True)
class _Row:
    request: GenerationRequest
    number: int
    seed: int
    params: SamplingParams


def _rows_of(call: _Call) -> list[_Row]:
    """The rows of a call that samples, each request's together, numbered as if it were alone."""
    assert call.params is not None
    firsts = first_numbers(call.requests, call.params.n)
    return [
        _Row(request, first + k, call.seed, call.params)
        for request, first in zip(call.requests, firsts, strict=True)
        for k in range(call.params.n)
    ]


def _cut(completion: Completion, budget: int) -> Completion:
    """A completion whose own budget is smaller than that of its batch."""
    if len(completion.token_ids) <= budget:
        return completion
    return replace(
        completion,
        token_ids=completion.token_ids[:budget],
        logprobs=completion.logprobs[:budget],
        top_logprobs=completion.top_logprobs[:budget],
        stop_reason=StopReason.LENGTH,
    )


def _fail(call: _Call, error: Exception) -> None:
    with contextlib.suppress(InvalidStateError):
        call.future.set_exception(error)
