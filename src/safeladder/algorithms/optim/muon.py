"""Muon: momentum, orthogonalised, for the hidden matrices of a network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from safeladder.algorithms.optim.newton_schulz import orthogonalize
from safeladder.types import SafeladderError

LrScaling = Literal["original", "match-rms-adamw"]

# Largest stack, in elements. Beyond this size single products fill the machine and copies only cost memory.
_STACK_ELEMENTS = 2**24


class Muon(torch.optim.Optimizer):
    """Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/, with decoupled weight decay::

        M <- momentum * M + (1 - momentum) * g          g~ = (1 - momentum) * g + momentum * M   (Nesterov)
        W <- (1 - lr * weight_decay) * W - lr * s * orthogonalize(g~)

    s = sqrt(max(1, rows/cols)) for "original"; s = 0.2 * sqrt(max(rows, cols)) for "match-rms-adamw", with
    which the update has AdamW's usual size and can share its learning rate (Liu et al. 2025, arXiv
    2502.16982, eq. 4).

    Matrices of equal shape (up to transposition) are stacked and orthogonalised by batched products: on a CPU
    a small network spends its time in the number of calls. Arithmetic is float32 (float64 for float64
    weights). State: one `momentum_buffer` a parameter. Raises `SafeladderError` on parameters that are not
    matrices, or sharded (the update needs the whole matrix), and on an unknown `lr_scaling`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: int = 5,
        lr_scaling: LrScaling = "original",
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "steps": steps,
            "lr_scaling": lr_scaling,
        }
        super().__init__(params, defaults)
        self._rank, self._world_size = 0, 1
        self._total: Callable[[Tensor], None] | None = None
        for group in self.param_groups:
            if group["lr_scaling"] not in get_args(LrScaling):
                allowed = ", ".join(get_args(LrScaling))
                raise SafeladderError(f"unknown lr_scaling {group['lr_scaling']!r}; allowed: {allowed}")
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise SafeladderError(f"Muon takes matrices only, got shape {tuple(parameter.shape)}")
                if hasattr(parameter, "device_mesh"):
                    raise SafeladderError("Muon needs whole matrices, got a sharded parameter; use adamw")

    def share(self, rank: int, world_size: int, total: Callable[[Tensor], None]) -> None:
        """Let each of `world_size` processes with equal gradients orthogonalise its part of every stack.

        `total` adds a tensor up over the processes in place. Adding zeros is exact, so the update is the one a
        single process makes.
        """
        self._rank, self._world_size, self._total = rank, world_size, total

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            if not trained:
                continue
            flat = torch.zeros(sum(p.numel() for p in trained), dtype=trained[0].dtype, device=trained[0].device)
            updates = dict(zip(trained, flat.split([p.numel() for p in trained]), strict=True))
            stacks: dict[tuple, list[Tensor]] = defaultdict(list)
            for p in trained:
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                self.state[p]["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
                stacks[min(p.shape), max(p.shape), p.dtype, p.device].append(p)
            for mine in self._shares(list(stacks.values())):
                size = max(1, _STACK_ELEMENTS // max(mine[0].numel(), 1))
                for first in range(0, len(mine), size):
                    self._orthogonal(mine[first : first + size], group, updates)
            if self._total is not None:
                self._total(flat)
            for p, update in updates.items():
                self._apply(p, update.view_as(p), group)
        return loss

    def _shares(self, stacks: list[list[Tensor]]) -> list[list[Tensor]]:
        """This process's part of every stack, dealt so that all have about the same work (m²·n a matrix)."""
        work = [0] * self._world_size
        shares: list[list[Tensor]] = []
        for stack in sorted(stacks, key=lambda s: min(s[0].shape) * s[0].numel(), reverse=True):
            mine = []
            for p in stack:
                least = work.index(min(work))
                work[least] += min(p.shape) * p.numel()
                if least == self._rank:
                    mine.append(p)
            if mine:
                shares.append(mine)
        return shares

    def _orthogonal(self, parameters: list[Tensor], group: dict[str, Any], updates: dict[Tensor, Tensor]) -> None:
        """Write the orthogonalised momentum of equal-shape matrices into `updates`."""
        wide = []
        for p in parameters:
            assert p.grad is not None
            nesterov = p.grad.lerp(self.state[p]["momentum_buffer"], group["momentum"])
            wide.append(nesterov if p.shape[0] <= p.shape[1] else nesterov.mT)
        stacked = torch.stack(wide)
        stacked = stacked if stacked.dtype == torch.float64 else stacked.float()
        for p, update in zip(parameters, orthogonalize(stacked, group["steps"]), strict=True):
            updates[p].view_as(p).copy_(update if p.shape[0] <= p.shape[1] else update.mT)

    def _apply(self, p: Tensor, update: Tensor, group: dict[str, Any]) -> None:
        rows, columns = p.shape
        original = group["lr_scaling"] == "original"
        scale = max(1, rows / columns) ** 0.5 if original else 0.2 * max(rows, columns) ** 0.5
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(update, alpha=-group["lr"] * scale)
