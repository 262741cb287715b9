"""Recipes: the YAML file a run is made of, validated, with dotted overrides.

`load_recipe(path, overrides)` reads YAML, follows `extends:` (a path relative to the file), applies overrides
such as ``{"rungs.m3-rl.optimizer.learning_rate": "1e-4"}`` and validates. A mistake is a `SafeladderError`
that names the key, the value and what is allowed. Importable without torch.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from safeladder.recipe_file import parse_yaml, read_recipe_file
from safeladder.types import SafeladderError


def _no_switch(value: Any) -> Any:
    """`steps: yes` would otherwise count as 1."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number (got {value!r})")
    return value


_Number = BeforeValidator(_no_switch)
Positive = Annotated[int, Field(gt=0), _Number]
NonNegative = Annotated[int, Field(ge=0), _Number]
PositiveFloat = Annotated[float, Field(gt=0), _Number]
NonNegativeFloat = Annotated[float, Field(ge=0), _Number]
Share = Annotated[float, Field(ge=0.0, le=1.0), _Number]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
"""Of a rung or a stage: a folder and a part of a dotted key."""


class _Config(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
    )


class Lora(_Config):
    """Low-rank adapters on the language model (peft)."""

    rank: Positive = 16
    alpha: Positive = 32


class Model(_Config):
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


class WorldSettings(_Config):
    """The procedural world of the laptop ladder."""

    grid: Literal[2, 3] = 2
    difficulty: Share = 0.5
    chinese_share: Share = 0.2


class Data(_Config):
    """Where prompts come from: the world, the user's files, or both."""

    world: WorldSettings | None = WorldSettings()
    files: tuple[str, ...] = ()
    """JSONL files of samples (docs/data.md); relative paths are taken from the working directory."""
    held_out_share: Share = 0.2
    """Share of the files' groups kept for evaluation."""
    system_prompt: str | None = None
    open_tag: str = "<think>"
    close_tag: str = "</think>"


class Optimizer(_Config):
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


class Curation(_Config):
    """The CoT-SFT filter chain."""

    minimum_tokens: NonNegative = 1
    maximum_tokens: Positive = 8192
    near_duplicate_similarity: Share = 0.95
    verifier_threshold: Share = 0.5
    """A demonstration is kept when every verifier its label routes to gives at least this."""


class SftRung(_Config):
    """Supervised training: helpful-only pretraining (`base`) and the curated cold start (`cot-sft`)."""

    kind: Literal["sft"] = "sft"
    start_from: str | None = None
    """Rung to start from; the one before by default."""
    steps: Positive
    batch_size: Positive
    mix: dict[str, PositiveFloat] = Field(default_factory=dict)
    """World kinds and their weights; empty = every kind alike."""
    samples: Positive = 10_000
    """How many world samples the rung draws."""
    styles: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Teacher styles and their weights (world data only); see docs/world.md."""
    kind_styles: dict[str, dict[str, PositiveFloat]] = Field(default_factory=dict)
    """Teacher styles of single world kinds, in place of `styles`."""
    teacher_noise: Share = 0.0
    """Share of demonstrations that are wrong, unsafe or malformed, for the curation chain to find."""
    curation: Curation | None = None
    train_vision: bool = False
    grounding_weight: NonNegativeFloat = 0.0
    """Weight of the throw-away probe that names what each image cell shows (world data only)."""
    optimizer: Optimizer = Optimizer()
    micro_batch_tokens: Positive = 16_384
    checkpoint_every: Positive = 50


class Stage(_Config):
    """One stage of an RL rung: how many steps on which mixture."""

    steps: Positive
    mix: dict[str, PositiveFloat] = Field(default_factory=dict)


class Algorithm(_Config):
    """A preset of `safeladder.algorithms.presets` and its options."""

    preset: str = "cpgd"
    options: dict[str, Any] = Field(default_factory=dict)


class Rewards(_Config):
    """Label -> weighted verifiers. `recipe` names a table (docs/data.md); `labels` overrides single rows."""

    recipe: str = "auto"
    """`auto` takes `world`, `rules` or `world-and-rules`, by where the data come from."""
    labels: dict[str, dict[str, float]] = Field(default_factory=dict)
    combine: Literal["weighted-sum", "gdpo"] = "weighted-sum"


class RlRung(_Config):
    """Reinforcement learning with verifiable rewards."""

    kind: Literal["rl"] = "rl"
    start_from: str | None = None
    stages: Annotated[dict[Name, Stage], Field(min_length=1)]
    samples: Positive = 8_000
    """How many world prompts are drawn for each stage."""
    prompts_per_step: Positive
    group_size: Annotated[int, Field(ge=2), _Number]
    temperature: PositiveFloat = 1.0
    max_new_tokens: Positive = 72
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


Rung = Annotated[SftRung | RlRung, Field(discriminator="kind")]
_KINDS: dict[Any, type[_Config]] = {"sft": SftRung, "rl": RlRung}


class Control(_Config):
    """The equal-compute control: the base, trained on helpful-only data for as many FLOPs as the ladder."""

    enabled: bool = True


class Evaluation(_Config):
    """What every rung is measured on."""

    samples: Positive = 800
    """Held-out world items, spread evenly over the kinds of each principle."""
    max_new_tokens: Positive = 96
    pass_at_k: Positive = 8
    """Samples an item for the base's pass@1 and pass@k."""
    pass_at_k_samples: Positive = 200
    bootstrap: Positive = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95


class Recipe(_Config):
    """Everything a run depends on."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    seed: Annotated[int, _Number] = 0
    processes: NonNegative = 0
    """Data-parallel processes on this machine; 0 = one a core (CPU) or one a GPU."""
    model: Model = Model()
    data: Data = Data()
    rungs: Annotated[dict[Name, Rung], Field(min_length=1)]
    control: Control = Control()
    evaluation: Evaluation = Evaluation()
    base_cache: str | None = None
    """Folder in which finished bases are kept, keyed by everything they depend on; None = no cache."""

    @model_validator(mode="after")
    def _tables(self) -> Recipe:
        """Put the table that fits the data in place of `auto`, so that a dumped recipe names what was used."""
        table = "world"
        if self.data.files or self.data.world is None:
            table = "rules" if self.data.world is None else "world-and-rules"
        for rung in self.rungs.values():
            if isinstance(rung, RlRung) and rung.rewards.recipe == "auto":
                object.__setattr__(rung, "rewards", rung.rewards.model_copy(update={"recipe": table}))
        return self

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        names = list(self.rungs)
        for position, (name, rung) in enumerate(self.rungs.items()):
            if rung.start_from is not None and rung.start_from not in names[:position]:
                raise ValueError(
                    f"rungs.{name}.start_from: {rung.start_from!r} is not an earlier rung; "
                    f"allowed: {', '.join(names[:position]) or 'none before the first'}"
                )
        return self


def load_recipe(path: str | os.PathLike[str], overrides: Mapping[str, str] | None = None) -> Recipe:
    """Read, extend, override and validate a recipe.

    A null removes a named entry (a rung, a stage, a weight of a mixture) or puts a key back to its default;
    where null is a value of its own (`data.world`, `model.path`, an algorithm's option) it stays one.

    Args:
        path: YAML file.
        overrides: dotted key -> YAML text, as given on the command line.

    Raises:
        SafeladderError: missing file, YAML error, unknown key, wrong type or value.
    """
    raw = read_recipe_file(Path(path))
    for key, text in (overrides or {}).items():
        _override(raw, key, text)
    _drop_nulls(raw, (), raw)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise SafeladderError(f"{path}: {_explain(error, raw)}") from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, for provenance."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def recipe_schema() -> dict[str, Any]:
    """JSON schema of a recipe file, for editors. Nothing is required there: `extends` may bring it."""
    schema = Recipe.model_json_schema()
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "Recipe below this one; a path relative to it.",
    }
    del schema["required"]
    return schema


def _override(raw: dict[str, Any], dotted: str, text: str) -> None:
    *parents, last = dotted.split(".")
    rungs = raw.get("rungs") or {}
    if parents[:1] == ["rungs"] and len(parents) > 1 and parents[1] not in rungs:
        raise SafeladderError(f"--{dotted}: no rung {parents[1]!r}; allowed: {', '.join(map(str, rungs))}")
    node = raw
    for name in parents:
        if node.get(name) is None:
            node[name] = {}
        node = node[name]
        if not isinstance(node, dict):
            raise SafeladderError(f"--{dotted}: {name!r} is not a section of the recipe")
    try:
        node[last] = parse_yaml(text)
    except yaml.YAMLError:
        raise SafeladderError(f"--{dotted}: cannot read the value {text!r} as YAML") from None


def _drop_nulls(node: dict[str, Any], where: tuple[str, ...], raw: Mapping[str, Any]) -> None:
    section = _section(where, raw)
    for key, value in list(node.items()):
        if isinstance(value, dict):
            _drop_nulls(value, (*where, str(key)), raw)
        elif value is None:
            field = _fields(section).get(key)
            if section is dict or (field is not None and type(None) not in get_args(field.annotation)):
                del node[key]


def _explain(error: ValidationError, raw: Mapping[str, Any]) -> str:
    """The first mistake as one line: key, value, what is allowed."""
    first = error.errors()[0]
    where = [str(x) for x in first["loc"]]
    if where[:1] == ["rungs"] and len(where) > 2 and where[2] in _KINDS:
        del where[2]  # pydantic's tag for the kind of rung, not a key
    key = ".".join(where) or "recipe"
    kind, given = first["type"], first["input"]
    if kind == "extra_forbidden":
        allowed = sorted(_fields(_section(where[:-1], raw)))
        close = difflib.get_close_matches(where[-1], allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {key!r}; {hint}allowed here: {', '.join(allowed)}"
    if kind == "value_error":
        message = str(first.get("ctx", {})["error"])
        return f"{key}: {message}" if where else message
    if kind == "missing":
        return f"{key} is required"
    if kind == "union_tag_not_found":
        return f"{key}.kind is required; allowed: {', '.join(_KINDS)}"
    if kind == "union_tag_invalid":
        return f"{key}.kind: must be one of {', '.join(_KINDS)} (got {given.get('kind')!r})"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key}: must be a section of keys (got {given!r})"
    if where[-1] == "[key]":
        return f"{'.'.join(where[:-2])}: {given!r} is no valid name; allowed: a-z, 0-9, '-' and '_'"
    value = "" if isinstance(given, dict) else f" (got {given!r})"
    return f"{key}: {first['msg'].replace('Input should', 'must')}{value}"


def _section(where: Sequence[str], raw: Mapping[str, Any]) -> Any:
    """What `where` points at: a section's class, `dict` for a mapping of names to settings, else None."""
    model: Any = Recipe
    parts = iter(where)
    for name in parts:
        if model is Recipe and name == "rungs":
            rung = next(parts, None)
            if rung is None:
                return dict
            settings = (raw.get("rungs") or {}).get(rung)
            model = _KINDS.get(settings.get("kind")) if isinstance(settings, dict) else None
            continue
        field = _fields(model).get(name)
        if field is None:
            return None
        if get_origin(field.annotation) is dict and next(parts, None) is None:
            return None if get_args(field.annotation)[1] is Any else dict
        model = _model_of(field.annotation)
    return model


def _fields(section: Any) -> dict[str, Any]:
    return getattr(section, "model_fields", {})


def _model_of(annotation: Any) -> Any:
    """The section class inside an annotation such as `Lora | None` or `dict[str, Stage]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_of(argument) for argument in get_args(annotation))
    return next((section for section in found if section is not None), None)
