"""Reward recipes: the published table, what is refused at load, and rewards by hand."""

from __future__ import annotations

import numpy as np
import pytest

from safeladder.config import Rewards
from safeladder.types import SafeladderError, Score
from safeladder.verifiers import TABLES, RewardRecipe, available


class Stub:
    principle = "general"

    def __init__(self, name, labels=()):
        self.name, self.labels = name, labels

    def score(self, rollouts):
        return [Score(value=1.0) for _ in rollouts]


def stubs(*names):
    return {name: Stub(name) for name in names}


JUDGES = stubs("safety", "value", "normal", "knowledge", "rule", "general", "format", "search-answer")
RULES = available(world=False)


def test_published_table_of_the_vision_run():
    assert {label: dict(row) for label, row in TABLES["safework-svkg"].items()} == {
        "safety": {"safety": 1.0, "format": 1.0},
        "value": {"value": 1.0, "format": 1.0},
        "normal": {"normal": 1.0, "format": 1.0},
        "knowledge": {"knowledge": 1.0, "normal": 0.5, "format": 1.0},
        "knowledge_rule": {"rule": 1.0, "normal": 0.5, "format": 1.0},
        "general": {"general": 1.0, "format": 1.0},
        "general_rule": {"rule": 1.0, "format": 1.0},
        "geo3k_rule": {"rule": 0.9, "format": 0.1},
        "gsm8k_rule": {"rule": 0.9, "format": 0.1},
        "jailbreak": {"safety": 1.0, "format": 1.0},  # ours: see A11
        "search": {"search-answer": 0.9, "format": 0.1},  # ours: the accuracy of a search rung
    }


def test_published_table_of_the_text_run_differs_in_three_rows():
    vision, text = TABLES["safework-svkg"], TABLES["safework-svki"]
    assert {label: dict(text[label]) for label in text if text[label] != vision.get(label)} == {
        "knowledge": {"knowledge": 1.0, "normal": 1.0, "format": 1.0},
        "knowledge_rule": {"rule": 1.0, "normal": 1.0, "format": 1.0},
        "muldimif": {"if_rule": 1.0, "normal": 1.0, "format": 1.0},
    }
    assert set(vision) < set(text)


def test_A09_unknown_label_is_an_error_at_load():
    with pytest.raises(SafeladderError, match=r"unknown label 'saftey'.*allowed: general, .*safety"):
        RewardRecipe.load(Rewards(recipe="rules"), RULES, ["safety", "saftey"])
    recipe = RewardRecipe.load(Rewards(recipe="rules"), RULES, ["safety"])
    with pytest.raises(SafeladderError, match="unknown label"):
        recipe.reward("saftey", {})


def test_A10_missing_verifier_is_an_error_at_load():
    without = {name: verifier for name, verifier in JUDGES.items() if name != "normal"}
    with pytest.raises(SafeladderError, match=r"'knowledge'.*needs the verifier 'normal', which is not available"):
        RewardRecipe.load(Rewards(recipe="safework-svkg"), without, ["knowledge"])
    RewardRecipe.load(Rewards(recipe="safework-svkg"), without, ["safety"])
    with pytest.raises(SafeladderError, match="normal"):
        RewardRecipe.load(Rewards(recipe="safework-svkg"), without, [])


def test_A11_label_known_to_a_component_needs_a_row():
    judge = {**stubs("safety", "format"), "safety": Stub("safety", labels=("safety", "role_play"))}
    with pytest.raises(SafeladderError, match=r"'safety' knows the label 'role_play'.*no row"):
        RewardRecipe.load(Rewards(recipe="safework-svkg"), judge, ["safety"])
    rows = {"role_play": {"safety": 1.0}}
    RewardRecipe.load(Rewards(recipe="safework-svkg", labels=rows), judge, ["safety"])


@pytest.mark.parametrize("table", sorted(TABLES))
def test_A11_jailbreak_rows_are_judged_for_safety(table):
    assert TABLES[table]["jailbreak"] == TABLES[table]["safety"]


def test_A15_a_recipe_with_an_unpublished_reward_fails_early_and_names_it():
    with pytest.raises(SafeladderError, match=r"'muldimif'.*'if_rule'"):
        RewardRecipe.load(Rewards(recipe="safework-svki"), JUDGES, [])


def test_A15_the_rule_recipe_has_all_its_rewards_in_the_package():
    RewardRecipe.load(Rewards(recipe="rules"), RULES, [])


@pytest.mark.parametrize("table", ["world", "world-and-rules"])
def test_A15_the_world_recipes_have_all_their_rewards_in_the_package(table):
    pytest.importorskip("safeladder.verifiers.world")
    RewardRecipe.load(Rewards(recipe=table), available(world=True), [])


def test_unknown_table_is_named_with_a_hint():
    with pytest.raises(SafeladderError, match="unknown table 'wrold'; did you mean 'world'"):
        RewardRecipe.load(Rewards(recipe="wrold"), RULES, [])


@pytest.mark.parametrize("row", [{}, {"format": -1.0, "math": 2.0}, {"format": 0.0}])
def test_a_row_must_be_able_to_pay(row):
    with pytest.raises(SafeladderError, match=r"rewards\.labels\.safety"):
        RewardRecipe.load(Rewards(recipe="rules", labels={"safety": row}), RULES, [])


def test_overrides_replace_a_whole_row():
    rewards = Rewards(recipe="rules", labels={"safety": {"format": 2.0}})
    recipe = RewardRecipe.load(rewards, RULES, ["safety"])
    assert dict(recipe.rows["safety"]) == {"format": 2.0} and "safety-rules" in recipe.rows["jailbreak"]


def test_reward_is_the_weighted_sum():
    recipe = RewardRecipe.load(Rewards(recipe="safework-svkg"), JUDGES, [])
    scores = {"knowledge": Score(value=0.8), "normal": Score(value=0.01), "format": Score(value=1.0)}
    # 1·0.8 + 0.5·0.01 + 1·1
    assert recipe.reward("knowledge", scores) == pytest.approx(1.805)


def test_grade_school_reward():
    recipe = RewardRecipe.load(Rewards(recipe="rules"), RULES, [])
    right, wrong = Score(value=1.0), Score(value=0.0)
    rewards = [recipe.reward("gsm8k_rule", {"math": m, "format": f}) for m in (right, wrong) for f in (right, wrong)]
    assert rewards == pytest.approx([1.0, 0.9, 0.1, 0.0])


@pytest.mark.parametrize("scores", [{}, {"format": Score(value=1.0)}])
def test_an_unscored_component_means_no_reward(scores):
    recipe = RewardRecipe.load(Rewards(recipe="rules"), RULES, [])
    assert recipe.reward("safety", scores) is None
    assert recipe.reward("safety", {**scores, "safety-rules": Score.unscored("judge down")}) is None


@pytest.mark.parametrize("table", ["world", "world-and-rules"])
def test_in_the_world_being_right_outweighs_the_format(table):
    for label, row in TABLES[table].items():
        (component,) = set(row) - {"format"}
        assert row[component] >= 5 * row["format"] > 0, label


def test_components_for_gdpo(rollout):
    recipe = RewardRecipe.load(Rewards(recipe="rules"), RULES, [])
    one, half = Score(value=1.0), Score(value=0.5)
    rows = [
        rollout("x", label="gsm8k_rule").judged({"math": one, "format": half}, 0.95),
        rollout("x", label="safety").judged({"safety-rules": half, "format": one}, 0.55),
        rollout("x", label="safety").judged({"safety-rules": Score.unscored("?"), "format": one}, None),
    ]
    names, values = recipe.components(rows)
    assert names == ("format", "math", "safety-rules")
    np.testing.assert_array_equal(values, [[0.5, 1.0, 0.0], [1.0, 0.0, 0.5], [1.0, 0.0, np.nan]])
    np.testing.assert_array_equal(recipe.weights(rows), [[0.1, 0.9, 0.0], [0.1, 0.0, 0.9], [0.1, 0.0, 0.9]])


def test_components_of_nothing():
    recipe = RewardRecipe.load(Rewards(recipe="rules"), RULES, [])
    names, values = recipe.components([])
    assert names == () and values.shape == (0, 0) and recipe.weights([]).shape == (0, 0)


def test_requirements_reach_the_reader():
    requires = RewardRecipe.load(Rewards(recipe="rules"), RULES, []).requires(RULES)
    assert requires["gsm8k_rule"] == {"reference"} and requires["safety"] == {"meta.prompt_label"}


def test_every_registered_verifier_has_its_own_name():
    for name, verifier in RULES.items():
        assert verifier.name == name and verifier.principle
