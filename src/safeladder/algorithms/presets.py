"""The algorithms by name, and the one factory that text and multimodal training share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from safeladder.algorithms.algorithm import Algorithm, Preset
from safeladder.algorithms.validate import check, known
from safeladder.types import SafeladderError

_GRPO_KL = {"weight": 0.04, "estimator": "k3"}
_K2 = {"weight": 0.01, "estimator": "k2"}
_HIGHER = {"clip_low": 0.2, "clip_high": 0.28}

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        # arXiv 2402.03300: KL weight 0.04, mean per sequence, then over sequences.
        Preset(
            name="grpo",
            advantage="grpo",
            loss="ppo-clip",
            reduction="sequence-mean",
            reference_kl=_GRPO_KL,
        ),
        # arXiv 2503.20783. L_max is CANON's 8192; set it to the run's generation budget.
        Preset(name="dr-grpo", advantage="dr-grpo", loss="ppo-clip", reduction="constant", max_length=8192),
        # arXiv 2503.14476: clip-higher, token mean, dynamic sampling, soft overlong over the last 4096 of
        # 20480.
        Preset(
            name="dapo",
            advantage="grpo",
            loss="ppo-clip",
            loss_options=_HIGHER,
            drop_degenerate=True,
            overlong={"max_length": 20480, "buffer": 4096, "factor": 1.0},
        ),
        # arXiv 2507.18071.
        Preset(name="gspo", advantage="grpo", loss="gspo", reduction="sequence-mean"),
        # arXiv 2402.14740, with the ratio clip for more than one update a batch.
        Preset(name="rloo", advantage="rloo", loss="ppo-clip"),
        # arXiv 2501.03262. The paper shapes the reward by k1; k2 in the loss is the own-token part of that
        # gradient.
        Preset(name="reinforce++", advantage="reinforce++", loss="ppo-clip", reference_kl=_K2),
        Preset(name="reinforce++-baseline", advantage="reinforce++-baseline", loss="ppo-clip", reference_kl=_K2),
        # arXiv 2505.12504: drift 0.01, cap 2, no reference KL.
        Preset(
            name="cpgd",
            advantage="cpgd",
            advantage_options={"weighting": "std"},
            loss="cpgd",
            loss_options={"clip": 0.2, "drift_weight": 0.01, "drift_cap": 2.0},
        ),
        # What the published training code runs under the name CPGD (LightRFT 49e62cb): no drift, a reference
        # KL, each sequence's token mean, then the mean of sequences.
        Preset(
            name="cpgd-released",
            advantage="cpgd",
            advantage_options={"weighting": "std"},
            loss="cpgd",
            loss_options={"clip": 0.2, "drift_weight": 0.0},
            reduction="sequence-mean",
            reference_kl={"weight": 0.001, "estimator": "k3"},
        ),
        # arXiv 2601.05242; the loss is GRPO's.
        Preset(name="gdpo", advantage="gdpo", loss="ppo-clip", reduction="sequence-mean", reference_kl=_GRPO_KL),
        # Our identification of CALE with CANON-length (arXiv 2509.23962), mu = 1, alpha of its efficient
        # variant. The estimator divides by L_max itself, so the loss sums tokens: a constant length of 1.
        Preset(
            name="cale",
            advantage="cale",
            length={"alpha": 0.96, "mu": 1.0, "beta": 0.0, "max_length": 8192},
            loss="ppo-clip",
            loss_options=_HIGHER,
            reduction="constant",
            max_length=1,
        ),
    )
}


def build(name: str, **overrides: Any) -> Algorithm:
    """The algorithm of preset `name`, with `overrides` of `Preset` fields.

    Options (`advantage_options`, `loss_options`, `length`, `overlong`, `reference_kl`) are merged into the
    preset's own, key by key, unless the estimator or loss they belong to changes; None removes `length`,
    `overlong` or `reference_kl`. The algorithm is tried on two rollouts, so that a value out of range is
    found here and not after the first generation. Raises `SafeladderError`, naming what is allowed, on an
    unknown preset or option, on options of which one would silently cancel another, and on values out of
    range.
    """
    known(name, PRESETS, "algorithm")
    base = PRESETS[name]
    allowed = [f.name for f in fields(Preset) if f.name != "name"]
    for key in overrides:
        known(key, allowed, f"option of algorithm {name}:")
    merged = dict(overrides)
    if overrides.get("length") is not None:
        if {"advantage", "advantage_options"} & overrides.keys():
            raise SafeladderError(f"algorithm {name}: length replaces the advantage; give one of the two")
        merged |= {"advantage": "cale", "advantage_options": {}}
    for kind in ("advantage", "loss"):
        same = merged.get(kind, getattr(base, kind)) == getattr(base, kind)
        own = getattr(base, f"{kind}_options") if same else {}
        merged[f"{kind}_options"] = {**own, **_mapping(merged.get(f"{kind}_options", {}), name)}
    for key in ("length", "overlong", "reference_kl"):
        if merged.get(key) is not None:
            merged[key] = {**(getattr(base, key) or {}), **_mapping(merged[key], name)}
    if merged.get("reduction", "constant") != "constant":
        merged.setdefault("max_length", None)
    preset = replace(base, **merged)
    check(preset)
    return Algorithm(preset)


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SafeladderError(f"algorithm {name}: options are a mapping of name to value, got {value!r}")
    return value
