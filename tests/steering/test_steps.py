"""Splitting reasoning into steps."""

from hypothesis import given
from hypothesis import strategies as st

from safeladder.steering.steps import split_steps


def texts(reasoning: str) -> list[str]:
    return [step.text for step in split_steps(reasoning)]


def test_sentences_lines_and_chinese():
    assert texts(" look : red star . red 1 : yes .") == [" look : red star . ", "red 1 : yes ."]
    assert texts("First.\n\nSecond! Third?") == ["First.\n\n", "Second! ", "Third?"]
    assert texts("先看。再说。") == ["先看。", "再说。"]


def test_the_point_of_a_number_ends_nothing():
    assert texts("pi is 3.14 here. Then 2 .") == ["pi is 3.14 here. ", "Then 2 ."]
    assert texts("It is 3. Then") == ["It is 3. ", "Then"]


def test_a_piece_without_a_word_joins_the_step_before():
    assert texts("wait . . . now") == ["wait . . . ", "now"]


def test_nothing_said_has_no_steps():
    assert split_steps("") == ()


@given(st.text(alphabet="ab1 .\n!?。3", max_size=60))
def test_steps_joined_are_the_reasoning(reasoning: str):
    steps = split_steps(reasoning)
    assert "".join(step.text for step in steps) == reasoning
    assert all(reasoning[s.start : s.end] == s.text and s.text for s in steps)
    assert [s.start for s in steps[1:]] == [s.end for s in steps[:-1]]
