"""Advantage estimators: hand-computed values, identities and invariances."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from safeladder.algorithms import advantages
from safeladder.types import SafeladderError

# Two informative groups of sizes 3 and 2, and one of equal rewards, interleaved.
#   group 7: 3, 1, 2 (mean 2, std 1)    group 4: 5, 5    group 9: 0, 1 (mean .5, std sqrt(.5))
REWARDS = torch.tensor([3.0, 5.0, 1.0, 0.0, 2.0, 5.0, 1.0])
GROUPS = torch.tensor([7, 4, 7, 9, 7, 4, 9])
ESTIMATORS = {
    "grpo": advantages.grpo,
    "dr_grpo": advantages.dr_grpo,
    "rloo": advantages.rloo,
    "rloo-normalized": lambda r, g: advantages.rloo(r, g, normalize=True),
    "reinforce_pp": advantages.reinforce_pp,
    "reinforce_pp_baseline": advantages.reinforce_pp_baseline,
    "cpgd-std": advantages.cpgd,
    "cpgd-equal": lambda r, g: advantages.cpgd(r, g, weighting="equal"),
    "cpgd-clip-filter": lambda r, g: advantages.cpgd(r, g, weighting="clip-filter"),
    "gdpo": advantages.gdpo,
}


def test_grpo_golden() -> None:
    # group 9: -.5 / sqrt(.5) = -.70711
    expected = torch.tensor([1.0, 0.0, -1.0, -0.70711, 0.0, 0.0, 0.70711])
    assert_close(advantages.grpo(REWARDS, GROUPS), expected, atol=1e-5, rtol=0)
    # 1, 0, 1, 0: mean .5, unbiased std sqrt(4 * .25 / 3) = .57735, .5 / .57735 = .86603
    a = advantages.grpo(torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.zeros(4, dtype=torch.long))
    assert_close(a, torch.tensor([0.86603, -0.86603, 0.86603, -0.86603]), atol=1e-5, rtol=0)


def test_dr_grpo_golden() -> None:
    expected = torch.tensor([1.0, 0.0, -1.0, -0.5, 0.0, 0.0, 0.5])
    assert_close(advantages.dr_grpo(REWARDS, GROUPS), expected)


def test_rloo_golden() -> None:
    # group 7: 3 - (1+2)/2 = 1.5, 1 - (3+2)/2 = -1.5, 2 - (3+1)/2 = 0; group 9: 0 - 1, 1 - 0
    expected = torch.tensor([1.5, 0.0, -1.5, -1.0, 0.0, 0.0, 1.0])
    assert_close(advantages.rloo(REWARDS, GROUPS), expected)
    # population std over the batch: sqrt((2.25 + 2.25 + 1 + 1) / 7) = .963624
    normalized = advantages.rloo(REWARDS, GROUPS, normalize=True)
    assert_close(normalized, expected / 0.963624, atol=1e-5, rtol=0)


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=9))
@settings(max_examples=50, deadline=None)
def test_rloo_is_the_leave_one_out_difference(values: list[int]) -> None:
    rewards = torch.tensor(values, dtype=torch.float64)
    expected = [v - (sum(values) - v) / (len(values) - 1) for v in values]
    actual = advantages.rloo(rewards, torch.zeros(len(values), dtype=torch.long))
    assert_close(actual, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)


def test_reinforce_pp_golden() -> None:
    rewards, groups = torch.tensor([0.0, 2.0, 1.0, 5.0]), torch.tensor([0, 0, 1, 1])
    # mean 2, population variance (4 + 0 + 1 + 9) / 4 = 3.5, std 1.870829
    expected = torch.tensor([-1.069045, 0.0, -0.534522, 1.603567])
    assert_close(advantages.reinforce_pp(rewards, groups), expected, atol=1e-5, rtol=0)
    # centred in groups: -1, 1, -2, 2; population variance 10 / 4, std 1.581139
    expected = torch.tensor([-0.632456, 0.632456, -1.264911, 1.264911])
    assert_close(advantages.reinforce_pp_baseline(rewards, groups), expected, atol=1e-5, rtol=0)


def test_reinforce_pp_scores_single_responses() -> None:
    # One response a prompt is the setting REINFORCE++ is made for: group size 1 must not zero it.
    a = advantages.reinforce_pp(torch.tensor([0.0, 1.0]), torch.tensor([0, 1]))
    assert_close(a, torch.tensor([-1.0, 1.0]), atol=1e-5, rtol=0)


def test_B07_gamma_discounts_every_sample() -> None:
    # gamma .5; a masked token between two counted ones does not discount.
    #   sample 0: G = .5, 1      sample 1: G = 1, (masked), 2
    # returns .5, 1, 1, 2: mean 1.125, population variance 1.1875 / 4, std .544862
    mask = torch.tensor([[1, 1, 0], [1, 0, 1]])
    a = advantages.reinforce_pp_tokens(torch.tensor([1.0, 2.0]), torch.zeros(2, 3), mask, kl_weight=0.0, gamma=0.5)
    expected = torch.tensor([[-0.625, -0.125, 0.0], [-0.125, 0.0, 0.875]]) / 0.544862
    assert_close(a, expected, atol=1e-5, rtol=0)


def test_reinforce_pp_tokens_pays_the_kl_in_the_reward() -> None:
    # kl_weight .1, KL 1, 2 and NaN where masked: r = -.1, 1 - .2; G = .7, .8: mean .75, std .05
    kl = torch.tensor([[1.0, 2.0, float("nan")]])
    mask = torch.tensor([[1, 1, 0]])
    a = advantages.reinforce_pp_tokens(torch.tensor([1.0]), kl, mask, kl_weight=0.1)
    assert_close(a, torch.tensor([[-1.0, 1.0, 0.0]]), atol=1e-5, rtol=0)


def test_B01_cpgd_advantages_differ_when_rewards_differ() -> None:
    std = torch.tensor([1.0, 0.0, -1.0, -0.70711, 0.0, 0.0, 0.70711])
    equal = torch.tensor([1.0, 0.0, -1.0, -0.5, 0.0, 0.0, 0.5])
    assert_close(advantages.cpgd(REWARDS, GROUPS, weighting="std"), std, atol=1e-5, rtol=0)
    assert_close(advantages.cpgd(REWARDS, GROUPS, weighting="equal"), equal)
    # 3 prompts, 2 of them informative: weight 1.5
    assert_close(advantages.cpgd(REWARDS, GROUPS, weighting="clip-filter"), 1.5 * equal)


def test_cpgd_clip_filter_weight_is_capped() -> None:
    # 4 prompts, 1 informative: 4, capped at 3
    rewards = torch.tensor([0.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0])
    groups = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    a = advantages.cpgd(rewards, groups, weighting="clip-filter")
    assert_close(a, torch.tensor([-1.5, 1.5, 0, 0, 0, 0, 0, 0]))
    a = advantages.cpgd(rewards, groups, weighting="clip-filter", weight_cap=5)
    assert_close(a, torch.tensor([-2.0, 2.0, 0, 0, 0, 0, 0, 0]))


def test_cpgd_unknown_weighting_names_the_allowed() -> None:
    with pytest.raises(SafeladderError, match="std, equal, clip-filter"):
        advantages.cpgd(REWARDS, GROUPS, weighting="variance")  # pyright: ignore[reportArgumentType]


def test_gdpo_golden() -> None:
    # components 3, 1, 2 -> 1, -1, 0 and 0, 1, .5 -> -1, 1, 0; weights 1 and .5
    rewards = torch.tensor([[3.0, 0.0], [1.0, 1.0], [2.0, 0.5]])
    groups = torch.zeros(3, dtype=torch.long)
    assert_close(advantages.gdpo(rewards, groups, [1.0, 0.5]), torch.tensor([0.5, -0.5, 0.0]))
    # GRPO on the weighted sum lets the wide component win: 3, 1.5, 2.25 -> 1, -1, 0
    assert_close(advantages.grpo(rewards @ torch.tensor([1.0, 0.5]), groups), torch.tensor([1.0, -1.0, 0.0]))
    # population std of .5, -.5, 0: sqrt(.5 / 3) = .408248
    normalized = advantages.gdpo(rewards, groups, [1.0, 0.5], normalize=True)
    assert_close(normalized, torch.tensor([1.224745, -1.224745, 0.0]), atol=1e-5, rtol=0)


def test_gdpo_with_one_reward_is_grpo() -> None:
    grpo = advantages.grpo(REWARDS, GROUPS)
    assert_close(advantages.gdpo(REWARDS.unsqueeze(-1), GROUPS), grpo)
    assert_close(advantages.gdpo(REWARDS, GROUPS, [1.0]), grpo)


def test_gdpo_needs_a_weight_for_every_reward() -> None:
    with pytest.raises(SafeladderError, match="2 finite weights"):
        advantages.gdpo(torch.zeros(3, 2), torch.zeros(3, dtype=torch.long), [1.0])


def test_B08_degenerate_means_equal_rewards_of_any_value() -> None:
    expected = torch.tensor([False, True, False, False, False, True, False])
    assert torch.equal(advantages.degenerate_groups(REWARDS, GROUPS), expected)
    # Two components: equal sums are not equal rewards.
    two = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.4, 0.5], [2.4, 0.5]])
    mask = advantages.degenerate_groups(two, torch.tensor([0, 0, 1, 1]))
    assert torch.equal(mask, torch.tensor([False, False, True, True]))
    # One component that differs is a signal.
    assert not advantages.degenerate_groups(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 0])).any()


def test_rounding_is_not_a_reward_difference() -> None:
    # .1 + .2 and .3 differ in the last bit; dividing by their std would give advantages of .7.
    rewards = torch.tensor([0.1 + 0.2, 0.3], dtype=torch.float64)
    assert rewards[0] != rewards[1]
    groups = torch.tensor([0, 0])
    assert torch.equal(advantages.grpo(rewards, groups), torch.zeros(2, dtype=torch.float64))
    assert advantages.degenerate_groups(rewards, groups).all()


@pytest.mark.parametrize("name", [n for n in ESTIMATORS if n != "reinforce_pp"])
def test_a_group_of_one_gets_zero(name: str) -> None:
    a = ESTIMATORS[name](torch.tensor([5.0, 1.0, 2.0]), torch.tensor([3, 8, 8]))
    assert a[0] == 0
    assert a[1] != 0


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_equal_rewards_give_exactly_zero(name: str, value: float) -> None:
    a = ESTIMATORS[name](torch.full((7,), value), GROUPS)
    assert torch.equal(a, torch.zeros(7))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_bad_input_is_an_error(name: str) -> None:
    estimate = ESTIMATORS[name]
    with pytest.raises(SafeladderError, match="rollout 1 is nan"):
        estimate(torch.tensor([0.0, float("nan")]), torch.tensor([0, 0]))
    with pytest.raises(SafeladderError, match="finite"):
        estimate(torch.tensor([0.0, float("inf")]), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="group_ids"):
        estimate(torch.zeros(3), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="integers"):
        estimate(torch.zeros(3), torch.zeros(3))


def _batch(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    n = sum(sizes)
    rewards = draw(st.lists(st.integers(-8, 8), min_size=n, max_size=n))
    ids = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return torch.tensor(rewards, dtype=torch.float64) / 4, ids


BATCHES = st.composite(_batch)()


@pytest.mark.parametrize("name", ESTIMATORS)
@given(batch=BATCHES, seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_order_and_names_of_groups_do_not_matter(name: str, batch: tuple[Tensor, Tensor], seed: int) -> None:
    rewards, ids = batch
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rewards), generator=generator)
    renamed = torch.randperm(100, generator=generator)[ids] - 50
    expected = ESTIMATORS[name](rewards, ids)[order]
    assert_close(ESTIMATORS[name](rewards[order], renamed[order]), expected, atol=1e-9, rtol=0)


@given(batch=BATCHES, shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
@settings(max_examples=50, deadline=None)
def test_grpo_ignores_shift_and_scale(batch: tuple[Tensor, Tensor], shift: float, scale: float) -> None:
    rewards, ids = batch
    expected = advantages.grpo(rewards, ids)
    assert_close(advantages.grpo(rewards * scale + shift, ids), expected, atol=1e-6, rtol=0)


@given(batch=BATCHES)
@settings(max_examples=50, deadline=None)
def test_group_advantages_sum_to_zero(batch: tuple[Tensor, Tensor]) -> None:
    rewards, ids = batch
    for name, estimate in ESTIMATORS.items():
        if name != "reinforce_pp":
            sums = torch.zeros(int(ids.max()) + 1, dtype=torch.float64).index_add(0, ids, estimate(rewards, ids))
            assert sums.abs().max() < 1e-9, name
