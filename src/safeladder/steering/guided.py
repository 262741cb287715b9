"""Step-level guided decoding: sample several next steps, value each, keep the best, go back where none is good enough.

    state = prompt + steps kept
    repeat: C = {k sampled next steps, duplicates dropped}
            v[c, m] = value model m of the state with c, w = route(prompt), weights that add up to 1
            score(c) = w·v[c] + γ · mean log p(c)
            if max_c w·v[c] < τ: drop the last kept step and sample again, a few times at most;
                                 after that proposed steps (a reminder, a safe ending) compete with the sampled ones
            keep argmax_c score(c)
    until the reply has ended

Proposed steps are configured, not sampled; `Trail` says where they entered and where they won.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from safeladder.steering.routing import Router
from safeladder.steering.values import ValueModel
from safeladder.types import Completion, Engine, Sample, SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidanceConfig:
    """How steps are sampled and chosen.

    Attributes:
        candidates: k, steps sampled at a time, the most likely one among them.
        temperature: of the others.
        step_tokens: a step that has not ended by then is taken as it is.
        gamma: γ, weight of a step's mean log-probability beside its value.
        floor: τ; below it a step counts as hopeless. In [0, 1]; 0 never goes back.
        backtracks: how often a reply may go back, in all.
        proposals: how often proposed steps may enter after that.
        reminders: language -> a thought to propose; `*` for every other language.
        completions: language -> an answer to propose (it ends the reply); `*` for every other language.
        open_tag, close_tag: around the reasoning.
    """

    candidates: int = 8
    temperature: float = 1.0
    step_tokens: int = 48
    gamma: float = 0.02
    floor: float = 0.2
    backtracks: int = 2
    proposals: int = 1
    reminders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    completions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    open_tag: str = "<think>"
    close_tag: str = "</think>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A step that was considered. `source` is `sampled` or `proposed`; `count` is how often it was sampled; `values`
    are the value models' by name, `value` is w·v, and `score` is what it competed with. `ends`: the reply ends here."""

    text: str
    token_ids: tuple[int, ...]
    source: str
    count: int
    mean_logprob: float | None
    values: Mapping[str, float]
    value: float
    score: float
    ends: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailStep:
    """One decision: `action` is `keep` (candidate number `chosen`), or `backtrack` (none was; the last kept step, if
    any, was dropped). `depth` is how many steps were kept before it."""

    depth: int
    action: str
    chosen: int | None
    weights: Mapping[str, float]
    candidates: tuple[Candidate, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON-able form, with every candidate's text, values and score."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a reply cost.

    Attributes:
        generated_tokens: sampled, thrown away or kept.
        proposed_tokens: of proposed steps that were valued.
        positions: token positions that went through the model, for sampling and for valuing; None where the engine
            does not count them.
        calls: of the engine.
        seconds: wall time; of replies decoded together, an equal share.
    """

    generated_tokens: int
    proposed_tokens: int
    positions: int | None
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedResult:
    """A guided reply. `completion` holds the kept ids (log-probabilities of proposed tokens are the policy's own, or
    -inf where the engine cannot tell them), `text` is what they say, `trail` every decision on the way."""

    completion: Completion
    text: str
    trail: tuple[TrailStep, ...]
    cost: Cost

    @property
    def proposed(self) -> int:
        """How many proposed steps the reply holds."""
        return sum(step.chosen is not None and step.candidates[step.chosen].source == "proposed" for step in self.trail)


OnStep = Callable[[TrailStep], None]


class GuidedDecoder:
    """Guided decoding of single-turn replies on any engine.

    Args:
        engine: samples; a `rollout.prefix.PrefixEngine` runs no position twice.
        values: the value models; their names are those of the routing weights.
        router: chooses the weights by the prompt.
        config: how to decode.
    """

    def __init__(
        self, engine: Engine, values: Sequence[ValueModel], router: Router, config: GuidanceConfig | None = None
    ) -> None:
        self.engine, self.values, self.router = engine, tuple(values), router
        self.config = config or GuidanceConfig()

    def generate(
        self, sample: Sample, params: SamplingParams, *, seed: int, on_step: OnStep | None = None
    ) -> GuidedResult:
        """One guided reply. Of `params` only `max_new_tokens` counts: it bounds the reply; a reply that reaches it ends
        with `StopReason.LENGTH`. The same seed gives the same reply. `on_step` hears of every decision at once.

        Raises:
            SafeladderError: the prompt and the budget exceed the model's context.
        """
        raise NotImplementedError


def load_guidance(folder: str, engine: Engine) -> GuidedDecoder:
    """What `safeladder pvm train` wrote to `folder` (by default MODEL/steering/value-guidance), over an in-process
    engine of the same model.

    Raises:
        SafeladderError: no such guidance, or one that was trained on another model.
    """
    raise NotImplementedError
