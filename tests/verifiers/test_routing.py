"""Routing: who is called with what, and what happens when a verifier breaks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.config import Rewards
from safeladder.types import SafeladderError, Score, StopReason
from safeladder.verifiers import RewardRecipe, Router, available


class Recorder:
    """Scores each rollout by the last character of its text, 0 to 9, and remembers its calls."""

    principle = "general"

    def __init__(self, name):
        self.name, self.calls = name, []

    def score(self, rollouts):
        self.calls.append([rollout.text for rollout in rollouts])
        return [Score(value=int(rollout.text[-1]) / 9) for rollout in rollouts]


class Broken:
    name, principle = "safety-rules", "safety"

    def __init__(self, outcome):
        self.outcome = outcome

    def score(self, rollouts):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


LABELS = {"a": {"one": 1.0, "both": 0.5}, "b": {"two": 2.0, "both": 0.5}}


def router(micro_batch=256):
    verifiers = {name: Recorder(name) for name in ("one", "two", "both", "never")}
    recipe = RewardRecipe.load(Rewards(recipe="rules", labels=LABELS), verifiers, ["a", "b"])
    return Router(verifiers, recipe, micro_batch=micro_batch), verifiers


def texts(*digits):
    return [f"<think>t</think>{digit}" for digit in digits]


def test_A08_each_verifier_is_called_once_with_only_its_rows(rollout):
    route, verifiers = router()
    one, two, three = texts(9, 0, 9)
    batch = [rollout(one, label="a"), rollout(two, label="b"), rollout(three, label="a")]
    judged, _ = route.judge(batch)
    assert verifiers["one"].calls == [[one, three]]
    assert verifiers["two"].calls == [[two]]
    assert verifiers["both"].calls == [[one, two, three]]
    assert verifiers["never"].calls == []
    assert [sorted(r.scores) for r in judged] == [["both", "one"], ["both", "two"], ["both", "one"]]
    assert [r.reward for r in judged] == pytest.approx([1.5, 0.0, 1.5])


def test_micro_batches_bound_a_call_and_keep_the_order(rollout):
    route, verifiers = router(micro_batch=2)
    judged, _ = route.judge([rollout(text, label="a") for text in texts(0, 3, 6, 9, 3)])
    assert [len(call) for call in verifiers["one"].calls] == [2, 2, 1]
    assert [r.scores["one"].value for r in judged] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1 / 3])
    with pytest.raises(SafeladderError, match="micro_batch"):
        router(micro_batch=0)


def test_report(rollout):
    route, _ = router()
    _, report = route.judge([rollout(text, label=label) for text, label in zip(texts(9, 0, 9), "aab", strict=True)])
    assert report.verifiers["both"].n == 3 and report.verifiers["both"].mean == pytest.approx(2 / 3)
    assert report.labels["a"]["one"].mean == pytest.approx(0.5) and "two" not in report.labels["a"]
    assert report.rewards["a"].mean == pytest.approx(0.75) and report.rewards["b"].mean == pytest.approx(2.5)
    assert report.unscored == 0
    assert json.loads(json.dumps(report.as_dict()))["verifiers"]["both"]["n"] == 3


@pytest.mark.parametrize(
    ("outcome", "explanation"),
    [
        (ZeroDivisionError("secret"), "raised ZeroDivisionError"),
        ([], "one score a rollout"),
        ([Score(value=1.0)] * 3, "one score a rollout"),
        ([1.0, 1.0], "one score a rollout"),
    ],
)
def test_a_broken_verifier_counts_as_unscored(rollout, outcome, explanation):
    verifiers = {**available(world=False), "safety-rules": Broken(outcome)}
    route = Router(verifiers, RewardRecipe.load(Rewards(recipe="rules"), verifiers, []))
    judged, report = route.judge([rollout(text, label="safety") for text in texts(1, 2)])
    assert [r.reward for r in judged] == [None, None]
    assert all(explanation in r.scores["safety-rules"].explanation for r in judged)
    assert all(r.scores["format"].value == 1.0 for r in judged)
    tally = report.verifiers["safety-rules"]
    assert (tally.n, tally.unscored, tally.mean) == (2, 2, None)
    assert report.unscored == 2 and report.rewards["safety"].mean is None


def test_a_missing_verifier_at_judging_is_unscored_not_a_pass(rollout):
    recipe = RewardRecipe.load(Rewards(recipe="rules"), available(world=False), [])
    (judged,), report = Router({}, recipe).judge([rollout("<think>a</think>b", label="safety")])
    assert judged.reward is None and report.unscored == 1


def test_A09_unknown_label_is_an_error_when_judging(rollout):
    route, verifiers = router()
    with pytest.raises(SafeladderError, match="unknown label 'c'"):
        route.judge([rollout("<think>a</think>1", label="a"), rollout("<think>a</think>1", label="c")])
    assert verifiers["one"].calls == []


@pytest.mark.parametrize("stop_reason", [StopReason.LENGTH, StopReason.EOS])
def test_H07_what_did_not_parse_earns_nothing_whatever_a_verifier_says(rollout, stop_reason):
    route, _ = router()
    (judged,), report = route.judge([rollout("<think>unclosed 9", label="a", stop_reason=stop_reason)])
    assert judged.reward == 0.0 and judged.scores["one"].value == 0.0
    assert report.unscored == 0


def test_H08_a_failed_generation_is_unscored_and_costs_no_call(rollout):
    route, verifiers = router()
    failed = rollout("<think>a</think>9", label="a", stop_reason=StopReason.ERROR)
    (judged,), report = route.judge([failed])
    assert judged.reward is None and report.unscored == 1 and verifiers["one"].calls == []


def test_an_empty_batch(rollout):
    judged, report = router()[0].judge([])
    assert judged == [] and report.unscored == 0 and report.verifiers == {}


def test_the_rule_recipe_from_text_to_reward(rollout):
    verifiers = available(world=False)
    recipe = RewardRecipe.load(Rewards(recipe="rules"), verifiers, ["gsm8k_rule", "safety"])
    route = Router(verifiers, recipe)
    unsafe = {"prompt_label": "unsafe"}
    judged, _ = route.judge(
        [
            rollout("<think>9 + 9</think>18 apples", label="gsm8k_rule", reference="18"),
            rollout("18 apples", label="gsm8k_rule", reference="18"),
            rollout("<think>no</think>I cannot help with that.", label="safety", meta=unsafe),
            rollout("<think>no</think>Sure, take it.", label="safety", meta=unsafe),
            rollout("<think>no</think>Sure, take it.", label="safety"),
        ]
    )
    # 0.9 + 0.1; no format: 0; 0.9·0.1 + 0.1; 0.1; no prompt label: none
    assert [r.reward for r in judged] == [
        pytest.approx(1.0),
        0.0,
        pytest.approx(0.19),
        pytest.approx(0.1),
        None,
    ]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), max_size=20), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_rewards_do_not_depend_on_the_micro_batch(rows, micro_batch):
    from safeladder.types import Message, Part, Response, Rollout, Sample

    batch = [
        Rollout(
            sample=Sample(id=str(i), messages=(Message(role="user", parts=(Part(text="q"),)),), label=label),
            prompt_ids=(),
            token_ids=(),
            logprobs=(),
            action_mask=(),
            stop_reason=StopReason.EOS,
            text=str(digit),
            response=Response(answer=str(digit)),
        )
        for i, (label, digit) in enumerate(rows)
    ]
    whole, _ = router()[0].judge(batch)
    split, report = router(micro_batch)[0].judge(batch)
    assert [r.reward for r in split] == [r.reward for r in whole]
    assert sum(tally.n for tally in report.rewards.values()) == len(batch)
