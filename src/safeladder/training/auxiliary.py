"""Terms that supervised training may add to its loss: the grounding probe, and the tokenised Brier score."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from safeladder.algorithms.calibration import LEVELS, tokenized_brier_loss
from safeladder.algorithms.losses import LossOutput
from safeladder.models.policy import Policy, TokenOutputs
from safeladder.training.batching import MicroBatch
from safeladder.training.sft import Auxiliary, Demonstrations
from safeladder.types import SafeladderError, Sample

_CONFIDENCE = re.compile(r"(<confidence>\s*)\d+(\s*</confidence>)")
_NEVER = -1e9
"""Logit of a confidence that is written with several tokens: finite, and its probability is 0."""


class GroundingProbe(nn.Module):
    """Linear heads that name what each image cell shows. Trained with the base, then thrown away.

    Without it a vision tower trained from scratch through a language loss alone sits at the language prior for most
    of a laptop's budget; the probe gives every cell a direct gradient. It never sees held-out items.
    """

    def __init__(self, hidden_size: int, classes: tuple[int, int, int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(hidden_size, count) for count in classes])

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over the three heads; features [n, hidden], targets [n, 3]."""
        if len(features) != len(targets):
            raise SafeladderError(
                f"grounding: {len(targets)} image cells but {len(features)} image tokens; "
                "set grounding_weight to 0 for a model whose tokens are not cells"
            )
        parts = [F.cross_entropy(head(features), targets[:, k]) for k, head in enumerate(self.heads)]
        return torch.stack(parts).mean()


def grounding(
    probe: GroundingProbe,
    weight: float,
    data: Demonstrations,
    cells: Callable[[Sample], Sequence[tuple[int, int, int]]],
) -> Auxiliary:
    """The probe's loss times `weight`.

    Args:
        probe: already an attribute of the policy, so that the backend trains it.
        cells: sample -> class ids of its image cells.
    """

    def term(outputs: TokenOutputs, micro: MicroBatch, responses: float) -> LossOutput:
        if outputs.features is None:
            return LossOutput(loss=outputs.logprobs.new_zeros(()), metrics={})
        # As `Policy.visual_features` orders them: images of all prompts, then videos.
        images = [p for p in micro.batch.prompts if p.encoded.pixel_values is not None]
        videos = [p for p in micro.batch.prompts if p.encoded.video_pixel_values is not None]
        targets = torch.cat([torch.tensor(cells(data.of(p)[0])) for p in images + videos])
        found = probe(outputs.features, targets.to(outputs.features.device))
        share = micro.batch.shape[0] / responses  # micro-batches weigh by their rows
        return LossOutput(loss=weight * share * found, metrics={"grounding": found.detach() * share})

    return term


def stated_confidence(policy: Policy, weight: float, data: Demonstrations) -> Auxiliary:
    """The tokenised Brier score of final confidences times `weight`, a mean over demonstrations (those without a
    confidence count 0). Costs a second forward pass.

    Raises:
        SafeladderError: the tokenizer writes a confidence below 10 with several tokens.
    """
    levels = level_tokens(policy.tokenizer)
    known = torch.tensor([0 if token is None else token for token in levels])
    hidden = torch.tensor([0.0 if token is not None else _NEVER for token in levels])

    def term(outputs: TokenOutputs, micro: MicroBatch, responses: float) -> LossOutput:
        batch = micro.batch
        told = {row: data.of(prompt)[1].stated for row, prompt in enumerate(batch.prompts)}
        stated = {(row, found[0]): found[1] for row, found in told.items() if found is not None}
        places = list(zip(batch.row.tolist(), batch.column.tolist(), strict=True))
        chosen = [i for i, place in enumerate(places) if place in stated]
        if not chosen:
            return LossOutput(loss=outputs.logprobs.new_zeros(()), metrics={})
        count, device = len(chosen), batch.predict.device
        # Every level at every place: the head is asked for eleven tokens where one was written.
        asked = replace(
            batch,
            predict=batch.predict[chosen].repeat_interleave(LEVELS),
            targets=known.to(device).repeat(count),
            row=torch.arange(count, device=device).repeat_interleave(LEVELS),
            column=torch.arange(LEVELS, device=device).repeat(count),
            shape=(count, LEVELS),
        )
        logits = policy(asked).logprobs + hidden.to(device)
        correct = torch.tensor([stated[places[i]] for i in chosen], device=device)
        found = tokenized_brier_loss(logits, correct, normalizer=responses)
        metrics = {"brier": found.loss.detach(), "brier/mean_confidence": found.metrics["mean_confidence"]}
        return LossOutput(loss=weight * found.loss, metrics=metrics)

    return term


def level_place(tokenizer: Any, turn: str) -> int:
    """Where in a turn's ids the token of its confidence stands (of several, the first).

    Raises:
        ValueError: the turn states no confidence.
    """
    ids = [
        tokenizer(_CONFIDENCE.sub(rf"\g<1>{level}\g<2>", turn), add_special_tokens=False)["input_ids"]
        for level in (3, 4)
    ]
    place = next((i for i, (a, b) in enumerate(zip(*ids, strict=True)) if a != b), None)
    if place is None:
        raise ValueError(f"no confidence in {turn!r}")
    return place


def level_tokens(tokenizer: Any) -> list[int | None]:
    """The token that tells each confidence 0, 1, ... 10 from the others; None where 10 takes two tokens.

    Raises:
        SafeladderError: a confidence below 10 is written with several tokens.
    """
    written = [
        tokenizer(f"<confidence> {k}</confidence>", add_special_tokens=False)["input_ids"] for k in range(LEVELS)
    ]
    first = written[0]
    place = next((i for i, (a, b) in enumerate(zip(first, written[1], strict=False)) if a != b), 0)

    def alike(ids: Sequence[int]) -> bool:
        return len(ids) == len(first) and [*ids[:place], *ids[place + 1 :]] == [*first[:place], *first[place + 1 :]]

    found = [ids[place] if alike(ids) else None for ids in written]
    if None in found[:-1]:
        raise SafeladderError("brier_weight: this tokenizer writes a confidence with several tokens; allowed here: 0")
    return found
