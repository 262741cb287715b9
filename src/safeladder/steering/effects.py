"""How much of an answer comes directly from the picture, directly from the words, and from both read together.

Causal mediation (Pearl 2001) on what a model answers. A picture v and a question t are compared with references v*, t*.
The mediator M is what the words make of the picture: the states of the question's tokens. The answer's own positions
see the picture, the words, and M. So an outcome Y(v, t, m) has three arguments: the picture that the answer's positions
see, the question, and the picture m that the question's tokens see. With the mediator held at the reference picture:

    NDE_V  = Y(v, t*, v*) - Y(v*, t*, v*)                                  the picture past the question
    NDE_T  = Y(v*, t, v*) - Y(v*, t*, v*)                                  the words, with nothing to see
    NDE_VT = Y(v, t, v*) - Y(v, t*, v*) - Y(v*, t, v*) + Y(v*, t*, v*)     both, beyond the two alone
    NIE    = Y(v, t, v) - Y(v, t, v*)                                      through the fusion
    TE     = Y(v, t, v) - Y(v*, t*, v*) = NDE_V + NDE_T + NDE_VT + NIE

In a decoder the states of the question carry the question itself, so M cannot be held at t* while t changes; it is held
in the picture. Y is the probability of one answer among the given ones. One forward pass holds both pictures: the
answer's positions attend to a second copy of the picture's tokens, in the same rotary positions. With one picture in
both copies the pass is the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safeladder.models.policy import Policy, Prompt
from safeladder.rollout.local import LocalEngine
from safeladder.types import SafeladderError, Sample

EFFECTS = ("NDE_V", "NDE_T", "NDE_VT", "NIE", "TE")
_CONDITIONS = {"vt*v*": (1, 0, 0), "v*t*v*": (0, 0, 0), "v*tv*": (0, 1, 0), "vtv*": (1, 1, 0), "vtv": (1, 1, 1)}
"""Name -> (picture, question, mediator's picture), 1 factual and 0 reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One measurement.

    Attributes:
        factual: picture and question, v and t.
        reference: the reference picture and question, v* and t*; its pictures are as large as the factual ones.
        answers: the answers that share the probability, two or more.
        outcome: one of them: whose probability is Y.
    """

    factual: Sample
    reference: Sample
    answers: tuple[str, ...]
    outcome: str

    def __post_init__(self) -> None:
        where = f"sample {self.factual.id}"
        if len(set(self.answers)) < 2 or len(set(self.answers)) != len(self.answers):
            raise SafeladderError(f"{where}: needs two or more different answers")
        if self.outcome not in self.answers:
            raise SafeladderError(f"{where}: outcome {self.outcome!r} is not among its answers")
        if not self.factual.images or len(self.factual.images) != len(self.reference.images):
            raise SafeladderError(f"{where}: question and reference need images, one for one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over `n` contrasts with its bootstrap interval over groups; None where there are none."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def outcomes(engine: LocalEngine, contrasts: Sequence[Contrast], *, rows: int = 64) -> list[dict[str, float]]:
    """Y under the five conditions of each contrast, keyed as in `_CONDITIONS`: "vt*v*" is Y(v, t*, v*).

    Whatever steers the engine steers this too (`hooks.steered`).

    Raises:
        SafeladderError: pictures of different sizes, or a model without vision.
    """
    policy = engine.policy
    tail = turn_length(policy)
    work: list[tuple[int, str, _Row]] = []
    for number, contrast in enumerate(contrasts):
        for condition, row in _rows(policy, contrast, tail):
            work.append((number, condition, row))
    found = _logprobs(engine, [row for _, _, row in work], tail, rows)
    collected: list[dict[str, list[float]]] = [{} for _ in contrasts]
    for (number, condition, _), logprob in zip(work, found, strict=True):
        collected[number].setdefault(condition, []).append(logprob)
    return [
        {
            condition: float(np.exp(values[k] - np.logaddexp.reduce(values)))
            for condition, values in by_condition.items()
        }
        for by_condition, k in zip(collected, (c.answers.index(c.outcome) for c in contrasts), strict=True)
    ]


def effects(y: Mapping[str, float]) -> dict[str, float]:
    """The effects of one contrast, from its outcomes (the equations at the top of this file)."""
    none, picture, words, both = y["v*t*v*"], y["vt*v*"], y["v*tv*"], y["vtv*"]
    return {
        "NDE_V": picture - none,
        "NDE_T": words - none,
        "NDE_VT": both - picture - words + none,
        "NIE": y["vtv"] - both,
        "TE": y["vtv"] - none,
    }


def measure(
    engine: LocalEngine, contrasts: Sequence[Contrast], *, draws: int = 2000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Estimate]:
    """Mean effects over contrasts, and the mean outcome "Y" itself, with percentile bootstrap intervals over groups."""
    measured = outcomes(engine, contrasts)
    table = [{"Y": y["vtv"], **effects(y)} for y in measured]
    groups = [c.factual.group_id for c in contrasts]
    return {
        name: interval([row[name] for row in table], groups, draws=draws, confidence=confidence, seed=seed)
        for name in ("Y", *EFFECTS)
    }


def interval(values: Sequence[float], groups: Sequence[str], *, draws: int, confidence: float, seed: int) -> Estimate:
    """Mean and percentile bootstrap interval; whole groups are drawn, since their items are not independent."""
    if not values:
        return Estimate(value=None, low=None, high=None, n=0)
    index = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    owner = np.array([index[group] for group in groups])
    sums, sizes = np.bincount(owner, weights=values), np.bincount(owner)
    picks = np.random.default_rng(seed).integers(len(index), size=(draws, len(index)))
    means = sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(value=float(np.mean(values)), low=float(low), high=float(high), n=len(values))


@dataclass(slots=True)
class _Row:
    prompt: Prompt
    direct: Tensor
    mediator: Tensor
    answer: tuple[int, ...]


def _rows(policy: Policy, contrast: Contrast, tail: int) -> list[tuple[str, _Row]]:
    prompts = [policy.prompt(sample) for sample in (contrast.reference, contrast.factual)]
    features: list[Tensor] = []
    for prompt in prompts:
        with torch.no_grad():
            seen = policy.visual_features([prompt])
        if seen is None or not _image_places(policy, prompt.ids):
            raise SafeladderError(f"sample {contrast.factual.id}: the {policy.family.name} family sees no image")
        if _image_places(policy, prompt.ids)[-1] >= len(prompt.ids) - tail:
            raise SafeladderError(f"sample {contrast.factual.id}: an image stands in the assistant's turn")
        features.append(seen)
    if features[0].shape != features[1].shape:
        raise SafeladderError(f"sample {contrast.factual.id}: the reference image has another size")
    answers = [
        (*policy.tokenizer(answer, add_special_tokens=False)["input_ids"], policy.eos_token_id)
        for answer in contrast.answers
    ]
    return [
        (name, _Row(prompt=prompts[t], direct=features[v], mediator=features[m], answer=answer))
        for name, (v, t, m) in _CONDITIONS.items()
        for answer in answers
    ]


def turn_length(policy: Policy) -> int:
    """How many tokens of a prompt open the assistant's turn: with the answer's tokens, the answer's own positions."""
    template = getattr(policy.processor, "chat_template", None) or policy.tokenizer.chat_template
    chat = [{"role": "user", "content": "."}]
    lengths = [
        len(
            policy.tokenizer.encode(
                policy.tokenizer.apply_chat_template(
                    chat, chat_template=template, tokenize=False, add_generation_prompt=opened
                ),
                add_special_tokens=False,
            )
        )
        for opened in (False, True)
    ]
    return max(1, lengths[1] - lengths[0])


def _image_places(policy: Policy, ids: Sequence[int]) -> list[int]:
    token = policy.family.image_token_id(policy.model.config)
    return [i for i, value in enumerate(ids) if value == token]


@torch.inference_mode()
def _logprobs(engine: LocalEngine, rows: Sequence[_Row], tail: int, at_once: int) -> list[float]:
    """Log-probability of each row's answer, its end token included."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt.ids) + len(rows[i].answer))
    found = [0.0] * len(rows)
    for start in range(0, len(order), at_once):
        chunk = order[start : start + at_once]
        for i, value in zip(chunk, _batch(engine, [rows[i] for i in chunk], tail), strict=True):
            found[i] = value
    return found


def _batch(engine: LocalEngine, rows: Sequence[_Row], tail: int) -> list[float]:
    """Rows are laid out as prompt, second copy of the picture, answer; padding follows."""
    policy, decoder = engine.policy, engine.decoder
    placed = [_place(policy, row, tail) for row in rows]
    size = max(len(p.ids) for p in placed)
    ids = torch.full((len(rows), size), policy.pad_token_id)
    place = torch.zeros(policy.family.rope_dimensions, len(rows), size, dtype=torch.long)
    mask = torch.eye(size, dtype=torch.bool).repeat(len(rows), 1, 1, 1)  # padding sees itself: no row is empty
    for i, p in enumerate(placed):
        ids[i, : len(p.ids)] = p.ids
        place[:, i, : len(p.ids)] = p.positions
        mask[i, 0, : len(p.ids), : len(p.ids)] = p.visible
    x = torch.nn.functional.embedding(ids.to(policy.device), decoder.embeddings)
    for i, (p, row) in enumerate(zip(placed, rows, strict=True)):
        x[i, p.mediator] = row.mediator.to(x)
        x[i, p.direct] = row.direct.to(x)
    cos, sin = decoder.rotary(x, (place if policy.family.rope_dimensions == 3 else place[0]).to(policy.device))
    cache = decoder.new_cache(len(rows), size)
    hidden = decoder.forward(x, cos, sin, cache, mask.to(policy.device), engine.edit)
    out = []
    for i, (p, row) in enumerate(zip(placed, rows, strict=True)):
        logits = torch.nn.functional.linear(hidden[i, p.predict], decoder.head).float() + policy.logit_bias
        chosen = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(row.answer, device=x.device).unsqueeze(1))
        out.append(float(chosen.sum()))
    return out


@dataclass(slots=True)
class _Placed:
    ids: Tensor
    positions: Tensor
    visible: Tensor
    mediator: list[int]
    direct: list[int]
    predict: list[int]


def _place(policy: Policy, row: _Row, tail: int) -> _Placed:
    """Tokens, positions and who sees whom; `predict` are the positions whose state predicts the answer's tokens."""
    prompt, places = row.prompt, _image_places(policy, row.prompt.ids)
    size, copies, answer = len(prompt.ids), len(places), len(row.answer) - 1  # its end token predicts nothing
    total = size + copies + answer
    after = (prompt.next_position + torch.arange(answer)).expand(len(prompt.positions), -1)
    positions = torch.cat((prompt.positions, prompt.positions[:, places], after), dim=1)
    ids = torch.tensor([*prompt.ids, *(prompt.ids[i] for i in places), *row.answer[:-1]])
    # The order in which tokens come; a copy stands where its original does.
    turn = torch.cat((torch.arange(size), torch.tensor(places), size + torch.arange(answer)))
    original, copy = torch.zeros(total, dtype=torch.bool), torch.zeros(total, dtype=torch.bool)
    original[places] = True
    copy[size : size + copies] = True
    own = turn >= size - tail  # the answer's positions
    before = turn.unsqueeze(1) >= turn.unsqueeze(0)
    sees_copy = (own | copy).unsqueeze(1)
    hidden = torch.where(sees_copy, original.unsqueeze(0), copy.unsqueeze(0))
    predict = [size - 1, *range(size + copies, total)]
    return _Placed(
        ids=ids,
        positions=positions,
        visible=before & ~hidden,
        mediator=places,
        direct=list(range(size, size + copies)),
        predict=predict,
    )


def as_json(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Name to value, low, high and n."""
    return {name: {"value": e.value, "low": e.low, "high": e.high, "n": e.n} for name, e in estimates.items()}
