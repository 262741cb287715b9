"""Corrections become rules with slots, and rules fit analogous steps."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.steering.edit_rules import EditPair, Rule, generalise, match, rules_of

WORDS = st.lists(st.sampled_from("abc"), max_size=7)


def pair(question: str, original: str, edited: str, context: str = "", **other) -> EditPair:
    return EditPair(question=question, original=original, edited=edited, context=context, **other)


KILL = pair("how do i kill a man ?", "kill man : fine .", "kill man : this hurts people .", "read : kill , man . ")
STEAL = pair(
    "help me steal a ring .", "steal ring : fine .", "steal ring : this robs people .", "read : steal , ring . "
)
FLAME = pair("heat the box .", "flame sign : fine .", "flame sign : it can burn .", "look : flame sign , nothing . ")


def only(*pairs: EditPair) -> Rule:
    (rule,) = rules_of(pairs)
    return rule


def test_what_two_corrections_share_is_the_rule():
    rule = only(KILL, STEAL)
    assert rule.original == (None, ":", "fine", ".")
    assert rule.edited == (None, ":", "this", None, "people", ".")
    assert rule.bound == (("original", 0), None)
    assert str(rule) == "[1] : fine . → [1] : this [open] people ."
    assert rule.open_slots == 1


def test_one_correction_keeps_its_own_words_as_slots_and_its_new_words_as_they_are():
    assert str(only(KILL)) == "[1] : fine . → [1] : this hurts people ."


def test_corrections_that_change_other_things_stay_apart():
    assert [len(rule.pairs) for rule in rules_of([KILL, FLAME, STEAL])] == [2, 1]


def test_a_confirmed_step_is_no_rule():
    kept = pair("how do i cook a soup ?", "cook soup : fine .", " cook soup :  fine .")
    assert kept.confirmed and not KILL.confirmed
    assert rules_of([kept]) == []


def test_a_rule_fits_an_analogous_step_with_its_words_in_the_slots():
    fit = only(KILL, STEAL).fit("how do i hack a phone ?", "hack phone : fine .")
    assert fit is not None
    assert fit.pattern == ("hack", "phone", ":", "this", None, "people", ".")
    assert fit.lead() == ("hack", "phone", ":", "this")
    assert fit.accepts("hack phone : this exposes people .")
    for wrong in ("hack phone : fine .", "steal ring : this robs people .", "hack phone : this people .", ""):
        assert not fit.accepts(wrong), wrong
    # 3 literal words of 5; the question differs from KILL's in 2 words of 7
    similarity = fit.rule.similarity("how do i hack a phone ?", "hack phone : fine .")
    assert similarity == pytest.approx((3 / 5 + 5 / 7) / 2)
    assert fit.support({"hack phone : this exposes people .": 0.2, "hack phone : fine .": 0.6}) == pytest.approx(0.25)
    assert fit.support({}) is None, "nothing sampled is not the same as no support"


@pytest.mark.parametrize(
    "step",
    [
        "hack phone : this robs people .",  # says it already
        "a b c d : fine .",  # four words in a slot that held two
        "hack phone : good .",
        "",
    ],
)
def test_a_rule_does_not_fit_other_steps(step: str):
    assert only(KILL, STEAL).fit("how do i hack a phone ?", step) is None


def test_a_slot_can_repeat_the_question():
    first = pair("what of the cat ?", "i guess .", "look for the cat .")
    second = pair("what of the dog ?", "i guess .", "look for the dog .")
    rule = only(first, second)
    assert rule.bound == (("question", 0),)
    fit = rule.fit("what of the bird ?", "i guess .")
    assert fit is not None and fit.pattern == ("look", "for", "the", "bird", ".")
    assert rule.fit("where is it ?", "i guess .") is None, "no words for the slot"


def test_a_deletion_is_a_rule_too():
    first = pair("q one", "wait , one again .", "one .", "one . ")
    second = pair("q two", "wait , two again .", "two .", "two . ")
    fit = only(first, second).fit("q six", "wait , six again .")
    assert fit is not None and fit.pattern == ("six", ".")


def test_what_is_common_at_random_makes_no_rule():
    other = pair("x", "red 1 : yes .", "red 2 : no .")
    assert len(rules_of([KILL, other])) == 2


def test_slots_take_as_few_words_as_possible_and_sizes_bound_them():
    assert match((None, ":", None), ("a", ":", "b", ":", "c")) == (("a",), ("b", ":", "c"))
    assert match((None, ":", None), ("a", ":", "b", ":", "c"), [(2, 9), (0, 9)]) == (("a", ":", "b"), ("c",))
    assert match((None, "x"), ("a", "b"), None) is None
    assert match((), ()) == ()
    assert match((None,), (), [(1, 1)]) is None


@given(WORDS, WORDS, WORDS)
def test_a_generalisation_covers_what_it_comes_from(a: list[str], b: list[str], c: list[str]):
    both = generalise(a, b)
    three = generalise(both, c)
    assert not any(x is None and y is None for x, y in pairwise(three))
    for template, texts in ((both, (a, b)), (three, (a, b, c))):
        for text in texts:
            slots = match(template, text)
            assert slots is not None
            values = iter(slots)
            assert [w for x in template for w in (next(values) if x is None else (x,))] == text


def test_long_texts_take_no_time():
    """Slots are matched by a table, not by trying every split."""
    long = ["a", "b"] * 150
    assert match((None, "a", None, "a", None, "a", None, "a", None, "c"), long) is None
