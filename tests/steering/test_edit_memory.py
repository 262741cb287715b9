"""The edit memory: where a rule may be applied, what it then does, and that nothing is applied silently."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from word_engine import WordEngine, compliant, question

from safeladder.rollout.collect import collect
from safeladder.steering.edit_memory import EditMemory, threshold
from safeladder.steering.edit_rules import EditPair
from safeladder.steering.edit_transfer import CANDIDATES, Outcome, observed
from safeladder.steering.editing import FORMAT
from safeladder.types import Rollout, SafeladderError, SamplingParams

GREEDY = SamplingParams(max_new_tokens=60, temperature=0.0)


@pytest.fixture
def engine() -> WordEngine:
    return WordEngine(compliant)


def draft(engine: WordEngine, text: str) -> Rollout:
    ((rollout,),) = collect(engine, [question(text)], GREEDY, FORMAT, seed=0)
    return rollout


def corrected(engine: WordEngine, verb: str, thing: str, effect: str) -> EditPair:
    rollout = draft(engine, f"now {verb} {thing}")
    return observed(engine, rollout, 2, f"{verb} {thing} : this {effect} people .", seed=0)


@pytest.fixture
def memory(engine: WordEngine) -> EditMemory:
    """Two corrections, two confirmed look-alikes."""
    found = EditMemory([corrected(engine, "kill", "man", "hurts"), corrected(engine, "steal", "ring", "robs")])
    for text in ("now cook soup", "now read book"):
        assert found.confirm(engine, draft(engine, text), seed=0) == 1
    return found


def test_a_correction_keeps_what_the_model_itself_says_there(engine: WordEngine):
    pair = corrected(engine, "kill", "man", "hurts")
    # sampled with probability 0.25 and 0.75; each distinct step counts once
    assert pair.candidates == pytest.approx({"kill man : this hurts people .": 0.25, "kill man : fine .": 0.75})
    assert (pair.question, pair.original, pair.context) == (
        "now kill man",
        "kill man : fine .",
        "read : kill , man . ",
    )
    assert pair.source == "now kill man" and not pair.confirmed


def test_the_gate_lies_between_what_was_corrected_and_what_was_confirmed(memory: EditMemory):
    (rule,) = memory.rules
    gate = memory.gate(rule)
    # corrected: 0.25, 0.25; confirmed: 0.025, 0.025; the middle is 0.1375
    assert gate.support == pytest.approx((0.25 + 0.025) / 2) and not gate.forced


def test_without_confirmations_half_the_mean_support_is_enough(memory: EditMemory):
    edits = EditMemory([pair for pair in memory.pairs if not pair.confirmed])
    assert edits.gate(edits.rules[0]).support == pytest.approx(0.125)


def test_without_samples_a_fixed_share_is_needed(memory: EditMemory):
    bare = EditMemory([replace(pair, candidates={}) for pair in memory.pairs])
    assert bare.gate(bare.rules[0]).support == 0.15 and not bare.gate(bare.rules[0]).forced


def test_a_correction_carries_over_with_the_words_of_the_new_item(engine: WordEngine, memory: EditMemory):
    done = memory.apply(engine, question("now hack phone"), GREEDY, seed=0)
    assert done.outcome == Outcome.APPLIED and not done.forced
    assert (done.number, done.original, done.edited) == (2, "hack phone : fine .", "hack phone : this exposes people .")
    assert done.support == pytest.approx(0.25)
    assert done.rule == "[1] : fine . → [1] : this [open] people ."
    assert done.rollout.response is not None and done.rollout.response.answer == "no , this is wrong"
    assert done.draft.response is not None and done.draft.response.answer == "sure , hack it"
    assert set(done.rollout.action_mask) == {1}, "the model itself sampled every word of it"


def test_tokens_are_all_that_was_sampled(engine: WordEngine, memory: EditMemory):
    sample = question("now hack phone")
    before = len(engine.calls)
    done = memory.apply(engine, sample, GREEDY, seed=0)
    calls = engine.calls[before:]
    assert [params.n for _, params in calls] == [1, CANDIDATES, 1]
    # draft: <think> + 6 + 5 words, </think>, 4 words, end = 18; after the edit: </think>, 5 words, end = 7;
    # candidates go on behind the 7 tokens of <think> and step 1: 4 warn (7 + 7 tokens), 12 are the draft (11)
    assert done.tokens == 18 + 4 * 14 + 12 * 11 + 7


def test_it_is_not_applied_where_the_model_does_not_support_it(engine: WordEngine, memory: EditMemory):
    done = memory.apply(engine, question("now bake cake"), GREEDY, seed=0)
    assert done.outcome == Outcome.UNSUPPORTED
    assert done.support == pytest.approx(0.025)
    assert done.rollout is done.draft and done.edited == ""
    assert done.rule and done.original == "bake cake : fine ."


def test_no_rule_no_change(engine: WordEngine):
    done = EditMemory().apply(engine, question("now hack phone"), GREEDY, seed=0)
    assert done.outcome == Outcome.NO_RULE and done.support is None and done.number is None
    assert done.rollout is done.draft


def test_no_reasoning_is_said(memory: EditMemory):
    silent = WordEngine(lambda sample, said, temperature, number: ("yes", 1.0))
    done = memory.apply(silent, question("now hack phone"), GREEDY, seed=0)
    assert done.outcome == Outcome.NO_REASONING and done.rollout.response is None


def test_what_the_model_never_says_of_itself_is_written_in_up_to_the_open_slot():
    engine = WordEngine(lambda sample, said, temperature, number: compliant(sample, said, 0.0, number))
    memory = EditMemory([corrected(engine, "kill", "man", "hurts"), corrected(engine, "steal", "ring", "robs")])
    assert memory.gate(memory.rules[0]).forced
    once = EditMemory(memory.pairs[:1])
    assert once.gate(once.rules[0]).forced
    assert once.apply(engine, question("now hack phone"), GREEDY, seed=0).outcome == Outcome.UNSUPPORTED, "seen once"
    done = memory.apply(engine, question("now hack phone"), GREEDY, seed=0)
    assert done.outcome == Outcome.APPLIED and done.forced
    assert done.edited == "hack phone : this exposes people ."
    typed = [i for i, own in zip(done.rollout.token_ids, done.rollout.action_mask, strict=True) if not own]
    assert engine.decode(typed) == " hack phone : this", "the model itself filled the open slot"
    # a confirmed look-alike that is as near stops it
    memory.confirm(engine, draft(engine, "now cook phone"), seed=0)
    near = memory.apply(engine, question("now cook phone"), GREEDY, seed=0)
    assert near.outcome == Outcome.CONFIRMED and near.rollout is near.draft


def test_a_rule_that_names_nothing_it_replaces_is_never_forced():
    """`[1] : [2] .` fits any step of that shape, and the model gives no hint where it holds."""

    def guesses(sample, said, temperature, number):
        return "<think> x1 : 7 .</think> 7"[len(said) :], 1.0

    engine = WordEngine(guesses)
    pairs = [
        EditPair(question="a", original="x : 1 .", edited="x : no fact .", candidates={"x : 1 .": 1.0}),
        EditPair(question="b", original="y : 2 .", edited="y : no fact .", candidates={"y : 2 .": 1.0}),
    ]
    memory = EditMemory(pairs)
    assert str(memory.rules[0]) == "[1] : [2] . → [1] : no fact ."
    done = memory.apply(engine, question("a"), GREEDY, seed=0)
    assert done.outcome == Outcome.UNSUPPORTED and done.rollout is done.draft


@pytest.mark.parametrize("opening", ["", "so "])
def test_a_forced_edit_that_would_write_nothing_new_is_not_made(opening: str):
    """What changes stands behind an open slot, so up to there the draft says the same (or nothing at all)."""
    engine = WordEngine(
        lambda sample, said, temperature, number: (f"<think> {opening}z right .</think> ok"[len(said) :], 1.0)
    )
    pairs = [
        EditPair(
            question=q,
            original=f"{opening}{q} right .",
            edited=f"{opening}{new} wrong .",
            candidates={f"{opening}{q} right .": 1.0},
        )
        for q, new in (("x", "a"), ("y", "b"))
    ]
    memory = EditMemory(pairs)
    assert str(memory.rules[0]) == f"{opening}[1] right . → {opening}[open] wrong ."
    done = memory.apply(engine, question("what is it"), GREEDY, seed=0)
    assert done.outcome == Outcome.UNSUPPORTED and done.rollout is done.draft


def test_many_questions_at_once_give_what_each_gives_alone(engine: WordEngine, memory: EditMemory):
    samples = [question(text) for text in ("now hack phone", "now bake cake", "now fake visa", "now walk home")]
    together = memory.apply_all(engine, samples, GREEDY, seed=0)
    for sample, one in zip(samples, together, strict=True):
        assert memory.apply(engine, sample, GREEDY, seed=0) == one
    assert [one.outcome == Outcome.APPLIED for one in together] == [True, False, True, False]


def test_a_chain_that_no_rule_would_change_confirms_nothing(engine: WordEngine, memory: EditMemory):
    assert EditMemory().confirm(engine, draft(engine, "now cook soup"), seed=0) == 0
    count = len(memory.pairs)
    warned = WordEngine(
        lambda s, said, t, n: ("<think> read : kill , man . kill man : this hurts people .</think> no", 1.0)
    )
    assert memory.confirm(warned, draft(warned, "now kill man"), seed=0) == 0
    assert len(memory.pairs) == count


def test_a_cut_candidate_supports_nothing():
    def long(sample, said, temperature, number):
        if temperature == 0:
            return compliant(sample, said, temperature, number)
        return " kill man : this hurts people and so on" + " and on" * 200, 0.5

    pair = corrected(WordEngine(long), "kill", "man", "hurts")
    assert pair.candidates == {"": 0.5}


def test_a_copy_and_its_original_do_not_teach_each_other(engine: WordEngine, memory: EditMemory):
    gate = memory.gate(memory.rules[0])
    twin = memory.copy()
    assert twin.rules is memory.rules and twin.gate(twin.rules[0]) == gate
    twin.add(corrected(engine, "fake", "visa", "cheats"))
    assert len(memory.pairs) == 4 and len(memory.rules[0].pairs) == 2
    assert len(twin.rules[0].pairs) == 3
    memory.confirm(engine, draft(engine, "now bake cake"), seed=0)
    assert len(twin.pairs) == 5


def test_a_memory_of_many_corrections_stays_quick(engine: WordEngine):
    """Rules, fits and gates are linear in the number of corrections."""
    pairs = [
        EditPair(
            question=f"now kill man{i}",
            original=f"kill man{i} : fine .",
            edited=f"kill man{i} : this hurts people .",
            context=f"read : kill , man{i} . ",
            candidates={f"kill man{i} : fine .": 0.7, f"kill man{i} : this hurts people .": 0.3},
        )
        for i in range(400)
    ]
    started = time.process_time()
    memory = EditMemory(pairs)
    (found,) = memory.find("now hit boy", "<think> read : hit , boy . hit boy : fine .</think> sure")
    assert memory.gate(found.fit.rule).support == pytest.approx(0.15)
    assert time.process_time() - started < 3


# thresholds


def test_the_threshold_is_the_middle_of_the_widest_best_interval():
    assert threshold([0.4, 0.3], [0.1, 0.0]) == pytest.approx(0.2)
    # 0.05 lies among the confirmed: cutting above it (0.1..0.3) loses 1 of 2 corrected, below it 2 of 3 confirmed
    assert threshold([0.3, 0.05], [0.1, 0.06, 0.0]) == pytest.approx(0.2)
    assert threshold([1.0], [1.0]) == pytest.approx(0.5)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
)
def test_no_cut_separates_better(edits: list[float], kept: list[float]):
    def accuracy(cut: float) -> float:
        return sum(e >= cut for e in edits) / len(edits) + sum(k < cut for k in kept) / len(kept)

    cut = threshold(edits, kept)
    assert 0 <= cut <= 1
    inner = [c for c in (*edits, *kept, 0.0, 1.0) if 0 < c < 1]
    assert all(accuracy(cut) >= accuracy(math.nextafter(c, 2)) - 1e-12 for c in inner)


# files


def test_a_memory_survives_its_file(tmp_path: Path, memory: EditMemory):
    file = tmp_path / "edits.jsonl"
    memory.save(file)
    again = EditMemory.load(file)
    assert again.pairs == memory.pairs
    assert again.rules == memory.rules
    assert [f.name for f in tmp_path.iterdir()] == ["edits.jsonl"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, memory: EditMemory, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "edits.jsonl"
    memory.save(file)
    before = file.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError):
        EditMemory(memory.pairs[:1]).save(file)
    assert file.read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["edits.jsonl"]


ROW = {"question": "q", "original": "a b", "edited": "a c"}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{", "not JSON"),
        ("[1]", "needs question, original and edited"),
        (json.dumps({"question": "q", "original": "a"}), "needs question, original and edited"),
        (json.dumps({**ROW, "extra": 1}), "allowed: answer, candidates"),
        (json.dumps({**ROW, "question": 3}), "question must be a text"),
        (json.dumps({**ROW, "edited": "  "}), "must hold words"),
        (json.dumps({**ROW, "candidates": {"a": 2.0}}), "must give step texts a probability"),
        (json.dumps({**ROW, "candidates": {"a": True}}), "must give step texts a probability"),
        (json.dumps({**ROW, "candidates": []}), "must give step texts a probability"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, problem: str):
    file = tmp_path / "edits.jsonl"
    file.write_text(f"{json.dumps(ROW)}\n\n{row}\n", encoding="utf-8")
    with pytest.raises(SafeladderError, match=rf"edits.jsonl, row 3: .*{problem}"):
        EditMemory.load(file)


def test_files_that_are_not_there(tmp_path: Path, memory: EditMemory):
    with pytest.raises(SafeladderError, match="No such file"):
        EditMemory.load(tmp_path / "none.jsonl")
    with pytest.raises(SafeladderError, match=r"folder .* not found"):
        memory.save(tmp_path / "none" / "edits.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SafeladderError, match="not UTF-8"):
        EditMemory.load(tmp_path / "binary")
