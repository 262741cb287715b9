"""Recipes: the YAML file a run is made of, validated, with dotted overrides.

`load_recipe(path, overrides)` reads YAML, follows `extends:` (a path relative to the file), applies overrides
such as ``{"rungs.m3-rl.optimizer.learning_rate": "1e-4"}`` and validates. A mistake is a `SafeladderError`
that names the key, the value and what is allowed. Importable without torch.
"""

from __future__ import annotations

from safeladder.config.loading import dump_recipe, load_recipe, recipe_schema
from safeladder.config.recipe import Recipe
from safeladder.config.rungs import (
    SEARCH_LABEL,
    Algorithm,
    ColdStart,
    Constraint,
    Curation,
    Rewards,
    RlRung,
    Rung,
    SearchRung,
    SftRung,
    Stage,
    Supervised,
)
from safeladder.config.sections import (
    Control,
    Data,
    Evaluation,
    Lora,
    Model,
    Optimizer,
    Section,
    WorldSettings,
)

__all__ = [
    "SEARCH_LABEL",
    "Algorithm",
    "ColdStart",
    "Constraint",
    "Control",
    "Curation",
    "Data",
    "Evaluation",
    "Lora",
    "Model",
    "Optimizer",
    "Recipe",
    "Rewards",
    "RlRung",
    "Rung",
    "SearchRung",
    "Section",
    "SftRung",
    "Stage",
    "Supervised",
    "WorldSettings",
    "dump_recipe",
    "load_recipe",
    "recipe_schema",
]
