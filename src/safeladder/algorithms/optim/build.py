"""Which optimizer updates which parameter, behind one object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from safeladder.algorithms.optim.muon import LrScaling, Muon
from safeladder.types import SafeladderError

NamedParameters = Iterable[tuple[str, nn.Parameter]]

# A matrix whose name holds one of these is a table, a head or a scale, not a map between hidden states.
_NOT_HIDDEN = ("embed", "lm_head", "norm", "bias", "position")


class Optimizers:
    """Several optimizers with the interface of one. `optimizers` holds them, `param_groups` all their groups.

    Every group carries `initial_lr`, so that a schedule can scale groups of different peaks alike.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.optimizers = tuple(optimizers)
        for group in self.param_groups:
            group["initial_lr"] = group["lr"]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The live groups of all optimizers, in order."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """``{"optimizers": [state dict of each, in order]}``; leaves are tensors and plain numbers."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave. Raises `SafeladderError` where it is of another set of optimizers."""
        states = state["optimizers"]
        if len(states) != len(self.optimizers):
            raise SafeladderError(
                f"checkpoint holds {len(states)} optimizers, this run has {len(self.optimizers)}; "
                "resume with the optimizer that the run was started with"
            )
        for optimizer, each in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(each)


def parameter_groups(named_parameters: NamedParameters) -> dict[str, list[nn.Parameter]]:
    """Split trainable parameters into ``{"matrices", "tables", "vectors"}``.

    matrices: 2-D maps between hidden states (Muon's domain). tables: embeddings, output head, convolutions
    and patch embeddings (AdamW, with weight decay). vectors: norms and biases (AdamW, no weight decay).
    """
    groups: dict[str, list[nn.Parameter]] = {"matrices": [], "tables": [], "vectors": []}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        hidden = parameter.ndim == 2 and not any(word in name.lower() for word in _NOT_HIDDEN)
        groups["vectors" if parameter.ndim < 2 else "matrices" if hidden else "tables"].append(parameter)
    return groups


def build_optimizer(
    model: nn.Module,
    name: Literal["adamw", "muon"] = "adamw",
    *,
    lr: float,
    muon_lr: float | None = None,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    momentum: float = 0.95,
    lr_scaling: LrScaling = "match-rms-adamw",
) -> Optimizers:
    """AdamW for everything, or Muon for the hidden matrices and AdamW for the rest.

    `lr` is AdamW's, `muon_lr` Muon's (default `lr`, which suits "match-rms-adamw"). Weight decay is decoupled
    and spares norms and biases. Betas and decay default to the published training scripts' (0.9, 0.95) and
    0.01. Raises `SafeladderError` on an unknown name or a model with nothing to train.
    """
    groups = parameter_groups(model.named_parameters())
    trainable = [p for group in groups.values() for p in group]
    if not trainable:
        raise SafeladderError("the model has no trainable parameters; check what the recipe freezes")
    optimizers: list[torch.optim.Optimizer] = []
    if name == "muon":
        if groups["matrices"]:
            rate = lr if muon_lr is None else muon_lr
            optimizers.append(
                Muon(
                    groups["matrices"],
                    rate,
                    momentum=momentum,
                    weight_decay=weight_decay,
                    lr_scaling=lr_scaling,
                )
            )
        decayed = groups["tables"]
    elif name == "adamw":
        decayed = groups["matrices"] + groups["tables"]
    else:
        raise SafeladderError(f"unknown optimizer {name!r}; allowed: adamw, muon")
    adamw = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": groups["vectors"], "weight_decay": 0.0},
    ]
    adamw = [group for group in adamw if group["params"]]
    if adamw:
        # The fused kernel takes one pass over memory; it exists for these two device types.
        fused = all(p.device.type in ("cpu", "cuda") for p in trainable)
        optimizers.append(torch.optim.AdamW(adamw, lr=lr, betas=betas, eps=eps, fused=fused))
    return Optimizers(optimizers)
