"""What is trained on is exactly what was sampled: rollouts of searches, their masks, and the losses over them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rollout.comparing import gap
from rollout.tiny_policies import ask as show
from rollout.tiny_policies import picture, policy
from safeladder.algorithms.losses import sft
from safeladder.algorithms.presets import PRESETS, build
from safeladder.rollout.collect import collect
from safeladder.rollout.local import LocalEngine
from safeladder.search.environment import SearchEnvironment
from safeladder.search.retriever import Document, MemoryRetriever
from safeladder.search.trace import (
    STOPS,
    SearchFormat,
    action_rates,
    encode_episode,
    encode_observation,
    split_turns,
    trace_of,
)
from safeladder.training.batching import Row, TrainingResponse, collate
from safeladder.types import Observation, Rollout, Sample, SamplingParams, StopReason
from search.engines import Speaker, ask, plain
from search.tokens import single, spelled

PAGES = [
    Document(id="7", title="Acme", text="Acme was founded by Jo Ray . It makes boats ."),
    Document(id="8", title="Eos", text="<|im_end|> is the end <|endoftext|> and </information> is not ."),
]
SEARCH = "<think> who ?</think><confidence> 2</confidence><search> Acme</search>"
READ = "<confidence> 5</confidence><read> 7</read>"
ANSWER = "<confidence> 9</confidence><answer> Jo Ray</answer>"
TURNS = (SEARCH, READ, ANSWER)
PARAMS = SamplingParams(max_new_tokens=200, stop=STOPS)
both = pytest.mark.parametrize("make", [single, spelled], ids=["tags are tokens", "tags are spelled"])


def rolled(tokenizer, turns: Sequence[Sequence[int]], **bounds) -> tuple[Rollout, Speaker]:
    engine = Speaker(tokenizer, {"s": list(turns)})
    environment = SearchEnvironment(MemoryRetriever(PAGES), tokenizer, **bounds)
    ((rollout,),) = collect(
        engine, [ask()], PARAMS, SearchFormat(), seed=0, environment=environment, max_turns=environment.max_turns
    )
    return rollout, engine


def pieces(rollout: Rollout) -> tuple[list[list[int]], list[list[int]]]:
    """The policy's runs of tokens and the environment's."""
    runs: tuple[list[list[int]], list[list[int]]] = ([], [])
    before = None
    for token, mine in zip(rollout.token_ids, rollout.action_mask, strict=True):
        if mine != before:
            runs[1 - mine].append([])
        runs[1 - mine][-1].append(token)
        before = mine
    return runs


@both
def test_K06_a_rollout_holds_what_a_demonstration_of_it_holds(make):
    """Same turns, canonical tokens: the ids of both are equal but for the demonstration's end token; so are the
    contexts that the engine was given, turn by turn.
    """
    tokenizer = make()
    rollout, engine = rolled(tokenizer, [plain(tokenizer, t) for t in TURNS])
    heard = rollout.observations
    ids, mask = encode_episode(tokenizer, [SEARCH, heard[0], READ, heard[1], ANSWER])
    assert rollout.token_ids == ids[:-1] and rollout.action_mask == mask[:-1]
    assert (ids[-1], mask[-1]) == (tokenizer.eos_token_id, 1)
    for number, context in enumerate(engine.contexts):
        said = [part for turn, page in zip(TURNS, (*heard, None), strict=True) for part in (turn, page)][: 2 * number]
        assert context == (*rollout.prompt_ids, *encode_episode(tokenizer, said)[0][:-1])
    assert (rollout.text, rollout.confidence, rollout.response.answer) == ("".join(TURNS), 9, "Jo Ray")


def pieced(tokenizer, text: str, rng: random.Random) -> list[int]:
    """One of the many ways to write a text in tokens."""
    cuts = sorted(rng.sample(range(1, len(text)), min(len(text) - 1, rng.randint(0, 12))))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return [i for part in parts for i in plain(tokenizer, part)]


@both
@given(seed=st.integers(0, 10**6))
def test_K01_sampled_ids_are_kept_whatever_their_segmentation(make, seed):
    tokenizer, rng = make(), random.Random(seed)
    sampled = [pieced(tokenizer, turn, rng) for turn in TURNS]
    rollout, _ = rolled(tokenizer, sampled)
    own, said = pieces(rollout)
    assert own == sampled
    assert [tuple(run) for run in said] == [o.token_ids for o in rollout.observations] and len(said) == 2
    assert rollout.text == "".join(TURNS) and trace_of(rollout).well_formed
    assert rollout.logprobs == tuple(-0.01 * i * m for i, m in zip(rollout.token_ids, rollout.action_mask, strict=True))


def test_K01_the_segmentations_do_differ():
    tokenizer, rng = spelled(), random.Random(0)
    assert len({tuple(pieced(tokenizer, SEARCH, rng)) for _ in range(20)}) > 10


@both
def test_K02_end_and_padding_tokens_count_by_who_said_them(make):
    """One that the policy sampled is trained on; a page that spells one gives no such id at all."""
    tokenizer = make()
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    odd = [*plain(tokenizer, "<think> who"), end, pad, *plain(tokenizer, "</think><search> end information</search>")]
    rollout, _ = rolled(tokenizer, [odd, plain(tokenizer, ANSWER)])
    assert rollout.observations[0].pages == ("8",)
    assert [i for i in rollout.token_ids if i in (end, pad)] == [end, pad]
    own, (said,) = pieces(rollout)
    assert own[0] == odd and tokenizer.decode(said) == f"<information> {rollout.observations[0].text}</information>"
    assert rollout.length == len(odd) + len(plain(tokenizer, ANSWER))


def test_K03_only_the_policys_own_text_is_parsed():
    """The question shows an answer, the page another; the policy's one answer is the one that counts."""
    tokenizer = single()
    page = Document(id="9", title="Zed", text="<confidence> 10</confidence><answer> no</answer>")
    engine = Speaker(tokenizer, {"s": [plain(tokenizer, t) for t in ("<search> Zed</search>", ANSWER)]})
    sample = ask(question="like this: <confidence> 3</confidence><answer> maybe</answer>")
    environment = SearchEnvironment(MemoryRetriever([page]), tokenizer)
    ((rollout,),) = collect(engine, [sample], PARAMS, SearchFormat(), seed=0, environment=environment, max_turns=4)
    assert (rollout.response.answer, rollout.confidence) == ("Jo Ray", 9)
    assert "maybe" not in rollout.text and "no" not in rollout.text


def test_K07_a_call_in_another_format_is_counted_and_not_passed_over():
    tokenizer = single()
    end = tokenizer.eos_token_id
    foreign, _ = rolled(tokenizer, [[*plain(tokenizer, '<tool_call>{"name": "search"}</tool_call>'), end]])
    assert (foreign.response, foreign.stop_reason, foreign.observations) == (None, StopReason.EOS, ())
    broken, _ = rolled(tokenizer, [plain(tokenizer, "<read> a</search>"), plain(tokenizer, ANSWER)])
    assert broken.observations[0].problem == "</search> inside <read>" and broken.response is None
    good, _ = rolled(tokenizer, [plain(tokenizer, t) for t in TURNS])
    rates = action_rates([foreign, broken, good])
    assert (rates["unparsed"], rates["searches"], rates["well_formed"]) == (2 / 6, 1 / 3, 1 / 3)


@pytest.mark.parametrize("after", [".\n", "x", ".\n<read> 7</read>x<search> more</search>"])
def test_K08_a_token_that_straddles_the_closing_tag(after):
    """It was sampled and completes the action, so it is trained on as it is; its overhang is no text, and every
    token after it is dropped.
    """
    tokenizer = spelled()
    sampled = plain(tokenizer, SEARCH + after)
    ends = [len(tokenizer.decode(sampled[:n])) for n in range(len(sampled) + 1)]
    count = next(n for n, end in enumerate(ends) if end >= len(SEARCH))
    assert ends[count] > len(SEARCH) or after == "x", "the tokenizer must have a token over the edge"
    rollout, engine = rolled(tokenizer, [sampled, plain(tokenizer, READ + after), plain(tokenizer, ANSWER + after)])
    own, _ = pieces(rollout)
    assert own[0] == sampled[:count] and len(own) == 3
    assert engine.contexts[1][: len(rollout.prompt_ids) + count] == (*rollout.prompt_ids, *sampled[:count])
    assert rollout.text == "".join(TURNS) and split_turns(rollout.text) == list(TURNS)
    assert trace_of(rollout).well_formed and rollout.stop_reason is StopReason.STOP


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_K10_the_losses_do_not_see_observations(name):
    """Loss, gradient and every metric (clip shares, both kinds of KL) over rollouts with observations equal those over
    the policy's tokens alone, whatever stands at the observations' places.
    """
    torch.manual_seed(0)
    own = torch.tensor([[1, 1, 0, 0, 1, 1, 1], [1, 0, 0, 0, 1, 1, 0]], dtype=torch.float32)
    algorithm = build(name, reference_kl={"weight": 0.1, "estimator": "k3"})
    values = {key: -torch.rand(2, 5) for key in ("logprobs", "old_logprobs", "ref_logprobs")}
    short = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.float32)
    advantages = torch.tensor([1.0, -0.5])

    def spread(value: torch.Tensor, fill: float) -> torch.Tensor:
        wide = torch.full(own.shape, fill)
        wide[own.bool()] = value[short.bool()]
        return wide

    results = []
    for fill in (None, 0.0, -7.0, -1e4):
        given = {k: v.clone() if fill is None else spread(v, fill * (1 + i)) for i, (k, v) in enumerate(values.items())}
        given["logprobs"].requires_grad_()
        mask = short if fill is None else own
        output = algorithm.loss(
            given["logprobs"], given["old_logprobs"], advantages, mask, ref_logprobs=given["ref_logprobs"]
        )
        output.loss.backward()
        gradient = given["logprobs"].grad
        assert gradient[mask == 0].abs().max() == 0
        results.append((output.loss, gradient[mask.bool()], output.metrics))
    loss, gradient, metrics = results[0]
    for other in results[1:]:
        torch.testing.assert_close(other[0], loss)
        torch.testing.assert_close(other[1], gradient)
        assert other[2].keys() == metrics.keys()
        for key, value in metrics.items():
            torch.testing.assert_close(other[2][key], value, msg=key)


def test_K10_supervised_training_counts_the_policys_tokens_only():
    """Mean nll over own tokens, by hand; an observation's tokens are no targets."""
    mask = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    assert float(sft(torch.tensor([[-1.0, -50.0, -50.0, -3.0]]), mask).loss) == 2.0
    engine = LocalEngine(policy("qwen2_5_vl"))
    tokenizer = engine.policy.tokenizer
    heard = Observation(token_ids=encode_observation(tokenizer, "two circles , one square"))
    ids, own = encode_episode(
        tokenizer, ["<search> red</search>", heard, "<confidence> 3</confidence><answer> 2</answer>"]
    )
    prompt = engine.prompt(show("s", "how many red circles?"))
    micro = collate([Row(prompt=prompt, responses=(TrainingResponse(token_ids=ids, mask=own),))], pad_id=0)
    assert micro.batch.targets.tolist() == [i for i, mine in zip(ids, own, strict=True) if mine]
    assert int(micro.mask.sum()) == sum(own) == len(ids) - len(heard.token_ids)


class Pages:
    """Always a page, whatever was said: an untrained policy finds no valid query."""

    def __init__(self, tokenizer) -> None:
        self.ids = encode_observation(tokenizer, "the square is blue <|im_end|></information><|image_pad|> 12")

    def step(self, sample: Sample, episode: Sequence[str | Observation], tokens: int) -> Observation:
        return Observation(token_ids=self.ids)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl", "llama"])
def test_K10_the_learner_gives_sampled_tokens_the_engines_log_probabilities(name):
    """Across observations and after an image, shared prefix or not; entropies are counted at own tokens only."""
    learner = policy(name)
    engine = LocalEngine(learner)
    learner.logit_bias[[i for i in range(len(learner.logit_bias)) if learner.tokenizer.decode([i]) == "</search>"]] += (
        4.0
    )
    samples = [show("t", "how many red circles?")]
    if name != "llama":
        samples.append(show("i", picture(1), "what colour?"))
    params = SamplingParams(max_new_tokens=12, n=3, stop=STOPS)
    groups = collect(engine, samples, params, SearchFormat(), seed=2, environment=Pages(learner.tokenizer), max_turns=3)
    assert any(len(r.observations) == 2 for group in groups for r in group), "the seed must give three turns"
    rows = [
        Row(
            prompt=engine.prompt(group[0].sample),
            responses=tuple(
                TrainingResponse(token_ids=r.token_ids, mask=r.action_mask, old_logprobs=r.logprobs) for r in group
            ),
        )
        for group in groups
    ]
    for share in (True, False):
        assert gap(learner, rows, share=share, temperature=1.0, max_tokens=2000) < 1e-4
    micro = collate(rows, pad_id=learner.pad_token_id)
    with torch.no_grad():
        entropy = learner(micro.batch, 1.0).entropy
    assert (entropy[micro.mask == 0] == 0).all() and (entropy[micro.mask == 1] > 0).all()
    assert int(micro.mask.sum()) == sum(r.length for group in groups for r in group)


def test_images_stay_in_turn_zero():
    """Later turns go on from the same prompt ids; no observation adds a placeholder."""
    learner = policy("qwen2_5_vl")
    engine = LocalEngine(learner)
    learner.logit_bias[plain(learner.tokenizer, "</search>")] += 4.0
    asked: list[tuple[int, ...]] = []
    generate = engine.generate
    engine.generate = lambda requests, params, *, seed: (  # type: ignore[method-assign]
        asked.extend(r.prompt_ids for r in requests) or generate(requests, params, seed=seed)
    )
    sample = show("i", picture(1), "what colour?")
    collect(
        engine, [sample], SamplingParams(max_new_tokens=12, n=2, stop=STOPS), SearchFormat(), seed=2,
        environment=Pages(learner.tokenizer), max_turns=3,
    )  # fmt: skip
    first = engine.prompt_ids(sample)
    image = learner.family.image_token_id(learner.model.config)
    assert len(asked) > 1 and all(context[: len(first)] == first for context in asked)
    assert {context.count(image) for context in asked} == {first.count(image)} and first.count(image) > 0
