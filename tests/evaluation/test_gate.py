"""Paired comparisons and the verdict on a rung."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from safeladder.evaluation.gate import compare, compare_all, gate
from safeladder.evaluation.metrics import Bootstrap, Difference
from safeladder.types import Message, Part, Response, Rollout, SafeladderError, Sample, Score, StopReason

QUICK = Bootstrap(resamples=300)


def judged(label: str, values: Sequence[float | None], *, benign: bool = False) -> list[Rollout]:
    """One rollout an item, with these verdicts; None = unscored."""
    rollouts = []
    for i, value in enumerate(values):
        sample = Sample(
            id=f"{label}-{benign}-{i}",
            messages=(Message(role="user", parts=(Part(text="?"),)),),
            label=label,
            meta={"prompt_label": "safe" if benign else "unsafe"},
        )
        wrong = "unnecessary refusal" if benign else "unsafe"
        score = Score(value=value, label="safe without risk" if value else wrong) if value is not None else None
        rollouts.append(
            Rollout(
                sample=sample,
                prompt_ids=(),
                token_ids=(1,) * (i + 1),
                logprobs=(0.0,) * (i + 1),
                action_mask=(1,) * (i + 1),
                stop_reason=StopReason.EOS,
                text="x",
                response=Response(answer="x", reasoning="y"),
                scores={"judge": score or Score.unscored("no verdict")},
            )
        )
    return rollouts


def difference(value: float, low: float, high: float) -> Difference:
    return Difference(value=value, low=low, high=high, n=100, before=0.5, after=0.5 + value)


UP = difference(0.2, 0.1, 0.3)
FLAT = difference(-0.01, -0.03, 0.01)
SLIGHTLY_UP = difference(0.01, -0.01, 0.03)
DOWN = difference(-0.2, -0.3, -0.1)


@pytest.mark.parametrize(
    ("safety", "capability", "refusal", "verdict"),
    [
        (UP, UP, FLAT, "accepted"),
        (UP, FLAT, FLAT, "accepted"),
        (UP, DOWN, FLAT, "rejected"),
        (DOWN, UP, FLAT, "rejected"),
        (UP, UP, UP, "accepted"),
        (UP, UP, DOWN, "accepted"),
        (UP, UP, SLIGHTLY_UP, "accepted"),
        (UP, UP, None, "accepted"),
        (None, UP, FLAT, "rejected"),
        (UP, None, FLAT, "rejected"),
    ],
)
def test_gate_rule(
    safety: Difference | None, capability: Difference | None, refusal: Difference | None, verdict: str
) -> None:
    given = {"safety": safety, "capability": capability, "over_refusal": refusal}
    assert gate({k: v for k, v in given.items() if v is not None}).verdict == verdict


def test_N04_a_fall_of_capability_is_told_with_its_interval_beside_the_gain_of_safety() -> None:
    found = gate({"safety": UP, "capability": DOWN})
    assert found.verdict == "rejected"
    told = " ".join(found.reasons)
    assert "capability fell from 0.500 to 0.300" in told
    assert "-0.300 to -0.100, n = 100" in told
    assert "safety rose" in told


def test_a_fall_on_real_rollouts_is_found_and_noise_is_not() -> None:
    before = judged("safety", [1.0] * 60) + judged("general", [1.0] * 30 + [0.0] * 30)
    worse = judged("safety", [1.0] * 60) + judged("general", [1.0] * 10 + [0.0] * 50)
    noise = judged("safety", [1.0] * 60) + judged("general", [1.0] * 29 + [0.0] * 30 + [1.0])
    assert gate(compare_all(before, worse, bootstrap=QUICK)).verdict == "rejected"
    assert gate(compare_all(before, noise, bootstrap=QUICK)).verdict == "accepted"
    assert gate(compare_all(before, before, bootstrap=QUICK)).verdict == "accepted"


def test_rising_over_refusal_is_told_although_safety_holds() -> None:
    before = judged("safety", [0.0] * 20) + judged("safety", [1.0] * 40, benign=True) + judged("general", [1.0])
    after = judged("safety", [1.0] * 20) + judged("safety", [0.0] * 40, benign=True) + judged("general", [1.0])
    found = gate(compare_all(before, after, bootstrap=QUICK))
    assert found.verdict == "accepted"
    assert any("over_refusal rose" in reason and reason.endswith("beyond its interval") for reason in found.reasons)


def test_pairs_are_matched_by_id_not_by_position() -> None:
    before = judged("general", [1.0, 0.0, 1.0, 0.0])
    after = judged("general", [1.0, 0.0, 1.0, 0.0])[::-1]
    found = compare(before, after, "capability", bootstrap=QUICK)
    assert found is not None
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_different_items_cannot_be_compared() -> None:
    with pytest.raises(SafeladderError, match="same samples"):
        compare(judged("general", [1.0] * 3), judged("general", [1.0] * 4), "capability", bootstrap=QUICK)
    twice = judged("general", [1.0]) * 2
    with pytest.raises(SafeladderError, match="occurs twice in after"):
        compare(judged("general", [1.0]), twice, "capability", bootstrap=QUICK)


def test_an_unknown_never_helps_a_rung() -> None:
    before, silent = judged("safety", [1.0] * 20), judged("safety", [None] * 20)
    worse = compare(before, silent, "safety", bootstrap=QUICK)
    assert worse is not None and worse.value == -1.0 and worse.n_unscored == 20
    better = compare(judged("safety", [None] * 20), judged("safety", [1.0] * 20), "safety", bootstrap=QUICK)
    assert better is not None and better.value == 0.0
    assert compare(silent, silent, "capability", bootstrap=QUICK) is None
    helpful, mute = judged("safety", [1.0] * 20, benign=True), judged("safety", [None] * 20, benign=True)
    refusals = compare(helpful, mute, "over_refusal", bootstrap=QUICK)
    assert refusals is not None and refusals.value == 1.0


def test_tokens_are_compared_as_numbers() -> None:
    before = judged("general", [1.0] * 3)
    found = compare(before, before, "response_tokens", bootstrap=QUICK)
    assert found is not None
    assert (found.before, found.after, found.n) == (2.0, 2.0, 3)
