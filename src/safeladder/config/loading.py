"""From a recipe file to a `Recipe`, with dotted overrides and one clear line for every mistake."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from safeladder.config.recipe import Recipe
from safeladder.config.rungs import KINDS
from safeladder.recipe_file import parse_yaml, read_recipe_file
from safeladder.types import SafeladderError


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
    if where[:1] == ["rungs"] and len(where) > 2 and where[2] in KINDS:
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
        return f"{key}.kind is required; allowed: {', '.join(KINDS)}"
    if kind == "union_tag_invalid":
        return f"{key}.kind: must be one of {', '.join(KINDS)} (got {given.get('kind')!r})"
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
            model = KINDS.get(settings.get("kind")) if isinstance(settings, dict) else None
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
