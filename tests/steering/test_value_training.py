"""Monte-Carlo step values: what is counted, what resumes, what is learned, how it is measured."""

from __future__ import annotations

import json

import pytest
import torch

from rollout.tiny_policies import ask, policy
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.prefix import PrefixEngine
from safeladder.steering.guidance import GuidanceConfig
from safeladder.steering.value_measure import auc, measure
from safeladder.steering.value_training import (
    Examples,
    Outcomes,
    Plan,
    PromptOutcomes,
    examples,
    read_outcomes,
    roll_out,
    roll_out_all,
    train_heads,
    verdicts_of,
)
from safeladder.steering.values import PRINCIPLES, Judgement
from safeladder.types import GenerationRequest, SafeladderError, SamplingParams, Score, StopReason

CONFIG = GuidanceConfig(reminders={"*": ("two",)}, completions={"*": ("12",)})
PLAN = Plan(replies=3, branches=1, branch_rollouts=2, proposed=1, max_new_tokens=12, batch=2)


def engine() -> PrefixEngine:
    return PrefixEngine(LocalEngine(policy()))


def prompts(n: int = 3):
    return [ask(f"s{i}", f"how many red circles? {i}") for i in range(n)]


def even(rollouts):
    """Accepts texts of even length; cannot judge those that begin with a digit."""
    return [Judgement(None if r.text[:1].isdigit() else len(r.text) % 2 == 0) for r in rollouts]


def test_every_rollout_counts_once_for_every_prefix_it_went_through():
    judged = []

    def watch(rollouts):
        judged.extend(rollouts)
        return even(rollouts)

    reader = engine()
    rows = roll_out(reader, prompts(), watch, CONFIG, PLAN, seed=0)
    assert [r.sample_id for r in rows] == ["s0", "s1", "s2"]
    for row in rows:
        own = [r for r in judged if r.sample.id == row.sample_id]
        # A prefix that holds everything said is that rollout's own: one outcome for each time it was said.
        for prefix in row.prefixes:
            assert prefix.n + prefix.unscored > 0 and 0 <= prefix.accepted <= prefix.n
            assert 1 <= prefix.step <= len(prefix.ids)
        texts = [r.text for r in own]
        whole = [p for p in row.prefixes if reader.decode(p.ids) in texts]
        assert {reader.decode(p.ids) for p in whole} == set(texts)
        assert any(reader.decode(p.ids).endswith("</think> 12") for p in row.prefixes), "a proposed ending was tried"


def test_unscored_is_neither_accepted_nor_counted():
    rows = roll_out(engine(), prompts(1), lambda rollouts: [Judgement(None)] * len(rollouts), CONFIG, PLAN, seed=0)
    assert all(p.n == 0 and p.accepted == 0 and p.unscored > 0 for p in rows[0].prefixes)
    with pytest.raises(SafeladderError, match="nothing to train"):
        examples(engine(), prompts(1), rows, PRINCIPLES)


def test_a_killed_run_goes_on_where_it_was_and_ends_the_same(tmp_path):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    samples = prompts(5)
    say = lambda _: None  # noqa: E731
    expected = roll_out_all(engine(), samples, even, CONFIG, PLAN, whole, seed=0, say=say)

    def dies(rollouts):
        if any(r.sample.id == "s2" for r in rollouts):
            raise KeyboardInterrupt
        return even(rollouts)

    with pytest.raises(KeyboardInterrupt):
        roll_out_all(engine(), samples, dies, CONFIG, PLAN, cut, seed=0, say=say)
    assert [r.sample_id for r in read_outcomes(cut)] == ["s0", "s1"]
    with open(cut, "ab") as file:
        file.write(b'{"sample_id": "s2", "prin')  # the kill hit a line half written
    judged = []

    def watch(rollouts):
        judged.extend(r.sample.id for r in rollouts)
        return even(rollouts)

    found = roll_out_all(engine(), samples, watch, CONFIG, PLAN, cut, seed=0, say=say)
    assert found == expected and cut.read_bytes() == whole.read_bytes()
    assert set(judged) == {"s2", "s3", "s4"}, "nothing is rolled out twice"


def test_rollouts_of_other_prompts_are_not_continued(tmp_path):
    file = tmp_path / "r.jsonl"
    row = PromptOutcomes(sample_id="other", principle="safety", label="safety", prefixes=())
    file.write_text(json.dumps(row.as_json()) + "\n")
    with pytest.raises(SafeladderError, match="other prompts"):
        roll_out_all(engine(), prompts(), even, CONFIG, PLAN, file, seed=0, say=lambda _: None)
    file.write_text("no json\n")
    with pytest.raises(SafeladderError, match="line 1"):
        list(read_outcomes(file))


def test_outcomes_survive_their_file():
    prefix = Outcomes(ids=(1, 2, 3), step=2, accepted=1, n=4, unscored=1)
    row = PromptOutcomes(sample_id="s", principle="value", label="value", prefixes=(prefix,))
    assert PromptOutcomes.of_json(json.loads(json.dumps(row.as_json()))) == row
    assert prefix.value == 0.25


def test_examples_describe_prompt_step_and_last_token():
    reader, sample = engine(), ask("s", "how many red circles?")
    row = PromptOutcomes(
        sample_id="s",
        principle="value",
        label="value",
        prefixes=(
            Outcomes(ids=(7, 8, 9), step=2, accepted=1, n=2),
            Outcomes(ids=(7,), step=1, accepted=0, n=0, unscored=3),
        ),
    )
    data = examples(reader, [sample], [row], PRINCIPLES)
    prompt = reader.prompt_ids(sample)
    first, step = reader.passes(
        [GenerationRequest(sample=sample, prompt_ids=ids) for ids in (prompt, (*prompt, 7, 8, 9))], [1, 2]
    )
    expected = torch.cat((first.states[-1], (step.states[0] + step.states[1]) / 2, step.states[1]))
    assert torch.allclose(data.described, expected.unsqueeze(0), atol=1e-4)
    assert (data.column.tolist(), data.accepted.tolist(), data.n.tolist(), data.unscored) == ([1], [1.0], [2.0], 3)


class Says:
    name, principle = "says", "safety"

    def score(self, rollouts):
        return [Score(value=1.0, label="safe with warning")] * len(rollouts)


def test_verdicts_go_by_the_samples_source_and_failures_are_unscored():
    from dataclasses import replace

    from safeladder.types import Response, Rollout
    from safeladder.verifiers import RewardRecipe, Router

    recipe = RewardRecipe(name="t", rows={"general": {"says": 1.0, "format": 0.1}})
    judge = verdicts_of({"world": Router({}, recipe), "rules": Router({"says": Says()}, recipe)})
    own = ask("a", "?")
    world = replace(own, id="w", source="world")
    failed = Rollout.of_text(own, "", None, StopReason.ERROR)
    rows = [Rollout.of_text(s, "x", Response(answer="x")) for s in (own, world)]
    # The world's router misses its verifier: unscored, never a pass; so is a failed generation.
    assert judge([*rows, failed]) == [Judgement(True), Judgement(None), Judgement(None)]


def synthetic(n: int = 240, seed: int = 0) -> Examples:
    """Prompts of two principles told apart by the first coordinate; values by the sign of another of the step's mean,
    which is not the same for both."""
    g = torch.Generator().manual_seed(seed)
    column = torch.arange(n) % 2
    described = torch.randn(n, 12, generator=g)
    described[:, 0] = 4.0 * column - 2.0
    told = torch.where(column == 0, described[:, 4], described[:, 5]) > 0
    return Examples(
        described, column, told.float() * 2, torch.full((n,), 2.0), tuple(f"p{i // 6}" for i in range(n)),
        tuple("safety" if c == 0 else "value" for c in column.tolist()), 5,
    )  # fmt: skip


def test_heads_learn_their_own_principle_and_the_router_tells_them_apart():
    heads = train_heads(synthetic(), ("safety", "value"), seed=0, epochs=30, batch=32)
    report = measure(heads, synthetic(seed=1))
    for row in report["by_principle"].values():
        assert row["auc"] > 0.9 and row["within"] > 0.9 and row["brier"] < 0.12 < row["brier_of_mean"]
        assert row["routed"] == 1.0 and row["outcomes"] == 240
    assert set(report["by_label"]) == {"safety", "value"} and report["unscored"] == 5


def test_the_same_seed_trains_the_same_heads():
    a, b, c = (train_heads(synthetic(), ("safety", "value"), seed=s, epochs=2) for s in (0, 0, 1))
    same = [torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)]
    assert all(same)
    assert not torch.equal(a.state_dict()["router.0.weight"], c.state_dict()["router.0.weight"])


def test_auc_counts_outcomes_and_halves_ties():
    # Values .9 (2 of 2 accepted), .5 (1 of 2), .1 (0 of 1): 3 positives, 2 negatives, 6 pairs.
    # .9 beats both negatives twice: 4; .5 ties with its own: 0.5, and beats .1: 1. (4 + 1.5) / 6
    values, good, n = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([2.0, 1.0, 0.0]), torch.tensor([2.0, 2.0, 1.0])
    assert auc(values, good, n) == pytest.approx(5.5 / 6)
    assert auc(values, n, n) is None and auc(values, torch.zeros(3), n) is None


def test_measures_by_hand():
    class Fixed(torch.nn.Module):
        principles = ("safety", "value")

        def forward(self, described):
            return torch.logit(described[:, :2]), described[:, 2:]

    described = torch.tensor([[0.8, 0.5, 1.0, 0.0], [0.4, 0.5, 1.0, 0.0], [0.6, 0.5, 0.0, 1.0]])
    data = Examples(
        described, torch.tensor([0, 0, 0]), torch.tensor([1.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 2.0]),
        ("p", "p", "q"), ("safety",) * 3, 0,
    )  # fmt: skip
    row = measure(Fixed(), data)["by_principle"]["safety"]  # pyright: ignore[reportArgumentType]
    # Outcomes: .8 yes, .4 no, .6 yes, .6 no. Brier (.04 + .16 + .16 + .36) / 4; two of four accepted.
    assert row["brier"] == pytest.approx(0.18) and row["accepted"] == 0.5 and row["brier_of_mean"] == 0.25
    # Pairs (yes, no): .8>.4, .8>.6, .6>.4, .6=.6 -> 3.5 of 4. Within p 1, within q a tie: 0.75.
    assert row["auc"] == pytest.approx(0.875) and row["within"] == pytest.approx(0.75)
    assert row["routed"] == 0.5 and (row["prompts"], row["prefixes"], row["outcomes"]) == (2, 3, 4)


def test_sampling_params_are_those_of_the_plan():
    asked = []
    reader = engine()
    original = reader.generate

    def watch(requests, params, *, seed):
        asked.append((len(requests), params))
        return original(requests, params, seed=seed)

    reader.generate = watch
    roll_out(reader, prompts(2), even, CONFIG, PLAN, seed=0)
    assert asked[0] == (2, SamplingParams(max_new_tokens=12, n=3))
    assert asked[1][1] == SamplingParams(max_new_tokens=12, n=2)
