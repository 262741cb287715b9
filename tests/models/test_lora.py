from __future__ import annotations

import sys

import pytest
import torch

from safeladder.models.families import family_of
from safeladder.models.load import freeze_vision, load_checkpoint, save_checkpoint, trainable_parameters
from safeladder.models.lora import add_lora, is_lora, merge, merged_state_dict
from safeladder.types import SafeladderError

from .conftest import FAMILY_NAMES
from .test_load import logits


@pytest.fixture(params=FAMILY_NAMES)
def adapted(request, build):
    """A LoRA model whose adapters are no longer zero, with processor, family and name."""
    name = request.param
    model, processor = build(name)
    family = family_of(name)
    wrapped = add_lora(model, family, 4, 8)
    with torch.no_grad():
        for parameter_name, parameter in wrapped.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    return wrapped.eval(), processor, family, name


def test_lora_trains_only_adapters_of_the_text_model(adapted):
    model, _, family, _ = adapted
    names = trainable_parameters(model)
    assert names and all(".lora_" in n for n in names)
    assert all(f"model.{family.text_path}." in n for n in names)
    layers = {n.split(".lora_")[0].rpartition(".")[2] for n in names}
    assert layers == set(family.lora_targets)
    assert family.text_model(model) is family.text_model(model.get_base_model())
    freeze_vision(model, family)
    assert trainable_parameters(model).keys() == names.keys()


def test_fresh_adapters_change_nothing(build):
    model, processor = build("qwen2_5_vl")
    family = family_of("qwen2_5_vl")
    before = logits(model, processor, family, "qwen2_5_vl")
    wrapped = add_lora(model, family, 2, 4)
    assert torch.equal(logits(wrapped, processor, family, "qwen2_5_vl"), before)


def test_merged_logits_are_equal(adapted):
    model, processor, family, name = adapted
    before = logits(model, processor, family, name)
    with model.disable_adapter():
        assert not torch.allclose(logits(model, processor, family, name), before, atol=1e-3)
    merged = merge(model)
    assert not is_lora(merged) and merge(merged) is merged
    torch.testing.assert_close(logits(merged, processor, family, name), before, atol=1e-5, rtol=1e-5)


def test_exporting_leaves_the_model_as_it_is(adapted):
    model, *_ = adapted
    kept = {n: p.clone() for n, p in model.named_parameters()}
    weights = merged_state_dict(model)
    assert all(torch.equal(p, kept[n]) for n, p in model.named_parameters())
    plain = merge(model)
    assert weights.keys() == plain.state_dict().keys()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(weights[key], value, atol=1e-6, rtol=1e-6)
    assert merged_state_dict(plain).keys() == weights.keys()


def test_saved_merged(adapted, tmp_path):
    model, processor, family, name = adapted
    before = logits(model, processor, family, name)
    save_checkpoint(model, processor, tmp_path / "c")
    assert is_lora(model)
    again, its_processor, _ = load_checkpoint(tmp_path / "c", expected=name)
    torch.testing.assert_close(logits(again, its_processor, family, name), before, atol=1e-5, rtol=1e-5)


def test_targets_can_be_chosen(build):
    model, _ = build("llama")
    wrapped = add_lora(model, family_of("llama"), 2, 4, ["q_proj"])
    assert len(trainable_parameters(wrapped)) == 2 * 2


def test_bad_requests(build, monkeypatch):
    model, _ = build("llama")
    family = family_of("llama")
    with pytest.raises(SafeladderError, match=r"unknown LoRA targets \['qkv'\]; allowed: down_proj, .*q_proj"):
        add_lora(model, family, 2, 4, ["qkv"])
    with pytest.raises(SafeladderError, match="rank must be at least 1, not 0"):
        add_lora(model, family, 0, 4)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SafeladderError, match=r"install safeladder\[lora\]"):
        add_lora(model, family, 2, 4)
