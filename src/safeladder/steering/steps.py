"""Reasoning split into steps: the unit that value guidance samples and scores, and that people edit."""

from __future__ import annotations

import re
from dataclasses import dataclass

_END = re.compile(
    r"\n+"  # a line break
    r"|(?<!\d)\.(?=\s|$)|(?<=\d)\s*\.(?=\s|$)"  # a full stop, not the point of a number
    r"|[!?](?=\s|$)"
    r"|[。！？]"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `text` is ``reasoning[start:end]``; steps follow one another without a gap."""

    text: str
    start: int
    end: int


def split_steps(reasoning: str) -> tuple[Step, ...]:
    """Split reasoning at line breaks and sentence ends (English and Chinese).

    Nothing is lost: the steps' texts joined are the reasoning. White space after an end belongs to the step it
    closes; a piece without any word is part of the step before it.
    """
    cuts = []
    for match in _END.finditer(reasoning):
        end = match.end()
        while end < len(reasoning) and reasoning[end].isspace():
            end += 1
        cuts.append(end)
    steps: list[Step] = []
    start = 0
    for end in dict.fromkeys([*cuts, len(reasoning)]):
        if end <= start:
            continue
        text = reasoning[start:end]
        if steps and not any(c.isalnum() for c in text):
            last = steps.pop()
            text, start = last.text + text, last.start
        steps.append(Step(text, start, end))
        start = end
    return tuple(steps)
