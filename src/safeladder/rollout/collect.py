"""From samples to rollouts: the multi-turn loop between an engine and an environment.

Token in, token out: what the policy sampled and what the environment said are kept as ids and concatenated; nothing is
decoded and encoded again. The mask is 1 on the policy's own tokens and 0 on observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from safeladder.rollout.parse import ResponseFormat
from safeladder.types import (
    Completion,
    Engine,
    Environment,
    GenerationRequest,
    Observation,
    Rollout,
    Sample,
    SamplingParams,
    StopReason,
)


class SingleTurn:
    """The environment that never answers: one prompt, one response."""

    def step(self, sample: Sample, token_ids: Sequence[int]) -> Observation | None:
        return None


@dataclass(slots=True)
class _Episode:
    sample: Sample
    prompt_ids: tuple[int, ...]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    reason: StopReason = StopReason.ERROR
    open: bool = True

    def say(self, completion: Completion) -> None:
        self.ids += completion.token_ids
        self.logprobs += completion.logprobs
        self.mask += [1] * len(completion.token_ids)
        self.reason = completion.stop_reason

    def hear(self, observation: Observation) -> None:
        self.ids += observation.token_ids
        self.logprobs += [0.0] * len(observation.token_ids)
        self.mask += [0] * len(observation.token_ids)


def collect(
    engine: Engine,
    samples: Sequence[Sample],
    params: SamplingParams,
    response_format: ResponseFormat,
    *,
    seed: int,
    environment: Environment | None = None,
    max_turns: int = 1,
) -> list[list[Rollout]]:
    """`params.n` rollouts a sample, in order.

    `params.max_new_tokens` bounds a turn. A response cut by it ends the episode with `StopReason.LENGTH`.
    """
    environment = environment or SingleTurn()
    prompts = [engine.prompt_ids(sample) for sample in samples]
    requests = [GenerationRequest(sample=s, prompt_ids=p) for s, p in zip(samples, prompts, strict=True)]
    episodes: list[list[_Episode]] = []
    for request, completions in zip(requests, engine.generate(requests, params, seed=seed), strict=True):
        group = []
        for completion in completions:
            episode = _Episode(request.sample, request.prompt_ids)
            episode.say(completion)
            group.append(episode)
        episodes.append(group)

    flat = [episode for group in episodes for episode in group]
    for turn in range(1, max_turns):
        for episode in flat:
            if not episode.open:
                continue
            observation = None
            if episode.reason in (StopReason.EOS, StopReason.STOP):
                observation = environment.step(episode.sample, episode.ids)
            if observation is None:
                episode.open = False
            else:
                episode.hear(observation)
        live = [episode for episode in flat if episode.open]
        if not live:
            break
        follow_ups = [GenerationRequest(sample=e.sample, prompt_ids=(*e.prompt_ids, *e.ids)) for e in live]
        one = SamplingParams(
            max_new_tokens=params.max_new_tokens, temperature=params.temperature, n=1, stop=params.stop
        )
        # Episodes of one sample must not share their randomness once their contexts differ.
        for episode, (completion,) in zip(live, engine.generate(follow_ups, one, seed=seed + turn), strict=True):
            episode.say(completion)
    return [[_finish(engine, e, response_format) for e in group] for group in episodes]


def _finish(engine: Engine, episode: _Episode, response_format: ResponseFormat) -> Rollout:
    own = [token for token, mine in zip(episode.ids, episode.mask, strict=True) if mine]
    text = engine.decode(own)
    return Rollout(
        sample=episode.sample,
        prompt_ids=episode.prompt_ids,
        token_ids=tuple(episode.ids),
        logprobs=tuple(episode.logprobs),
        action_mask=tuple(episode.mask),
        stop_reason=episode.reason,
        text=text,
        response=response_format.parse(text, episode.reason),
    )
