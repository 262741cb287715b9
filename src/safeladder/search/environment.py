"""The environment of a deliberative search: it answers searches and reads with what a retriever finds.

It keeps no state: every step is decided from the turns and observations so far. Retrieved text is escaped and holds
no added token, so a page can neither act nor end the observation it stands in, and it starts no line, so it cannot
pass for another result or a notice. A retriever's failure is an `EnvironmentFault`, never something the policy is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from safeladder.search.retriever import Document, Hit, RetrievalFault, Retriever
from safeladder.search.trace import STOPS, Turn, encode_episode, encode_observation, escape, parse_turn
from safeladder.types import Environment, EnvironmentFault, Observation, SafeladderError, Sample

NO_RESULT = "no page matches ."
UNKNOWN_PAGE = "no page has this id ."
REPEATED = "asked before ."
NOT_UNDERSTOOD = "not understood :"
ANSWER_NOW = "answer now ."
CUT = " […]"
"""Marks where an observation was cut to its budget."""
NOTICES = (NO_RESULT, UNKNOWN_PAGE, REPEATED, NOT_UNDERSTOOD, ANSWER_NOW, CUT)
"""Everything the environment says of its own; a small tokenizer is better trained on it."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n")
_WORD_END = re.compile(r"\s+")
_CHARACTER_END = re.compile(r"(?<=.)", re.DOTALL)


class SearchEnvironment:
    """Search, read and answer over a retriever. Implements `types.Environment`.

    Args:
        retriever: finds and reads pages.
        tokenizer: the policy's.
        top_k: hits a search shows.
        observation_tokens: longest observation, its tags included; a longer one is cut where a sentence ends.
        max_turns: turns of the policy, the answer included; pass the same number to `collect()`.
        max_tokens: once an episode (turns and observations) is due to hold so many tokens, only an answer is
            accepted. With turns of at most T tokens no episode holds more than
            ``max_tokens + observation_tokens + 2 T``.

    Raises:
        SafeladderError: a bound is too small to say anything.
    """

    def __init__(
        self,
        retriever: Retriever,
        tokenizer: Any,
        *,
        top_k: int = 3,
        observation_tokens: int = 512,
        max_turns: int = 8,
        max_tokens: int = 8192,
    ) -> None:
        self.retriever = retriever
        self.tokenizer = tokenizer
        self.top_k = top_k
        self.observation_tokens = observation_tokens
        self.max_turns = max_turns
        self.max_tokens = max_tokens
        for name in ("top_k", "max_turns", "max_tokens"):
            if getattr(self, name) < 1:
                raise SafeladderError(f"search environment: {name} is {getattr(self, name)}, at least 1 is needed")
        least = max(self._size(f"{notice}{CUT}\n{ANSWER_NOW}") for notice in NOTICES)
        if observation_tokens < least:
            raise SafeladderError(
                f"search environment: observation_tokens is {observation_tokens}, this tokenizer needs {least} or more"
            )

    def step(self, sample: Sample, episode: Sequence[str | Observation], tokens: int) -> Observation | None:
        """Results, a page or a notice; None after an answer, or where one was due and something else came.

        A turn without any action (the policy ended its message) ends the episode too. Raises `EnvironmentFault`.
        """
        said = [part for part in episode if isinstance(part, str)]
        heard = [part for part in episode if not isinstance(part, str)]
        turn = parse_turn(said[-1])
        over = turn.action == "answer" or not turn.text.rstrip().endswith(STOPS) or len(said) >= self.max_turns
        if over or (heard and heard[-1].last):
            return None
        try:
            text, pages, problem = self._reply(turn, [parse_turn(text) for text in said[:-1]])
        except RetrievalFault as fault:
            raise EnvironmentFault(f"retrieval: {fault}") from fault
        last = len(said) + 1 >= self.max_turns or tokens + self.observation_tokens >= self.max_tokens
        tail = f"\n{ANSWER_NOW}" if last else ""
        text = escape(cut(text, lambda part: self._size(part + tail) <= self.observation_tokens) + tail)
        return Observation(
            token_ids=encode_observation(self.tokenizer, text), text=text, pages=pages, problem=problem, last=last
        )

    def _reply(self, turn: Turn, before: Sequence[Turn]) -> tuple[str, tuple[str, ...], str]:
        """What to say, the ids of the pages it shows, and what was wrong with the turn."""
        if turn.problem:
            return f"{NOT_UNDERSTOOD} {turn.problem}", (), turn.problem
        if any(turn.action == other.action and turn.argument == other.argument for other in before):
            return REPEATED, (), "repeated call"
        if turn.action == "search":
            hits = self.retriever.search(turn.argument, self.top_k)
            return render_hits(hits) if hits else NO_RESULT, tuple(hit.id for hit in hits), ""
        page = self.retriever.read(turn.argument)
        if page is None:
            return UNKNOWN_PAGE, (), "unknown page"
        return render_page(page), (page.id,), ""

    def _size(self, text: str) -> int:
        return len(encode_observation(self.tokenizer, text))


def render_hits(hits: Sequence[Hit]) -> str:
    """Search results, one a line: ``1) id 7 | title | abstract``."""
    return "\n".join(
        f"{number}) id {_flat(hit.id)} | {_flat(hit.title)} | {_flat(hit.abstract)}"
        for number, hit in enumerate(hits, start=1)
    )


def render_page(page: Document) -> str:
    """A page in full: ``id 7 | title`` and its text on the next line."""
    return f"id {_flat(page.id)} | {_flat(page.title)}\n{_flat(page.text)}"


def _flat(text: str) -> str:
    # On one line: what starts a line is then the environment's own word, whatever a page says.
    return " ".join(text.split())


def cut(text: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of `text` that fits, with a mark where something is missing.

    It ends with a line or a sentence where one fits, else with a word, else anywhere. `fits` must accept the mark.
    """
    if fits(text):
        return text
    for boundary in (_SENTENCE_END, _WORD_END, _CHARACTER_END):
        ends = [0, *_ends(boundary, text)]
        low, high = 0, len(ends)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(text[: ends[middle]] + CUT) else (low, middle)
        if low:
            return text[: ends[low]] + CUT
    return CUT.strip()


def _ends(boundary: re.Pattern[str], text: str) -> Iterator[int]:
    """Where pieces of `text` end, the space after them left out."""
    return (match.start() for match in boundary.finditer(text) if match.start() > 0)


def play(
    environment: Environment, tokenizer: Any, sample: Sample, speak: Callable[[Sequence[str]], str]
) -> tuple[str | Observation, ...]:
    """An episode with a scripted policy, for demonstrations and tests.

    Args:
        environment: answers the turns; ends the episode.
        tokenizer: the environment's.
        sample: what the episode is about.
        speak: the texts of the observations so far -> the next turn's text.

    Returns:
        Turns and observations in order, as `encode_episode` takes them.
    """
    episode: list[str | Observation] = []
    while True:
        episode.append(speak([part.text for part in episode if not isinstance(part, str)]))
        tokens = len(encode_episode(tokenizer, episode)[0]) - 1
        observation = environment.step(sample, episode, tokens)
        if observation is None:
            return tuple(episode)
        episode.append(observation)
