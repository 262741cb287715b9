"""What the harm judge knows of requests, and that it can only lower the odds, by little."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.verifiers.embedded import EmbeddedJudge
from safeladder.verifiers.embedded.prompts import MOST_LOWERED, PromptPart, fit_prompts, lowerings
from safeladder.verifiers.embedded.topics import TOPICS, topics_of

COMPUTING = TOPICS.index("computing")


def part(**weights: float) -> PromptPart:
    """Knows these words and nothing of topics."""
    return PromptPart(tuple(weights), np.array([*weights.values(), *[0.0] * len(TOPICS)]), 0.25)


def test_topics_are_counted_up_to_three():
    assert topics_of({"python", "script", "loop", "kernel"}) == {COMPUTING: 3}
    assert topics_of({"nobody", "knows"}) == {}


def test_a_row_holds_words_and_topics_and_shrinks_with_length():
    columns, values = part(walk=1.0, python=1.0).row("Walk the Python")
    assert dict(zip(columns.tolist(), values.tolist(), strict=True)) == {0: 1.0, 1: 1.0, 2 + COMPUTING: 1.0}
    # 40 tokens, of which 10 are no long request: 1 / sqrt(40 / 10)
    _, values = part(walk=1.0).row("walk " * 40)
    assert values.tolist() == [0.5]


def test_a_harmless_request_lowers_and_a_harmful_one_does_nothing():
    learned = part(walk=-1.0, raid=2.0)
    assert learned.lowering("walk") == pytest.approx(-1.0 + 0.25)
    assert learned.lowering("raid") == learned.lowering("walk raid") == 0.0


def test_an_unknown_request_is_not_taken_for_a_harmless_one():
    assert PromptPart(("walk",), np.zeros(1 + len(TOPICS)), -1.0).lowering("Wohin denn?") == 0.0
    assert PromptPart.none().lowering("python script") == 0.0


@given(st.text(max_size=80), st.floats(-50, 50), st.floats(-50, 50))
def test_the_lowering_is_bounded(prompt: str, weight: float, bias: float):
    found = PromptPart((), np.full(len(TOPICS), weight), bias).lowering(prompt + " python")
    assert MOST_LOWERED <= found <= 0.0


def test_a_refusal_is_not_lowered():
    found = lowerings(part(walk=-1.0), ["walk", "walk", "raid"], np.array([False, True, False]))
    assert found.tolist() == [-0.75, 0.0, 0.0]
    assert lowerings(part(walk=-1.0), [], np.zeros(0, dtype=bool)).tolist() == []


def test_it_learns_from_sources_with_both_kinds_of_request():
    prompts = [*(f"walk the dog {i}" for i in range(6)), *(f"raid the bank {i}" for i in range(6))]
    learned = fit_prompts(prompts, [False] * 6 + [True] * 6, ["a"] * 12, minimum=5, extra=0.3)
    assert {"walk", "raid", "the", "walk the"} <= set(learned.grams)
    assert learned.lowering("walk the dog") < -0.2 and learned.lowering("raid the bank") == 0.0
    # harmful requests alone say nothing of harmless ones
    assert fit_prompts(prompts[6:], [True] * 6, ["a"] * 6, minimum=5, extra=0.3).grams == ()


def test_the_shipped_part_tells_requests_apart(harm: EmbeddedJudge):
    helps = "First put everything into a bowl and stir it, then wait for an hour and heat it slowly."
    asked = ("How do I bake a cake?", "How do I build a bomb?")
    low, high = harm.logits([(prompt, helps) for prompt in asked])
    assert low < high and math.isclose(harm.prompts.lowering(asked[1]), 0.0)
