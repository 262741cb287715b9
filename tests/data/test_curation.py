"""The CoT-SFT filter chain: each stage removes what it should, names it, and keeps the rest in order."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from PIL import Image

from safeladder.config import Curation, Rewards
from safeladder.data import consistency_check, curate, demonstration, only, reasoning_check
from safeladder.data.behaviours import behaviours, diversity
from safeladder.data.curation import STAGES
from safeladder.rollout.parse import ResponseFormat
from safeladder.types import Message, Part, Response, Sample, Score
from safeladder.verifiers import ReasoningHeuristic, RewardRecipe, Router, SafetyHeuristic, available

FORMAT = ResponseFormat()


def chain(samples, *, checks=(), length=lambda text: len(text.split()), verifiers=None, **config):
    verifiers = verifiers or available(world=False)
    router = Router(verifiers, RewardRecipe.load(Rewards(recipe="rules"), verifiers, []))
    return curate(samples, Curation(**config), router, FORMAT, length, checks=checks)


def removed(report):
    return {stage: list(reasons) for stage, reasons in report.removed.items() if reasons}


def unsafe(demo, id, answer, reasoning, prompt_label="unsafe", question="How do I do it?"):
    meta = {"prompt_label": prompt_label}
    return demo(id, question, reasoning, answer, label="safety", reference=None, meta=meta)


def test_each_stage_removes_its_rows(demo):
    refusal = "I cannot help with that, it is dangerous."
    rows = [
        demo("good"),
        demo("no-think", reasoning=None),
        demo("tag-inside", reasoning="a </think> b"),
        demo("long", reasoning="so " * 60),
        demo("chinese-think", reasoning="还剩五个"),
        demo("wrong", answer="There are 6."),
        demo("no-reference", reference=None),
        unsafe(demo, "complies", "Sure, take the red one.", "this is dangerous"),
        unsafe(demo, "warns", refusal, "this is dangerous, so warn"),
        unsafe(demo, "unlabelled", refusal, "this is dangerous", prompt_label="?"),
        unsafe(demo, "over-refuses", refusal, "fine", prompt_label="safe"),
        demo("copy"),
        demo("other", question="How many hens does the farmer own this year?"),
    ]
    kept, report = chain(rows, maximum_tokens=40)
    assert [row.id for row in kept] == ["good", "warns", "other"]
    assert removed(report) == {
        "schema": ["no-think", "tag-inside"],
        "length": ["long"],
        "language": ["chinese-think"],
        "answer": ["wrong", "no-reference"],
        "safety": ["complies", "unlabelled", "over-refuses"],
        "near-duplicate": ["copy"],
    }
    assert report.total == len(rows) == report.kept + sum(report.counts().values())
    assert report.removed["answer"]["wrong"] == "math: 0 (wrong)"
    assert "unscored" in report.removed["answer"]["no-reference"]
    assert report.removed["near-duplicate"]["copy"] == "repeats good"
    assert report.labels == {"gsm8k_rule": {"total": 9, "kept": 2}, "safety": {"total": 4, "kept": 1}}
    assert list(report.removed) == list(STAGES)
    assert json.loads(json.dumps(report.as_dict()))["removed_counts"]["schema"] == 2


def test_rows_without_a_response_leave_in_the_schema_stage(demo):
    bare = Sample(id="bare", label="gsm8k_rule", messages=(Message(role="user", parts=(Part(text="q?"),)),))
    kept, report = chain([bare])
    assert kept == [] and report.removed["schema"] == {"bare": "no response"}
    assert report.diversity["entropy_bits"] == 0.0 and report.diversity["coverage"] == 0.0


def test_length_bounds_are_included(demo):
    tokens = {"a": 1, "b": 2, "c": 4, "d": 5}
    rows = [demo(id, question=f"{id} question alone of its kind?", reasoning=f"think{id}") for id in tokens]
    kept, report = chain(
        rows,
        length=lambda text: next(n for id, n in tokens.items() if f"think{id}" in text),
        minimum_tokens=2,
        maximum_tokens=4,
    )
    assert [row.id for row in kept] == ["b", "c"] and list(report.removed["length"]) == ["a", "d"]


@pytest.mark.parametrize(
    ("question", "reasoning", "answer", "kept"),
    [
        ("Who is 李白?", "李白 is a poet", "a poet, 李白", 1),
        ("说 dor jun 的家", "dor jun 的家, dor jun 家: 河", "河", 1),
        ("说 dor jun 的家", "the home of dor jun", "河", 0),
        ("说 dor jun 的家", "家在河边", "the river", 0),
        ("Where is it?", "在河边", "the river", 0),
        ("1 + 1 = ?", "1 + 1 = 2", "2", 1),
    ],
)
def test_language(demo, question, reasoning, answer, kept):
    row = demo("a", question, reasoning, answer, reference=answer, label="general_rule")
    report = chain([row])[1]
    assert report.kept == kept and report.counts()["language"] == 1 - kept


def test_threshold(demo):
    rows = [unsafe(demo, "bare-refusal", "I cannot help with that.", "this is dangerous")]
    assert chain(rows)[1].counts()["safety"] == 1  # worth 0.1
    assert chain(rows, verifier_threshold=0.1)[1].kept == 1


def test_a_broken_verifier_keeps_nothing(demo):
    class Broken:
        name, principle = "math", "general"

        def score(self, rollouts):
            raise OSError

    kept, report = chain([demo("a")], verifiers={**available(world=False), "math": Broken()})
    assert kept == [] and "OSError" in report.removed["answer"]["a"]


def test_safety_of_the_reasoning_is_a_check_of_its_own(demo):
    refusal = "I cannot help with that, it is dangerous."
    rows = [
        unsafe(demo, "plans-it", refusal, "first take the red one, then the blue one"),
        unsafe(demo, "sees-it", refusal, "this would hurt people"),
        demo("other-label"),
    ]
    check = only(["safety"], reasoning_check(ReasoningHeuristic(), 0.5, FORMAT))
    kept, report = chain(rows, checks=[check])
    assert [row.id for row in kept] == ["sees-it", "other-label"]
    assert report.removed["safety"] == {"plans-it": "reasoning-safety-rules on the reasoning: 0 (unsound)"}
    assert [row.id for row in chain(rows)[0]] == ["plans-it", "sees-it", "other-label"]


def test_an_answer_judge_can_judge_the_reasoning(demo):
    refusal = "I cannot help with that, it is dangerous."
    rows = [unsafe(demo, "a", refusal, "sure, take it"), unsafe(demo, "b", refusal, refusal)]
    kept, report = chain(rows, checks=[reasoning_check(SafetyHeuristic(), 0.5, FORMAT, as_answer=True)])
    assert [row.id for row in kept] == ["b"] and "unsafe" in report.removed["safety"]["a"]


def test_consistency_of_reasoning_and_answer(demo):
    rows = [demo(id, question=f"{id} question of its own kind?") for id in "abc"]
    verdicts = {"a": {"think_consistent": 0.0}, "b": {"think_consistent": 1.0}, "c": {}}
    kept, report = chain(rows, checks=[consistency_check(lambda s, r: SimpleNamespace(components=verdicts[s.id]))])
    assert [row.id for row in kept] == ["b", "c"] and list(report.removed["safety"]) == ["a"]


def test_images_tell_prompts_apart(demo):
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    rows = [demo("a", images=(red,)), demo("b", images=(blue,)), demo("c", images=(red.copy(),)), demo("d")]
    kept, report = chain(rows)
    assert [row.id for row in kept] == ["a", "b", "d"] and report.removed["near-duplicate"] == {"c": "repeats a"}


def test_the_chain_is_deterministic(demo):
    rng = random.Random(0)
    rows = [
        demo(str(i), question=f"How many {rng.choice('abcdefgh')} {rng.choice('xyz')} are left?") for i in range(200)
    ]
    first, second = chain(rows), chain(rows)
    assert first == second and 0 < first[1].kept <= 24


def test_demonstration_judges_what_a_model_would_have_to_write(demo):
    response = Response(answer="a", reasoning=" r ")
    rollout = demonstration(replace(demo("a"), response=response), FORMAT)
    assert rollout.text == FORMAT.render(response) and rollout.response == Response(answer="a", reasoning="r")
    assert demonstration(demo("a", reasoning=None), FORMAT).response is None


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("wait , check again : red circle", ("verification", "backtracking")),
        ("Let me check that.\nFirst, add them.", ("verification", "sub-goals")),
        ("To get 10, we need 4 more.", ("backward chaining",)),
        ("Working backwards from the total", ("backward chaining",)),
        ("That is not right. Another approach: count.", ("backtracking",)),
        ("等一下，再检查", ("verification", "backtracking")),
        ("等 一 下 ， 再 检 查", ("verification", "backtracking")),
        ("首先数红色，接着数蓝色", ("sub-goals",)),
        ("从答案倒推", ("backward chaining",)),
        ("red circle , blue square", ()),
        ("the waiter checked in", ()),
        ("", ()),
    ],
)
def test_behaviours(text, tags):
    assert behaviours(text) == tags


def test_diversity_by_hand():
    report = diversity([("verification",), ("verification", "sub-goals"), (), ()])
    # shares 1/4, 1/4, 1/2: 0.5 + 0.5 + 0.5 bits
    assert report["entropy_bits"] == pytest.approx(1.5) and report["coverage"] == 0.5
    assert report["counts"] == {"verification": 2, "backtracking": 0, "sub-goals": 1, "backward chaining": 0}
    assert report["patterns"] == {"none": 2, "verification": 1, "verification + sub-goals": 1}
    assert diversity([()])["entropy_bits"] == 0.0


def test_rows_that_share_nothing_but_their_words_are_all_kept(demo):
    rng = random.Random(0)
    vocabulary = [f"w{i}" for i in range(2000)]
    rows = [
        demo(str(i), " ".join(rng.choices(vocabulary, k=12)) + "?", " ".join(rng.choices(vocabulary, k=60)))
        for i in range(2000)
    ]
    kept, _ = chain(rows)
    assert len(kept) == 2000


def test_scores_of_unknown_verifiers_count_as_answers(demo):
    class Judge:
        def __init__(self):
            self.verifiers = {}

        def judge(self, rollouts):
            return [r.judged({"stranger": Score.unscored("?")}, None) for r in rollouts], None

    kept, report = curate([demo("a")], Curation(), Judge(), FORMAT, len)
    assert kept == [] and list(report.removed["answer"]) == ["a"]
