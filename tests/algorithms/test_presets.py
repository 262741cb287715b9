"""The presets, the factory and its errors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import safeladder.algorithms
from safeladder.algorithms import PRESETS, Algorithm, Preset, advantages, build, losses
from safeladder.algorithms.algorithm import ADVANTAGES, LOSSES
from safeladder.algorithms.length import cale, soft_overlong
from safeladder.algorithms.losses import LossOutput, add_reference_kl
from safeladder.algorithms.validate import options
from safeladder.types import SafeladderError

REWARDS = torch.tensor([1.0, 0.0, 0.5, 0.7, 2.0, 2.0], dtype=torch.float64)
GROUPS = torch.tensor([0, 0, 0, 0, 1, 1])
LENGTHS = torch.tensor([6, 2, 5, 3, 4, 1])
COMPONENTS = torch.stack([REWARDS, REWARDS.flip(0)], dim=-1)


def _tokens() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    old = -2 * torch.rand(6, 6, generator=generator, dtype=torch.float64)
    new = old + 0.5 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
    new[0, 0] = old[0, 0] + 1.6  # past the cap of the drift and the bound of the dual clip, on either side
    new[2, 1] = old[2, 1] + 1.6
    ref = old + 0.5 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
    return new, old, ref, (torch.arange(6) < LENGTHS.unsqueeze(-1)).long()


NEW, OLD, REF, MASK = _tokens()
SIGNED = torch.tensor([1.0, -1.0, -0.5, 0.5, 2.0, -2.0], dtype=torch.float64)


def _rewards(algorithm: Algorithm) -> Tensor:
    return COMPONENTS if algorithm.preset.advantage == "gdpo" else REWARDS


def _loss(algorithm: Algorithm, **counts: Any) -> LossOutput:
    return algorithm.loss(NEW, OLD, SIGNED, MASK, ref_logprobs=REF, **counts)


def _behaviour(algorithm: Algorithm) -> dict[str, Any]:
    """Everything an algorithm can do to a batch, as plain numbers."""
    rewards = _rewards(algorithm)
    leaf = NEW.clone().requires_grad_()
    both = [algorithm.loss(leaf, OLD, sign * SIGNED, MASK, ref_logprobs=REF).loss for sign in (1, -1)]
    (both[0] + 2 * both[1]).backward()
    assert leaf.grad is not None
    return {
        "advantages": algorithm.advantages(rewards, GROUPS, LENGTHS).tolist(),
        "kept": algorithm.kept(rewards, GROUPS, LENGTHS).tolist(),
        "losses": [loss.item() for loss in both],
        "gradient": leaf.grad.tolist(),
    }


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs(name: str) -> None:
    algorithm = build(name)
    assert algorithm.preset == PRESETS[name]
    assert algorithm.preset.name == name
    a = algorithm.advantages(_rewards(algorithm), GROUPS, LENGTHS)
    assert a.shape == (6,)
    assert a.abs().sum() > 0
    output = _loss(algorithm)
    assert output.loss.isfinite()
    assert 0 < output.metrics["clip_fraction"] < 1.0001


def test_published_settings() -> None:
    grpo, dapo, dr = PRESETS["grpo"], PRESETS["dapo"], PRESETS["dr-grpo"]
    assert (grpo.reduction, grpo.reference_kl) == ("sequence-mean", {"weight": 0.04, "estimator": "k3"})
    assert (dapo.reduction, dapo.loss_options) == ("token-mean", {"clip_low": 0.2, "clip_high": 0.28})
    assert dapo.drop_degenerate
    assert dapo.reference_kl is None
    assert (dr.advantage, dr.reduction, dr.reference_kl) == ("dr-grpo", "constant", None)
    assert PRESETS["gspo"].reduction == "sequence-mean"


def test_A16_cpgd_is_the_papers_and_the_released_variant_has_its_own_name() -> None:
    paper, released = PRESETS["cpgd"], PRESETS["cpgd-released"]
    assert paper.loss_options == {"clip": 0.2, "drift_weight": 0.01, "drift_cap": 2.0}
    assert (paper.reference_kl, paper.reduction) == (None, "token-mean")
    assert not build("cpgd").needs_reference
    assert released.loss_options["drift_weight"] == 0
    assert (released.reference_kl, released.reduction) == (
        {"weight": 0.001, "estimator": "k3"},
        "sequence-mean",
    )
    assert build("cpgd-released").needs_reference


def test_cpgd_released_is_clipped_policy_gradient_plus_reference_kl() -> None:
    # Written out: per-sequence token means of the clipped log-ratio, then their mean; 0.001 * k3.
    a, x = SIGNED.unsqueeze(-1), NEW - OLD
    low, high = torch.tensor(0.8).log(), torch.tensor(1.2).log()
    phi = torch.minimum(x * a, x.clamp(low, high) * a)
    k3 = (REF - NEW).exp() - 1 - (REF - NEW)
    expected = (((-phi + 0.001 * k3) * MASK).sum(-1) / MASK.sum(-1)).mean()
    assert_close(_loss(build("cpgd-released")).loss, expected, atol=1e-6, rtol=0)


def test_dapo_is_clip_higher_with_a_token_mean() -> None:
    ratio, a = (NEW - OLD).exp(), SIGNED.unsqueeze(-1)
    surrogate = torch.minimum(ratio * a, ratio.clamp(0.8, 1.28) * a)
    assert_close(_loss(build("dapo")).loss, -(surrogate * MASK).sum() / MASK.sum())
    algorithm = build("dapo", overlong={"max_length": 6, "buffer": 2})
    shaped = REWARDS + torch.tensor([-1.0, 0.0, -0.5, 0.0, 0.0, 0.0])
    assert_close(algorithm.advantages(REWARDS, GROUPS, LENGTHS), advantages.grpo(shaped, GROUPS))


def test_dr_grpo_divides_by_a_constant() -> None:
    ratio, a = (NEW - OLD).exp(), SIGNED.unsqueeze(-1)
    surrogate = torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
    output = _loss(build("dr-grpo", max_length=64))
    assert_close(output.loss, -(surrogate * MASK).sum() / (6 * 64))
    # metrics stay means over tokens
    token_mean = losses.ppo_clip(NEW, OLD, SIGNED, MASK).metrics
    assert_close({k: output.metrics[k] for k in token_mean}, token_mean)


def test_cale_preset_sums_tokens_over_its_own_max_length() -> None:
    algorithm = build("cale", length={"max_length": 64})
    expected = cale(REWARDS, LENGTHS, GROUPS, alpha=0.96, mu=1.0, beta=0.0, max_length=64)
    assert_close(algorithm.advantages(REWARDS, GROUPS, LENGTHS), expected)
    half = build("cale", length={"max_length": 64, "mu": 0.5, "alpha": 1.0})
    dr = build("dr-grpo", max_length=64, loss_options={"clip_low": 0.2, "clip_high": 0.28})
    a, b = (x.advantages(REWARDS, GROUPS, LENGTHS) for x in (half, dr))
    assert_close(half.loss(NEW, OLD, a, MASK).loss, dr.loss(NEW, OLD, b, MASK).loss)


def test_length_is_an_option_of_any_preset() -> None:
    settings = {"alpha": 0.9, "mu": 1.0, "beta": 0.0, "max_length": 1}
    for name in PRESETS:
        overrides = {"overlong": None} if name == "dapo" else {}
        algorithm = build(name, length=settings, **overrides)
        expected = cale(REWARDS, LENGTHS, GROUPS, **settings)
        assert_close(algorithm.advantages(REWARDS, GROUPS, LENGTHS), expected)
        assert algorithm.preset.loss == PRESETS[name].loss


@pytest.mark.parametrize("name", PRESETS)
def test_B10_preset_losses_add_up_over_micro_batches(name: str) -> None:
    algorithm = build(name)
    whole = _loss(algorithm)
    counts = {"normalizer": MASK.sum(), "sequences": 6}
    parts = [
        algorithm.loss(
            NEW[i : i + 2],
            OLD[i : i + 2],
            SIGNED[i : i + 2],
            MASK[i : i + 2],
            ref_logprobs=REF[i : i + 2],
            **counts,
        )
        for i in (0, 2, 4)
    ]
    assert_close(sum(p.loss for p in parts), whole.loss)
    metrics: dict[str, Tensor] = {}
    for part in parts:
        metrics = losses.add_metrics(metrics, part.metrics)
    assert_close(metrics, whole.metrics)


def test_B02_one_factory_returns_the_configured_loss() -> None:
    # The same function decides for text and images: nothing but the preset's name enters.
    for name in ("cpgd", "gspo", "grpo"):
        preset = build(name, reference_kl=None).preset
        expected = LOSSES[preset.loss](NEW, OLD, SIGNED, MASK, reduction=preset.reduction, **preset.loss_options)
        assert_close(_loss(build(name, reference_kl=None)).loss, expected.loss)
    assert {type(build(name)) for name in PRESETS} == {Algorithm}


KL = {"weight": 0.2, "estimator": "k2"}
LENGTH = {"alpha": 0.9, "mu": 0.8, "beta": 0.1, "max_length": 2.0}
OVERLONG = {"max_length": 6, "buffer": 2, "factor": 1.0}
# (preset, overrides before, overrides after): the second must behave differently.
CHANGES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "advantage": ("grpo", {}, {"advantage": "rloo"}),
    "advantage_options": ("cpgd", {}, {"advantage_options": {"weighting": "equal"}}),
    "loss": ("grpo", {}, {"loss": "cpgd"}),
    "loss_options": ("grpo", {}, {"loss_options": {"clip_high": 0.1}}),
    "reduction": ("grpo", {}, {"reduction": "token-mean"}),
    "max_length": ("dr-grpo", {}, {"max_length": 10}),
    "reference_kl": ("cpgd", {}, {"reference_kl": KL}),
    "drop_degenerate": ("cpgd", {}, {"drop_degenerate": True}),
    "overlong": ("grpo", {}, {"overlong": OVERLONG}),
    "length": ("grpo", {}, {"length": LENGTH}),
    "grpo.eps": ("grpo", {}, {"advantage_options": {"eps": 0.5}}),
    "rloo.normalize": ("rloo", {}, {"advantage_options": {"normalize": True}}),
    "cpgd.weighting": ("cpgd", {}, {"advantage_options": {"weighting": "clip-filter"}}),
    "cpgd.weight_cap": (
        "cpgd",
        {"advantage_options": {"weighting": "clip-filter"}},
        {"advantage_options": {"weighting": "clip-filter", "weight_cap": 1.5}},
    ),
    "gdpo.weights": ("gdpo", {}, {"advantage_options": {"weights": [1.0, 0.3]}}),
    "gdpo.normalize": ("gdpo", {}, {"advantage_options": {"normalize": True}}),
    "loss ppo-clip.clip_low": ("grpo", {}, {"loss_options": {"clip_low": 0.3}}),
    "loss ppo-clip.clip_high": ("grpo", {}, {"loss_options": {"clip_high": 0.3}}),
    "loss ppo-clip.dual_clip": ("grpo", {}, {"loss_options": {"dual_clip": 2.0}}),
    "loss gspo.clip_low": ("gspo", {}, {"loss_options": {"clip_low": 0.5}}),
    "loss gspo.clip_high": ("gspo", {}, {"loss_options": {"clip_high": 0.9}}),
    "loss cpgd.clip": ("cpgd", {}, {"loss_options": {"clip": 0.3}}),
    "loss cpgd.drift_weight": ("cpgd", {}, {"loss_options": {"drift_weight": 0.0}}),
    "loss cpgd.drift_cap": ("cpgd", {}, {"loss_options": {"drift_cap": 0.5}}),
    "loss cpgd.clip_start": ("cpgd", {}, {"loss_options": {"clip_start": 0.2}}),
    **{f"length.{k}": ("cale", {}, {"length": {k: v}}) for k, v in LENGTH.items()},
    **{
        f"overlong.{k}": ("grpo", {"overlong": OVERLONG}, {"overlong": {**OVERLONG, k: v}})
        for k, v in (("max_length", 7), ("buffer", 3), ("factor", 0.5))
    },
    "reference_kl.weight": ("grpo", {}, {"reference_kl": {"weight": 0.5}}),
    "reference_kl.estimator": ("grpo", {}, {"reference_kl": {"estimator": "k2"}}),
}


def _every_option() -> Iterator[str]:
    yield from (f.name for f in fields(Preset) if f.name != "name")
    for name, function in ADVANTAGES.items():
        yield from (f"{name}.{option}" for option in options(function))
    for name, function in LOSSES.items():
        yield from (f"loss {name}.{option}" for option in options(function))
    for name, function in (("length", cale), ("overlong", soft_overlong), ("reference_kl", add_reference_kl)):
        yield from (f"{name}.{option}" for option in options(function))


def test_B03_the_list_of_changes_covers_every_field_and_option() -> None:
    assert set(CHANGES) == set(_every_option())


@pytest.mark.parametrize("change", CHANGES)
def test_B03_every_field_and_option_is_consumed(change: str) -> None:
    name, before, after = CHANGES[change]
    assert _behaviour(build(name, **before)) != _behaviour(build(name, **after))


def test_B04_preset_names_are_all_buildable_and_every_registry_entry_is_used() -> None:
    assert {p.advantage for p in PRESETS.values()} == {*ADVANTAGES, "cale"}
    assert {p.loss for p in PRESETS.values()} == set(LOSSES)


def test_kept_drops_degenerate_groups_only_where_asked() -> None:
    expected = torch.tensor([True, True, True, True, False, False])
    assert torch.equal(build("dapo").kept(REWARDS, GROUPS, LENGTHS), expected)
    assert build("grpo").kept(REWARDS, GROUPS).all()
    # Equal rewards, but one response is overlong: the advantage sees a difference, so the group is kept.
    overlong = build("dapo", overlong={"max_length": 6, "buffer": 3})
    assert overlong.kept(REWARDS, GROUPS, LENGTHS).all()
    assert torch.equal(build("gdpo", drop_degenerate=True).kept(COMPONENTS[:4], GROUPS[:4]), expected[:4])


def test_reference_is_measured_without_a_term_and_required_with_one() -> None:
    plain = build("cpgd").loss(NEW, OLD, SIGNED, MASK)
    measured = _loss(build("cpgd"))
    assert measured.loss == plain.loss
    assert "reference_kl" not in plain.metrics
    assert measured.metrics["reference_kl"] > 0
    with pytest.raises(SafeladderError, match="reference log-probabilities"):
        build("grpo").loss(NEW, OLD, SIGNED, MASK)


def test_missing_lengths_and_surplus_components_are_errors() -> None:
    with pytest.raises(SafeladderError, match="overlong needs the response lengths"):
        build("dapo").advantages(REWARDS, GROUPS)
    with pytest.raises(SafeladderError, match="length needs the response lengths"):
        build("cale").advantages(REWARDS, GROUPS)
    with pytest.raises(SafeladderError, match="only gdpo"):
        build("grpo").advantages(COMPONENTS, GROUPS)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("ppo", {}, "grpo, dr-grpo, dapo, gspo, rloo"),
        ("grpo", {"gamma": 1.0}, "'gamma'; allowed: advantage, loss"),
        ("grpo", {"advantage": "ppo"}, "allowed: grpo, dr-grpo"),
        ("grpo", {"advantage": "cale"}, "allowed: grpo, dr-grpo"),
        ("grpo", {"loss": "ppo"}, "allowed: ppo-clip, gspo, cpgd"),
        ("grpo", {"reduction": "mean"}, "token-mean, sequence-mean, constant"),
        ("grpo", {"loss_options": {"gspo_alpha": 1}}, "clip_low, clip_high, dual_clip"),
        ("grpo", {"loss_options": [1]}, "mapping"),
        ("grpo", {"loss_options": {"clip_low": 2.0}}, "clip_low is 2.0"),
        ("grpo", {"loss_options": {"clip_low": "wide"}}, "wrong type"),
        ("cpgd", {"advantage_options": {"weighting": "none"}}, "std, equal, clip-filter"),
        ("dr-grpo", {"advantage_options": {"eps": 1}}, "unknown option"),
        ("grpo", {"reduction": "constant"}, "max_length"),
        ("grpo", {"max_length": 5}, "max_length"),
        ("dr-grpo", {"max_length": 0}, "must be > 0"),
        ("cpgd", {"reference_kl": {"estimator": "k3"}}, "lacks weight"),
        ("cpgd", {"reference_kl": {"weight": 0.0}}, "must be > 0"),
        ("cpgd", {"reference_kl": {"weight": 0.1, "estimator": "k9"}}, "k1, k2, k3"),
        ("grpo", {"length": {"alpha": 1.0}}, "lacks mu, beta, max_length"),
        ("grpo", {"length": LENGTH, "advantage": "rloo"}, "one of the two"),
        ("cale", {"advantage": "grpo"}, "one of the two"),
        ("grpo", {"overlong": {"max_length": 5, "buffer": 9}}, "buffer"),
        ("gdpo", {"overlong": OVERLONG}, "component"),
    ],
)
def test_errors_name_what_is_allowed(name: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(SafeladderError, match=message) as caught:
        build(name, **overrides)
    assert "\n" not in str(caught.value)


def test_overrides_merge_and_leave_the_preset_alone() -> None:
    algorithm = build("cpgd", loss_options={"clip": 0.1})
    assert algorithm.preset.loss_options == {"clip": 0.1, "drift_weight": 0.01, "drift_cap": 2.0}
    assert PRESETS["cpgd"].loss_options["clip"] == 0.2
    assert build("cpgd", loss="ppo-clip").preset.loss_options == {}
    assert build("dr-grpo", reduction="token-mean").preset.max_length is None
    assert build("cale", length=None, advantage="grpo").preset.advantage == "grpo"


def test_algorithm_files_are_short_and_cite_their_source() -> None:
    root = Path(inspect.getfile(safeladder.algorithms)).parent
    for path in root.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 150, path.name
    functions = [*ADVANTAGES.values(), *LOSSES.values(), losses.dpo, cale, soft_overlong, add_reference_kl]
    for function in functions:
        assert "arXiv" in (function.__doc__ or "") or "same paper" in (function.__doc__ or ""), function
