"""A search told turn by turn: what the model does, what it reads, and how certain it is in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from safeladder.rollout.collect import collect
from safeladder.search.retriever import Retriever
from safeladder.search.settings import SearchSettings
from safeladder.search.trace import SearchFormat, parse_turn, split_turns, trace_of
from safeladder.serving import api
from safeladder.serving.ask import Noted, arrange, verdict
from safeladder.serving.chat import Piece
from safeladder.types import Engine, Environment, EnvironmentFault, Observation, Rollout, Sample, SamplingParams


class Unavailable(Exception):
    """Something that a reply needs has failed (the search index); it is not the request's fault."""


@dataclass(frozen=True, slots=True)
class Searched:
    """How a search ended; `answer` is None where the trace is not well-formed."""

    rollout: Rollout
    answer: str | None
    report: api.SearchReport


def searched(
    engine: Engine,
    tokenizer: object,
    retriever: Retriever,
    sample: Sample,
    params: SamplingParams,
    hear: Callable[[Piece | api.Live], None],
    *,
    settings: SearchSettings,
    seed: int,
) -> Searched:
    """Let the model search until it answers.

    Args:
        params: temperature and nucleus; `max_new_tokens` bounds the whole episode, pages read included.
        hear: told of every thought and every turn.
        settings: how the model learned to search.

    Raises:
        SafeladderError: the question leaves no room in the context.
        Unavailable: the retrieval failed.
    """
    sample, noted = settings.instruct(sample), Noted(retriever)
    environment, turn = arrange(engine, tokenizer, noted, sample, settings, tokens=params.max_new_tokens)
    heard = _Heard(environment, hear)
    sampling = replace(turn, temperature=params.temperature, top_p=params.top_p)
    ((rollout,),) = collect(
        engine, [sample], sampling, SearchFormat(), seed=seed, environment=heard, max_turns=settings.max_turns
    )
    if heard.fault:
        raise Unavailable(heard.fault)
    heard.rest(rollout.text)
    trace = trace_of(rollout)
    found = {**noted.shown, **noted.taken}
    answered = trace.well_formed and trace.confidence is not None
    return Searched(
        rollout,
        trace.answer if answered else None,
        api.SearchReport(
            turns=heard.turns,
            sources=[api.Source(id=id, title=title, read=id in noted.taken) for id, title in found.items()],
            confidence=trace.confidence if answered else None,
            verdict=verdict(trace.confidence) if answered and trace.confidence is not None else None,
            problem=trace.problem,
        ),
    )


@dataclass(slots=True)
class _Heard:
    """An environment that tells of every turn while it passes through."""

    environment: Environment
    hear: Callable[[Piece | api.Live], None]
    turns: list[api.SearchTurn] = field(default_factory=list)
    fault: str = ""

    def step(self, sample: Sample, episode: Sequence[str | Observation], tokens: int) -> Observation | None:
        newest = episode[-1]
        assert isinstance(newest, str)
        try:
            observation = self.environment.step(sample, episode, tokens)
        except EnvironmentFault as fault:
            self.fault = str(fault)
            raise
        self._turn(newest, observation.text if observation else None)
        return observation

    def rest(self, text: str) -> None:
        """The turns that the environment had no say after."""
        for turn in split_turns(text)[len(self.turns) :]:
            self._turn(turn, None)

    def _turn(self, text: str, observation: str | None) -> None:
        turn = parse_turn(text)
        if turn.thought:
            first = not any(earlier.thought for earlier in self.turns)
            self.hear(Piece("reasoning", turn.thought if first else f"\n{turn.thought}"))
        self.turns.append(
            api.SearchTurn(
                action=turn.action,
                argument=turn.argument,
                thought=turn.thought,
                confidence=turn.confidence,
                problem=turn.problem,
                observation=observation,
            )
        )
        self.hear(api.Live(turn=self.turns[-1]))
