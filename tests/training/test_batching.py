"""Micro-batches: every row once, within the token budget, and the same values however rows are put
together.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.models.policy import Prompt
from safeladder.models.processing import Encoded
from safeladder.training.batching import Row, TrainingResponse, collate, micro_batches, split_rows
from training.tiny_runs import (
    ask,
    assert_close,
    gradient,
    learner_of,
    picture,
    policy,
    preset,
    questions,
    rows,
    sft,
)


def row(prompt: int, *responses: int) -> Row:
    ids = tuple(range(prompt))
    return Row(
        prompt=Prompt(
            ids=ids,
            positions=torch.arange(prompt)[None],
            next_position=prompt,
            encoded=Encoded(prompt_ids=ids),
        ),
        responses=tuple(TrainingResponse(token_ids=range(n), mask=(1,) * n) for n in responses),
    )


@given(
    sizes=st.lists(
        st.tuples(st.integers(1, 30), st.lists(st.integers(1, 9), min_size=1, max_size=3)),
        min_size=1,
        max_size=12,
    ),
    budget=st.integers(1, 120),
)
@settings(max_examples=50, deadline=None)
def test_every_row_once_within_the_budget(sizes, budget):
    given_rows = [row(p, *r) for p, r in sizes]
    micros = list(micro_batches(given_rows, max_tokens=budget, pad_id=0))
    seen = [prompt for m in micros for prompt in m.batch.prompts]
    assert sorted(map(id, seen)) == sorted(id(r.prompt) for r in given_rows)
    for m in micros:
        count, width = m.batch.input_ids.shape
        assert m.tokens == count * width
        assert m.tokens <= budget or count == 1
    assert sum(int(m.mask.sum()) for m in micros) == sum(r.counted for r in given_rows)
    assert sum(m.batch.shape[0] for m in micros) == sum(len(r.responses) for r in given_rows)


def test_predicting_positions_by_hand():
    """Prompt of 2 with responses of 1 and 2 tokens: the first token of each is predicted from the
    prompt's last.
    """
    tokens = TrainingResponse(token_ids=(7, 8), mask=(1, 1), old_logprobs=(-1.0, -2.0), advantage=0.5)
    one = TrainingResponse(token_ids=(9,), mask=(1,), advantage=-0.5)
    made = collate([Row(prompt=row(2, 1).prompt, responses=(one, tokens))], pad_id=99)
    assert made.batch.input_ids.tolist() == [[0, 1, 9, 7, 8]]
    assert made.batch.position_ids.tolist() == [[[0, 1, 2, 2, 3]]]
    assert made.batch.predict.tolist() == [1, 1, 3]
    assert made.batch.targets.tolist() == [9, 7, 8]
    assert (made.batch.row.tolist(), made.batch.column.tolist()) == ([0, 1, 1], [0, 0, 1])
    assert made.mask.tolist() == [[1, 0], [1, 1]]
    assert made.old_logprobs.tolist() == [[0, 0], [-1, -2]]
    assert made.advantages.tolist() == [-0.5, 0.5]
    assert made.batch.layout.shared
    assert made.batch.layout.mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]


def test_a_masked_token_is_context_but_not_a_target():
    """The token after an observation is predicted from the observation's last token."""
    response = TrainingResponse(token_ids=(7, 50, 51, 8), mask=(1, 0, 0, 1))
    made = collate([Row(prompt=row(2, 1).prompt, responses=(response,))], pad_id=99)
    assert not made.batch.layout.shared
    assert made.batch.input_ids.tolist() == [[0, 1, 7, 50, 51, 8]]
    assert (made.batch.predict.tolist(), made.batch.targets.tolist()) == ([1, 4], [7, 8])
    assert made.mask.tolist() == [[1, 0, 0, 1]]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl", "llama"])
def test_sharing_a_prefix_changes_no_value(name):
    """Log-probabilities, entropies and gradients equal those of separate rows to 1e-5, images and
    video included.
    """
    learned = policy(name)
    made = rows(learned, questions(name))
    loss = preset("cpgd")
    found = {}
    for share in (True, False):
        learner = learner_of(learned, share=share, rate=1e-30)
        metrics = learner.step(made, loss)
        with torch.no_grad():
            values = {}
            for micro in micro_batches(split_rows(made, share_prefix=share), max_tokens=10_000, pad_id=0):
                outputs = learned(micro.batch)
                for k in range(micro.batch.shape[0]):
                    keep = micro.mask[k].bool()
                    values[float(micro.advantages[k])] = (outputs.logprobs[k][keep], outputs.entropy[k][keep])
        found[share] = (gradient(learned), metrics, values)
    assert_close(found[True][0], found[False][0])
    assert found[True][1]["loss"] == pytest.approx(found[False][1]["loss"], abs=1e-5)
    assert found[True][1]["train_tokens"] < found[False][1]["train_tokens"]
    assert len(found[True][2]) == 3 * len(made)
    for key, (logprobs, entropy) in found[True][2].items():
        assert torch.allclose(logprobs, found[False][2][key][0], atol=2e-5)
        assert torch.allclose(entropy, found[False][2][key][1], atol=2e-5)


def test_positions_go_on_after_an_image():
    """Multimodal rotary positions count an image by its longer side, not by its tokens; a response
    follows that.
    """
    learned = policy("qwen2_5_vl")
    made = rows(learned, questions("qwen2_5_vl"))
    for r in made:
        batch = collate([r], pad_id=0).batch
        start = len(r.prompt.ids)
        following = int(r.prompt.positions.max()) + 1
        assert r.prompt.next_position == following
        if r.prompt.has_visuals:
            assert following < start
        for response in r.responses:
            end = start + len(response.token_ids)
            expected = torch.arange(following, following + end - start).expand(3, -1)
            assert torch.equal(batch.position_ids[:, 0, start:end], expected)
            start = end


def test_training_on_an_image_depends_on_the_image():
    """Pixels reach the trained rows: another picture gives another loss."""
    learned = policy("qwen2_5_vl")
    found = []
    for seed in (1, 2):
        made = rows(learned, [ask("i", picture(seed), "how many red circles?")])
        found.append(learner_of(learned, rate=1e-30).step(made, sft)["loss"])
    assert abs(found[0] - found[1]) > 1e-3
