"""A batched KV-cache forward pass over the weights of any Llama-shaped language model.

Qwen2.5-VL, InternVL (Qwen2 or Llama text tower) and DeepSeek-R1-distill-Llama share one block: RMSNorm, grouped-query
attention with rotary positions, SwiGLU. For decoding one token a step the modules of `transformers` spend most of
their time in Python; here the query, key and value projections are one matrix, gate and up another, and a step is a
dozen tensor operations a layer. Same weights, same values (tested against the modules to 1e-5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from safeladder import kernels
from safeladder.models.packed import Block, Blocks, pack
from safeladder.types import SafeladderError

MlpEdit = Callable[[int, Tensor], Tensor]
"""(layer, MLP output [B, S, H]) -> what is added to the residual stream instead: how directions steer a decoder."""


@dataclass(slots=True)
class _Layer:
    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(slots=True)
class KVCache:
    """Keys and values, one pair [rows, kv_heads, capacity, head_dim] a layer; `length` slots are filled."""

    keys: list[Tensor]
    values: list[Tensor]
    length: int = 0

    def select(self, rows: Tensor) -> None:
        """Keep (or repeat) rows; only filled slots are copied."""
        for store in (self.keys, self.values):
            for i, old in enumerate(store):
                new = old.new_empty(len(rows), *old.shape[1:])
                new[:, :, : self.length] = old[:, :, : self.length].index_select(0, rows)
                store[i] = new


class Decoder:
    """The language model of a policy, for inference.

    Args:
        config: the text configuration (hidden_size, num_attention_heads, num_key_value_heads, rms_norm_eps, ...).
        rotary: the model's own rotary module: (x, position_ids) -> (cos, sin), each [B, S, head_dim].
        weights: full tensors named as in the text model's state dict, plus ``lm_head.weight``.
        dtype: to run in.
    """

    def __init__(self, config: Any, rotary: Any, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.hidden_size = config.hidden_size
        self.eps = config.rms_norm_eps
        self.depth = config.num_hidden_layers
        self.rotary = rotary
        if getattr(config, "hidden_act", "silu") != "silu" or getattr(config, "use_sliding_window", False):
            raise SafeladderError("the in-process engine runs SwiGLU models with full attention only")
        self.load(weights)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Fuse and copy the weights. Raises `SafeladderError` for an architecture with other parts."""

        def copy(*names: str) -> Tensor:
            return torch.cat([weights[name].detach().to(self.dtype) for name in names])

        tied = weights["lm_head.weight"].data_ptr() == weights["embed_tokens.weight"].data_ptr()
        layers = []
        for i in range(self.depth):
            attention, mlp = f"layers.{i}.self_attn.", f"layers.{i}.mlp."
            if attention + "q_norm.weight" in weights:
                raise SafeladderError("the in-process engine does not support query/key norms (Qwen3)")
            biased = attention + "q_proj.bias" in weights
            layers.append(
                _Layer(
                    attention_norm=copy(f"layers.{i}.input_layernorm.weight"),
                    qkv=copy(*(f"{attention}{p}_proj.weight" for p in "qkv")),
                    qkv_bias=copy(*(f"{attention}{p}_proj.bias" for p in "qkv")) if biased else None,
                    output=copy(attention + "o_proj.weight"),
                    mlp_norm=copy(f"layers.{i}.post_attention_layernorm.weight"),
                    gate_up=copy(mlp + "gate_proj.weight", mlp + "up_proj.weight"),
                    down=copy(mlp + "down_proj.weight"),
                )
            )
        self.layers = layers
        self.embeddings = copy("embed_tokens.weight")
        self.norm = copy("norm.weight")
        self.head = self.embeddings if tied else copy("lm_head.weight")
        self._blocks, self._head = self._packed(), pack(self.head)

    def _packed(self) -> Blocks | None:
        blocks = []
        for layer in self.layers:
            qkv, output, gate_up, down = (pack(w) for w in (layer.qkv, layer.output, layer.gate_up, layer.down))
            if qkv is None or output is None or gate_up is None or down is None:
                return None
            blocks.append(Block(layer.attention_norm, qkv, layer.qkv_bias, output, layer.mlp_norm, gate_up, down))
        return Blocks(blocks, self.norm, self.eps)

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """An empty cache."""
        shape = (rows, self.kv_heads, capacity, self.head_dim)

        def make() -> list[Tensor]:
            return [self.embeddings.new_empty(shape) for _ in range(self.depth)]

        return KVCache(keys=make(), values=make())

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache, mask: Tensor | None, edit: MlpEdit | None = None
    ) -> Tensor:
        """Run tokens through the blocks and append their keys and values.

        Args:
            x: embeddings [B, S, H] of the next S tokens.
            cos, sin: rotary tables [B, S, head_dim].
            cache: with `length` slots filled.
            mask: bool [B, 1, S, length + S]; None = causal (only while the cache is empty).
            edit: steers every layer's MLP output; None leaves the model as it is.

        Returns:
            Normalised hidden states [B, S, H].
        """
        rows, size, _ = x.shape
        end = cache.length + size
        if size == 1 and edit is None and self._blocks is not None:
            seen = None if mask is None else mask[:, 0, 0]
            store = (cache.keys, cache.values, cache.length, seen)
            stepped = self._blocks.step(x[:, 0].contiguous(), cos[:, 0], sin[:, 0], *store)
            if stepped is not None:
                cache.length = end
                return stepped.unsqueeze(1)
        for i, layer in enumerate(self.layers):
            y = kernels.rms_norm(x, layer.attention_norm, self.eps)
            qkv = F.linear(y, layer.qkv, layer.qkv_bias)
            attended = None
            if size == 1:
                seen = None if mask is None else mask[:, 0, 0]
                store = (cache.keys[i], cache.values[i], cache.length, seen)
                attended = kernels.decode(qkv[:, 0], cos[:, 0], sin[:, 0], *store)
            if attended is None:
                attended = self._attend(i, qkv, cos, sin, cache, mask)
            x = x + F.linear(attended.view(rows, size, -1), layer.output)
            y = kernels.rms_norm(x, layer.mlp_norm, self.eps)
            update = F.linear(kernels.swiglu(F.linear(y, layer.gate_up)), layer.down)
            x = x + (update if edit is None else edit(i, update))
        cache.length = end
        return kernels.rms_norm(x, self.norm, self.eps)

    def logits(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """float32 [N, V] of normalised hidden states [N, H], plus `bias` [V]."""
        if self._head is not None:
            return self._head.project(hidden.contiguous(), bias)
        return F.linear(hidden, self.head).float() + bias

    def _attend(self, i: int, qkv: Tensor, cos: Tensor, sin: Tensor, cache: KVCache, mask: Tensor | None) -> Tensor:
        """Attention [B, S, heads·D] of layer i; keys and values join the cache."""
        rows, size, _ = qkv.shape
        start, end = cache.length, cache.length + size
        heads, kv_heads, dim = self.heads, self.kv_heads, self.head_dim
        group = heads // kv_heads
        half = dim // 2
        qkv = qkv.view(rows, size, heads + 2 * kv_heads, dim)
        cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
        # Rotation as x·cos + swap(x)·sin with the sign folded into the table: one concatenation less.
        sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
        qk = qkv[:, :, : heads + kv_heads]
        qk = qk * cos + qk.roll(half, dims=-1) * sin
        keys, values = cache.keys[i], cache.values[i]
        keys[:, :, start:end] = qk[:, :, heads:].transpose(1, 2)
        values[:, :, start:end] = qkv[:, :, heads + kv_heads :].transpose(1, 2)
        keys, values = keys[:, :, :end], values[:, :, :end]
        if size == 1:  # queries of one group share their key head: fold the group into the length axis
            query = qk[:, :, :heads].view(rows, kv_heads, group, dim)
            return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask).reshape(rows, 1, heads * dim)
        attended = F.scaled_dot_product_attention(
            qk[:, :, :heads].transpose(1, 2), keys, values, attn_mask=mask, is_causal=mask is None, enable_gqa=group > 1
        )
        return attended.transpose(1, 2).reshape(rows, size, heads * dim)
