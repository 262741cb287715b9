"""An in-process engine that runs no token position twice: keys and values of prefixes are kept and continued from.

What is sampled step by step (value guidance, beams, branching rollouts) asks again and again for continuations of what
was sampled before. The ids are those that `LocalEngine` gives.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safeladder.rollout.decoder import Decoder, KVCache, MlpEdit
from safeladder.rollout.local import LocalEngine
from safeladder.types import Completion, GenerationRequest, SamplingParams

_MEMORY = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Pass:
    """What the model makes of a context: `state` [hidden], its last token's normalised hidden state in float32, and the
    log-probabilities (temperature 1) of the tokens that were asked for, the context's last ones."""

    state: Tensor
    logprobs: tuple[float, ...]


class PrefixEngine(LocalEngine):
    """`LocalEngine` with a memory of prefixes, over another engine's weights.

    Prefixes are told apart by sample id and token ids; of two samples with one id, `forget` the first before the
    second. New weights, or another `edit`, empty the memory. One call at a time.

    Args:
        source: its weights and its `edit` are used; nothing is copied.
        memory: bytes of keys and values to keep; the longest unused go first.

    Attributes:
        positions: token positions that went through the model since the engine was made, padding not counted.
    """

    def __init__(self, source: LocalEngine, *, memory: int = _MEMORY) -> None:
        self._source, self._memory = source, memory
        self._kept: OrderedDict[tuple[str, tuple[int, ...]], tuple[Tensor, Tensor]] = OrderedDict()
        self._lengths: dict[str, set[int]] = defaultdict(set)
        self._bytes = 0
        self._weights: object = None
        self._steered: MlpEdit | None = None
        self._samples_each = 1
        self._record: _Record | None = None
        self.positions = 0
        super().__init__(source.policy, max_rows=source.max_rows)

    def sync(self) -> None:
        """Nothing to copy: the weights are the source's."""

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        self._source.load_weights(weights)

    @property
    def decoder(self) -> Decoder:
        return self._source.decoder

    @property
    def edit(self) -> MlpEdit | None:
        return self._source.edit

    @edit.setter
    def edit(self, edit: MlpEdit | None) -> None:
        # LocalEngine's constructor sets None, which must not undo the source's.
        if edit is not None:
            self._source.edit = edit

    def forget(self) -> None:
        """Drop remembered prompts and prefixes."""
        super().forget()
        self._kept.clear()
        self._lengths.clear()
        self._bytes = 0

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, *, seed: int
    ) -> list[list[Completion]]:
        self._check()
        return super().generate(requests, params, seed=seed)

    @torch.inference_mode()
    def passes(self, requests: Sequence[GenerationRequest], tails: Sequence[int] | None = None) -> list[Pass]:
        """The model's view of contexts, in order.

        Args:
            requests: contexts, each at least its sample's prompt.
            tails: how many of each context's last tokens to give log-probabilities of (default: none).
        """
        self._check()
        wanted = [0] * len(requests) if tails is None else list(tails)
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids))
        found: dict[int, Pass] = {}
        for start in range(0, len(order), self.max_rows):
            chunk = order[start : start + self.max_rows]
            asked, tail = [requests[i] for i in chunk], [wanted[i] for i in chunk]
            hidden, sizes, _, _ = self._extend(asked, tail, 0)
            for row, i in enumerate(chunk):
                ids, size, count = requests[i].prompt_ids, sizes[row], tail[row]
                logprobs: tuple[float, ...] = ()
                if count:
                    logits = self._logits(hidden[row, size - 1 - count : size - 1])
                    targets = torch.tensor(ids[-count:], device=logits.device).unsqueeze(1)
                    logprobs = tuple(torch.log_softmax(logits, dim=-1).gather(1, targets).squeeze(1).tolist())
                found[i] = Pass(hidden[row, size - 1].float(), logprobs)
        return [found[i] for i in range(len(requests))]

    def _check(self) -> None:
        """Keys and values of other weights, or of another edit, are of no use."""
        if self._weights is not self.decoder.layers or self._steered is not self.edit:
            self._kept.clear()
            self._lengths.clear()
            self._bytes = 0
        self._weights, self._steered = self.decoder.layers, self.edit

    def _generate_batch(
        self, requests: Sequence[GenerationRequest], numbers: Sequence[int], params: SamplingParams, seed: int
    ) -> list[list[Completion]]:
        self._samples_each = params.n
        groups = super()._generate_batch(requests, numbers, params, seed)
        record, self._record = self._record, None
        assert record is not None
        row = 0
        for request, completions in zip(requests, groups, strict=True):
            for completion in completions:
                run = len(completion.token_ids) - 1  # the last token was sampled but not run
                self.positions += run
                if run:
                    size = len(request.prompt_ids)
                    ids = (*request.prompt_ids, *completion.token_ids[:run])
                    self._keep(request.sample.id, ids, *record.row(row, size, run))
                row += 1
        return groups

    def _prefill(self, requests: Sequence[GenerationRequest], budget: int) -> tuple[Tensor, KVCache, Tensor, Tensor]:
        device = self.policy.device
        hidden, sizes, cache, place = self._extend(requests, [0] * len(requests), budget)
        last = hidden[torch.arange(len(requests), device=device), torch.tensor(sizes, device=device) - 1]
        lengths = torch.tensor([len(r.prompt_ids) for r in requests], device=device)
        self._record = _Record(cache.keys, cache.values, cache.length)
        self._record.begin(len(requests), self._samples_each)
        return self._logits(last), self._record, lengths, torch.tensor(place, device=device)

    def _extend(
        self, requests: Sequence[GenerationRequest], tails: Sequence[int], budget: int
    ) -> tuple[Tensor, list[int], KVCache, list[int]]:
        """Run what no kept prefix covers: each context's last token at least, and one token more than its tail.

        Returns:
            Normalised hidden states [B, S, H] of the tokens that were run, how many of a row's are real, a cache with
            every context's keys and values from slot 0 and room for `budget` more, and each row's next position.
        """
        self._fill(requests, tails)
        decoder, device = self.decoder, self.policy.device
        prefixes = [self._longest(r, tail) for r, tail in zip(requests, tails, strict=True)]
        contexts = [r.prompt_ids for r in requests]
        sizes = [len(ids) - p for ids, p in zip(contexts, prefixes, strict=True)]
        before, size = max(prefixes), max(sizes)
        width = max(len(ids) for ids in contexts)
        cache = decoder.new_cache(len(requests), before + size)
        cache.length = before
        ids = torch.full((len(requests), size), self.policy.pad_token_id)
        place = torch.zeros(len(requests), size, dtype=torch.long)
        following = []
        for row, (request, p, count) in enumerate(zip(requests, prefixes, sizes, strict=True)):
            keys, values = self._kept[request.sample.id, request.prompt_ids[:p]]
            for layer in range(decoder.depth):
                cache.keys[layer][row, :, :p] = keys[layer]
                cache.values[layer][row, :, :p] = values[layer]
                # Masked, but whatever memory held there must not be a NaN.
                cache.values[layer][row, :, p:before] = 0
                cache.keys[layer][row, :, p:before] = 0
            ids[row, :count] = torch.tensor(request.prompt_ids[p:])
            prompt = self.prompt(request.sample)
            first = prompt.next_position + p - len(prompt.ids)
            place[row, :count] = first + torch.arange(count)
            following.append(first + count)
        held = torch.tensor(prefixes, device=device)
        causal = torch.ones(size, size, dtype=torch.bool, device=device).tril()
        seen = (torch.arange(before, device=device) < held.unsqueeze(1)).unsqueeze(1).expand(-1, size, -1)
        mask = torch.cat((seen, causal.expand(len(requests), -1, -1)), dim=2).unsqueeze(1)
        cos, sin = self._rotary_table(max(following) + budget)
        place = place.to(device)
        embeddings = torch.nn.functional.embedding(ids.to(device), decoder.embeddings)
        if size == 1:  # the decoder folds grouped heads into the length axis there
            mask = mask[:, :, :, : before + 1]
        hidden = decoder.forward(embeddings, cos[place], sin[place], cache, mask, self.edit)
        self.positions += sum(sizes)
        full = self._aligned(cache, held, before, width, width + budget)
        for row, request in enumerate(requests):
            self._keep(request.sample.id, request.prompt_ids, *_slice(full, row, len(request.prompt_ids)))
        return hidden, sizes, full, following

    def _aligned(self, cache: KVCache, held: Tensor, before: int, width: int, capacity: int) -> KVCache:
        """The cache with every row's slots moved together: of row i, slot `before` follows slot `held[i]` - 1."""
        slots = torch.arange(width, device=held.device).expand(len(held), -1)
        index = torch.where(slots < held.unsqueeze(1), slots, slots - held.unsqueeze(1) + before)
        index = index.clamp(max=cache.length - 1)[:, None, :, None]
        full = self.decoder.new_cache(len(held), capacity)
        for old, new in ((cache.keys, full.keys), (cache.values, full.values)):
            for layer, store in enumerate(old):
                new[layer][:, :, :width] = store.gather(2, index.expand(-1, store.shape[1], -1, store.shape[3]))
        full.length = width
        return full

    def _fill(self, requests: Sequence[GenerationRequest], tails: Sequence[int]) -> None:
        """Keep a prefix of every context: of those that have none, the prompt without its last token."""
        missing = {
            r.sample.id: GenerationRequest(sample=r.sample, prompt_ids=self.prompt(r.sample).ids)
            for r, tail in zip(requests, tails, strict=True)
            if self._longest(r, tail) == 0
        }
        for start in range(0, len(missing), self.max_rows):
            chunk = list(missing.values())[start : start + self.max_rows]
            _, cache, _, _ = super()._prefill(chunk, 0)
            for row, request in enumerate(chunk):
                ids = request.prompt_ids[:-1]
                self.positions += len(ids)
                self._keep(request.sample.id, ids, *_slice(cache, row, len(ids)))

    def _longest(self, request: GenerationRequest, tail: int) -> int:
        """Length of the longest kept prefix that leaves one token more than the tail to run; 0 where none is kept."""
        id, ids = request.sample.id, request.prompt_ids
        for length in sorted(self._lengths[id], reverse=True):
            key = (id, ids[:length])
            if length <= len(ids) - 1 - tail and key in self._kept:
                self._kept.move_to_end(key)
                return length
        return 0

    def _keep(self, id: str, ids: tuple[int, ...], keys: Tensor, values: Tensor) -> None:
        if (id, ids) in self._kept:
            self._kept.move_to_end((id, ids))
            return
        self._kept[id, ids] = (keys, values)
        self._lengths[id].add(len(ids))
        self._bytes += 2 * keys.nbytes
        while self._bytes > self._memory and len(self._kept) > 1:
            (old, _), (gone, _) = self._kept.popitem(last=False)
            self._bytes -= 2 * gone.nbytes
            if not any(name == old for name, _ in self._kept):
                self._lengths.pop(old, None)


class _Record(KVCache):
    """A cache that holds on to the rows it is told to drop."""

    def begin(self, rows: int, samples_each: int) -> None:
        """Of `rows` prompts, each to be repeated `samples_each` times by the first `select` where that is above 1."""
        self.repeats = samples_each > 1
        self.width = self.length
        self.origin = list(range(rows * samples_each))
        self.finished: dict[int, tuple[list[Tensor], list[Tensor], int]] = {}

    def select(self, rows: Tensor) -> None:
        if self.repeats:
            self.repeats = False
        else:
            chosen = rows.tolist()
            staying = set(chosen)
            gone = [row for row in range(len(self.origin)) if row not in staying]
            if gone:
                index = torch.tensor(gone, device=rows.device)
                keys = [k[:, :, : self.length].index_select(0, index) for k in self.keys]
                values = [v[:, :, : self.length].index_select(0, index) for v in self.values]
                self.finished.update({self.origin[row]: (keys, values, at) for at, row in enumerate(gone)})
            self.origin = [self.origin[row] for row in chosen]
        super().select(rows)

    def row(self, number: int, size: int, run: int) -> tuple[Tensor, Tensor]:
        """Keys and values [layers, kv_heads, size + run, head_dim] of a prompt and of what was sampled after it."""
        if number in self.finished:
            keys, values, at = self.finished[number]
        else:
            keys, values, at = self.keys, self.values, self.origin.index(number)

        def of(store: list[Tensor]) -> Tensor:
            parts = [(k[at, :, :size], k[at, :, self.width : self.width + run]) for k in store]
            return torch.stack([torch.cat(part, dim=1) for part in parts])

        return of(keys), of(values)


def _slice(cache: KVCache, row: int, size: int) -> tuple[Tensor, Tensor]:
    """A row's first slots, copied: [layers, kv_heads, size, head_dim]."""
    return torch.stack([k[row, :, :size] for k in cache.keys]), torch.stack([v[row, :, :size] for v in cache.values])
