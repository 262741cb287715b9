"""The trajectory and the curves: what they draw, and that they can be drawn from little."""

from __future__ import annotations

import io

import numpy as np
import pytest
import synthetic
from PIL import Image

from safeladder.analysis.curves import PANELS, _series, principle_curves, training_curves
from safeladder.analysis.figures import DARK, LIGHT
from safeladder.analysis.trajectory import Point, points, trajectory_png


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def share_of(colour: str, data: bytes) -> float:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(pixels(data).astype(int) - wanted).max(-1) <= 2).mean())


def test_points_of_the_report() -> None:
    found = points(synthetic.report())
    assert [(p.name, p.role) for p in found] == [
        *((name, "rung") for name in synthetic.RUNGS),
        ("control", "control"),
        ("safety-only", "ablation"),
        ("grpo", "ablation"),
    ]
    assert found[0].safety == pytest.approx((62.0, 58.0, 66.0))
    assert found[0].capability[0] == pytest.approx(66.0)


def test_a_policy_without_one_of_the_axes_is_not_drawn_at_zero() -> None:
    report = synthetic.report()
    del report["rungs"][1]["metrics"]["safety"]
    assert "cot-sft" not in [p.name for p in points(report)]


def test_the_trajectory_in_both_themes() -> None:
    found = points(synthetic.report())
    light, dark = trajectory_png(found, LIGHT), trajectory_png(found, DARK)
    assert pixels(light).shape == pixels(dark).shape == (900, 1200, 3)
    assert share_of(LIGHT.page, light) > 0.8 and share_of(DARK.page, dark) > 0.8
    assert share_of(LIGHT.accent, light) > 0.0005
    assert trajectory_png(found, LIGHT) == light


def test_rejected_rungs_control_and_ablations_are_hollow() -> None:
    def one(role: str, rejected: bool = False) -> float:
        spot = (50.0, 50.0, 50.0)
        point = Point(name="x", role=role, capability=spot, safety=spot, rejected=rejected)  # type: ignore[arg-type]
        colour = LIGHT.accent if role == "rung" else LIGHT.muted
        # The middle of the axes is the middle of the point.
        middle = pixels(trajectory_png([point]))[434:440, 636:642]
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        return float((np.abs(middle.astype(int) - wanted).max(-1) < 40).mean())

    assert one("rung") > 0.9
    for role, rejected in (("rung", True), ("control", False), ("ablation", False)):
        assert one(role, rejected) < 0.6, role


@pytest.mark.parametrize("number", [0, 1])
def test_a_trajectory_of_little(number: int) -> None:
    assert pixels(trajectory_png(points(synthetic.report())[:number])).shape == (900, 1200, 3)


def test_extreme_and_equal_points_can_be_drawn() -> None:
    same = [Point(name=f"p{i}", role="rung", capability=(100, 100, 100), safety=(0, 0, 0)) for i in range(6)]
    assert trajectory_png(same)


def test_principle_curves_draw_what_was_measured() -> None:
    rungs = synthetic.report()["rungs"]
    assert principle_curves(rungs) is not None
    assert principle_curves([{"name": "base", "metrics": {}}]) is None


def test_training_curves_of_a_rung_only() -> None:
    rows = [{"rung": "m3-rl", "step": s, "reward": 0.1 * s, "reward/format": 1.0} for s in range(5)]
    rows.append({"rung": "base", "step": 0, "loss": 2.0})
    assert training_curves(rows, "m3-rl") is not None
    assert training_curves(rows, "efficient-rl") is None


def test_series_of_a_panel() -> None:
    rows = [
        {"step": 0, "reward": 1.0, "reward/b": 0.5, "reward/a": 0.25},
        {"step": 1, "reward": float("nan"), "reward/b": None},
    ]
    components = next(p for p in PANELS if p.keys == ("reward/",))
    assert _series(rows, components) == [("a", [0], [0.25]), ("b", [0], [0.5])]
    rewards = next(p for p in PANELS if "reward" in p.keys)
    assert _series(rows, rewards) == [("reward", [0], [1.0])]


def test_long_curves_are_thinned() -> None:
    rows = [{"step": s, "loss": 1.0} for s in range(5000)]
    ((_, steps, _),) = _series(rows, PANELS[0])
    assert 200 <= len(steps) <= 400 and steps[0] == 0
