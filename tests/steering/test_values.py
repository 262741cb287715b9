"""Value models: verifiers on partial replies, heads on states, routing, what counts as accepted."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from rollout.tiny_policies import ask as question
from rollout.tiny_policies import policy
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.prefix import PrefixEngine
from safeladder.steering.guidance import GuidanceConfig
from safeladder.steering.guided import GuidedDecoder, load_guidance
from safeladder.steering.routing import FixedRouter, one_hot, uniform
from safeladder.steering.value_heads import HeadScorer, HeadValues, LearnedRouter, ValueHeads, fingerprint
from safeladder.steering.values import (
    PRINCIPLES,
    Query,
    ValueModel,
    VerifierValues,
    accepted,
    principle_of,
    score_all,
)
from safeladder.types import GenerationRequest, SafeladderError, SamplingParams, Score
from steering.guided_script import QUESTION, Script, Words, ask, ids


class Reads:
    """A verifier that says what it was shown."""

    name, principle = "reads", "safety"

    def __init__(self, scores: dict[str, Score]) -> None:
        self.scores, self.seen = scores, []

    def score(self, rollouts):
        self.seen += [r.response and (r.response.reasoning, r.response.answer) for r in rollouts]
        return [self.scores.get(r.response.answer if r.response else "", Score(value=0.5)) for r in rollouts]


def test_a_verifier_reads_a_partial_reply_as_if_it_were_whole():
    verifier = Reads({"mean": Score(value=0.25)})
    values = VerifierValues(verifier, Script({}))
    steps = [ids(" mean"), ids(" x.</think> yes$"), ids("</think>")]
    assert values.score(ask(), ids(QUESTION + "<think>"), steps) == [0.25, 0.5, 0.5]
    assert verifier.seen == [(None, "mean"), ("x.", "yes"), None]
    assert values.name == "safety" and isinstance(values, ValueModel)


def test_unscored_is_counted_and_worth_nothing():
    values = VerifierValues(Reads({"eh": Score.unscored("cannot read")}), Script({}))
    assert values.score(ask(), ids(QUESTION), [ids("eh"), ids("ok")]) == [0.0, 0.5]
    assert values.unscored == 1


def test_values_of_many_queries_with_a_model_that_takes_one():
    model = Words("safety", {"a": 0.1})
    queries = [Query(ask(), ids(QUESTION), (ids("a"), ids("b"))), Query(ask(), ids(QUESTION), ())]
    assert score_all(model, queries) == [[0.1, 0.5], []]


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ([Score(value=0.1, label="safe with refusal")], True),
        ([Score(value=0.01, label="illogical completion")], False),
        ([Score(value=0.9, label="unnecessary refusal")], False),
        ([Score(value=0.5)], True),
        ([Score(value=0.49)], False),
        ([Score(value=1.0), Score(value=0.2)], False),
        ([Score(value=1.0), Score.unscored("lost")], None),
        ([], None),
    ],
)
def test_what_is_accepted(scores, verdict):
    assert accepted(scores) is verdict


def test_principles_of_labels():
    assert {label: principle_of(label) for label in ("safety", "jailbreak", "value", "knowledge", "general_rule")} == {
        "safety": "safety",
        "jailbreak": "safety",
        "value": "value",
        "knowledge": "knowledge",
        "general_rule": "capability",
    }


def test_fixed_weights_add_up_to_one():
    assert FixedRouter({"a": 3, "b": 1}).route([ask(), ask()]) == [{"a": 0.75, "b": 0.25}] * 2
    assert uniform(["a", "b"]).weights == {"a": 0.5, "b": 0.5}
    assert one_hot("b", ["a", "b"]).weights == {"a": 0.0, "b": 1.0}


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"a": math.nan}, {"a": math.inf}])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(SafeladderError, match="routing weights"):
        FixedRouter(weights)


def test_a_route_to_nobody_is_refused():
    with pytest.raises(SafeladderError, match="no value model 'c'; there are: a, b"):
        one_hot("c", ["a", "b"])


def heads(hidden: int, seed: int = 0) -> ValueHeads:
    torch.manual_seed(seed)
    return ValueHeads(hidden, PRINCIPLES).eval()


def engine() -> PrefixEngine:
    return PrefixEngine(LocalEngine(policy()))


def test_a_heads_value_is_the_sigmoid_of_its_logit_on_prompt_and_step():
    reader = engine()
    sample = question("s", "how many red circles?")
    prompt = reader.prompt_ids(sample)
    network = heads(reader.decoder.hidden_size)
    network.mean.fill_(0.3)
    network.scale.fill_(2.0)
    found = HeadValues(HeadScorer(reader, network), "value").score(sample, (*prompt, 7), [(8, 9), (10,)])
    contexts = [(prompt, 1), ((*prompt, 7, 8, 9), 2), ((*prompt, 7, 10), 1)]
    of_prompt, *steps = reader.passes(
        [GenerationRequest(sample=sample, prompt_ids=ids) for ids, _ in contexts], [tail for _, tail in contexts]
    )
    assert [len(step.states) for step in steps] == [2, 1]
    for value, step in zip(found, steps, strict=True):
        x = torch.cat((of_prompt.states[-1], step.states.mean(dim=0), step.states[-1]))
        assert value == pytest.approx(torch.sigmoid(network.values[1]((x - 0.3) / 2.0)).item(), abs=1e-5)


def test_heads_share_passes_and_remember():
    reader = engine()
    sample = question("s", "how many red circles?")
    scorer = HeadScorer(reader, heads(reader.decoder.hidden_size))
    query = (sample, reader.prompt_ids(sample), [(8, 9), (10,)])
    HeadValues(scorer, "safety").score(*query)
    before = reader.positions
    HeadValues(scorer, "knowledge").score(*query)
    assert reader.positions == before


def test_learned_weights_are_the_softmax_of_the_router():
    reader = engine()
    samples = [question("a", "how many red circles?"), question("b", "what colour is the square?")]
    network = heads(reader.decoder.hidden_size)
    found = LearnedRouter(HeadScorer(reader, network)).route(samples)
    assert [list(w) for w in found] == [list(PRINCIPLES)] * 2
    assert all(sum(w.values()) == pytest.approx(1.0) for w in found)
    asked = [GenerationRequest(sample=s, prompt_ids=reader.prompt_ids(s)) for s in samples]
    for weights, state in zip(found, reader.passes(asked), strict=True):
        expected = torch.softmax(network.router(state.states[-1]), dim=0)
        assert_close(torch.tensor(list(weights.values())), expected.detach(), atol=1e-5, rtol=0)


def test_saved_heads_come_back_and_guide(tmp_path):
    local = LocalEngine(policy())
    network = heads(local.decoder.hidden_size)
    config = {"candidates": 2, "step_tokens": 5, "reminders": {"en": ["two"]}, "completions": {}}
    network.save(tmp_path / "g", {"model": fingerprint(local), "config": config})
    decoder = load_guidance(tmp_path / "g", local)
    assert decoder.config == GuidanceConfig(candidates=2, step_tokens=5, reminders={"en": ("two",)})
    assert [v.name for v in decoder.values] == list(PRINCIPLES)
    sample = question("s", "how many red circles?")
    result = decoder.generate(sample, SamplingParams(max_new_tokens=8), seed=0)
    reader = PrefixEngine(local)
    scorer = HeadScorer(reader, network)
    same = GuidedDecoder(
        reader, [HeadValues(scorer, name) for name in PRINCIPLES], LearnedRouter(scorer), decoder.config,
        tokenizer=local.policy.tokenizer,
    ).generate(sample, SamplingParams(max_new_tokens=8), seed=0)  # fmt: skip
    assert result.completion == same.completion and result.trail == same.trail


def test_guidance_of_another_model_is_refused(tmp_path):
    local = LocalEngine(policy())
    heads(local.decoder.hidden_size).save(tmp_path, {"model": fingerprint(LocalEngine(policy(seed=1)))})
    with pytest.raises(SafeladderError, match="another model"):
        load_guidance(tmp_path, local)


def test_no_guidance_and_damaged_guidance_are_said(tmp_path):
    local = LocalEngine(policy())
    with pytest.raises(SafeladderError, match="holds no value guidance"):
        load_guidance(tmp_path, local)
    heads(local.decoder.hidden_size).save(tmp_path, {"model": fingerprint(local)})
    (tmp_path / "heads.safetensors").write_bytes(b"not tensors")
    with pytest.raises(SafeladderError, match="cannot be read"):
        load_guidance(tmp_path, local)
    (tmp_path / "guidance.json").write_text('{"format": 99}')
    with pytest.raises(SafeladderError, match="format 99"):
        load_guidance(tmp_path, local)
