"""The policy: a Hugging Face model, its processor, and the one forward pass that training uses.

`Policy.forward` maps a `TokenBatch` to log-probabilities of exactly the tokens that are trained on. It runs the
model's own modules (so FSDP2 hooks, LoRA and gradient checkpointing apply) or, for a plain model on a CPU, the same
computation in fewer operations (`trunk`). Three savings change no value: a prompt shared by several responses runs
once (tree attention), the language-model head sees only the positions that predict something, and a frozen vision
tower runs once a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from safeladder.models import trunk
from safeladder.models.families import Family, forbidden_token_ids, unwrap
from safeladder.models.processing import Encoded, encode_prompt, positions
from safeladder.models.trunk import Layout
from safeladder.types import Sample

_MAX_LOGIT_ELEMENTS = 1 << 27
"""Above this many logits the head runs in recomputed chunks (a 7B vocabulary would need gigabytes)."""


@dataclass(slots=True)
class Prompt:
    """An encoded prompt. `positions` is [3 or 1, length]; `features` caches a frozen vision tower's output."""

    ids: tuple[int, ...]
    positions: Tensor
    next_position: int
    encoded: Encoded
    features: Tensor | None = None

    @property
    def has_visuals(self) -> bool:
        return self.encoded.pixel_values is not None or self.encoded.video_pixel_values is not None


@dataclass(slots=True)
class TokenBatch:
    """Padded rows, each one prompt followed by one or more responses to it.

    Attributes:
        input_ids: [B, S].
        position_ids: [3 or 1, B, S].
        layout: which of these positions hold prompts and responses, and so what sees what.
        prompts: one a row, for the vision features.
        predict: [N] flat positions in B·S whose hidden state predicts a trained token.
        targets: [N] those tokens.
        row, column: [N] where each belongs in the [R, T] outputs.
        shape: (R, T) responses and longest response.
    """

    input_ids: Tensor
    position_ids: Tensor
    layout: Layout
    prompts: list[Prompt]
    predict: Tensor
    targets: Tensor
    row: Tensor
    column: Tensor
    shape: tuple[int, int]


@dataclass(slots=True)
class TokenOutputs:
    """Per-token results, [R, T], zero where nothing is counted. `entropy` carries no gradient."""

    logprobs: Tensor
    entropy: Tensor
    features: Tensor | None = None
    """Vision features [n, hidden] of this batch, for the grounding probe; None for text."""


class _PatchProjection(nn.Conv3d):
    """A convolution over single patches (Qwen2.5-VL's) as the matrix product that it is, three times as fast."""

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[2:] != self.kernel_size or self.groups > 1:
            return super().forward(input)
        return nn.functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None, None]


class Policy(nn.Module):
    """A policy ready to train and to sample from."""

    logit_bias: Tensor
    """[vocabulary] 0, or -1e9 for tokens that must never be sampled."""

    def __init__(self, model: Any, processor: Any, family: Family, *, system_prompt: str | None = None) -> None:
        super().__init__()
        for module in model.modules():
            if type(module) is nn.Conv3d and module.kernel_size == module.stride and module.padding == (0, 0, 0):
                module.__class__ = _PatchProjection
        self.model = model
        self.processor = processor
        self.family = family
        self.system_prompt = system_prompt
        self.compute_dtype: torch.dtype = next(model.parameters()).dtype
        """Of forward passes. Under bfloat16 trained parameters are float32 and run under autocast."""
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.eos_token_id = int(self.tokenizer.eos_token_id)
        self.pad_token_id = int(self.tokenizer.pad_token_id)
        self._placeholders = (family.image_token_id(model.config), family.video_token_id(model.config))
        bias = torch.zeros(family.lm_head(model).weight.shape[0])
        # Finite, so that 0 · log 0 is 0; the probability still underflows to exactly 0.
        bias[forbidden_token_ids(processor, model.config)] = -1e9
        self.register_buffer("logit_bias", bias, persistent=False)

    @property
    def device(self) -> torch.device:
        return self.logit_bias.device

    @property
    def vision_frozen(self) -> bool:
        """Whether no part that turns pixels into features is being trained, so that features can be kept."""
        parts = [unwrap(self.model).get_submodule(path) for path in self.family.frozen_paths]
        return not any(p.requires_grad for part in parts for p in part.parameters())

    def prompt(self, sample: Sample) -> Prompt:
        """Encode a sample's messages up to where the assistant's turn begins."""
        encoded = encode_prompt(self.processor, self.family, sample, system_prompt=self.system_prompt)
        ids = encoded.prompt_ids
        place = positions(self.family, ids, encoded.image_grid_thw, encoded.video_grid_thw, self.model.config)
        return Prompt(ids=ids, positions=place, next_position=int(place.max()) + 1, encoded=encoded)

    def visual_features(self, prompts: Sequence[Prompt]) -> Tensor | None:
        """Vision features of all prompts, [n, hidden]: every image in order, then every video."""
        pixels = [p.encoded.pixel_values for p in prompts if p.encoded.pixel_values is not None]
        videos = [p.encoded.video_pixel_values for p in prompts if p.encoded.video_pixel_values is not None]
        if not pixels and not videos:
            return None
        grids = [p.encoded.image_grid_thw for p in prompts if p.encoded.image_grid_thw is not None]
        grids += [p.encoded.video_grid_thw for p in prompts if p.encoded.video_grid_thw is not None]
        return self.family.visual_features(
            self.model, torch.cat(pixels + videos).to(self.device), torch.cat(grids) if grids else None
        )

    def cache_features(self, prompts: Sequence[Prompt]) -> None:
        """Run the (frozen) vision tower on the prompts that have not seen it yet and keep the result on them."""
        for start in range(0, len(prompts), 64):
            fresh = [p for p in prompts[start : start + 64] if p.has_visuals and p.features is None]
            if not fresh:
                continue
            with torch.no_grad():
                features = self.visual_features(fresh)
            assert features is not None
            for prompt, part in zip(fresh, self._by_prompt(fresh, features), strict=True):
                prompt.features = part

    def _by_prompt(self, prompts: Sequence[Prompt], features: Tensor) -> list[Tensor]:
        """Split images-then-videos features into one tensor a prompt (its images, then its videos)."""
        counts = [self._visual_tokens(p) for p in prompts]
        pieces = features.split([i for i, _ in counts] + [v for _, v in counts])
        return [torch.cat((pieces[k], pieces[k + len(prompts)])) for k in range(len(prompts))]

    def _visual_tokens(self, prompt: Prompt) -> tuple[int, int]:
        return prompt.ids.count(self._placeholders[0]), prompt.ids.count(self._placeholders[1])

    def embed(
        self, input_ids: Tensor, prompts: Sequence[Prompt], table: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Token embeddings [B, S, H] with vision features in place, and the features (fresh ones only).

        `table` replaces the model's embedding matrix (an engine may hold newer or older weights).
        """
        if table is None:
            embeddings = self.family.text_model(self.model).get_input_embeddings()(input_ids)
        else:
            embeddings = nn.functional.embedding(input_ids, table)
        visual = [p for p in prompts if p.has_visuals]
        if not visual:
            return embeddings, None
        fresh = None
        if all(p.features is not None for p in visual):
            parts = [p.features for p in visual if p.features is not None]
        else:
            fresh = self.visual_features(visual)
            assert fresh is not None
            parts = self._by_prompt(visual, fresh)
        for kind, token_id in enumerate(self._placeholders):
            if token_id is None:
                continue
            chosen = []
            for prompt, part in zip(visual, parts, strict=True):
                images, videos = self._visual_tokens(prompt)
                chosen.append(part[:images] if kind == 0 else part[images : images + videos])
            flat = torch.cat(chosen)
            if len(flat):
                where = (input_ids == token_id).unsqueeze(-1)
                embeddings = embeddings.masked_scatter(where, flat.to(embeddings.dtype))
        return embeddings, fresh

    def forward(self, batch: TokenBatch, temperature: float = 1.0) -> TokenOutputs:
        """Log-probabilities and entropies of the batch's trained tokens, under the sampling distribution.

        The same tokens are forbidden and the same temperature applies as when sampling, so that the ratio to the
        engine's log-probabilities is exactly one before the first update.
        """
        text, head = self.family.text_model(self.model), self.family.lm_head(self.model)
        fused = trunk.supports(text, head)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.compute_dtype == torch.bfloat16):
            embeddings, features = self.embed(batch.input_ids, batch.prompts)
            place = batch.position_ids if self.family.rope_dimensions == 3 else batch.position_ids[0]
            if fused:
                # A shared prompt's last token predicts the first one of all its responses.
                wanted, where = batch.layout.packed[batch.predict].unique(return_inverse=True)
                chosen = trunk.forward(text, embeddings, place, batch.layout, wanted)[where]
            else:
                states = self._module_states(text, embeddings, place, batch.layout)
                chosen = states.reshape(-1, states.shape[-1])[batch.predict]
        of = self._fused_logprobs if fused else self._module_logprobs
        logprobs, entropy = _in_parts(
            lambda part, ids: of(text, head, part, ids, temperature),
            chosen,
            batch.targets,
            max(1, _MAX_LOGIT_ELEMENTS // self.logit_bias.numel()),
        )
        index = (batch.row, batch.column)
        zeros = torch.zeros(batch.shape, dtype=torch.float32, device=logprobs.device)
        return TokenOutputs(
            logprobs=zeros.index_put(index, logprobs),
            entropy=zeros.index_put(index, entropy),
            features=features,
        )

    def _module_states(self, text: Any, embeddings: Tensor, place: Tensor, layout: Layout) -> Tensor:
        """Final hidden states [B, S, H] from the model's own modules."""
        mask: Any = layout.mask.to(embeddings.device) if layout.shared else None
        if self.family.mask_is_mapping:
            mask = {"full_attention": mask}
        output = text(inputs_embeds=embeddings, position_ids=place, attention_mask=mask, use_cache=False)
        return output.last_hidden_state

    def _fused_logprobs(
        self, text: Any, head: Any, states: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        norm, eps = text.norm.weight, text.config.rms_norm_eps
        return trunk.token_logprobs(
            states, norm, head.weight, self.logit_bias, targets, temperature=temperature, eps=eps
        )

    def _module_logprobs(
        self, text: Any, head: Any, states: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        logits = nn.functional.linear(states.to(head.weight.dtype), head.weight).float()
        if temperature != 1.0:
            logits = logits / temperature
        logp = torch.log_softmax(logits + self.logit_bias, dim=-1)
        with torch.no_grad():
            entropy = -torch.linalg.vecdot(logp.exp(), logp)
        return logp.gather(1, targets.unsqueeze(1)).squeeze(1), entropy


def _in_parts(
    of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], states: Tensor, targets: Tensor, rows: int
) -> tuple[Tensor, Tensor]:
    """`of` over at most `rows` rows at a time, recomputed in the backward pass where there is more than one part."""
    if len(targets) <= rows:
        return of(states, targets)
    parts = [
        checkpoint(of, part, ids, use_reentrant=False)
        for part, ids in zip(states.split(rows), targets.split(rows), strict=True)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
