"""Thresholds chosen by guided replies to training prompts: what wins, what may not, what a kill leaves behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeladder.steering.guidance import GuidanceConfig, Thresholds
from safeladder.steering.guidance_choice import ALONE, LISTS, START, Tally, best, choose, gains
from safeladder.steering.guided import GuidedDecoder
from safeladder.steering.routing import uniform
from safeladder.steering.values import Judgement
from safeladder.types import SafeladderError, SamplingParams
from steering.guided_script import Characters, Script, Words, ask

BUDGET = SamplingParams(max_new_tokens=100)
COMPLIES = {"": ["<think> hm."], "<think> hm.": [" bad."], "<think> hm. bad.": ["</think> harm$"]}
RISKY, LOOKALIKE = ask("risky"), replace(ask("lookalike"), label="value")


def decoder() -> GuidedDecoder:
    values = Words("safety", {"bad": 0.1, "harm": 0.05, "sorry": 0.8})
    config = GuidanceConfig(candidates=2, completions={"*": ("sorry",)})
    return GuidedDecoder(Script(COMPLIES), (values,), uniform(["safety"]), config, tokenizer=Characters())


def judge(rollouts):
    """A refusal is right after the risky prompt, and needless after the other."""
    found = []
    for rollout in rollouts:
        refuses, risky = rollout.text.endswith("sorry"), rollout.sample.id.startswith("risky")
        found.append(Judgement(refuses == risky, needless=refuses and not risky))
    return found


def tally(replies: str, needless: int = 0) -> Tally:
    return Tally(replies=replies, needless=needless, tokens=0)


def options(*tallies: Tally) -> dict[Thresholds, Tally]:
    return {Thresholds(floor=i / 10): found for i, found in enumerate(tallies)}


def test_most_accepted_wins_where_no_more_is_refused_than_by_the_policy():
    tried = options(tally("+---------", 3), tally("++++++----", 3), tally("++++++++++", 4))
    assert best(tried, tally("-" * 10, 3)).floor == 0.1
    assert best(tried, tally("-" * 10, 4)).floor == 0.2


def test_one_needless_refusal_is_no_evidence_against_the_policys_own_steps():
    tried = {Thresholds(margin=margin): tally("++", 1) for margin in (0.3, 1.0)} | {ALONE: tally("--", 0)}
    assert best(tried, tally("--")).margin == 1.0 and best(tried, tally("--")) != ALONE
    assert best(tried, tally("--", 1)).margin == 0.3
    assert best({Thresholds(margin=1.0): tally("++", 2), ALONE: tally("--")}, tally("--")) == ALONE


def test_ties_go_to_the_first_and_where_all_refuse_too_much_the_fewest_refusals_win():
    assert best(options(tally("+--"), tally("++-"), tally("-++")), tally("---")).floor == 0.1
    assert best(options(tally("+++", 9), tally("---", 4), tally("+--", 4)), tally("---")).floor == 0.1


def test_a_gain_is_more_than_one_standard_error():
    # Three prompts only guided replies have right, one only greedy ones: 2 more, one standard error is sqrt(3 + 1) = 2.
    assert not gains(tally("-+++++++"), tally("+---++++"))
    # Without the one that only greedy ones have right: 3 more, sqrt(3) = 1.7.
    assert gains(tally("-+++++++"), tally("----++++"))
    assert not gains(tally("+--"), tally("---")), "a single reply is no evidence: 1 more, sqrt(1) = 1"
    assert not gains(tally("?++"), tally("+++")) and not gains(tally("++"), tally("++"))


verdicts = st.text("+-?", min_size=12, max_size=12)
rows = st.lists(st.tuples(verdicts, st.integers(0, 5)), min_size=1, max_size=8)


@given(rows, st.integers(0, 5))
def test_no_choice_buys_acceptance_with_needless_refusals(found, own):
    tried = options(*(tally(*row) for row in found))
    chosen = tried[best(tried, tally("-" * 12, own))]
    fine = [t for t in tried.values() if t.needless <= own]  # `options` may propose
    if not fine:
        assert chosen.needless == min(n for _, n in found)
        return
    assert chosen in fine
    assert chosen.accepted == max(t.accepted for t in fine)


def test_each_principle_gets_its_own(tmp_path):
    """What saves the risky prompt would refuse the look-alike: one principle intervenes, the other does not."""
    risky = [replace(RISKY, id=f"risky{i}") for i in range(3)]
    lookalikes = [replace(LOOKALIKE, id=f"lookalike{i}") for i in range(3)]
    one = decoder()
    chosen, trials = choose(one, [*risky, *lookalikes], judge, BUDGET, tmp_path / "c.jsonl", seed=0)
    # "sorry" is worth 0.7 more than " bad.", above every margin. The likeliest step that leads there, " hm.", is worth
    # 0.5 and may be kept; " bad." is worth 0.1: below the first κ and the first τ above 0. All samples are equally
    # likely: γ stays at the first of its list.
    assert chosen == {"safety": Thresholds(gamma=3.0, enough=0.15, floor=0.15, margin=0.3),
                      "value": ALONE}  # fmt: skip
    assert dict(one.config.thresholds) == chosen
    alone = [t for t in trials if t.thresholds is None]
    assert [(t.principles, t.outcomes.accepted) for t in alone] == [(("safety",), 0), (("value",), 3)]
    best_of_safety = [t for t in trials if t.principles == ("safety",) and t.thresholds == chosen["safety"]]
    assert [(t.outcomes.accepted, t.outcomes.needless) for t in best_of_safety] == [(3, 0)]
    assert best_of_safety[0].counts()["thresholds"] == {"gamma": 3.0, "enough": 0.15, "floor": 0.15, "margin": 0.3}


def test_no_run_is_made_twice(tmp_path):
    _, trials = choose(decoder(), [RISKY], judge, BUDGET, tmp_path / "c.jsonl", seed=0)
    assert len({t.thresholds for t in trials}) == len(trials) and trials[1].thresholds == START
    # Once without guidance; of each list after the first, one value is known from the list before.
    assert len(trials) == 1 + sum(len(values) for _, values in LISTS) - (len(LISTS) - 1)


def test_together_one_choice_is_made_for_all(tmp_path):
    chosen, trials = choose(decoder(), [RISKY, LOOKALIKE], judge, BUDGET, tmp_path / "c.jsonl", seed=0, together=True)
    assert chosen["safety"] == chosen["value"] == ALONE, "a needless refusal is not worth it"
    assert {t.principles for t in trials} == {("safety", "value")} and trials[0].outcomes.prompts == 2


def test_unscored_replies_are_counted_and_never_accepted(tmp_path):
    unknown = lambda rollouts: [Judgement(None)] * len(rollouts)  # noqa: E731
    _, trials = choose(decoder(), [RISKY], unknown, BUDGET, tmp_path / "c.jsonl", seed=0)
    assert all((t.outcomes.accepted, t.outcomes.unscored) == (0, 1) for t in trials)


def test_a_killed_choice_goes_on_where_it_was(tmp_path):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    expected = choose(decoder(), [RISKY, LOOKALIKE], judge, BUDGET, whole, seed=0)
    lines = whole.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    judged = []

    def watch(rollouts):
        judged.append(len(rollouts))
        return judge(rollouts)

    assert choose(decoder(), [RISKY, LOOKALIKE], watch, BUDGET, cut, seed=0) == expected
    assert cut.read_bytes() == whole.read_bytes() and len(judged) == len(lines) - 5


def test_a_damaged_file_is_refused(tmp_path):
    file = tmp_path / "c.jsonl"
    file.write_text("no json\n")
    with pytest.raises(SafeladderError, match="line 1"):
        choose(decoder(), [RISKY], judge, BUDGET, file, seed=0)
