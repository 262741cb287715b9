"""One draw for rows that are sampled in different ways: golden nuclei, temperatures, greedy rows."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.tiny_policies import policy, questions, requests
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.sampling import draw, nucleus
from safeladder.types import SafeladderError, SamplingParams

SHARES = torch.tensor([[0.1, 0.4, 0.2, 0.3]])


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        # Best first: 0.4, 0.3, 0.2, 0.1; before them stand 0, 0.4, 0.7, 0.9: kept is what has less before it.
        (0.35, [1]),
        (0.5, [1, 3]),
        (0.8, [1, 2, 3]),
        (0.95, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_the_smallest_set_that_holds_the_share(top_p, kept):
    found = nucleus(SHARES, torch.tensor([top_p]))
    assert found[0].nonzero().squeeze(1).tolist() == kept
    assert torch.equal(found[0, kept], SHARES[0, kept])


def test_tokens_as_likely_as_the_last_one_stay():
    found = nucleus(torch.tensor([[0.25, 0.25, 0.25, 0.25]]), torch.tensor([0.3]))
    assert found.count_nonzero() == 4


@pytest.mark.parametrize("top_p", [1e-320, 1e-45, 1e-9])
def test_the_smallest_share_keeps_the_likeliest_token(top_p):
    """Some of these are 0 in float32, and nothing can be drawn from an empty nucleus."""
    tokens, _ = draw(SHARES.log().expand(2, -1), torch.tensor([0.0, 0.99]), 1.0, [top_p, 1.0])
    assert tokens.tolist() == [1, 3]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=12), st.floats(0.01, 1.0))
def test_a_nucleus_holds_its_share_and_loses_it_without_its_last_token(weights, top_p):
    shares = torch.tensor([weights], dtype=torch.float64)
    shares = shares / shares.sum()
    kept = nucleus(shares, torch.tensor([top_p], dtype=torch.float64))[0]
    kept = kept[kept > 0]
    assert kept.sum() >= top_p - 1e-9
    assert kept[kept > kept.min()].sum() < top_p + 1e-9
    assert len(kept) == (shares >= kept.min()).sum(), "whatever is as likely as a kept token is kept"


def test_rows_are_drawn_each_in_its_own_way():
    logits = SHARES.log().expand(5, -1)
    # Running sums of the shares: 0.1, 0.5, 0.7, 1.0. At temperature 0.5 shares are squared: 1, 16, 4, 9 of 30, so 0.8
    # of 30 is 24, past 21 and within 30. The nucleus 0.5 holds tokens 1 and 3 (0.4, 0.3): 0.5 of 0.7 is 0.35, token 1.
    uniform = torch.tensor([0.05, 0.55, 0.8, 0.5, 0.99])
    tokens, logp = draw(logits, uniform, [1.0, 1.0, 0.5, 1.0, 0.0], [1.0, 1.0, 1.0, 0.5, 1.0])
    assert tokens.tolist() == [0, 2, 3, 1, 1]
    assert logp[0].tolist() == pytest.approx([math.log(x) for x in (0.1, 0.4, 0.2, 0.3)])
    assert logp[2].tolist() == pytest.approx([math.log(x / 30) for x in (1, 16, 4, 9)], abs=1e-5)
    assert logp[3].tolist() == pytest.approx(logp[0].tolist()), "log-probabilities are those before the nucleus is cut"
    one_by_one = [
        draw(logits[i : i + 1], uniform[i : i + 1], t, p)[0].item()
        for i, (t, p) in enumerate(zip([1.0, 1.0, 0.5, 1.0, 0.0], [1.0, 1.0, 1.0, 0.5, 1.0], strict=True))
    ]
    assert one_by_one == tokens.tolist()


@pytest.mark.parametrize("temperature", [1e-300, 1e-7, 1e-3])
def test_a_temperature_close_to_zero_is_greedy_and_finite(temperature):
    logits = torch.tensor([[1.0, 30.0, -1e9, 29.0]])
    tokens, logp = draw(logits, torch.tensor([0.999]), temperature, 1.0)
    assert tokens.tolist() == [1]
    assert not logp.isnan().any()


@pytest.mark.parametrize("bad", [{"top_p": 0.0}, {"top_p": 1.1}, {"top_p": math.nan}, {"top_logprobs": -1}])
def test_parameters_out_of_range(bad):
    with pytest.raises(SafeladderError, match=next(iter(bad))):
        SamplingParams(max_new_tokens=1, **bad)


def test_a_narrow_nucleus_is_greedy_and_top_logprobs_are_the_likeliest():
    engine = LocalEngine(policy("llama"))
    asked = requests(engine, questions("llama"))
    narrow = engine.generate(asked, SamplingParams(max_new_tokens=6, top_p=1e-6, top_logprobs=3, n=2), seed=0)
    greedy = engine.generate(asked, SamplingParams(max_new_tokens=6, temperature=0.0), seed=1)
    for (first, second), (best,) in zip(narrow, greedy, strict=True):
        assert first.token_ids == second.token_ids == best.token_ids
        assert len(first.top_logprobs) == len(first.token_ids)
        for token, logprob, top in zip(first.token_ids, first.logprobs, first.top_logprobs, strict=True):
            assert top[0] == (token, logprob)
            assert [x for _, x in top] == sorted((x for _, x in top), reverse=True) and len(top) == 3
        assert best.top_logprobs == ()
