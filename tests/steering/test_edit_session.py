"""Sessions: corrections are learnt from, and how far the person has to move the chain falls."""

from __future__ import annotations

import pytest
from word_engine import HARM, WordEngine, compliant, question

from safeladder.steering.edit_memory import EditMemory
from safeladder.steering.edit_prompts import Objection, dialogue, in_context
from safeladder.steering.edit_rules import EditPair
from safeladder.steering.edit_session import Edit, EditSession
from safeladder.steering.edit_transfer import Outcome
from safeladder.types import Message, Part, SafeladderError, Sample, SamplingParams

GREEDY = SamplingParams(max_new_tokens=60, temperature=0.0)
THINGS = ("man", "ring", "visa", "phone")


def play(memory: EditMemory | None) -> EditSession:
    """Four harmful questions; the person corrects what is still wrong."""
    session = EditSession(WordEngine(compliant), GREEDY, memory=memory)
    for (verb, effect), thing in zip(HARM.items(), THINGS, strict=True):
        turn = session.ask(question(f"now {verb} {thing}"))
        if "fine" in turn.shown.text:
            session.correct(2, f"{verb} {thing} : this {effect} people .")
    return session


def test_the_distance_falls_with_a_memory_and_stays_without():
    # Of 6 + 7 words of the corrected chain (read : v , t .  v t : this e people .) 3 are new: fine→this, +e, +people.
    # The first correction alone is tied to its effect ("hurts"); two make a rule.
    assert play(EditMemory()).distances == pytest.approx([3 / 13, 3 / 13, 0, 0])
    assert play(None).distances == pytest.approx([3 / 13] * 4)


def test_a_turn_keeps_what_was_shown_what_was_edited_and_what_the_memory_did():
    session = play(EditMemory())
    first, third = session.turns[0], session.turns[2]
    assert first.applied is not None and first.applied.outcome == Outcome.NO_RULE
    assert first.edits == [
        Edit(number=2, original="kill man : fine .", edited="kill man : this hurts people .", how="continue")
    ]
    assert first.shown.text != first.now.text
    assert third.applied is not None and third.applied.outcome == Outcome.APPLIED and third.edits == []
    assert third.now is third.shown
    assert session.memory is not None
    assert [pair.answer for pair in session.memory.pairs] == ["no , this is wrong"] * 2


def test_edits_can_follow_one_another_and_re_answer_keeps_the_rest():
    session = EditSession(WordEngine(compliant), GREEDY)
    session.ask(question("now kill man"))
    session.correct(2, "kill man : this hurts people .", "re-answer")
    after = session.correct(1, "read : kill , boy .", "re-answer")
    assert after.response is not None
    assert after.response.reasoning == "read : kill , boy . kill man : this hurts people ."
    assert [edit.how for edit in session.turns[0].edits] == ["re-answer", "re-answer"]
    assert session.distances == pytest.approx([4 / 13])  # three as above, and man→boy


def test_taking_an_edit_back_confirms_the_draft():
    session = play(EditMemory())
    turn = session.turns[2]
    assert turn.applied is not None and turn.applied.outcome == Outcome.APPLIED
    session.turns = session.turns[:3]
    after = session.correct(2, "fake visa : fine .")
    assert after.response is not None and after.response.answer == "sure , fake it"
    assert session.memory is not None
    last = session.memory.pairs[-1]
    assert last.confirmed and last.original == "fake visa : fine ."
    assert len(session.memory.rules) == 1, "no rule that does the reverse"


def test_only_an_untouched_reply_can_be_confirmed():
    session = play(EditMemory())
    session.ask(question("now cook soup"))
    assert session.accept() == 1
    session.correct(1, "read : cook , fish .")
    with pytest.raises(SafeladderError, match="only an untouched one"):
        session.accept()
    assert EditSession(WordEngine(compliant), GREEDY).turns == []
    with pytest.raises(SafeladderError, match="nothing was asked yet"):
        EditSession(WordEngine(compliant), GREEDY).correct(1, "x")
    plain = EditSession(WordEngine(compliant), GREEDY)
    plain.ask(question("now cook soup"))
    assert plain.accept() == 0, "there is no memory to store it in"


# prompts


def test_a_dialogue_holds_the_wrong_reply_the_objection_and_the_right_one():
    session = play(None)
    turn = session.turns[0]
    picture = Sample(
        id="p", label="safety", messages=(Message(role="user", parts=(Part(image="a.png"), Part(text="now hack it"))),)
    )
    objection = Objection(
        wrong=turn.shown, original="kill man : fine .", edited="kill man : this hurts people .", right=turn.now
    )
    told = dialogue(picture, [objection], told="no : {original} say {edited}")
    assert [m.role for m in told.messages] == ["user", "assistant", "user", "assistant", "user"]
    assert [m.text for m in told.messages] == [
        "now kill man",
        turn.shown.text,
        "no : kill man : fine . say kill man : this hurts people .",
        turn.now.text,
        "now hack it",
    ]
    assert told.images == ("a.png",) and told.question == "now hack it"
    twice = dialogue(picture, [objection] * 2)
    assert len({picture.id, told.id, twice.id}) == 3, "an engine remembers prompts by id"


def test_corrections_are_shown_in_context_the_nearest_last_and_confirmations_not():
    pairs = [
        EditPair(question=q, original="a .", edited="b .", context="c . ", answer="d")
        for q in ("x y z", "x b c", "a b z")
    ]
    kept = EditPair(question="a b c", original="a .", edited="a .")
    shown = in_context(question("a b c"), [*pairs, kept], most=2)
    # words in common with "a b c": 0, 2, 2 of 3; equals keep their order, so the first of them stands last
    assert [m.text for m in shown.messages] == [
        "a b z",
        "<think> c . b .</think> d",
        "x b c",
        "<think> c . b .</think> d",
        "a b c",
    ]
    assert in_context(question("a"), []).messages == question("a").messages
