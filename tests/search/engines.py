"""An engine that says what it is told, as ids of a real tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from safeladder.types import Completion, GenerationRequest, Message, Part, Sample, SamplingParams, StopReason


def ask(id: str = "s", question: str = "who founded Acme ?") -> Sample:
    return Sample(id=id, label="search", messages=(Message(role="user", parts=(Part(text=question),)),))


@dataclass
class Speaker:
    """Every sample's turns in order, as the ids to be sampled; a turn goes on after its tag if it is told to."""

    tokenizer: Any
    turns: dict[str, list[Sequence[int]]]
    context_length: int = 10_000
    contexts: list[tuple[int, ...]] = field(default_factory=list)

    def prompt_ids(self, sample: Sample) -> tuple[int, ...]:
        return tuple(self.tokenizer(sample.question, add_special_tokens=False)["input_ids"])

    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, *, seed: int
    ) -> list[list[Completion]]:
        self.contexts += [request.prompt_ids for request in requests]
        return [[self._say(self.turns[r.sample.id].pop(0)) for _ in range(params.n)] for r in requests]

    def _say(self, ids: Sequence[int]) -> Completion:
        reason = StopReason.EOS if ids and ids[-1] == self.tokenizer.eos_token_id else StopReason.STOP
        return Completion(token_ids=tuple(ids), logprobs=tuple(-0.01 * i for i in ids), stop_reason=reason)

    def decode(self, token_ids: Sequence[int]) -> str:
        ids = list(token_ids)
        if ids and ids[-1] == self.tokenizer.eos_token_id:
            ids.pop()
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        raise AssertionError("not called")


def plain(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
