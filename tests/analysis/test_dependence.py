"""The kernel dependence of token states on a reference: golden numbers, the closed form against the measure itself."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.analysis import dependence as module
from safeladder.analysis.dependence import dependence, exact_dependence, peaks, trace
from safeladder.types import SafeladderError


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_two_dimensions_by_hand():
    # x = (0, 10), y = (0, 4). K = [[1, k], [k, 1]]; K H has the one eigenvalue 1 - k on (1, -1), so R has
    # (1 - k) / (1 - k + 2 eps) there and 0 elsewhere, and the sum of products is the product of the two.
    k_x, k_y = math.exp(-100 / 5000), math.exp(-16 / 5000)
    exact = (1 - k_x) / (1 - k_x + 2e-5) * (1 - k_y) / (1 - k_y + 2e-5)
    assert exact_dependence([0.0, 10.0], [0.0, 4.0]) == pytest.approx(exact, rel=1e-9)
    # Closed form: r = 1, v_x = 25, v_y = 4, eps sigma^2 = 1e-5 * 2500 = 0.025: 25/25.025 * 4/4.025
    assert dependence([[0.0, 10.0]], [0.0, 4.0])[0] == pytest.approx(25 / 25.025 * 4 / 4.025, rel=1e-12)
    assert exact == pytest.approx(25 / 25.025 * 4 / 4.025, abs=1e-4)


def test_four_dimensions_by_hand():
    # x = (1, -1, 1, -1), y = (1, -1, -1, -1): means 0 and -1/2, y - mean = (3/2, -1/2, -1/2, -1/2);
    # covariance (3/2 + 1/2 - 1/2 + 1/2) / 4 = 1/2, v_x = 1, v_y = (9/4 + 3/4) / 4 = 3/4
    found = dependence([[1.0, -1.0, 1.0, -1.0]], [1.0, -1.0, -1.0, -1.0])
    assert found[0] == pytest.approx(0.25 / (1.025 * 0.775), rel=1e-12)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_the_closed_form_is_the_measure_for_ordinary_states(correlation: float, spread: float):
    x, noise = normal(256), normal(256, seed=1)
    y = correlation * x + math.sqrt(1 - correlation**2) * noise
    assert dependence([spread * x], spread * y)[0] == pytest.approx(exact_dependence(spread * x, spread * y), abs=0.005)


def test_for_wide_states_it_is_not():
    """A second mode of the kernel adds to the measure; the closed form is no estimate of it there."""
    x = 5 * normal(256)
    assert exact_dependence(x, x) > dependence([x], x)[0] + 0.5


def test_I02_double_precision_at_1024_dimensions():
    """In float32 the published inverse gives about 0.75 where float64 gives 0.95."""
    x = normal(1024).astype(np.float32)
    v = float(np.var(x.astype(np.float64)))
    assert exact_dependence(x, x) == pytest.approx((v / (v + 0.025)) ** 2, abs=0.003)
    assert dependence(x[None], x)[0] == pytest.approx((v / (v + 0.025)) ** 2, rel=1e-9)
    assert dependence(x[None], x).dtype == np.float64


def test_I03_the_default_is_the_closed_form():
    """512 tokens of 3,584 dimensions, about 9 s a token by the inverse."""
    states, reference = normal(512, 3584), normal(3584, seed=1)
    begun = time.process_time()
    assert trace(states, reference).values.shape == (512,)
    assert time.process_time() - begun < 5


def test_I04_a_few_outlying_dimensions_make_a_peak_that_the_control_does_not_have():
    states, reference = normal(6, 512), normal(512, seed=1)
    reference[[3, 77]] = 60.0, -60.0
    states[2, [3, 77]] = 60.0, -60.0  # two dimensions alone
    states[4] = reference  # truly alike
    found = trace(states, reference, dropped=8)
    assert peaks(found.values, 2) == [2, 4] and found.values[2] > 0.8
    assert peaks(found.control, 1) == [4]
    assert found.control[2] < 0.1 and found.control[4] > 0.8
    assert found.dropped == 8


def test_I04_it_is_named_for_what_it_is():
    public = [name for name in vars(module) if not name.startswith("_")]
    assert not any("mutual" in name.lower() or name.lower().startswith("mi") for name in public)


def test_the_control_drops_what_adds_most_to_the_covariance():
    # deviations of x: (3, -1, -1, -1), of y: (6, -2, -2, -2); the first dimension adds 18, the others 2 each;
    # without it both sides are constant
    found = trace([[4.0, 0.0, 0.0, 0.0]], [8.0, 0.0, 0.0, 0.0], dropped=1)
    assert found.values[0] > 0.9 and found.control[0] == 0.0


@given(st.integers(0, 10_000))
def test_it_is_symmetric_bounded_and_blind_to_shift_and_sign(seed: int):
    x, y = normal(2, 64, seed=seed)
    here = dependence([x], y)[0]
    assert 0 <= here <= 1
    assert here == pytest.approx(dependence([y], x)[0], rel=1e-9)
    assert here == pytest.approx(dependence([3 - x], y + 7)[0], rel=1e-6, abs=1e-12)
    assert exact_dependence(x, y) == pytest.approx(exact_dependence(y, x), rel=1e-6)


def test_a_constant_state_depends_on_nothing():
    assert dependence([[2.0, 2.0, 2.0]], [1.0, 2.0, 3.0])[0] == 0.0


def test_peaks():
    assert peaks([0.1, 0.9, 0.3, 0.9], 2) == [1, 3]
    assert peaks([0.5, 0.5, 0.5], 2) == [0, 1]
    assert peaks([], 3) == [] and peaks([1.0], 20) == [0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: dependence([1.0, 2.0], [1.0, 2.0]),
        lambda: dependence([[1.0, 2.0]], [1.0, 2.0, 3.0]),
        lambda: dependence([[1.0]], [1.0]),
        lambda: dependence([[1.0, float("nan")]], [1.0, 2.0]),
        lambda: exact_dependence([1.0, 2.0], [1.0, float("inf")]),
        lambda: trace([[1.0, 2.0, 3.0]], [1.0, 2.0, 3.0], dropped=2),
        lambda: trace([[1.0, 2.0, 3.0]], [1.0, 2.0, 3.0], dropped=0),
        lambda: peaks([1.0], 0),
        lambda: peaks([float("nan")]),
    ],
)
def test_what_cannot_be_computed_is_an_error(call):
    with pytest.raises(SafeladderError):
        call()
