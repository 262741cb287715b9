"""A request on its way through a `ContinuousEngine`: what callers hold, and what the engine schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

from safeladder.models.policy import Prompt
from safeladder.rollout.decoder import MlpEdit
from safeladder.rollout.sampling import uniforms
from safeladder.types import Completion, GenerationRequest, SamplingParams

VisionEdit = Callable[[], AbstractContextManager[Any]]
"""Makes a context manager that is entered while the vision tower runs for a request."""


class EngineBusy(Exception):
    """As many requests are waiting as may wait; try again later."""


class EngineClosed(Exception):
    """The engine is shutting down: it takes no more requests, and this one did not finish in time."""


@dataclass(frozen=True, slots=True)
class SampledToken:
    """One sampled token of sample number `sample` of a request, with its log-probability.

    `top_logprobs` holds the likeliest ids, best first, where the request asked for them.
    """

    sample: int
    token_id: int
    logprob: float
    top_logprobs: tuple[tuple[int, float], ...] = ()


OnToken = Callable[[SampledToken], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Where an engine stands and what it has done since it was made.

    Attributes:
        running: rows being decoded.
        waiting: requests that wait for a row.
        accepted, finished, failed, cancelled, refused: requests, by what became of them.
        prompt_tokens: prefilled, image placeholders included, padding not.
        generated_tokens: sampled.
        prefills: forward passes over prompts.
        steps: forward passes over one token of every row.
        busy_seconds: time spent on both.
    """

    running: int = 0
    waiting: int = 0
    accepted: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefills: int = 0
    steps: int = 0
    busy_seconds: float = 0.0


class Ticket:
    """A request that was accepted. `future` is its outcome, for `asyncio.wrap_future` and callbacks."""

    def __init__(self, request: GenerationRequest, params: SamplingParams) -> None:
        self.request = request
        self.params = params
        self.future: Future[list[Completion]] = Future()
        self._completions: dict[int, Completion] = {}

    @property
    def done(self) -> bool:
        """Finished, failed or cancelled."""
        return self.future.done()

    def cancel(self) -> None:
        """Give up: waiting or running, the request's rows are free before the next token. Harmless when done."""
        self.future.cancel()

    def result(self, timeout: float | None = None) -> list[Completion]:
        """The completions, in order of their numbers.

        Raises:
            concurrent.futures.CancelledError: it was cancelled.
            TimeoutError: not done after `timeout` seconds; the request goes on.
            EngineClosed: the engine was closed before it was done.
            Exception: what this request failed with.
        """
        return self.future.result(timeout)

    def complete(self, sample: int, completion: Completion) -> None:
        """Note one sample's completion; the last one finishes the request."""
        self._completions[sample] = completion
        if len(self._completions) == self.params.n:
            with suppress(InvalidStateError):  # cancelled in this very moment
                self.future.set_result([self._completions[k] for k in range(self.params.n)])

    def fail(self, error: Exception) -> None:
        """End the request with an error, unless it is done."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(slots=True, kw_only=True, eq=False)
class Group:
    """Samples `first` to `first + count` of a request: they are prefilled and join together.

    `number` is what the request's sample 0 counts as where one call asks for the same sample several times.
    """

    ticket: Ticket
    prompt: Prompt
    seed: int
    number: int
    first: int
    count: int
    on_token: OnToken | None
    edit: MlpEdit | None
    vision_edit: VisionEdit | None

    @property
    def positions(self) -> int:
        """Of one row, prompt and budget."""
        return len(self.ticket.request.prompt_ids) + self.ticket.params.max_new_tokens

    def rows(self) -> Iterator[Row]:
        """A row for each sample, before its first token."""
        request, params = self.ticket.request, self.ticket.params
        size = len(request.prompt_ids)
        position = self.prompt.next_position + size - len(self.prompt.ids)
        for k in range(self.first, self.first + self.count):
            noise = uniforms(self.seed, request.sample.id, size, self.number + k, params.max_new_tokens)
            yield Row(group=self, sample=k, position=position, noise=noise.tolist())


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One sample being decoded: `position` is that of its first token, `noise` one uniform number a token."""

    group: Group
    sample: int
    position: int
    noise: list[float]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[tuple[tuple[int, float], ...]] = field(default_factory=list)

    @property
    def ticket(self) -> Ticket:
        return self.group.ticket
