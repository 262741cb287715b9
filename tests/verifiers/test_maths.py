"""Numeric answers by hand, and math-verify in a process that can be killed."""

from __future__ import annotations

import threading
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.types import StopReason
from safeladder.verifiers.maths import MathWorker, NumericAnswer, boxed, final_answer, number

needs_math_verify = pytest.mark.skipif(not MathWorker.installed(), reason="math-verify is not installed")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{42}", "42"),
        (r"first \boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a{b}c}", "a{b}c"),
        (r"\boxed{42", None),
        ("42", None),
    ],
)
def test_boxed(text, expected):
    assert boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 + 4 = 7.", "7"),
        ("She earns $1,234.50 a year", "1,234.50"),
        ("10-4", "4"),
        ("it falls to -4", "-4"),
        ("it falls to −4", "-4"),
        ("7 apples #### 18\n", "18"),
        (r"between 1 and 9: \boxed{5} of 10", "5"),
        ("共有5个", "5"),
        ("答案是 \uff15", "5"),
        ("half is .5", ".5"),
        ("about 3/4", "3/4"),
        ("6.02e23 of them", "6.02e23"),
        ("H2O in v1.2.3", None),
        ("no number", None),
        ("", None),
    ],
)
def test_final_answer(text, expected):
    assert final_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234", Fraction(1234)),
        ("$18", Fraction(18)),
        ("50%", Fraction(50)),
        ("0.10", Fraction(1, 10)),
        ("3/4", Fraction(3, 4)),
        ("1.5/2", Fraction(3, 4)),
        ("1/0", None),
        ("1e2", Fraction(100)),
        ("12,34", None),
        ("five", None),
        (r"\frac{1}{2}", None),
        ("9" * 5000, None),
    ],
)
def test_number(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("The total is $18.00.", "18", 1.0),
        ("18 of 20", "18", 0.0),
        (r"so \boxed{18} of 20", "18", 1.0),
        ("1,000", "1000", 1.0),
        ("0.5", "1/2", 1.0),
        ("seven", "7", 0.0),
        ("19", "worked out as 20 - 2 = 18\n#### 18", 0.0),
        ("18", "worked out as 20 - 2 = 18\n#### 18", 1.0),
        (r"\boxed{x+1}", r"\boxed{x+1}", 1.0),
    ],
)
def test_numeric_answer(rollout, answer, reference, value):
    (score,) = NumericAnswer().score([rollout(f"<think>a</think>{answer}", reference=reference)])
    assert score.value == value


def test_the_reasoning_is_not_the_answer(rollout):
    (score,) = NumericAnswer().score([rollout("<think>so it is 18</think>I do not know", reference="18")])
    assert score.value == 0.0


def test_no_reference_is_unscored_and_no_response_is_zero(rollout):
    verifier = NumericAnswer()
    assert verifier.score([rollout("<think>a</think>18")])[0].parse_ok is False
    cut = rollout("<think>a</think>18", reference="18", stop_reason=StopReason.LENGTH)
    assert verifier.score([cut])[0].value == 0.0


def test_without_math_verify_an_expression_is_unscored(rollout, monkeypatch):
    monkeypatch.setattr(MathWorker, "installed", staticmethod(lambda: False))
    (score,) = NumericAnswer().score([rollout(r"<think>a</think>\boxed{1+x}", reference="x+1")])
    assert score.parse_ok is False and "math-verify" in score.explanation


@needs_math_verify
def test_symbolic_answers(rollout):
    verifier = NumericAnswer()
    rows = [
        rollout(r"<think>a</think>\boxed{1+x}", reference="x+1"),
        rollout(r"<think>a</think>\boxed{\frac{2}{4}}", reference="1/2"),
        rollout(r"<think>a</think>\boxed{x+2}", reference="x+1"),
    ]
    assert [score.value for score in verifier.score(rows)] == [1.0, 1.0, 0.0]


@needs_math_verify
def test_O05_a_hanging_comparison_is_killed_off_the_main_thread(rollout):
    verifier = NumericAnswer(timeout=3.0)  # a busy machine takes its time for what is easy, too
    tower = rollout(r"<think>a</think>\boxed{9^{9^{9^{9^{9}}}}+x}", reference=r"x+8^{9^{9^{9}}}")
    plain = rollout(r"<think>a</think>\boxed{1+x}", reference="x+1")
    verdicts = []

    def work() -> None:
        verdicts.extend(verifier.score([plain, tower, plain]))

    thread = threading.Thread(target=work)
    started = time.monotonic()
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive() and time.monotonic() - started < 60
    before, hung, after = verdicts
    assert before.value == after.value == 1.0
    assert hung.parse_ok is False and "TimeoutError" in hung.explanation


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_never_crashes(text):
    answer = final_answer(text)
    assert answer is None or isinstance(answer, str)
    number(text)


@given(st.fractions(max_denominator=1000))
@settings(max_examples=50, deadline=None)
def test_a_printed_number_is_read_back(value):
    text = f"the result is {value.numerator}/{value.denominator}"
    answer = final_answer(text)
    assert answer is not None and number(answer) == value
