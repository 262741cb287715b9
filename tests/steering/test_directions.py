"""Directions: formulas, files, hooks that leave no trace, the same edit in the decoder."""

from __future__ import annotations

import importlib
import json
import math
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rollout.tiny_policies import ask, picture, policy, questions, requests
from safeladder.models.families import FAMILIES
from safeladder.models.load import freeze_vision
from safeladder.models.policy import Policy
from safeladder.rollout.continuous import ContinuousEngine
from safeladder.rollout.local import LocalEngine
from safeladder.steering import layers as registry
from safeladder.steering.directions import (
    Direction,
    Directions,
    decoder_edit,
    fingerprint,
    load_directions,
    shifted,
)
from safeladder.steering.hooks import Steerer, at_places, language_states, steered, tower_places
from safeladder.steering.layers import tower_layers, tower_mlps, tower_width
from safeladder.types import SafeladderError, SamplingParams

NAMES = ("qwen2_5_vl", "internvl", "llama")
SIGHTED = ("qwen2_5_vl", "internvl")


def direction(of: Policy, tower: Any = "language", *, name: str = "d", grid: tuple[int, ...] = (), **more: Any):
    depth, width = len(tower_layers(of.model, of.family, tower)), tower_width(of.model, of.family, tower)
    generator = torch.Generator().manual_seed(len(name) + len(tower))
    vectors = torch.randn(depth, *grid, width, generator=generator)
    settings = {"scale": 1.0, **more}
    return Direction(
        name=name, tower=tower, layers=tuple(range(depth)), vectors=vectors, method="mean", n=3, **settings
    )


def directions(of: Policy, *items: Direction) -> Directions:
    return Directions(family=of.family.name, model=fingerprint(of.model), items=items)


def hidden(of: Policy, sample: Any) -> Tensor:
    return language_states(of, of.prompt(sample))


def hooks(of: Policy) -> int:
    """Hooks on all modules; transformers keeps some of its own."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in of.model.modules())


def seen(name: str) -> Any:
    return ask("x", "how many red circles?") if name == "llama" else ask("x", picture(1), "how many red circles?")


# formulas


def test_norm_preserving_by_hand():
    # ‖x‖ = 5, x/‖x‖ = (0.6, 0.8); d̂ = (1, 0); 0.5 · 0.8 · d̂ = (0.4, 0): the sum is (1, 0.8), its length √1.64.
    x, d = torch.tensor([3.0, 4.0]), torch.tensor([7.0, 0.0])
    expected = torch.tensor([5 / math.sqrt(1.64), 4 / math.sqrt(1.64)])
    torch.testing.assert_close(shifted(x, d, mode="norm_preserving", scale=0.5, strength=0.8), expected)


def test_additive_by_hand():
    # x + 0.5 · 0.8 · d = (3 + 2.8, 4): the direction keeps its length.
    x, d = torch.tensor([3.0, 4.0]), torch.tensor([7.0, 0.0])
    torch.testing.assert_close(shifted(x, d, mode="additive", scale=0.5, strength=0.8), torch.tensor([5.8, 4.0]))


@given(st.integers(0, 10**6), st.floats(0.0, 0.9), st.floats(-1.0, 1.0))
def test_norms_are_preserved(seed: int, scale: float, strength: float):
    generator = torch.Generator().manual_seed(seed)
    x, d = torch.randn(3, 5, 8, generator=generator), torch.randn(8, generator=generator)
    moved = shifted(x, d, mode="norm_preserving", scale=scale, strength=strength)
    torch.testing.assert_close(moved.norm(dim=-1), x.norm(dim=-1), rtol=1e-4, atol=1e-5)


def test_a_zero_state_stays_zero():
    assert not shifted(torch.zeros(4), torch.ones(4), mode="norm_preserving", scale=0.1, strength=1.0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["norm_preserving", "additive"])
def test_G07_scale_is_free_and_the_data_type_is_kept(mode, dtype):
    x, d = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)).to(dtype), torch.ones(8)
    moved = {s: shifted(x, d, mode=mode, scale=s, strength=0.9) for s in (0.0, 0.1, 0.4)}
    assert all(m.dtype == dtype for m in moved.values())
    torch.testing.assert_close(moved[0.0], x, rtol=1e-2, atol=1e-2)
    assert (moved[0.4] - x).float().norm() > 2 * (moved[0.1] - x).float().norm() > 0


def test_G07_a_bfloat16_model_stays_bfloat16():
    model = policy("internvl")
    half = Policy(model.model.to(torch.bfloat16), model.processor, model.family).eval()
    items = [direction(half, "vision", grid=(4, 4)), direction(half)]
    kinds = []
    handles = [
        layer.register_forward_hook(lambda module, args, output: kinds.append(output.dtype))
        for tower in ("vision", "language")
        for layer in tower_mlps(half.model, half.family, tower)
    ]
    with Steerer(half.model, half.family, items):
        hidden(half, seen("internvl"))
    for handle in handles:
        handle.remove()
    assert kinds and set(kinds) == {torch.bfloat16}


# layers


def test_G01_every_module_imports_under_its_own_spelling():
    """Also where file names are told apart by case: the name on disk is, letter by letter, the name imported."""
    folder = Path(registry.__file__).parent
    names = {"directions", "direction_data", "effects", "estimating", "hooks", "layers", "noise", "treble", "vti"}
    assert {f"{name}.py" for name in names} <= set(os.listdir(folder))
    for name in names:
        assert importlib.import_module(f"safeladder.steering.{name}").__name__.endswith(f".{name}")


@pytest.mark.parametrize("name", NAMES)
def test_G04_module_paths_are_those_of_each_family(name):
    model = policy(name).model
    found = {path for path, module in model.named_modules() if path.endswith(".mlp")}
    for (family, tower), path in registry.LAYERS.items():
        if family != name:
            continue
        mlps = tower_mlps(model, FAMILIES[name], tower)
        paths = {p for p, module in model.named_modules() if any(module is m for m in mlps)}
        assert paths == {f"{path.layers}.{i}.mlp" for i in range(len(mlps))} <= found
    assert {f for f, _ in registry.LAYERS} == set(FAMILIES)


def test_G06_no_module_is_found_by_a_part_of_its_name():
    model = policy("qwen2_5_vl")
    steered_ones = {id(m) for t in ("language", "vision") for m in tower_mlps(model.model, model.family, t)}
    merger = model.model.get_submodule("model.visual.merger.mlp")  # holds "mlp" in its name, and is no layer's
    assert id(merger) not in steered_ones


@pytest.mark.parametrize("name", SIGHTED)
def test_G06_as_many_layers_are_hooked_as_the_model_has(name):
    model = policy(name)
    with Steerer(model.model, model.family, [direction(model), direction(model, "vision")]) as steerer:
        assert steerer.hooked == len(tower_layers(model.model, model.family, "language")) + 1
    assert steerer.hooked == 0
    text = model.model.config.get_text_config()
    text.num_hidden_layers += 1
    with pytest.raises(SafeladderError, match=r"has 2 layers, the config says 3"):
        tower_layers(model.model, model.family, "language")
    text.num_hidden_layers -= 1


def test_a_family_without_vision_has_no_vision_tower():
    model = policy("llama")
    with pytest.raises(SafeladderError, match="llama family has no vision tower"):
        tower_layers(model.model, model.family, "vision")


def test_layers_that_are_not_there_are_an_error():
    model = policy("llama")
    wrong = replace(direction(model), layers=(0, 7))
    with pytest.raises(SafeladderError, match="there are 2"), Steerer(model.model, model.family, [wrong]):
        pass
    assert hooks(model) == 0


# context managers


@pytest.mark.parametrize("name", NAMES)
def test_G10_nothing_is_left_of_steering(name):
    """Nested, out of order of strength, and after an exception: bit-identical, no hook, no changed weight."""
    model, sample = policy(name), seen(name)
    items = [direction(model)] + ([] if name == "llama" else [direction(model, "vision", grid=(2, 3))])
    weights = {k: v.clone() for k, v in model.model.state_dict().items()}
    before, installed = hidden(model, sample), hooks(model)
    with Steerer(model.model, model.family, items):
        once = hidden(model, sample)
        with Steerer(model.model, model.family, [direction(model, name="other")]):
            twice = hidden(model, sample)
        assert torch.equal(hidden(model, sample), once)
    assert not torch.allclose(once, before) and not torch.allclose(twice, once)
    with pytest.raises(ZeroDivisionError), Steerer(model.model, model.family, items):
        raise ZeroDivisionError
    assert torch.equal(hidden(model, sample), before)
    assert hooks(model) == installed
    assert all(torch.equal(v, weights[k]) for k, v in model.model.state_dict().items())


def test_G10_one_steerer_may_be_entered_twice():
    model, sample = policy("llama"), seen("llama")
    steerer = Steerer(model.model, model.family, [direction(model)])
    before = hidden(model, sample)
    with steerer:
        once = hidden(model, sample)
        with steerer:
            assert not torch.allclose(hidden(model, sample), once)
        assert torch.equal(hidden(model, sample), once)
    assert torch.equal(hidden(model, sample), before)


def test_a_direction_of_no_strength_is_not_installed():
    model = policy("llama")
    with Steerer(model.model, model.family, directions(model, direction(model)).with_strength(0.0)) as steerer:
        assert steerer.hooked == 0


def test_other_threads_can_be_left_alone():
    model, sample = policy("llama"), seen("llama")
    before = hidden(model, sample)
    found: list[Tensor] = []
    with Steerer(model.model, model.family, [direction(model)], this_thread=True):
        worker = threading.Thread(target=lambda: found.append(hidden(model, sample)))
        worker.start()
        worker.join()
        assert not torch.allclose(hidden(model, sample), before)
    assert torch.equal(found[0], before)


def test_one_layer_alone():
    model, sample = policy("llama"), seen("llama")
    last = replace(direction(model), layers=(1,), vectors=torch.ones(1, 32))
    before = hidden(model, sample)
    with Steerer(model.model, model.family, [last]):
        after = hidden(model, sample)
    assert torch.equal(after[0], before[0]) and not torch.allclose(after[1], before[1])


def test_token_masks_and_rows():
    """Masked tokens keep their update bit by bit; of a batch only the chosen rows are steered."""
    model = policy("llama")
    update = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    moved = decoder_edit([direction(model)], mask=mask)(0, update)
    assert torch.equal((moved != update).any(dim=-1), mask)
    moved = decoder_edit([direction(model)], rows=torch.tensor([False, True]))(0, update)
    assert torch.equal(moved[0], update[0]) and (moved[1] != update[1]).any(dim=-1).all()


def test_prompt_or_generated_tokens_and_a_schedule():
    model = policy("llama")
    prompt, token = torch.ones(1, 4, 32), torch.ones(1, 1, 32)
    changed = {}
    for tokens in ("all", "prompt", "generated"):
        edit = decoder_edit([direction(model)], tokens=tokens)
        changed[tokens] = [not torch.equal(edit(0, x), x) for x in (prompt, token, token, prompt)]
    assert changed == {
        "all": [True, True, True, True],
        "prompt": [True, False, False, True],
        "generated": [False, True, True, False],
    }
    fading = decoder_edit([direction(model)], schedule=lambda step: 0.5**step)
    sizes = [(fading(0, x) - x)[0, -1].norm() for x in (prompt, token, token)]
    assert sizes[0] > sizes[1] > sizes[2] > 0


# the decoder


@pytest.mark.parametrize("mode", ["norm_preserving", "additive"])
@pytest.mark.parametrize("name", NAMES)
def test_hooks_and_decoder_agree(name, mode):
    """The same directions on the Hugging Face modules and in the fast decoder: states within 1e-5."""
    model = policy(name)
    engine = LocalEngine(model)
    items = directions(model, direction(model, mode=mode, scale=0.3), direction(model, name="second", mode=mode))
    sample = seen(name)
    prompt = model.prompt(sample)
    embeddings, _ = model.embed(torch.tensor([prompt.ids]), [prompt])
    place = prompt.positions.unsqueeze(1)
    cos, sin = engine.decoder.rotary(embeddings, place if model.family.rope_dimensions == 3 else place[0])
    cache = engine.decoder.new_cache(1, len(prompt.ids))
    with torch.no_grad():
        ours = engine.decoder.forward(embeddings, cos, sin, cache, None, decoder_edit(items))
        with Steerer(model.model, model.family, items):
            states = language_states(model, prompt)
        theirs = model.family.text_model(model.model).norm(states[-1])
    plain = model.family.text_model(model.model).norm(language_states(model, prompt)[-1])
    assert (ours[0] - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))
    assert (theirs - plain).abs().max() > 1e-2


def test_a_batch_may_hold_steered_and_plain_rows():
    model = policy("llama")
    engine = LocalEngine(model)
    item = direction(model)
    x = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(2))
    place = torch.arange(6).expand(2, 6)

    def run(rows: slice, edit: Any) -> Tensor:
        part = x[rows]
        cos, sin = engine.decoder.rotary(part, place[rows])
        return engine.decoder.forward(part, cos, sin, engine.decoder.new_cache(len(part), 6), None, edit)

    mixed = run(slice(0, 2), decoder_edit([item], rows=torch.tensor([True, False])))
    torch.testing.assert_close(mixed[:1], run(slice(0, 1), decoder_edit([item])), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed[1:], run(slice(1, 2), None), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("name", SIGHTED)
def test_cached_vision_features_never_leak(name, frozen):
    """Plain, steered, plain, steered: every run sees the picture in its own way, whatever is remembered between."""
    model = policy(name)
    if frozen:
        freeze_vision(model.model, model.family)
    engine = LocalEngine(model)
    items = directions(model, direction(model, "vision", scale=3.0))
    params = SamplingParams(max_new_tokens=6, n=2)

    def said(engine: LocalEngine) -> list:
        asked = requests(engine, questions(name))
        return [[c.logprobs for c in group] for group in engine.generate(asked, params, seed=1)]

    plain = said(engine)
    with steered(engine, items):
        under = said(engine)
    assert said(engine) == plain != under
    with steered(engine, items):
        assert said(engine) == under
        assert said(engine) == under
    with pytest.raises(ZeroDivisionError), steered(engine, items):
        said(engine)
        raise ZeroDivisionError
    assert said(engine) == plain
    assert engine.edit is None


def test_steered_and_plain_requests_share_the_continuous_engine():
    """The same picture and words, one request under both towers' directions, one plain, decoded together."""
    model = policy("qwen2_5_vl")
    freeze_vision(model.model, model.family)
    items = directions(model, direction(model, "vision", scale=3.0), direction(model))
    sample, params = ask("x", picture(1), "how many?"), SamplingParams(max_new_tokens=5, temperature=0.0)
    engine = LocalEngine(model)
    request = requests(engine, [sample])[0]
    plain = engine.generate([request], params, seed=1)[0][0]
    with steered(engine, items):
        under = engine.generate([request], params, seed=1)[0][0]
    assert under.logprobs != pytest.approx(plain.logprobs, abs=1e-3)
    shared = ContinuousEngine(model)
    try:
        vision = items.of("vision")
        tickets = [
            shared.submit(
                request,
                params,
                seed=1,
                edit=decoder_edit(items) if on else None,
                vision_edit=(lambda: Steerer(model.model, model.family, vision, this_thread=True)) if on else None,
            )
            for on in (True, False, True)
        ]
        found = [ticket.result()[0] for ticket in tickets]
    finally:
        shared.close()
    for completion, expected in zip(found, (under, plain, under), strict=True):
        assert completion.token_ids == expected.token_ids
        assert completion.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


# pictures of different sizes


@pytest.mark.parametrize("size", [(56, 56), (84, 140)])
def test_G08_a_direction_with_a_grid_fits_pictures_of_any_size(size):
    model = policy("qwen2_5_vl")
    image = picture(1).resize(size)
    prompt = model.prompt(ask("x", image, "what?"))
    grid = direction(model, "vision", grid=(4, 4))
    plain = model.visual_features([prompt])
    for item in (grid, grid.pooled()):
        with Steerer(model.model, model.family, [item]):
            moved = model.visual_features([prompt])
        assert moved.shape == plain.shape and not torch.allclose(moved, plain)
    constant = replace(grid, vectors=grid.vectors[:, :1, :1].expand(-1, 4, 4, -1))
    with Steerer(model.model, model.family, [constant]):
        everywhere = model.visual_features([prompt])
    with Steerer(model.model, model.family, [constant.pooled()]):
        torch.testing.assert_close(model.visual_features([prompt]), everywhere, atol=1e-5, rtol=1e-5)


def test_G08_places_by_hand():
    """A grid of two columns with values 0 and 1: centres keep theirs, the middle is their mean, borders are clamped."""
    grid = torch.tensor([[[0.0], [1.0]]])
    places = torch.tensor([[0.5, 0.25], [0.5, 0.75], [0.5, 0.5], [0.1, 0.01], [torch.nan, torch.nan]])
    assert at_places(grid, places).flatten().tolist() == pytest.approx([0.0, 1.0, 0.5, 0.0, 0.5])


def test_G08_qwen_places_follow_the_order_of_its_windows():
    """What the tower's first patches hold, moved through its own window order, lies where `tower_places` says."""
    model = policy("qwen2_5_vl")
    config = model.model.config.vision_config
    grids = torch.tensor([[1, 4, 8], [1, 12, 4]])
    places = tower_places(model.family, config, (None, grids), {})
    assert len(places) == 4 * 8 + 12 * 4
    first, second = places[:32], places[32:]
    for part, (height, width) in ((first, (4, 8)), (second, (12, 4))):
        cells = {(round(float(y) * height - 0.5), round(float(x) * width - 0.5)) for y, x in part}
        assert cells == {(y, x) for y in range(height) for x in range(width)}
    # Patches that are merged into one token are neighbours: the first four are a 2 x 2 block.
    assert [tuple(p) for p in (first[:4] * torch.tensor([4, 8]) - 0.5).tolist()] == [(0, 0), (0, 1), (1, 0), (1, 1)]


# files


def test_saved_directions_come_back(tmp_path):
    model = policy("qwen2_5_vl")
    kept = replace(directions(model, direction(model, "vision", grid=(2, 3)), direction(model)), about={"seed": 3})
    kept.save(tmp_path / "steering" / "treble")
    found = load_directions(tmp_path / "steering" / "treble")
    assert (found.family, found.model, dict(found.about)) == (kept.family, kept.model, {"seed": 3})
    for a, b in zip(kept.items, found.items, strict=True):
        assert torch.equal(a.vectors, b.vectors) and a.vectors.ndim == b.vectors.ndim
        assert replace(a, vectors=b.vectors).__repr__() == b.__repr__()
    found.require(model.model, model.family)


def test_directions_of_another_model_are_refused():
    model, other = policy("llama"), policy("llama", seed=1)
    kept = directions(model, direction(model))
    with pytest.raises(SafeladderError, match="other weights"):
        kept.require(other.model, other.family)
    with pytest.raises(SafeladderError, match="of a llama model, not of a internvl one"):
        kept.require(policy("internvl").model, FAMILIES["internvl"])
    with torch.no_grad():
        model.model.model.layers[0].mlp.down_proj.weight.mul_(1.1)
    with pytest.raises(SafeladderError, match="other weights"):
        kept.require(model.model, model.family)


def test_a_fingerprint_does_not_depend_on_the_data_type():
    model = policy("llama").model
    assert fingerprint(model) == fingerprint(model.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(format=2), "format 2"),
        (lambda s: s.pop("model"), "damaged"),
        (lambda s: s["directions"][0].update(layers=[0]), "damaged"),
        (lambda s: s["directions"][0].update(mode="sideways"), "damaged"),
        (lambda s: s["directions"][0].update(name="gone"), "damaged"),
    ],
)
def test_damaged_files_are_one_clear_line(tmp_path, change, message):
    model = policy("llama")
    directions(model, direction(model)).save(tmp_path)
    settings = json.loads((tmp_path / "directions.json").read_text())
    change(settings)
    (tmp_path / "directions.json").write_text(json.dumps(settings))
    with pytest.raises(SafeladderError, match=message) as raised:
        load_directions(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_without_directions_says_what_writes_them(tmp_path):
    with pytest.raises(SafeladderError, match="safeladder directions fit writes them"):
        load_directions(tmp_path)
    (tmp_path / "directions.json").write_text("{}")
    (tmp_path / "directions.safetensors").write_bytes(b"no tensors")
    with pytest.raises(SafeladderError, match="cannot be read"):
        load_directions(tmp_path)


def test_names_and_strengths():
    model = policy("llama")
    found = directions(model, direction(model, name="a"), direction(model, name="b"))
    assert [d.strength for d in found.with_strength({"a": 0.0, "b": 2.0}, scale=0.5).items] == [0.0, 2.0]
    assert [d.name for d in found.only("b").items] == ["b"]
    assert [d.name for d in found.with_strength({"a": 0.0}).of("language")] == ["b"]
    with pytest.raises(SafeladderError, match="no direction 'c'; there are: a, b"):
        found.with_strength({"c": 1.0})
