"""The in-process engine: same distribution as the learner, same tokens as transformers, same ids for a
seed.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rollout.comparing import FAMILIES, gap, near, rows_of
from rollout.tiny_policies import ask, picture, policy, questions, requests
from safeladder.models.families import forbidden_token_ids
from safeladder.models.policy import Policy
from safeladder.rollout.local import LocalEngine, text_weights
from safeladder.training.batching import Row, TrainingResponse
from safeladder.types import GenerationRequest, SafeladderError, SamplingParams, StopReason


@pytest.mark.parametrize("share", [True, False], ids=["shared-prefix", "separate"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", FAMILIES)
def test_A06_parity_with_the_learner(name, temperature, share):
    """DESIGN 7: within 1e-4 in float32; images, video and text in one batch of unequal prompts."""
    learner = policy(name)
    engine = LocalEngine(learner)
    samples = questions(name)
    params = SamplingParams(max_new_tokens=14, temperature=temperature, n=3)
    groups = engine.generate(requests(engine, samples), params, seed=3)
    assert gap(learner, rows_of(engine, samples, groups), share=share, temperature=temperature) <= 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_parity_of_later_turns(name):
    """A second turn continues the positions of the first prompt, after an image too."""
    learner = policy(name)
    engine = LocalEngine(learner)
    samples = questions(name)
    first = requests(engine, samples)
    said = (7, 8, 9)
    follow = [GenerationRequest(sample=r.sample, prompt_ids=(*r.prompt_ids, *said)) for r in first]
    groups = engine.generate(follow, SamplingParams(max_new_tokens=8, n=1), seed=1)
    rows = [
        Row(
            prompt=engine.prompt(sample),
            responses=(
                TrainingResponse(
                    token_ids=(*said, *c.token_ids),
                    mask=(0,) * len(said) + (1,) * len(c.token_ids),
                    old_logprobs=(0.0,) * len(said) + c.logprobs,
                ),
            ),
        )
        for sample, (c,) in zip(samples, groups, strict=True)
    ]
    assert gap(learner, rows, share=True, temperature=1.0) <= 1e-4


def test_a_gap_would_be_seen():
    """The parity test is no tautology: an engine with other weights is far off."""
    learner = policy("llama")
    engine = LocalEngine(learner)
    samples = questions("llama")
    groups = engine.generate(requests(engine, samples), SamplingParams(max_new_tokens=8), seed=3)
    with torch.no_grad():
        learner.model.model.layers[0].mlp.down_proj.weight.mul_(1.1)
    assert gap(learner, rows_of(engine, samples, groups), share=True, temperature=1.0) > 1e-3


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("qwen2_5_vl", ask("a", "how many red circles?")),
        ("qwen2_5_vl", ask("b", picture(4), "how many red circles?")),
        ("qwen2_5_vl", ask("c", [picture(k) for k in range(4)], "how many?")),
        ("internvl", ask("d", picture(4), "how many red circles?")),
        ("llama", ask("e", "how many red circles?")),
    ],
    ids=["qwen-text", "qwen-image", "qwen-video", "internvl-image", "llama-text"],
)
def test_greedy_equals_transformers_generate(name, sample):
    learner = policy(name)
    engine = LocalEngine(learner)
    ids = engine.prompt_ids(sample)
    encoded = engine.prompt(sample).encoded
    ((found,),) = engine.generate(
        [GenerationRequest(sample=sample, prompt_ids=ids)],
        SamplingParams(max_new_tokens=20, temperature=0.0),
        seed=0,
    )
    tensor = torch.tensor([ids])
    config = learner.model.config
    visuals: dict[str, Any] = {}
    if encoded.pixel_values is not None:
        visuals["pixel_values"] = encoded.pixel_values
    if encoded.video_pixel_values is not None:
        visuals |= {
            "pixel_values_videos": encoded.video_pixel_values,
            "video_grid_thw": encoded.video_grid_thw,
        }
    if name == "qwen2_5_vl":
        visuals["image_grid_thw"] = encoded.image_grid_thw
        visuals["mm_token_type_ids"] = (tensor == config.image_token_id).int() + 2 * (
            tensor == config.video_token_id
        ).int()
    with torch.no_grad():
        expected = learner.model.generate(
            input_ids=tensor,
            attention_mask=torch.ones_like(tensor),
            max_new_tokens=20,
            do_sample=False,
            suppress_tokens=forbidden_token_ids(learner.processor, config),
            **{key: value for key, value in visuals.items() if value is not None},
        )[0, len(ids) :].tolist()
    assert list(found.token_ids) == expected
    assert len(set(expected)) > 2, "a constant reply would compare little"


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llama"])
def test_the_same_seed_gives_the_same_ids_whatever_the_split_and_order(name):
    engine = LocalEngine(policy(name))
    asked = requests(engine, questions(name))
    params = SamplingParams(max_new_tokens=10, n=4)
    whole = engine.generate(asked, params, seed=11)
    assert engine.generate(asked[::-1], params, seed=11)[::-1] == near(whole)
    alone = [engine.generate([request], params, seed=11)[0] for request in asked]
    assert alone == near(whole)
    narrow = LocalEngine(engine.policy, max_rows=4)
    assert narrow.generate(asked, params, seed=11) == near(whole)
    fewer = engine.generate(asked, SamplingParams(max_new_tokens=10, n=2), seed=11)
    assert fewer == near([group[:2] for group in whole])
    other = engine.generate(asked, params, seed=12)
    assert [c.token_ids for g in other for c in g] != [c.token_ids for g in whole for c in g]


def test_O03_log_probabilities_do_not_depend_on_the_batch():
    engine = LocalEngine(policy("qwen2_5_vl"))
    asked = requests(engine, questions("qwen2_5_vl"))
    params = SamplingParams(max_new_tokens=12, temperature=0.0)
    together = engine.generate(asked, params, seed=0)
    for request, (expected,) in zip(asked, together, strict=True):
        ((alone,),) = engine.generate([request], params, seed=0)
        assert alone.token_ids == expected.token_ids
        assert alone.logprobs == pytest.approx(expected.logprobs, abs=2e-5)


def test_members_of_a_group_differ():
    engine = LocalEngine(policy("llama"))
    (group,) = engine.generate(requests(engine, questions("llama")[:1]), SamplingParams(max_new_tokens=8, n=6), seed=0)
    assert len({c.token_ids for c in group}) == 6


def test_the_same_request_twice_is_sampled_twice():
    """Two episodes of one prompt that said the same so far must not go on in step for ever."""
    engine = LocalEngine(policy("llama"))
    (request,) = requests(engine, questions("llama")[:1])
    first, second = engine.generate([request, request], SamplingParams(max_new_tokens=8), seed=0)
    assert first[0].token_ids != second[0].token_ids
    assert engine.generate([request], SamplingParams(max_new_tokens=8), seed=0) == near([first])


@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
def test_forbidden_tokens_are_never_sampled(temperature):
    """Even where the model wants nothing else: their rows of the head are made to win by far."""
    learner = policy("qwen2_5_vl")
    forbidden = forbidden_token_ids(learner.processor, learner.model.config)
    assert len(forbidden) > 5
    engine = LocalEngine(learner)
    weights = text_weights(learner)
    head = weights["lm_head.weight"].detach().clone()
    head[forbidden] *= 1e3
    weights["lm_head.weight"] = head
    engine.load_weights(weights)
    groups = engine.generate(
        requests(engine, questions("qwen2_5_vl")),
        SamplingParams(max_new_tokens=16, temperature=temperature, n=4),
        seed=5,
    )
    sampled = {token for group in groups for c in group for token in c.token_ids}
    assert sampled and not sampled & set(forbidden)
    assert all(len(c.token_ids) == len(c.logprobs) for group in groups for c in group)


def test_temperature_sharpens_and_flattens():
    learner = policy("llama")
    engine = LocalEngine(learner)
    asked = requests(engine, questions("llama")[:1])

    def distinct(temperature: float) -> int:
        (group,) = engine.generate(asked, SamplingParams(max_new_tokens=1, temperature=temperature, n=200), seed=0)
        return len({c.token_ids[0] for c in group})

    cold, warm, hot = distinct(0.02), distinct(0.2), distinct(20.0)
    assert cold < warm < hot
    (greedy,) = engine.generate(asked, SamplingParams(max_new_tokens=6, temperature=0.0, n=3), seed=0)
    assert len({c.token_ids for c in greedy}) == 1


def test_samples_follow_the_stated_distribution():
    """The mean of exp(-logprob) over samples estimates the size of the support; frequencies match the
    logprobs.
    """
    engine = LocalEngine(policy("llama"), max_rows=4000)
    (group,) = engine.generate(
        requests(engine, questions("llama")[:1]),
        SamplingParams(max_new_tokens=1, temperature=0.6, n=4000),
        seed=1,
    )
    probability = {c.token_ids[0]: torch.tensor(c.logprobs[0]).exp().item() for c in group}
    token, p = max(probability.items(), key=lambda item: item[1])
    share = sum(c.token_ids[0] == token for c in group) / 4000
    assert share == pytest.approx(p, abs=4 * (p * (1 - p) / 4000) ** 0.5)


def test_why_a_generation_ended():
    """EOS keeps the end token and ends the row; a spent budget is LENGTH; one row's end leaves the
    others alone.
    """
    learner = policy("llama")
    engine = LocalEngine(learner)
    asked = requests(engine, questions("llama")[:1])
    learner.logit_bias[learner.eos_token_id] += 3.5  # ends every few tokens
    (group,) = engine.generate(asked, SamplingParams(max_new_tokens=12, n=40), seed=2)
    reasons = {c.stop_reason for c in group}
    assert reasons == {StopReason.EOS, StopReason.LENGTH}
    for c in group:
        ended = c.stop_reason is StopReason.EOS
        assert (c.token_ids[-1] == learner.eos_token_id) is ended
        assert learner.eos_token_id not in c.token_ids[:-1]
        assert ended or len(c.token_ids) == 12
        if ended:
            assert engine.decode(c.token_ids) == engine.decode(c.token_ids[:-1])
    rows = rows_of(engine, [asked[0].sample], [group])
    assert gap(learner, rows, share=True, temperature=1.0, max_tokens=2000) <= 1e-4, "after rows were dropped"


def test_the_last_token_of_the_budget_may_be_the_end():
    learner = policy("llama")
    learner.logit_bias[learner.eos_token_id] += 1e4
    engine = LocalEngine(learner)
    ((c,),) = engine.generate(requests(engine, questions("llama")[:1]), SamplingParams(max_new_tokens=1), seed=0)
    assert (c.token_ids, c.stop_reason) == ((learner.eos_token_id,), StopReason.EOS)


def ascii_policy() -> Policy:
    """Samples printable ASCII only, so that every token has a text of its own."""
    learner = policy("llama")
    for token in range(len(learner.logit_bias)):
        text = learner.tokenizer.decode([token])
        if not (text.isascii() and text.isprintable()):
            learner.logit_bias[token] = -1e9
    return learner


def test_stop_sequences_end_a_row_and_stay_in_it():
    engine = LocalEngine(ascii_policy())
    asked = requests(engine, questions("llama")[:2])
    free = engine.generate(asked, SamplingParams(max_new_tokens=16, n=4), seed=4)
    text = engine.decode(free[0][0].token_ids)
    stop = engine.decode(free[0][0].token_ids[4:6])
    groups = engine.generate(asked, SamplingParams(max_new_tokens=16, n=4, stop=(stop, "never said")), seed=4)
    cut = groups[0][0]
    assert cut.stop_reason is StopReason.STOP
    assert engine.decode(cut.token_ids) == text[: text.index(stop) + len(stop)]
    assert cut.token_ids == free[0][0].token_ids[: len(cut.token_ids)]
    for group, whole in zip(groups, free, strict=True):
        for c, w in zip(group, whole, strict=True):
            assert c.token_ids == w.token_ids[: len(c.token_ids)]
            assert (c.stop_reason is StopReason.STOP) == (stop in engine.decode(w.token_ids))


def test_a_stop_sequence_that_ends_inside_a_token_is_seen():
    """A tag's last character may share a token with what follows; the row must still end there."""
    engine = LocalEngine(ascii_policy())
    asked = requests(engine, questions("llama")[:1])
    (free,) = engine.generate(asked, SamplingParams(max_new_tokens=20, n=8), seed=4)
    for c in free:
        for i, token in enumerate(c.token_ids):
            piece = engine.decode([token])
            before = engine.decode(c.token_ids[:i])
            if len(piece) > 2 and piece[:-1] not in before:
                stop = piece[:-1]
                (group,) = engine.generate(asked, SamplingParams(max_new_tokens=20, n=8, stop=(stop,)), seed=4)
                ended = group[free.index(c)]
                assert ended.stop_reason is StopReason.STOP
                assert stop in engine.decode(ended.token_ids)
                assert stop not in engine.decode(ended.token_ids[:-1])
                return
    pytest.fail("the seed gives no token of two characters")


def test_a_prompt_that_does_not_fit_is_an_error_that_names_the_sample():
    learner = policy("llama")
    engine = LocalEngine(learner)
    (request,) = requests(engine, questions("llama")[:1])
    limit = learner.model.config.max_position_embeddings
    budget = limit - len(request.prompt_ids) + 1
    with pytest.raises(SafeladderError, match=rf"t1.*{limit + 1}.*{limit}"):
        engine.generate([request], SamplingParams(max_new_tokens=budget), seed=0)


def test_B09_every_way_of_sampling_runs():
    engine = LocalEngine(policy("qwen2_5_vl"))
    asked = requests(engine, questions("qwen2_5_vl"))
    for temperature in (0.0, 1.0):
        for stop in ((), ("a",)):
            for n in (1, 2):
                params = SamplingParams(max_new_tokens=3, temperature=temperature, n=n, stop=stop)
                groups = engine.generate(asked, params, seed=0)
                assert [len(g) for g in groups] == [n] * len(asked)
    assert engine.generate([], SamplingParams(max_new_tokens=3), seed=0) == []
