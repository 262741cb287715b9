"""Continue and re-answer: what is kept keeps its ids, what was typed is masked, images stay in the prompt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from word_engine import WordEngine, compliant, question

from rollout.tiny_policies import ask, picture, policy
from safeladder.rollout.collect import collect
from safeladder.rollout.local import LocalEngine
from safeladder.steering.editing import (
    FORMAT,
    Prefill,
    continue_from,
    edited_prefix,
    extended,
    kept_prefix,
    kept_through,
    re_answer,
    reasoning_steps,
    with_step,
    written_reasoning,
)
from safeladder.types import Observation, Response, Rollout, SafeladderError, Sample, SamplingParams, StopReason

GREEDY = SamplingParams(max_new_tokens=60, temperature=0.0)
KILL = question("now kill man")


@pytest.fixture
def engine() -> WordEngine:
    return WordEngine(compliant)


@pytest.fixture
def draft(engine: WordEngine) -> Rollout:
    ((rollout,),) = collect(engine, [KILL], GREEDY, FORMAT, seed=0)
    return rollout


def test_steps_of_a_reply(draft: Rollout):
    assert [step.text for step in reasoning_steps(draft)] == ["read : kill , man . ", "kill man : fine ."]


def test_continue_keeps_the_ids_before_the_edit_and_masks_what_was_typed(engine: WordEngine, draft: Rollout):
    prefix = edited_prefix(engine, draft, 2, " kill man : this hurts people . ")
    # <think> read : kill , man . = 7 tokens as sampled; then the 7 words that were typed
    assert prefix.token_ids[:7] == draft.token_ids[:7]
    assert prefix.mask == (1,) * 7 + (0,) * 7
    assert prefix.logprobs == draft.logprobs[:7] + (0.0,) * 7
    after = continue_from(engine, KILL, prefix, GREEDY, seed=0)
    assert after.response == Response(
        reasoning="read : kill , man . kill man : this hurts people .", answer="no , this is wrong"
    )
    assert after.token_ids[:14] == prefix.token_ids
    assert after.action_mask[14:] == (1,) * (len(after.token_ids) - 14)
    request = engine.calls[-1][0][0]
    assert request.prompt_ids == (*engine.prompt_ids(KILL), *prefix.token_ids)


def test_continue_from_text_is_continue_from_the_same_ids(engine: WordEngine, draft: Rollout):
    text = "read : kill , man . kill man : this hurts people ."
    by_text = continue_from(engine, KILL, text, GREEDY, seed=0)
    by_ids = continue_from(
        engine, KILL, edited_prefix(engine, draft, 2, "kill man : this hurts people ."), GREEDY, seed=0
    )
    assert by_text.token_ids == by_ids.token_ids
    assert sum(by_text.action_mask) == sum(by_ids.action_mask) - 7


def test_re_answer_freezes_the_whole_reasoning(engine: WordEngine, draft: Rollout):
    frozen = with_step(draft, 1, "read : kill , time .")
    assert frozen == "read : kill , time . kill man : fine ."
    after = re_answer(engine, KILL, with_step(draft, 2, "kill man : this hurts people ."), GREEDY, seed=0)
    assert after.response == Response(
        reasoning="read : kill , man . kill man : this hurts people .", answer="no , this is wrong"
    )
    said = engine.decode([i for i, own in zip(after.token_ids, after.action_mask, strict=True) if own])
    assert said == " no , this is wrong", "the policy said the answer only"


def test_an_unchanged_prefix_goes_on_as_before(engine: WordEngine, draft: Rollout):
    for number in (1, 2):
        again = continue_from(engine, KILL, kept_through(engine, draft, number), GREEDY, seed=0)
        assert again.token_ids == draft.token_ids


def test_a_token_across_the_cut_is_left_out_and_its_text_typed(engine: WordEngine):
    # "one.\n" and the space before "two" are one token here; the cut before step 2 falls inside it.
    text = "<think> one. two.</think> yes"
    engine.tokenizer.names += ["<odd>", "<even>"]
    names = engine.tokenizer.names
    names[3], names[4] = "<think> one. t", "wo.</think> yes"
    rollout = replace(Rollout.of_text(KILL, text, None), token_ids=(3, 4), logprobs=(-1.0, -2.0), action_mask=(1, 1))
    assert engine.decode(rollout.token_ids) == text
    kept = kept_prefix(engine, rollout, 2)
    assert kept == Prefill(gap="<think> one. ")
    prefix = extended(engine, kept, "three.")
    assert engine.decode(prefix.token_ids) == "<think> one. three."
    assert prefix.mask == (0,) * len(prefix.token_ids)


def test_a_reply_without_tokens_can_be_edited(engine: WordEngine):
    rollout = Rollout.of_text(KILL, "<think> read : kill , man . kill man : fine .</think> sure", None)
    prefix = edited_prefix(engine, rollout, 2, "kill man : this hurts people .")
    assert engine.decode(prefix.token_ids) == "<think> read : kill , man . kill man : this hurts people ."
    assert prefix.token_ids[0] == 1, "the tag is the token, not letters that spell it"


def test_typed_control_tokens_are_plain_text(engine: WordEngine, draft: Rollout):
    prefix = edited_prefix(engine, draft, 2, "fine <end> now")
    assert 0 not in prefix.token_ids
    assert engine.decode(prefix.token_ids).endswith(" fine <end> now")


@pytest.mark.parametrize("text", ["", "  \n", "a </think> b", "<think> a"])
def test_a_text_that_is_no_step_is_refused(engine: WordEngine, draft: Rollout, text: str):
    with pytest.raises(SafeladderError, match=r"empty|cannot hold"):
        edited_prefix(engine, draft, 1, text)
    with pytest.raises(SafeladderError, match=r"empty|cannot hold"):
        re_answer(engine, KILL, text, GREEDY, seed=0)


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_step_that_is_not_there_is_refused(engine: WordEngine, draft: Rollout, number: int):
    with pytest.raises(SafeladderError, match=f"step {number}: this reasoning has the steps 1 to 2"):
        edited_prefix(engine, draft, number, "x")


@pytest.mark.parametrize("text", ["no tags", "", "<think>  </think> yes", "well <think> a .</think> b"])
def test_a_reply_without_reasoning_is_refused(text: str):
    assert written_reasoning(text) is None
    with pytest.raises(SafeladderError, match="no reasoning"):
        reasoning_steps(Rollout.of_text(KILL, text, None))


def test_a_search_is_refused(draft: Rollout):
    with pytest.raises(SafeladderError, match="several turns"):
        reasoning_steps(replace(draft, observations=(Observation(token_ids=()),)))


def test_reasoning_that_was_cut_can_be_edited_as_far_as_it_got():
    assert written_reasoning("<think> one . two") == "one . two"


def test_an_unclosed_or_truncated_reply_stays_malformed():
    endless = WordEngine(lambda sample, said, temperature, number: (" on" * 100, 1.0))
    after = continue_from(endless, KILL, "one .", replace(GREEDY, max_new_tokens=10), seed=0)
    assert after.stop_reason == StopReason.LENGTH and after.response is None


def test_the_budget_shrinks_to_the_room_there_is_and_no_room_is_an_error(engine: WordEngine):
    taken = len(engine.prompt_ids(KILL)) + 3  # <think> one .
    engine.context_length = taken + 2
    assert continue_from(engine, KILL, "one .", GREEDY, seed=0).length == 2
    engine.context_length = taken
    with pytest.raises(SafeladderError, match=rf"take {taken} tokens, the model's context has {taken}"):
        continue_from(engine, KILL, "one .", GREEDY, seed=0)


def test_an_engine_without_a_tokenizer_is_told(engine: WordEngine):
    engine.tokenizer = None  # type: ignore[assignment]
    with pytest.raises(SafeladderError, match="shows no tokenizer"):
        continue_from(engine, KILL, "one .", GREEDY, seed=0)


# a real model


@pytest.fixture(scope="module")
def local() -> LocalEngine:
    return LocalEngine(policy())


def told(engine: LocalEngine, sample: Sample, text: str) -> Rollout:
    return continue_from(engine, sample, text, replace(GREEDY, max_new_tokens=12), seed=0)


def test_a_models_own_ids_are_kept_and_it_goes_on_as_it_did(local: LocalEngine):
    sample = ask("edit-1", picture(1), "how many red circles?")
    first = told(local, sample, "two circles. one square.")
    prefix = edited_prefix(local, first, 2, "one square.")
    again = continue_from(local, sample, prefix, replace(GREEDY, max_new_tokens=12), seed=0)
    assert again.token_ids == first.token_ids
    assert again.text.startswith("<think> two circles. one square.")
    other = continue_from(
        local, sample, edited_prefix(local, first, 2, "no square."), replace(GREEDY, max_new_tokens=12), seed=0
    )
    kept = len(kept_prefix(local, first, 2).token_ids)
    assert other.token_ids[:kept] == first.token_ids[:kept] and other.token_ids != first.token_ids


def test_the_image_stays_in_the_prompt(local: LocalEngine):
    one, two = (ask(f"edit-{k}", picture(k), "how many red circles?") for k in (5, 6))
    a, b = told(local, one, "two circles."), told(local, two, "two circles.")
    assert a.prompt_ids == b.prompt_ids and len(a.prompt_ids) > len(
        local.prompt_ids(ask("edit-7", "how many red circles?"))
    )
    mine = next(i for i, own in enumerate(a.action_mask) if own)
    assert a.logprobs[mine] != b.logprobs[mine]
