"""Decoding one token a row with weights packed for it: all blocks of a small model in one compiled call.

Between two sampled tokens a small model does little arithmetic: products of a few rows with its weights, which general
libraries do at half their rate, and some twenty calls a block, each of which costs as much as its work. Here the
weights are laid out once for such products, and rows go through all blocks without leaving the cache. Each row's
values are the same whatever rows are decoded beside it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from safeladder import kernels

_PANEL = 16
_LARGEST = 1 << 22
"""Elements of a weight above which a copy of it costs memory for no gain: reading it takes all the time."""


class Packed:
    """A weight [out, in] laid out for products x·weightᵀ with few rows of x."""

    def __init__(self, weight: Tensor, library: ctypes.CDLL) -> None:
        self.out, self.depth = weight.shape
        self._library = library
        self._panels = weight.new_empty(-(-self.out // _PANEL) * _PANEL * self.depth)
        library.pack(self.out, self.depth, weight.data_ptr(), self.address, kernels.threads(weight.numel()))

    @property
    def address(self) -> int:
        return self._panels.data_ptr()

    def project(self, x: Tensor, bias: Tensor) -> Tensor:
        """x·weightᵀ + bias [N, out] of contiguous x [N, in]."""
        out = x.new_empty(len(x), self.out)
        pointers = (x.data_ptr(), self.address, bias.data_ptr(), out.data_ptr())
        self._library.project(len(x), self.out, self.depth, *pointers, kernels.threads(out.numel()))
        return out


def pack(weight: Tensor) -> Packed | None:
    """The weight packed; None where nothing is compiled for it, or it is too large to gain."""
    library = kernels.compiled_for(weight)
    return Packed(weight, library) if library is not None and weight.numel() <= _LARGEST else None


class Block(NamedTuple):
    """What a block needs; tensors are norms [hidden] and the bias of query, key and value."""

    attention_norm: Tensor
    qkv: Packed
    qkv_bias: Tensor | None
    output: Packed
    mlp_norm: Tensor
    gate_up: Packed
    down: Packed


class Blocks:
    """A decoder's blocks and its last norm, for one new token a row."""

    def __init__(self, blocks: Sequence[Block], norm: Tensor, eps: float) -> None:
        self._blocks, self._norm, self._eps = list(blocks), norm, eps
        # Weights, then room for keys and values of each block.
        self._table = (ctypes.c_void_p * (9 * len(blocks)))()
        for i, block in enumerate(blocks):
            self._table[9 * i : 9 * i + 7] = [
                part.address if isinstance(part, Packed) else None if part is None else part.data_ptr()
                for part in block
            ]

    def step(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        place: int,
        visible: Tensor | None,
    ) -> Tensor | None:
        """Run tokens through all blocks; their keys and values join the cache.

        Args:
            x: embeddings [B, hidden].
            cos, sin: [B, D] rotary tables.
            keys, values: [B, kv_heads, capacity, D] of every block, which get slot `place`.
            visible: bool [B, place + 1] what each row sees; None = everything.

        Returns:
            Normalised hidden states [B, hidden]; None, with nothing done, where it does not apply to these tensors.
        """
        library = kernels.compiled_for(x, cos, sin)
        if library is None or not kernels.joins(keys[0], values[0], visible):
            return None
        for i, pair in enumerate(zip(keys, values, strict=True)):
            self._table[9 * i + 7 : 9 * i + 9] = [t.data_ptr() for t in pair]
        out, block = x.clone(), self._blocks[0]
        heads = block.output.depth // cos.shape[1]
        sizes = (x.shape[1], block.down.depth, len(self._blocks), self._eps)
        seen = (0, 0) if visible is None else (visible.data_ptr(), visible.stride(0))
        rotary = (cos.data_ptr(), sin.data_ptr())
        shape, used = kernels.cached(heads, keys[0], place), kernels.threads(out.numel() * block.down.depth)
        arguments = (*sizes, self._table, self._norm.data_ptr(), *rotary, *seen, out.data_ptr(), used)
        if library.step(len(x), shape, *arguments):
            raise MemoryError
        return out
