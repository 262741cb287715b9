"""CALE and the soft overlong penalty."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from safeladder.algorithms.advantages import dr_grpo
from safeladder.algorithms.length import cale, soft_overlong
from safeladder.types import SafeladderError

ONE = torch.zeros(4, dtype=torch.long)
REWARDS, LENGTHS = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([30, 10, 20, 40])


def test_cale_golden_inter_group() -> None:
    # by length: 10 (r 1), 20 (r 0) | 30 (r 1), 40 (r 0); m_s = m_l = .5; alpha .9, beta .1, L_max 10
    #   long  30: .9 * 1 - .5 + .1 = .5     long  40: 0 - .5 + .1 = -.4
    #   short 10: 1 - .45 - .1 = .45        short 20: 0 - .45 - .1 = -.55
    a = cale(REWARDS, LENGTHS, ONE, alpha=0.9, mu=1.0, beta=0.1, max_length=10)
    assert_close(a, torch.tensor([0.05, 0.045, -0.055, -0.04]))


def test_cale_golden_mixed() -> None:
    # mu .25: .25 * inter + .75 * (r - mean of the own half)
    #   30: .125 + .375   10: .1125 + .375   20: -.1375 - .375   40: -.1 - .375
    a = cale(REWARDS, LENGTHS, ONE, alpha=0.9, mu=0.25, beta=0.1, max_length=1)
    assert_close(a, torch.tensor([0.5, 0.4875, -0.5125, -0.475]))


def test_cale_odd_group_gives_the_middle_to_the_long_half() -> None:
    # short: 1 response, m_s = 1; long: 2, m_l = .5.  short 1 - .5; long 0 - 1 and 1 - 1
    a = cale(
        torch.tensor([1.0, 0.0, 1.0]),
        torch.tensor([1, 2, 3]),
        torch.zeros(3, dtype=torch.long),
        alpha=1.0,
        mu=1.0,
        beta=0.0,
        max_length=1,
    )
    assert_close(a, torch.tensor([0.5, -1.0, 0.0]))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 999))
@settings(max_examples=50, deadline=None)
def test_cale_half_and_half_is_dr_grpo_over_max_length(half: int, prompts: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(prompts).repeat(2 * half)
    rewards = torch.rand(len(ids), generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, 50, (len(ids),), generator=generator)
    a = cale(rewards, lengths, ids, alpha=1.0, mu=0.5, beta=0.0, max_length=64)
    assert_close(a, dr_grpo(rewards, ids) / 64, atol=1e-12, rtol=0)


def test_cale_on_equal_rewards_presses_length_only_where_reward_is_earned() -> None:
    lengths = torch.tensor([1, 2, 3, 4])
    options = {"mu": 1.0, "beta": 0.0, "max_length": 1.0}
    none = cale(torch.ones(4), lengths, ONE, alpha=1.0, **options)
    assert torch.equal(none, torch.zeros(4))
    # alpha .9, r = 1: short 1 - .9, long .9 - 1
    earned = cale(torch.ones(4), lengths, ONE, alpha=0.9, **options)
    assert_close(earned, torch.tensor([0.1, 0.1, -0.1, -0.1]))
    # no reward: a short wrong answer gains nothing
    wrong = cale(torch.zeros(4), lengths, ONE, alpha=0.9, **options)
    assert torch.equal(wrong, torch.zeros(4))


def test_cale_group_of_one_is_zero() -> None:
    a = cale(
        torch.tensor([1.0, 0.0, 1.0]),
        torch.tensor([5, 2, 3]),
        torch.tensor([0, 1, 1]),
        alpha=0.5,
        mu=1.0,
        beta=0.3,
        max_length=1,
    )
    assert a[0] == 0
    assert (a[1:] != 0).all()


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 999))
@settings(max_examples=50, deadline=None)
def test_cale_ignores_the_order_of_rollouts_and_groups(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    n = len(ids)
    rewards = torch.rand(n, generator=generator, dtype=torch.float64)
    lengths = torch.randperm(4 * n, generator=generator)[:n]
    order = torch.randperm(n, generator=generator)
    options = {"alpha": 0.9, "mu": 0.7, "beta": 0.1, "max_length": 10.0}
    expected = cale(rewards, lengths, ids, **options)[order]
    actual = cale(rewards[order], lengths[order], -ids[order], **options)
    assert_close(actual, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("wrong", [{"mu": 1.5}, {"max_length": 0}, {"alpha": float("nan")}, {"beta": float("inf")}])
def test_cale_options_out_of_range(wrong: dict[str, float]) -> None:
    options = {"alpha": 0.9, "mu": 1.0, "beta": 0.0, "max_length": 1.0} | wrong
    with pytest.raises(SafeladderError, match="allowed"):
        cale(REWARDS, LENGTHS, ONE, **options)
    with pytest.raises(ValueError, match="lengths"):
        cale(REWARDS, LENGTHS[:3], ONE, alpha=0.9, mu=1.0, beta=0.0, max_length=1.0)


def test_soft_overlong_golden() -> None:
    # max 100, buffer 20: free up to 80; 85 -> -5/20, 100 -> -1; never below -factor
    lengths = torch.tensor([10, 80, 85, 100, 140])
    assert_close(soft_overlong(lengths, 100, 20), torch.tensor([0.0, 0.0, -0.25, -1.0, -1.0]))
    assert_close(soft_overlong(lengths, 100, 20, factor=0.4), torch.tensor([0.0, 0.0, -0.1, -0.4, -0.4]))


@pytest.mark.parametrize("options", [(100, 0, 1.0), (100, 101, 1.0), (100, 20, -1.0)])
def test_soft_overlong_options_out_of_range(options: tuple[int, int, float]) -> None:
    with pytest.raises(SafeladderError, match="0 < buffer <= max_length"):
        soft_overlong(torch.tensor([1]), *options)
