"""Rows about any system's answers, checked before they are counted.

One JSON object a line. What was right is given as `correct`, or found by comparing `answer` with `reference`::

    {"correct": true, "confidence": 8}
    {"answer": "Paris", "reference": ["Paris", "City of Paris"], "confidence": 8}

`confidence` is an integer from 0 to 10, and null or absent where the system stated none. `correct` is null where the
answer could not be judged. Optional: `answerable` (bool), `searches` and `reads` (counts), `group` (rows of one group
are not independent), `samples` (further answers to the same question, for voting: a list of `{answer, confidence,
correct}`). Other keys are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeladder.search.voting import Ballot, normalise_answer
from safeladder.types import SafeladderError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One question and what became of it.

    `correct` None: it could not be judged. `confidence` None: none was stated, or it could not be read. `group` None: a
    group of its own. `answerable`, `searches`, `reads`: None where unknown.
    """

    correct: bool | None
    confidence: int | None
    group: str | None = None
    answerable: bool | None = None
    searches: int | None = None
    reads: int | None = None
    ballots: tuple[Ballot, ...] = ()


def read_outcomes(path: str | Path) -> list[Outcome]:
    """The rows of a JSON-lines file; blank lines are skipped.

    Raises:
        SafeladderError: the file is missing, empty or not UTF-8, or a row is wrong, by its line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise SafeladderError(f"{path} not found") from None
    except UnicodeDecodeError:
        raise SafeladderError(f"{path} is not a UTF-8 text file") from None
    found: list[Outcome] = []
    sampled: tuple[int, int] | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise SafeladderError(f"{where}: not valid JSON") from None
        outcome = parse_outcome(row, where)
        if outcome.ballots:
            sampled = sampled or (len(outcome.ballots), number)
            if len(outcome.ballots) != sampled[0]:
                raise SafeladderError(
                    f"{where}: {len(outcome.ballots)} samples, line {sampled[1]} has {sampled[0]}; "
                    "allowed: equally many in all rows that have any"
                )
        found.append(outcome)
    if not found:
        raise SafeladderError(f"{path} has no rows")
    return found


def parse_outcome(row: Any, where: str) -> Outcome:
    """One row as an `Outcome`.

    Raises:
        SafeladderError: what is wrong at `where`, and what is allowed.
    """
    if not isinstance(row, Mapping):
        raise SafeladderError(f"{where}: {_shown(row)} is no JSON object")
    return Outcome(
        correct=_correct(row, row, where),
        confidence=_confidence(row, where),
        group=_optional(row, "group", str, "a string", where),
        answerable=_optional(row, "answerable", bool, "true or false", where),
        searches=_count(row, "searches", where),
        reads=_count(row, "reads", where),
        ballots=_ballots(row, where),
    )


def _correct(row: Mapping[str, Any], question: Mapping[str, Any], where: str) -> bool | None:
    """Whether the answer in `row` is right, by `question`'s reference where the row does not say."""
    if "correct" in row:
        return _optional(row, "correct", bool, "true, false, or null where it could not be judged", where)
    if "answer" not in row or "reference" not in question:
        raise SafeladderError(f'{where}: needs "correct", or "answer" and "reference"')
    reference = question["reference"]
    accepted = [reference] if isinstance(reference, str) else reference
    if not isinstance(accepted, list) or not accepted or not all(isinstance(r, str) and r.strip() for r in accepted):
        raise SafeladderError(
            f"{where}: reference is {_shown(reference)}; allowed: a text or a list of accepted texts, none empty "
            '(where nothing is right, give "correct")'
        )
    answer = _answer(row, where)
    return answer is not None and normalise_answer(answer) in {normalise_answer(r) for r in accepted}


def _confidence(row: Mapping[str, Any], where: str) -> int | None:
    confidence = row.get("confidence")
    if confidence is None:
        return None
    # 7.0 is refused as well: a scale of 0..1 with the ends only would read as 0 and 1 of 10.
    if not _is_integer(confidence) or not 0 <= confidence <= 10:
        raise SafeladderError(
            f"{where}: confidence is {_shown(confidence)}; allowed: an integer from 0 to 10, null where none was stated"
        )
    return confidence


def _answer(row: Mapping[str, Any], where: str) -> str | None:
    return _optional(row, "answer", str, "a text, or null where none was given", where)


def _ballots(row: Mapping[str, Any], where: str) -> tuple[Ballot, ...]:
    samples = row.get("samples")
    if samples is None:
        return ()
    if not isinstance(samples, list) or not all(isinstance(sample, Mapping) for sample in samples):
        raise SafeladderError(f"{where}: samples must be a list of {{answer, confidence, correct}}")
    found = []
    for i, sample in enumerate(samples):
        at = f"{where}, samples[{i}]"
        if "answer" not in sample:
            raise SafeladderError(f'{at}: needs "answer"; null where none was given')
        found.append(
            Ballot(
                answer=_answer(sample, at),
                confidence=_confidence(sample, at),
                correct=_correct(sample, row, at),
            )
        )
    return tuple(found)


def _count(row: Mapping[str, Any], key: str, where: str) -> int | None:
    count = row.get(key)
    if count is not None and (not _is_integer(count) or count < 0):
        raise SafeladderError(f"{where}: {key} is {_shown(count)}; allowed: a whole number from 0")
    return count


def _optional(row: Mapping[str, Any], key: str, kind: type, allowed: str, where: str) -> Any:
    value = row.get(key)
    if value is not None and not isinstance(value, kind):
        raise SafeladderError(f"{where}: {key} is {_shown(value)}; allowed: {allowed}")
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"
