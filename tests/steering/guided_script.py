"""A policy whose next steps are written down, one character a token, and value models that look words up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from safeladder.types import Completion, GenerationRequest, Message, Part, Sample, SamplingParams, StopReason

END = 0
QUESTION = "q:"


def ask(id: str = "s", language: str = "en") -> Sample:
    return Sample(
        id=id, label="safety", messages=(Message(role="user", parts=(Part(text=QUESTION),)),), language=language
    )


def ids(text: str) -> tuple[int, ...]:
    """One id a character; `$` is the end token."""
    return tuple(END if c == "$" else ord(c) for c in text)


class Characters:
    """A tokenizer of the same ids."""

    eos_token_id = END

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens
        return list(ids(text))


@dataclass
class Script:
    """What was said so far -> the steps that may come next, the likeliest first; the k-th sample gets the k-th of them,
    over again where there are fewer. A step cut at a token budget goes on with what is left of it."""

    steps: Mapping[str, Sequence[str]]
    logprob: float = -1.0
    context_length: int = 1000
    calls: list[tuple[list[str], SamplingParams, int]] = field(default_factory=list)

    def prompt_ids(self, sample: Sample) -> tuple[int, ...]:
        return ids(QUESTION)

    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, *, seed: int
    ) -> list[list[Completion]]:
        said = [self.decode(r.prompt_ids[len(QUESTION) :]) for r in requests]
        self.calls.append((said, params, seed))
        numbers: dict[str, int] = {}
        groups = []
        for text, request in zip(said, requests, strict=True):
            first = numbers.get(request.sample.id, 0)
            numbers[request.sample.id] = first + params.n
            options = self._options(text)
            chosen = [options[(first + k) % len(options)] for k in range(params.n)]
            groups.append([self._say(step, params) for step in chosen])
        return groups

    def _options(self, text: str) -> Sequence[str]:
        if text in self.steps:
            return self.steps[text]
        for start, options in self.steps.items():
            rest = [start + step for step in options if (start + step).startswith(text) and len(start) < len(text)]
            if rest:
                return [step[len(text) :] for step in rest]
        raise AssertionError(f"nothing is written for {text!r}")

    def _say(self, step: str, params: SamplingParams) -> Completion:
        at = next((i + 1 for i, c in enumerate(step) if c in params.stop), len(step))
        said = step[: min(at, params.max_new_tokens)]
        reason = StopReason.LENGTH
        if said.endswith("$"):
            reason = StopReason.EOS
        elif said and said[-1] in params.stop:
            reason = StopReason.STOP
        return Completion(token_ids=ids(said), logprobs=(self.logprob,) * len(said), stop_reason=reason)

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join("$" if i == END else chr(i) for i in token_ids).removesuffix("$")

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        raise AssertionError("not called")


@dataclass
class Words:
    """Value of a context: that of the last of `words` it holds, else `otherwise`."""

    name: str
    words: Mapping[str, float]
    otherwise: float = 0.5

    def score(self, sample: Sample, prefix_ids: Sequence[int], candidates: Sequence[Sequence[int]]) -> list[float]:
        return [self._value("".join(chr(i) for i in (*prefix_ids, *c) if i)) for c in candidates]

    def _value(self, text: str) -> float:
        found = {text.rfind(word): value for word, value in self.words.items() if word in text}
        return found[max(found)] if found else self.otherwise
