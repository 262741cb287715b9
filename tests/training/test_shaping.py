"""Constrained RL: the reward of a search, who moves the multiplier, and what is left out of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safeladder.config import Constraint
from safeladder.search.trace import SearchFormat
from safeladder.training.parallel import Parallel
from safeladder.training.shaping import AsJudged, HonestConfidence
from safeladder.types import Rollout, SafeladderError, Score, StopReason
from training.tiny_runs import ask, run_in

RUN = run_in(Path("-"), "search-rl")


def constraint(**changes: Any) -> Constraint:
    settings = {"target": 0.9, "initial": 0.5, "rate": 1.0, "smoothing": 0.0, "minimum": 0.01}
    return Constraint.model_validate(settings | changes)


def searched(correct: bool | None, confidence: int | None, *, label: str = "search", reward: Any = ...) -> Rollout:
    """A judged rollout; without a confidence its trace is malformed, without a verdict it failed."""
    text = "<answer> x</answer>" if confidence is None else f"<confidence> {confidence}</confidence><answer> x</answer>"
    reason = StopReason.STOP if correct is not None else StopReason.ERROR
    response = SearchFormat().parse(text, reason)
    rollout = Rollout(
        sample=replace(ask("s", "who ?"), label=label),
        prompt_ids=(),
        token_ids=(),
        logprobs=(),
        action_mask=(),
        stop_reason=reason,
        text=text,
        response=response,
        confidence=response.confidence if response else None,
    )
    if correct is None:
        return rollout.judged({"search-answer": Score.unscored("-"), "format": Score.unscored("-")}, None)
    verdict, form = float(correct and response is not None), float(response is not None)
    scores = {"search-answer": Score(value=verdict), "format": Score(value=form)}
    return rollout.judged(scores, 0.9 * verdict + 0.1 * form if reward is ... else reward)


def rewards(shaped: Sequence[Rollout]) -> list[float | None]:
    return [r.reward for r in shaped]


def test_the_reward_by_hand():
    """r = r_fmt (0.1 r_fmt + 0.9 r_acc + λ r_rel), λ = 0.5, certain above 5."""
    given = [searched(True, 9), searched(True, 5), searched(False, 9), searched(False, 5), searched(True, None)]
    shaped, _ = HonestConfidence(constraint()).shape(given, RUN)
    assert rewards(shaped) == pytest.approx([1.5, 1.0, 0.1, 0.6, 0.0])


@pytest.mark.parametrize(
    ("kind", "expected"), [("brier", 0.9 + 0.1 + 0.5 * (1 - 0.04)), ("log", 1.0 + 0.5 * math.log(16) / math.log(19))]
)
def test_L03_proper_scores_by_hand(kind, expected):
    """Right with confidence 8: 1 - (0.8 - 1)²; (ln .8 - ln .05) / (ln .95 - ln .05)."""
    shaped, _ = HonestConfidence(constraint(reliability=kind)).shape([searched(True, 8)], RUN)
    assert rewards(shaped) == pytest.approx([expected])


def test_another_cut_moves_who_is_certain():
    shaped, metrics = HonestConfidence(constraint(cut=8)).shape([searched(True, 8), searched(False, 8)], RUN)
    assert rewards(shaped) == pytest.approx([1.0, 0.6])
    assert metrics["search/false_certain"] == 0.0


def test_other_labels_keep_their_rewards_and_move_nothing():
    shaper = HonestConfidence(constraint())
    given = [searched(True, 9, label="safety", reward=0.7), searched(False, 1, label="general", reward=None)]
    shaped, metrics = shaper.shape(given, RUN)
    assert rewards(shaped) == [0.7, None]
    assert shaper.multiplier.value == 0.5 and "violation" not in metrics


def test_the_multiplier_of_a_step_is_the_one_from_the_steps_before():
    """λ₁ = 0.5 e^(0.9 - 0.5): one of two is reliable."""
    shaper = HonestConfidence(constraint())
    given = [searched(True, 9), searched(False, 9)]
    shaped, metrics = shaper.shape(given, RUN)
    assert rewards(shaped) == pytest.approx([1.5, 0.1])
    assert metrics["multiplier"] == 0.5 and metrics["violation"] == pytest.approx(0.4)
    after = 0.5 * math.exp(0.4)
    shaped, metrics = shaper.shape(given, RUN)
    assert metrics["multiplier"] == pytest.approx(after)
    assert rewards(shaped) == pytest.approx([1 + after, 0.1])


def test_false_certain_may_be_the_measure():
    """At most 2 % of all; here one in four: λ rises by e^0.23, and falls once nobody is."""
    shaper = HonestConfidence(constraint(measure="false_certain", target=0.02))
    shaper.shape([searched(False, 9), searched(True, 9), searched(False, 1), searched(True, 1)], RUN)
    assert shaper.multiplier.value == pytest.approx(0.5 * math.exp(0.23))
    shaper.shape([searched(True, 9), searched(False, 1)], RUN)
    assert shaper.multiplier.value == pytest.approx(0.5 * math.exp(0.23 - 0.02))


@pytest.mark.parametrize(
    ("controller", "after"), [("none", 0.0), ("fixed", 0.5), ("dual", 1.4), ("mw", 0.5 * math.exp(0.9))]
)
def test_controllers_by_hand(controller, after):
    shaper = HonestConfidence(constraint(controller=controller))
    shaped, _ = shaper.shape([searched(False, 9), searched(True, 4)], RUN)
    assert shaper.multiplier.value == pytest.approx(after)
    assert rewards(shaped) == pytest.approx([0.1, 1.0])


def test_L04_an_unreadable_confidence_counts_against_nobodys_calibration():
    shaper = HonestConfidence(constraint())
    _, metrics = shaper.shape([searched(True, 9), searched(True, None), searched(None, 9), searched(False, 9)], RUN)
    assert metrics["search/unreadable"] == 0.25 and metrics["search/unscored"] == 0.25
    assert metrics["search/reliability"] == 0.5, "of the two that can be read"
    assert metrics["violation"] == pytest.approx(0.4)


def test_without_a_readable_search_nothing_moves():
    shaper = HonestConfidence(constraint())
    shaped, metrics = shaper.shape([searched(True, None), searched(None, 9)], RUN)
    assert rewards(shaped) == [0.0, None]
    assert shaper.multiplier.value == 0.5
    assert metrics["search/unreadable"] == 0.5 and "search/accuracy" not in metrics


def test_what_is_logged_by_hand():
    given = [searched(True, 9), searched(True, 3), searched(False, 9), searched(False, 3)]
    _, metrics = HonestConfidence(constraint()).shape(given, RUN)
    expected = {
        "search/true_certain": 0.25,
        "search/false_uncertain": 0.25,
        "search/false_certain": 0.25,
        "search/true_uncertain": 0.25,
        "search/accuracy": 0.5,
        "search/reliability": 0.5,
        "search/confidence": 6.0,
        "search/confidence_entropy": math.log(2),
        "search/confidence/3": 0.5,
        "search/confidence/9": 0.5,
        "search/confidence/10": 0.0,
        "search/actions/turns": 1.0,
        "search/actions/searches": 0.0,
        "search/actions/answered": 1.0,
        "search/actions/well_formed": 1.0,
        "search/actions/unparsed": 0.0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


class Ranks(Parallel):
    """One of several processes, whose sums are those of all of them: what the others said is played back."""

    def __init__(self, others: Sequence[Sequence[Sequence[float]]] = ()) -> None:
        super().__init__()
        self.said: list[list[float]] = []
        self.others = others

    def sum(self, *values: float) -> list[float]:
        call = len(self.said)
        self.said.append(list(values))
        return [math.fsum(column) for column in zip(values, *(other[call] for other in self.others), strict=True)]


def test_L05_the_multiplier_is_equal_on_all_processes():
    """Each sees its own rollouts; both see the same mean."""
    parts = [[searched(True, 9), searched(False, 9), searched(False, 9)], [searched(True, 2), searched(True, None)]]
    alone = []
    for part in parts:
        rank = Ranks()
        HonestConfidence(constraint()).shape(part, run_in(Path("-"), parallel=rank))
        alone.append(rank.said)
    found = []
    for part, other in zip(parts, reversed(alone), strict=True):
        shaper = HonestConfidence(constraint())
        _, metrics = shaper.shape(part, run_in(Path("-"), parallel=Ranks([other])))
        found.append((shaper.state_dict(), metrics))
    assert found[0] == found[1]
    _, metrics = found[0]
    assert metrics["search/reliability"] == pytest.approx(1 / 4), "of four readable"
    assert metrics["search/unreadable"] == pytest.approx(1 / 5)
    assert metrics["search/actions/well_formed"] == pytest.approx(4 / 5)


def test_L05_the_state_is_all_that_matters():
    """Resumed after one step it does what the unbroken one does, alarm included."""
    steps = [[searched(True, 9), searched(False, 9)], [searched(False, 9)], [searched(True, 9), searched(True, 9)]]
    settings = constraint(smoothing=0.7, controller="dual", alarm_entropy=0.1, alarm_patience=3)
    unbroken = HonestConfidence(settings)
    told = [unbroken.shape(step, RUN) for step in steps]
    first = HonestConfidence(settings)
    first.shape(steps[0], RUN)
    resumed = HonestConfidence(settings)
    resumed.load_state_dict(first.state_dict())
    again = [resumed.shape(step, RUN) for step in steps[1:]]
    assert [(rewards(s), m) for s, m in again] == [(rewards(s), m) for s, m in told[1:]]
    assert resumed.state_dict() == unbroken.state_dict()


def test_a_collapsed_confidence_is_alarmed_once_and_the_run_goes_on(caplog):
    shaper = HonestConfidence(constraint(alarm_entropy=0.1, alarm_patience=2))
    same, mixed = [searched(True, 9), searched(False, 9)], [searched(True, 9), searched(False, 2)]
    with caplog.at_level(logging.WARNING):
        flags = [shaper.shape(step, RUN)[1]["search/confidence_collapsed"] for step in (same, same, same, mixed, same)]
    assert flags == [0.0, 1.0, 1.0, 0.0, 0.0]
    assert [r.getMessage() for r in caplog.records] == [
        "rung search-rl: stated confidences have collapsed, their entropy was below 0.1 nats for 2 steps in a row"
    ]


def test_a_search_without_a_judge_of_the_answer_is_an_error():
    only_form = searched(True, 9).judged({"format": Score(value=1.0)}, 0.1)
    with pytest.raises(SafeladderError, match=r"rewards\.labels\.search: needs a verifier of the answer"):
        HonestConfidence(constraint()).shape([only_form], RUN)


def test_without_a_shaper_rewards_stay():
    given = [searched(True, 9), searched(None, 9)]
    shaped, metrics = AsJudged().shape(given, RUN)
    assert shaped == given and metrics == {} and AsJudged().state_dict() == {}
