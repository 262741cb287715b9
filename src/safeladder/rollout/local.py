"""The in-process engine: batched sampling over a policy's own weights, for images, video and text.

A prompt is encoded and prefilled once for all its samples; rows that end are dropped from the batch; every row draws
its randomness from (seed, sample id, context length, sample number), so the same seed gives the same ids
however the work is split. Where one call asks for a sample several times, its numbers go on counting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safeladder.models.load import Dtype, load_checkpoint
from safeladder.models.policy import Policy, Prompt
from safeladder.rollout.decoder import Decoder, KVCache, MlpEdit
from safeladder.rollout.sampling import draw, first_numbers, uniforms
from safeladder.types import (
    Completion,
    GenerationRequest,
    SafeladderError,
    Sample,
    SamplingParams,
    StopReason,
)

_COMPACT_BELOW = 0.75
"""Rows are dropped once fewer than this share is still running: copying the cache costs more than a few idle rows."""


class LocalEngine:
    """`Engine` over a policy in this process.

    Args:
        policy: shared with the learner; its vision tower and embeddings' shapes are used, its weights are copied on
            `sync`.
        max_rows: rows decoded together.
    """

    def __init__(self, policy: Policy, *, max_rows: int = 256) -> None:
        self.policy = policy
        self.max_rows = max_rows
        self._prompts: dict[str, Prompt] = {}
        self._decoder: Decoder | None = None
        self._closers: dict[tuple[str, ...], Tensor] = {}
        self.edit: MlpEdit | None = None
        """Steers every forward pass of the language model while it is set."""
        self.sync()

    @classmethod
    def load(cls, path: str, *, device: str = "cpu", dtype: Dtype = "float32") -> LocalEngine:
        """An engine over a local Hugging Face checkpoint."""
        model, processor, family = load_checkpoint(path, dtype=dtype, device=device)
        return cls(Policy(model, processor, family).to(device).eval())

    def sync(self) -> None:
        """Copy the policy's current weights (adapters merged) into the decoder."""
        self.load_weights(text_weights(self.policy))

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Take full tensors named as in the text model's state dict, plus ``lm_head.weight``."""
        if self._decoder is None:
            text = self.policy.family.text_model(self.policy.model)
            self._decoder = Decoder(text.config, text.rotary_emb, weights, self.policy.compute_dtype)
        else:
            self._decoder.load(weights)

    @property
    def decoder(self) -> Decoder:
        assert self._decoder is not None
        return self._decoder

    @property
    def context_length(self) -> int:
        return self.policy.family.text_model(self.policy.model).config.max_position_embeddings

    def prompt(self, sample: Sample) -> Prompt:
        """The encoded prompt, remembered by sample id."""
        found = self._prompts.get(sample.id)
        if found is None:
            found = self._prompts[sample.id] = self.policy.prompt(sample)
        return found

    def forget(self) -> None:
        """Drop remembered prompts (and their vision features)."""
        self._prompts.clear()

    def prompt_ids(self, sample: Sample) -> tuple[int, ...]:
        return self.prompt(sample).ids

    def decode(self, token_ids: Sequence[int]) -> str:
        ids = list(token_ids)
        if ids and ids[-1] == self.policy.eos_token_id:
            ids.pop()
        return str(self.policy.tokenizer.decode(ids, skip_special_tokens=False))

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, *, seed: int
    ) -> list[list[Completion]]:
        """`params.n` completions a request, in order.

        Raises:
            SafeladderError: the prompt and the token budget exceed the model's context.
        """
        self._require_room(requests, params)
        results: list[list[Completion]] = [[] for _ in requests]
        numbers = first_numbers(requests, params.n)
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids))
        per_batch = max(1, self.max_rows // params.n)
        for start in range(0, len(order), per_batch):
            chunk = order[start : start + per_batch]
            asked, first = [requests[i] for i in chunk], [numbers[i] for i in chunk]
            batch = self._generate_batch(asked, first, params, seed)
            for i, completions in zip(chunk, batch, strict=True):
                results[i] = completions
        return results

    def _require_room(self, requests: Sequence[GenerationRequest], params: SamplingParams) -> None:
        for request in requests:
            needed = len(request.prompt_ids) + params.max_new_tokens
            if needed > self.context_length:
                raise SafeladderError(
                    f"sample {request.sample.id}: prompt and budget need {needed} positions, "
                    f"the model has {self.context_length}"
                )

    def _generate_batch(
        self,
        requests: Sequence[GenerationRequest],
        numbers: Sequence[int],
        params: SamplingParams,
        seed: int | Sequence[int],
        temperatures: Sequence[float] | None = None,
    ) -> list[list[Completion]]:
        """One batch. `seed` is of all requests or of each; `temperatures`, of each, stand for that of `params`."""
        device, budget, n = self.policy.device, params.max_new_tokens, params.n
        seeds = [seed] * len(requests) if isinstance(seed, int) else seed
        noise = torch.from_numpy(
            np.stack(
                [
                    uniforms(own, request.sample.id, len(request.prompt_ids), first + k, budget)
                    for request, first, own in zip(requests, numbers, seeds, strict=True)
                    for k in range(n)
                ]
            )
        ).to(device)
        heat = [t for t in temperatures or [params.temperature] * len(requests) for _ in range(n)]
        logits, cache, lengths, next_position = self._prefill(requests, budget)
        repeat = torch.arange(len(requests), device=device).repeat_interleave(n)
        logits, lengths, next_position = logits[repeat], lengths[repeat], next_position[repeat]
        if n > 1:
            cache.select(repeat)
        width = cache.length
        total = len(repeat)
        ids = torch.zeros(total, budget, dtype=torch.long, device=device)
        logprobs = torch.zeros(total, budget, device=device)
        top_ids = torch.zeros(total, budget, params.top_logprobs, dtype=torch.long, device=device)
        top_logprobs = torch.zeros(total, budget, params.top_logprobs, device=device)
        counts = torch.full((total,), budget, dtype=torch.long)
        ended = torch.zeros(total, dtype=torch.bool)  # by the end token or a stop sequence
        stopped = torch.zeros(total, dtype=torch.bool)
        rows = torch.arange(total, device=device)  # which output row each batch row writes to
        running, left = torch.ones(total, dtype=torch.bool, device=device), total
        visible = torch.zeros(total, width + budget, dtype=torch.bool, device=device)
        visible[:, :width] = torch.arange(width, device=device) < lengths.unsqueeze(1)
        cos, sin = self._rotary_table(int(next_position.max()) + budget)

        for step in range(budget):
            tokens, logp = draw(logits, noise[:, step], heat, params.top_p)
            ids[:, step].index_copy_(0, rows, tokens)
            logprobs[:, step].index_copy_(0, rows, logp.gather(1, tokens.unsqueeze(1)).squeeze(1))
            if params.top_logprobs:
                top_logprobs[rows, step], top_ids[rows, step] = logp.topk(params.top_logprobs)
            done = tokens == self.policy.eos_token_id
            if params.stop:
                hit = self._stop_hit(ids, rows, step, params.stop, running & ~done)
                stopped[rows[hit].cpu()] = True
                done = done | hit
            newly = running & done
            if newly.any():
                finished = rows[newly].cpu()
                counts[finished] = step + 1
                ended[finished] = True
                running = running & ~done
                left = int(running.sum())
            if step == budget - 1 or not left:
                break
            if left <= _COMPACT_BELOW * len(running):
                keep = running.nonzero().squeeze(1)
                cache.select(keep)
                rows, tokens, running = rows[keep], tokens[keep], running[keep]
                visible, next_position, noise = visible[keep], next_position[keep], noise[keep]
                heat = [heat[row] for row in keep.tolist()]
            visible[:, width + step] = True
            place = next_position + step
            hidden = self.decoder.forward(
                torch.nn.functional.embedding(tokens.unsqueeze(1), self.decoder.embeddings),
                cos[place].unsqueeze(1),
                sin[place].unsqueeze(1),
                cache,
                visible[:, None, None, : width + step + 1],
                self.edit,
            )
            logits = self._logits(hidden[:, 0])

        sampled, sampled_logprobs = ids.tolist(), logprobs.tolist()
        beside: list[tuple[tuple[tuple[int, float], ...], ...]] = [()] * total
        if params.top_logprobs:
            beside = [
                tuple(tuple(zip(ids, values, strict=True)) for ids, values in zip(*row, strict=True))
                for row in zip(top_ids.tolist(), top_logprobs.tolist(), strict=True)
            ]
        out: list[list[Completion]] = []
        for i in range(len(requests)):
            completions = []
            for j in range(i * n, (i + 1) * n):
                count = int(counts[j])
                reason = StopReason.LENGTH
                if ended[j]:
                    reason = StopReason.STOP if stopped[j] else StopReason.EOS
                completions.append(
                    Completion(
                        token_ids=tuple(sampled[j][:count]),
                        logprobs=tuple(sampled_logprobs[j][:count]),
                        stop_reason=reason,
                        top_logprobs=beside[j][:count],
                    )
                )
            out.append(completions)
        return out

    def _prefill(self, requests: Sequence[GenerationRequest], budget: int) -> tuple[Tensor, KVCache, Tensor, Tensor]:
        """Logits after each prompt [P, V], the filled cache, prompt lengths [P] and next positions [P]."""
        return self._run_prompts(requests, [self.prompt(r.sample) for r in requests], budget, self.edit)

    def _run_prompts(
        self, requests: Sequence[GenerationRequest], prompts: Sequence[Prompt], budget: int, edit: MlpEdit | None
    ) -> tuple[Tensor, KVCache, Tensor, Tensor]:
        """`_prefill` with the encoded prompts of the requests' samples at hand."""
        policy, decoder, device = self.policy, self.decoder, self.policy.device
        # Features of a moving tower would be stale after an update, and cut it off from its gradient.
        if policy.vision_frozen:
            policy.cache_features(prompts)
        lengths = torch.tensor([len(r.prompt_ids) for r in requests])
        width = int(lengths.max())
        ids = torch.full((len(requests), width), policy.pad_token_id)
        place = torch.zeros(prompts[0].positions.shape[0], len(requests), width, dtype=torch.long)
        next_position = torch.zeros(len(requests), dtype=torch.long)
        for i, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            said = len(request.prompt_ids) - len(prompt.ids)  # earlier turns, after the first prompt
            ids[i, : lengths[i]] = torch.tensor(request.prompt_ids)
            place[:, i, : len(prompt.ids)] = prompt.positions
            place[:, i, len(prompt.ids) : lengths[i]] = prompt.next_position + torch.arange(said)
            next_position[i] = prompt.next_position + said
        ids, place, lengths = ids.to(device), place.to(device), lengths.to(device)
        embeddings, _ = policy.embed(ids, prompts, table=decoder.embeddings)
        cos, sin = decoder.rotary(embeddings, place if policy.family.rope_dimensions == 3 else place[0])
        cache = decoder.new_cache(len(requests), width + budget)
        hidden = decoder.forward(embeddings, cos, sin, cache, None, edit)
        last = hidden[torch.arange(len(requests), device=device), lengths - 1]
        return self._logits(last), cache, lengths, next_position.to(device)

    def _rotary_table(self, size: int) -> tuple[Tensor, Tensor]:
        """cos and sin [size, head_dim] for text positions, where all rotary dimensions agree."""
        place = torch.arange(size, device=self.policy.device).unsqueeze(0)
        if self.policy.family.rope_dimensions == 3:
            place = place.expand(3, 1, size)
        cos, sin = self.decoder.rotary(self.decoder.embeddings, place)
        return cos[0], sin[0]

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.decoder.logits(hidden, self.policy.logit_bias)

    def _closing(self, stop: tuple[str, ...]) -> Tensor:
        """bool [vocabulary]: tokens that can complete a stop sequence, so that few rows need decoding."""
        if stop not in self._closers:
            last = {s[-1] for s in stop}
            tokenizer = self.policy.tokenizer
            texts = [tokenizer.decode([i], skip_special_tokens=False) for i in range(len(tokenizer))]
            known = torch.zeros(len(self.policy.logit_bias), dtype=torch.bool)
            # A character of several bytes may end in a token that is no text of its own.
            known[: len(texts)] = torch.tensor([bool(last & set(text)) or "\ufffd" in text for text in texts])
            self._closers[stop] = known.to(self.policy.device)
        return self._closers[stop]

    def _stop_hit(self, ids: Tensor, rows: Tensor, step: int, stop: Sequence[str], running: Tensor) -> Tensor:
        """Which running rows just completed a stop sequence."""
        # A token is at least one byte; a few more for those that are split.
        window = max(len(s.encode()) for s in stop) + 4
        hit = torch.zeros_like(running)
        candidates = running & self._closing(tuple(stop))[ids[rows, step]]
        for b in candidates.nonzero().squeeze(1).tolist():
            tail = ids[rows[b], max(0, step + 1 - window) : step + 1].tolist()
            # Its last character may share a token with what follows, so the text need not end with it.
            text = self.decode(tail)
            hit[b] = any(s in text for s in stop)
        return hit


def text_weights(policy: Policy) -> dict[str, Tensor]:
    """The language model's weights under plain names, LoRA adapters added in, plus ``lm_head.weight``."""
    text = policy.family.text_model(policy.model)
    weights = {name: value for name, value in text.state_dict().items() if ".lora_" not in name}
    weights = {name.replace(".base_layer.", "."): value for name, value in weights.items()}
    for name, module in text.named_modules():
        if hasattr(module, "get_delta_weight"):
            for adapter in module.active_adapters:
                key = f"{name}.weight"
                weights[key] = weights[key] + module.get_delta_weight(adapter).to(weights[key].dtype)
    weights["lm_head.weight"] = policy.family.lm_head(policy.model).weight
    return weights
