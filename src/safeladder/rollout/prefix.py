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
    """What the model makes of a context: normalised hidden states [tail, hidden] of its last tokens in float32, and the
    log-probabilities (temperature 1) of these tokens where they were asked for."""

    states: Tensor
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class _Kept:
    """Of a prefix: keys and values [layers, kv_heads, length, head_dim], and the normalised hidden states of its last
    tokens, from the prompt's last one on."""

    keys: Tensor
    values: Tensor
    states: Tensor

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes + self.states.nbytes


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
        self._kept: OrderedDict[tuple[str, tuple[int, ...]], _Kept] = OrderedDict()
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

    @torch.no_grad()
    def passes(
        self, requests: Sequence[GenerationRequest], tails: Sequence[int] | None = None, *, logprobs: bool = False
    ) -> list[Pass]:
        """The model's view of contexts, in order.

        Args:
            requests: contexts, each at least its sample's prompt.
            tails: how many of each context's last tokens to give the states of: at least 1 (the default), at most the
                tokens after the prompt, or 1 where there are none.
            logprobs: give the tail's log-probabilities too; then every tail lies after the prompt.
        """
        self._check()
        wanted = [1] * len(requests) if tails is None else list(tails)
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids))
        found: dict[int, Pass] = {}
        for start in range(0, len(order), self.max_rows):
            chunk = order[start : start + self.max_rows]
            states, _, _ = self._extend([requests[i] for i in chunk], 0)
            for row, i in enumerate(chunk):
                tail = wanted[i]
                said: tuple[float, ...] = ()
                if logprobs:
                    targets = torch.tensor(requests[i].prompt_ids[-tail:], device=states[row].device)
                    logp = torch.log_softmax(self._logits(states[row][-tail - 1 : -1]), dim=-1)
                    said = tuple(logp.gather(1, targets.unsqueeze(1)).squeeze(1).tolist())
                found[i] = Pass(states[row][-tail:].float(), said)
        return [found[i] for i in range(len(requests))]

    def _check(self) -> None:
        """Keys and values of other weights, or of another edit, are of no use."""
        if self._weights is not self.decoder.layers or self._steered is not self.edit:
            self._kept.clear()
            self._lengths.clear()
            self._bytes = 0
        self._weights, self._steered = self.decoder.layers, self.edit

    def _generate_batch(
        self,
        requests: Sequence[GenerationRequest],
        numbers: Sequence[int],
        params: SamplingParams,
        seed: int | Sequence[int],
        temperatures: Sequence[float] | None = None,
    ) -> list[list[Completion]]:
        self._samples_each = params.n
        groups = super()._generate_batch(requests, numbers, params, seed, temperatures)
        record, self._record = self._record, None
        assert record is not None
        row = 0
        for request, before, completions in zip(requests, record.before, groups, strict=True):
            for completion in completions:
                run = len(completion.token_ids) - 1  # the last token was sampled but not run
                self.positions += run
                if run:
                    ids = (*request.prompt_ids, *completion.token_ids[:run])
                    self._keep(request.sample.id, ids, record.row(row, len(request.prompt_ids), run, before))
                row += 1
        return groups

    def _prefill(self, requests: Sequence[GenerationRequest], budget: int) -> tuple[Tensor, KVCache, Tensor, Tensor]:
        device = self.policy.device
        states, cache, place = self._extend(requests, budget)
        logits = self._logits(torch.stack([found[-1] for found in states]))
        lengths = torch.tensor([len(r.prompt_ids) for r in requests], device=device)
        self._record = _Record(cache.keys, cache.values, cache.length)
        self._record.begin(states, self._samples_each)
        return logits, self._record, lengths, torch.tensor(place, device=device)

    def _logits(self, hidden: Tensor) -> Tensor:
        if self._record is not None:  # of sampled tokens, each on its way to the head
            self._record.hear(hidden)
        return super()._logits(hidden)

    def _extend(self, requests: Sequence[GenerationRequest], budget: int) -> tuple[list[Tensor], KVCache, list[int]]:
        """Run what no kept prefix covers: each context's last token at least.

        Returns:
            Of every context the normalised hidden states from the prompt's last token on, a cache with its keys and
            values from slot 0 and room for `budget` more, and its next position.
        """
        self._fill(requests)
        decoder, device = self.decoder, self.policy.device
        prefixes = [self._longest(r) for r in requests]
        kept = [self._kept[r.sample.id, r.prompt_ids[:p]] for r, p in zip(requests, prefixes, strict=True)]
        sizes = [len(r.prompt_ids) - p for r, p in zip(requests, prefixes, strict=True)]
        before, size = max(prefixes), max(sizes)
        width = max(len(r.prompt_ids) for r in requests)
        cache = decoder.new_cache(len(requests), before + size)
        cache.length = before
        ids = torch.full((len(requests), size), self.policy.pad_token_id)
        place = torch.zeros(len(requests), size, dtype=torch.long)
        following = []
        for row, (request, p, count) in enumerate(zip(requests, prefixes, sizes, strict=True)):
            for layer in range(decoder.depth):
                cache.keys[layer][row, :, :p] = kept[row].keys[layer]
                cache.values[layer][row, :, :p] = kept[row].values[layer]
                # Masked, but whatever memory held there must not be a NaN.
                cache.keys[layer][row, :, p:before] = 0
                cache.values[layer][row, :, p:before] = 0
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
        hidden = decoder.forward(embeddings, cos[place], sin[place], cache, mask, self.edit)
        self.positions += sum(sizes)
        full = self._aligned(cache, held, before, width, width + budget)
        states = [
            torch.cat((k.states, hidden[row, :count])) for row, (k, count) in enumerate(zip(kept, sizes, strict=True))
        ]
        for row, request in enumerate(requests):
            keys, values = _slice(full, row, len(request.prompt_ids))
            self._keep(request.sample.id, request.prompt_ids, _Kept(keys, values, states[row]))
        return states, full, following

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

    def _fill(self, requests: Sequence[GenerationRequest]) -> None:
        """Keep a prefix of every context: of those that have none, the prompt without its last token."""
        missing = {
            r.sample.id: GenerationRequest(sample=r.sample, prompt_ids=self.prompt(r.sample).ids)
            for r in requests
            if self._longest(r) == 0
        }
        for start in range(0, len(missing), self.max_rows):
            chunk = list(missing.values())[start : start + self.max_rows]
            _, cache, _, _ = super()._prefill(chunk, 0)
            for row, request in enumerate(chunk):
                ids = request.prompt_ids[:-1]
                self.positions += len(ids)
                keys, values = _slice(cache, row, len(ids))
                none = self.decoder.embeddings.new_empty(0, self.decoder.hidden_size)
                self._keep(request.sample.id, ids, _Kept(keys, values, none), needed=len(requests))

    def _longest(self, request: GenerationRequest) -> int:
        """Length of the longest kept prefix that leaves a token to run; 0 where none is kept."""
        id, ids = request.sample.id, request.prompt_ids
        for length in sorted(self._lengths[id], reverse=True):
            key = (id, ids[:length])
            if length < len(ids) and key in self._kept:
                self._kept.move_to_end(key)
                return length
        return 0

    def _keep(self, id: str, ids: tuple[int, ...], prefix: _Kept, *, needed: int = 1) -> None:
        """Remember a prefix, and make room: all but the `needed` newest may go."""
        if (id, ids) in self._kept:
            self._kept.move_to_end((id, ids))
            return
        self._kept[id, ids] = prefix
        self._lengths[id].add(len(ids))
        self._bytes += prefix.nbytes
        while self._bytes > self._memory and len(self._kept) > needed:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.nbytes


class _Record(KVCache):
    """A cache that holds on to the rows it is told to drop."""

    def begin(self, before: list[Tensor], samples_each: int) -> None:
        """The states `before` are those of the prompts; the first `select` repeats each `samples_each` times where that
        is above 1."""
        self.before = before
        self.repeats = samples_each > 1
        self.width = self.length
        self.origin = list(range(len(before) * samples_each))
        self.finished: dict[int, tuple[list[Tensor], list[Tensor], int]] = {}
        self.heard: list[tuple[dict[int, int], Tensor]] = []
        """Of every step: where each row stood in the batch, and the states [rows, hidden]."""

    def hear(self, hidden: Tensor) -> None:
        """The states of the tokens that every row sampled last."""
        self.heard.append(({row: at for at, row in enumerate(self.origin)}, hidden))

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

    def row(self, number: int, size: int, run: int, before: Tensor) -> _Kept:
        """What to keep of a prompt of `size` tokens and the first `run` tokens sampled after it."""
        if number in self.finished:
            keys, values, at = self.finished[number]
        else:
            keys, values, at = self.keys, self.values, self.origin.index(number)

        def of(store: list[Tensor]) -> Tensor:
            parts = [(k[at, :, :size], k[at, :, self.width : self.width + run]) for k in store]
            return torch.stack([torch.cat(part, dim=1) for part in parts])

        said = torch.stack([hidden[places[number]] for places, hidden in self.heard[:run]])
        return _Kept(of(keys), of(values), torch.cat((before, said)))


def _slice(cache: KVCache, row: int, size: int) -> tuple[Tensor, Tensor]:
    """A row's first slots, copied: [layers, kv_heads, size, head_dim]."""
    return torch.stack([k[row, :, :size] for k in cache.keys]), torch.stack([v[row, :, :size] for v in cache.values])
