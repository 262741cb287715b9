"""Plain, best-of-N and a beam: what they keep and what they cost."""

from __future__ import annotations

import pytest

from rollout.tiny_policies import policy, questions
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.prefix import PrefixEngine
from safeladder.steering.baselines import beam, best_of_n, plain
from safeladder.steering.guidance import GuidanceConfig, Thresholds
from safeladder.steering.guided import GuidedDecoder
from safeladder.steering.routing import one_hot, uniform
from safeladder.types import SamplingParams, StopReason
from steering.guided_script import Script, Words, ask

BUDGET = SamplingParams(max_new_tokens=100)
WHOLE = {"": ["<think> a.</think> harm$", "<think> b.</think> ok$", "<think> c.</think> meh$"]}
SAFETY = Words("safety", {"harm": 0.0, "ok": 1.0, "meh": 0.4})
OTHER = Words("value", {"harm": 0.9, "ok": 0.1, "meh": 0.4})


def test_plain_is_the_first_reply():
    (reply,) = plain(Script(WHOLE), [ask()], BUDGET, seed=0)
    assert reply.text == "<think> a.</think> harm" and reply.cost.generated_tokens == len("<think> a.</think> harm$")
    assert reply.cost.calls == 1


@pytest.mark.parametrize(("principle", "kept"), [("safety", "ok"), ("value", "harm")])
def test_best_of_n_keeps_the_reply_of_the_highest_routed_value(principle, kept):
    engine = Script(WHOLE)
    router = one_hot(principle, ("safety", "value"))
    (reply,) = best_of_n(engine, [ask()], BUDGET, (SAFETY, OTHER), router, n=3, seed=0)
    assert reply.text.endswith(kept)
    assert reply.cost.generated_tokens == sum(len(text) for text in WHOLE[""]), "all replies are paid for"


def test_best_of_n_values_the_last_step_after_the_others():
    asked = []

    class Watch(Words):
        def score(self, sample, prefix_ids, candidates):
            asked.append(("".join(map(chr, prefix_ids)), "".join(map(chr, candidates[0]))))
            return super().score(sample, prefix_ids, candidates)

    engine = Script({"": ["<think> a. b$"]})
    best_of_n(engine, [ask()], BUDGET, (Watch("safety", {}),), uniform(["safety"]), n=1, seed=0)
    assert asked == [("q:<think> a.", " b\0")]


def test_a_reply_that_was_cut_never_wins_against_a_whole_one():
    engine = Script({"": ["<think> ok ok ok ok ok ok ok", "<think> harm$"]})
    budget = SamplingParams(max_new_tokens=14)
    (reply,) = best_of_n(engine, [ask()], budget, (SAFETY,), uniform(["safety"]), n=2, seed=0)
    assert reply.text.endswith("harm") and reply.completion.stop_reason is StopReason.EOS


def test_likelihood_breaks_ties_of_best_of_n():
    local = LocalEngine(policy())
    samples = questions("qwen2_5_vl")[:2]
    params = SamplingParams(max_new_tokens=6)
    config = GuidanceConfig(thresholds={"safety": Thresholds(gamma=0.5)})
    kept = best_of_n(local, samples, params, (Words("safety", {}),), uniform(["safety"]), n=4, config=config, seed=1)
    for sample, reply in zip(samples, kept, strict=True):
        groups = local.generate([_request(local, sample)], SamplingParams(max_new_tokens=6, n=4), seed=1)
        whole = [c for c in groups[0] if c.stop_reason is StopReason.EOS] or groups[0]
        best = max((c.logprobs for c in whole), key=lambda p: sum(p) / len(p))
        assert reply.completion.logprobs == pytest.approx(best, abs=1e-4)


def _request(engine, sample):
    from safeladder.types import GenerationRequest

    return GenerationRequest(sample=sample, prompt_ids=engine.prompt_ids(sample))


def decoder(engine, *values, candidates: int = 3) -> GuidedDecoder:
    own = dict.fromkeys([v.name for v in values], Thresholds(gamma=0.0))
    config = GuidanceConfig(candidates=candidates, thresholds=own)
    return GuidedDecoder(engine, values, uniform([v.name for v in values]), config)


def test_a_wide_beam_finds_what_greedy_steps_miss():
    """The step that looks worse at first leads to the better reply: one partial reply loses it, two keep it."""
    script = {"": [" bright.", " dim."], " bright.": [" bad$"], " dim.": [" good$"]}
    values = Words("safety", {"bright": 0.6, "dim": 0.5, "bad": 0.1, "good": 0.9})
    narrow, wide = (beam(decoder(Script(script), values), ask(), BUDGET, width=w, seed=0) for w in (1, 2))
    assert (narrow.text, wide.text) == (" bright. bad", " dim. good")
    assert wide.completion.stop_reason is StopReason.EOS
    # Three samples a step: " bright." twice and " dim." once; then " bad$" and " good$" three times each.
    assert wide.cost.generated_tokens == 2 * 8 + 5 + 3 * 5 + 3 * 6


def test_a_beam_that_runs_out_of_budget_is_cut():
    script = {"": [" on."], " on.": [" and."], " on. and.": [" on$"]}
    reply = beam(decoder(Script(script), SAFETY), ask(), SamplingParams(max_new_tokens=8), width=2, seed=0)
    assert reply.completion.stop_reason is StopReason.LENGTH and len(reply.completion.token_ids) == 8


def test_positions_are_counted_where_the_engine_does():
    engine = PrefixEngine(LocalEngine(policy()))
    samples = questions("qwen2_5_vl")[:2]
    for reply in plain(engine, samples, SamplingParams(max_new_tokens=4), seed=0):
        assert reply.cost.positions is not None and reply.cost.positions > 0
    before = engine.positions
    reply = beam(decoder(engine, Words("safety", {})), samples[0], SamplingParams(max_new_tokens=6), width=2, seed=0)
    assert reply.cost.positions == engine.positions - before > 0
