"""`safeladder search ask`: one question to a searching policy, its trace shown live, turn by turn."""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safeladder.types import EnvironmentFault, Message, Observation, Part, SafeladderError, Sample, SamplingParams

if TYPE_CHECKING:
    from rich.console import Console

    from safeladder.search.environment import SearchEnvironment
    from safeladder.search.retriever import Document, Hit, Retriever
    from safeladder.search.settings import SearchSettings
    from safeladder.types import Engine, Environment, Rollout

CERTAIN_ABOVE = 5
"""An answer is certain if its confidence is above this (Deliberative Searcher's cut; 5 itself is uncertain)."""

_TURN_SHARE, _OBSERVATION_SHARE = 8, 4
"""A turn may take one part in so many of the model's context, an observation one in so many..."""
_LONGEST = 1024
"""...but no more tokens than this."""


def add_parser(actions: Any) -> None:
    """Add the action `ask` to the subparsers of `safeladder search`; its `run` takes the parsed options."""
    parser = actions.add_parser(
        "ask",
        allow_abbrev=False,
        help="let a trained model search for an answer; shows its trace, sources and how certain it is",
        epilog="A server's key is taken from the environment variable SAFELADDER_SEARCH_KEY.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder of a checkpoint (runs/NAME/checkpoints/search-rl)")
    parser.add_argument("index", metavar="DIR", help="an index, or http://host:port of `safeladder search serve`")
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("--k", type=int, metavar="N", help="results a search shows (default: as in training, else 3)")
    turns = "turns, answer included (default: as in training, else 8)"
    parser.add_argument("--turns", type=int, metavar="N", help=turns)
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="default: 0, greedy")
    votes = "ask N times and let confidence weigh the answers (default: 1)"
    parser.add_argument("--votes", type=int, default=1, metavar="N", help=votes)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask and print; returns the exit code: 0, or 1 where the model gave no answer.

    Raises:
        SafeladderError: an option out of range, no such checkpoint or index, or the retrieval failed.
    """
    if not options.question.strip():
        raise SafeladderError("the question is empty")
    for name in ("k", "turns", "votes"):
        if (given := getattr(options, name)) is not None and given < 1:
            raise SafeladderError(f"--{name}: {given} is too small, at least 1 is needed")
    if not 0.0 <= options.temperature <= 100.0:
        raise SafeladderError(f"--temperature: {options.temperature} is not between 0 and 100")
    if options.votes > 1 and options.temperature == 0:
        raise SafeladderError("--votes: greedy answers are all the same; give a --temperature above 0, such as 1")
    from rich.console import Console

    from safeladder.rollout.local import LocalEngine
    from safeladder.search.client import open_retriever
    from safeladder.search.settings import SearchSettings

    retriever = open_retriever(options.index)
    settings = SearchSettings.of(Path(options.model))
    given = {"top_k": options.k, "max_turns": options.turns}
    engine = LocalEngine.load(options.model)
    return ask(
        engine,
        engine.policy.tokenizer,
        retriever,
        options.question,
        Console(highlight=False),
        settings=replace(settings, **{name: value for name, value in given.items() if value is not None}),
        temperature=options.temperature,
        votes=options.votes,
    )


def ask(
    engine: Engine,
    tokenizer: Any,
    retriever: Retriever,
    question: str,
    console: Console,
    *,
    settings: SearchSettings | None = None,
    temperature: float = 0.0,
    votes: int = 1,
) -> int:
    """Run the search `votes` times, show each trace as it grows, then the sources, the answer and the verdict.

    Returns 1 where there is no answer. Raises `SafeladderError` where the retrieval failed or the question does not
    fit into the model's context.
    """
    from safeladder.rollout.collect import collect
    from safeladder.search.settings import SearchSettings
    from safeladder.search.trace import SearchFormat, trace_of
    from safeladder.search.voting import Ballot, vote

    settings = settings or SearchSettings()
    sample = Sample(id="ask", label="search", messages=(Message(role="user", parts=(Part(text=question),)),))
    sample, noted = settings.instruct(sample), Noted(retriever)
    environment, params = arrange(engine, tokenizer, noted, sample, settings)
    params = replace(params, temperature=temperature)
    rollouts: list[Rollout] = []
    for number in range(votes):
        if votes > 1:
            console.rule(f"sample {number + 1} of {votes}", align="left")
        live = _Live(environment, console)
        ((rollout,),) = collect(
            engine, [sample], params, SearchFormat(), seed=number, environment=live, max_turns=settings.max_turns
        )
        if live.fault:
            raise SafeladderError(f"no answer: {live.fault}")
        live.rest(rollout)
        rollouts.append(rollout)

    console.rule(align="left")
    _sources(console, noted)
    traces = [trace_of(rollout) for rollout in rollouts]
    ballots = [
        Ballot(answer=t.answer, confidence=t.confidence) if t.well_formed else Ballot(answer=None, confidence=None)
        for t in traces
    ]
    winner = vote(ballots)
    if votes > 1:
        _votes(console, ballots)
    if winner is None:
        _line(console, "answer", f"none ({traces[-1].problem})" if votes == 1 else "none of the samples is well-formed")
        return 1
    answer, confidence = ballots[winner].answer, ballots[winner].confidence
    assert answer is not None and confidence is not None
    _line(console, "answer", answer)
    _line(console, "confidence", f"{confidence} of 10")
    _line(console, "verdict", verdict(confidence))
    return 0


def arrange(
    engine: Engine,
    tokenizer: Any,
    retriever: Retriever,
    sample: Sample,
    settings: SearchSettings,
    *,
    tokens: int | None = None,
) -> tuple[SearchEnvironment, SamplingParams]:
    """The environment of a search, and how to sample a turn, so that both fit into the model's context.

    Args:
        sample: with the settings' instructions, if any.
        settings: what the model is used to; cut where it does not fit.
        tokens: at most so many in all, pages read included; None = what the context holds.

    Raises:
        SafeladderError: the question leaves no room.
    """
    from safeladder.search.environment import SearchEnvironment
    from safeladder.search.trace import STOPS

    turn = min(settings.turn_tokens or _LONGEST, engine.context_length // _TURN_SHARE)
    observation = min(settings.observation_tokens or _LONGEST, engine.context_length // _OBSERVATION_SHARE)
    room = engine.context_length - len(engine.prompt_ids(sample)) - observation - 2 * turn
    if room < 1:
        raise SafeladderError(f"the question is too long for this model's context of {engine.context_length} tokens")
    bounds = [room, settings.episode_tokens, tokens]
    environment = SearchEnvironment(
        settings.over(retriever),
        tokenizer,
        top_k=settings.top_k,
        observation_tokens=observation,
        max_turns=settings.max_turns,
        max_tokens=min(bound for bound in bounds if bound is not None),
        missing_words=settings.missing_words,
    )
    return environment, SamplingParams(max_new_tokens=turn, stop=STOPS)


def verdict(confidence: int) -> Literal["certain", "uncertain"]:
    """`certain` above the cut, else `uncertain`."""
    return "certain" if confidence > CERTAIN_ABOVE else "uncertain"


class Noted:
    """A retriever that remembers which pages were shown and read."""

    def __init__(self, retriever: Retriever) -> None:
        self.retriever = retriever
        self.shown: dict[str, str] = {}
        self.taken: dict[str, str] = {}

    def search(self, query: str, k: int) -> list[Hit]:
        hits = self.retriever.search(query, k)
        self.shown.update((hit.id, hit.title) for hit in hits)
        return hits

    def read(self, id: str) -> Document | None:
        page = self.retriever.read(id)
        if page is not None:
            self.taken[page.id] = page.title
        return page


class _Live:
    """An environment that prints what is said while it passes through."""

    def __init__(self, environment: Environment, console: Console) -> None:
        self.environment = environment
        self.console = console
        self.fault = ""
        self._said = 0

    def step(self, sample: Sample, episode: Sequence[str | Observation], tokens: int) -> Observation | None:
        newest = episode[-1]
        assert isinstance(newest, str)
        self._turn(newest)
        try:
            observation = self.environment.step(sample, episode, tokens)
        except EnvironmentFault as fault:
            self.fault = str(fault)
            raise
        if observation is not None:
            for line in observation.text.splitlines():
                _line(self.console, "", line, style="dim")
        return observation

    def rest(self, rollout: Rollout) -> None:
        """The last turn, where the environment had no say after it."""
        from safeladder.search.trace import split_turns

        for text in split_turns(rollout.text)[self._said :]:
            self._turn(text)

    def _turn(self, text: str) -> None:
        from safeladder.search.trace import parse_turn

        self._said += 1
        turn = parse_turn(text)
        if turn.action is None:
            _line(self.console, "malformed", f"{turn.problem}: {text}", style="red")
            return
        if turn.thought is not None:
            _line(self.console, "think", turn.thought, style="italic")
        if turn.confidence is not None:
            _line(self.console, "confidence", str(turn.confidence))
        _line(self.console, turn.action, turn.argument, style="bold")


def _sources(console: Console, noted: Noted) -> None:
    for id, title in noted.taken.items():
        _line(console, "source", f"[{id}] {title}")
    if not noted.taken:
        found = "; ".join(f"[{id}] {title}" for id, title in noted.shown.items())
        _line(console, "source", f"none read; results shown: {found}" if found else "none")


def _votes(console: Console, ballots: Sequence[Any]) -> None:
    for number, ballot in enumerate(ballots, start=1):
        said = "malformed" if ballot.answer is None else f"{ballot.answer} (confidence {ballot.confidence})"
        _line(console, f"sample {number}", said)


def _line(console: Console, name: str, text: str, style: str = "") -> None:
    """One line of the trace; control characters of a page or a policy never reach the terminal."""
    from rich.text import Text

    clean = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in text)
    console.print(Text.assemble((f"{name:>10}  ", "cyan"), (clean, style)), soft_wrap=True)
