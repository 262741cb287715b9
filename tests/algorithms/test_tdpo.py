"""Thinking-based preference optimisation on toy logits, by hand (published without code: defect F06)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from safeladder.algorithms import losses
from safeladder.algorithms.losses import edited_tokens, segment_score
from safeladder.types import SafeladderError

MASK = torch.tensor([[1.0, 1.0, 1.0]])


def test_F06_segment_score_by_hand():
    # gamma 5, the middle token edited, weights 1, 5, 1: (-1 - 5 * 2 - 3) / (1 + 5 + 1) = -14 / 7 = -2
    logprobs, edited = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[0, 1, 0]])
    assert_close(segment_score(logprobs, MASK, edited, 5.0), torch.tensor([-2.0]))
    # nothing edited: the mean, whatever gamma
    assert_close(segment_score(logprobs, MASK, torch.zeros(1, 3), 5.0), torch.tensor([-2.0]))
    # padding may hold anything: (-1 - 5 * 2) / 6
    padded = torch.tensor([[-1.0, -2.0, float("nan")]])
    found = segment_score(padded, torch.tensor([[1, 1, 0]]), torch.tensor([[0, 1, 1]]), 5.0)
    assert_close(found, torch.tensor([-11 / 6]))


def test_F06_tdpo_on_toy_logits():
    # Chosen: p = 1/2, 1/4 (edited); rejected: p = 1/2, 1/8 (edited), 1/2. Reference: 1/2 everywhere. gamma 3, beta 2,
    # ln 2 = l. s_pi(chosen) = (-l - 3 * 2l) / 4 = -1.75 l, s_pi(rejected) = (-l - 3 * 3l - l) / 5 = -2.2 l, s_ref = -l.
    # margin = 2 * ((-1.75 + 1) - (-2.2 + 1)) l = 0.9 l
    half = math.log(0.5)
    policy = torch.tensor([[half, 2 * half]]), torch.tensor([[half, 3 * half, half]])
    reference = torch.full((1, 2), half), torch.full((1, 3), half)
    output = losses.tdpo(*policy, *reference, MASK[:, :2], MASK, torch.tensor([[0, 1]]), torch.tensor([[0, 1, 0]]),
                         beta=2.0, gamma=3.0)  # fmt: skip
    assert float(output.metrics["margin"]) == pytest.approx(-0.9 * half)
    assert float(output.loss) == pytest.approx(math.log1p(math.exp(0.9 * half)))


def test_F06_tdpo_pushes_the_edited_token_gamma_times_as_hard():
    logits = torch.zeros(1, 3, requires_grad=True)
    edited, flat = torch.tensor([[0, 1, 0]]), torch.zeros(1, 3)
    output = losses.tdpo(logits, flat, flat, flat, MASK, MASK, edited, edited, beta=0.1, gamma=5.0)
    (gradient,) = torch.autograd.grad(output.loss, logits)
    assert (gradient < 0).all()  # the chosen tokens are made likelier
    assert_close(gradient[0, 1], 5 * gradient[0, 0])
    assert_close(gradient[0, 2], gradient[0, 0])


def test_F06_srft_is_the_likelihood_of_the_demonstration():
    # one step with probabilities softmax(ln 3, 0) = 3/4, 1/4, the demonstration says the first: -ln(3/4)
    logprobs = torch.log_softmax(torch.tensor([[[math.log(3.0), 0.0]]]), -1)[..., 0]
    assert float(losses.sft(logprobs, torch.ones(1, 1)).loss) == pytest.approx(math.log(4 / 3))


def test_tdpo_splits_like_any_loss():
    generator = torch.Generator().manual_seed(0)
    tensors = [-torch.rand(4, 5, generator=generator) for _ in range(4)]
    masks = [torch.ones(4, 5)] * 2 + [(torch.rand(4, 5, generator=generator) < 0.4).int() for _ in range(2)]
    whole = losses.tdpo(*tensors, *masks, beta=0.5, gamma=3.0)
    parts = [
        losses.tdpo(*(t[rows] for t in (*tensors, *masks)), beta=0.5, gamma=3.0, normalizer=4)
        for rows in (slice(0, 1), slice(1, 4))
    ]
    assert_close(parts[0].loss + parts[1].loss, whole.loss)


def test_tdpo_refuses_what_it_cannot_weigh():
    flat = torch.zeros(1, 3)
    with pytest.raises(SafeladderError, match="gamma is 0"):
        losses.tdpo(flat, flat, flat, flat, MASK, MASK, flat, flat, beta=0.1, gamma=0.0)
    with pytest.raises(SafeladderError, match="no token"):
        losses.tdpo(flat, flat, flat, flat, MASK, 0 * MASK, flat, flat, beta=0.1, gamma=5.0)


def test_edited_tokens_are_those_that_differ():
    assert edited_tokens([1, 2, 9, 4], [1, 2, 3, 4]) == ([0, 0, 1, 0], [0, 0, 1, 0])
    assert edited_tokens([1, 4], [1, 2, 3, 4]) == ([0, 0], [0, 1, 1, 0])  # deleted: the rejected side alone
    assert edited_tokens([], [5]) == ([], [1])


@given(st.lists(st.integers(0, 4), max_size=12), st.lists(st.integers(0, 4), max_size=12))
def test_what_is_not_edited_is_the_same_on_both_sides(chosen: list[int], rejected: list[int]):
    first, second = edited_tokens(chosen, rejected)
    kept = [
        [token for token, mark in zip(*side, strict=True) if not mark] for side in ((chosen, first), (rejected, second))
    ]
    assert kept[0] == kept[1]
    assert edited_tokens(chosen, chosen) == ([0] * len(chosen), [0] * len(chosen))
