"""CHAIR and MMHal-Bench: arithmetic by hand, cut captions, verdicts that cannot be read, the order of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multimodal_layouts import with_synonyms
from multimodal_rows import FEW, ScriptedJudge, answered, judged, picture, value, write_json

from safeladder.evaluation.suites.chair import SUITE as CHAIR
from safeladder.evaluation.suites.chair.lexicon import Lexicon, finished
from safeladder.evaluation.suites.chair.reader import digest
from safeladder.evaluation.suites.mmhal import SUITE as MMHAL
from safeladder.evaluation.suites.mmhal import TYPES
from safeladder.types import Message, Part, Rollout, SafeladderError, Sample, StopReason

NAMES = (("dog", "puppy"), ("hot dog",), ("person", "man", "child"), ("knife",), ("bus",))


def sample(number: int, *objects: str) -> Sample:
    return Sample(
        id=f"c{number}",
        messages=(Message(role="user", parts=(Part(text="Describe it."),)),),
        label="general",
        taxonomy=("pictures",),
        meta={"objects": list(objects), "lexicon": NAMES, "list": "0"},
    )


def chair_figures(rollouts: list[Rollout]):
    return CHAIR.figures(judged(rollouts, CHAIR.verifiers(None)), FEW)


# CHAIR


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A puppy and two dogs.", {"dog"}),
        ("He eats a hot dog", {"hot dog"}),
        ("Two HOT\nDOGS and a dog", {"hot dog", "dog"}),
        ("men, children: knives; buses", {"person", "knife", "bus"}),
        ("a dogma, a bushel, a knifelike thing", set()),
        ("", set()),
    ],
)
def test_objects_are_named_by_whole_words_longest_first(text: str, found: set[str]):
    assert Lexicon.of(NAMES).mentioned(text) == found


def test_a_name_stands_for_one_object():
    with pytest.raises(SafeladderError, match="'Puppy' stands for 'dog' and for 'cat'"):
        Lexicon((("dog", "puppy"), ("cat", "Puppy")))


def test_chair_by_hand():
    # mentioned: dog, bus | dog, knife, person | none    = 5; hallucinated: bus | none | none = 1: CHAIR_i 1/5
    # captions with one: 1 of 3; present: dog | dog, knife, person | bus = 5, found 1 + 3 + 0: recall 4/5
    # words 5 + 6 + 3 = 14, mean 14/3; one caption of three names no object
    rollouts = [
        answered(sample(1, "dog"), "A dog near a bus."),
        answered(sample(2, "dog", "knife", "person"), "A man, a puppy, a knife."),
        answered(sample(3, "bus"), "I cannot tell."),
    ]
    found = chair_figures(rollouts)
    assert found[0].name == "CHAIR_i" and found[0].better == "lower"
    assert value(found, "CHAIR_i") == pytest.approx(1 / 5)
    assert value(found, "CHAIR_s") == pytest.approx(1 / 3)
    assert value(found, "recall") == pytest.approx(4 / 5)
    assert value(found, "captions that name no object") == pytest.approx(1 / 3)
    assert value(found, "words a caption") == pytest.approx(14 / 3)


def test_J01_a_cut_sentence_is_dropped_and_counted():
    """The object of the half sentence is not held against the model; what a cut caption left unsaid is not known."""
    rollouts = [
        answered(sample(1, "dog"), "A dog runs. Behind it a bus", stop=StopReason.LENGTH),
        answered(sample(2, "dog"), "A bus and", stop=StopReason.LENGTH),
        answered(sample(3, "dog"), "A dog. A bus"),
    ]
    found = chair_figures(rollouts)
    # mentioned dog | - | dog, bus
    assert value(found, "CHAIR_i") == pytest.approx(1 / 3)
    assert found[0].metric is not None and (found[0].metric.n, found[0].metric.n_unscored) == (2, 1)
    assert value(found, "truncated") == pytest.approx(2 / 3)
    assert value(found, "CHAIR_s") == 1.0 and found[1].metric is not None and found[1].metric.n_unscored == 2
    assert value(found, "words a caption") == pytest.approx((3 + 4) / 2)
    assert finished("到此。还有", cut=True) == "到此。" and finished("3.5 dogs", cut=True) == ""


def test_J01_the_list_of_pictures_is_pinned(tmp_path: Path):
    for number in range(3):
        picture(tmp_path / f"chair/images/{number}.png")
    rows = [{"image": f"{number}.png", "objects": ["dog"]} for number in range(3)]
    lists = []
    for chosen in (rows, rows[::-1], rows[:2], [*rows[:2], {**rows[2], "objects": ["car"]}]):
        with_synonyms(tmp_path, chosen)
        read = CHAIR.read(tmp_path, "pictures")
        figure = CHAIR.figures(judged([answered(s, "A dog.") for s in read], CHAIR.verifiers(None)), FEW)[0]
        lists.append(figure.note)
        assert figure.note.endswith(read[0].meta["list"])
    assert lists[0] == lists[1] and len(set(lists)) == 3  # the order does not matter; the pictures and objects do
    assert CHAIR.max_new_tokens == 512  # the budget stands in every report (`max_tokens`)


def test_an_object_without_a_name_is_an_error(tmp_path: Path):
    picture(tmp_path / "chair/images/0.png")
    with_synonyms(tmp_path, [{"image": "0.png", "objects": ["dog", "cat"]}])
    with pytest.raises(SafeladderError, match=r"row 1: the object 'cat' has no line in synonyms.txt"):
        CHAIR.read(tmp_path, "pictures")


def test_the_worlds_own_captions_are_faithful_and_complete():
    from safeladder.world import World, WorldConfig

    world = World(WorldConfig(grid=2, difficulty=0.2, chinese_share=0.5))
    gold = {s.id: s.reference for s in world.samples("heldout", 200, {"caption": 1.0})}
    read = CHAIR.read(Path(), "world")
    assert len(read) == 200 and len({s.meta["list"] for s in read}) == 1
    mixed = [s for s in read if s.id in gold][:40]
    assert {s.language for s in read} == {"en", "zh"} and len(mixed) == 40
    rollouts = [
        answered(s, " , ".join(line[-1] for line in s.meta["lexicon"] if line[0] in s.meta["objects"])) for s in mixed
    ]
    found = chair_figures(rollouts)
    assert value(found, "CHAIR_i") == 0.0 and value(found, "recall") == 1.0


@given(st.lists(st.text(max_size=8)))
def test_a_digest_does_not_depend_on_the_order(entries: list[str]):
    assert digest(entries) == digest(entries[::-1])
    assert digest([*entries, "one more"]) != digest(entries)


# MMHal-Bench


def mmhal_rows(**changes: Any) -> list[dict[str, Any]]:
    return [
        {"question_type": kind, "image_src": f"https://example.org/a/{number}.jpg", "image_content": ["Dog"],
         "question": "What is it?", "gt_answer": "A dog.", **changes}
        for number, kind in enumerate(TYPES)
    ]  # fmt: skip


@pytest.fixture
def mmhal(tmp_path: Path) -> Path:
    for number in range(len(TYPES)):
        picture(tmp_path / f"images/{number}.jpg")
    write_json(tmp_path / "response_template.json", mmhal_rows())
    return tmp_path


def test_J02_an_unread_grade_is_unscored_and_bad_only_as_published(mmhal: Path):
    # grades 6, 3, 2, 0, none, two that differ; then a cut reply and a failed one
    # hallucination rate 2/4, bounds 2/6 and 4/6 over the six, the cut one has no grade either
    verdicts = iter(["Fine.\nVERDICT: 6", "VERDICT: 3", "VERDICT: 2", "VERDICT: 0", "Good answer.",
                     "VERDICT: 5\nVERDICT: 1"])  # fmt: skip
    judge = ScriptedJudge(lambda asked: next(verdicts), sees_images=False)
    read = MMHAL.read(mmhal, "test")
    stops = {6: StopReason.LENGTH, 7: StopReason.ERROR}
    rollouts = [answered(s, "A dog.", stop=stops.get(i, StopReason.EOS)) for i, s in enumerate(read)]
    found = MMHAL.figures(judged(rollouts, MMHAL.verifiers(judge)), FEW)
    assert found[0].name == "hallucination rate" and value(found, "hallucination rate") == pytest.approx(2 / 4)
    assert found[0].metric is not None and found[0].metric.n_unscored == 4
    assert value(found, "grade") == pytest.approx((6 + 3 + 2 + 0) / 4 / 6)
    # the published script: six graded, two of them unread, and the cut one: 5 of 7; the failed one is no reply
    assert value(found, "hallucination rate (as published)") == pytest.approx(5 / 7)
    asked = "".join(message.text for message in judge.asked[0])
    assert "Dog" in asked and "A dog." in asked and "What is it?" in asked


def test_J03_the_order_of_the_rows_is_checked(mmhal: Path):
    assert [s.taxonomy for s in MMHAL.read(mmhal, "test")] == [(kind,) for kind in TYPES]
    rows = mmhal_rows()
    write_json(mmhal / "response_template.json", [rows[1], rows[0], *rows[2:]])
    with pytest.raises(SafeladderError, match=r"row 1: question_type 'adversarial' at a place of 'attribute'"):
        MMHAL.read(mmhal, "test")


def test_mmhal_needs_a_judge_and_its_pictures(mmhal: Path):
    with pytest.raises(SafeladderError, match="no offline judge"):
        MMHAL.verifiers(None)
    (mmhal / "images/3.jpg").unlink()
    with pytest.raises(SafeladderError, match=r"row 4: .*3\.jpg"):
        MMHAL.read(mmhal, "test")
