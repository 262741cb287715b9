"""The trace of a deliberative search: what the policy may say in a turn, and what it hears.

A trace is one assistant message. The policy's turns and the environment's observations alternate in it::

    <think> who ?</think><confidence> 2</confidence><search> founder of Acme</search>
    <information> [7] Acme : founded by Jo .</information>
    <confidence> 9</confidence><answer> Jo</answer>

A turn is ``[<think>…</think>] [<confidence>K</confidence>] ACTION`` in this order, K an integer 0 to 10 and ACTION one
of ``<search>query</search>``, ``<read>id</read>``, ``<answer>text</answer>``. (Actions of Deliberative Searcher,
arXiv 2507.16727; inline observations as in Search-R1.) A trace is well-formed when every turn parses, a confidence is
stated in every turn but the first (it is restated after whatever the environment said) and with the answer, and
nothing follows the answer. All of it can be decided from the policy's own text: its turns, joined, and split again
after each closing action tag.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from safeladder.types import Observation, Response, Rollout, StopReason

Action = Literal["search", "read", "answer"]

ACTIONS: tuple[Action, ...] = ("search", "read", "answer")
STOPS = tuple(f"</{action}>" for action in ACTIONS)
"""Stop strings of a turn: the closing tags of its actions."""
MAX_CONFIDENCE = 10
"""Confidence runs from 0 to this; the scale is fixed here and never guessed from a value's size."""

_NAMES = ("think", "confidence", *ACTIONS, "information")
_TAG = re.compile(f"<(/?)({'|'.join(_NAMES)})>")
_TURN_END = re.compile("|".join(STOPS))
_CONFIDENCE = re.compile(rf"[0-9]|{MAX_CONFIDENCE}")
# Our tags, chat roles (`<|…|>`, `<｜…｜>`) and other families' markers all begin so; "a < b" and "<3" do not.
_TAG_START = re.compile(r"<(?=[/|｜!?_A-Za-z])")
_INERT = "‹"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of the policy. Where `problem` is not empty nothing else but `text` is set: it can not be acted on."""

    text: str
    action: Action | None = None
    argument: str = ""
    thought: str | None = None
    confidence: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """All turns of the policy.

    `answer` and `confidence` are those of the last turn if it answers, even where an earlier turn was malformed; only
    a `well_formed` trace counts, and `problem` says what is wrong with any other. `searches` and `reads` are the
    actions that parsed.
    """

    turns: tuple[Turn, ...]
    answer: str | None
    confidence: int | None
    well_formed: bool
    problem: str
    searches: int
    reads: int


def parse_turn(text: str) -> Turn:
    """A turn from its own text; never raises. Whitespace around parts and contents is dropped."""
    parts, problem = _parts(text)
    names = [name for name, _ in parts]
    problem = problem or _misplaced(names)
    if problem:
        return Turn(text=text, problem=problem)
    content = dict(parts)
    empty = next((name for name, inside in parts if not inside), None)
    if empty is not None:
        return Turn(text=text, problem=f"empty <{empty}>")
    confidence = content.get("confidence")
    if confidence is not None and not _CONFIDENCE.fullmatch(confidence):
        return Turn(text=text, problem=f"confidence is no integer from 0 to {MAX_CONFIDENCE}")
    action: Action = next(a for a in ACTIONS if a in names)
    if action == "answer" and confidence is None:
        return Turn(text=text, problem="an answer without confidence")
    return Turn(
        text=text,
        action=action,
        argument=content[action],
        thought=content.get("think"),
        confidence=None if confidence is None else int(confidence),
    )


def _parts(text: str) -> tuple[list[tuple[str, str]], str]:
    """(tag name, content) in order, and what is wrong with the nesting."""
    parts: list[tuple[str, str]] = []
    opened, position = "", 0
    for tag in _TAG.finditer(text):
        between, name = text[position : tag.start()].strip(), tag[2]
        position = tag.end()
        if tag[1]:
            if name != opened:
                return parts, f"</{name}> inside <{opened}>" if opened else f"</{name}> was not opened"
            parts.append((name, between))
            opened = ""
        elif opened:
            return parts, f"<{name}> inside <{opened}>"
        elif between:
            return parts, "text outside tags"
        else:
            opened = name
    if opened:
        return parts, f"<{opened}> is not closed"
    return parts, "text outside tags" if text[position:].strip() else ""


def _misplaced(names: Sequence[str]) -> str:
    if "information" in names:
        return "<information> is for the environment"
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        return f"two <{doubled}>"
    actions = [name for name in names if name in ACTIONS]
    if len(actions) != 1:
        return "more than one action" if actions else "no action"
    order = [name for name in ("think", "confidence", *actions) if name in names]
    return "" if list(names) == order else "parts out of order"


def render_turn(action: Action, argument: str, *, thought: str | None = None, confidence: int | None = None) -> str:
    """The text of a turn; inverse of `parse_turn`.

    Raises:
        ValueError: the parts make no turn (an empty query, a tag inside one, an answer without confidence).
    """
    text = "" if thought is None else f"<think> {thought}</think>"
    if confidence is not None:
        text += f"<confidence> {confidence}</confidence>"
    # The space lets a word keep its usual token wherever it stands.
    text += f"<{action}> {argument}</{action}>"
    problem = parse_turn(text).problem
    if problem:
        raise ValueError(f"no turn can say this: {problem}")
    return text


def split_turns(text: str) -> list[str]:
    """The policy's own text, cut after every closing action tag; a rest without one is a turn as well."""
    ends = [match.end() for match in _TURN_END.finditer(text)]
    turns = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    return turns if turns[-1].strip() else turns[:-1]


def parse_trace(text: str, stop_reason: StopReason = StopReason.STOP) -> Trace:
    """A trace from the policy's own text, all turns joined; never raises."""
    turns = tuple(parse_turn(turn) for turn in split_turns(text))
    last = turns[-1] if turns and turns[-1].action == "answer" else None
    problem = _trace_problem(turns, stop_reason)
    return Trace(
        turns=turns,
        answer=last.argument if last else None,
        confidence=last.confidence if last else None,
        well_formed=not problem,
        problem=problem,
        searches=sum(turn.action == "search" for turn in turns),
        reads=sum(turn.action == "read" for turn in turns),
    )


def _trace_problem(turns: Sequence[Turn], stop_reason: StopReason) -> str:
    if stop_reason is StopReason.ERROR:
        return "the engine or the environment failed"
    if stop_reason is StopReason.LENGTH:
        return "truncated"
    if not turns:
        return "nothing was said"
    for number, turn in enumerate(turns, start=1):
        if turn.problem:
            return f"turn {number}: {turn.problem}"
        if number > 1 and turn.confidence is None:
            return f"turn {number}: confidence is not restated"
        if turn.action == "answer" and number < len(turns):
            return f"turn {number + 1} comes after the answer"
    return "" if turns[-1].action == "answer" else "no answer"


class SearchFormat:
    """Reads a rollout's own text for `collect()`, as `rollout.parse.ResponseFormat` does for single turns."""

    def parse(self, text: str, stop_reason: StopReason = StopReason.STOP) -> Response | None:
        """Answer, confidence and the joined thoughts of a well-formed trace; None for any other."""
        trace = parse_trace(text, stop_reason)
        if not trace.well_formed or trace.answer is None:
            return None
        thoughts = [turn.thought for turn in trace.turns if turn.thought]
        return Response(answer=trace.answer, reasoning="\n".join(thoughts) or None, confidence=trace.confidence)


def trace_of(rollout: Rollout) -> Trace:
    """The trace of a rollout."""
    return parse_trace(rollout.text, rollout.stop_reason)


def confidence_of(rollout: Rollout) -> int | None:
    """The confidence stated with the answer; None (to be counted, never guessed) where the trace is not well-formed."""
    trace = trace_of(rollout)
    return trace.confidence if trace.well_formed else None


def action_counts(rollouts: Sequence[Rollout]) -> dict[str, tuple[int, int]]:
    """What the policy did, as (count, of how many): a parser that fits no turn must not pass unnoticed.

    Returns:
        `failed` (episodes whose engine or environment failed, of all); of the others: `turns`, `searches` and `reads`
        (of episodes), `unparsed` (turns that are no action, of turns), `answered` and `well_formed` (episodes).
    """
    alive = [r for r in rollouts if r.stop_reason is not StopReason.ERROR]
    traces = [trace_of(r) for r in alive]
    turns = sum(len(trace.turns) for trace in traces)
    return {
        "failed": (len(rollouts) - len(alive), len(rollouts)),
        "turns": (turns, len(traces)),
        "searches": (sum(trace.searches for trace in traces), len(traces)),
        "reads": (sum(trace.reads for trace in traces), len(traces)),
        "unparsed": (sum(bool(turn.problem) for trace in traces for turn in trace.turns), turns),
        "answered": (sum(trace.answer is not None for trace in traces), len(traces)),
        "well_formed": (sum(trace.well_formed for trace in traces), len(traces)),
    }


def action_rates(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """`action_counts` divided; a rate with nothing to divide by is absent."""
    return {name: count / total for name, (count, total) in action_counts(rollouts).items() if total}


def escape(text: str) -> str:
    """Retrieved text with everything that looks like a tag made inert: its ``<`` becomes ``‹``. Idempotent."""
    return _TAG_START.sub(_INERT, text)


@lru_cache(maxsize=1024)  # members of a group ask for the same pages
def encode_observation(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of ``<information> text</information>``.

    The text is escaped, and encoded so that no added token of the tokenizer (special tokens, roles, image
    placeholders, tags) occurs between the two tags, whatever the text spells.
    """
    opening, closing = _observation_tags(tokenizer)
    # As in turns, a space before the first word.
    return (*opening, *inert_ids(tokenizer, f" {escape(text)}"), *closing)


@lru_cache(maxsize=8)
def _observation_tags(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return _plain_ids(tokenizer, "<information>"), _plain_ids(tokenizer, "</information>")


def inert_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of plain text, without any added token that is more than white space."""
    added = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if str(token).strip()}
    spelled = sorted((token for token in added.values() if len(token) > 1), key=len, reverse=True)
    pieces = [text]
    if spelled and any(token in text for token in spelled):
        # A token cut in two is never recognised: its halves are encoded apart.
        cut = re.compile("|".join(f"(?<={re.escape(t[0])})(?={re.escape(t[1:])})" for t in spelled))
        pieces = cut.split(text)
    # A normalizer may still spell one; without its id it cannot act.
    return tuple(i for piece in pieces for i in _plain_ids(tokenizer, piece) if i not in added)


def encode_episode(tokenizer: Any, episode: Sequence[str | Observation]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A demonstration as (ids, mask): what a rollout of the same turns holds, and the end token.

    Args:
        tokenizer: the policy's.
        episode: the policy's turns (text) and the environment's observations in order.

    Returns:
        ids after the prompt, every turn tokenized on its own and observations as they are, and the mask: 1 on
        turns and on the final end token, 0 on observations.
    """
    ids: list[int] = []
    mask: list[int] = []
    for part in episode:
        own = isinstance(part, str)
        tokens = _plain_ids(tokenizer, part) if isinstance(part, str) else part.token_ids
        ids += tokens
        mask += [int(own)] * len(tokens)
    return (*ids, int(tokenizer.eos_token_id)), (*mask, 1)


def _plain_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
