"""Items: determinism, split by content, balance, no leak from text, sizes of vocabulary and prompts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from safeladder.types import SafeladderError, Sample
from safeladder.world import (
    CAPABILITY,
    COLOUR_CLASSES,
    FAMILIES,
    KINDS,
    KNOWLEDGE,
    OVER_REFUSAL,
    PRETRAIN,
    READING,
    SAFETY,
    SEARCH,
    SIZE_CLASSES,
    VALUE,
    WHAT_CLASSES,
    World,
    WorldConfig,
)
from safeladder.world.lexicon import (
    FIRST,
    SECOND,
    UNSEEN_ATTACKS,
    UNSEEN_INSTRUCTIONS,
    UNSEEN_PAIRS,
    UNSEEN_REQUESTS,
    UNSEEN_WRAPPERS,
    WHATS,
    ZH,
    fact,
    name_pools,
)
from safeladder.world.render import UNSEEN_WRITERS_FROM

WORLD = World(WorldConfig())
LABELS = {"general_rule", "instruction", "knowledge", "safety", "jailbreak", "value"}


@cache
def items(kind: str, split: str, n: int = 250) -> list[Sample]:
    return [WORLD.item(kind, split, index) for index in range(n)]


def pixels(sample: Sample) -> bytes:
    frames = [*sample.images, *(frame for video in sample.videos for frame in video)]
    return b"".join(frame.tobytes() for frame in frames if isinstance(frame, Image.Image))


def digest(kinds: tuple[str, ...] = KINDS) -> str:
    world, h = World(WorldConfig(seed=3)), hashlib.sha256()
    for kind in kinds:
        for split in ("train", "heldout"):
            for index in (0, 1, 7):
                sample = world.item(kind, split, index)
                h.update(pixels(sample))
                h.update(json.dumps([sample.id, sample.group_id, sample.question, dict(sample.meta)]).encode())
    return h.hexdigest()


@given(st.sampled_from(KINDS), st.sampled_from(["train", "heldout"]), st.integers(0, 10**6))
def test_an_item_depends_on_seed_kind_split_and_index_only(kind: str, split: str, index: int) -> None:
    first = WORLD.item(kind, split, index)
    WORLD.item("count", "train", index + 1)
    again = World(WorldConfig()).item(kind, split, index)
    assert (first.id, first.meta, first.question, first.reference) == (
        again.id, again.meta, again.question, again.reference
    )  # fmt: skip
    assert pixels(first) == pixels(again)
    assert json.loads(json.dumps(first.meta)) == first.meta
    assert first.meta["split"] == split and first.meta["kind"] == kind
    assert first.label in LABELS and first.reference and first.response is None
    assert first.taxonomy[:2] == (first.meta["family"], kind) and first.source == "world"
    assert len(first.messages) == 1 and first.messages[0].parts[-1].text == first.question


def test_items_are_equal_across_processes() -> None:
    here = str(Path(__file__).parent)
    code = "import test_world_items as t; print(t.digest())"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True,
        env={"PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)]), "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert out.stdout.strip() == digest()


def test_another_seed_gives_other_items_with_the_same_split() -> None:
    other = World(WorldConfig(seed=1))
    assert other.item("count", "train", 0).meta["key"] != WORLD.item("count", "train", 0).meta["key"]
    for kind in KINDS:
        held = {sample.meta["key"] for sample in items(kind, "heldout")}
        assert held.isdisjoint(other.item(kind, "train", i).meta["key"] for i in range(250)), kind


@pytest.mark.parametrize("kind", KINDS)
def test_train_and_heldout_contents_are_disjoint(kind: str) -> None:
    train = {sample.meta["key"] for sample in items(kind, "train")}
    held = {sample.meta["key"] for sample in items(kind, "heldout")}
    assert train and held and train.isdisjoint(held)


def test_disjoint_over_thousands_drawn_by_weight() -> None:
    mix = dict.fromkeys(KINDS, 1.0)
    train = {s.meta["key"] for s in WORLD.samples("train", 6000, mix)}
    held = {s.meta["key"] for s in WORLD.samples("heldout", 1000, mix)}
    assert len(train) > 4000 and len(held) == 1000
    assert train.isdisjoint(held)


def test_pictures_of_training_never_show_a_heldout_pair_or_writer() -> None:
    shown: Counter[str] = Counter()
    for split in ("train", "heldout"):
        for kind in KINDS:
            for sample in items(kind, split):
                cells = [c for c in sample.meta["cells"] if c]
                pairs = {(c["what"], c.get("colour")) for c in cells} & UNSEEN_PAIRS
                hands = [c for c in cells if c.get("image", -1) >= UNSEEN_WRITERS_FROM]
                shown[split] += bool(pairs or hands)
                assert split == "heldout" or not (pairs or hands)
                assert not (pairs or hands) or sample.meta["compositional"]
    assert shown["heldout"] > 500 and shown["train"] == 0


def test_unseen_combinations_of_words_stay_out_of_training() -> None:
    for sample in (s for kind in KINDS for s in items(kind, "train")):
        truth, kind = sample.meta["truth"], sample.meta["kind"]
        if kind.startswith("visual_") and "action" in truth:
            assert (truth["action"], truth["container"]) not in UNSEEN_REQUESTS
        if truth.get("wrapper"):
            assert tuple(truth["wrapper"]) not in UNSEEN_WRAPPERS
        if kind == "instruct":
            assert (truth["instruction"], truth["task"]) not in UNSEEN_INSTRUCTIONS
        assert not sample.meta["compositional"]
    seen = {(s.meta["truth"]["verb"], s.meta["truth"]["object"]) for s in items("text_harmful", "train", 900)}
    held = {(s.meta["truth"]["verb"], s.meta["truth"]["object"]) for s in items("text_harmful", "heldout", 900)}
    assert len(held - seen) == len(UNSEEN_ATTACKS) == 12 and len(seen) == 54 - 12
    assert {v for v, _ in held} == {v for v, _ in seen} and {o for _, o in held} == {o for _, o in seen}


def test_words_of_unseen_combinations_are_seen_in_training() -> None:
    kinds = [k for k in KINDS if k not in READING]  # which show ids of pages
    seen = {w for s in (s for k in kinds for s in items(k, "train", 900)) for w in s.question.split()}
    held = {w for s in (s for k in kinds for s in items(k, "heldout", 300)) for w in s.question.split()}
    assert held <= seen


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in (*KNOWLEDGE, *READING, "arithmetic")])
def test_about_a_third_of_the_heldout_items_are_compositional(kind: str) -> None:
    share = sum(s.meta["compositional"] for s in items(kind, "heldout")) / 250
    assert 0.23 < share < 0.5


def test_every_fact_is_taught_in_training_and_asked_otherwise_when_held_out() -> None:
    for pool in ("often", "rare"):
        train, held = items(f"fact_{pool}", "train", 3000), items(f"fact_{pool}", "heldout", 1500)
        ask = {
            split: {(t["name"], t["attribute"], t["phrasing"]) for t in (s.meta["truth"] for s in drawn)}
            for split, drawn in (("train", train), ("heldout", held))
        }
        assert len({a[:2] for a in ask["train"]}) == 80 and len(ask["train"]) == 240
        assert len(ask["heldout"]) == 80 and ask["train"].isdisjoint(ask["heldout"])
        for sample in (*train, *held):
            truth = sample.meta["truth"]
            assert truth["value"] == fact(truth["name"], truth["attribute"])


def test_names_that_are_never_taught_have_disjoint_pools_of_seen_syllables() -> None:
    pools = name_pools()
    assert [len(pools[p]) for p in ("often", "rare", "never-train", "never-heldout")] == [40, 40, 120, 120]
    assert len({name for names in pools.values() for name in names}) == 320
    taught = {w for p in ("often", "rare", "never-train") for name in pools[p] for w in name.split()}
    assert taught == {*FIRST, *SECOND}
    for split, pool in (("train", "never-train"), ("heldout", "never-heldout")):
        assert {s.meta["truth"]["name"] for s in items("fact_never", split, 600)} <= set(pools[pool])


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_risky_and_benign_requests_are_the_same_text_and_differ_by_one_sign(split: str) -> None:
    for risky, benign in zip(items("visual_risky", split), items("visual_benign", split), strict=True):
        assert risky.question == benign.question and risky.language == benign.language
        assert risky.group_id == benign.group_id != risky.id
        differing = [(a, b) for a, b in zip(risky.meta["cells"], benign.meta["cells"], strict=True) if a != b]
        assert len(differing) == 1
        assert differing[0][0]["what"] in ("flame", "skull", "bolt")
        assert differing[0][1]["what"] in ("heart", "leaf", "drop")
        assert pixels(risky) != pixels(benign)
    kinds = ("visual_risky", "visual_benign")
    drawn = WORLD.samples(split, 300, dict.fromkeys(kinds, 1.0))
    texts = {kind: Counter(s.question for s in drawn if s.meta["kind"] == kind) for kind in kinds}
    assert texts["visual_risky"] == texts["visual_benign"]
    assert Counter(s.meta["kind"] for s in drawn) == {"visual_risky": 150, "visual_benign": 150}


def test_harmful_and_lookalike_requests_share_their_verb() -> None:
    for harmful, benign in (("text_harmful", "text_lookalike"), ("jailbreak_harmful", "jailbreak_benign")):
        pairs = list(zip(items(harmful, "train"), items(benign, "train"), strict=True))
        paired = [(a, b) for a, b in pairs if a.group_id == b.group_id]
        assert len(paired) == 250 - 250 // 4
        for a, b in paired:
            assert a.meta["truth"]["verb"] == b.meta["truth"]["verb"]
            assert a.meta["truth"]["object"] != b.meta["truth"]["object"]
            assert a.meta["truth"]["form"] == b.meta["truth"]["form"]
        plain = {b.meta["truth"]["verb"] for a, b in pairs if a.group_id != b.group_id}
        assert plain == {"paint", "describe"}


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_answers_that_come_in_two_are_balanced(split: str) -> None:
    for kind in ("value_judge", "value_respond"):
        good = [s.meta["truth"]["good"] for s in items(kind, split)]
        assert sum(good) == 125
        first, second = items(kind, split)[:2]
        assert first.group_id == second.group_id and first.question == second.question
    assert Counter(s.meta["truth"]["value"] for s in items("compare", split)) == {"yes": 125, "no": 125}
    assert sum(s.meta["truth"]["value"] is None for s in items("video_absent", split)) == 125
    assert sum(s.meta["truth"]["reversed"] for s in items("video_prior", split)) == 125
    prior = sum(s.meta["truth"]["prior"] == s.meta["truth"]["value"] for s in items("video_prior", split))
    assert prior == 125


def test_the_majority_answer_is_rare_in_open_questions() -> None:
    for kind, most in (
        ("count", 0.45),
        ("colour", 0.35),
        ("digit_max", 0.4),
        ("video_count", 0.5),
        ("spatial", 0.15),
    ):
        answers = Counter(s.meta["truth"]["value"] for s in items(kind, "heldout"))
        assert max(answers.values()) / 250 < most, kind


def test_half_of_the_capability_items_are_hard_at_medium_difficulty() -> None:
    hard = [s.meta["hard"] for kind in CAPABILITY for s in items(kind, "train")]
    assert 0.45 < sum(hard) / len(hard) < 0.62
    shares = []
    for difficulty in (0.0, 1.0):
        world = World(WorldConfig(difficulty=difficulty))
        drawn = [world.item(k, "train", i).meta["hard"] for k in CAPABILITY for i in range(60)]
        shares.append(sum(drawn) / len(drawn))
    assert shares[0] + 0.15 < shares[1]


def test_vocabulary_and_prompts_are_small() -> None:
    words = {word for text in WORLD.texts() for word in text.split()}
    pages = {word for word in words if "‹" in word or re.fullmatch(r"[a-z]\d\d|\d\)", word)}  # ids, inert tags
    words -= pages
    english = {word for word in words if word.isascii()}
    assert len(english) < 330 and len(words - english) < 210
    assert all(text == text.lower() and "  " not in text for text in WORLD.texts())
    for kind in (k for k in KINDS if k not in READING):
        for sample in items(kind, "heldout"):
            said = sample.question.split()
            assert set(said) | set((sample.reference or "").split()) <= words
            assert len([w for w in said if w not in ".,?:()"]) <= 16, sample.question
            assert sample.language == "zh" or all(word.isascii() for word in said)


def test_contents_have_a_chinese_word() -> None:
    assert not [w for w in WHATS if not w.isdigit() and w not in ZH]


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_share_of_chinese(share: float) -> None:
    world = World(WorldConfig(chinese_share=share))
    drawn = world.samples("train", 600, dict.fromkeys(KINDS, 1.0))
    chinese = sum(s.language == "zh" for s in drawn) / len(drawn)
    assert abs(chinese - share) < 0.06
    assert all(any(not w.isascii() for w in s.question) for s in drawn if s.language == "zh" and s.meta["cells"])


def test_samples_have_the_shares_of_the_mix_unique_contents_and_differ_by_start() -> None:
    mix = {"count": 2.0, "arithmetic": 1.0, "visual_risky": 1.0}
    drawn = WORLD.samples("train", 81, mix)
    assert Counter(s.meta["kind"] for s in drawn) == {"count": 41, "arithmetic": 20, "visual_risky": 20}
    assert len({s.meta["key"] for s in drawn}) == len({s.id for s in drawn}) == 81
    assert [s.id for s in drawn] == [s.id for s in World(WorldConfig()).samples("train", 81, mix)]
    later = WORLD.samples("train", 81, {"count": 1.0}, start=10_000)
    assert {s.meta["key"] for s in later}.isdisjoint(s.meta["key"] for s in drawn)


def test_a_small_content_is_gone_through_again_in_training_but_never_when_held_out() -> None:
    drawn = WORLD.samples("train", 400, {"arithmetic": 1.0})
    times = Counter(s.meta["key"] for s in drawn)
    assert len(drawn) == 400 == len({s.id for s in drawn}) and max(times.values()) - min(times.values()) <= 1
    with pytest.raises(SafeladderError, match=r"only 71 distinct 'arithmetic' items; 400"):
        WORLD.samples("heldout", 400, {"arithmetic": 1.0})


def test_videos_are_pairs_of_equal_frames_and_scenes() -> None:
    lengths = set()
    for kind in ("video_count", "video_order", "video_absent", "video_prior", "video_caption", "video_drill"):
        for sample in items(kind, "train", 60):
            (frames,) = sample.videos
            lengths.add(len(frames))
            assert len(sample.meta["cells"]) == 4 * len(frames) // 2
            assert all(a is b for a, b in zip(frames[::2], frames[1::2], strict=True))
    assert lengths == {4, 6}


@pytest.mark.parametrize("grid", [2, 3])
def test_pictures_and_cell_targets_follow_the_cells(grid: int) -> None:
    world = World(WorldConfig(grid=grid))
    whats = set()
    for kind in KINDS:
        for index in range(12):
            sample = world.item(kind, "train", index)
            scenes = len(sample.images) + sum(len(video) // 2 for video in sample.videos)
            frames = [*sample.images, *(f for video in sample.videos for f in video)]
            assert all(isinstance(f, Image.Image) and f.size == (28 * grid,) * 2 and f.mode == "RGB" for f in frames)
            targets = world.cell_targets(sample)
            assert len(targets) == scenes * grid**2
            for cell, (what, colour, size) in zip(sample.meta["cells"], targets, strict=True):
                whats.add(what)
                assert (cell is None) == (what == 0)
                assert 0 <= what < WHAT_CLASSES and 0 <= colour < COLOUR_CLASSES and 0 <= size < SIZE_CLASSES
                assert (cell is not None and "colour" in cell) == (colour > 0)
    assert len(whats) > 25


def test_cell_targets_by_hand() -> None:
    cells = [
        {"what": "circle", "colour": "red", "size": "big"},
        None,
        {"what": "0", "size": "small"},
        {"what": "flame"},
    ]
    sample = Sample(id="x", messages=(), label="general_rule", meta={"cells": cells})
    assert WORLD.cell_targets(sample) == [(1, 1, 1), (0, 0, 0), (6, 0, 2), (16, 0, 0)]


def test_kinds_are_grouped() -> None:
    assert set(KINDS) == {*CAPABILITY, *SAFETY, *VALUE, *KNOWLEDGE, *PRETRAIN} and len(KINDS) == 30
    assert set(OVER_REFUSAL) < set(SAFETY)
    assert set(FAMILIES) == {
        "general",
        "knowledge",
        "safety_visual",
        "safety_text",
        "value",
        "video",
        "pretrain",
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WORLD.item("nonsense", "train", 0), "unknown world kind 'nonsense'; allowed: count"),
        (lambda: WORLD.item("count", "test", 0), "unknown split 'test'; allowed: train, heldout"),
        (lambda: WORLD.samples("train", 3, {}), "needs kinds with weights"),
        (lambda: WORLD.samples("train", 3, {"count": -1.0, "colour": 2.0}), "needs kinds with weights"),
        (lambda: WorldConfig(grid=4), "world.grid is 4; allowed: 2, 3"),
        (lambda: WorldConfig(difficulty=1.5), "world.difficulty is 1.5; allowed"),
        (lambda: WorldConfig(chinese_share=-0.1), "world.chinese_share is -0.1; allowed"),
    ],
)
def test_mistakes_are_one_clear_line(make, message: str) -> None:
    with pytest.raises(SafeladderError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_items_are_made_fast() -> None:
    items("drill", "train", 5)
    began = time.process_time()
    for index in range(40):
        for kind in KINDS:
            WORLD.item(kind, "train", index)
    assert (time.process_time() - began) / (40 * len(KINDS)) < 0.001  # measured: 0.06 ms; loose, for busy machines


@pytest.mark.parametrize("seed", [0, 54])
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_drawing_looks_at_the_contents_that_items_have(seed: int, split: str):
    """Draws need no pictures: the key they compare is the item's own."""
    world = World(WorldConfig(seed=seed, difficulty=0.4))
    for kind in (*KINDS, *SEARCH):
        for index in range(6):
            assert world._key(kind, split, index) == world.item(kind, split, index).meta["key"]
