"""HAVEN: spellings, variants of a question, bias in both readings, the pooling that reproduces the printed totals."""

from __future__ import annotations

import pytest
from multimodal_rows import FEW, ScriptedJudge, answered, judged, picture, scored, value, write_json

from safeladder.data.rows import Row
from safeladder.evaluation.suites.haven import SUITE
from safeladder.evaluation.suites.haven.figures import bias
from safeladder.evaluation.suites.haven.reader import BINARY, MULTIPLE, SUBSETS, options_of
from safeladder.evaluation.suites.haven.spelling import accepted, says_no_answer
from safeladder.evaluation.suites.haven.verdicts import answered as read_answer
from safeladder.types import Rollout, SafeladderError, Sample, StopReason

BASE = {
    "Causes": "Conflict with prior", "Aspects": "Object", "Source Link": "", "Begin": "0:00", "End": "0:02",
    "Video Path": "Clip1",
}  # fmt: skip


def row(number: int, question: str, answer: str, form: str, group: str, **fields):
    return {**BASE, "Index": number, "Question": question, "Answer": answer, "Form": form, "Group_id": group, **fields}


ROWS = [
    row(1, "Is the cup red?", "Yes", "Binary-choice", "g1"),
    row(2, "Is the cup not red?", "no", "Binary-choice", "g1"),
    row(3, "What is it? A. Cup. B. Jug. C. Pan.", "A", "Multiple-choice", "g2"),
    row(4, "What can be seen? A. Jug. B. Cup. C. Pan.", "B", "Multiple-choice", "g2", Aspects="Scene"),
    row(5, "What is seen? A. Pan. B. Jug. C. Cup.", "C", "Multiple-choice", "g2"),
    row(6, "What is it?", "A cup", "Short-answer", "g3", Causes="Capability deficiency"),
]


@pytest.fixture
def folder(tmp_path):
    for i in range(20):
        picture(tmp_path / "frames" / "Clip1" / f"frame_{i}.jpg", (i, 0, 0))
    write_json(tmp_path / "test_data.json", ROWS)
    return tmp_path


def figures_of(folder, replies, judge=None):
    samples = SUITE.read(folder, "all")
    rollouts = [answered(s, reply) for s, reply in zip(samples, replies, strict=True)]
    return SUITE.figures(judged(rollouts, SUITE.verifiers(judge)), FEW)


@pytest.mark.parametrize(
    ("spelling", "accepts"),
    [
        ("yes", {"yes"}), ("Yes", {"yes"}), ("no", {"no"}), ("No", {"no"}),
        ("no/i don't know", {"no", "no answer"}),
        ("no or i don't know", {"no", "no answer"}),
        ("No or I don't know or No answer", {"no", "no answer"}),
        ("no answer", {"no answer"}), ("I don't know", {"no answer"}),
        ("I don't know/No answer", {"no answer"}), ("No answer/I don't know", {"no answer"}),
        ("Both A and B is wrong. No answer", {"no answer"}),
        ("A or I don't know or No answer", {"A", "no answer"}),
        ("B or I don’t know or No answer", {"B", "no answer"}),
        ("A", {"A"}), ("a", {"A"}), ("B", {"B"}), ("C", {"C"}), ("C.", {"C"}),
    ],
)  # fmt: skip
def test_F01_every_published_spelling(spelling, accepts):
    found = accepted(spelling)
    assert found is not None and set(found) == accepts


@pytest.mark.parametrize("spelling", ["", "maybe", "D", "yes and no", "A cup", "A or B"])
def test_F01_another_spelling_is_an_error_not_a_guess(folder, spelling):
    assert accepted(spelling) is None
    write_json(folder / "test_data.json", [{**ROWS[0], "Answer": spelling or " "}])
    with pytest.raises(SafeladderError, match=r"test_data\.json row 1: "):
        SUITE.read(folder, "all")


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("What is it? A. Cup. B. Jug. C. Pan.", ("Cup.", "Jug.", "Pan.")),
        ("What is it? A. Cup. B.Jug.", ("Cup.", "Jug.")),
        ("Who? A. Another cat. B. A person.C. A mouse", ("Another cat.", "A person.", "A mouse")),
        ("Where is it? A A forest B A wall C A road", ("A forest", "A wall", "A road")),
        ("What is it?\nA. Still\nB. In motion.", ("Still", "In motion.")),
    ],
)
def test_options_inside_the_question(question, options):
    assert options_of(Row("x", {"Question": question})) == options


def test_frames_are_spread_over_the_video_in_order(folder):
    (sample, *_) = SUITE.read(folder, "all")
    (video,) = sample.videos
    # 20 frames, 8 wanted: the middles of eighths, int((i + 0.5) * 20 / 8) = 1, 3, 6, 8, 11, 13, 16, 18
    assert [str(f).rsplit("_", 1)[1] for f in video] == [f"{i}.jpg" for i in (1, 3, 6, 8, 11, 13, 16, 18)]
    assert len(SUITE.read(folder, "16-frames")[0].videos[0]) == 16
    assert len(SUITE.read(folder, "32-frames")[0].videos[0]) == 20  # there are no more
    assert list(SUBSETS) == ["all", "16-frames", "32-frames"]


def test_H05_missing_frames_are_an_error(folder):
    write_json(folder / "test_data.json", [{**ROWS[0], "Video Path": "Clip2"}])
    with pytest.raises(SafeladderError, match="row 1: the frames of the video are missing"):
        SUITE.read(folder, "all")


def test_accuracy_by_cause_aspect_and_form(folder):
    # right: rows 1, 3, 4; wrong: 2 (says yes), 5 (says A); 6 needs a judge
    found = figures_of(folder, ["Yes.", "Yes.", "A", "B. Cup", "A", "a cup"])
    (overall,) = [f.metric for f in found if f.name == "accuracy" and not f.group]
    assert overall is not None and (overall.value, overall.n, overall.n_unscored) == (0.6, 5, 1)
    assert value(found, "accuracy", ("form", "Binary-choice")) == 0.5
    assert value(found, "accuracy", ("form", "Multiple-choice")) == pytest.approx(2 / 3)
    assert value(found, "accuracy", ("form", "Short-answer")) is None
    assert value(found, "accuracy", ("aspect", "Scene")) == 1.0
    assert value(found, "accuracy", ("Conflict with prior", "Object", "Multiple-choice")) == 0.5


def test_F03_a_judge_that_cannot_be_read_is_its_own_state(folder):
    replies = ["Yes.", "No.", "A", "B", "C", "a cup"]
    good = figures_of(folder, replies, ScriptedJudge(lambda _: "The same.\nVERDICT: correct"))
    assert value(good, "accuracy") == 1.0
    bad = figures_of(folder, replies, ScriptedJudge(lambda _: "{}"))
    (overall,) = [f.metric for f in bad if f.name == "accuracy" and not f.group]
    assert overall is not None and (overall.value, overall.n, overall.n_unscored) == (1.0, 5, 1)


def test_F04_a_model_that_is_always_right_is_not_biased(folder):
    found = figures_of(folder, ["Yes.", "No.", "A", "B", "C", "x"])
    for mode in ("correctness", "content"):
        assert value(found, f"bias ({mode})") == 0.0


def test_F04_bias_in_both_readings(folder):
    # pair: yes, yes -> one right, one wrong: biased in both readings
    # triple: Jug, Jug, Jug (letters B, A, B) -> all wrong, the same content: biased in neither reading
    found = figures_of(folder, ["Yes.", "Yes.", "B", "A", "B", "x"])
    for mode in ("correctness", "content"):
        assert value(found, f"bias ({mode})", ("Binary-choice",)) == 1.0
        assert value(found, f"bias ({mode})", ("Multiple-choice",)) == 0.0
        assert value(found, f"bias ({mode})") == 0.5
    # triple: always the letter B -> Jug (wrong), Cup (right), Jug (wrong): biased in both
    # triple: B, A, A -> Jug, Jug, Pan: all wrong (not biased in correctness), not one content (biased in content)
    found = figures_of(folder, ["Yes.", "No.", "B", "B", "B", "x"])
    assert value(found, "bias (correctness)", ("Multiple-choice",)) == 1.0
    found = figures_of(folder, ["Yes.", "No.", "B", "A", "A", "x"])
    assert value(found, "bias (correctness)", ("Multiple-choice",)) == 0.0
    assert value(found, "bias (content)", ("Multiple-choice",)) == 1.0


def test_unread_and_unscored_replies_in_the_bias(folder):
    samples = SUITE.read(folder, "all")
    replies = ["Yes.", "hm", "A", "B", "C", "x"]
    rollouts = [answered(s, reply) for s, reply in zip(samples, replies, strict=True)]
    rollouts[4] = answered(samples[4], "C", stop=StopReason.ERROR)
    found = SUITE.figures(judged(rollouts, SUITE.verifiers(None)), FEW)
    assert value(found, "bias (correctness)", ("Binary-choice",)) == 1.0  # the unread reply is wrong
    assert value(found, "bias (content)", ("Binary-choice",)) is None  # what it says cannot be told
    assert value(found, "bias (correctness)", ("Multiple-choice",)) is None  # a third of the triple failed
    (total,) = [f.metric for f in found if f.name == "bias (correctness)" and not f.group]
    assert total is not None and (total.n, total.n_unscored) == (1, 1)


def test_F02_mixed_groups_are_taken_apart_and_singles_are_counted(folder):
    mixed = [
        *[row(i, f"Is it {i}?", "yes" if i % 2 else "no", "Binary-choice", "m") for i in range(1, 7)],
        row(11, "What? A. x B. y", "A", "Multiple-choice", "m"),
        row(12, "Where? A. here B. there C. nowhere", "A", "Multiple-choice", "m"),
        row(13, "What? A. y B. x", "B", "Multiple-choice", "m"),
        row(14, "Where? A. nowhere B. here C. there", "B", "Multiple-choice", "m"),
        row(15, "Single? A. u B. v", "A", "Multiple-choice", "s"),
    ]
    write_json(folder / "test_data.json", mixed)
    samples = SUITE.read(folder, "all")
    sizes: dict[str, int] = {}
    for sample in samples:
        sizes[sample.meta["variants"]] = sizes.get(sample.meta["variants"], 0) + 1
    assert sorted(sizes.values()) == [1, 2, 2, 2, 2, 2]
    assert len({s.group_id for s in samples}) == 2  # intervals are clustered by the published group
    found = SUITE.figures(judged([answered(s, "yes") for s in samples], SUITE.verifiers(None)), FEW)
    (total,) = [f for f in found if f.name == "bias (correctness)" and not f.group]
    assert total.note == "1 questions with one variant only are left out"


def test_F05_pooling_by_question_reproduces_a_printed_total():
    # The paper prints T/F 49.16, MC 35.07, total 41.02 for the Thinking model, and 0.4226 of its questions are pairs.
    # In thousand: 423 pairs, 208 of them inconsistent (49.17 %); 577 triples, 202 of them (35.01 %); 410/1000 = 41.0 %.
    def bundle(number: int, size: int, form: str, inconsistent: bool) -> list[Rollout]:
        samples = [
            Sample(
                id=f"{form}{number}-{i}",
                messages=(),
                label="x",
                taxonomy=("", "", form),
                group_id=f"{form}{number}",
                meta={"accepted": ["yes"], "options": [], "variants": f"{form}{number}"},
            )
            for i in range(size)
        ]
        return [scored(s, "haven", float(i == 0 or not inconsistent)) for i, s in enumerate(samples)]

    pairs = [bundle(i, 2, BINARY, i < 208) for i in range(423)]
    triples = [bundle(i, 3, MULTIPLE, i < 202) for i in range(577)]
    one, other = bias(pairs, "correctness", FEW), bias(triples, "correctness", FEW)
    total = bias([*pairs, *triples], "correctness", FEW)
    assert one and other and total
    assert 100 * one.value == pytest.approx(49.16, abs=0.1) and 100 * other.value == pytest.approx(35.07, abs=0.1)
    assert 100 * total.value == pytest.approx(41.02, abs=0.1)
    assert total.value == pytest.approx(0.4226 * one.value + 0.5774 * other.value, abs=1e-3)


def test_the_total_pools_questions_not_forms(folder):
    # 1 pair biased, 3 triples of which 1 is biased: total 2/4, not the mean of 1 and 1/3.
    rows = ROWS[:2] + [
        {**r, "Index": 10 * (k + 1) + i, "Group_id": f"t{k}"} for k in range(3) for i, r in enumerate(ROWS[2:5])
    ]
    write_json(folder / "test_data.json", rows)
    replies = ["Yes.", "Yes.", "A", "B", "C", "A", "B", "C", "A", "A", "A"]
    found = figures_of(folder, replies)
    assert value(found, "bias (correctness)") == 0.5
    tf, mc = (value(found, "bias (correctness)", (f,)) for f in ("Binary-choice", "Multiple-choice"))
    assert tf is not None and mc is not None
    assert value(found, "bias (correctness)") == pytest.approx(0.25 * tf + 0.75 * mc)


@pytest.mark.parametrize(
    "reply",
    [
        "No answer.", "There is no answer", "I don't know.", "I cannot tell from the video.", "Unknown",
        "Not visible in the video", "It cannot be determined", "The video does not show a cup.", "None of the options.",
    ],
)  # fmt: skip
def test_no_answer_has_many_wordings(reply):
    assert says_no_answer(reply)


@pytest.mark.parametrize("reply", ["No.", "No, it is blue.", "A cup", "Yes", "There is no cup", "nothing"])
def test_a_no_is_not_no_answer(reply):
    assert not says_no_answer(reply)


def test_no_answer_is_right_where_it_is_accepted(folder):
    write_json(
        folder / "test_data.json",
        [
            {**ROWS[0], "Answer": "No or I don't know or No answer"},
            {**ROWS[2], "Answer": "Both A and B is wrong. No answer"},
        ],
    )
    binary, multiple = SUITE.read(folder, "all")
    assert read_answer(binary, "No answer") == read_answer(multiple, "There is no answer.") == "no answer"
    for replies, right in ((["No.", "no answer"], 1.0), (["I don't know", "A"], 0.5), (["Yes", "B"], 0.0)):
        assert value(figures_of(folder, replies), "accuracy") == right
