"""The decoder stack's training pass on a CPU: the same values as the model's own modules, in fewer operations.

On small models a training step on a CPU spends most of its time between the matrix products: one thin element-wise
pass after the other, each with its own autograd node, over tokens half of which may be padding. Here

- padding is dropped: all tokens of a batch stand in one [N, hidden] matrix, and only attention sees rows;
- a prompt shared by several responses runs once, and each response attends to the prompt and itself, so no product is
  computed to be masked;
- the last block computes keys and values of all tokens, and the rest of those that predict something;
- a block is one autograd function with a hand-written backward pass: query, key and value are one product, gate and up
  another, a norm's weight is folded into the product that follows it, and rotary positions are one complex product;
- log-probabilities come from one softmax, which its backward pass reuses;
- what is between the products is compiled where there is a C compiler (`kernels`).

It covers the block that Qwen2.5-VL, InternVL (Qwen2) and Llama share: RMSNorm, grouped-query attention with rotary
positions, SwiGLU. `supports` says where it applies; everywhere else the modules run as they are, and tests hold both
to the same values and gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from safeladder import kernels

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def supports(text: Any, head: nn.Module) -> bool:
    """Whether `forward` computes what the text model's own modules would.

    Not on a GPU (whose kernels need no help), not in half precision, not with adapters, sharding or recomputation
    (their hooks sit on the modules), and not for blocks with other parts.
    """
    config = text.config
    parts = [*text.parameters(), *head.parameters()]
    if any(type(p) is not nn.Parameter or p.dtype != torch.float32 or p.device.type != "cpu" for p in parts):
        return False
    modules = list(text.modules())
    if any(m._forward_hooks or m._forward_pre_hooks or getattr(m, "gradient_checkpointing", False) for m in modules):
        return False
    if getattr(config, "hidden_act", "silu") != "silu" or getattr(config, "use_sliding_window", False):
        return False
    if torch.is_autocast_enabled("cpu") or (text.training and getattr(config, "attention_dropout", 0.0)):
        return False
    expected = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
                "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm"}  # fmt: skip
    layer = text.layers[0]
    found = {name.rpartition(".")[0] for name, _ in layer.named_parameters()}
    return found == expected and layer.self_attn.o_proj.bias is None and layer.mlp.gate_proj.bias is None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the tokens of a padded batch [B, S] stand: row b holds a prompt of `prompts[b]` tokens, then its
    responses, the lengths of which are `responses[b]`.
    """

    length: int
    prompts: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]

    @cached_property
    def tokens(self) -> Tensor:
        """[N] flat positions in B·S that hold a token."""
        ends = torch.tensor([p + sum(r) for p, r in zip(self.prompts, self.responses, strict=True)])
        return (torch.arange(self.length) < ends.unsqueeze(1)).flatten().nonzero().squeeze(1)

    @cached_property
    def packed(self) -> Tensor:
        """[B·S] the place of each position among `tokens`; what padding maps to has no meaning."""
        index = torch.zeros(len(self.prompts) * self.length, dtype=torch.long)
        index[self.tokens] = torch.arange(len(self.tokens))
        return index

    @cached_property
    def mask(self) -> Tensor:
        """bool [B, 1, S, S]: every token sees its prompt and its own response up to itself."""
        segment = torch.full((len(self.prompts), self.length), -1)
        for b, (prompt, responses) in enumerate(zip(self.prompts, self.responses, strict=True)):
            segment[b, :prompt] = 0
            start = prompt
            for k, size in enumerate(responses, start=1):
                segment[b, start : start + size] = k
                start += size
        causal = torch.ones(self.length, self.length, dtype=torch.bool).tril()
        visible = (segment[:, None, :] == 0) | (segment[:, None, :] == segment[:, :, None])
        return (causal & visible)[:, None]

    @property
    def shared(self) -> bool:
        """Whether any prompt has more than one response."""
        return any(len(r) != 1 for r in self.responses)

    @cached_property
    def spans(self) -> Tensor:
        """int64 [R, 4]: rows of causal attention among the tokens, and the prompt that all of a row sees as well.

        A row is a prompt with its response, or where prompts are shared, a prompt or a response.
        """
        rows = []
        start = 0
        for prompt, responses in zip(self.prompts, self.responses, strict=True):
            if not self.shared:
                rows.append((start, prompt + responses[0], 0, 0))
                start += prompt + responses[0]
                continue
            rows.append((start, prompt, 0, 0))
            offset, start = start, start + prompt
            for size in responses:
                rows.append((start, size, offset, prompt))
                start += size
        return torch.tensor(rows)

    @cached_property
    def blocks(self) -> tuple[_Block, ...]:
        """The rows of `spans`, padded: those that see no prompt beside themselves, and those that do."""
        alone = self.spans[:, 3] == 0
        blocks = [_block(self.spans[alone])]
        return tuple(blocks) if alone.all() else (*blocks, _block(self.spans[~alone]))


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Attention of R rows. `queries` [R, T] and `keys` [R, K] index tokens (padding points at token 0), `real` [R, T]
    marks queries, `bias` [R, 1, T, K] is added to the scores; None = causal over the row itself.
    """

    queries: Tensor
    keys: Tensor
    real: Tensor
    bias: Tensor | None

    @cached_property
    def place(self) -> Tensor:
        """Flat places in R·T of the real queries."""
        return self.real.flatten().nonzero().squeeze(1)

    @cached_property
    def token(self) -> Tensor:
        """The token of each of them."""
        return self.queries.flatten()[self.place]


def _spread(spans: Tensor) -> tuple[Tensor, Tensor]:
    """Token numbers [R, T] of (start, size) spans [R, 2], and which of them are real."""
    starts, sizes = spans.unbind(1)
    within = torch.arange(int(sizes.max()))
    real = within < sizes.unsqueeze(1)
    return torch.where(real, starts.unsqueeze(1) + within, 0), real


def _block(spans: Tensor) -> _Block:
    queries, real = _spread(spans[:, :2])
    if not spans[:, 3].any():
        return _Block(queries=queries, keys=queries, real=real, bias=None)
    context, visible = _spread(spans[:, 2:])
    size = queries.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool).tril()
    seen = torch.cat((visible.unsqueeze(1).expand(-1, size, -1), causal.expand(len(spans), -1, -1)), dim=2)
    bias = torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf)
    return _Block(queries=queries, keys=torch.cat((context, queries), dim=1), real=real, bias=bias.unsqueeze(1))


def forward(text: Any, embeddings: Tensor, position_ids: Tensor, layout: Layout, wanted: Tensor) -> Tensor:
    """Hidden states [W, hidden] of some of a batch's tokens before the last norm.

    Args:
        text: the text model, for which `supports` holds.
        embeddings: [B, S, hidden], padding included.
        position_ids: [B, S], or [3, B, S] for multimodal rotary positions.
        layout: where the tokens stand.
        wanted: [W] which of its tokens, each at most once: in the last block the others are only attended to.
    """
    config = text.config
    dimension = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cos, sin = text.rotary_emb(embeddings, position_ids)
    half = dimension // 2
    turn = torch.complex(*(t.reshape(-1, dimension)[:, :half] for t in (cos, sin)))[layout.tokens]
    shape = _Shape(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        dimension=dimension,
        eps=config.rms_norm_eps,
    )
    x = embeddings.reshape(-1, embeddings.shape[-1])[layout.tokens]
    for number, layer in enumerate(text.layers, start=1):
        attention, mlp = layer.self_attn, layer.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        biases = None if projections[0].bias is None else torch.cat([p.bias for p in projections])
        x = _Layer.apply(
            x,
            turn,
            layout,
            shape,
            wanted if number == len(text.layers) else None,
            layer.input_layernorm.weight,
            torch.cat([p.weight for p in projections]),
            biases,
            attention.o_proj.weight,
            layer.post_attention_layernorm.weight,
            torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)),
            mlp.down_proj.weight,
        )
    return x


def token_logprobs(
    x: Tensor, norm: Tensor, head: Tensor, bias: Tensor, targets: Tensor, *, temperature: float, eps: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [M] of `targets` under softmax((RMSNorm(x)·headᵀ)/temperature + bias), and entropies [M].

    `x` [M, hidden] comes before the last norm. Entropies carry no gradient.
    """
    logprobs, entropy = _Head.apply(x, norm, head, bias, targets, temperature, eps)
    return logprobs, entropy


@dataclass(frozen=True, kw_only=True)
class _Shape:
    heads: int
    kv_heads: int
    dimension: int
    eps: float


def _folded(gradient: Tensor, weight: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
    """From the gradient of weight·diag(norm): that of the weight and that of the norm."""
    return gradient * norm, torch.linalg.vecdot(gradient, weight, dim=0)


def _attend(mixed: Tensor, layout: Layout, shape: _Shape) -> tuple[Tensor, list[Tensor]]:
    """Attention [N, heads·D] over rotated queries, keys and values, and what its backward pass needs."""
    heads, kv_heads, dimension = shape.heads, shape.kv_heads, shape.dimension
    if kernels.attends(layout.spans, mixed, dimension):
        attended, lse = kernels.attend(layout.spans, mixed, heads, kv_heads, dimension)
        return attended, [lse]
    query, key, value = mixed.unflatten(1, (-1, dimension)).split((heads, kv_heads, kv_heads), dim=1)
    attended, saved = mixed.new_empty(len(mixed), heads * dimension), []
    for block in layout.blocks:
        q, k, v = (t[index].transpose(1, 2) for t, index in
                   ((query, block.queries), (key, block.keys), (value, block.keys)))  # fmt: skip
        bias = None if block.bias is None else block.bias.to(mixed.dtype)
        out, lse = _flash(q, k, v, 0.0, bias is None, attn_mask=bias)
        attended[block.token] = out.transpose(1, 2).reshape(-1, heads * dimension)[block.place]
        saved += [q, k, v, out, lse]
    return attended, saved


def _attend_backward(
    gradient: Tensor, mixed: Tensor, attended: Tensor, saved: list[Tensor], layout: Layout, shape: _Shape
) -> Tensor:
    """Gradient of `mixed` from that of `attended`."""
    heads, kv_heads, dimension = shape.heads, shape.kv_heads, shape.dimension
    if len(saved) == 1:
        return kernels.attend_backward(layout.spans, mixed, attended, saved[0], gradient, heads, kv_heads, dimension)
    d_mixed = torch.zeros_like(mixed)
    d_query, d_key, d_value = d_mixed.unflatten(1, (-1, dimension)).split((heads, kv_heads, kv_heads), dim=1)
    for number, block in enumerate(layout.blocks):
        q, k, v, out, lse = saved[5 * number : 5 * number + 5]
        d_out = gradient.new_zeros(block.real.numel(), heads * dimension)
        d_out[block.place] = gradient[block.token]
        d_out = d_out.view(*block.real.shape, heads, dimension).transpose(1, 2)
        bias = None if block.bias is None else block.bias.to(mixed.dtype)
        parts = _flash_backward(d_out, q, k, v, out, lse, 0.0, bias is None, attn_mask=bias)
        dq, dk, dv = (t.transpose(1, 2).flatten(0, 1) for t in parts)
        d_query[block.token] = dq[block.place]
        keys = block.keys.flatten()
        # A prompt's keys are read by all its responses, padding reads token 0: its gradients there are zero.
        d_key.index_add_(0, keys, dk)
        d_value.index_add_(0, keys, dv)
    return d_mixed


class _Layer(torch.autograd.Function):
    """One block: x + attention(norm(x)), then x + mlp(norm(x)). x [N, hidden]; the output has the `wanted` rows."""

    @staticmethod
    def forward(ctx, x, turn, layout, shape, wanted, norm1, qkv, qkv_bias, output, norm2, gate_up, down):
        rotated = (shape.heads + shape.kv_heads) * shape.dimension
        order = _interleaved(shape.heads + shape.kv_heads, shape.dimension)

        unit1, scale1 = kernels.unit(x, shape.eps)
        folded1 = qkv * norm1
        # Half-split pairs side by side: a dot product of query and key does not depend on the order within a head.
        folded1[:rotated] = folded1[order]
        if qkv_bias is None:
            mixed = unit1 @ folded1.T
        else:
            bias = qkv_bias.clone()
            bias[:rotated] = qkv_bias[order]
            mixed = torch.addmm(bias, unit1, folded1.T)
        kernels.rotate_(mixed, turn, shape.heads + shape.kv_heads)
        attended, saved = _attend(mixed, layout, shape)

        here, seen = (x, attended) if wanted is None else (x[wanted], attended[wanted])
        middle = torch.addmm(here, seen, output.T)
        unit2, scale2 = kernels.unit(middle, shape.eps)
        folded2 = gate_up * norm2
        both = unit2 @ folded2.T
        hidden = kernels.swiglu(both)
        ctx.save_for_backward(
            turn, norm1, qkv, qkv_bias, output, norm2, gate_up, down, folded1, folded2, unit1, scale1, mixed, attended,
            unit2, scale2, both, hidden, order, wanted, *saved,
        )  # fmt: skip
        ctx.layout, ctx.shape = layout, shape
        return torch.addmm(middle, hidden, down.T)

    @staticmethod
    def backward(ctx, *gradients):
        gradient = gradients[0].contiguous()
        (
            turn, norm1, qkv, qkv_bias, output, norm2, gate_up, down, folded1, folded2, unit1, scale1, mixed, attended,
            unit2, scale2, both, hidden, order, wanted, *saved,
        ) = ctx.saved_tensors  # fmt: skip
        shape = ctx.shape
        rotated = len(order)

        d_down = gradient.T @ hidden
        d_both = kernels.swiglu_backward(both, gradient @ down)
        d_gate_up, d_norm2 = _folded(d_both.T @ unit2, gate_up, norm2)
        d_middle = kernels.unit_backward(d_both @ folded2, unit2, scale2, gradient)

        d_attended = d_middle @ output
        d_output = d_middle.T @ (attended if wanted is None else attended[wanted])
        if wanted is not None:
            d_attended = torch.zeros_like(attended).index_copy_(0, wanted, d_attended)
            d_middle = torch.zeros_like(unit1).index_copy_(0, wanted, d_middle)
        d_mixed = _attend_backward(d_attended, mixed, attended, saved, ctx.layout, shape)
        kernels.rotate_(d_mixed, turn, shape.heads + shape.kv_heads, back=True)

        d_folded = d_mixed.T @ unit1
        straight = torch.empty_like(d_folded)
        straight[order] = d_folded[:rotated]
        straight[rotated:] = d_folded[rotated:]
        d_qkv, d_norm1 = _folded(straight, qkv, norm1)
        d_bias = None
        if qkv_bias is not None:
            summed = d_mixed.sum(0)
            d_bias = torch.empty_like(summed)
            d_bias[order] = summed[:rotated]
            d_bias[rotated:] = summed[rotated:]
        d_x = kernels.unit_backward(d_mixed @ folded1, unit1, scale1, d_middle)
        return d_x, None, None, None, None, d_norm1, d_qkv, d_bias, d_output, d_norm2, d_gate_up, d_down


def _interleaved(heads: int, dimension: int) -> Tensor:
    """Row numbers that put dimension i of a head beside dimension i + dimension/2, which it is rotated with."""
    within = torch.arange(dimension).view(2, -1).T.flatten()
    return (torch.arange(heads).unsqueeze(1) * dimension + within).flatten()


class _Head(torch.autograd.Function):
    """Last norm, language-model head and log-softmax at the positions that predict something."""

    @staticmethod
    def forward(ctx, x, norm, head, bias, targets, temperature, eps):
        unit, scale = kernels.unit(x, eps)
        folded = head * (norm / temperature)
        logprobs, entropy, probabilities = kernels.log_softmax(torch.addmm(bias, unit, folded.T), targets)
        ctx.save_for_backward(norm, head, folded, unit, scale, probabilities, targets)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx, *gradients):
        norm, head, folded, unit, scale, probabilities, targets = ctx.saved_tensors
        d_logits = kernels.log_softmax_backward(probabilities, targets, gradients[0])
        d_head, d_norm = _folded(d_logits.T @ unit, head, norm / ctx.temperature)
        d_x = kernels.unit_backward(d_logits @ folded, unit, scale)
        return d_x, d_norm / ctx.temperature, d_head, None, None, None, None
