from __future__ import annotations

import pytest
import torch

from safeladder.models import families
from safeladder.models.families import family_of, forbidden_token_ids, tokenizer_of
from safeladder.models.policy import Policy
from safeladder.types import SafeladderError

from .conftest import FAMILY_NAMES, ask, encode, picture


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_accessors(tiny, name):
    model, processor, family = tiny(name)
    config = model.config
    assert family_of(config) is family and family_of(name) is family
    assert family.text_model(model).get_input_embeddings() is model.get_input_embeddings()
    assert family.lm_head(model) is model.get_output_embeddings()
    assert (family.vision_module(model) is None) == (name == "llama")
    vocabulary = tokenizer_of(processor).get_vocab()
    assert family.image_token_id(config) == vocabulary.get(family.image_token)
    assert family.video_token_id(config) == vocabulary.get(family.video_token)


def test_the_families_say_what_they_take(tiny):
    taken = {n: (tiny(n)[2].supports_images, tiny(n)[2].supports_video) for n in FAMILY_NAMES}
    assert taken == {"qwen2_5_vl": (True, True), "internvl": (True, False), "llama": (False, False)}


@pytest.mark.parametrize("unknown", ["gpt2", "qwen2_vl", "", torch.nn.Linear(1, 1)])
def test_unknown_family(unknown):
    with pytest.raises(SafeladderError, match="allowed: qwen2_5_vl, internvl, llama"):
        family_of(unknown)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_forbidden_ids(tiny, name):
    model, processor, family = tiny(name)
    tokenizer = tokenizer_of(processor)
    forbidden = forbidden_token_ids(processor, model.config)
    assert forbidden == forbidden_token_ids(tokenizer, model.config)
    rows = family.lm_head(model).weight.shape[0]
    assert rows % 64 == 0 and rows > len(tokenizer)
    kinds = {
        "qwen2_5_vl": [
            "<|im_start|>",
            "<|vision_start|>",
            "<|vision_end|>",
            "<|image_pad|>",
            "<|video_pad|>",
        ],
        "internvl": ["<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"],
        "llama": ["<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
    }[name]
    expected = {tokenizer.convert_tokens_to_ids(t) for t in [*kinds, tokenizer.pad_token]}
    assert forbidden == sorted(expected | set(range(len(tokenizer), rows)))
    allowed = set(range(rows)) - set(forbidden)
    assert {tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(["<think>", "</think>"])} <= allowed
    assert set(family.stop_ids(tokenizer)) == {tokenizer.eos_token_id}


def test_stop_ids_include_the_turn_end_of_the_family(build):
    _, tokenizer = build("llama")
    tokenizer.add_tokens(["<|eot_id|>"], special_tokens=True)
    turn_end = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert family_of("llama").stop_ids(tokenizer) == (tokenizer.eos_token_id, turn_end)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl"])
def test_visual_features_are_the_models_own(tiny, name):
    """Scattering them into the embeddings gives the logits of the model's own forward pass."""
    model, processor, family = tiny(name)
    encoded = encode(processor, family, ask(picture(112, 56), "x", picture()))
    ids = torch.tensor([encoded.prompt_ids])
    grid = {} if encoded.image_grid_thw is None else {"image_grid_thw": encoded.image_grid_thw}
    with torch.no_grad():
        features = family.visual_features(model, encoded.pixel_values, encoded.image_grid_thw)
        embeddings = model.get_input_embeddings()(ids)
        where = (ids == family.image_token_id(model.config)).unsqueeze(-1)
        ours = family.text_model(model)(inputs_embeds=embeddings.masked_scatter(where, features))
        own = model(input_ids=ids, pixel_values=encoded.pixel_values, **grid).logits
    assert torch.equal(family.lm_head(model)(ours.last_hidden_state), own)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_text_model_takes_masks_as_the_family_says(tiny, name):
    """The causal mask given explicitly, boolean [B, 1, S, S], changes nothing."""
    model, _, family = tiny(name)
    ids = torch.tensor([[9, 8, 7, 10]])
    text = family.text_model(model)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()[None, None]
    place = torch.arange(4).expand(family.rope_dimensions, 1, 4)
    place = place if family.rope_dimensions == 3 else place[0]
    with torch.no_grad():
        expected = text(input_ids=ids).last_hidden_state
        for given in (mask, {"full_attention": mask}, None, {"full_attention": None}):
            if family.mask_is_mapping or not isinstance(given, dict):
                embeddings = text.get_input_embeddings()(ids)
                out = text(inputs_embeds=embeddings, position_ids=place, attention_mask=given, use_cache=False)
                torch.testing.assert_close(out.last_hidden_state, expected, atol=1e-6, rtol=0)


def test_indices_kept_while_sampling_serve_training_too(build):
    model, processor = build("qwen2_5_vl", seed=5)
    family = family_of("qwen2_5_vl")
    encoded = encode(processor, family, ask(picture(112, 56, seed=9), "how many"))
    families._window_layout.cache_clear()
    with torch.inference_mode():
        sampled = family.visual_features(model, encoded.pixel_values, encoded.image_grid_thw)
    trained = family.visual_features(model, encoded.pixel_values, encoded.image_grid_thw)
    assert torch.equal(sampled, trained)
    trained.sum().backward()


def test_patches_are_projected_as_the_convolution_does(build):
    model, processor = build("qwen2_5_vl")
    plain = model.visual.patch_embed.proj if hasattr(model, "visual") else model.model.visual.patch_embed.proj
    names = list(model.state_dict())
    before = [type(plain), plain.weight.clone()]
    pixels = torch.randn(5, *plain.weight.shape[1:], generator=torch.Generator().manual_seed(0))
    expected = plain(pixels)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), plain.weight)
    policy = Policy(model, processor, family_of("qwen2_5_vl"))
    assert before[0] is torch.nn.Conv3d and type(plain) is not torch.nn.Conv3d
    found = plain(pixels)
    (gradient,) = torch.autograd.grad(found.square().sum(), plain.weight)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-4, rtol=1e-4)
    assert plain(torch.cat((pixels, pixels), dim=2)).shape[2] == 2, "two patches in a row are still convolved"
    assert list(policy.model.state_dict()) == names
