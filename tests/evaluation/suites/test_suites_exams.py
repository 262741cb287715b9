"""M3oralBench, MMMU, MathVista, GAOKAO-MM and MM-IFEval: published layouts, answers read by rule, counted failures."""

from __future__ import annotations

import json

import pytest
from multimodal_rows import FEW, ScriptedJudge, answered, judged, picture, shown, value, write_json

from safeladder.evaluation.suites.gaokao_mm import SUITE as GAOKAO
from safeladder.evaluation.suites.m3oralbench import SUITE as M3
from safeladder.evaluation.suites.mathvista import SUITE as MATHVISTA
from safeladder.evaluation.suites.mm_ifeval import SUITE as MMIF
from safeladder.evaluation.suites.mm_ifeval.checks import CHECKS, holds, valid
from safeladder.evaluation.suites.mmmu import SUITE as MMMU
from safeladder.evaluation.suites.mmmu.reader import DISCIPLINES
from safeladder.evaluation.suites.open_answers import rounds_to, same_words, stated
from safeladder.types import SafeladderError


def figures_of(suite, samples, replies, judge=None):
    rollouts = [answered(s, reply) for s, reply in zip(samples, replies, strict=True)]
    return suite.figures(judged(rollouts, suite.verifiers(judge)), FEW)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (r"So \boxed{12}", "12"), ("We add.\nThe answer is 12.", "12"), ("12", "12"),
        ("Answer: a red cup", "a red cup"),
        ("The answer is 3. Wait, the answer is 4.", "4"), ("答案是：12", "12"), ("Long.\n\n12 cm", "12 cm"),
        ("word " * 40, None), ("", None), (r"\boxed{}", None),
    ],
)  # fmt: skip
def test_stated_answers(reply, said):
    assert stated(reply) == said


@pytest.mark.parametrize(
    ("answer", "reference", "digits", "same"),
    [
        ("12", "12", 0, True), ("12.4", "12", 0, True), ("12.6", "12", 0, False), ("1,200", "1200", 0, True),
        ("about 3.14 cm", "3.14", 2, True), ("3.141", "3.14", 2, True), ("3.15", "3.14", 2, False),
        ("1/2", "0.5", 2, True), ("x", "1", 0, False), ("-4", "4", 0, False),
    ],
)  # fmt: skip
def test_numbers_at_the_decimals_asked_for(answer, reference, digits, same):
    assert rounds_to(answer, reference, digits) is same


def test_words_but_for_case_and_edges():
    assert same_words("A red Cup.", "a red cup") and not same_words("a red cup", "a blue cup")


# M3oralBench


@pytest.fixture
def m3(tmp_path):
    picture(tmp_path / "images" / "j.jpg")
    rows = [
        {
            "id": i, "image": "./images/j.jpg", "type": task, "gt_choice": "B", "Foundation": foundation,
            "instruction": 'Well?\n(A) Not wrong \n(B) Wrong\n\nPlease answer with only "(A)" or "(B)".',
        }
        for i, (task, foundation) in enumerate(
            [("judge", "Care"), ("judge", "Care"), ("classification", "Care"), ("response", "Liberty")]
        )
    ]  # fmt: skip
    write_json(tmp_path / "query.json", rows)
    return tmp_path


def test_m3oralbench_tasks_weigh_the_same(m3):
    # judge 1/2, classification 1/1, response 0/1: mean 1/2; over the four rows also 2/4, so by task instead
    found = figures_of(M3, M3.read(m3, "all"), ["(B)", "(A)", "B", "(A) it is fine"])
    assert found[0].name == "mean of the tasks" and value(found, "mean of the tasks") == pytest.approx(
        (0.5 + 1 + 0) / 3
    )
    assert value(found, "accuracy", ("task", "judge")) == 0.5 and value(
        found, "accuracy", ("foundation", "Care")
    ) == pytest.approx(2 / 3)
    found = figures_of(M3, M3.read(m3, "judge"), ["(B)", "no idea"])
    assert value(found, "mean of the tasks") == 0.5 and value(found, "unparsed") == 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gt_choice": "C"}, "gt_choice 'C'; allowed: A, B"), ({"type": "x"}, "type 'x'"),
        ({"instruction": "Well?"}, "no options"), ({"image": "./images/none.jpg"}, "not found"),
    ],
)  # fmt: skip
def test_m3oralbench_wrong_rows_are_named(m3, fields, message):
    rows = json.loads((m3 / "query.json").read_text())
    rows[1] |= fields
    write_json(m3 / "query.json", rows)
    with pytest.raises(SafeladderError, match=rf"query\.json row 2: .*{message}"):
        M3.read(m3, "all")


# MMMU


def mmmu_row(number: int, **fields):
    return {
        "id": f"validation_Math_{number}", "question": "What is <image 1>?", "options": '["<image 2>", "two"]',
        "answer": "B", "question_type": "multiple-choice", "image_1": "images/a.png", "image_2": "images/b.png",
        **fields,
    }  # fmt: skip


@pytest.fixture
def mmmu(tmp_path):
    for name in "ab":
        picture(tmp_path / "images" / f"{name}.png")
    rows = [
        mmmu_row(1),
        mmmu_row(2, options="['one', \"it's <image 2>\"]", answer="A"),
        mmmu_row(3, id="validation_Art_Theory_3", options=["one <image 2>", "two", "three"], answer="C", image_3=None),
        mmmu_row(
            4, question="How many <image 1> <image 2>?", question_type="open", options="[]", answer="['4', 'four']"
        ),
        mmmu_row(5, question="How long <image 1> <image 2>?", question_type="open", options="[]", answer="2.50"),
    ]
    (tmp_path / "validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_mmmu_pictures_stand_where_they_are_mentioned(mmmu):
    first = MMMU.read(mmmu, "validation")[0]
    kinds = ["image" if part.image else "text" for part in first.messages[0].parts]
    assert kinds == ["text", "image", "text", "image", "text"]
    assert [str(i).rsplit("/", 1)[1] for i in first.images] == ["a.png", "b.png"]
    assert "\nB. two" in first.question
    assert MMMU.read(mmmu, "validation")[1].meta["options"] == ["one", "it's <image 2>"]


def test_mmmu_accuracy_by_discipline_and_subject(mmmu):
    found = figures_of(MMMU, MMMU.read(mmmu, "validation"), ["B", "(A)", "A", "The answer is four.", "2.5 m"])
    assert value(found, "accuracy") == 0.8
    assert value(found, "accuracy", ("Science", "Math")) == 1.0
    assert value(found, "accuracy", ("Art and Design", "Art_Theory")) == 0.0
    assert sum(len(subjects) for subjects in DISCIPLINES.values()) == 30


def test_H13_mmmu_unread_replies_are_wrong_not_dropped_and_not_guessed(mmmu):
    samples = MMMU.read(mmmu, "validation")
    found = figures_of(MMMU, samples, ["B", "A good question.", "hm", "4", "It is long. " * 20])
    assert value(found, "accuracy") == pytest.approx(2 / 5)
    assert value(found, "unparsed") == pytest.approx(3 / 5)
    assert value(found, "accuracy where an answer was read") == 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_2": None}, r"mentions pictures \[1, 2\], the row has \[1\]"),
        ({"image_2": "images/none.png"}, "not found"),
        ({"answer": "D"}, "answer 'D'; allowed: A, B"),
        ({"options": "[oops"}, "options is no list"),
        ({"id": "validation_Cooking_1"}, "names no subject"),
        ({"question_type": "essay"}, "question_type 'essay'"),
    ],
)
def test_mmmu_wrong_rows_are_named(mmmu, fields, message):
    (mmmu / "validation.jsonl").write_text(json.dumps(mmmu_row(1, **fields)))
    with pytest.raises(SafeladderError, match=rf"validation\.jsonl row 1: .*{message}"):
        MMMU.read(mmmu, "validation")


# MathVista


def math_row(**fields):
    return {
        "question": "How many?", "image": "images/1.jpg", "choices": None, "unit": None, "precision": None,
        "answer": "4", "question_type": "free_form", "answer_type": "integer",
        "metadata": {"category": "math-targeted-vqa", "task": "geometry"}, **fields,
    }  # fmt: skip


@pytest.fixture
def mathvista(tmp_path):
    picture(tmp_path / "images" / "1.jpg")
    rows = {
        "1": math_row(),
        "2": math_row(answer="1.50", answer_type="float", precision=2.0, unit="m"),
        "3": math_row(answer="Yes", answer_type="text", question_type="multi_choice", choices=["No", "Yes"]),
        "4": math_row(answer="[1, 2, 3]", answer_type="list"),
        "5": math_row(answer="red", answer_type="text"),
    }
    write_json(tmp_path / "testmini.json", rows)
    return tmp_path


def test_mathvista_answers_of_every_type(mathvista):
    samples = MATHVISTA.read(mathvista, "testmini")
    assert samples[2].reference == "B" and "(unit: m)" in samples[1].question and "2 decimals" in samples[1].question
    right = ["The answer is 4.", "1.5", "Yes", "It is [1,2,3].", "The answer is red."]
    assert value(figures_of(MATHVISTA, samples, right), "accuracy") == 1.0
    wrong = ["The answer is 5.", "1.4", "A", "[1, 2]", "blue"]
    found = figures_of(MATHVISTA, samples, wrong)
    assert value(found, "accuracy") == 0.0 and value(found, "unparsed") == 0.0
    unread = ["I see no number", "?", "perhaps", "one, two, three", "word " * 30]
    found = figures_of(MATHVISTA, samples, unread)
    assert value(found, "unparsed") == 1.0 and value(found, "accuracy", ("task", "geometry")) == 0.0


def test_mathvista_layouts(mathvista):
    rows = [{"pid": pid, **row} for pid, row in json.loads((mathvista / "testmini.json").read_text()).items()]
    (mathvista / "testmini.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [s.id for s in MATHVISTA.read(mathvista, "testmini")] == [f"mathvista-{i}" for i in range(1, 6)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"question_type": "multi_choice", "choices": ["1", "2"]}, "not among the choices"),
        ({"answer_type": "float"}, "precision must be"), ({"answer_type": "float", "precision": 1.5}, "precision"),
        ({"answer_type": "colour"}, "answer_type 'colour'"), ({"metadata": None}, "missing category"),
        ({"image": "images/2.jpg"}, "not found"),
    ],
)  # fmt: skip
def test_mathvista_wrong_rows_are_named(mathvista, fields, message):
    write_json(mathvista / "testmini.json", {"7": math_row(**fields)})
    with pytest.raises(SafeladderError, match=rf"testmini\.json row '7': .*{message}"):
        MATHVISTA.read(mathvista, "testmini")


# GAOKAO-MM


@pytest.fixture
def gaokao(tmp_path):
    for name, answers in (("2010-2023_Physics_MCQs", ["AB", "C"]), ("2010-2023_Biology_MCQs", ["D"])):
        picture(tmp_path / "Data" / name / "0.png")
        rows = [
            {
                "year": "2010", "category": "x", "question": "如图\nA. 甲\nB. 乙", "answer": [gold], "analysis": "",
                "picture": [f"../Data/{name}/0.png"], "index": i, "score": 6,
            }
            for i, gold in enumerate(answers)
        ]  # fmt: skip
        write_json(tmp_path / "Data" / f"{name}.json", {"keywords": name, "example": rows})
    return tmp_path


def test_gaokao_half_points(gaokao):
    biology, physics, other = GAOKAO.read(gaokao, "all")
    assert (biology.reference, physics.reference, other.reference) == ("D", "AB", "C")
    # biology D (1), physics A of AB (1/2), physics C and D for C (0): 1.5/3 as published, wholly right 1/3
    found = figures_of(GAOKAO, [biology, physics, other], ["答案是D", "【答案】A", "答案是C、D"])
    assert found[0].name == "score" and value(found, "score") == 0.5
    assert value(found, "wholly right") == pytest.approx(1 / 3) and value(found, "score", ("physics",)) == 0.25
    found = figures_of(GAOKAO, [biology, physics, other], ["答案是C、D", "答案是BA", "不知道"])
    assert value(found, "score") == pytest.approx(1 / 3) and value(found, "unparsed") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answer": ["F"]}, "answer 'F'"), ({"answer": ["A", "B"]}, "answer"), ({"picture": []}, "picture must be"),
        ({"picture": ["../Data/none.png"]}, "not found"), ({"picture": ["../../x.png"]}, "leads out"),
    ],
)  # fmt: skip
def test_gaokao_wrong_rows_are_named(gaokao, fields, message):
    path = gaokao / "Data" / "2010-2023_Biology_MCQs.json"
    data = json.loads(path.read_text())
    data["example"][0] |= fields
    write_json(path, data)
    with pytest.raises(SafeladderError, match=rf"Biology_MCQs\.json example item 1: .*{message}"):
        GAOKAO.read(gaokao, "all")


def test_gaokao_an_unknown_file_is_an_error(gaokao):
    write_json(gaokao / "Data" / "2024_New.json", {"example": []})
    with pytest.raises(SafeladderError, match="not a file of GAOKAO-MM"):
        GAOKAO.read(gaokao, "all")


# MM-IFEval

SHORT = {
    "key": "length", "value": "Use at most 3 words.",
    "judge": {
        "method": "rule_based",
        "verify_funcs": [{"func": "check_whether_response_word_count_in_range", "params": [1, 3]}],
    },
}  # fmt: skip
TONE = {"key": "tone", "value": "Be kind.", "judge": {"method": "direct_gpt"}}
PLAIN = {"key": "plain", "value": "Use plain words.", "judge": {"method": "cmp_gpt"}}


def mmif_row(number: int, *constraints, **fields):
    return {
        "id": number, "image_path": "a.png", "question": "Describe it.", "tag": "C-Level",
        "constraints": json.dumps(constraints), "infer_type": "main", **fields,
    }  # fmt: skip


@pytest.fixture
def mmif(tmp_path):
    picture(tmp_path / "images" / "a.png")
    rows = [
        mmif_row(1, SHORT),
        mmif_row(2, SHORT, TONE, PLAIN),
        mmif_row(3, tag="P-Level", answer='["red cup", "two"]', constraints=None),
        mmif_row(9, SHORT, infer_type="aux_cmp_gpt"),
    ]
    (tmp_path / "mm_ifeval.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_mmifeval_rules_and_judge(mmif):
    samples = MMIF.read(mmif, "all")
    assert [s.id for s in samples] == ["mm-ifeval-1", "mm-ifeval-2", "mm-ifeval-3"]
    judge = ScriptedJudge(lambda asked: "So.\nVERDICT: " + ("met" if "Be kind." in asked else "not met"))
    # prompt 1: 3 words, met: 1; prompt 2: short met, tone met, plain not: 2/3; perception: both points named: 1
    replies = ["A red cup.", "A nice cup.", "There are two of them, and a Red Cup."]
    found = figures_of(MMIF, samples, replies, judge)
    assert found[0].name == "score" and value(found, "score") == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert value(found, "score", ("P-Level",)) == 1.0 and value(found, "all constraints met") == 0.5
    assert value(found, "constraints met") == pytest.approx(3 / 4)
    assert [shown(c) for c in judge.asked] == [1, 1]
    assert [len(MMIF.read(mmif, subset)) for subset in ("c-level", "p-level")] == [2, 1]


def test_mmifeval_without_a_judge_what_it_decides_is_unscored(mmif):
    samples = MMIF.read(mmif, "c-level")
    found = figures_of(MMIF, samples, ["one two three four", "A nice cup."])
    (score,) = [f.metric for f in found if f.name == "score" and not f.group]
    assert score is not None and (score.value, score.n, score.n_unscored) == (0.0, 1, 1)
    (single,) = [f.metric for f in found if f.name == "constraints met"]
    assert single is not None and (single.value, single.n, single.n_unscored) == (0.5, 2, 2)


def test_mmifeval_an_unreadable_judgement_is_unscored(mmif):
    judge = ScriptedJudge(lambda _: "perhaps")
    found = figures_of(MMIF, MMIF.read(mmif, "c-level"), ["one", "one"], judge)
    (score,) = [f.metric for f in found if f.name == "score" and not f.group]
    assert score is not None and (score.value, score.n, score.n_unscored) == (1.0, 1, 1)


LONG = "One two. Three four five.\n\nSix seven! Eight."


@pytest.mark.parametrize(
    ("name", "params", "passing", "failing"),
    [
        ("check_whether_response_paragraph_number_in_range", [2, 2], LONG, "one"),
        ("check_whether_response_sentence_number_in_range", [4, 4], LONG, "One."),
        ("check_whether_response_word_count_in_range", [8, 8], LONG, "One two"),
        ("check_whether_each_paragraph_sentence_number_in_range", [2, 2], LONG, "One.\n\nTwo. Three."),
        ("check_whether_each_paragraph_word_count_in_range", [3, 5], LONG, "One"),
        ("check_whether_each_paragraph_sentence_number_in_range_list", [[[2, 2], [1, 2]]], LONG, "One. Two."),
        ("check_whether_whole_response_not_contain_certain_substrings", [["x", "y"]], "abc", "ayc"),
        ("check_whether_whole_response_not_contain_certain_substring", ["x"], "abc", "axc"),
        ("check_whether_each_sentence_begin_with_certain_substring", ["S"], "So. See.", "So. Not."),
        ("check_whether_each_sentence_end_with_certain_substring", ["!"], "So! See!", "So! Not."),
        ("check_whether_each_paragraph_begin_with_certain_substring", ["*"], "* a\n\n* b", "* a\n\nb"),
        ("check_whether_each_paragraph_end_with_certain_substring", ["."], "a.\n\nb.", "a.\n\nb"),
        ("check_whether_whole_response_begin_with_certain_substring", ["Dear"], " Dear all", "Hi"),
        ("check_whether_whole_response_end_with_certain_substring", ["Bye."], "So. Bye. ", "Bye. So."),
        ("check_whether_each_keyword_in_list_metioned_in_range", [["cup", "jug"], 1, 2], "Cup, jug", "Cups, jug"),
        ("check_whether_total_keyword_in_list_metioned_in_range", [["cup", "jug"], 2, 2], "cup Cup", "cup"),
        ("check_percentage_number_precision_in_response", [2], "12.50 % of 7", "12.5 %"),
        ("check_number_precision_in_response", [1], "1.5 and 2.0", "1.5 and 2"),
        ("check_whether_has_no_arabic_number_in_response", [], "two cups", "2 cups"),
    ],
)  # fmt: skip
def test_mmifeval_every_check(name, params, passing, failing):
    assert valid(name, params)
    assert holds(name, params, passing) and not holds(name, params, failing)


def test_mmifeval_all_checks_are_tested_and_bad_ones_refused():
    marks = next(m for m in test_mmifeval_every_check.pytestmark if m.name == "parametrize")
    assert {case[0] for case in marks.args[1]} == set(CHECKS)
    assert not valid("os.system", ["x"])
    assert not valid("check_whether_response_word_count_in_range", [1])
    assert not valid("check_whether_response_word_count_in_range", [1, "2"])
    assert not valid("check_number_precision_in_response", [True])
    assert not valid("check_whether_each_paragraph_sentence_number_in_range_list", [[[1]]])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (mmif_row(1), "constraints must be some"),
        (mmif_row(1, SHORT, SHORT), "with a key of its own"),
        (mmif_row(1, {**TONE, "judge": {"method": "magic"}}), "method 'magic'"),
        (
            mmif_row(1, {**TONE, "judge": {"method": "rule_based", "verify_funcs": [{"func": "f", "params": []}]}}),
            "no check 'f'",
        ),
        (mmif_row(1, SHORT, image_path="none.png"), "not found"),
        (mmif_row(1, SHORT, image_path="x" * 3000), "longer than a file name"),
        (mmif_row(1, tag="Q-Level"), "tag 'Q-Level'"),
        (mmif_row(1, SHORT, constraints="[{"), "not valid JSON"),
    ],
)
def test_mmifeval_wrong_rows_are_named(mmif, row, message):
    (mmif / "mm_ifeval.jsonl").write_text(json.dumps(row))
    with pytest.raises(SafeladderError, match=rf"mm_ifeval\.jsonl row 1.*{message}"):
        MMIF.read(mmif, "all")
