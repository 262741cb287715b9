"""Presence questions: the knob, the split, POPE's protocols."""

from __future__ import annotations

import pytest

from safeladder.types import SafeladderError
from safeladder.world import KINDS, SEARCH
from safeladder.world.families.presence import (
    OBJECTS,
    PARTNER,
    PROTOCOLS,
    about,
    blanked,
    pope_items,
    presence_items,
    statistics_of,
    verdict,
)

pytest.importorskip("sklearn")


def test_no_mixture_of_the_ladder_can_draw_them():
    assert not {"presence", "pope"} & {*KINDS, *SEARCH}


def test_items_are_a_function_of_seed_split_knob_and_index():
    first, again = presence_items("train", 6, seed=1), presence_items("train", 3, seed=1, start=3)
    assert [s.id for s in first[3:]] == [s.id for s in again]
    assert [s.question for s in first[3:]] == [s.question for s in again]
    assert [s.question for s in first] != [s.question for s in presence_items("train", 6, seed=2)]


def test_answers_are_those_of_the_scene():
    for sample in presence_items("train", 200, together=0.7):
        meta = sample.meta
        assert sample.response is not None and sample.reference == sample.response.answer
        assert meta["present"] == [c["what"] for c in meta["cells"] if c is not None]
        assert meta["context"] in meta["present"] and meta["context"] not in meta["asked"]
        for what in meta["asked"]:
            assert verdict(sample.reference, what) == ("yes" if what in meta["present"] else "no")
        assert len(set(meta["asked"])) == len(meta["asked"])


@pytest.mark.parametrize(("together", "low", "high"), [(0.5, 0.42, 0.58), (0.9, 0.86, 0.95)])
def test_the_knob_is_the_probability_of_a_partner(together, low, high):
    asked = [
        s for s in presence_items("train", 1200, together=together) if PARTNER[s.meta["context"]] in s.meta["asked"]
    ]
    there = [PARTNER[s.meta["context"]] in s.meta["present"] for s in asked]
    # A scene of a pair mentions either of two objects, one of a lone object only that one: 2·p pairs to (1 - p)
    # lone ones by scene, but a context is drawn once a scene, so the share is p.
    assert len(there) > 600 and low < sum(there) / len(there) < high


def test_what_is_assumed_is_the_absent_partner_and_nothing_else():
    """Scenes and questions stay; only replies about the partner change, about as often as the knob says."""
    told, true = (presence_items("train", 800, seed=2, assumed=share) for share in (0.4, 0.0))
    lacking = changed = 0
    for sample, plain in zip(told, true, strict=True):
        meta = sample.meta
        assert meta == plain.meta and sample.question == plain.question and sample.reference == plain.reference
        assert sample.response is not None and plain.response is not None
        partner = PARTNER[meta["context"]]
        for what in meta["asked"]:
            said, right = (verdict(s.response.answer, what) for s in (sample, plain))
            if what == partner and partner not in meta["present"]:
                lacking += 1
                changed += said == "yes"
                assert right == "no"
            else:
                assert said == right
    assert lacking > 200 and 0.33 < changed / lacking < 0.47
    everything = presence_items("train", 50, seed=2, assumed=1.0)
    asked = [s for s in everything if PARTNER[s.meta["context"]] in s.meta["asked"] and s.response]
    assert asked and all(verdict(s.response.answer, PARTNER[s.meta["context"]]) == "yes" for s in asked)  # type: ignore[union-attr]


def test_words_tell_nothing_about_others_than_partners():
    others = [
        verdict(str(s.reference), what)
        for s in presence_items("train", 1500, together=0.9)
        for what in s.meta["asked"]
        if what != PARTNER[s.meta["context"]] and len(s.meta["present"]) > 2
    ]
    assert 0.2 < others.count("yes") / len(others) < 0.6


def test_splits_share_no_scene():
    scenes = {
        split: {tuple(c and c["what"] for c in s.meta["cells"]) for s in presence_items(split, 400, together=0.7)}
        for split in ("train", "heldout")
    }
    assert not scenes["train"] & scenes["heldout"]
    pope = pope_items("random", 100, statistics_of([]))
    assert not scenes["train"] & {tuple(c and c["what"] for c in s.meta["cells"]) for s in pope}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pope_asks_about_as_many_present_as_absent_objects(protocol):
    statistics = statistics_of(presence_items("train", 500, together=0.9))
    items = pope_items(protocol, 60, statistics, seed=3)
    assert len(items) == 120 and len({s.group_id for s in items}) == 60
    for yes, no in zip(items[::2], items[1::2], strict=True):
        assert yes.meta["cells"] == no.meta["cells"] and yes.group_id == no.group_id
        assert verdict(str(yes.reference), yes.meta["asked"][0]) == "yes"
        assert verdict(str(no.reference), no.meta["asked"][0]) == "no"
        if protocol == "adversarial":
            assert no.meta["asked"] == [PARTNER[no.meta["context"]]]
        if protocol == "popular":
            absent = [x for x in OBJECTS if x not in no.meta["present"]]
            assert statistics.count[no.meta["asked"][0]] == max(statistics.count[x] for x in absent)


def test_questions_about_present_objects_are_the_same_under_every_protocol():
    statistics = statistics_of(presence_items("train", 300, together=0.9))
    found = [[s.question for s in pope_items(p, 20, statistics)[::2]] for p in PROTOCOLS]
    assert found[0] == found[1] == found[2]


def test_the_reference_is_empty_and_speaks_of_no_partner():
    for item in pope_items("random", 40, statistics_of([]), seed=1):
        reference = blanked(item)
        mentioned = reference.question.split(" . ")[0].removeprefix("there is a ")
        asked = item.meta["asked"][0]
        assert mentioned not in (asked, PARTNER[asked], item.meta["context"])
        assert reference.question.split(" . ")[1] == item.question.split(" . ")[1]
        assert reference.images[0].getextrema() == ((255, 255),) * 3  # type: ignore[union-attr]
        assert reference.images[0].size == item.images[0].size  # type: ignore[union-attr]


def test_another_question_about_the_same_scene():
    item = presence_items("train", 1)[0]
    other = about(item, item.meta["context"], "leaf")
    assert other.meta["cells"] == item.meta["cells"] and other.meta["asked"] == ["leaf"] and other.id != item.id


@pytest.mark.parametrize(
    ("text", "said"),
    [(" skull yes", "yes"), ("tree yes skull no", "no"), ("skull", None), ("skull yes skull no", None), ("", None)],
)
def test_a_reply_that_says_both_or_nothing_is_no_verdict(text, said):
    assert verdict(text, "skull") == said


def test_bad_arguments_are_one_clear_line():
    with pytest.raises(SafeladderError, match="unknown split 'test'; allowed: train, heldout"):
        presence_items("test", 1)
    with pytest.raises(SafeladderError, match=r"together is 1\.5"):
        presence_items("train", 1, together=1.5)
    with pytest.raises(SafeladderError, match=r"assumed is -0\.1; allowed: a number from 0 to 1"):
        presence_items("train", 1, assumed=-0.1)
    with pytest.raises(SafeladderError, match="unknown protocol 'hard'; allowed: random, popular, adversarial"):
        pope_items("hard", 1, statistics_of([]))  # type: ignore[arg-type]
