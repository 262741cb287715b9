"""The steps of guided decoding: where sampled text ends one, and configured texts that are proposed as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from safeladder.steering.guidance import EVERY_LANGUAGE, GuidanceConfig
from safeladder.types import Completion, StopReason

STOPS = (".", "!", "?", "\n", "。", "！", "？")
"""What a step may end with."""


def ends_step(text: str) -> bool:
    """Whether text certainly ends a step, by the rules of `steps.split_steps`: a line break or a sentence's end, after
    at least one word. A full stop right after a digit may be a number's: not certain."""
    core = text.rstrip()
    if not any(c.isalnum() for c in core):
        return False
    if "\n" in text[len(core) :] or core[-1] in "!?。！？":
        return True
    return core.endswith(".") and not core[-2:-1].isdigit()


def step_ends(decode: Callable[[Sequence[int]], str], token_ids: Sequence[int]) -> list[int]:
    """Where the steps of sampled ids end, the end of all included: the units that guided decoding would sample."""
    ends, start = [], 0
    for at in range(1, len(token_ids)):
        if ends_step(decode(token_ids[start:at])):
            ends.append(at)
            start = at
    return [*ends, len(token_ids)] if token_ids else []


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed step as token ids; `ends` where it ends the reply (the end token is its last)."""

    token_ids: tuple[int, ...]
    ends: bool


class Proposer:
    """Renders configured texts as steps that may follow what was said so far."""

    def __init__(self, config: GuidanceConfig, tokenizer: Any) -> None:
        self.config, self.tokenizer = config, tokenizer

    def steps(self, language: str, said: str) -> list[Proposal]:
        """Reminders and completions for a reply that is still thinking; none once it answers.

        Where nothing was thought, a completion follows a reminder: a reply without reasoning would be malformed.
        """
        config = self.config
        if config.close_tag in said:
            return []
        reminders, completions = (
            texts.get(language, texts.get(EVERY_LANGUAGE, ())) for texts in (config.reminders, config.completions)
        )
        begun = bool(said.replace(config.open_tag, "", 1).strip())
        opening = "" if begun else f"{config.open_tag} "
        found = [self._step(f"{opening or ' '}{text}", ends=False) for text in reminders]
        thoughts = [""] if begun else [f"{opening}{text}" for text in reminders]
        found += [
            self._step(f"{thought}{config.close_tag} {text}", ends=True) for thought in thoughts for text in completions
        ]
        return found

    def _step(self, text: str, *, ends: bool) -> Proposal:
        ids = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        return Proposal((*ids, int(self.tokenizer.eos_token_id)) if ends else ids, ends)


@dataclass(frozen=True, slots=True)
class NextStep:
    """A step that may come next: ids, log-probabilities, text, why sampling ended. `whole` unless it only seems to have
    ended; `source` and `count` as in `guidance.Candidate`."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    reason: StopReason
    whole: bool
    source: str = "sampled"
    count: int = 1

    @classmethod
    def of(cls, completion: Completion, decode: Callable[[Sequence[int]], str]) -> NextStep:
        text = decode(completion.token_ids)
        whole = completion.stop_reason is not StopReason.STOP or ends_step(text)
        return cls(completion.token_ids, completion.logprobs, text, completion.stop_reason, whole)

    def joined(self, more: NextStep, decode: Callable[[Sequence[int]], str]) -> NextStep:
        ids = (*self.token_ids, *more.token_ids)
        text = decode(ids)
        whole = more.reason is not StopReason.STOP or ends_step(text)
        return NextStep(ids, (*self.logprobs, *more.logprobs), text, more.reason, whole)

    @property
    def mean_logprob(self) -> float | None:
        if not self.logprobs or -math.inf in self.logprobs:
            return None
        return math.fsum(self.logprobs) / len(self.logprobs)
