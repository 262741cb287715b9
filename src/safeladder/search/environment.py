"""The environment of a deliberative search: it answers searches and reads with what a retriever finds.

It keeps no state: every step is decided from the turns and observations so far. Retrieved text is escaped and holds
no added token, so a page can neither act nor end the observation it stands in, and it starts no line, so it cannot
pass for another result or a notice. Where asked to, results name the words of the query that they lack, as web search
engines do, and so does a page that is read from them. A retriever's failure is an `EnvironmentFault`, never something
the policy is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from safeladder.search.retriever import Document, Hit, RetrievalFault, Retriever
from safeladder.search.trace import STOPS, Turn, encode_episode, encode_observation, escape, parse_turn
from safeladder.search.words import FUNCTION_WORDS, words
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
MISSING = " | missing :"
"""Before the words of a query that a result lacks."""
_MOST_MISSING = 5
"""So many of them are named: a query may be long, and an observation has a budget."""

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
        missing_words: results, and pages that were read from them, end by naming the words of the query which neither
            title nor abstract holds (`lacking`).

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
        missing_words: bool = False,
    ) -> None:
        self.retriever = retriever
        self.tokenizer = tokenizer
        self.top_k = top_k
        self.observation_tokens = observation_tokens
        self.max_turns = max_turns
        self.max_tokens = max_tokens
        self.missing_words = missing_words
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
            text, pages, problem = self._reply(turn, [parse_turn(text) for text in said[:-1]], heard)
        except RetrievalFault as fault:
            raise EnvironmentFault(f"retrieval: {fault}") from fault
        last = len(said) + 1 >= self.max_turns or tokens + self.observation_tokens >= self.max_tokens
        tail = f"\n{ANSWER_NOW}" if last else ""
        text = escape(cut(text, lambda part: self._size(part + tail) <= self.observation_tokens) + tail)
        return Observation(
            token_ids=encode_observation(self.tokenizer, text), text=text, pages=pages, problem=problem, last=last
        )

    def _reply(
        self, turn: Turn, before: Sequence[Turn], heard: Sequence[Observation]
    ) -> tuple[str, tuple[str, ...], str]:
        """What to say, the ids of the pages it shows, and what was wrong with the turn."""
        if turn.problem:
            return f"{NOT_UNDERSTOOD} {turn.problem}", (), turn.problem
        if any(turn.action == other.action and turn.argument == other.argument for other in before):
            return REPEATED, (), "repeated call"
        if turn.action == "search":
            hits = self.retriever.search(turn.argument, self.top_k)
            text = render_hits(hits, turn.argument if self.missing_words else "") if hits else NO_RESULT
            return text, tuple(hit.id for hit in hits), ""
        page = self.retriever.read(turn.argument)
        if page is None:
            return UNKNOWN_PAGE, (), "unknown page"
        return render_page(page, _lacked(page.id, before, heard) if self.missing_words else ""), (page.id,), ""

    def _size(self, text: str) -> int:
        return len(encode_observation(self.tokenizer, text))


def render_hits(hits: Sequence[Hit], query: str = "") -> str:
    """Search results, one a line: ``1) id 7 | title | abstract``, with the words of the query that one lacks at its
    end: ``1) id 7 | title | abstract | missing : word``."""
    lines = []
    for number, hit in enumerate(hits, start=1):
        shown = f"{_flat(hit.title)} | {_flat(hit.abstract)}"
        lines.append(f"{number}) id {_flat(hit.id)} | {shown}{_named(lacking(query, shown))}")
    return "\n".join(lines)


def render_page(page: Document, lacked: Sequence[str] = ()) -> str:
    """A page in full: ``id 7 | title`` and its text on the next line; `lacked` as in a result."""
    return f"id {_flat(page.id)} | {_flat(page.title)}{_named(lacked)}\n{_flat(page.text)}"


def lacking(query: str, text: str) -> list[str]:
    """The words of `query` that `text` does not hold, in order, English function words left out.

    Words are those of `search.words`: case and accents do not count, an inflected word is another one.

    >>> lacking("the Founder of Acme", "Acme | Acme makes boats .")
    ['founder']
    """
    held = {*words(text), *FUNCTION_WORDS}
    return [word for word in dict.fromkeys(words(query)) if word not in held]


def _named(lacked: Sequence[str]) -> str:
    return " ".join([MISSING, *lacked[:_MOST_MISSING]]) if lacked else ""


def _lacked(id: str, before: Sequence[Turn], heard: Sequence[Observation]) -> list[str]:
    """What the newest results that showed this page lacked there, as far as they were shown."""
    for turn, observation in reversed(list(zip(before, heard, strict=False))):
        if turn.action != "search" or id not in observation.pages:
            continue
        place = observation.pages.index(id)
        lines = observation.text.split("\n")
        if place < len(lines) and lines[place].startswith(f"{place + 1}) "):
            shown = lines[place].partition(" | ")[2]
            # What a page says of the kind itself stands before the environment's own word.
            return lacking(turn.argument, shown.rpartition(MISSING)[0] or shown)
    return []


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
