"""How a policy learned to search, kept with its checkpoint: it does well with what looks as it did in training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from safeladder.atomic import write_json
from safeladder.search.retriever import Document, Hit, Retriever
from safeladder.types import Message, Part, SafeladderError, Sample

FILE = "search.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """What a search shows and how long it may be; the defaults are for a checkpoint that does not say.

    Attributes:
        top_k: results that a search shows.
        max_turns: turns of the policy, the answer included.
        turn_tokens, observation_tokens, episode_tokens: as in the recipe's rung; None = a share of the context.
        missing_words: results, and pages read from them, name the words of the query that they lack.
        first_sentences: results show the first sentence of a page only (`FirstSentences`).
        instructions: said before the question, as a system message.
    """

    top_k: int = 3
    max_turns: int = 8
    turn_tokens: int | None = None
    observation_tokens: int | None = None
    episode_tokens: int | None = None
    missing_words: bool = False
    first_sentences: bool = False
    instructions: str | None = None

    def save(self, checkpoint: Path) -> None:
        """Write `search.json` into a checkpoint's folder, atomically."""
        write_json(checkpoint / FILE, asdict(self))

    @classmethod
    def of(cls, checkpoint: Path) -> SearchSettings:
        """Those of a checkpoint; the defaults where it has none.

        Raises:
            SafeladderError: the file cannot be read, or holds something else.
        """
        path = checkpoint / FILE
        if not path.is_file():
            return cls()
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise SafeladderError(f"{path}: not JSON ({error})".splitlines()[0]) from None
        wrong = _wrong(row)
        if wrong:
            raise SafeladderError(f"{path}: {wrong}")
        return cls(**row)

    def instruct(self, sample: Sample) -> Sample:
        """The sample with the instructions before it, unless it has a system message of its own."""
        if self.instructions is None or sample.messages[0].role == "system":
            return sample
        message = Message(role="system", parts=(Part(text=self.instructions),))
        return replace(sample, messages=(message, *sample.messages))

    def over(self, retriever: Retriever) -> Retriever:
        """The retriever, its results shown as they were in training."""
        return FirstSentences(retriever) if self.first_sentences else retriever


class FirstSentences:
    """A retriever whose results show a page's first sentence, as the world's pages end theirs: with a point that stands
    alone. What a page states then takes a read."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    def search(self, query: str, k: int) -> list[Hit]:
        hits = self._retriever.search(query, k)
        return [replace(hit, abstract=f"{hit.abstract.split(' .')[0]} .") for hit in hits]

    def read(self, id: str) -> Document | None:
        return self._retriever.read(id)


def _wrong(row: object) -> str:
    if not isinstance(row, dict):
        return "not an object"
    known = {field.name for field in fields(SearchSettings)}
    if unknown := sorted(row.keys() - known):
        return f"unknown key {unknown[0]!r}; allowed: {', '.join(sorted(known))}"
    for name, value in row.items():
        if name in ("missing_words", "first_sentences"):
            fine = isinstance(value, bool)
        elif name == "instructions":
            fine = value is None or isinstance(value, str)
        else:
            optional = name.endswith("_tokens") and value is None
            fine = optional or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)
        if not fine:
            return f"{name} is {value!r}"
    return ""
