"""What the engine holds: the learner's weights, adapters merged, copied when it is told to."""

from __future__ import annotations

import pytest
import torch

from rollout.comparing import FAMILIES, gap, near, rows_of
from rollout.tiny_policies import ask, picture, policy, questions, requests
from safeladder.models.lora import add_lora, merge
from safeladder.models.policy import Policy
from safeladder.rollout.local import LocalEngine, text_weights
from safeladder.types import SamplingParams


def adapted(name: str) -> Policy:
    learner = policy(name, wrap=lambda model, family: add_lora(model, family, 4, 8))
    with torch.no_grad():
        for key, value in learner.named_parameters():
            if ".lora_B." in key:
                value.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(len(key)))
    return learner


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llama"])
def test_an_adapted_policy_samples_as_its_merged_model(name):
    learner = adapted(name)
    samples = questions(name)
    engine = LocalEngine(learner)
    params = SamplingParams(max_new_tokens=10, n=2)
    groups = engine.generate(requests(engine, samples), params, seed=9)
    assert gap(learner, rows_of(engine, samples, groups), share=True, temperature=1.0) <= 1e-4
    plain = LocalEngine(policy(name)).generate(requests(engine, samples), params, seed=9)
    assert [g[0].token_ids for g in plain] != [g[0].token_ids for g in groups], "the adapters matter"
    merged = Policy(merge(learner.model), learner.processor, learner.family).eval()
    assert LocalEngine(merged).generate(requests(engine, samples), params, seed=9) == near(groups)


def test_new_weights_are_taken_and_old_ones_kept_until_then():
    learner, other = policy("qwen2_5_vl"), policy("qwen2_5_vl", seed=1)
    engine = LocalEngine(learner)
    asked = requests(engine, questions("qwen2_5_vl"))
    params = SamplingParams(max_new_tokens=8, temperature=0.0)
    before = engine.generate(asked, params, seed=0)
    weights = {name: value.clone() for name, value in text_weights(other).items()}
    expected = text_weights(learner)
    engine.load_weights(weights)
    after = engine.generate(asked, params, seed=0)
    assert [g[0].token_ids for g in after] != [g[0].token_ids for g in before]
    with torch.no_grad():
        for value in weights.values():
            value.zero_()  # the engine holds copies
    assert engine.generate(asked, params, seed=0) == after
    engine.load_weights(expected)
    assert engine.generate(asked, params, seed=0) == before
    with torch.no_grad():
        learner.family.text_model(learner.model).layers[1].mlp.down_proj.weight.mul_(3.0)
    assert engine.generate(asked, params, seed=0) == before, "the learner moved, the engine has not been told"
    engine.sync()
    assert engine.generate(asked, params, seed=0) != before


def test_B12_a_sync_is_one_call_with_every_weight_byte_for_byte(monkeypatch):
    learner = policy("qwen2_5_vl")
    engine = LocalEngine(learner)
    with torch.no_grad():
        for weight in text_weights(learner).values():
            weight.add_(0.01)
    calls = []
    monkeypatch.setattr(engine, "load_weights", lambda weights: calls.append(dict(weights)))
    engine.sync()
    (sent,) = calls
    text = learner.family.text_model(learner.model)
    mine = [*text.parameters(), learner.family.lm_head(learner.model).weight]
    assert {p.data_ptr() for p in mine} == {p.data_ptr() for p in sent.values()}
    monkeypatch.undo()
    engine.sync()
    assert torch.equal(engine.decoder.embeddings, text.get_input_embeddings().weight)


@pytest.mark.parametrize("name", FAMILIES)
def test_B13_the_engine_holds_the_trainers_weights(name):
    """Every matrix of the learner is in the engine, bit by bit; nothing is shared with it."""
    learner = policy(name)
    decoder = LocalEngine(learner).decoder
    text = learner.family.text_model(learner.model)
    for layer, mine in zip(text.layers, decoder.layers, strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        qkv = torch.cat([p.weight for p in (attention.q_proj, attention.k_proj, attention.v_proj)])
        assert torch.equal(mine.qkv, qkv)
        assert torch.equal(mine.gate_up, torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
        assert torch.equal(mine.output, attention.o_proj.weight)
        assert torch.equal(mine.down, mlp.down_proj.weight)
        assert mine.down.data_ptr() != mlp.down_proj.weight.data_ptr()
    assert torch.equal(decoder.embeddings, text.get_input_embeddings().weight)
    assert torch.equal(decoder.head, learner.family.lm_head(learner.model).weight)


@pytest.mark.parametrize("frozen", [True, False])
def test_features_are_kept_only_while_the_vision_tower_stands_still(frozen):
    """Kept features of a moving tower would be stale, and would cut the tower off from its gradient."""
    learner = policy("qwen2_5_vl")
    learner.family.vision_module(learner.model).requires_grad_(not frozen)
    engine = LocalEngine(learner)
    sample = ask("i", picture(1), "how many red circles?")
    params = SamplingParams(max_new_tokens=8, temperature=0.0)
    before = engine.generate(requests(engine, [sample]), params, seed=0)
    assert (engine.prompt(sample).features is not None) is frozen
    with torch.no_grad():
        for value in learner.family.vision_module(learner.model).parameters():
            value.mul_(-2.0)
    moved = engine.generate(requests(engine, [sample]), params, seed=0)
    assert (moved[0][0].logprobs == before[0][0].logprobs) is frozen
