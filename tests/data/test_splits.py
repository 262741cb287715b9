"""Held-out splits: whole groups, no shared prompts, no dependence on the other rows."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.data import split_by_group
from safeladder.types import Message, Part, SafeladderError, Sample


def row(id, question=None, group=""):
    return Sample(
        id=str(id),
        messages=(Message(role="user", parts=(Part(text=question or f"q {id}"),)),),
        label="x",
        group_id=group,
    )


def ids(rows):
    return [r.id for r in rows]


def test_share_order_and_completeness():
    rows = [row(i) for i in range(2000)]
    train, held_out = split_by_group(rows, 0.2)
    assert sorted(ids(train) + ids(held_out), key=int) == ids(rows)
    assert ids(train) == sorted(ids(train), key=int)
    assert 340 <= len(held_out) <= 460  # 400 ± 3.4 standard deviations
    assert ids(split_by_group(rows, 0.2, seed=1)[1]) != ids(held_out)


def test_groups_stay_together():
    rows = [row(i, group=f"g{i % 50}") for i in range(500)]
    train, held_out = split_by_group(rows, 0.3)
    assert held_out and not {r.group_id for r in train} & {r.group_id for r in held_out}


def test_the_same_prompt_is_never_on_both_sides():
    rows = [row(i, question=f"Question {i % 40} ?" if i % 2 else f"question {i % 40}?") for i in range(400)]
    train, held_out = split_by_group(rows, 0.3)
    words = [{r.question.lower().replace(" ", "") for r in side} for side in (train, held_out)]
    assert held_out and not words[0] & words[1]


def test_the_same_text_about_other_images_is_another_prompt(demo, png):
    from PIL import Image

    rows = [demo(str(i), images=(Image.new("RGB", (2, 2), (i, 0, 0)),)) for i in range(100)]
    train, held_out = split_by_group(rows, 0.3)
    assert train and held_out


@given(st.sets(st.integers(0, 300), min_size=40), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_other_rows_and_their_order_do_not_matter(numbers, seed):
    whole = {r.id for r in split_by_group([row(i) for i in range(301)], 0.5, seed=seed)[1]}
    some = split_by_group([row(i) for i in sorted(numbers, reverse=True)], 0.5, seed=seed)[1]
    assert {r.id for r in some} == whole & {str(i) for i in numbers}


def test_other_process_same_split():
    code = "from safeladder.data.content import unit_interval; print(unit_interval(['0', 'gruppe', '你']))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={
        "PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "123"})  # fmt: skip
    from safeladder.data.content import unit_interval

    assert float(other.stdout) == unit_interval(["0", "gruppe", "你"])


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_no_side_is_left_empty(share):
    train, held_out = split_by_group([row(i) for i in range(3)], share)
    assert train and held_out


def test_ends_and_errors():
    rows = [row(i) for i in range(5)]
    assert split_by_group(rows, 0.0) == (rows, []) and split_by_group(rows, 1.0) == ([], rows)
    assert split_by_group([], 0.5) == ([], [])
    with pytest.raises(SafeladderError, match="at least 2 groups"):
        split_by_group([row(1, group="g"), row(2, group="g")], 0.5)
    with pytest.raises(SafeladderError, match="between 0 and 1"):
        split_by_group(rows, 1.5)
