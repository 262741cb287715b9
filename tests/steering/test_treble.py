"""Treble and VTI: estimators by hand, the published order, every demonstration under its own question."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rollout.tiny_policies import ask, picture, policy
from safeladder.steering import treble as module
from safeladder.steering.estimating import DirectionEstimator, Reading, component, estimate
from safeladder.steering.hooks import Steerer, language_states
from safeladder.steering.noise import diffused, diffusion_signal, masked
from safeladder.steering.treble import EFFECTS, treble, with_zeros, without_image
from safeladder.steering.vti import Demonstration, Settings, place_components, text_direction, vision_direction, vti
from safeladder.types import SafeladderError

QUICK = Settings(trials=3)
SIGHTED = ("qwen2_5_vl", "internvl")


def demos(n: int = 3, size: int = 56) -> list[Demonstration]:
    questions = ("how many red circles are there?", "what colour is the square?", "how many?")
    return [
        Demonstration(
            sample=ask(f"d{i}", picture(i, size), questions[i % 3]),
            truthful="one square",
            hallucinated="two circles, one square"[: 6 + i],
        )
        for i in range(n)
    ]


# estimators


def test_mean_by_hand():
    positive = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
    negative = torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]])
    # differences (1, 1) and (2, -1)
    assert estimate(positive, negative, "mean").tolist() == [[1.5, 0.0]]


def test_pca_by_hand():
    """Rows (0,0), (2,0), (4,0), (10,0) + noise-free second axis: mean 4, centred scores -4, -2, 0, 6; the largest is
    positive, so the component is (1, 0): the direction is (4 + 1, 0)."""
    rows = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0], [10.0, 0.0]])
    torch.testing.assert_close(component(rows), torch.tensor([5.0, 0.0]))
    # Mirrored, the largest score is that of -10: it is made positive, so the component points to the negative side.
    torch.testing.assert_close(component(-rows), torch.tensor([-5.0, 0.0]))


def test_pca_is_that_of_scikit_learn():
    pca = pytest.importorskip("sklearn.decomposition")
    from sklearn.utils.extmath import svd_flip

    rows = np.random.default_rng(0).normal(size=(7, 12)) * np.arange(1, 13)
    u, _, vt = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    _, vt = svd_flip(u, vt, u_based_decision=True)
    found = component(torch.tensor(rows)).numpy()
    np.testing.assert_allclose(found, rows.mean(axis=0) + vt[0], atol=1e-6)
    fitted = pca.PCA(1).fit(rows).components_[0]
    assert abs(float(fitted @ (found - rows.mean(axis=0)))) == pytest.approx(1.0, abs=1e-6)


def test_pca_of_differences_that_are_alike_is_their_mean():
    rows = torch.ones(4, 3)
    torch.testing.assert_close(component(rows), torch.ones(3))


def test_lda_turns_away_from_noise():
    """Classes differ by (1, 1); the first axis is ten times noisier within them, so it counts far less."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 400, 1, 2, generator=generator) * torch.tensor([10.0, 1.0])
    found = estimate(noise[0] + 1.0, noise[1], "lda")[0]
    assert found[1] > 3 * found[0].abs()
    mean = estimate(noise[0] + 1.0, noise[1], "mean")[0]
    assert float(found.norm()) == pytest.approx(float(mean.norm()), rel=1e-4)


def test_too_few_pairs_are_an_error():
    one, none = torch.ones(1, 1, 2), torch.ones(0, 1, 2)
    for method in ("pca", "lda"):
        with pytest.raises(SafeladderError, match="needs 2 pairs or more"):
            estimate(one, one, method)
    with pytest.raises(SafeladderError, match="needs 1 pairs or more"):
        estimate(none, none, "mean")
    with pytest.raises(SafeladderError, match="no pairs"):
        DirectionEstimator(policy("llama")).fit([], "d")
    with pytest.raises(SafeladderError, match="1 demonstrations"):
        treble(policy("qwen2_5_vl"), demos(1), QUICK)


@pytest.mark.parametrize("position", ["last", "mean"])
def test_estimator_reads_the_states_of_what_was_said(position):
    """One pair, mean: the difference of the two readings, layer by layer."""
    model = policy("llama")
    sample = ask("x", "how many red circles?")
    first, second = Reading(sample=sample, said="one square"), Reading(sample=sample, said="two circles")
    found = DirectionEstimator(model, position=position, layers=[1]).fit([(first, second)], "d")
    read = []
    for said in ("one square", "two circles"):
        ids = model.tokenizer(said, add_special_tokens=False)["input_ids"]
        states = language_states(model, model.prompt(sample), ids)[1]
        read.append(states[-1] if position == "last" else states[-len(ids) :].mean(dim=0))
    torch.testing.assert_close(found.vectors, (read[0] - read[1]).unsqueeze(0))
    assert found.layers == (1,) and found.n == 1
    with pytest.raises(SafeladderError, match="has layers 0 to 1"):
        DirectionEstimator(model, layers=[5]).fit([(first, second)], "d")


@pytest.mark.parametrize("method", ["mean", "pca", "lda"])
def test_G03_every_estimator_runs_on_toy_data(method):
    model = policy("llama")
    pairs = [(Reading(sample=d.sample, said=d.truthful), Reading(sample=d.sample, said=d.hallucinated)) for d in [
        replace(d, sample=ask(d.sample.id, d.sample.question)) for d in demos()]]  # fmt: skip
    found = DirectionEstimator(model, method=method).fit(pairs, "d")
    assert found.vectors.shape == (2, 32) and found.vectors.isfinite().all() and found.vectors.any()


# perturbations


def test_diffusion_schedule_by_hand():
    """Step 0: β = σ(-6)·4.99e-3 + 1e-5 = 2.2338e-5, so ᾱ = 1 - β. The last β is σ(6)·4.99e-3 + 1e-5 = 4.98766e-3."""
    beta = 1 / (1 + math.exp(6)) * (5e-3 - 1e-5) + 1e-5
    assert diffusion_signal(0) == pytest.approx(1 - beta, abs=1e-12)
    last = 1 / (1 + math.exp(-6)) * (5e-3 - 1e-5) + 1e-5
    assert diffusion_signal(999) / diffusion_signal(998) == pytest.approx(1 - last, abs=1e-9)
    assert diffusion_signal(999) < diffusion_signal(500) < diffusion_signal(0)
    with pytest.raises(ValueError, match="outside"):
        diffusion_signal(1000)


def test_G03_diffusion_noise_runs_and_has_the_right_size():
    """√ᾱ of the picture is left; the noise's variance is 1 - ᾱ; a still picture's two frames show the same noise."""
    pixels = torch.zeros(400, 3 * 2 * 14 * 14)
    noisy = diffused(pixels, 2, 500, torch.Generator().manual_seed(0))
    assert float(noisy.var()) == pytest.approx(1 - diffusion_signal(500), rel=0.01)
    frames = noisy.view(400, 3, 2, -1)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])
    ones = torch.full((400, 1176), 5.0)
    again = diffused(ones, 2, 500, torch.Generator().manual_seed(0)) - noisy
    torch.testing.assert_close(again, torch.full_like(ones, 5 * math.sqrt(diffusion_signal(500))))


def test_masked_patches_take_the_mean_of_their_channel():
    pixels = torch.arange(10 * 3 * 4.0).view(10, 12)
    out = masked(pixels, 1, 2, 0.9, torch.Generator().manual_seed(0)).view(10, 3, 4)
    means = pixels.view(10, 3, 4).mean(dim=(0, 2))
    hidden = torch.stack([(row == means.unsqueeze(1)).all() for row in out])
    assert int(hidden.sum()) == 9
    tiles = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    out = masked(tiles, 1, 14, 0.5, torch.Generator().manual_seed(0))
    blocks = out.view(3, 2, 14, 2, 14).permute(1, 3, 0, 2, 4).flatten(0, 1)
    assert sum(bool((b.flatten(1).std(dim=1) < 1e-6).all()) for b in blocks) == 2


def test_something_is_always_left_to_see():
    pixels = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    out = masked(pixels, 1, 2, 0.99, torch.Generator().manual_seed(0))
    assert sum(bool(torch.equal(a, b)) for a, b in zip(out, pixels, strict=True)) == 1


# directions of pictures and words


def test_G09_places_and_layers_are_not_mixed():
    """Differences that are constant a layer: a place's direction has that layer's constant, nothing of the other."""
    n, places = 4, (2, 3)
    scale = torch.tensor([1.0, 2.0, 3.0, 5.0])
    layer_value = torch.tensor([1.0, 100.0])
    differences = scale.view(n, 1, 1, 1, 1) * layer_value.view(1, 2, 1, 1, 1).expand(n, 2, *places, 5)
    found = place_components(differences)
    assert found.shape == (2, *places, 5)
    # mean: 11/4 times the layer's value; component: (1, …, 100, …) / √(5·1² + 5·100²). The scores go with -1.75, -0.75,
    # 0.25 and 2.25: the largest is positive.
    unit = layer_value / math.sqrt(5 * (1 + 100**2))
    for layer in range(2):
        expected = float(2.75 * layer_value[layer] + unit[layer])
        assert found[layer].flatten().tolist() == pytest.approx([expected] * 30, rel=1e-4)


@pytest.mark.parametrize("name", SIGHTED)
def test_G05_every_demonstration_is_read_under_its_own_question(name):
    """Changing the question of the first demonstration changes the direction; the last one's is not used for all."""
    model = policy(name)
    before = text_direction(model, demos(), replace(QUICK, method="mean"), name="NT").vectors
    changed = demos()
    changed[0] = replace(changed[0], sample=ask("d0", picture(0), "12 squares?"))
    after = text_direction(model, changed, replace(QUICK, method="mean"), name="NT").vectors
    assert not torch.allclose(before, after)
    separate = torch.stack([
        DirectionEstimator(model).fit(
            [(Reading(sample=d.sample, said=d.truthful), Reading(sample=d.sample, said=d.hallucinated))], "d"
        ).vectors for d in demos()
    ])  # fmt: skip
    torch.testing.assert_close(before, separate.mean(dim=0))


def test_G02_settings_are_typed_and_nothing_else_is_read():
    assert Settings() == Settings(
        method="pca", perturbation="diffused", trials=50, step=500, hidden=0.99, places="interpolate", strength=0.9,
        scale=0.1, mode="norm_preserving", seed=42,
    )  # fmt: skip
    with pytest.raises(TypeError):
        Settings(rankk=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", SIGHTED)
def test_treble_in_the_published_order(name):
    """NT is what NT alone gives under NV, NVT what it gives under both; the model is left as it was."""
    model = policy(name)
    settings = replace(QUICK, scale=0.5)
    before = language_states(model, model.prompt(demos()[0].sample))
    found = treble(model, demos(), settings)
    assert [d.name for d in found.items] == list(EFFECTS)
    assert [d.tower for d in found.items] == ["vision", "language", "language"]
    assert torch.equal(language_states(model, model.prompt(demos()[0].sample)), before)
    assert all((d.scale, d.strength, d.n) == (0.5, 0.9, 3) for d in found.items)
    with Steerer(model.model, model.family, [found["NV"]]):
        under = text_direction(model, demos(), settings, name="NT")
    torch.testing.assert_close(under.vectors, found["NT"].vectors)
    alone = text_direction(model, demos(), settings, name="NT")
    assert not torch.allclose(alone.vectors, found["NT"].vectors)
    pairs = [
        (
            Reading(sample=without_image(d.sample), said=d.truthful),
            Reading(sample=with_zeros(model, d.sample), said=d.truthful),
        )
        for d in demos()
    ]
    with Steerer(model.model, model.family, [found["NV"], found["NT"]]):
        both = DirectionEstimator(model, method="pca").fit(pairs, "NVT")
    torch.testing.assert_close(both.vectors, found["NVT"].vectors)
    found.require(model.model, model.family)


@pytest.mark.parametrize("effect", EFFECTS)
def test_every_effect_can_be_fitted_alone(effect):
    found = treble(policy("qwen2_5_vl"), demos(2), QUICK, effects=[effect])
    assert [d.name for d in found.items] == [effect]


def test_unknown_effects_and_pictureless_demonstrations():
    model = policy("qwen2_5_vl")
    with pytest.raises(SafeladderError, match="unknown effect 'NX'"):
        treble(model, demos(2), QUICK, effects=["NX"])
    blind = [replace(d, sample=without_image(d.sample)) for d in demos(2)]
    with pytest.raises(SafeladderError, match="exactly one image"):
        treble(model, blind, QUICK)


def test_vti_masks_and_has_no_cross_term():
    model = policy("qwen2_5_vl")
    found = vti(model, demos(2), replace(QUICK, perturbation="masked"))
    assert [(d.name, d.tower) for d in found.items] == [("vision", "vision"), ("text", "language")]
    diffuse = vision_direction(model, demos(2), QUICK, name="vision")
    assert not torch.allclose(diffuse.vectors, found["vision"].vectors)


def test_G08_pictures_of_two_sizes_give_one_direction():
    """Two of three pictures are 56 pixels wide: their grid is kept, the third is resized to it."""
    model = policy("qwen2_5_vl")
    mixed = [*demos(2), Demonstration(sample=ask("w", picture(5, 112), "how many?"), truthful="a", hallucinated="b")]
    found = vision_direction(model, mixed, QUICK, name="NV")
    assert found.grid == (4, 4) and found.vectors.isfinite().all()
    pooled = vision_direction(model, mixed, replace(QUICK, places="pool"), name="NV")
    assert pooled.grid is None
    torch.testing.assert_close(pooled.vectors, found.vectors.mean(dim=(1, 2)))


def test_zeros_picture_is_zero_once_normalised():
    """All-zeros pixels, up to the rounding of the mean colour to 8 bits (half a step of 1/255, over the deviation)."""
    model = policy("qwen2_5_vl")
    zeros = model.prompt(with_zeros(model, demos()[0].sample)).encoded.pixel_values
    assert zeros is not None
    assert float(zeros.abs().max()) <= 0.5 / 255 / min(model.processor.image_processor.image_std) + 1e-6
    assert model.prompt(without_image(demos()[0].sample)).encoded.pixel_values is None


def test_G11_the_protocols_of_the_docs_have_a_runner():
    """POPE is the protocol the directions page names; its three kinds of question are made here, no other is named."""
    from pathlib import Path

    from safeladder.world.families.presence import PROTOCOLS

    page = (Path(__file__).parents[2] / "docs" / "directions.md").read_text(encoding="utf-8")
    assert all(f"{protocol}" in page for protocol in PROTOCOLS) and "benchmarks/treble.py" in page
    assert not {"CHAIR", "MME", "MMHal"} & set(page.replace(",", " ").replace(".", " ").split())
    assert module.EFFECTS == ("NV", "NT", "NVT")
