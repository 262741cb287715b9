"""Prefixes that are kept: the same ids as without, no position run twice, nothing of other weights."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from rollout.tiny_policies import ask, policy, questions, requests
from safeladder.rollout.local import LocalEngine, text_weights
from safeladder.rollout.prefix import PrefixEngine
from safeladder.types import GenerationRequest, SamplingParams


def engines(name: str = "qwen2_5_vl", **options) -> tuple[LocalEngine, PrefixEngine]:
    local = LocalEngine(policy(name))
    return local, PrefixEngine(local, **options)


def grown(asked, groups, take: int) -> list[GenerationRequest]:
    """Each request with the first `take` tokens of each of its completions."""
    return [
        GenerationRequest(sample=r.sample, prompt_ids=(*r.prompt_ids, *c.token_ids[:take]))
        for r, group in zip(asked, groups, strict=True)
        for c in group
    ]


def same(a, b) -> None:
    assert [[c.token_ids for c in g] for g in a] == [[c.token_ids for c in g] for g in b]
    assert [[c.stop_reason for c in g] for g in a] == [[c.stop_reason for c in g] for g in b]
    for x, y in zip(a, b, strict=True):
        for c, d in zip(x, y, strict=True):
            assert_close(torch.tensor(c.logprobs), torch.tensor(d.logprobs), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llama"])
def test_the_same_ids_as_without_step_after_step(name):
    """Images, video and text; prefixes of unequal lengths; once from the start, then from prefixes, twice."""
    local, reusing = engines(name)
    asked = requests(local, questions(name))
    for step, n in enumerate((3, 2, 1)):
        params = SamplingParams(max_new_tokens=7 + step, n=n)
        groups = local.generate(asked, params, seed=step)
        same(reusing.generate(asked, params, seed=step), groups)
        asked = grown(asked, groups, take=4 + step)


def test_rows_that_end_early_are_kept_too():
    local, reusing = engines()
    asked = requests(local, questions("qwen2_5_vl"))
    stops = tuple({local.decode([t]) for g in local.generate(asked, SamplingParams(max_new_tokens=5, n=4), seed=0)
                   for c in g for t in c.token_ids[2:3]})  # fmt: skip
    params = SamplingParams(max_new_tokens=24, n=6, stop=tuple(s for s in stops if s))
    groups = local.generate(asked, params, seed=1)
    assert len({len(c.token_ids) for g in groups for c in g}) > 2, "rows end at different steps"
    same(reusing.generate(asked, params, seed=1), groups)
    longer = grown(asked, groups, take=24)
    before = reusing.positions
    again = reusing.generate(longer, SamplingParams(max_new_tokens=1), seed=2)
    assert reusing.positions - before == len(longer), "of each context only the last token was run"
    same(again, local.generate(longer, SamplingParams(max_new_tokens=1), seed=2))


def test_positions_that_went_through_the_model():
    local, reusing = engines()
    (request,) = requests(local, [ask("t", "how many red circles?")])
    (group,) = reusing.generate([request], SamplingParams(max_new_tokens=5, n=2), seed=0)
    lengths = [len(c.token_ids) for c in group]
    # The prompt once; of every sample all but its last token, which is never run.
    assert reusing.positions == len(request.prompt_ids) + sum(lengths) - 2
    reusing.generate([request], SamplingParams(max_new_tokens=1), seed=0)
    assert reusing.positions == len(request.prompt_ids) + sum(lengths) - 2 + 1


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llama"])
def test_states_and_logprobs_are_those_of_the_model(name):
    """The state is what the head turned into the next token's log-probability; a tail's log-probabilities are those of
    sampling it."""
    local, reusing = engines(name)
    asked = requests(local, questions(name))
    groups = local.generate(asked, SamplingParams(max_new_tokens=6), seed=0)
    contexts = grown(asked, groups, take=6)
    tails = [len(group[0].token_ids) for group in groups]
    fresh = reusing.passes(contexts, tails, logprobs=True)
    kept = reusing.passes(contexts, tails, logprobs=True)
    for group, a, b in zip(groups, fresh, kept, strict=True):
        assert_close(torch.tensor(a.logprobs), torch.tensor(group[0].logprobs), atol=1e-4, rtol=0)
        assert_close(a.states, b.states, atol=1e-4, rtol=1e-4)
    # Greedy continuation: the token that the state makes likeliest.
    following = local.generate(contexts, SamplingParams(max_new_tokens=1, temperature=0.0), seed=0)
    for found, ((completion,)) in zip(fresh, following, strict=True):
        logits = local.decoder.head.float() @ found.states[-1] + local.policy.logit_bias
        assert int(logits.argmax()) == completion.token_ids[0]


def test_without_room_everything_is_run_again_and_right():
    local, tight = engines(memory=1)
    asked = requests(local, [ask("t1", "how many red circles?"), ask("t2", "what colour is the square?")])
    params = SamplingParams(max_new_tokens=5)
    for request in asked:
        groups = local.generate([request], params, seed=0)
        same(tight.generate([request], params, seed=0), groups)
        longer = grown([request], groups, take=3)
        same(tight.generate(longer, params, seed=1), local.generate(longer, params, seed=1))


def test_new_weights_and_another_edit_empty_the_memory():
    local, reusing = engines()
    asked = requests(local, [ask("t", "how many red circles?")])
    params = SamplingParams(max_new_tokens=8, n=3)
    before = reusing.generate(asked, params, seed=0)
    local.load_weights(text_weights(policy(seed=1)))
    after = local.generate(asked, params, seed=0)
    assert [c.token_ids for c in after[0]] != [c.token_ids for c in before[0]]
    same(reusing.generate(asked, params, seed=0), after)
    reusing.edit = lambda layer, update: update * 0.2
    steered = local.generate(asked, params, seed=0)
    assert [c.token_ids for c in steered[0]] != [c.token_ids for c in after[0]]
    same(reusing.generate(asked, params, seed=0), steered)


def test_two_samples_of_one_id_after_forgetting():
    reusing = PrefixEngine(LocalEngine(policy()))
    first, second = ask("x", "how many red circles?"), ask("x", "what colour is the square?")
    params = SamplingParams(max_new_tokens=6)
    reusing.generate(requests(reusing, [first]), params, seed=0)
    reusing.forget()
    found = reusing.generate(requests(reusing, [second]), params, seed=0)
    fresh = LocalEngine(policy())
    same(found, fresh.generate(requests(fresh, [second]), params, seed=0))
