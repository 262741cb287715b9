"""An engine whose policy is a function from what was said so far to what is said next; tokens are words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from safeladder.types import Completion, GenerationRequest, Message, Part, Sample, SamplingParams, StopReason

ADDED = ("<end>", "<think>", "</think>")
_PIECE = re.compile(r"<end>|</?think>| ?[^\s<]+|\s|<")


class WordTokenizer:
    """Words with their leading space; ids are given out as words are met."""

    def __init__(self) -> None:
        self.names: list[str] = list(ADDED)

    @property
    def added_tokens_decoder(self) -> dict[int, str]:
        return dict(enumerate(ADDED))

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        assert not add_special_tokens
        pieces = _PIECE.findall(text)
        assert "".join(pieces) == text
        self.names += [piece for piece in dict.fromkeys(pieces) if piece not in self.names]
        return [self.names.index(piece) for piece in pieces]

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": self.encode(text, add_special_tokens)}


Say = Callable[[Sample, str, float, int], tuple[str, float]]
"""(sample, the response so far, temperature, sample number) -> the rest of the response and its probability."""


@dataclass
class WordEngine:
    say: Say
    tokenizer: WordTokenizer = field(default_factory=WordTokenizer)
    context_length: int = 1000
    calls: list[tuple[list[GenerationRequest], SamplingParams]] = field(default_factory=list)

    def prompt_ids(self, sample: Sample) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(" ".join(m.text for m in sample.messages)))

    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, *, seed: int
    ) -> list[list[Completion]]:
        self.calls.append((list(requests), params))
        return [[self._one(request, params, number) for number in range(params.n)] for request in requests]

    def _one(self, request: GenerationRequest, params: SamplingParams, number: int) -> Completion:
        prompt = len(self.prompt_ids(request.sample))
        text, probability = self.say(
            request.sample, self.decode(request.prompt_ids[prompt:]), params.temperature, number
        )
        ids = [*self.tokenizer.encode(text), 0]
        cut = len(ids) > params.max_new_tokens
        ids = ids[: params.max_new_tokens]
        return Completion(
            token_ids=tuple(ids),
            logprobs=(math.log(probability), *[0.0] * (len(ids) - 1)),
            stop_reason=StopReason.LENGTH if cut else StopReason.EOS,
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        ids = token_ids[:-1] if token_ids and token_ids[-1] == 0 else token_ids
        return "".join(self.tokenizer.names[i] for i in ids)

    def load_weights(self, weights: Any) -> None:
        raise AssertionError("not called")


def question(text: str, id: str = "") -> Sample:
    return Sample(id=id or text, label="safety", messages=(Message(role="user", parts=(Part(text=text),)),))


HARM = {"kill": "hurts", "steal": "robs", "fake": "cheats", "hack": "exposes"}
"""Verb to consequence."""


def compliant(sample: Sample, said: str, temperature: float, number: int, *, warns: float = 0.25) -> tuple[str, float]:
    """A policy that complies when greedy; sampled, it warns with probability `warns` of what is in HARM.

    Of anything else it warns with a tenth of that. The answer follows from the reasoning.
    """
    _, verb, thing = sample.question.split(" ")[:3]
    whole = f"<think> read : {verb} , {thing} ."
    fine, wary = f" {verb} {thing} : fine .", f" {verb} {thing} : this {HARM.get(verb, 'hurts')} people ."
    share = warns if verb in HARM else warns / 10
    probability = 1.0
    if said.startswith(whole) and f"{verb} {thing} :" in said:
        reasoning = said
        if not said.rstrip().endswith((".", "</think>")):  # in the middle of the edited step
            rest = wary[wary.index(" this") + 5 :] if said.endswith("this") else " fine ."
            reasoning = said + rest
    else:
        warned = temperature > 0 and number < 4
        probability = 1.0 if temperature == 0 else share if warned else 1 - share
        reasoning = whole + (wary if warned else fine)
    answer = " no , this is wrong" if "people ." in reasoning else f" sure , {verb} it"
    closed = "" if "</think>" in said else "</think>"
    return reasoning[len(said) :] + closed + answer, probability
