"""From samples to rollouts: the multi-turn loop between an engine and an environment.

Token in, token out: what the policy sampled and what the environment said are kept as ids and concatenated; nothing is
decoded and encoded again. The mask is 1 on the policy's own tokens and 0 on observations.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from safeladder.types import (
    Completion,
    Engine,
    Environment,
    EnvironmentFault,
    GenerationRequest,
    Observation,
    Response,
    Rollout,
    Sample,
    SamplingParams,
    StopReason,
)

_LOG = logging.getLogger(__name__)

_AT_ONCE = 16
"""Episodes that an environment answers at once: one that waits for a server must not hold up the others."""


class Format(Protocol):
    """How the policy's own text, all turns joined, becomes a typed response; None where it is malformed."""

    def parse(self, text: str, stop_reason: StopReason) -> Response | None: ...


class SingleTurn:
    """The environment that never answers: one prompt, one response."""

    def step(self, sample: Sample, episode: Sequence[str | Observation], tokens: int) -> Observation | None:
        return None


@dataclass(slots=True)
class _Episode:
    sample: Sample
    prompt_ids: tuple[int, ...]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    said: list[str | Observation] = field(default_factory=list)
    reason: StopReason = StopReason.ERROR
    open: bool = True

    def say(self, completion: Completion, text: str) -> None:
        self.ids += completion.token_ids
        self.logprobs += completion.logprobs
        self.mask += [1] * len(completion.token_ids)
        self.said.append(text)
        self.reason = completion.stop_reason

    def hear(self, observation: Observation) -> None:
        self.ids += observation.token_ids
        self.logprobs += [0.0] * len(observation.token_ids)
        self.mask += [0] * len(observation.token_ids)
        self.said.append(observation)

    def end(self, reason: StopReason | None = None) -> None:
        self.open = False
        self.reason = reason or self.reason


def collect(
    engine: Engine,
    samples: Sequence[Sample],
    params: SamplingParams,
    response_format: Format,
    *,
    seed: int,
    environment: Environment | None = None,
    max_turns: int = 1,
) -> list[list[Rollout]]:
    """`params.n` rollouts a sample, in order.

    `params.max_new_tokens` bounds a turn. A turn cut by it, or an episode that leaves no room for another turn in the
    engine's context, ends with `StopReason.LENGTH`; a failing environment ends it with `StopReason.ERROR`. A turn
    ends with the token that completes one of `params.stop`: whatever an engine sampled after it is dropped.
    """
    environment = environment or SingleTurn()
    prompts = [engine.prompt_ids(sample) for sample in samples]
    requests = [GenerationRequest(sample=s, prompt_ids=p) for s, p in zip(samples, prompts, strict=True)]
    episodes: list[list[_Episode]] = []
    for request, completions in zip(requests, engine.generate(requests, params, seed=seed), strict=True):
        group = []
        for completion in completions:
            episode = _Episode(request.sample, request.prompt_ids)
            episode.say(*_cut(engine, completion, params.stop))
            group.append(episode)
        episodes.append(group)

    flat = [episode for group in episodes for episode in group]
    one = replace(params, n=1)
    for turn in range(1, max_turns):
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(partial(_answer, environment), [episode for episode in flat if episode.open]))
        live = [episode for episode in flat if episode.open]
        for episode in live:
            if len(episode.prompt_ids) + len(episode.ids) + one.max_new_tokens > engine.context_length:
                episode.end(StopReason.LENGTH)
        live = [episode for episode in live if episode.open]
        if not live:
            break
        follow_ups = [GenerationRequest(sample=e.sample, prompt_ids=(*e.prompt_ids, *e.ids)) for e in live]
        # Episodes of one sample must not share their randomness once their contexts differ.
        for episode, (completion,) in zip(live, engine.generate(follow_ups, one, seed=seed + turn), strict=True):
            episode.say(*_cut(engine, completion, params.stop))
    return [[_finish(e, response_format) for e in group] for group in episodes]


def _answer(environment: Environment, episode: _Episode) -> None:
    """Let the environment reply to an episode's newest turn."""
    if episode.reason not in (StopReason.EOS, StopReason.STOP):
        episode.end()
        return
    try:
        observation = environment.step(episode.sample, tuple(episode.said), len(episode.ids))
    except EnvironmentFault as fault:
        _LOG.warning("sample %s: %s", episode.sample.id, fault)
        episode.end(StopReason.ERROR)
        return
    if observation is None:
        episode.end()
    else:
        episode.hear(observation)


def _cut(engine: Engine, completion: Completion, stop: Sequence[str]) -> tuple[Completion, str]:
    """A completion up to the token that completes the first stop sequence, and its text up to that sequence's end.

    The last token may hold characters after the sequence: it was sampled, so it stays and is trained on, but what it
    says beyond the sequence is no part of the text.
    """
    ids = completion.token_ids
    text = engine.decode(ids)
    ends = [at + len(s) for s in stop if (at := text.find(s)) >= 0]
    if not ends:
        return completion, text
    count = len(ids)
    while any(s in engine.decode(ids[: count - 1]) for s in stop):
        count -= 1
    kept = Completion(token_ids=ids[:count], logprobs=completion.logprobs[:count], stop_reason=StopReason.STOP)
    return kept, text[: min(ends)]


def _finish(episode: _Episode, response_format: Format) -> Rollout:
    text = "".join(part for part in episode.said if isinstance(part, str))
    response = response_format.parse(text, episode.reason)
    return Rollout(
        sample=episode.sample,
        prompt_ids=episode.prompt_ids,
        token_ids=tuple(episode.ids),
        logprobs=tuple(episode.logprobs),
        action_mask=tuple(episode.mask),
        stop_reason=episode.reason,
        text=text,
        response=response,
        confidence=response.confidence if response else None,
        observations=tuple(part for part in episode.said if isinstance(part, Observation)),
    )
