"""`climb --check`: validates everything, loads no weights, names what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from safeladder.config import Recipe, RlRung, SearchRung, load_recipe
from safeladder.ladder import check as checks
from safeladder.ladder.check import check, missing_extras, model_shape, require_checkpoint, require_runnable
from safeladder.types import SafeladderError

REAL = ("qwen2.5-vl-7b", "qwen2.5-vl-72b", "internvl3-78b", "deepseek-r1-distill-llama-70b")
TINY = """
name: tiny
processes: 1
rungs:
  base: {kind: sft, steps: 2, batch_size: 4, mix: {count: 1}, styles: {careful: 1}}
  m3-rl:
    kind: rl
    prompts_per_step: 2
    group_size: 4
    stages: {general: {steps: 1, mix: {count: 1}}}
"""


@pytest.fixture
def tiny(tmp_path: Path):
    def tiny(overrides: dict[str, str] | None = None) -> Recipe:
        path = tmp_path / "tiny.yaml"
        path.write_text(TINY)
        return load_recipe(path, overrides)

    return tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safeladder.models.load import save_checkpoint
    from safeladder.models.tiny import build_tiny

    model, processor = build_tiny("qwen2_5_vl", ["how many circle ?"] * 4, seed=0, size="test")
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_checkpoint(model, processor, folder)
    return folder


def recipe_of(project: Path, name: str) -> Recipe:
    return load_recipe(project / "recipes" / f"{name}.yaml")


@pytest.mark.parametrize("name", REAL)
def test_real_recipes_validate_without_weights_or_data(project: Path, name: str):
    text = "\n".join(check(recipe_of(project, name)))
    assert f"recipe {name}: valid" in text
    assert "no local checkpoint given: pass --model.path DIR; validated without it" in text
    assert "no data given: pass --data FILE.jsonl" in text
    assert "memory a process, each of 8" in text
    assert "no corpus given: pass --rungs.search-rl.corpus DIR" in text


@pytest.mark.parametrize("name", REAL)
def test_A10_missing_verifiers_are_listed_by_check(project: Path, name: str):
    lines = [line for line in check(recipe_of(project, name)) if "missing verifiers" in line]
    assert len(lines) == 3, "one line for each of the three RL rungs"
    for verifier in ("safety", "value", "knowledge"):
        assert verifier in lines[0]
    assert ("if_rule" in lines[0]) == (name == "deepseek-r1-distill-llama-70b")


@pytest.mark.parametrize("name", REAL)
def test_every_value_of_a_real_recipe_says_where_it_comes_from(project: Path, name: str):
    """A hyper-parameter without a citation or "ours" cannot be checked by a reader."""
    _, _, rl = (project / "recipes" / f"{name}.yaml").read_text().partition("\n  m3-rl:")
    lines = [line for line in rl.splitlines() if re.match(r"\s+\w+: *[^\s&{>]", line) and "kind:" not in line]
    assert bool(lines) == (name != "internvl3-78b"), "that recipe only names another model"
    for line in lines:
        assert "#" in line, f"{name}: no source for {line.strip()!r}"


def test_A16_the_7b_recipe_is_the_papers_cpgd(project: Path):
    from safeladder.algorithms.presets import build

    rung = recipe_of(project, "qwen2.5-vl-7b").rungs["m3-rl"]
    assert isinstance(rung, RlRung)
    preset = build(rung.algorithm.preset, **rung.algorithm.options).preset
    assert preset.loss_options == {"clip": 0.2, "drift_weight": 0.01, "drift_cap": 2.0}
    assert preset.reference_kl is None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("qwen2.5-vl-7b", (128, 8, 8192, 1e-6, 1.0)),
        ("qwen2.5-vl-72b", (128, 8, 8192, 1e-6, 0.5)),
        ("internvl3-78b", (128, 8, 8192, 1e-6, 0.5)),
        ("deepseek-r1-distill-llama-70b", (48, 8, 8192, 1e-6, 1.0)),
    ],
)
def test_published_hyper_parameters(project: Path, name: str, values: tuple):
    rung = recipe_of(project, name).rungs["m3-rl"]
    assert isinstance(rung, RlRung)
    found = (rung.prompts_per_step, rung.group_size, rung.max_new_tokens)
    assert (*found, rung.optimizer.learning_rate, rung.optimizer.max_grad_norm) == values
    assert (rung.optimizer.betas, rung.optimizer.weight_decay) == ((0.9, 0.95), 0.01)


def test_the_7b_recipe_searches_as_published(project: Path):
    """Deliberative Searcher where it says something, Search-R1's v0.3 script for the shape of a search."""
    rung = recipe_of(project, "qwen2.5-vl-7b").rungs["search-rl"]
    assert isinstance(rung, SearchRung)
    held = rung.constraint
    assert (held.controller, held.reliability, held.measure, held.target, held.cut) == (
        "mw", "threshold", "false_certain", 0.02, 5
    )  # fmt: skip
    assert (rung.group_size, rung.max_turns, rung.top_k, rung.observation_tokens) == (5, 4, 3, 500)
    assert rung.algorithm.preset == "grpo" and rung.optimizer.learning_rate == 5e-7
    assert rung.cold_start is None and "confidence" in (rung.instructions or "")


def test_real_recipes_do_not_need_their_reference_model(project: Path):
    for name in REAL:
        for rung in recipe_of(project, name).rungs.values():
            if isinstance(rung, RlRung):
                assert not checks.algorithm_of(rung).needs_reference


def test_a_run_needs_the_checkpoint_and_the_data(project: Path, tiny, tmp_path: Path):
    recipe = recipe_of(project, "qwen2.5-vl-7b")
    with pytest.raises(SafeladderError, match=r"Qwen/Qwen2\.5-VL-7B-Instruct.*--model\.path DIR"):
        require_checkpoint(recipe)
    require_checkpoint(tiny())
    require_runnable(tiny())
    with pytest.raises(SafeladderError, match=r"no data: pass --data FILE\.jsonl"):
        require_runnable(tiny({"data.world": "null"}))
    with pytest.raises(SafeladderError, match=r"absent\.jsonl not found"):
        require_runnable(tiny({"data.files": "[absent.jsonl]"}))


def test_a_missing_extra_is_named(tiny, monkeypatch: pytest.MonkeyPatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    assert missing_extras(tiny()) == []
    recipe = tiny({"model.lora.rank": "4"})
    assert missing_extras(recipe) == ["model.lora needs the package peft: pip install 'safeladder[lora]'"]
    with pytest.raises(SafeladderError, match="peft"):
        require_runnable(recipe)
    assert any("peft" in line for line in check(recipe))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"rungs.m3-rl.algorithm.preset": "cpdg"}, ["rungs.m3-rl", "cpdg", "cpgd"]),
        ({"rungs.m3-rl.algorithm.options.drfit": "1"}, ["rungs.m3-rl", "drfit", "loss_options"]),
        ({"rungs.m3-rl.algorithm.options.loss_options": "{clip: -1}"}, ["rungs.m3-rl", "clip"]),
        ({"rungs.m3-rl.rewards.recipe": "wrold"}, ["rungs.m3-rl", "wrold", "world"]),
        ({"rungs.m3-rl.rewards.labels": "{safety: {}}"}, ["rungs.m3-rl", "safety"]),
        ({"rungs.m3-rl.stages.general.mix": "{cuont: 1}"}, ["stages.general.mix", "'cuont'", "count"]),
        ({"rungs.base.mix": "{safety: 1}"}, ["rungs.base.mix", "'safety'", "allowed"]),
        ({"rungs.base.styles": "{carefull: 1}"}, ["rungs.base.styles", "'carefull'", "careful"]),
        ({"model.path": "absent"}, ["absent"]),
    ],
)
def test_what_would_stop_a_run_stops_the_check(tiny, overrides, words):
    with pytest.raises(SafeladderError) as caught:
        check(tiny(overrides))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


SEARCH = """
  search-rl:
    kind: search
    prompts_per_step: 2
    group_size: 4
    stages: {joint: {steps: 1, mix: {search_one_hop: 1, count: 1}}}
    constraint: {target: 0.9}
    cold_start: {steps: 2, batch_size: 4, styles: {careful: 1}, mix: {search_missing: 1, count: 1}}
"""


@pytest.fixture
def searching(tmp_path: Path):
    def searching(overrides: dict[str, str] | None = None) -> Recipe:
        path = tmp_path / "searching.yaml"
        path.write_text(TINY + SEARCH)
        return load_recipe(path, overrides)

    return searching


def test_a_search_rung_says_what_it_does(searching):
    text = "\n".join(check(searching()))
    assert "rung search-rl: cold start 2 steps, search in the world, 6 turns" in text
    assert "confidence threshold, λ mw for reliability at least 0.9" in text
    assert "missing verifiers" not in text
    other = {"rungs.search-rl.constraint": "{target: 0.02, measure: false_certain, controller: dual}"}
    assert "λ dual for false_certain at most 0.02" in "\n".join(check(searching(other)))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            {"rungs.search-rl.stages.joint.mix": "{serach_one_hop: 1}"},
            ["stages.joint.mix", "serach_one_hop", "search_one_hop"],
        ),
        ({"rungs.search-rl.cold_start.mix": "{search: 1}"}, ["cold_start.mix", "'search'", "search_missing"]),
        ({"rungs.search-rl.cold_start.styles": "{carefull: 1}"}, ["cold_start.styles", "carefull"]),
        ({"rungs.base.mix": "{search_one_hop: 1}"}, ["rungs.base.mix", "search_one_hop"]),
        ({"rungs.m3-rl.stages.general.mix": "{search_one_hop: 1}"}, ["stages.general.mix", "search_one_hop"]),
        ({"rungs.m3-rl.stages.general.mix": "{search: 1}"}, ["stages.general.mix", "'search'"]),
    ],
)
def test_searches_are_named_in_search_rungs_only(searching, overrides, words):
    with pytest.raises(SafeladderError) as caught:
        check(searching(overrides))
    for word in words:
        assert word in str(caught.value)


def test_a_run_needs_somewhere_to_search(searching, tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a", "label": "search", "reference": "x", "prompt": "who?"}\n')
    without = {"data.world": "null", "data.files": json.dumps([str(rows)]), "rungs.search-rl.cold_start": "null"}
    assert any("no corpus given: pass --rungs.search-rl.corpus DIR" in line for line in check(searching(without)))
    with pytest.raises(
        SafeladderError, match=r"nothing to search: pass --rungs\.search-rl\.corpus DIR .*search-rl null"
    ):
        require_runnable(searching(without))
    with pytest.raises(SafeladderError, match=r"search-rl\.corpus: index folder .*absent not found"):
        require_runnable(searching({**without, "rungs.search-rl.corpus": "absent"}))
    require_runnable(searching({**without, "rungs.search-rl.corpus": str(tmp_path)}))
    require_runnable(searching({**without, "rungs.search-rl.corpus": "http://127.0.0.1:8000"}))


def test_the_laptop_model_and_the_world(tiny):
    text = "\n".join(check(tiny()))
    assert "built from scratch" in text
    assert "the built-in world" in text
    assert "missing verifiers" not in text


def test_rows_are_read_and_counted_and_bad_rows_named(tiny, tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    row = {"label": "gsm8k_rule", "reference": "4", "messages": [{"role": "user", "content": "2 + 2?"}]}
    rows.write_text("".join(json.dumps({**row, "id": str(i)}) + "\n" for i in range(3)))
    overrides = {"data.files": json.dumps([str(rows)]), "data.world": "null", "rungs.base.mix": "{}"}
    overrides |= {"rungs.m3-rl.rewards.recipe": "rules"}
    assert "data: 3 rows (gsm8k_rule 3)" in check(tiny(overrides))
    rows.write_text(rows.read_text() + '{"id": "3", "label": "gsm8k_rule"}\n')
    with pytest.raises(SafeladderError, match="line 4"):
        check(tiny(overrides))
    rows.write_text(json.dumps({**row, "id": "0", "label": "unheard_of"}) + "\n")
    with pytest.raises(SafeladderError, match="unheard_of"):
        check(tiny(overrides))


def test_a_checkpoint_is_measured_without_loading_it(tiny, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    from safeladder.models import load

    def no_loading(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(load, "load_checkpoint", no_loading)
    recipe = tiny({"model.path": str(checkpoint), "model.hub_id": "org/model"})
    shape = model_shape(recipe)
    assert shape is not None
    assert 0 < shape.language < shape.parameters
    assert str(checkpoint) in "\n".join(check(recipe))


def test_the_measured_shape_is_the_models(tiny, checkpoint: Path):
    from safeladder.models.load import load_checkpoint

    model, _, family = load_checkpoint(checkpoint)
    shape = model_shape(tiny({"model.path": str(checkpoint)}))
    vision = family.vision_module(model)
    assert shape is not None
    assert vision is not None
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.vision == sum(p.numel() for p in vision.parameters())


def test_a_checkpoint_of_another_family_is_refused(tiny, checkpoint: Path):
    with pytest.raises(SafeladderError, match=r"qwen2_5_vl.*model\.family is 'llama'"):
        check(tiny({"model.path": str(checkpoint), "model.family": "llama"}))


def test_an_unknown_published_model_is_not_guessed(tiny):
    text = "\n".join(check(tiny({"model.hub_id": "org/unknown"})))
    assert "size unknown" in text
    assert "not estimated" in text


def test_every_recipe_file_checks(project: Path):
    recipes = sorted(project.glob("recipes/**/*.yaml"))
    assert len(recipes) >= len(REAL)
    names = [yaml.safe_load(dumped)["name"] for dumped in (path.read_text() for path in recipes)]
    assert len(set(names)) == len(names), "two recipes would write to one folder"
    for path in recipes:
        check(load_recipe(path))
