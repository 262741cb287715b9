"""The nouns of safeladder.

Plain data, importable without torch. Every other room speaks in these words:

====================  ==================================================================================
`Part`                one piece of a chat message: text, image or video (a Hugging Face / OpenAI part)
`Message`             a role and its parts
`Response`            a model's (or a teacher's) typed reply: `reasoning` and `answer`
`Sample`              one task: chat messages, the label that routes it to verifiers, the reference
`StopReason`          why a generation ended
`Rollout`             what the policy did on a sample: token ids as sampled, log-probabilities, mask
`Score`               a verifier's verdict on one rollout
`Verifier`            scores a batch of rollouts for one principle
`SamplingParams`      how to sample
`GenerationRequest`   one prompt for an engine, as token ids
`Completion`          one sampled continuation, as token ids
`Engine`              turns requests into completions; accepts new weights
`Observation`         what an environment says back to the policy
`Environment`         what answers the policy between its turns
`EnvironmentFault`    it could not answer, through no fault of the policy
====================  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image

Role = Literal["system", "user", "assistant"]


class SafeladderError(Exception):
    """A mistake in what the user gave us. The command line prints it as one line and exits with 2."""


class StopReason(StrEnum):
    """Why a generation ended."""

    EOS = "eos"
    """The policy ended its turn."""
    LENGTH = "length"
    """The token budget ran out: the response is truncated and can never count as safe or correct."""
    STOP = "stop"
    """A stop token sequence (an action's closing tag) was sampled."""
    ERROR = "error"
    """The engine or the environment failed; the rollout is not evidence about the policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One piece of a message. Exactly one of `text`, `image`, `video` is set.

    `image` is a PIL image or a path; `video` is a sequence of PIL frames or paths, in order.
    """

    text: str | None = None
    image: Image | str | None = None
    video: Sequence[Image | str] | None = None

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.text, self.image, self.video)) != 1:
            raise SafeladderError("a message part needs exactly one of: text, image, video")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The message's text parts, joined."""
        return "".join(part.text or "" for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A typed reply. `reasoning` is None where the reply has no reasoning block.

    `confidence` is what the policy said with its answer, on its format's scale; None where the format has none.
    """

    answer: str
    reasoning: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One task for the policy.

    `label` routes the sample to its reward recipe (unknown labels are an error when data is loaded).
    `reference` is the gold answer; `meta` holds what exact verifiers need to know beyond it.
    `response` is a demonstration, present on SFT rows only. `group_id` ties variants of one item
    together (bootstrap clusters, pair metrics); it defaults to `id`.
    """

    id: str
    messages: tuple[Message, ...]
    label: str
    reference: str | None = None
    taxonomy: tuple[str, ...] = ()
    source: str = ""
    group_id: str = ""
    language: str = "en"
    response: Response | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.group_id:
            object.__setattr__(self, "group_id", self.id)

    @property
    def images(self) -> tuple[Image | str, ...]:
        """All images, in reading order."""
        return tuple(p.image for m in self.messages for p in m.parts if p.image is not None)

    @property
    def videos(self) -> tuple[Sequence[Image | str], ...]:
        """All videos, in reading order."""
        return tuple(p.video for m in self.messages for p in m.parts if p.video is not None)

    @property
    def question(self) -> str:
        """The text of the last user message: what a judge is told the user asked."""
        for message in reversed(self.messages):
            if message.role == "user":
                return message.text
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A verifier's verdict.

    `value` is in [0, 1]; it is None exactly when the verifier could not judge (`parse_ok` False):
    such a rollout is counted as unscored and never as a pass.
    """

    value: float | None
    label: str = ""
    parse_ok: bool = True
    explanation: str = ""
    breakdown: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.parse_ok != (self.value is not None):
            raise ValueError("a score has a value exactly when parse_ok is True")
        if self.value is not None and not 0.0 <= self.value <= 1.0:
            raise ValueError(f"score value {self.value} is outside [0, 1]")

    @classmethod
    def unscored(cls, explanation: str) -> Score:
        """The verdict of a verifier that could not judge."""
        return cls(value=None, label="unscored", parse_ok=False, explanation=explanation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What the policy did on a sample.

    `token_ids`, `logprobs` and `action_mask` run in parallel over everything after the prompt; mask 1
    marks the policy's own tokens, 0 what an environment wrote. `text` is the policy's own text only
    (never the prompt, never an observation; all turns joined), `response` is parsed from it once and is None
    where the format is broken, the thinking block is unclosed or the generation was cut. `confidence` is the
    response's. `observations` are what the environment said, one after each turn it answered.
    """

    sample: Sample
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    action_mask: tuple[int, ...]
    stop_reason: StopReason
    text: str
    response: Response | None
    confidence: float | None = None
    observations: tuple[Observation, ...] = ()
    scores: Mapping[str, Score] = field(default_factory=dict)
    reward: float | None = None

    def __post_init__(self) -> None:
        if not len(self.token_ids) == len(self.logprobs) == len(self.action_mask):
            raise ValueError("token_ids, logprobs and action_mask must have equal length")

    @property
    def length(self) -> int:
        """The number of tokens the policy itself produced."""
        return sum(self.action_mask)

    @classmethod
    def of_text(
        cls, sample: Sample, text: str, response: Response | None, stop_reason: StopReason = StopReason.EOS
    ) -> Rollout:
        """Something said by whom we have no tokens of (a demonstration, an endpoint), for verifiers to judge."""
        return cls(
            sample=sample,
            prompt_ids=(),
            token_ids=(),
            logprobs=(),
            action_mask=(),
            stop_reason=stop_reason,
            text=text,
            response=response,
        )

    def judged(self, scores: Mapping[str, Score], reward: float | None) -> Rollout:
        """A copy that carries its verdicts."""
        return replace(self, scores=scores, reward=reward)


@runtime_checkable
class Verifier(Protocol):
    """Scores rollouts for one principle. The same object is an RL reward, an Inspect scorer and a data filter."""

    name: str
    principle: str

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """One score a rollout, in order. Must not raise on bad model output: that is `Score.unscored` or 0."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to sample. `temperature` 0 is greedy. `stop` sequences end a generation and are kept in it.

    `top_p` below 1 samples from the nucleus only (log-probabilities stay those of the whole distribution);
    `top_logprobs` is how many of the likeliest tokens are reported beside each sampled one.
    """

    max_new_tokens: int
    temperature: float = 1.0
    n: int = 1
    stop: tuple[str, ...] = ()
    top_p: float = 1.0
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.top_p <= 1.0:
            raise SafeladderError(f"top_p {self.top_p} is not above 0 and at most 1")
        if self.top_logprobs < 0:
            raise SafeladderError(f"top_logprobs {self.top_logprobs} is below 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One prompt: its token ids (placeholders expanded) and the sample whose images and videos they refer to.

    In a later turn `prompt_ids` holds the first prompt and everything said since; nothing is re-tokenized.
    """

    sample: Sample
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sampled continuation: ids exactly as sampled (the end token included) and their log-probabilities.

    `top_logprobs` holds, a token, the likeliest ids with their log-probabilities, best first; empty unless asked for.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop_reason: StopReason
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()


class Engine(Protocol):
    """Generates completions. Fits an in-process model, a sharded learner and a vLLM server alike."""

    @property
    def context_length(self) -> int:
        """Positions that a prompt and what is generated after it may take together."""
        ...

    def prompt_ids(self, sample: Sample) -> tuple[int, ...]:
        """The sample's messages through the chat template, image and video placeholders expanded."""
        ...

    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, *, seed: int
    ) -> list[list[Completion]]:
        """`params.n` completions a request. The same seed gives the same ids, whatever the batch split."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of sampled ids, the end token removed, other special tokens kept."""
        ...

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Take new weights (name to full tensor, Hugging Face names)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the environment adds to the context, already tokenized; always masked out of the loss.

    `text` is what it says, `pages` are the ids of retrieved pages it shows, `problem` is why the policy's turn could
    not be acted on, and after a `last` one only an answer is accepted.
    """

    token_ids: tuple[int, ...]
    text: str = ""
    pages: tuple[str, ...] = ()
    problem: str = ""
    last: bool = False


class EnvironmentFault(Exception):
    """The environment could not answer (a timeout, a broken service). The episode is no evidence about the policy."""


class Environment(Protocol):
    """What answers the policy between its turns.

    It keeps no state: all it needs is what was said so far, and several threads may ask at once.
    """

    def step(self, sample: Sample, episode: Sequence[str | Observation], tokens: int) -> Observation | None:
        """Reply to the newest turn, or None where the episode is over.

        Args:
            sample: what the episode is about.
            episode: the policy's turns (own text, cut after the stop sequence) and the environment's observations
                since the prompt, in order; the last item is the newest turn.
            tokens: how many tokens the episode holds since the prompt.

        Raises:
            EnvironmentFault: the environment failed; the episode ends with `StopReason.ERROR`.
        """
        ...
