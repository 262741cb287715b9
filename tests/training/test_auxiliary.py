"""Terms beside the supervised loss: where a confidence stands, and the tokenised Brier score of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rollout.tiny_policies import policy
from safeladder.config import Supervised
from safeladder.models.policy import Policy
from safeladder.models.tokenizer import train_tokenizer
from safeladder.search.trace import encode_episode
from safeladder.training.auxiliary import level_place, level_tokens, stated_confidence
from safeladder.training.batching import collate
from safeladder.training.parallel import Parallel, Replicated
from safeladder.training.sft import Demonstration, Demonstrations, train_sft
from safeladder.types import Observation, SafeladderError, Sample
from search.tokens import single, spelled
from training.tiny_runs import ask, run_in

TURN = "<think> 3 of 4</think><confidence> {k}</confidence><answer> 34</answer>"


def test_a_level_is_told_from_the_others_by_one_token():
    tokenizer = train_tokenizer([" 0 1 2 3 4 5 6 7 8 9 who is of 34"] * 40, vocab_size=300, family="llama")
    levels = level_tokens(tokenizer)
    assert [tokenizer.decode([token]) for token in levels[:10]] == [f" {k}" for k in range(10)]
    assert levels[10] is None, "10 is two digits, two tokens"
    for k in (0, 7):
        text = TURN.format(k=k)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids[level_place(tokenizer, text)] == levels[k], "not the digits of the thought or the answer"
    with pytest.raises(ValueError, match="no confidence"):
        level_place(tokenizer, "<search> 3</search>")


@pytest.mark.parametrize("tokenizer", [single(), spelled()], ids=["rare-zero", "merged-edges"])
def test_levels_of_several_tokens_have_no_tokenised_score(tokenizer):
    with pytest.raises(SafeladderError, match="brier_weight: this tokenizer writes a confidence with several tokens"):
        level_tokens(tokenizer)


def told(learned: Policy, sample: Sample, *, k: int = 7, correct: bool = True) -> Demonstration:
    """A search, an observation that says a confidence as well, and an answer."""
    tokenizer = learned.tokenizer
    heard = Observation(
        token_ids=tuple(tokenizer("<confidence> 2</confidence>", add_special_tokens=False)["input_ids"])
    )
    episode = ("<search> x</search>", heard, TURN.format(k=k))
    ids, mask = encode_episode(tokenizer, episode)
    before, _ = encode_episode(tokenizer, episode[:-1])
    stands = len(before) - 1 + level_place(tokenizer, episode[-1])
    return Demonstration(token_ids=ids, mask=mask, stated=(stands, correct))


@torch.no_grad()
def of_level_logits(learned: Policy, sample: Sample, demonstration: Demonstration) -> torch.Tensor:
    """Probabilities of the ten levels at the final confidence, by a plain forward pass of the whole text."""
    assert demonstration.stated is not None
    prompt = learned.prompt(sample).ids
    ids = torch.tensor([[*prompt, *demonstration.token_ids]])
    logits = learned.model(input_ids=ids).logits[0, len(prompt) + demonstration.stated[0] - 1]
    tokens = [token for token in level_tokens(learned.tokenizer) if token is not None]
    return logits[tokens].softmax(-1)


def test_the_brier_term_is_that_of_the_written_levels():
    """weight / demonstrations · Σ_k p_k (y - k/10)², against a plain forward pass, in any order of the rows."""
    learned = policy("llama")
    samples = [ask("a", "how many?"), ask("b", "what colour is the square? the square is blue"), ask("c", "none")]
    facts = {"a": told(learned, samples[0], correct=True), "b": told(learned, samples[1], k=2, correct=False)}
    none = Demonstration(token_ids=(5, 6), mask=(1, 1))
    data = Demonstrations(learned, lambda sample: facts.get(sample.id, none), samples)
    term = stated_confidence(learned, 2.0, data)
    expected = 0.0
    for sample in samples[:2]:
        p = of_level_logits(learned, sample, facts[sample.id])
        distances = (float(facts[sample.id].stated[1]) - torch.arange(10) / 10) ** 2  # type: ignore[index]
        expected += float((p * distances).sum())
    for order in ((0, 1, 2), (2, 1, 0)):
        micro = collate([data.row(i) for i in order], pad_id=learned.pad_token_id)
        found = term(learned(micro.batch), micro, 3.0)
        assert float(found.loss) == pytest.approx(2.0 * expected / 3, rel=1e-4)
        assert found.metrics["brier"] == pytest.approx(expected / 3, rel=1e-4)
    alone = collate([data.row(2)], pad_id=learned.pad_token_id)
    assert float(term(learned(alone.batch), alone, 3.0).loss) == 0.0


@pytest.mark.parametrize("correct", [True, False])
def test_training_moves_confidence_to_what_is_true(tmp_path: Path, correct: bool):
    learned = policy("llama")
    sample = ask("a", "how many?")
    fact = told(learned, sample, k=5, correct=correct)
    data = Demonstrations(learned, lambda _: fact, [sample] * 4)
    before = of_level_logits(learned, sample, fact) @ torch.arange(10.0)
    settings = Supervised.model_validate(
        {"steps": 6, "batch_size": 4, "optimizer": {"learning_rate": 0.01}, "checkpoint_every": 100}
    )
    term = stated_confidence(learned, 100.0, data)
    train_sft(learned, Replicated(learned, Parallel()), settings, data, run_in(tmp_path, "cold"), auxiliary=term)
    after = of_level_logits(learned, sample, fact) @ torch.arange(10.0)
    assert (after > before + 0.5) if correct else (after < before - 0.5)


def test_what_others_say_is_not_trained_on(tmp_path: Path):
    """An episode whose observation is another one gives the same step."""
    found: list[Any] = []
    for word in ("4", "5"):
        learned = policy("llama")
        heard = Observation(token_ids=tuple(learned.tokenizer(word, add_special_tokens=False)["input_ids"]))
        # The observation is last: nothing of the policy's own follows it.
        ids, mask = encode_episode(learned.tokenizer, ("<search> x</search>", heard))
        demonstration = Demonstration(token_ids=ids[:-1], mask=mask[:-1])
        data = Demonstrations(learned, lambda _, d=demonstration: d, [ask("a", "how many?")] * 2)
        settings = Supervised.model_validate({"steps": 1, "batch_size": 2, "optimizer": {"learning_rate": 0.01}})
        (tmp_path / word).mkdir()
        train_sft(learned, Replicated(learned, Parallel()), settings, data, run_in(tmp_path / word, "cold"))
        found.append(torch.cat([p.detach().flatten() for p in learned.parameters()]))
    assert torch.equal(found[0], found[1])
