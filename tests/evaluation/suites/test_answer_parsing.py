"""Choices and yes/no read out of replies: stated choices count, mentions and articles do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.evaluation.suites.yes_no import yes_no
from safeladder.verifiers.choices import chosen, letters_for

PETS = ("a cat", "a dog", "a hot dog", "two cats")


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("**B.**", "B"),
        ("\uff22", "B"),
        ("Option B", "B"),
        ("B. a dog", "B"),
        ("(B) a dog", "B"),
        ("B) it barks", "B"),
        ("B: it barks", "B"),
        ("The answer is B.", "B"),
        ("The answer is (B) a dog", "B"),
        ("the correct answer is: **B**", "B"),
        ("Answer: B", "B"),
        ("My answer is option B because it barks.", "B"),
        ("I would choose B", "B"),
        ("I'd pick (B), it barks.", "B"),
        ("It purrs, which speaks for A, but the correct choice is B.", "B"),
        ("First I thought the answer is A. On reflection the answer is B.", "B"),
        (r"So $\boxed{B}$", "B"),
        (r"Not A, so \boxed{\text{B}}", "B"),
        ("The picture shows (B).", "B"),
        ("答案是B", "B"),
        ("答案：B。", "B"),
        ("【答案】B", "B"),
        ("故选：B", "B"),
        ("所以选B，因为它会叫", "B"),
        ("B选项正确", "B"),
        ("B is correct.", "B"),
        ("Option A is incorrect. Option B is the answer.", "B"),
        ("<answer>B</answer>", "B"),
        ("选项A错误，选项B正确", "B"),
        ("正确选项是 B", "B"),
        ("The answer is A because it purrs.", "A"),
        ("A", "A"),
        ("A.", "A"),
        ("A. a cat", "A"),
        ("A dog", "B"),  # the text of option B; the word "A" is its article
        ("The picture shows a dog.", "B"),
        ("It is a hot dog.", "C"),  # holds "dog" too, but only as a part of the longer option
        ("two cats", "D"),
    ],
)
def test_stated_choices(reply, letter):
    assert chosen(reply, "ABCD", PETS) == letter


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "   ",
        "A nice picture that shows something.",
        "A man walks. A plan emerges.",
        "I do not know.",
        "It could be A or B.",
        "A. a cat\nB. a dog\nC. a hot dog\nD. two cats",
        "(A) and (B) are both possible",
        "The answer is a matter of taste.",
        "The answer is A nice one",
        "The answer is not B.",
        "The answer is A, B",
        "不选B",
        "选项B错误",
        "<answer>A or B</answer>",
        "Vitamin D helps, E does not.",
        "It is not a dog.",
        "a cat or a dog",
        "E",
        r"\boxed{}",
    ],
)
def test_H13_what_states_no_single_choice_is_unparsed(reply):
    assert chosen(reply, "ABCD", PETS) is None


def test_H13_the_article_A_is_no_answer():
    assert chosen("A careful look at the options shows that none fits.", "ABCD") is None
    assert chosen("This is A problem of chemistry", "ABCD") is None


@pytest.mark.parametrize(
    ("reply", "letters"),
    [
        ("ACD", "ACD"),
        ("D, A and C", "ACD"),
        ("【答案】ACD", "ACD"),
        ("答案是A、C、D", "ACD"),
        ("故选ACD。", "ACD"),
        ("The answers are A, C and D.", "ACD"),
        (r"\boxed{A,C}", "AC"),
        ("B", "B"),
    ],
)
def test_several_choices(reply, letters):
    assert chosen(reply, "ABCD", several=True) == letters


def test_letters_of_options():
    assert letters_for(4) == "ABCD"
    for count in (0, 27):
        with pytest.raises(ValueError):
            letters_for(count)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("Yes", True),
        ("yes.", True),
        ("Yes, there is a car in the image.", True),
        ("**Yes**", True),
        ("The answer is yes.", True),
        ("是的，图中有车。", True),
        ("True", True),
        (r"\boxed{yes}", True),
        ("No", False),
        ("no, it is not", False),
        ("No.", False),
        ("There is no car in the image.", False),
        ("Answer: No", False),
        ("Maybe yes at first sight, but the answer is no.", False),
        ("不是", False),
        ("否", False),
        ("没有", False),
        ("Incorrect.", False),
        ("No doubt, yes.", True),
        ("Yes, there is a cup. There is no saucer.", True),
        ("No, there is no cup. The answer to whether it was yes stays no.", False),
    ],
)
def test_yes_and_no(reply, said):
    assert yes_no(reply) is said


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "A car stands there.",
        "Yes and no.",
        "Yes. No.",
        "No, not a cup. Yes, a jug.",
        "I cannot tell.",
        "Nobody knows",
        "yesterday",
        "notably",
        "?",
    ],
)
def test_neither_is_unparsed(reply):
    assert yes_no(reply) is None


@given(st.text(max_size=200))
def test_parsers_never_raise_and_answer_within_their_alphabet(text):
    one, many = chosen(text, "ABC", ("x", "y", "z")), chosen(text, "ABC", several=True)
    assert one in (None, "A", "B", "C")
    assert many is None or (set(many) <= set("ABC") and list(many) == sorted(set(many)))
    assert yes_no(text) in (True, False, None)
