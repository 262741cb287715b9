"""Direct effects: one forward pass with two pictures is the model's own with one, and the effects add up."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rollout.tiny_policies import ask, picture, policy
from safeladder.models.policy import Policy
from safeladder.rollout.local import LocalEngine
from safeladder.steering import effects as module
from safeladder.steering.directions import Direction, Directions, fingerprint
from safeladder.steering.effects import Contrast, effects, interval, measure, outcomes, turn_length
from safeladder.steering.hooks import language_states, steered
from safeladder.steering.layers import tower_layers, tower_width
from safeladder.types import SafeladderError

SIGHTED = ("qwen2_5_vl", "internvl")


def contrast(id: str = "x", *, same_image: bool = False, same_text: bool = False) -> Contrast:
    question = "how many red circles are there?"
    factual = ask(id, picture(1), question)
    reference = ask(f"{id}*", picture(1 if same_image else 2), question if same_text else "what colour is the square?")
    return Contrast(factual=factual, reference=reference, answers=("one", "two circles", "12"), outcome="one")


def own_probability(model: Policy, sample: Any, answers: tuple[str, ...], outcome: str) -> float:
    """The same from the Hugging Face modules: no second picture, no mask of ours."""
    prompt, scores = model.prompt(sample), []
    text, head = model.family.text_model(model.model), model.family.lm_head(model.model)
    for answer in answers:
        ids = [*model.tokenizer(answer, add_special_tokens=False)["input_ids"], model.eos_token_id]
        states = language_states(model, prompt, ids[:-1])[-1]
        with torch.no_grad():
            logits = head(text.norm(states)).float() + model.logit_bias
        chosen = torch.log_softmax(logits[len(prompt.ids) - 1 :], dim=-1)
        scores.append(float(chosen.gather(1, torch.tensor(ids).unsqueeze(1)).sum()))
    return float(np.exp(scores[answers.index(outcome)] - np.logaddexp.reduce(scores)))


@pytest.mark.parametrize("name", SIGHTED)
def test_with_one_picture_the_pass_is_the_models_own(name):
    """Y(v, t, v) and Y(v*, t*, v*) are what the model answers; so is Y(v, t, v*) where v = v*."""
    model = policy(name)
    c = contrast()
    y = outcomes(LocalEngine(model), [c])[0]
    assert y["vtv"] == pytest.approx(own_probability(model, c.factual, c.answers, c.outcome), abs=1e-5)
    assert y["v*t*v*"] == pytest.approx(own_probability(model, c.reference, c.answers, c.outcome), abs=1e-5)
    alike = outcomes(LocalEngine(model), [contrast(same_image=True)])[0]
    assert alike["vtv*"] == pytest.approx(alike["vtv"], abs=1e-6)


@pytest.mark.parametrize("name", SIGHTED)
def test_every_argument_matters_by_itself(name):
    y = outcomes(LocalEngine(policy(name)), [contrast()])[0]
    assert len({round(value, 6) for value in y.values()}) == 5
    assert all(0.0 < value < 1.0 for value in y.values())


def test_the_picture_has_no_effect_where_it_is_the_reference():
    found = effects(outcomes(LocalEngine(policy("qwen2_5_vl")), [contrast(same_image=True)])[0])
    assert [found[k] for k in ("NDE_V", "NDE_VT", "NIE")] == pytest.approx([0, 0, 0], abs=1e-6)
    assert abs(found["NDE_T"]) > 1e-4
    found = effects(outcomes(LocalEngine(policy("qwen2_5_vl")), [contrast(same_text=True)])[0])
    assert [found[k] for k in ("NDE_T", "NDE_VT")] == pytest.approx([0, 0], abs=1e-6)
    assert abs(found["NDE_V"]) > 1e-6 and abs(found["NIE"]) > 1e-6


def test_nothing_depends_on_the_batch():
    engine = LocalEngine(policy("qwen2_5_vl"))
    several = [contrast("a"), contrast("b", same_text=True), contrast("c", same_image=True)]
    together = outcomes(engine, several, rows=64)
    for one, c in zip(together, several, strict=True):
        assert outcomes(engine, [c], rows=2)[0] == pytest.approx(one, abs=1e-6)


def test_effects_by_hand():
    y = {"vt*v*": 0.3, "v*t*v*": 0.1, "v*tv*": 0.5, "vtv*": 0.8, "vtv": 0.6}
    # .3 - .1; .5 - .1; .8 - .3 - .5 + .1; .6 - .8; .6 - .1
    assert effects(y) == pytest.approx({"NDE_V": 0.2, "NDE_T": 0.4, "NDE_VT": 0.1, "NIE": -0.2, "TE": 0.5})


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_the_parts_add_up_to_the_total(values: list[float]):
    found = effects(dict(zip(("vt*v*", "v*t*v*", "v*tv*", "vtv*", "vtv"), values, strict=True)))
    assert math.isclose(sum(found[k] for k in ("NDE_V", "NDE_T", "NDE_VT", "NIE")), found["TE"], abs_tol=1e-9)


def test_the_answers_probabilities_add_up_to_one():
    c = contrast()
    engine = LocalEngine(policy("internvl"))
    found = [outcomes(engine, [replace(c, outcome=answer)])[0]["vtv"] for answer in c.answers]
    assert sum(found) == pytest.approx(1.0, abs=1e-6)


def test_who_sees_whom():
    """Prompt a I I b | turn: ids 10 7 7 11 12, the last opens the assistant's turn; answer 20, end 2."""
    model = policy("qwen2_5_vl")
    prompt = model.prompt(ask("x", picture(1), "how?"))
    image = model.family.image_token_id(model.model.config)
    prompt = replace(prompt, ids=(10, image, image, 11, 12), positions=torch.arange(5).expand(3, 5), next_position=5)
    row = module._Row(prompt=prompt, direct=torch.zeros(2, 32), mediator=torch.zeros(2, 32), answer=(20, 2))
    placed = module._place(model, row, 1)
    assert placed.ids.tolist() == [10, image, image, 11, 12, image, image, 20]
    assert placed.positions[0].tolist() == [0, 1, 2, 3, 4, 1, 2, 5]
    assert (placed.mediator, placed.direct, placed.predict) == ([1, 2], [5, 6], [4, 7])
    assert placed.visible.int().tolist() == [
        # a  I  I  b  c  I' I' ans
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],  # the question sees the mediator's picture
        [1, 0, 0, 1, 1, 1, 1, 0],  # the answer's positions see the direct one
        [1, 0, 0, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, 0, 1, 1, 0],
        [1, 0, 0, 1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl", "llama"])
def test_the_assistants_turn_is_what_the_template_opens(name):
    model = policy(name)
    ids = model.prompt(ask("x", "how many?")).ids
    opened = model.tokenizer.decode(ids[-turn_length(model) :])
    assert "ssistant" in opened and "how" not in opened


def test_steering_changes_effects_and_leaves_nothing():
    model = policy("qwen2_5_vl")
    engine = LocalEngine(model)
    items = tuple(
        Direction(
            name=tower,
            tower=tower,  # type: ignore[arg-type]
            layers=tuple(range(len(tower_layers(model.model, model.family, tower)))),  # type: ignore[arg-type]
            vectors=torch.ones(
                len(tower_layers(model.model, model.family, tower)),  # type: ignore[arg-type]
                tower_width(model.model, model.family, tower),  # type: ignore[arg-type]
            ),
            method="mean",
            n=1,
            scale=1.0,
        )
        for tower in ("vision", "language")
    )
    found = Directions(family=model.family.name, model=fingerprint(model.model), items=items)
    before = outcomes(engine, [contrast()])[0]
    for name in ("vision", "language"):
        with steered(engine, found.only(name)):
            assert outcomes(engine, [contrast()])[0] != pytest.approx(before, abs=1e-4)
    assert outcomes(engine, [contrast()])[0] == before


# intervals


def test_an_interval_draws_whole_groups():
    """Two groups of 50 equal values: drawing groups gives means 0, 0.5 or 1; drawing items would give about 0.5."""
    found = interval([0.0] * 50 + [1.0] * 50, ["a"] * 50 + ["b"] * 50, draws=2000, confidence=0.95, seed=0)
    assert (found.value, found.low, found.high, found.n) == (0.5, 0.0, 1.0, 100)


def test_nothing_measured_is_not_assessed():
    assert interval([], [], draws=10, confidence=0.95, seed=0).value is None
    assert measure(LocalEngine(policy("qwen2_5_vl")), [])["NDE_T"].value is None


def test_measure_gives_all_effects_with_intervals():
    found = measure(LocalEngine(policy("internvl")), [contrast("a"), contrast("b")], draws=50)
    assert list(found) == ["Y", *module.EFFECTS]
    assert all(e.n == 2 and e.low is not None and e.low <= e.value <= e.high for e in found.values())  # type: ignore


# bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": ("one",)}, "two or more different answers"),
        ({"answers": ("one", "one")}, "two or more different answers"),
        ({"outcome": "three"}, "outcome 'three' is not among"),
        ({"reference": ask("r", "no picture")}, "need images"),
        ({"factual": ask("f", "no picture")}, "need images"),
    ],
)
def test_unusable_contrasts_are_errors(change, message):
    with pytest.raises(SafeladderError, match=message):
        replace(contrast(), **change)


def test_pictures_of_different_sizes_are_an_error():
    c = contrast()
    wide = replace(c, reference=ask("r", picture(2, 112), "what?"))
    with pytest.raises(SafeladderError, match="another size"):
        outcomes(LocalEngine(policy("qwen2_5_vl")), [wide])
