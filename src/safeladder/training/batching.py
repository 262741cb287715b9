"""From prompts and responses to padded micro-batches.

A `Row` is one prompt with one or more responses. With several, the prompt's tokens stand once and every response
attends to the prompt and to itself only (a tree of depth one); positions continue from the prompt for each response.
The values equal those of separate sequences, the work does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from safeladder.models.policy import Prompt, TokenBatch
from safeladder.models.trunk import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResponse:
    """One response to train on. `mask` 1 = counted; `old_logprobs` and `advantage` are absent in SFT."""

    token_ids: Sequence[int]
    mask: Sequence[int]
    old_logprobs: Sequence[float] | None = None
    advantage: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One prompt and the responses that share it."""

    prompt: Prompt
    responses: tuple[TrainingResponse, ...]

    @property
    def length(self) -> int:
        return len(self.prompt.ids) + sum(len(r.token_ids) for r in self.responses)

    @property
    def counted(self) -> int:
        return sum(sum(r.mask) for r in self.responses)


@dataclass(slots=True)
class MicroBatch:
    """What the policy and the loss need. Tensors [R, T] (R responses), `advantages` [R]; `tokens` includes padding."""

    batch: TokenBatch
    mask: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    tokens: int


def split_rows(rows: Sequence[Row], *, share_prefix: bool) -> list[Row]:
    """One row a response where prefixes are not to be shared."""
    if share_prefix:
        return list(rows)
    return [Row(prompt=row.prompt, responses=(r,)) for row in rows for r in row.responses]


def micro_batches(rows: Sequence[Row], *, max_tokens: int, pad_id: int) -> Iterator[MicroBatch]:
    """Group rows of similar length so that padded rows times length stays below `max_tokens` (one row at least)."""
    group: list[Row] = []
    longest = 0
    for row in sorted(rows, key=lambda r: r.length):
        if group and max(longest, row.length) * (len(group) + 1) > max_tokens:
            yield collate(group, pad_id=pad_id)
            group, longest = [], 0
        group.append(row)
        longest = max(longest, row.length)
    if group:
        yield collate(group, pad_id=pad_id)


def collate(rows: Sequence[Row], *, pad_id: int) -> MicroBatch:
    """Pad rows on the right and index the positions that predict counted tokens."""
    size, length = len(rows), max(r.length for r in rows)
    dimensions = rows[0].prompt.positions.shape[0]
    ids = np.full((size, length), pad_id, dtype=np.int64)
    place = np.zeros((dimensions, size, length), dtype=np.int64)
    responses = [(b, r) for b, row in enumerate(rows) for r in row.responses]
    width = max(len(r.token_ids) for _, r in responses)
    mask = np.zeros((len(responses), width), dtype=np.float32)
    old = np.zeros((len(responses), width), dtype=np.float32)
    predict: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    where_row: list[np.ndarray] = []
    where_column: list[np.ndarray] = []

    number = 0
    for b, row in enumerate(rows):
        prompt = len(row.prompt.ids)
        ids[b, :prompt] = row.prompt.ids
        place[:, b, :prompt] = row.prompt.positions.numpy()
        start = prompt
        for response in row.responses:
            tokens = np.asarray(response.token_ids, dtype=np.int64)
            end = start + len(tokens)
            ids[b, start:end] = tokens
            place[:, b, start:end] = row.prompt.next_position + np.arange(len(tokens))
            counted = np.flatnonzero(np.asarray(response.mask))
            before = b * length + start + counted - 1
            # The first token of every response is predicted by the last token of the prompt.
            before[counted == 0] = b * length + prompt - 1
            predict.append(before)
            targets.append(tokens[counted])
            where_row.append(np.full(len(counted), number))
            where_column.append(counted)
            mask[number, counted] = 1.0
            if response.old_logprobs is not None:
                old[number, : len(tokens)] = response.old_logprobs
            number += 1
            start = end

    def tensor(parts: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts))

    batch = TokenBatch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(place),
        layout=Layout(
            length=length,
            prompts=tuple(len(row.prompt.ids) for row in rows),
            responses=tuple(tuple(len(r.token_ids) for r in row.responses) for row in rows),
        ),
        prompts=[row.prompt for row in rows],
        predict=tensor(predict),
        targets=tensor(targets),
        row=tensor(where_row),
        column=tensor(where_column),
        shape=(len(responses), width),
    )
    return MicroBatch(
        batch=batch,
        mask=torch.from_numpy(mask),
        old_logprobs=torch.from_numpy(old),
        advantages=torch.tensor([r.advantage for _, r in responses]),
        tokens=size * length,
    )


def to_device(micro: MicroBatch, device: torch.device) -> MicroBatch:
    """Move a micro-batch; prompts keep their pixels on the host until the vision tower runs."""
    if device.type == "cpu":
        return micro
    batch = micro.batch
    moved = TokenBatch(
        input_ids=batch.input_ids.to(device),
        position_ids=batch.position_ids.to(device),
        layout=batch.layout,
        prompts=batch.prompts,
        predict=batch.predict.to(device),
        targets=batch.targets.to(device),
        row=batch.row.to(device),
        column=batch.column.to(device),
        shape=batch.shape,
    )
    return MicroBatch(
        batch=moved,
        mask=micro.mask.to(device),
        old_logprobs=micro.old_logprobs.to(device),
        advantages=micro.advantages.to(device),
        tokens=micro.tokens,
    )
