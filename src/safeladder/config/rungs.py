"""The kinds of rungs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from safeladder.config.sections import (
    Name,
    NonNegative,
    NonNegativeFloat,
    Number,
    Optimizer,
    Positive,
    PositiveFloat,
    Section,
    Share,
)

SEARCH_LABEL = "search"
"""Samples of this label are searched for; their reward holds what their stated confidence earns."""


class Curation(Section):
    """The CoT-SFT filter chain."""

    minimum_tokens: NonNegative = 1
    maximum_tokens: Positive = 8192
    near_duplicate_similarity: Share = 0.95
    verifier_threshold: Share = 0.5
    """A demonstration is kept when every verifier its label routes to gives at least this."""


class Supervised(Section):
    """What all supervised training takes."""

    steps: Positive
    batch_size: Positive
    mix: dict[str, PositiveFloat] = Field(default_factory=dict)
    """World kinds and their weights; empty = every kind alike (in a cold start: every kind of search)."""
    samples: Positive = 10_000
    """How many world samples are drawn."""
    styles: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Teacher styles and their weights (world data only); see docs/world.md."""
    kind_styles: dict[str, dict[str, PositiveFloat]] = Field(default_factory=dict)
    """Teacher styles of single world kinds, in place of `styles`."""
    optimizer: Optimizer = Optimizer()
    micro_batch_tokens: Positive = 16_384
    checkpoint_every: Positive = 50


class SftRung(Supervised):
    """Supervised training: helpful-only pretraining (`base`) and the curated cold start (`cot-sft`)."""

    kind: Literal["sft"] = "sft"
    start_from: str | None = None
    """Rung to start from; the one before by default."""
    teacher_noise: Share = 0.0
    """Share of demonstrations that are wrong, unsafe or malformed, for the curation chain to find."""
    curation: Curation | None = None
    train_vision: bool = False
    grounding_weight: NonNegativeFloat = 0.0
    """Weight of the throw-away probe that names what each image cell shows (world data only)."""


class Stage(Section):
    """One stage of an RL rung: how many steps on which mixture."""

    steps: Positive
    mix: dict[str, PositiveFloat] = Field(default_factory=dict)
    """World kinds with their weights, and labels of file rows; empty = all (in a search rung: all searches)."""


class Algorithm(Section):
    """A preset of `safeladder.algorithms.presets` and its options."""

    preset: str = "cpgd"
    options: dict[str, Any] = Field(default_factory=dict)


class Rewards(Section):
    """Label -> weighted verifiers. `recipe` names a table (docs/data.md); `labels` overrides single rows."""

    recipe: str = "auto"
    """`auto` takes `world`, `rules` or `world-and-rules`, by where the data come from."""
    labels: dict[str, dict[str, float]] = Field(default_factory=dict)
    combine: Literal["weighted-sum", "gdpo"] = "weighted-sum"


class RlRung(Section):
    """Reinforcement learning with verifiable rewards."""

    kind: Literal["rl"] = "rl"
    start_from: str | None = None
    """Rung to start from; the one before by default."""
    stages: Annotated[dict[Name, Stage], Field(min_length=1)]
    samples: Positive = 8_000
    """How many world prompts are drawn for each stage."""
    prompts_per_step: Positive
    group_size: Annotated[int, Field(ge=2), Number]
    temperature: PositiveFloat = 1.0
    max_new_tokens: Positive = 72
    """Longest reply in a single turn."""
    algorithm: Algorithm = Algorithm()
    rewards: Rewards = Rewards()
    optimizer: Optimizer = Optimizer()
    updates_per_batch: Positive = 1
    """Optimizer steps on one batch of rollouts (1 = on-policy)."""
    micro_batch_tokens: Positive = 16_384
    share_prefix: bool = True
    """Run a prompt once for all responses of its group when training. Same gradient, less work."""
    checkpoint_every: Positive = 10
    collapse_entropy: NonNegativeFloat = 1e-3
    """Below this mean token entropy (nats) for `collapse_patience` steps the run stops with an alarm."""
    collapse_patience: Positive = 50

    @property
    def longest_reply(self) -> int:
        """Tokens that a reply can take at most."""
        return self.max_new_tokens


class ColdStart(Supervised):
    """Supervised start of a search rung on scripted searches, played through the real environment.

    Only the script's own turns are trained on. Kinds of the ladder in `mix` are replayed from its teachers, in the
    styles the policy has by now, so that nothing is unlearned.
    """

    confidence: Literal["calibrated", "overconfident", "uniform"] = "uniform"
    """What the script states: what its evidence is worth; mostly certainty; or any level by chance. Only the first
    looks at the evidence, the others teach the form and leave the rest to the reward."""
    astray: Share = 0.0
    """Share of the looks at results at which a wrong page is read, for the script to see that and to doubt. The wrong
    turn itself is not trained on."""
    brier_weight: NonNegativeFloat = 0.0
    """Weight of the tokenised Brier score (ConfTuner) of the final confidence, beside the language loss."""


class Constraint(Section):
    """What keeps stated confidence honest: λ, the weight of reliability in the reward, and what drives it."""

    controller: Literal["mw", "dual", "fixed", "none"] = "mw"
    """Multiplicative weights, dual ascent, a λ that stays at `initial`, or no reliability reward at all."""
    reliability: Literal["threshold", "brier", "log"] = "threshold"
    """Reward of a stated confidence: on the right side of `cut`, or a proper score of it (docs/algorithms.md)."""
    measure: Literal["reliability", "false_certain"] = "reliability"
    """What has a target: mean reliability, at least; or the share of answers both wrong and certain, at most."""
    target: Share
    initial: NonNegativeFloat = 1.0
    """λ before the first step."""
    rate: PositiveFloat = 0.5
    """Step size of the controller."""
    smoothing: Annotated[float, Field(ge=0.0, lt=1.0), Number] = 0.8
    """How much of the smoothed violation comes from earlier steps."""
    minimum: NonNegativeFloat = 1e-3
    maximum: PositiveFloat = 10.0
    cut: Annotated[int, Field(ge=0, le=9), Number] = 5
    """An answer is certain where its confidence is above this."""
    alarm_entropy: NonNegativeFloat = 0.1
    """Below this entropy (nats) of the stated confidences for `alarm_patience` steps the run warns; it goes on."""
    alarm_patience: Positive = 10

    @model_validator(mode="after")
    def _bounds(self) -> Constraint:
        if not self.minimum <= self.initial <= self.maximum:
            raise ValueError(f"initial: {self.initial} is not from minimum {self.minimum} to maximum {self.maximum}")
        if self.controller == "mw" and self.minimum == 0:
            raise ValueError("minimum: must be above 0 with controller mw, which can never leave 0")
        return self


class SearchRung(RlRung):
    """Deliberative search: multi-turn RL with retrieval, and a constraint on the stated confidence.

    Samples labelled `search` are searched for; all others in the stages' mixtures are replayed as in any RL rung.
    """

    kind: Literal["search"] = "search"  # pyright: ignore[reportIncompatibleVariableOverride]
    corpus: str | None = None
    """Where to search: an index folder, or the URL of a search service. None = the world's own pages."""
    instructions: str | None = None
    """Said before a question that is to be searched for, as a system message in place of `data.system_prompt`."""
    max_turns: Annotated[int, Field(ge=2), Number] = 6
    """Turns of the policy, the answer included."""
    turn_tokens: Positive = 512
    """Longest turn of a search."""
    top_k: Positive = 3
    """Results that a search shows."""
    missing_words: bool = True
    """Results, and pages read from them, name the words of the query that they lack (docs/search.md)."""
    observation_tokens: Positive = 512
    """Longest observation; a longer one is cut where a sentence ends."""
    episode_tokens: Positive = 8192
    """Once an episode is due to hold so many tokens only an answer is accepted."""
    cold_start: ColdStart | None = None
    constraint: Constraint

    @property
    def longest_reply(self) -> int:
        """Tokens that an episode can take at most."""
        return max(self.max_new_tokens, self.episode_tokens + self.observation_tokens + 2 * self.turn_tokens)

    @model_validator(mode="after")
    def _one_sum(self) -> SearchRung:
        if self.rewards.combine != "weighted-sum":
            raise ValueError("rewards.combine: a search rung adds λ times reliability, allowed: weighted-sum")
        return self


Rung = Annotated[SftRung | RlRung | SearchRung, Field(discriminator="kind")]
KINDS: dict[Any, type[Section]] = {"sft": SftRung, "rl": RlRung, "search": SearchRung}
