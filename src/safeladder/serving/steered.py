"""The model as the server runs it: one reply at a time, plain or steered or searching, on an engine that many share.

A `Job` is one choice of a request. Plain replies and directions go straight to the continuous engine, token by token;
searches, the edit memory and value guidance are written as ordinary code over an `Engine`, so each runs on a thread of
a pool: over a lane of the same engine, or at a seat of `JoinedGuidance`. Whatever is cancelled frees its rows before
the next token; a guided reply's rows, where others share its batch, before the next step.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from safeladder.rollout.continuous import ContinuousEngine
from safeladder.rollout.decoder import MlpEdit
from safeladder.rollout.lane import Lane
from safeladder.rollout.tickets import SampledToken, VisionEdit
from safeladder.search.settings import SearchSettings
from safeladder.serving import api
from safeladder.serving.chat import Piece, Token
from safeladder.serving.joined import JoinedGuidance, Left
from safeladder.serving.memory import Lesson
from safeladder.serving.searched import searched
from safeladder.types import (
    Completion,
    GenerationRequest,
    Sample,
    SamplingParams,
    StopReason,
)

if TYPE_CHECKING:
    from safeladder.search.retriever import Retriever
    from safeladder.serving.memory import MemoryFile
    from safeladder.steering.guided import GuidedDecoder, TrailStep

_THREADS = _GUIDED = 32
Result = TypeVar("Result")
Hear = Callable[[Token | Piece | api.Live], None]
"""Told of what comes, in order, from any thread."""


def _nobody(what: Token | Piece | api.Live) -> None:
    """Nobody wants to hear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One reply to be made.

    `prompt_ids` may go on behind the sample's prompt with the beginning of the reply. `lesson` goes into the edit
    memory once it has ended.
    """

    sample: Sample
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    seed: int
    steering: tuple[api.Steering, ...] = ()
    search: bool = False
    memory: bool = False
    trail: bool = False
    lesson: Lesson | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a reply ended. `tokens` are all of it, those already heard of included.

    A search has no tokens here but an `answer`, or a `problem` where there is none.
    """

    stop_reason: StopReason
    tokens: tuple[Token, ...] = ()
    generated: int = 0
    answer: str | None = None
    ignored: tuple[str, ...] = ()
    cost: dict[str, float | None] | None = None
    trail: list[api.TrailStep] | None = None
    search: api.SearchReport | None = None
    edits: api.MemoryReport | None = None
    value: float | None = None
    """Of the last step that guidance kept."""


@dataclass(frozen=True, slots=True)
class Treble:
    """Directions as the engine takes them."""

    edit: MlpEdit | None
    vision_edit: VisionEdit | None


class Host:
    """A served model with all that was loaded beside it.

    Args:
        engine: runs the model; closed by `close`.
        name: what clients call the model.
        revision: hash of its checkpoint.
        guidance: by the steering that it runs under (with directions, and without); empty = none.
        treble: directions; None = not offered.
        retriever: finds pages; None = no search.
        searching: how the model learned to search.
        memory: the edit memory; None = none.
    """

    def __init__(
        self,
        engine: ContinuousEngine,
        *,
        name: str,
        revision: str,
        guidance: Mapping[tuple[api.Steering, ...], JoinedGuidance] | None = None,
        treble: Treble | None = None,
        retriever: Retriever | None = None,
        searching: SearchSettings | None = None,
        memory: MemoryFile | None = None,
    ) -> None:
        self.engine, self.name, self.revision = engine, name, revision
        self.guidance, self.treble = dict(guidance or {}), treble
        self.retriever, self.memory = retriever, memory
        self.searching = searching or SearchSettings()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="reply")
        # Of its own: threads that wait for one another must not wait for what searches.
        self._guided_pool = ThreadPoolExecutor(_GUIDED, thread_name_prefix="guided")
        self._texts: dict[int, str] = {}

    @property
    def tokenizer(self) -> Any:
        return self.engine.policy.tokenizer

    @property
    def steering(self) -> list[api.Steering]:
        """What requests may ask for."""
        found: list[api.Steering] = []
        if self.guidance:
            found.append("value-guidance")
        if self.treble is not None:
            found.append("treble")
        return found

    @property
    def images(self) -> bool:
        return self.engine.policy.family.supports_images

    def token_text(self, id: int) -> str:
        """A token's text on its own."""
        found = self._texts.get(id)
        if found is None:
            found = self._texts[id] = str(self.tokenizer.decode([id], skip_special_tokens=False))
        return found

    def close(self, grace: float) -> None:
        """Let what runs go on for up to `grace` seconds, then cancel it."""
        until = time.monotonic() + grace
        self.engine.close(grace)
        for joined in self.guidance.values():
            joined.close(max(0.0, until - time.monotonic()))
        for pool in (self._pool, self._guided_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, job: Job, hear: Hear, *, live: bool) -> Outcome:
        """Make one reply. Cancel the task to give up.

        Args:
            hear: told of tokens, text, steps and turns as they come.
            live: tokens are wanted as they come; else `Outcome.tokens` is enough.

        Raises:
            SafeladderError: the request does not fit the model.
            EngineBusy: too many requests wait.
            EngineClosed: the server is stopping.
            Unavailable: the search index failed.
        """
        if job.search:
            return await self.in_lane(job.steering, lambda lane, told: self._searched(job, lane, told), hear)
        if job.memory:
            return await self.in_lane(job.steering, lambda lane, _: _remembered(self.memory, job, lane), hear)
        if "value-guidance" in job.steering:
            return await self.seated(job.steering, job.sample, lambda decoder: self._guided(decoder, job, hear))
        return await self._plain(job, hear, live)

    @property
    def edit_steering(self) -> tuple[api.Steering, ...]:
        """What steers the model where people edit what it says and nothing else is asked for."""
        return () if self.treble is None else ("treble",)

    async def seated(
        self, steering: tuple[api.Steering, ...], sample: Sample, work: Callable[[GuidedDecoder], Result]
    ) -> Result:
        """Do what takes a guided decoder, on a thread, beside others. Cancel the task to give up.

        Raises:
            EngineClosed: the server is stopping.
        """
        seat = self.guidance[steering].seat()

        def seated() -> Result:
            with seat.taken(sample) as decoder:
                return work(decoder)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._guided_pool, seated)
        except asyncio.CancelledError:
            seat.cancel()
            raise

    async def _plain(self, job: Job, hear: Hear, live: bool) -> Outcome:
        def on_token(token: SampledToken) -> None:
            hear(Token(token.token_id, token.logprob, token.top_logprobs))

        treble = self._treble(job.steering)
        ticket = self.engine.submit(
            GenerationRequest(sample=job.sample, prompt_ids=job.prompt_ids),
            job.params,
            seed=job.seed,
            on_token=on_token if live else None,
            edit=treble.edit,
            vision_edit=treble.vision_edit,
        )
        (completion,) = await asyncio.wrap_future(ticket.future)
        return _completed(completion)

    def _treble(self, steering: tuple[api.Steering, ...]) -> Treble:
        if "treble" not in steering:
            return Treble(None, None)
        assert self.treble is not None
        return self.treble

    async def in_lane(
        self, steering: tuple[api.Steering, ...], work: Callable[[Lane, Hear], Result], hear: Hear = _nobody
    ) -> Result:
        """Do what takes an engine of its own, on a thread. Cancel the task to give up."""
        treble = self._treble(steering)
        lane = _Lane(self.engine, edit=treble.edit, vision_edit=treble.vision_edit)
        left = False

        def told(what: Token | Piece | api.Live) -> None:
            if left:
                raise Left
            hear(what)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, lane, told)
        except asyncio.CancelledError:
            left = True
            lane.cancel()
            raise

    def _guided(self, decoder: GuidedDecoder, job: Job, hear: Hear) -> Outcome:
        def on_step(step: TrailStep) -> None:
            hear(api.Live(step=trail_step(step)))

        result = decoder.generate(job.sample, job.params, seed=job.seed, on_step=on_step)
        cost, last = result.cost, result.trail[-1]
        return replace(
            _completed(result.completion),
            value=None if last.chosen is None else last.candidates[last.chosen].value,
            ignored=tuple(name for name, given in _sampling(job.params) if given),
            trail=[trail_step(step) for step in result.trail] if job.trail else None,
            cost={
                "generated_tokens": cost.generated_tokens,
                "proposed_tokens": cost.proposed_tokens,
                "positions": cost.positions,
                "calls": cost.calls,
                "seconds": cost.seconds,
            },
        )

    def _searched(self, job: Job, lane: Lane, hear: Hear) -> Outcome:
        assert self.retriever is not None
        found = searched(
            lane, self.tokenizer, self.retriever, job.sample, job.params, hear, settings=self.searching, seed=job.seed
        )
        return Outcome(
            stop_reason=found.rollout.stop_reason,
            generated=found.rollout.length,
            answer=found.answer,
            search=found.report,
        )


class _Lane(Lane):
    """A lane that shows its tokenizer, for text that people typed."""

    @property
    def tokenizer(self) -> Any:
        return self.engine.policy.tokenizer


def _remembered(file: MemoryFile | None, job: Job, lane: Lane) -> Outcome:
    assert file is not None
    rollout, generated, report = file.answer(lane, job.sample, job.params, seed=job.seed)
    tokens = tuple(map(Token, rollout.token_ids, rollout.logprobs))
    return Outcome(stop_reason=rollout.stop_reason, tokens=tokens, generated=generated, edits=report)


def seed_of(seed: int, choice: int) -> int:
    """The seed of one of `n` replies: the first has the request's own."""
    if choice == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/{choice}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def trail_step(step: TrailStep) -> api.TrailStep:
    """A decision of guidance as the server says it."""
    return api.TrailStep(
        step=step.depth + 1,
        weights=dict(step.weights),
        action="keep" if step.action == "keep" else "backtrack",
        candidates=[
            api.Candidate(
                text=candidate.text,
                scores=dict(candidate.values),
                value=candidate.value,
                total=candidate.score,
                chosen=number == step.chosen,
                proposed=candidate.source == "proposed",
                count=candidate.count,
                ends=candidate.ends,
            )
            for number, candidate in enumerate(step.candidates)
        ],
    )


def _completed(completion: Completion) -> Outcome:
    tops = completion.top_logprobs or ((),) * len(completion.token_ids)
    tokens = tuple(map(Token, completion.token_ids, completion.logprobs, tops))
    return Outcome(stop_reason=completion.stop_reason, tokens=tokens, generated=len(tokens))


def _sampling(params: SamplingParams) -> list[tuple[str, bool]]:
    """What guidance has no use for, and whether it was asked for."""
    return [("temperature", params.temperature != 1.0), ("top_p", params.top_p != 1.0)]
