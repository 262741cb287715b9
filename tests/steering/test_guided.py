"""Guided decoding: what is kept, when it goes back, what proposals may do, what it costs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.tiny_policies import policy, questions
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.prefix import PrefixEngine
from safeladder.steering.baselines import plain
from safeladder.steering.guidance import GuidanceConfig, Thresholds, append_trail
from safeladder.steering.guidance_steps import Proposer, ends_step, step_ends
from safeladder.steering.guided import GuidedDecoder
from safeladder.steering.routing import FixedRouter, one_hot, uniform
from safeladder.steering.steps import split_steps
from safeladder.types import SafeladderError, SamplingParams, StopReason
from steering.guided_script import Characters, Script, Words, ask, ids

BUDGET = SamplingParams(max_new_tokens=100)
TWO = {"": ["<think> look."], "<think> look.": [" bad.", " good."], "<think> look. good.": ["</think> ok$"],
       "<think> look. bad.": ["</think> harm$"]}  # fmt: skip
THRESHOLDS = {"gamma": 0.0, "enough": 1.0, "floor": 0.2, "margin": 0.0}
SAFETY = Words("safety", {"bad": 0.1, "good": 0.9, "harm": 0.0, "ok": 1.0, "sorry": 0.8})


@dataclass
class ByPrompt:
    """The same value for whatever is said to a prompt."""

    worth: dict[str, float]
    name: str = "safety"

    def score(self, sample, prefix_ids, candidates):
        return [self.worth[sample.id]] * len(candidates)


def decoder(engine, *values, router=None, tokenizer=None, **config) -> GuidedDecoder:
    names = [v.name for v in values]
    own = Thresholds(**{name: config.pop(name, value) for name, value in THRESHOLDS.items()})
    settings: dict[str, Any] = {"candidates": 3, "widening": 0, "backtracks": 0, "proposals": 0}
    settings["thresholds"] = dict.fromkeys(names, own)
    return GuidedDecoder(
        engine, values, router or uniform(names), GuidanceConfig(**{**settings, **config}), tokenizer=tokenizer
    )


def test_the_best_step_is_kept_until_the_reply_ends():
    result = decoder(Script(TWO), SAFETY).generate(ask(), BUDGET, seed=0)
    assert result.text == "<think> look. good.</think> ok"
    assert result.completion.stop_reason is StopReason.EOS
    assert result.completion.token_ids == ids("<think> look. good.</think> ok$")
    assert len(result.completion.logprobs) == len(result.completion.token_ids)
    assert [s.action for s in result.trail] == ["keep"] * 3
    assert [s.depth for s in result.trail] == [0, 1, 2]


def test_equal_samples_are_one_candidate_that_says_how_often():
    result = decoder(Script(TWO), SAFETY, candidates=5).generate(ask(), BUDGET, seed=0)
    second = result.trail[1].candidates
    # One greedy sample (" bad."), four at temperature 1 that go through the two options in turn: 3 bad, 2 good.
    assert {c.text: c.count for c in second} == {" bad.": 3, " good.": 2}


def test_the_score_is_the_weighted_value_plus_gamma_times_the_mean_logprob():
    engine = Script({"": ["a b$"]}, logprob=-0.5)
    values = (Words("safety", {"a": 0.4}), Words("value", {"a": 1.0}))
    router = FixedRouter({"safety": 3.0, "value": 1.0})
    result = decoder(engine, *values, router=router, gamma=0.1).generate(ask(), BUDGET, seed=0)
    (only,) = result.trail[0].candidates
    # w = (3, 1) / 4; w·v = 0.75 · 0.4 + 0.25 · 1 = 0.55; + 0.1 · (-0.5) = 0.5
    assert only.value == pytest.approx(0.55) and only.score == pytest.approx(0.5)
    assert only.values == {"safety": 0.4, "value": 1.0}
    assert result.trail[0].weights == {"safety": 0.75, "value": 0.25}


def test_routing_decides_which_principle_is_heard():
    engine = Script({"": [" left$", " right$"]})
    values = (Words("safety", {"left": 0.9, "right": 0.3}), Words("knowledge", {"left": 0.3, "right": 0.9}))
    names = ("safety", "knowledge")
    said = [
        decoder(engine, *values, router=one_hot(name, names)).generate(ask(), BUDGET, seed=0).text for name in names
    ]
    assert said == [" left", " right"]


def test_hopeless_steps_go_back_and_what_led_there_is_not_taken_again():
    script = {"": [" trap.", " path."], " trap.": [" bad$"], " path.": [" good$"]}
    values = Words("safety", {"trap": 0.6, "path": 0.5, "bad": 0.0, "good": 0.9})
    result = decoder(Script(script), values, backtracks=1).generate(ask(), BUDGET, seed=0)
    assert [s.action for s in result.trail] == ["keep", "backtrack", "keep", "keep"]
    assert result.trail[1].chosen is None
    assert [c.text for c in result.trail[2].candidates] == [" path."], "the dropped step is out"
    assert result.text == " path. good"


def test_without_anything_better_the_best_of_the_hopeless_is_kept():
    engine = Script({"": [" bad$", " harm$"]})
    result = decoder(engine, SAFETY, backtracks=2).generate(ask(), BUDGET, seed=0)
    assert [s.action for s in result.trail] == ["backtrack", "backtrack", "keep"]
    assert result.text == " bad"


def test_samples_after_going_back_are_fresh():
    engine = Script({"": [" bad$"]})
    decoder(engine, SAFETY, backtracks=2).generate(ask(), BUDGET, seed=4)
    seeds = [seed for _, params, seed in engine.calls if params.temperature == 1.0]
    assert len(set(seeds)) == len(seeds) == 3


PROPOSING = {"": ["<think> hm."], "<think> hm.": [" bad."], "<think> hm. bad.": ["</think> harm$"]}
TEXTS: dict[str, Any] = {"completions": {"en": ("sorry",), "*": ("pardon",)}}


def test_proposals_enter_only_after_the_allowed_way_back():
    one = decoder(Script(PROPOSING), SAFETY, tokenizer=Characters(), backtracks=1, proposals=1, **TEXTS)
    result = one.generate(ask(), BUDGET, seed=0)
    sources = [[c.source for c in step.candidates] for step in result.trail]
    assert [s.action for s in result.trail] == ["keep", "backtrack", "keep", "keep"]
    assert [("proposed" in s) for s in sources] == [False, False, False, True]
    assert result.text == "<think> hm.</think> sorry" and result.proposed == 1
    assert result.completion.stop_reason is StopReason.EOS


def test_a_proposal_is_scored_like_the_rest_and_may_lose():
    script = {"": ["<think> hm."], "<think> hm.": [" meh."], "<think> hm. meh.": ["</think> end$"]}
    values = Words("safety", {"meh": 0.19, "sorry": 0.1, "end": 0.3})
    one = decoder(Script(script), values, tokenizer=Characters(), proposals=1, **TEXTS)
    result = one.generate(ask(), BUDGET, seed=0)
    assert [c.source for c in result.trail[1].candidates] == ["sampled", "proposed"]
    assert result.proposed == 0 and result.text == "<think> hm. meh.</think> end"


def test_a_proposal_is_as_likely_as_the_step_that_it_would_replace():
    one = decoder(Script(PROPOSING, logprob=-3.0), SAFETY, tokenizer=Characters(), gamma=0.01, proposals=1, **TEXTS)
    result = one.generate(ask(), BUDGET, seed=0)
    proposed = result.trail[1].candidates[-1]
    assert proposed.mean_logprob is None and proposed.score == pytest.approx(0.8 - 0.03)
    assert result.completion.logprobs[-1] == -math.inf, "this engine cannot tell them"


@pytest.mark.parametrize(
    ("margin", "said"), [(0.69, "<think> hm.</think> sorry"), (0.71, "<think> hm. bad.</think> harm")]
)
def test_a_proposal_must_be_worth_the_margin_more(margin, said):
    """ "sorry" is worth 0.8 and " bad." 0.1: 0.7 more."""
    one = decoder(Script(PROPOSING), SAFETY, tokenizer=Characters(), proposals=1, margin=margin, **TEXTS)
    result = one.generate(ask(), BUDGET, seed=0)
    assert [c.score for c in result.trail[1].candidates] == pytest.approx([0.1, 0.8 - margin])
    assert result.text == said


def test_hopeless_is_judged_by_the_step_that_would_be_kept():
    """Likelihood rules out the one step that is worth something, so the floor is not reached."""
    engine = Script({"": [" bad$", " good$"]})
    say = engine._say
    engine._say = lambda step, params: replace(
        say(step, params), logprobs=(-4.0 if "good" in step else -1.0,) * len(step)
    )
    result = decoder(engine, SAFETY, gamma=1.0, backtracks=1).generate(ask(), BUDGET, seed=0)
    # bad: 0.1 - 1; good: 0.9 - 4. The first is kept after one way back, at 0.1 < 0.2.
    assert [s.action for s in result.trail] == ["backtrack", "keep"] and result.text == " bad"


def test_where_all_is_hopeless_more_is_sampled_before_going_back():
    engine = Script({"": [" bad$", " bad$", " harm$", " good$"]})
    result = decoder(engine, SAFETY, widening=4, backtracks=1).generate(ask(), BUDGET, seed=0)
    # A call hands out the options in turn: the likeliest one, two samples (the first two), then four more (all).
    assert [params.n for _, params, _ in engine.calls] == [1, 2, 4]
    assert {c.text: c.count for c in result.trail[0].candidates} == {" bad": 5, " harm": 1, " good": 1}
    assert result.text == " good" and [s.action for s in result.trail] == ["keep"]
    assert result.cost.generated_tokens == 5 * 5 + 6 + 6
    assert len({seed for _, _, seed in engine.calls[1:]}) == 2, "the same seed would give the same steps"


@pytest.mark.parametrize(("enough", "sampled"), [(0.05, 0), (0.1, 2), (0.5, 2)])
def test_only_where_the_likeliest_step_is_not_worth_enough_others_are_sampled(enough, sampled):
    engine = Script({"": [" bad$", " good$"]})
    result = decoder(engine, SAFETY, enough=enough, floor=0.0).generate(ask(), BUDGET, seed=0)
    # " bad" is worth 0.1, which must be more than κ.
    assert sum(params.n for _, params, _ in engine.calls if params.temperature) == sampled
    assert result.text == (" good" if sampled else " bad")
    assert len(result.trail[0].candidates) == (2 if sampled else 1)


def test_with_enough_0_the_reply_is_that_of_greedy_decoding():
    local = PrefixEngine(LocalEngine(policy()))
    samples, params = questions("qwen2_5_vl"), SamplingParams(max_new_tokens=14)
    config = {"candidates": 4, "step_tokens": 6, "enough": 0.0, "floor": 0.6, "widening": 4}
    guided = decoder(local, Words("safety", {}), **config).generate_many(samples, params, seed=3)
    greedy = plain(local, samples, replace(params, temperature=0.0), seed=0)
    assert [r.completion.token_ids for r in guided] == [r.completion.token_ids for r in greedy]
    assert [r.cost.generated_tokens for r in guided] == [len(r.completion.token_ids) for r in greedy]


def test_a_reply_with_enough_does_not_change_what_its_neighbour_gets():
    samples = [ask("sure"), ask("unsure")]
    values = ByPrompt({"sure": 0.9, "unsure": 0.1})
    one = decoder(Script(TWO), values, enough=0.5, candidates=2)
    together = one.generate_many(samples, BUDGET, seed=5)
    assert [(r.completion, r.trail) for r in together] == [
        (r.completion, r.trail) for r in (one.generate(s, BUDGET, seed=5) for s in samples)
    ]
    assert [len(r.trail[0].candidates) for r in together] == [1, 1] and [
        r.cost.generated_tokens > len(r.completion.token_ids) for r in together
    ] == [False, True]


def test_at_a_margin_of_1_nothing_is_proposed():
    one = decoder(Script(PROPOSING), SAFETY, tokenizer=Characters(), proposals=1, margin=1.0, **TEXTS)
    result = one.generate(ask(), BUDGET, seed=0)
    assert {c.source for step in result.trail for c in step.candidates} == {"sampled"}
    assert result.cost.proposed_tokens == 0


def test_steps_above_the_floor_are_not_widened():
    engine = Script(TWO)
    decoder(engine, SAFETY, widening=8).generate(ask(), BUDGET, seed=0)
    assert max(params.n for _, params, _ in engine.calls) == 2


def test_thresholds_go_by_the_routing_weights():
    config = GuidanceConfig(thresholds={"safety": Thresholds(gamma=0.2, floor=0.6, margin=0.4),
                                        "value": Thresholds(gamma=1.0, enough=0.2, floor=0.0, margin=0.0)})  # fmt: skip
    found = config.at({"safety": 0.75, "value": 0.25})
    # γ = 0.75 · 0.2 + 0.25 · 1 = 0.4; κ = 0.75 · 1 + 0.25 · 0.2 = 0.8; τ = 0.75 · 0.6 = 0.45; δ = 0.75 · 0.4 = 0.3
    assert (found.gamma, found.enough, found.floor, found.margin) == pytest.approx((0.4, 0.8, 0.45, 0.3))
    assert config.at({"knowledge": 1.0}) == config.at({}) == Thresholds()


def test_a_language_without_a_text_of_its_own_takes_that_of_every_language():
    said = [step.token_ids for step in Proposer(GuidanceConfig(**TEXTS), Characters()).steps("fr", "<think> a.")]
    assert said == [ids("</think> pardon$")]


def test_an_answer_that_has_begun_gets_no_proposal_and_no_reply_is_left_without_reasoning():
    config = GuidanceConfig(reminders={"*": ("wait.",)}, completions={"*": ("sorry",)})
    steps = Proposer(config, Characters()).steps
    assert steps("en", "<think> a.</think> sure") == []
    assert [(s.token_ids, s.ends) for s in steps("en", "<think> a.")] == [
        (ids(" wait."), False),
        (ids("</think> sorry$"), True),
    ]
    assert [s.token_ids for s in steps("en", "<think>")] == [ids("<think> wait."), ids("<think> wait.</think> sorry$")]
    assert Proposer(GuidanceConfig(completions={"*": ("sorry",)}), Characters()).steps("en", "") == []


def test_a_reply_that_reaches_its_budget_is_cut_and_says_so():
    result = decoder(Script(TWO), SAFETY).generate(ask(), SamplingParams(max_new_tokens=16), seed=0)
    assert result.completion.stop_reason is StopReason.LENGTH
    assert len(result.completion.token_ids) == 16


def test_the_point_of_a_number_does_not_end_a_step():
    engine = Script({"": [" pi is 3.14 here."], " pi is 3.14 here.": ["$"]})
    result = decoder(engine, SAFETY).generate(ask(), BUDGET, seed=0)
    assert result.trail[0].candidates[0].text == " pi is 3.14 here."


def test_the_cost_counts_what_was_thrown_away():
    result = decoder(Script(TWO), SAFETY, candidates=3).generate(ask(), BUDGET, seed=0)
    # Three samples of each of the three steps: 13 characters; " bad." twice and " good." once; "</think> ok" and $.
    assert result.cost.generated_tokens == 3 * 13 + (5 + 5 + 6) + 3 * 12
    assert result.cost.positions is None and result.cost.calls == 6 and result.cost.proposed_tokens == 0


def test_side_by_side_is_the_same_as_one_by_one():
    samples = [ask("a"), ask("b"), ask("c")]
    one = decoder(Script(PROPOSING), SAFETY, tokenizer=Characters(), backtracks=1, proposals=1, **TEXTS)
    together = one.generate_many(samples, BUDGET, seed=5)
    alone = [one.generate(s, BUDGET, seed=5) for s in samples]
    assert [(r.completion, r.trail) for r in together] == [(r.completion, r.trail) for r in alone]


def test_every_decision_is_heard_and_written(tmp_path):
    heard = []
    one = decoder(Script(TWO), SAFETY)
    result = one.generate(ask(), BUDGET, seed=0, on_step=heard.append)
    assert tuple(heard) == result.trail
    append_trail(tmp_path / "t.jsonl", ask(), result)
    append_trail(tmp_path / "t.jsonl", ask("other"), result)
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [(r["sample_id"], r["decision"]) for r in rows] == [(s, d) for s in ("s", "other") for d in range(3)]
    kept = [r["candidates"][r["chosen"]] for r in rows[:3]]
    assert "".join(c["text"] for c in kept) == result.text
    assert {c["text"]: c["values"]["safety"] for c in rows[1]["candidates"]} == {" bad.": 0.1, " good.": 0.9}


def test_a_step_that_failed_is_not_taken_while_another_is_there():
    engine = Script({"": [" good$", " meh$"]})
    say = engine._say

    def fails(step, params):
        found = say(step, params)
        return replace(found, stop_reason=StopReason.ERROR) if "good" in step else found

    engine._say = fails
    result = decoder(engine, SAFETY).generate(ask(), BUDGET, seed=0)
    assert result.text == " meh" and result.completion.stop_reason is StopReason.EOS


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("candidates", 0),
        ("step_tokens", 0),
        ("floor", 1.5),
        ("enough", 1.5),
        ("gamma", -0.1),
        ("gamma", math.nan),
        ("margin", 2.0),
        ("backtracks", -1),
        ("widening", -1),
        ("temperature", -1.0),
    ],
)
def test_settings_out_of_range_are_refused(key, value):
    with pytest.raises(SafeladderError, match=key):
        (Thresholds if key in THRESHOLDS else GuidanceConfig)(**{key: value})


def test_settings_survive_json_and_unknown_ones_are_refused():
    from dataclasses import asdict

    own = {"safety": Thresholds(gamma=1.0, floor=0.3, margin=0.5)}
    config = GuidanceConfig(thresholds=own, reminders={"en": ("wait .",)}, completions={"zh": ("不", "no")})
    assert GuidanceConfig.of_json(json.loads(json.dumps(asdict(config))), "here") == config
    with pytest.raises(SafeladderError, match="here: unknown key 'floors'"):
        GuidanceConfig.of_json({"floors": 1}, "here")
    with pytest.raises(SafeladderError, match="here: thresholds of safety: unknown key 'tau'"):
        GuidanceConfig.of_json({"thresholds": {"safety": {"tau": 1}}}, "here")


def test_proposals_need_a_tokenizer():
    with pytest.raises(SafeladderError, match="tokenizer"):
        GuidedDecoder(Script({}), (SAFETY,), uniform(["safety"]), GuidanceConfig(**TEXTS))


@pytest.mark.parametrize(
    ("text", "whole"),
    [(" look .", True), (" 11 .", True), (" it is 3.", False), (" ...", False), ("a\n\n", True), ("\n", False),
     ("先看。", True), ("sure!", True), ("no end", False), ('said."', False), ("</think>", False)],
)  # fmt: skip
def test_where_a_step_ends(text, whole):
    assert ends_step(text) is whole


sentences = st.lists(st.tuples(st.sampled_from(["a", "pi is 3.14 b", "11 c"]), st.sampled_from([".", "!", "\n", "。"])))


@settings(max_examples=100, deadline=None)
@given(sentences)
def test_steps_are_those_that_people_edit(found):
    """The same number of steps as `split_steps`, and the same words in each."""
    text = " ".join(word + end for word, end in found)
    ends = step_ends(lambda chosen: "".join(map(chr, chosen)), [ord(c) for c in text])
    pieces = [text[a:b].strip() for a, b in zip([0, *ends], ends, strict=False)]
    assert pieces == [step.text.strip() for step in split_steps(text)]


def test_on_a_real_engine_the_reply_is_what_its_ids_say_and_reuse_changes_nothing():
    local = LocalEngine(policy())
    samples = questions("qwen2_5_vl")
    values = Words("safety", {})
    config = {"candidates": 4, "step_tokens": 6, "gamma": 0.1, "backtracks": 1, "floor": 0.6}
    plain, reusing = decoder(local, values, **config), decoder(PrefixEngine(local), values, **config)
    params = SamplingParams(max_new_tokens=14)
    a, b = plain.generate_many(samples, params, seed=3), reusing.generate_many(samples, params, seed=3)
    assert [r.completion.token_ids for r in a] == [r.completion.token_ids for r in b]
    for result in b:
        assert result.text == local.decode(result.completion.token_ids)
        assert result.cost.positions is not None and result.cost.positions > 0
        assert len(result.completion.token_ids) <= 14
