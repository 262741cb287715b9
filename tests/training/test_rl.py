"""The reinforcement-learning loop and its pieces: which prompts, which advantages, what is counted,
what alarms.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.algorithms.presets import build
from safeladder.config import RlRung
from safeladder.models.policy import Policy
from safeladder.rollout.collect import collect
from safeladder.rollout.conduct import Conduct
from safeladder.rollout.local import LocalEngine
from safeladder.training import rl
from safeladder.training.batching import Row
from safeladder.training.monitors import CollapseAlarm, Divergence
from safeladder.training.parallel import Parallel, Replicated
from safeladder.types import Observation, Rollout, SafeladderError, SamplingParams, Score
from safeladder.verifiers.recipe import RewardRecipe
from safeladder.verifiers.routing import Router
from training.tiny_runs import AnyText, TokenShare, ask, picture, policy, questions, router, run_in


def rung(**changes: Any) -> RlRung:
    settings: dict[str, Any] = {
        "kind": "rl",
        "stages": {"one": {"steps": 2}},
        "prompts_per_step": 2,
        "group_size": 3,
        "max_new_tokens": 6,
        "optimizer": {"learning_rate": 1e-3},
        "collapse_entropy": 0.0,
    }
    return RlRung.model_validate(settings | changes)


def train(folder: Path, learned: Policy | None = None, *, using: Any = None, judges=None, samples=None, **changes):
    """A tiny run; returns the policy and the lines of metrics.jsonl."""
    learned = learned or policy("qwen2_5_vl")
    settings = rung(**changes)
    algorithm = using or build(settings.algorithm.preset, **settings.algorithm.options)
    reference = None
    if algorithm.needs_reference:
        reference = policy("qwen2_5_vl") if learned.family.name == "qwen2_5_vl" else policy("llama")
    rl.train_rl(
        learned,
        Replicated(learned, Parallel()),
        settings,
        dict.fromkeys(settings.stages, samples or questions(learned.family.name)),
        judges or router(),
        algorithm,
        AnyText(),
        run_in(folder),
        reference=reference,
    )
    return learned, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@given(
    per_step=st.integers(1, 6),
    steps=st.integers(1, 5),
    epochs=st.integers(1, 3),
    extra=st.integers(0, 5),
    seed=st.integers(),
)
@settings(max_examples=50, deadline=None)
def test_every_prompt_once_an_epoch(per_step, steps, epochs, extra, seed):
    """An epoch's steps share no prompt; with nothing left over they cover all; each epoch has its own
    order.
    """
    count = per_step * steps + extra % per_step
    run = run_in(Path("-"), seed=seed)
    settings = rung(prompts_per_step=per_step)
    for epoch in range(epochs):
        picked = [
            i
            for occurrence in range(epoch * steps, (epoch + 1) * steps)
            for i in rl._prompts_of_step(count, occurrence, settings, run, "one")
        ]
        assert len(picked) == per_step * steps
        assert max(Counter(picked).values()) == 1
        assert set(picked) <= set(range(count))
    again = rl._prompts_of_step(count, steps, settings, run, "one")
    assert again == rl._prompts_of_step(count, steps, settings, run_in(Path("-"), seed=seed), "one")


def test_epochs_stages_and_seeds_differ_in_order():
    def order(occurrence: int, stage: str = "one", seed: int = 0) -> list[int]:
        return rl._prompts_of_step(40, occurrence, rung(prompts_per_step=40), run_in(Path("-"), seed=seed), stage)

    assert len({tuple(o) for o in (order(0), order(1), order(0, "two"), order(0, seed=1))}) == 4


def judged(
    rewards: Sequence[float | None], size: int, *, labels: Sequence[str] = ()
) -> tuple[LocalEngine, list[Rollout]]:
    """Rollouts of a real engine with made-up rewards (None = unscored)."""
    engine = LocalEngine(policy("llama"))
    count = len(rewards) // size
    samples = [ask(f"p{k}", "how many red circles?" + " circles" * k) for k in range(count)]
    if labels:
        samples = [replace(s, label=label) for s, label in zip(samples, labels, strict=True)]
    groups = collect(engine, samples, SamplingParams(max_new_tokens=5, n=size), AnyText(), seed=0)
    return engine, [
        r.judged({"even": Score(value=reward) if reward is not None else Score.unscored("-")}, reward)
        for r, reward in zip([r for group in groups for r in group], rewards, strict=True)
    ]


def advantages_of(rows: Sequence[Row]) -> list[list[float]]:
    return [[r.advantage for r in row.responses] for row in rows]


def test_cpgd_advantages_by_hand_without_the_unscored():
    """Group one: 1, 0, 0.5 and one unscored; group two: all equal. (r - mean) / unbiased std."""
    engine, rollouts = judged([1.0, None, 0.0, 0.5, 0.25, 0.25, 0.25, 0.25], 4)
    rows, signal = rl._training_rows(
        engine, rollouts, build("cpgd"), router(), rung(group_size=4), 0, run_in(Path("-"))
    )
    assert advantages_of(rows)[0] == pytest.approx([1.0, -1.0, 0.0])
    assert advantages_of(rows)[1] == pytest.approx([0.0] * 4)
    assert signal == pytest.approx({"unscored_share": 1 / 8, "degenerate_share": 4 / 7, "advantage_abs": 2 / 7})
    for row, members in zip(rows, ([0, 2, 3], [4, 5, 6, 7]), strict=True):
        assert row.prompt.ids == rollouts[members[0]].prompt_ids
        for response, i in zip(row.responses, members, strict=True):
            assert tuple(response.token_ids) == rollouts[i].token_ids
            assert tuple(response.old_logprobs or ()) == rollouts[i].logprobs
            assert tuple(response.mask) == rollouts[i].action_mask


def test_equal_weighting_by_hand():
    engine, rollouts = judged([1.0, 0.0, 0.0, 0.0], 4)
    algorithm = build("cpgd", advantage_options={"weighting": "equal"})
    rows, _ = rl._training_rows(engine, rollouts, algorithm, router(), rung(group_size=4), 0, run_in(Path("-")))
    assert advantages_of(rows) == [pytest.approx([0.75, -0.25, -0.25, -0.25])]


def test_nothing_scored_is_an_error():
    engine, rollouts = judged([None, None], 2)
    with pytest.raises(SafeladderError, match="no rollout of this step could be scored"):
        rl._training_rows(engine, rollouts, build("cpgd"), router(), rung(group_size=2), 0, run_in(Path("-")))


def test_K11_a_group_is_group_size_rollouts_of_one_prompt():
    engine, rollouts = judged([1.0, 0.0, 1.0, 0.0], 2)
    args = (build("cpgd"), router(), rung(group_size=2), 0, run_in(Path("-")))
    rows, _ = rl._training_rows(engine, rollouts, *args)
    assert [len(row.responses) for row in rows] == [2, 2]
    for wrong in (rollouts[:3], [rollouts[0], rollouts[2], rollouts[1], rollouts[3]]):
        with pytest.raises(ValueError, match="no group of 2 rollouts of one prompt"):
            rl._training_rows(engine, wrong, *args)


def test_B08_groups_of_equal_rewards_are_counted_and_dropped_where_asked():
    """Equal at any value, not only at 0 and 1."""
    rewards = [0.3, 0.3, 0.7, 0.7, 0.0, 0.4]
    engine, rollouts = judged(rewards, 2)
    for name, kept in (("grpo", 3), ("dapo", 1)):
        options = {"reference_kl": None} if name == "grpo" else {"overlong": None}
        rows, signal = rl._training_rows(
            engine, rollouts, build(name, **options), router(), rung(group_size=2), 0, run_in(Path("-"))
        )
        assert len(rows) == kept
        assert signal["degenerate_share"] == pytest.approx(2 / 3)


@dataclass
class Constant:
    name: str = "constant"
    principle: str = "helpfulness"
    value: float = 0.7
    seen: list[int] = field(default_factory=list)

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        self.seen.append(len(rollouts))
        return [Score(value=self.value) for _ in rollouts]


def test_B08_a_step_without_any_signal_goes_on(tmp_path):
    """Every group is dropped: no update, but the run counts it and continues."""
    learned = policy("llama")
    before = {k: v.clone() for k, v in learned.state_dict().items()}
    judge = Constant()
    same = Router({"constant": judge}, RewardRecipe(name="t", rows={"general": {"constant": 1.0}}))
    algorithm = build("dapo", overlong=None)
    _, lines = train(tmp_path, learned, using=algorithm, judges=same)
    assert [line["degenerate_share"] for line in lines] == [1.0, 1.0]
    assert [line["counted_tokens"] for line in lines] == [0, 0]
    assert all(torch.equal(before[k], v) for k, v in learned.state_dict().items())
    assert judge.seen == [6, 6]


def test_gdpo_normalises_every_reward_by_itself_with_the_rows_own_weights():
    """Two labels share a verifier at different weights; by hand: A = Σ w · (r - mean) / std."""
    engine, rollouts = judged([0.0] * 4, 2, labels=["x", "y"])
    values = [{"a": 1.0, "b": 0.2}, {"a": 0.0, "b": 0.3}, {"a": 0.0}, {"a": 0.5}]
    rollouts = [
        r.judged({name: Score(value=v) for name, v in row.items()}, 1.0)
        for r, row in zip(rollouts, values, strict=True)
    ]
    table = RewardRecipe(name="t", rows={"x": {"a": 1.0, "b": 3.0}, "y": {"a": 5.0}})
    settings = rung(group_size=2, rewards={"combine": "gdpo"}, algorithm={"preset": "gdpo"})
    rows, signal = rl._training_rows(
        engine, rollouts, build("gdpo", reference_kl=None), Router({}, table), settings, 0, run_in(Path("-"))
    )
    unit = 2**-0.5  # (1 - 0.5) / unbiased std of two values
    assert advantages_of(rows)[0] == pytest.approx([unit - 3 * unit, -unit + 3 * unit], rel=1e-4)
    assert advantages_of(rows)[1] == pytest.approx([-5 * unit, 5 * unit], rel=1e-4)
    assert signal["degenerate_share"] == 0.0


def test_gdpo_columns_agree_over_processes():
    """A process that saw other labels has other components: the matrix is made of all of them."""

    class Two(Parallel):
        def __init__(self, rank: int, parts: list[Any]) -> None:
            super().__init__()
            self.rank, self.parts = rank, parts

        def gather(self, item: Any) -> list[Any]:
            self.parts[self.rank] = item
            return self.parts if all(p is not None for p in self.parts) else [item]

    table = RewardRecipe(name="t", rows={"x": {"a": 1.0, "b": 3.0}, "y": {"c": 2.0}})
    settings = rung(group_size=2, rewards={"combine": "gdpo"}, algorithm={"preset": "gdpo"})
    found = {}
    parts: list[Any] = [None, None]
    for _ in range(2):  # the second pass sees both parts
        for rank, label, scores in (
            (0, "x", [{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 0.1}]),
            (1, "y", [{"c": 0.1}, {"c": 0.4}]),
        ):
            engine, rollouts = judged([0.0, 0.0], 2, labels=[label])
            rollouts = [
                r.judged({n: Score(value=v) for n, v in row.items()}, 1.0)
                for r, row in zip(rollouts, scores, strict=True)
            ]
            rows, _ = rl._training_rows(
                engine, rollouts, build("gdpo", reference_kl=None), Router({}, table), settings, rank,
                run_in(Path("-"), parallel=Two(rank, parts)),
            )  # fmt: skip
            found[rank] = advantages_of(rows)[0]
    unit = 2**-0.5
    assert found[0] == pytest.approx([unit - 3 * unit, -unit + 3 * unit], rel=1e-4)
    assert found[1] == pytest.approx([-2 * unit, 2 * unit], rel=1e-4)


def test_gdpo_runs_end_to_end(tmp_path):
    judges = router(even=TokenShare(), third=TokenShare("third", modulus=3))
    _, lines = train(
        tmp_path,
        judges=judges,
        rewards={"combine": "gdpo"},
        algorithm={"preset": "gdpo", "options": {"reference_kl": None}},
    )
    assert len(lines) == 2 and lines[0]["advantage_abs"] > 0
    assert {"reward/even", "reward/third", "reward", "outcome"} <= lines[0].keys()


@pytest.mark.parametrize("name", ["grpo", "cpgd-released", "reinforce++"])
def test_the_reference_kl_is_zero_before_the_first_update(tmp_path, name):
    _, lines = train(tmp_path, algorithm={"preset": name}, optimizer={"learning_rate": 0.01})
    keys = [key for key in lines[0] if key.startswith("reference_kl")]
    assert keys, sorted(lines[0])
    for key in keys:
        assert lines[0][key] == pytest.approx(0.0, abs=1e-6)
    assert any(abs(lines[1][key]) > 1e-6 for key in keys)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl", "llama"])
def test_A07_B02_the_configured_loss_trains_text_and_multimodal_policies(tmp_path, name):
    """The very object the recipe built is called for every micro-batch, with the run's normalisers."""
    algorithm = build("cpgd")
    calls: list[dict[str, Any]] = []

    class Spy:
        preset, needs_reference = algorithm.preset, False
        advantages, kept = staticmethod(algorithm.advantages), staticmethod(algorithm.kept)

        def loss(self, *args: Any, **options: Any):
            calls.append(options)
            return algorithm.loss(*args, **options)

    _, lines = train(tmp_path, policy(name), using=Spy(), stages={"one": {"steps": 1}}, updates_per_batch=2)
    assert len(calls) == 2
    for options in calls:
        assert options["sequences"] == 6
        assert options["normalizer"] == lines[0]["counted_tokens"]


def test_B02_another_loss_gives_another_step(tmp_path):
    found = []
    for preset in ("cpgd", "dr-grpo"):
        folder = tmp_path / preset
        folder.mkdir()
        options = {"max_length": 6} if preset == "dr-grpo" else {}
        learned, _ = train(folder, policy("llama"), algorithm={"preset": preset, "options": options})
        found.append(torch.cat([p.detach().flatten() for p in learned.parameters()]))
    assert not torch.allclose(found[0], found[1], atol=1e-6)


def test_B07_settings_are_not_changed_by_a_run(tmp_path):
    """The second step runs under the settings of the first."""
    settings = rung(optimizer={"learning_rate": 1e-3, "warmup_steps": 1}, updates_per_batch=2)
    algorithm = build("cpgd", length={"alpha": 0.9, "mu": 1.0, "beta": 0.0, "max_length": 6})
    before = (settings.model_dump(), repr(algorithm.preset))
    learned = policy("llama")
    rl.train_rl(
        learned, Replicated(learned, Parallel()), settings, {"one": questions("llama")}, router(), algorithm,
        AnyText(), run_in(tmp_path),
    )  # fmt: skip
    assert (settings.model_dump(), repr(algorithm.preset)) == before


class Doubled:
    """A shaper that doubles every reward and counts its steps."""

    def __init__(self) -> None:
        self.steps = 0

    def shape(self, rollouts, run):
        self.steps += 1
        return [r.judged(r.scores, 2 * r.reward) for r in rollouts], {"steps_seen": float(self.steps)}

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def test_shaped_rewards_are_trained_on_and_the_shaper_is_resumed(tmp_path):
    """A run of two steps and one more is a run of three: the third step's shaper has seen two."""

    def run(steps: int) -> tuple[Policy, list[dict[str, Any]]]:
        learned, settings = policy("llama"), rung(stages={"one": {"steps": steps}}, checkpoint_every=1)
        rl.train_rl(
            learned, Replicated(learned, Parallel()), settings, {"one": questions("llama")}, router(),
            build("reinforce++", reference_kl=None), AnyText(), run_in(tmp_path), shaper=Doubled(),
        )  # fmt: skip
        return learned, [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    run(2)
    _, lines = run(3)
    assert [line["steps_seen"] for line in lines] == [1.0, 2.0, 3.0]
    for line in lines:
        assert line["reward"] == pytest.approx(2 * line["reward/even"])


class OneNote:
    """Answers the first turn and no other."""

    def step(self, sample, episode, tokens):
        return Observation(token_ids=(41, 42)) if len(episode) == 1 else None


def test_searches_and_plain_prompts_share_a_step(tmp_path, monkeypatch):
    """Observations are masked, counted tokens are the policy's own, and both labels are rewarded."""
    seen: list[Rollout] = []
    groups = rl._groups
    monkeypatch.setattr(rl, "_groups", lambda rollouts, *rest: seen.extend(rollouts) or groups(rollouts, *rest))
    learned, settings = policy("llama"), rung(stages={"one": {"steps": 1}})
    samples = [questions("llama")[0], replace(questions("llama")[1], label="search")]
    table = RewardRecipe(name="t", rows={"general": {"even": 1.0}, "search": {"even": 1.0}})
    params = SamplingParams(max_new_tokens=3, n=3, stop=("e", "a", "i", "o", " "))
    how = Conduct(params=params, format=AnyText(), environment=OneNote(), max_turns=2)
    rl.train_rl(
        learned, Replicated(learned, Parallel()), settings, {"one": samples}, Router({"even": TokenShare()}, table),
        build("cpgd"), AnyText(), run_in(tmp_path), conducts={"search": how},
    )  # fmt: skip
    by_label = {label: [r for r in seen if r.sample.label == label] for label in ("general", "search")}
    assert {label: len(found) for label, found in by_label.items()} == {"general": 3, "search": 3}
    assert all(set(r.action_mask) == {1} for r in by_label["general"])
    heard = [r for r in by_label["search"] if r.observations]
    assert heard, "some first turn ended with a stop sequence"
    for r in heard:
        assert [i for i, own in zip(r.token_ids, r.action_mask, strict=True) if not own] == [41, 42]
    (line,) = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert line["counted_tokens"] == sum(r.length for r in seen)
    assert line["logprob_gap"] <= 1e-4, "the learner sees the observations where the engine saw them"


def test_every_step_logs_what_the_alarms_need(tmp_path):
    _, lines = train(tmp_path, samples=[*questions("qwen2_5_vl"), ask("x", picture(9), "how many?")])
    assert [line["step"] for line in lines] == [1, 2]
    needed = {
        "loss", "entropy", "logprob_gap", "grad_norm", "learning_rate", "reward", "reward/even", "outcome",
        "outcome_reward_divergence", "length", "truncated", "malformed", "unscored_share", "degenerate_share",
        "advantage_abs", "skipped_nonfinite", "counted_tokens", "train_tokens", "stage", "seconds",
        "seconds_generate", "seconds_judge", "seconds_train",
    }  # fmt: skip
    assert needed <= lines[0].keys(), needed - lines[0].keys()
    for line in lines:
        assert line["logprob_gap"] <= 1e-4, "engine and learner agree at every step"
        assert 0 < line["entropy"] < 6 and 0 <= line["reward/even"] <= 1
    kept = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert {row["step"] for row in kept} == {1, 2} and all("even" in row["scores"] for row in kept)


def test_an_unfrozen_vision_tower_trains(tmp_path):
    """Features kept by the engine must not cut the tower off its gradient."""
    for frozen in (True, False):
        learned = policy("qwen2_5_vl")
        vision = learned.family.vision_module(learned.model)
        vision.requires_grad_(not frozen)
        before = torch.cat([p.detach().flatten().clone() for p in vision.parameters()])
        folder = tmp_path / str(frozen)
        folder.mkdir()
        train(folder, learned, prompts_per_step=5, stages={"one": {"steps": 1}})
        after = torch.cat([p.detach().flatten() for p in vision.parameters()])
        assert torch.equal(before, after) is frozen


def test_too_few_prompts_is_an_error(tmp_path):
    with pytest.raises(SafeladderError, match="stage one: 5 prompts, one step needs 6"):
        train(tmp_path, prompts_per_step=6)


def test_collapse_stops_the_run_after_patience_steps(tmp_path):
    with pytest.raises(SafeladderError, match=r"rung m3-rl, step 2: entropy below 100\.0 for 2 steps"):
        train(tmp_path, stages={"one": {"steps": 5}}, collapse_entropy=100.0, collapse_patience=2)


def test_collapse_alarm_counts_steps_in_a_row_and_its_count_is_state():
    alarm = CollapseAlarm(0.1, 3)
    for entropy in (0.05, 0.05, 0.2, 0.05, 0.05):
        alarm.update(entropy, "r", 1)
    resumed = CollapseAlarm(0.1, 3)
    resumed.load_state_dict(alarm.state_dict())
    with pytest.raises(SafeladderError, match="collapsed"):
        resumed.update(0.0, "r", 6)


def test_divergence_speaks_only_when_the_reward_rises_and_the_outcome_falls():
    def last(rewards: Sequence[float], outcomes: Sequence[float]) -> float:
        monitor = Divergence(window=4)
        values = [monitor.update(r, o) for r, o in zip(rewards, outcomes, strict=True)]
        assert values[:3] == [0.0] * 3, "silent until the window is full"
        return values[-1]

    assert last([0, 0, 1, 1], [1, 1, 0.5, 0.5]) == pytest.approx(1.5)
    assert last([0, 0, 1, 1], [0, 0, 1, 1]) == 0.0
    assert last([1, 1, 0, 0], [1, 1, 0, 0]) == 0.0
    monitor, resumed = Divergence(window=4), Divergence(window=4)
    for r, o in ((0, 1), (0, 1), (1, 0)):
        monitor.update(r, o)
    resumed.load_state_dict(monitor.state_dict())
    assert resumed.update(1, 0) == monitor.update(1, 0) == pytest.approx(2.0)
