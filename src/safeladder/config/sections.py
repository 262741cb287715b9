"""The sections of a recipe that every run has: model, data, optimizer, evaluation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints


def _no_switch(value: Any) -> Any:
    """`steps: yes` would otherwise count as 1."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number (got {value!r})")
    return value


Number = BeforeValidator(_no_switch)
Positive = Annotated[int, Field(gt=0), Number]
NonNegative = Annotated[int, Field(ge=0), Number]
PositiveFloat = Annotated[float, Field(gt=0), Number]
NonNegativeFloat = Annotated[float, Field(ge=0), Number]
Share = Annotated[float, Field(ge=0.0, le=1.0), Number]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
"""Of a rung or a stage: a folder and a part of a dotted key."""


class Section(BaseModel):
    """A section of a recipe: unknown keys are errors, values do not change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
    )


class Lora(Section):
    """Low-rank adapters on the language model (peft)."""

    rank: Positive = 16
    alpha: Positive = 32


class Model(Section):
    """Which policy the run starts from."""

    family: Literal["qwen2_5_vl", "internvl", "llama"] = "qwen2_5_vl"
    path: str | None = None
    """Local Hugging Face checkpoint. Without it a laptop-size model is built and trained from scratch."""
    hub_id: str | None = None
    """Published checkpoint the recipe is written for. Nothing is downloaded: a run then needs `path`."""
    size: Literal["laptop", "test"] = "laptop"
    """Shape of the model that is built when `path` is not given."""
    vocab_size: Positive = 1024
    """Upper bound of the tokenizer that is trained when `path` is not given."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_pixels: Positive = 3136
    """Images above this area are scaled down before they are cut into patches."""
    freeze_vision: bool = True
    """Keep the vision tower fixed in every rung but `base` (as the published scripts do)."""
    lora: Lora | None = None
    gradient_checkpointing: bool = False


class WorldSettings(Section):
    """The procedural world of the laptop ladder."""

    grid: Literal[2, 3] = 2
    difficulty: Share = 0.5
    chinese_share: Share = 0.2


class Data(Section):
    """Where prompts come from: the world, the user's files, or both."""

    world: WorldSettings | None = WorldSettings()
    files: tuple[str, ...] = ()
    """JSONL files of samples (docs/data.md); relative paths are taken from the working directory."""
    held_out_share: Share = 0.2
    """Share of the files' groups kept for evaluation."""
    system_prompt: str | None = None
    open_tag: str = "<think>"
    close_tag: str = "</think>"


class Optimizer(Section):
    """AdamW, or Muon for the hidden matrices and AdamW for the rest."""

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: PositiveFloat = 1e-6
    adamw_learning_rate: PositiveFloat | None = None
    """With `muon`: the rate of embeddings, norms, biases and convolutions."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    warmup_steps: NonNegative = 0
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "constant"
    minimum_ratio: Share = 0.1
    decay_start: Share = 0.6
    """With `wsd`: the fraction of the run after which the rate decays."""


class Control(Section):
    """The equal-compute control: the base, trained on helpful-only data for as many FLOPs as the ladder."""

    enabled: bool = True


class Evaluation(Section):
    """What every rung is measured on."""

    samples: Positive = 800
    """Held-out world items, spread evenly over the kinds of each principle."""
    max_new_tokens: Positive = 96
    pass_at_k: Positive = 8
    """Samples an item for the base's pass@1 and pass@k."""
    pass_at_k_samples: Positive = 200
    search_samples: Positive = 240
    """Held-out questions of a search rung (world data), spread evenly over the kinds."""
    votes: Positive = 16
    """Samples a question for the voting curve of a search rung."""
    vote_samples: NonNegative = 48
    """Held-out questions that are voted on."""
    bootstrap: Positive = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
