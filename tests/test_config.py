"""Recipes: reading, extending, overriding, and one clear line for every mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from safeladder.config import Recipe, Rewards, RlRung, SearchRung, SftRung, dump_recipe, load_recipe, recipe_schema
from safeladder.types import SafeladderError

BASE = """
name: tiny
rungs:
  base: {kind: sft, steps: 2, batch_size: 4}
  m3-rl:
    kind: rl
    prompts_per_step: 2
    group_size: 4
    stages:
      general: {steps: 1, mix: {count: 1, colour: 2.5}}
      joint: {steps: 1}
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def error_of(path: Path, overrides: dict[str, str] | None = None) -> str:
    with pytest.raises(SafeladderError) as caught:
        load_recipe(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults(write):
    recipe = load_recipe(write(BASE))
    assert recipe.seed == 0
    assert recipe.data.world is not None
    assert recipe.model.hub_id is None
    base, rl = recipe.rungs.values()
    assert isinstance(base, SftRung)
    assert isinstance(rl, RlRung)
    assert rl.algorithm.preset == "cpgd"
    assert rl.stages["general"].mix == {"count": 1.0, "colour": 2.5}


def test_the_resolved_dump_loads_to_the_same_recipe(write):
    recipe = load_recipe(write(BASE), {"data.files": "[a.jsonl]", "data.world": "null", "model.lora.rank": "8"})
    assert load_recipe(write(dump_recipe(recipe), "dump.yaml")) == recipe


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "7", 7),
        ("processes", "1", 1),
        ("name", "other", "other"),
        ("name", "2024", "2024"),
        ("rungs.m3-rl.optimizer.learning_rate", "1e-4", 1e-4),
        ("rungs.m3-rl.optimizer.learning_rate", "2", 2.0),
        ("rungs.m3-rl.optimizer.betas", "[0.8, 0.9]", (0.8, 0.9)),
        ("rungs.m3-rl.algorithm.options.loss_options", "{drift_weight: 1e-3}", {"drift_weight": 0.001}),
        ("rungs.m3-rl.algorithm.options.reference_kl", "null", None),
        ("rungs.m3-rl.stages.general.mix", "{spatial: 3}", {"spatial": 3.0}),
        ("rungs.m3-rl.share_prefix", "false", False),
        ("model.lora.rank", "4", 4),
        ("data.world", "null", None),
        ("data.files", "[x.jsonl, y.jsonl]", ("x.jsonl", "y.jsonl")),
        ("data.system_prompt", "think: twice", {"think": "twice"}),
    ],
)
def test_overrides(write, key: str, text: str, value: Any):
    if key == "data.system_prompt":  # YAML reads a mapping: a wrong type, not a silent string
        assert "data.system_prompt: must be a valid string" in error_of(write(BASE), {key: text})
        return
    node: Any = load_recipe(write(BASE), {key: text})
    for part in key.split("."):
        node = node[part] if isinstance(node, dict) else getattr(node, part)
    assert node == value


@pytest.mark.parametrize("number", ["1e-4", "1.0e-4", "1E-4", "1e+2", "3e2", ".5", "-2e-3"])
def test_numbers_are_numbers_in_files_too(write, number: str):
    text = BASE + f"    algorithm: {{options: {{x: {number}}}}}\n"
    rung = load_recipe(write(text)).rungs["m3-rl"]
    assert isinstance(rung, RlRung)
    assert rung.algorithm.options["x"] == float(number)


MISTAKES = [
    # (override key, YAML value, everything the message must name)
    ("sed", "1", ["unknown key 'sed'", "did you mean 'seed'?", "allowed here:", "rungs"]),
    ("model.pth", "x", ["unknown key 'model.pth'", "did you mean 'path'?", "hub_id"]),
    ("data.world.gird", "2", ["unknown key 'data.world.gird'", "did you mean 'grid'?"]),
    ("model.lora.rnk", "2", ["unknown key 'model.lora.rnk'", "allowed here: alpha, rank"]),
    ("rungs.base.group_size", "4", ["unknown key 'rungs.base.group_size'", "batch_size"]),
    ("rungs.m3-rl.optimizer.lr", "1", ["unknown key 'rungs.m3-rl.optimizer.lr'", "learning_rate"]),
    ("rungs.m3-rl.stages.general.stps", "1", ["rungs.m3-rl.stages.general.stps", "did you mean 'steps'?"]),
    ("rungs.m3.group_size", "4", ["no rung 'm3'", "allowed: base, m3-rl"]),
    ("rungs.m3-rl.group_size", "1", ["rungs.m3-rl.group_size", "greater than or equal to 2", "got 1"]),
    ("rungs.base.steps", "0", ["rungs.base.steps", "greater than 0", "got 0"]),
    ("rungs.base.steps", "2.5", ["rungs.base.steps", "integer", "2.5"]),
    ("rungs.base.steps", "many", ["rungs.base.steps", "integer", "'many'"]),
    ("rungs.base.steps", "yes", ["rungs.base.steps", "must be a number", "True"]),
    ("rungs.m3-rl.stages.general.mix.count", "-1", ["mix.count", "greater than 0", "-1"]),
    ("rungs.m3-rl.stages.general.mix.count", "true", ["mix.count", "must be a number"]),
    ("rungs.m3-rl.stages", "{}", ["rungs.m3-rl.stages", "at least 1"]),
    ("rungs.m3-rl.stages", "{A B: {steps: 1}}", ["rungs.m3-rl.stages", "'A B'", "allowed: a-z"]),
    ("rungs.m3-rl.optimizer", "3", ["rungs.m3-rl.optimizer", "section of keys", "got 3"]),
    ("rungs.m3-rl.optimizer.name", "sgd", ["optimizer.name", "'adamw' or 'muon'", "'sgd'"]),
    ("rungs.m3-rl.optimizer.learning_rate", ".inf", ["learning_rate", "finite", "inf"]),
    ("rungs.m3-rl.optimizer.learning_rate", ".nan", ["learning_rate", "nan"]),
    ("rungs.m3-rl.optimizer.betas", "[0.9]", ["optimizer.betas"]),
    ("rungs.m3-rl.start_from", "cot-sft", ["rungs.m3-rl.start_from", "'cot-sft'", "allowed: base"]),
    ("rungs.base.start_from", "m3-rl", ["rungs.base.start_from", "none before the first"]),
    ("rungs.base.kind", "dpo", ["rungs.base.kind", "sft, rl", "'dpo'"]),
    ("rungs.base.kind", "null", ["rungs.base.kind", "sft, rl", "None"]),
    ("rungs.base", "5", ["rungs.base", "section of keys", "got 5"]),
    ("rungs.base.steps", "null", ["rungs.base.steps is required"]),
    ("rungs", "{}", ["rungs", "at least 1"]),
    ("rungs", "{../up: {kind: sft, steps: 1, batch_size: 1}}", ["rungs", "'../up'", "allowed: a-z"]),
    ("name", "Über Nacht", ["name", "pattern", "Über Nacht"]),
    ("name", "a/b", ["name", "pattern", "a/b"]),
    ("model.family", "gpt2", ["model.family", "'qwen2_5_vl', 'internvl' or 'llama'", "'gpt2'"]),
    ("model.freeze_vision", "perhaps", ["model.freeze_vision", "boolean", "'perhaps'"]),
    ("model.path.sub", "x", ["--model.path.sub", "'path' is not a section"]),
    ("data.held_out_share", "1.5", ["data.held_out_share", "less than or equal to 1", "1.5"]),
    ("data.files", "rows.jsonl", ["data.files", "'rows.jsonl'"]),
    ("evaluation.confidence", "0.4", ["evaluation.confidence", "greater than 0.5", "0.4"]),
    ("seed", "[1", ["--seed", "cannot read the value '[1'"]),
]


@pytest.mark.parametrize(("key", "text", "words"), MISTAKES, ids=[f"{k}={t}" for k, t, _ in MISTAKES])
def test_every_mistake_is_one_line_with_key_value_and_what_is_allowed(write, key, text, words):
    text_of_recipe = BASE.replace("name: tiny", "name: tiny\nmodel: {path: x}") if key == "model.path.sub" else BASE
    message = error_of(write(text_of_recipe), {key: text})
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["must be a mapping of keys", "NoneType"]),
        ("- a\n- b\n", ["must be a mapping of keys", "list"]),
        ("name: [unclosed\n", ["not valid YAML"]),
        ("rungs: {}\n", ["name is required"]),
        ("name: x\n", ["rungs is required"]),
        ("name: x\nname: y\n", ["not valid YAML", "'name' is given twice"]),
        (BASE + "      joint: {steps: 9}\n", ["'joint' is given twice"]),
        (BASE + "extends: missing.yaml\n", ["missing.yaml", "not found"]),
        (BASE + "extends: recipe.yaml\n", ["extends itself"]),
        ("name: !!python/object/apply:os.getcwd []\n", ["not valid YAML"]),
    ],
)
def test_mistakes_in_the_file(write, text: str, words: list[str]):
    message = error_of(write(text))
    for word in words:
        assert word in message


def test_a_missing_file_a_folder_and_a_binary_file(tmp_path: Path):
    assert "nowhere.yaml not found" in error_of(tmp_path / "nowhere.yaml")
    assert "not found" in error_of(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00name")
    assert "not valid YAML" in error_of(tmp_path / "binary.yaml")


def test_extends_merges_sections_and_null_removes_names(write):
    write(BASE, "base.yaml")
    child = write(
        """
extends: base.yaml
name: child
data: {world: null, files: [a.jsonl]}
rungs:
  base: null
  m3-rl:
    group_size: 8
    optimizer: null
    stages: {joint: null, general: {mix: {colour: null}}}
""",
        "child.yaml",
    )
    recipe = load_recipe(child)
    assert list(recipe.rungs) == ["m3-rl"]
    rung = recipe.rungs["m3-rl"]
    assert isinstance(rung, RlRung)
    assert (rung.group_size, rung.prompts_per_step) == (8, 2)
    assert list(rung.stages) == ["general"]
    assert rung.stages["general"].mix == {"count": 1.0}
    assert rung.optimizer == RlRung.model_fields["optimizer"].default
    # Here null is a value of its own: the world is off, not back to its default.
    assert recipe.data.world is None


def test_extends_is_relative_to_the_file_and_may_be_chained(tmp_path: Path, write):
    write(BASE)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.yaml").write_text("extends: ../recipe.yaml\nseed: 1\n")
    (tmp_path / "sub" / "b.yaml").write_text("extends: a.yaml\nname: b\n")
    recipe = load_recipe(tmp_path / "sub" / "b.yaml")
    assert (recipe.name, recipe.seed) == ("b", 1)


def test_a_rung_may_have_the_name_of_a_kind(write):
    text = "name: x\nrungs:\n  rl: {kind: sft, steps: 1, batch_size: 1}\n"
    assert "rungs.rl.steps" in error_of(write(text), {"rungs.rl.steps": "0"})


@given(st.text(max_size=30), st.text(alphabet="abcdefgr.unsm3-l", max_size=20))
def test_no_override_raises_anything_but_a_clear_error(tmp_path_factory, text: str, key: str):
    path = tmp_path_factory.getbasetemp() / "property.yaml"
    if not path.exists():
        path.write_text(BASE)
    try:
        load_recipe(path, {key: text})
    except SafeladderError as error:
        assert "\n" not in str(error).replace(text, "")


SEARCH = (
    BASE
    + """
  search-rl:
    kind: search
    prompts_per_step: 2
    group_size: 4
    stages: {joint: {steps: 1}}
    constraint: {target: 0.9}
    cold_start: {steps: 2, batch_size: 4, styles: {careful: 1}}
"""
)


def test_a_search_rung_is_an_rl_rung_with_more(write):
    rung = load_recipe(write(SEARCH)).rungs["search-rl"]
    assert isinstance(rung, SearchRung) and isinstance(rung, RlRung)
    assert (rung.constraint.controller, rung.constraint.measure, rung.constraint.cut) == ("mw", "reliability", 5)
    assert rung.rewards.recipe == "world", "auto is resolved here too"
    assert rung.longest_reply == 8192 + 512 + 2 * 512
    assert rung.cold_start is not None and rung.cold_start.confidence == "uniform"


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("constraint", "null", ["rungs.search-rl.constraint is required"]),
        ("constraint.target", "null", ["rungs.search-rl.constraint.target is required"]),
        ("constraint.target", "90", ["constraint.target", "less than or equal to 1", "90"]),
        ("constraint.controller", "pid", ["constraint.controller", "'mw', 'dual', 'fixed' or 'none'", "'pid'"]),
        ("constraint.reliability", "linear", ["'threshold', 'brier' or 'log'", "'linear'"]),
        ("constraint.initial", "20", ["rungs.search-rl.constraint", "initial: 20.0", "maximum 10.0"]),
        ("constraint.minimum", "0", ["rungs.search-rl.constraint", "minimum", "above 0 with controller mw"]),
        ("constraint.cut", "10", ["constraint.cut", "less than or equal to 9"]),
        ("constraint.smoothing", "1", ["constraint.smoothing", "less than 1"]),
        ("max_turns", "1", ["rungs.search-rl.max_turns", "greater than or equal to 2"]),
        ("rewards.combine", "gdpo", ["rungs.search-rl", "rewards.combine", "weighted-sum"]),
        ("cold_start.confidence", "honest", ["cold_start.confidence", "'calibrated'", "'honest'"]),
        ("cold_start.kind", "sft", ["unknown key 'rungs.search-rl.cold_start.kind'", "brier_weight"]),
        ("corpse", "x", ["unknown key 'rungs.search-rl.corpse'", "did you mean 'corpus'?"]),
    ],
)
def test_mistakes_in_a_search_rung(write, key: str, text: str, words: list[str]):
    message = error_of(write(SEARCH), {f"rungs.search-rl.{key}": text})
    for word in words:
        assert word in message


def test_a_cold_start_needs_the_world_whose_script_it_plays(write):
    message = error_of(write(SEARCH), {"data.world": "null"})
    assert "rungs.search-rl.cold_start" in message and "allowed without it: null" in message
    recipe = load_recipe(write(SEARCH), {"data.world": "null", "rungs.search-rl.cold_start": "null"})
    rung = recipe.rungs["search-rl"]
    assert isinstance(rung, SearchRung) and rung.cold_start is None


def test_evaluation_judges_by_the_table_of_the_last_rl_rung(write):
    """One place decides what fits the data; an ablation of single rows is measured by the whole table."""
    labels = {"rungs.m3-rl.rewards.labels": "{safety: {format: 1}}"}
    assert load_recipe(write(BASE), labels).judged_by == Rewards(recipe="world")
    files = {"data.files": "[a.jsonl]"}
    assert load_recipe(write(BASE), files).judged_by == Rewards(recipe="world-and-rules")
    assert load_recipe(write(BASE), {**files, "data.world": "null"}).judged_by == Rewards(recipe="rules")
    chosen = {"rungs.m3-rl.rewards.recipe": "safework-svkg"}
    assert load_recipe(write(BASE), chosen).judged_by == Rewards(recipe="safework-svkg")
    no_rl = load_recipe(write(BASE), {"rungs.m3-rl": "null", "data.world": "null"})
    assert no_rl.judged_by == Rewards(recipe="rules")


def test_the_schema_allows_extends_and_knows_every_key():
    schema = recipe_schema()
    assert "required" not in schema
    assert set(schema["properties"]) == {*Recipe.model_fields, "extends"}
    assert schema["$defs"]["Stage"]["properties"]["steps"]["exclusiveMinimum"] == 0


def _sections(model: type[BaseModel], seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    from safeladder.config.loading import _model_of

    seen.add(model)
    for field in model.model_fields.values():
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            section = _model_of(candidate)
            if section is not None and section not in seen:
                _sections(section, seen)
    return seen


def test_B03_every_field_is_consumed_somewhere(project: Path):
    """A key that nothing reads is a promise that nothing keeps."""
    sources = [p for p in (project / "src").rglob("*.py") if p.parent.name != "config" and p.name != "memory.py"]
    text = "\n".join(p.read_text(encoding="utf-8") for p in sources)
    sections = _sections(Recipe, set()).union(*(_sections(kind, set()) for kind in (SftRung, RlRung, SearchRung)))
    assert len(sections) > 10
    unread = {f"{s.__name__}.{f}" for s in sections for f in s.model_fields if f".{f}" not in text}
    assert unread - {"Model.hub_id"} == set()


def test_config_and_types_import_neither_torch_nor_transformers():
    code = "import sys, safeladder.config, safeladder.types; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_yaml_dump_is_plain(write):
    assert yaml.safe_load(dump_recipe(load_recipe(write(BASE))))["name"] == "tiny"
