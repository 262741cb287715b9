"""Continuous batching: one batch whose rows join and leave at any token, for requests that come at any time.

`ContinuousEngine` is an `Engine` that many threads may call at once. One thread of its own decodes; requests wait in
order of arrival, are prefilled together as rows become free, and join the rows that are running. Every row is sampled
in its own way (temperature, nucleus, stop sequences, budget, seed) and may be steered by an edit of its own. A row's
ids do not depend on what else is in the batch: they are those of `LocalEngine` for the same request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import torch

from safeladder.models.load import Dtype, load_checkpoint
from safeladder.models.policy import Policy, Prompt
from safeladder.rollout.decoder import MlpEdit
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.running import RunningBatch
from safeladder.rollout.sampling import first_numbers
from safeladder.rollout.tickets import (
    EngineBusy,
    EngineClosed,
    EngineStats,
    Group,
    OnToken,
    Ticket,
    VisionEdit,
)
from safeladder.types import Completion, GenerationRequest, SafeladderError, Sample, SamplingParams

_LOG = logging.getLogger(__name__)

_PROMPTS, _PIXEL_BYTES = 256, 512 * 2**20
"""Encoded prompts that are remembered, and what their pictures may take together (the latest one is always kept)."""
_PREFILL = 8192
"""Positions prefilled at a time, padding included: rows that are running must not wait long."""


class ContinuousEngine(LocalEngine):
    """`Engine` over a policy in this process, for many callers at once. Close it, or use it as a context manager.

    Args:
        policy: its vision tower is used, its weights are copied on `sync`. Not to be trained meanwhile.
        max_rows: rows decoded together.
        max_waiting: requests that may wait; `submit` refuses the next one.
        max_positions: bound on rows times the longest row's prompt and budget, and so on the memory of keys and values
            (they take up to four times as many slots while they are moved); a longer row runs alone.
    """

    def __init__(
        self, policy: Policy, *, max_rows: int = 64, max_waiting: int = 256, max_positions: int = 1 << 18
    ) -> None:
        self.max_waiting, self.max_positions = max_waiting, max_positions
        self._wake = threading.Condition()
        self._queue: deque[Group] = deque()
        self._open: set[Ticket] = set()
        self._stats = EngineStats()
        self._closed = False
        self._busy = False
        self._holders = 0
        """Callers that wait for the rows to end; nothing joins meanwhile."""
        self._encoding = threading.Lock()
        self._recent: OrderedDict[str, tuple[Sample, Prompt]] = OrderedDict()
        super().__init__(policy, max_rows=max_rows)
        self._batch = RunningBatch(self)
        self._worker = threading.Thread(target=self._work, name="decoding", daemon=True)
        self._worker.start()

    @classmethod
    def load(cls, path: str, *, device: str = "cpu", dtype: Dtype = "float32", **limits: int) -> ContinuousEngine:
        """An engine over a local Hugging Face checkpoint; `limits` are those of the class."""
        model, processor, family = load_checkpoint(path, dtype=dtype, device=device)
        # Nothing is trained here: an image's features hold for as long as its prompt is remembered.
        return cls(Policy(model, processor, family).to(device).eval().requires_grad_(False), **limits)

    def __enter__(self) -> ContinuousEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self,
        request: GenerationRequest,
        params: SamplingParams,
        *,
        seed: int,
        on_token: OnToken | None = None,
        edit: MlpEdit | None = None,
        vision_edit: VisionEdit | None = None,
    ) -> Ticket:
        """Queue one request; returns at once.

        Args:
            request: the prompt. Randomness is drawn by its sample's id: the same id, prompt length and seed give the
                same ids.
            params: how to sample.
            seed: of this request.
            on_token: hears of every token as it is sampled, on the engine's thread, which it must not keep; an
                exception in it fails this request.
            edit: steers the language model in this request's rows only; in the engine's `edit` place. One with a state
                of its own must not be shared with other requests: it sees the prompt, then a token of every row at a
                time.
            vision_edit: steers the vision tower on this request's images.

        Raises:
            EngineBusy: too many requests are waiting.
            EngineClosed: the engine was closed.
            SafeladderError: the prompt and the budget exceed the model's context, or a parameter is out of range.
        """
        return self._submit(request, params, seed, 0, self.max_waiting, on_token, edit, vision_edit)

    def submit_all(
        self,
        requests: Sequence[GenerationRequest],
        params: SamplingParams,
        *,
        seed: int,
        edit: MlpEdit | None = None,
        vision_edit: VisionEdit | None = None,
    ) -> list[Ticket]:
        """Queue all requests of one call of `generate`. Such callers wait; they are never refused as busy."""
        numbers = first_numbers(requests, params.n)
        return [
            self._submit(request, params, seed, number, None, None, edit, vision_edit)
            for request, number in zip(requests, numbers, strict=True)
        ]

    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, *, seed: int
    ) -> list[list[Completion]]:
        tickets = self.submit_all(requests, params, seed=seed)
        try:
            return [ticket.result() for ticket in tickets]
        finally:
            for ticket in tickets:
                ticket.cancel()

    def stats(self) -> EngineStats:
        """Counters up to now."""
        with self._wake:
            return replace(self._stats, running=len(self._batch.rows), waiting=self._waiting())

    def close(self, grace: float = 0.0) -> None:
        """Take no more requests, give those accepted up to `grace` seconds, fail the rest as closed, and stop."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
            self._wake.wait_for(lambda: not self._open, timeout=grace)
            left = list(self._open)
        for ticket in left:
            ticket.fail(EngineClosed("the engine was closed before this request was done"))
        self._worker.join()

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Take new weights, once the rows that are running have ended; requests that wait get the new ones."""
        with self._wake:
            self._holders += 1
            try:
                self._wake.wait_for(lambda: not self._busy)
                super().load_weights(weights)
            finally:
                self._holders -= 1
                self._wake.notify_all()

    def prompt(self, sample: Sample) -> Prompt:
        """The encoded prompt. The latest ones are remembered; two samples of one id are never mixed up."""
        with self._encoding:
            found = self._recent.get(sample.id)
            if found is None or (found[0] is not sample and found[0].messages != sample.messages):
                found = self._recent[sample.id] = (sample, self.policy.prompt(sample))
            self._recent.move_to_end(sample.id)
            held = sum(_pixel_bytes(prompt) for _, prompt in self._recent.values())
            while len(self._recent) > _PROMPTS or (held > _PIXEL_BYTES and len(self._recent) > 1):
                _, (_, prompt) = self._recent.popitem(last=False)
                held -= _pixel_bytes(prompt)
            return found[1]

    def forget(self) -> None:
        """Drop remembered prompts (and their vision features)."""
        with self._encoding:
            self._recent.clear()

    # On the callers' threads.

    def _submit(
        self,
        request: GenerationRequest,
        params: SamplingParams,
        seed: int,
        number: int,
        max_waiting: int | None,
        on_token: OnToken | None,
        edit: MlpEdit | None,
        vision_edit: VisionEdit | None,
    ) -> Ticket:
        self._check(request, params)
        prompt = self.prompt(request.sample)
        if request.prompt_ids[: len(prompt.ids)] != prompt.ids:
            raise SafeladderError(f"sample {request.sample.id}: the prompt's ids do not begin with the sample's own")
        ticket = Ticket(request, params)
        with self._wake:
            if self._closed:
                raise EngineClosed("the engine is shutting down")
            if max_waiting is not None and self._waiting() >= max_waiting:
                self._count(refused=1)
                raise EngineBusy(f"{max_waiting} requests are waiting already")
            self._count(accepted=1)
            self._open.add(ticket)
            for first in range(0, params.n, self.max_rows):
                group = Group(
                    ticket=ticket,
                    prompt=prompt,
                    seed=seed,
                    number=number,
                    first=first,
                    count=min(self.max_rows, params.n - first),
                    on_token=on_token,
                    edit=edit,
                    vision_edit=vision_edit,
                )
                self._queue.append(group)
            self._wake.notify_all()
        ticket.future.add_done_callback(lambda future: self._done(ticket, future))
        return ticket

    def _check(self, request: GenerationRequest, params: SamplingParams) -> None:
        where = f"sample {request.sample.id}"
        if params.max_new_tokens < 1 or params.n < 1:
            raise SafeladderError(f"{where}: max_new_tokens {params.max_new_tokens}, n {params.n}: at least 1 each")
        if not 0.0 <= params.temperature <= 100.0:
            raise SafeladderError(f"{where}: temperature {params.temperature} is not between 0 and 100")
        if "" in params.stop:
            raise SafeladderError(f"{where}: a stop sequence is empty")
        if params.top_logprobs > len(self.policy.logit_bias):
            raise SafeladderError(f"{where}: top_logprobs {params.top_logprobs} is more than the vocabulary")
        needed = len(request.prompt_ids) + params.max_new_tokens
        if needed > self.context_length:
            raise SafeladderError(
                f"{where}: prompt and budget need {needed} positions, the model has {self.context_length}"
            )

    def _waiting(self) -> int:
        return len({id(group.ticket) for group in self._queue})

    def _done(self, ticket: Ticket, future: Future[list[Completion]]) -> None:
        """A request finished, failed or was cancelled, on whatever thread."""
        with self._wake:
            self._open.discard(ticket)
            if future.cancelled():
                self._count(cancelled=1)
            elif future.exception() is not None:
                self._count(failed=1)
            else:
                self._count(finished=1)
            if any(group.ticket is ticket for group in self._queue):
                self._queue = deque(group for group in self._queue if group.ticket is not ticket)
            self._wake.notify_all()

    def _count(self, **more: float) -> None:
        """Add to counters; the lock is held."""
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in more.items()})

    # On the engine's thread.

    @torch.inference_mode()
    def _work(self) -> None:
        while (groups := self._next()) is not None:
            began, batch = time.perf_counter(), self._batch
            try:
                if groups:
                    batch.join(groups)
                if batch.rows:
                    batch.step()
            except Exception as error:  # nobody's in particular: all that is in the batch is lost
                _LOG.exception("a batch of %d rows failed", len(batch.rows))
                for ticket in {*(group.ticket for group in groups), *(row.ticket for row in batch.rows)}:
                    ticket.fail(error)
                batch.clear()
            with self._wake:
                self._count(busy_seconds=time.perf_counter() - began, **batch.counts)
            batch.counts.clear()

    def _next(self) -> list[Group] | None:
        """Who joins before the next step; None when there is nothing left to do."""
        with self._wake:
            while True:
                self._batch.drop_done()
                groups = [] if self._holders else self._admitted()
                self._busy = bool(groups or self._batch.rows)
                if self._busy:
                    return groups
                self._wake.notify_all()
                if self._closed and not self._queue:
                    return None
                self._wake.wait()

    def _admitted(self) -> list[Group]:
        """Take from the queue, in order, what fits."""
        groups: list[Group] = []
        rows, width = len(self._batch.rows), 0
        longest = max((row.group.positions for row in self._batch.rows), default=0)
        while self._queue:
            group = self._queue[0]
            longest = max(longest, group.positions)
            width = max(width, len(group.ticket.request.prompt_ids))
            total = rows + group.count
            if rows and (total > self.max_rows or total * longest > self.max_positions):
                break
            if groups and width * (len(groups) + 1) > _PREFILL:
                break
            groups.append(self._queue.popleft())
            rows = total
        return groups


def _pixel_bytes(prompt: Prompt) -> int:
    pixels = (prompt.encoded.pixel_values, prompt.encoded.video_pixel_values)
    return sum(values.nbytes for values in pixels if values is not None)
