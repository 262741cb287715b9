"""What `climb --check` does: validate all a run depends on and say what it needs, loading no weights."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safeladder.config import SEARCH_LABEL, Recipe, RlRung, SearchRung, SftRung, Supervised
from safeladder.ladder.memory import (
    LAPTOP,
    PUBLISHED,
    Memory,
    Shape,
    estimate,
    gigabytes,
    trained_parameters,
)
from safeladder.types import SafeladderError


def check(recipe: Recipe) -> list[str]:
    """Validate algorithms, rewards, data and checkpoint; the lines to print.

    Raises:
        SafeladderError: anything that would stop a run, except what only the machine or a later version can
            bring: a checkpoint or data not given yet, a verifier that is not in the package. Those are named.
    """
    labels = _read_labels(recipe)
    rungs = [line for name, rung in recipe.rungs.items() for line in _rung(recipe, name, rung, labels)]
    return [f"recipe {recipe.name}: valid", *_model(recipe), *_data(recipe, labels), *rungs, *_memory(recipe)]


def require_runnable(recipe: Recipe) -> None:
    """What a run needs beyond a valid recipe, before anything is written.

    Raises:
        SafeladderError: no checkpoint, no data, a file that is not there, an extra that is not installed.
    """
    require_checkpoint(recipe)
    if recipe.data.world is None and not recipe.data.files:
        raise SafeladderError(f"recipe {recipe.name} brings no data: pass --data FILE.jsonl")
    for file in recipe.data.files:
        if not Path(file).is_file():
            raise SafeladderError(f"data.files: {file} not found")
    for name, rung in _searches(recipe):
        if rung.corpus is None and recipe.data.world is None:
            raise SafeladderError(
                f"rung {name} has nothing to search: pass --rungs.{name}.corpus DIR (or a URL), "
                f"or leave it out: --rungs.{name} null"
            )
        if rung.corpus is not None and not _is_url(rung.corpus) and not Path(rung.corpus).is_dir():
            raise SafeladderError(f"rungs.{name}.corpus: index folder {rung.corpus} not found")
    for line in missing_extras(recipe):
        raise SafeladderError(line)


def require_checkpoint(recipe: Recipe) -> None:
    """Raises SafeladderError where the recipe is for a published checkpoint and no local copy is named."""
    model = recipe.model
    if model.path is None and model.hub_id is not None:
        raise SafeladderError(
            f"recipe {recipe.name} needs the checkpoint {model.hub_id}: download it and pass --model.path DIR"
        )


def missing_extras(recipe: Recipe) -> list[str]:
    """One line for every extra that the recipe needs and that is not installed."""
    needs = [("eval", "inspect_ai", "evaluation"), ("plot", "matplotlib", "the report")]
    if recipe.data.world is not None:
        needs.append(("world", "sklearn", "data.world"))
    if recipe.model.lora is not None:
        needs.append(("lora", "peft", "model.lora"))
    for name, rung in _searches(recipe):
        if rung.corpus is not None:
            needs.append(("search", "httpx" if _is_url(rung.corpus) else "tantivy", f"rungs.{name}.corpus"))
    return [
        f"{what} needs the package {module}: pip install 'safeladder[{extra}]'"
        for extra, module, what in needs
        if importlib.util.find_spec(module) is None
    ]


def process_count(recipe: Recipe) -> int:
    """Data-parallel processes that a run on this machine would start."""
    if recipe.processes:
        return recipe.processes
    import torch

    if recipe.model.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory(recipe: Recipe) -> Memory | None:
    """Memory a process; None where the model's size is not known (an unknown `hub_id` without `path`)."""
    shape = model_shape(recipe)
    if shape is None:
        return None
    processes = process_count(recipe)
    reference = any(algorithm_of(rung).needs_reference for rung in recipe.rungs.values() if isinstance(rung, RlRung))
    return estimate(shape, recipe, processes=processes, reference=reference)


def model_shape(recipe: Recipe) -> Shape | None:
    """Sizes of the recipe's model: its checkpoint's headers, the published table or the built-in model."""
    if recipe.model.path is not None:
        return _checkpoint_shape(recipe)
    return PUBLISHED.get(recipe.model.hub_id) if recipe.model.hub_id else LAPTOP


def _checkpoint_shape(recipe: Recipe) -> Shape:
    from safeladder.models.load import check_shapes

    path = str(recipe.model.path)
    info = check_shapes(path)
    if info.family.name != recipe.model.family:
        raise SafeladderError(
            f"model.path: {path} is a checkpoint of family {info.family.name!r}, "
            f"but model.family is {recipe.model.family!r}"
        )
    config: Mapping[str, Any] = json.loads(Path(path, "config.json").read_text(encoding="utf-8"))
    text = {**config, **config.get("text_config", {})}
    try:
        hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
        shape = Shape(
            parameters=info.parameters,
            layers=int(text["num_hidden_layers"]),
            hidden=hidden,
            intermediate=int(text["intermediate_size"]),
            heads=heads,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_dim=int(text.get("head_dim") or hidden // heads),
            vocabulary=int(text["vocab_size"]),
            qkv_bias=bool(text.get("attention_bias", str(text.get("model_type")).startswith("qwen2"))),
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SafeladderError(f"model.path: {path}/config.json lacks a usable {error}") from None
    return shape


def _model(recipe: Recipe) -> Iterator[str]:
    model, shape = recipe.model, model_shape(recipe)
    name = model.path or model.hub_id or f"built from scratch, {model.family}, size {model.size}"
    if shape is None:
        yield f"model: {name}, size unknown"
    else:
        trained = trained_parameters(shape, recipe)
        lora = f", LoRA rank {model.lora.rank}" if model.lora else ""
        sizes = f"{_count(shape.parameters)} parameters, {_count(trained)} trained{lora}"
        yield f"model: {name}, {sizes}, {model.dtype}"
    if model.path is None and model.hub_id is not None:
        yield "no local checkpoint given: pass --model.path DIR; validated without it"


def _read_labels(recipe: Recipe) -> dict[str, int]:
    """Label -> rows of the user's files. Every row is checked as a run would check it."""
    if not recipe.data.files:
        return {}
    from safeladder.data.samples import read_samples
    from safeladder.rollout.parse import ResponseFormat
    from safeladder.verifiers import available

    present = available(world=recipe.data.world is not None)
    requires: dict[str, frozenset[str]] = {}
    for rung in recipe.rungs.values():
        for label, needs in (_table(rung, ()).requires(present) if isinstance(rung, RlRung) else {}).items():
            requires[label] = requires.get(label, frozenset()) | needs
    reply = ResponseFormat(open_tag=recipe.data.open_tag, close_tag=recipe.data.close_tag)
    counts: dict[str, int] = {}
    for file in recipe.data.files:
        for sample in read_samples(file, labels=None, format=reply, requires=requires):
            counts[sample.label] = counts.get(sample.label, 0) + 1
    return counts


def _data(recipe: Recipe, labels: Mapping[str, int]) -> Iterator[str]:
    if recipe.data.world is not None:
        yield "data: the built-in world"
    if labels:
        rows = ", ".join(f"{label} {count}" for label, count in sorted(labels.items()))
        yield f"data: {sum(labels.values())} rows ({rows})"
    if recipe.data.world is None and not recipe.data.files:
        yield "no data given: pass --data FILE.jsonl; validated without it"
    yield from missing_extras(recipe)


def _searches(recipe: Recipe) -> list[tuple[str, SearchRung]]:
    return [(name, rung) for name, rung in recipe.rungs.items() if isinstance(rung, SearchRung)]


def _is_url(corpus: str) -> bool:
    return corpus.startswith(("http://", "https://"))


def _rung(recipe: Recipe, name: str, rung: SftRung | RlRung, labels: Iterable[str]) -> Iterator[str]:
    _names(recipe, name, rung)
    if isinstance(rung, SftRung):
        yield f"rung {name}: sft, {rung.steps} steps of {rung.batch_size} samples"
        return
    try:
        algorithm_of(rung)
        missing = _missing_verifiers(recipe, rung, labels)
    except SafeladderError as error:
        raise SafeladderError(f"rungs.{name}: {error}") from None
    stages = ", ".join(f"{stage} {settings.steps} steps" for stage, settings in rung.stages.items())
    yield (
        f"rung {name}: {rung.algorithm.preset}, {stages}, "
        f"{rung.prompts_per_step} prompts x {rung.group_size}, rewards {rung.rewards.recipe}"
    )
    if isinstance(rung, SearchRung):
        yield from _search(recipe, name, rung)
    if missing:
        yield f"rung {name}: missing verifiers: {', '.join(missing)}; a run stops until they are available"


def _search(recipe: Recipe, name: str, rung: SearchRung) -> Iterator[str]:
    held = rung.constraint
    aim = f"{held.measure} {'at most' if held.measure == 'false_certain' else 'at least'} {held.target:g}"
    start = f"cold start {rung.cold_start.steps} steps, " if rung.cold_start else ""
    place = rung.corpus or ("the world" if recipe.data.world is not None else "a corpus to be given")
    yield (
        f"rung {name}: {start}search in {place}, {rung.max_turns} turns, episodes of at most "
        f"{rung.longest_reply} tokens, confidence {held.reliability}, λ {held.controller} for {aim}"
    )
    if rung.corpus is None and recipe.data.world is None:
        yield f"rung {name}: no corpus given: pass --rungs.{name}.corpus DIR (or a URL); validated without it"


def _names(recipe: Recipe, name: str, rung: SftRung | RlRung) -> None:
    """Mixtures name kinds of the world or labels of rows, styles its teachers; without a world they rest."""
    if recipe.data.world is None:
        return
    from safeladder.verifiers import TABLES
    from safeladder.world import KINDS, SEARCH

    given: dict[str, tuple[Iterable[str], set[str]]] = {}
    if isinstance(rung, RlRung):
        labels = {*TABLES.get(rung.rewards.recipe, ()), *rung.rewards.labels} - {SEARCH_LABEL}
        more = {*SEARCH, SEARCH_LABEL} if isinstance(rung, SearchRung) else set()
        given = {f"stages.{stage}.mix": (s.mix, {*KINDS, *labels, *more}) for stage, s in rung.stages.items()}
    if isinstance(rung, SftRung):
        given = _taught(rung, set())
    if isinstance(rung, SearchRung) and rung.cold_start is not None:
        given |= {f"cold_start.{key}": names for key, names in _taught(rung.cold_start, set(SEARCH)).items()}
    for key, (names, allowed) in given.items():
        for unknown in sorted(set(names) - allowed):
            raise SafeladderError(
                f"rungs.{name}.{key}: unknown name {unknown!r}; allowed: {', '.join(sorted(allowed))}"
            )


def _taught(rung: Supervised, more: set[str]) -> dict[str, tuple[Iterable[str], set[str]]]:
    """Key -> (names that supervised training gives, names allowed there); `more` are kinds that need no style."""
    from safeladder.world import KINDS, STYLES

    given: dict[str, tuple[Iterable[str], set[str]]] = {
        f"kind_styles.{kind}": (styles, set(STYLES)) for kind, styles in rung.kind_styles.items()
    }
    given["mix"] = (rung.mix, {*KINDS, *more})
    given["styles"] = (rung.styles, set(STYLES))
    given["kind_styles"] = (rung.kind_styles, set(KINDS))
    return given


def algorithm_of(rung: RlRung) -> Any:
    """The rung's algorithm, built.

    Raises:
        SafeladderError: an unknown preset or option, or rewards that this algorithm does not combine.
    """
    from safeladder.algorithms.presets import build

    algorithm = build(rung.algorithm.preset, **rung.algorithm.options)
    separate = rung.rewards.combine == "gdpo"
    if separate != (algorithm.preset.advantage == "gdpo"):
        raise SafeladderError(
            f"rewards.combine {rung.rewards.combine!r} does not go with algorithm {rung.algorithm.preset!r}: "
            "gdpo, and it alone, takes the rewards one by one (set both to gdpo, or neither)"
        )
    if "weights" in algorithm.preset.advantage_options:
        raise SafeladderError("algorithm gdpo: the weights are those of the reward table; set rewards.labels")
    return algorithm


class _AnyVerifier(dict[str, Any]):
    """Takes every verifier for present, so that the table is validated before absences are listed."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> object:
        return object()


def _table(rung: RlRung, labels: Iterable[str]) -> Any:
    from safeladder.verifiers import RewardRecipe

    return RewardRecipe.load(rung.rewards, _AnyVerifier(), labels)


def _missing_verifiers(recipe: Recipe, rung: RlRung, labels: Iterable[str]) -> list[str]:
    from safeladder.verifiers import available

    table = _table(rung, labels)
    wanted = set(labels) or set(table.rows)
    present = available(world=recipe.data.world is not None)
    return sorted({verifier for label in wanted for verifier in table.rows[label]} - present.keys())


def _memory(recipe: Recipe) -> Iterator[str]:
    need = memory(recipe)
    if need is None:
        yield f"memory: not estimated, {recipe.model.hub_id} is not in the table of published sizes"
        return
    processes = process_count(recipe)
    yield (
        f"memory a process, each of {processes}: weights {gigabytes(need.weights)}, gradients "
        f"{gigabytes(need.gradients)}, optimizer {gigabytes(need.optimizer)}, "
        f"reference {gigabytes(need.reference)}, "
        f"engine {gigabytes(need.engine)}, KV cache {gigabytes(need.kv_cache)} ({need.rows} responses of "
        f"{gigabytes(need.kv_row)}), total {gigabytes(need.total)} without activations"
    )


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e8 else f"{parameters / 1e6:.1f} M"
