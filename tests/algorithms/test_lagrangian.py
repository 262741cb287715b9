"""The multiplier: golden updates, its state, and a bandit whose answer is known."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from safeladder.algorithms.advantages import dr_grpo
from safeladder.algorithms.calibration import reliability
from safeladder.algorithms.lagrangian import Direction, Kind, Multiplier, search_reward
from safeladder.types import SafeladderError


def test_search_reward_golden() -> None:
    # .1 + .9 * 1 + 2 * 1;  .1 + .9 * 0 + 2 * .5;  nothing without the format
    assert search_reward(1.0, 1.0, 1.0, 2.0) == pytest.approx(3.0)
    assert search_reward(1.0, 0.0, 0.5, 2.0) == pytest.approx(1.1)
    assert search_reward(0.0, 1.0, 1.0, 2.0) == 0.0
    rewards = search_reward(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]), 0.5)
    assert_close(rewards, torch.tensor([1.0, 0.0]))


def test_multiplicative_weights_golden() -> None:
    # v = .9 - .5 = .4, lambda = 2 e^.2;  then v = .9 - 1 = -.1, lambda = 2 e^.2 e^-.05
    m = Multiplier("mw", value=2.0, rate=0.5, target=0.9)
    assert m.update(0.5) == pytest.approx(2 * math.exp(0.2))
    assert m.update(1.0) == pytest.approx(2 * math.exp(0.15))


def test_dual_ascent_golden() -> None:
    # 1 + .5 * .4 = 1.2;  1.2 + .5 * -.1 = 1.15
    m = Multiplier("dual", value=1.0, rate=0.5, target=0.9)
    assert [m.update(0.5), m.update(1.0)] == pytest.approx([1.2, 1.15])


def test_smoothing_golden() -> None:
    # v: .4, then -.1;  g_1 = .4, g_2 = .8 * .4 + .2 * -.1 = .3;  lambda = 1 + .2 + .15
    m = Multiplier("dual", value=1.0, rate=0.5, target=0.9, smoothing=0.8)
    assert [m.update(0.5), m.update(1.0)] == pytest.approx([1.2, 1.35])
    assert m.violation == pytest.approx(0.3)


def test_fixed_stays_and_still_tells_the_violation() -> None:
    m = Multiplier("fixed", value=0.7, target=0.9)
    assert m.update(0.1) == 0.7
    assert m.violation == pytest.approx(0.8)


def test_at_most_turns_the_sign() -> None:
    # false-certain .12 against epsilon .02: violated by .1
    m = Multiplier("dual", value=1.0, rate=2.0, target=0.02, direction="at_most")
    assert [m.update(0.12), m.update(0.0)] == pytest.approx([1.2, 1.16])


@pytest.mark.parametrize("kind", ["mw", "dual"])
def test_bounds_hold_and_are_left_again(kind: Kind) -> None:
    m = Multiplier(kind, value=1.0, rate=1000.0, target=0.5, minimum=0.1, maximum=3.0)
    assert m.update(-1e6) == 3.0
    assert m.update(1e6) == 0.1
    assert m.update(-1e6) == 3.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.sampled_from(["mw", "dual"]), st.booleans())
def test_lambda_rises_exactly_while_violated(measured: list[float], kind: Kind, at_least: bool) -> None:
    direction: Direction = "at_least" if at_least else "at_most"
    m = Multiplier(kind, rate=0.3, target=0.6, direction=direction, smoothing=0.5)
    for value in measured:
        before, after = m.value, m.update(value)
        assert m.violation is not None
        inside = m.minimum < after < m.maximum
        if abs(m.violation) > 1e-9 and inside:
            assert (after > before) == (m.violation > 0)


def test_a_step_without_a_measurement_changes_nothing() -> None:
    m = Multiplier(target=0.9, smoothing=0.5)
    m.update(0.5)
    state = m.state_dict()
    assert m.update(None) == state["value"]
    assert m.state_dict() == state
    with pytest.raises(ValueError, match="finite"):
        m.update(math.nan)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "adaptive"}, "unknown kind 'adaptive'; allowed: mw, dual, fixed"),
        ({"direction": "above"}, "unknown direction 'above'; allowed: at_least, at_most"),
        ({"rate": 0.0}, "rate is 0.0; allowed: a number > 0"),
        ({"target": math.nan}, "target is nan"),
        ({"smoothing": 1.0}, "smoothing is 1.0; allowed: 0 <= smoothing < 1"),
        ({"minimum": -1.0}, "minimum is -1.0"),
        ({"maximum": math.inf}, "minimum is 0.001; allowed: 0 <= minimum <= maximum, both finite"),
        ({"value": 20.0}, "value is 20.0; allowed: from minimum 0.001 to maximum 10.0"),
        ({"value": 0.0}, "value is 0.0"),
        ({"kind": "mw", "minimum": 0.0}, "minimum is 0; allowed for kind mw: > 0"),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(SafeladderError, match="multiplier: ") as caught:
        Multiplier(**{"target": 0.9, **settings})
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["mw", "dual", "fixed"])
def test_L05_lambda_resumes_where_it_was(kind: Kind) -> None:
    def new() -> Multiplier:
        return Multiplier(kind, rate=0.7, target=0.8, smoothing=0.9)

    measured = [0.3, 0.9, 0.5, 0.95, 0.2, 0.7]
    unbroken = new()
    trace = [unbroken.update(value) for value in measured]
    first, second = new(), new()
    start = [first.update(value) for value in measured[:3]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert start + [second.update(value) for value in measured[3:]] == trace
    assert second.state_dict() == unbroken.state_dict()


def test_L05_a_fresh_state_round_trips() -> None:
    m = Multiplier(target=0.8)
    m.load_state_dict(m.state_dict())
    assert m.violation is None


# A bandit with two actions, "certain" and "uncertain", on kinds of questions whose P(correct) is known. The policy
# starts over-confident and is held to that start by a KL term, as RL from a reference policy is. Its optimum at a given
# lambda is then q_k = sigmoid(START + lambda (2 p_k - 1) / KL), so the lambda that meets a target can be computed.
P_CORRECT = torch.tensor([0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95], dtype=torch.float64)
START, KL, PER_KIND = 2.0, 0.25, 64


def certain_at(multiplier: float) -> Tensor:
    return torch.sigmoid(START + multiplier * (2 * P_CORRECT - 1) / KL)


def reliability_at(multiplier: float) -> float:
    q = certain_at(multiplier)
    return float((q * P_CORRECT + (1 - q) * (1 - P_CORRECT)).mean())


def false_certain_at(multiplier: float) -> float:
    return float((certain_at(multiplier) * (1 - P_CORRECT)).mean())


def train(multiplier: Multiplier, steps: int) -> dict[str, list[float]]:
    """Plain policy gradient on sampled answers; returns what every step measured."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.full_like(P_CORRECT, START, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=30.0)
    kinds = torch.arange(len(P_CORRECT)).repeat_interleave(PER_KIND)
    trace: dict[str, list[float]] = {"reliability": [], "false_certain": [], "violation": [], "lambda": []}
    for _ in range(steps):
        q = torch.sigmoid(logits)
        certain = torch.rand(len(kinds), generator=generator, dtype=torch.float64) < q.detach()[kinds]
        correct = torch.rand(len(kinds), generator=generator, dtype=torch.float64) < P_CORRECT[kinds]
        reliable = reliability(correct, torch.where(certain, 9, 2)).double()
        rewards = search_reward(torch.ones_like(reliable), correct.double(), reliable, multiplier.value)
        logprobs = torch.where(certain, q[kinds].log(), (1 - q[kinds]).log())
        start = torch.sigmoid(torch.tensor(START, dtype=torch.float64))
        kl = q * (q / start).log() + (1 - q) * ((1 - q) / (1 - start)).log()
        loss = -(dr_grpo(rewards, kinds) * logprobs).mean() + KL * kl.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trace["reliability"].append(float(reliable.mean()))
        trace["false_certain"].append(float((certain & ~correct).double().mean()))
        measured = trace["reliability" if multiplier.direction == "at_least" else "false_certain"][-1]
        trace["lambda"].append(multiplier.update(measured))
        trace["violation"].append(multiplier.violation or 0.0)
    return trace


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("kind", ["mw", "dual"])
@pytest.mark.parametrize("begin", [0.05, 3.0])
def test_bandit_converges_to_the_reliability_target(kind: Kind, begin: float) -> None:
    # Optimal reliability is .50 at lambda 0 and .75 at lambda 3; .7 in between is met at lambda 1.3.
    target = 0.7
    assert reliability_at(0.0) < 0.51 and reliability_at(3.0) > 0.74
    trace = train(Multiplier(kind, value=begin, rate=0.3, target=target, smoothing=0.5), steps=400)
    assert mean(trace["reliability"][-100:]) == pytest.approx(target, abs=0.01)
    assert reliability_at(mean(trace["lambda"][-100:])) == pytest.approx(target, abs=0.015)
    moves = list(zip(trace["violation"][1:], pairwise(trace["lambda"]), strict=True))
    assert all((after > before) == (violation > 0) for violation, (before, after) in moves if violation)
    rises = begin < 1
    assert (mean(trace["lambda"][-100:]) > begin) == rises


def test_bandit_converges_to_a_false_certain_bound() -> None:
    # The over-confident start is false-certain on .44 of the questions; lambda 3 would bring that down to .16.
    assert false_certain_at(0.0) > 0.4 and false_certain_at(3.0) < 0.17
    trace = train(Multiplier("mw", value=0.1, rate=0.3, target=0.25, direction="at_most", smoothing=0.5), steps=400)
    assert mean(trace["false_certain"][-100:]) == pytest.approx(0.25, abs=0.01)
    assert false_certain_at(mean(trace["lambda"][-100:])) == pytest.approx(0.25, abs=0.015)


def test_bandit_with_a_fixed_lambda_ends_where_its_lambda_says() -> None:
    trace = train(Multiplier("fixed", value=0.1, target=0.7), steps=200)
    assert mean(trace["reliability"][-100:]) == pytest.approx(reliability_at(0.1), abs=0.015)
    assert mean(trace["reliability"][-100:]) < 0.65


def test_bandit_out_of_reach_ends_at_the_maximum() -> None:
    # Even perfect knowledge of P(correct) gives a reliability of mean max(p, 1 - p) = .76.
    m = Multiplier("mw", value=0.1, rate=0.5, target=0.9, maximum=4.0)
    trace = train(m, steps=150)
    assert trace["lambda"][-1] == 4.0 and mean(trace["reliability"][-20:]) < 0.8
