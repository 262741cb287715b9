"""How a learner spreads over processes: not at all, replicated (data parallel), or sharded (FSDP2).

All three give the same step: every process adds up the gradients of its own rows, scaled by the batch's global token
count, and the sum over processes is the gradient of the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from safeladder.models.policy import Policy, TokenOutputs
from safeladder.training.shared_sum import SharedSum


class Parallel:
    """The process group of a run. With one process every collective is the identity."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        # Only `launch` sets it: all processes are on this machine.
        self._shares_memory = "SAFELADDER_RENDEZVOUS" in os.environ
        self._shared: SharedSum | None = None
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if self.world_size > 1 and not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            rendezvous = os.environ.get("SAFELADDER_RENDEZVOUS")
            dist.init_process_group(
                backend,
                init_method="env://" if rendezvous is None else f"file://{rendezvous}",
                rank=self.rank,
                world_size=self.world_size,
                # The others wait while the first process evaluates; who dies is noticed by the launcher.
                timeout=timedelta(days=1),
            )

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Element-wise sum over processes, in float64."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=_device())
        dist.all_reduce(tensor)
        return tensor.tolist()

    def add_up(self, tensor: Tensor) -> None:
        """Sum a contiguous tensor over processes, in place; all call it with the same shape."""
        if self.world_size == 1:
            return
        if self._shares_memory and tensor.dtype == torch.float32 and tensor.device.type == "cpu":
            try:
                if self._shared is None or self._shared.size < tensor.numel():
                    self._shared = SharedSum(self.rank, self.gather, self.barrier, tensor.numel())
                self._shared.add_up(tensor)
                return
            except OSError:
                self._shares_memory = False
        dist.all_reduce(tensor)

    def maximum(self, value: float) -> float:
        """The largest value over processes."""
        return max(self.gather(value))

    def gather(self, item: Any) -> list[Any]:
        """Every process's item, by rank. Items are plain data (numbers, strings, lists, dicts)."""
        if self.world_size == 1:
            return [item]
        items: list[Any] = [None] * self.world_size
        dist.all_gather_object(items, item)
        return items

    def shard(self, items: Sequence[Any]) -> list[Any]:
        """This process's share: every `world_size`-th item."""
        return list(items[self.rank :: self.world_size])

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def close(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()


class Replicated:
    """Every process holds the whole model; gradients live in one flat buffer that is summed over processes."""

    def __init__(self, module: nn.Module, parallel: Parallel) -> None:
        self.parallel = parallel
        self.module = module
        self.loss_scale = 1.0
        self._trained: list[nn.Parameter] = []
        self._flat: Tensor | None = None

    def attach(self) -> list[nn.Parameter]:
        """(Re)build the buffer for the parameters that train now, and return them."""
        self._trained = [p for p in self.module.parameters() if p.requires_grad]
        first = self._trained[0]
        self._flat = torch.zeros(sum(p.numel() for p in self._trained), dtype=first.dtype, device=first.device)
        offset = 0
        for parameter in self._trained:
            parameter.grad = self._flat[offset : offset + parameter.numel()].view_as(parameter)
            offset += parameter.numel()
        return self._trained

    def zero_grad(self) -> None:
        assert self._flat is not None
        self._flat.zero_()

    def reduce_and_clip(self, max_norm: float) -> Tensor:
        """Sum gradients over processes, clip by the global norm; returns the norm before clipping."""
        assert self._flat is not None
        self.parallel.add_up(self._flat)
        norm = self._flat.norm()
        self._flat.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def even_out(self, count: int) -> int:
        """How many micro-batches every process must run; replicas need no agreement."""
        return count

    def full_state_dict(self) -> dict[str, Tensor]:
        """Every parameter, tied weights once."""
        return {name: p.detach() for name, p in self.module.named_parameters()}

    def load_model(self, state: Mapping[str, Tensor]) -> None:
        """Copy parameters back, in place (gradients keep pointing into the flat buffer)."""
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                parameter.copy_(state[name])


class Sharded:
    """FSDP2: parameters, gradients and optimizer state are split over processes, layer by layer."""

    def __init__(self, policy: Policy, parallel: Parallel) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.parallel = parallel
        self.module = policy
        mesh = init_device_mesh(_device().type, (parallel.world_size,))
        # A vision tower of its own would dead-lock where one process has no image in its batch: it stays in
        # the root group, whose parameters every process gathers on every step, and takes part in every
        # backward pass.
        policy.register_forward_hook(_use_all)
        for layer in policy.family.text_model(policy.model).layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(policy, mesh=mesh)
        # FSDP2 averages over processes; our losses are already divided by the global token count.
        self.loss_scale = float(parallel.world_size)

    def attach(self) -> list[nn.Parameter]:
        return [p for p in self.module.parameters() if p.requires_grad]

    def zero_grad(self) -> None:
        for parameter in self.module.parameters():
            parameter.grad = None

    def reduce_and_clip(self, max_norm: float) -> Tensor:
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), max_norm)
        return gathered(norm)

    def even_out(self, count: int) -> int:
        """Every process must enter every collective: the largest count wins."""
        return int(self.parallel.maximum(count))

    def full_state_dict(self) -> dict[str, Tensor]:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return cast("dict[str, Tensor]", get_model_state_dict(self.module, options=options))

    def load_model(self, state: Mapping[str, Tensor]) -> None:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        set_model_state_dict(self.module, dict(state), options=StateDictOptions(full_state_dict=True))


def _use_all(policy: Policy, _: Any, outputs: TokenOutputs) -> None:
    """Give the parts that a batch may leave out (vision tower, probe) a gradient of zero instead of none.

    FSDP2 reduces the gradients that exist; all processes must have the same ones.
    """
    text, head = policy.family.text_model(policy.model), policy.family.lm_head(policy.model)
    always = {id(p) for module in (text, head) for p in module.parameters()}
    rest = [p for p in policy.parameters() if p.requires_grad and id(p) not in always]
    if rest and outputs.logprobs.requires_grad:
        outputs.logprobs = outputs.logprobs + 0.0 * torch.stack([p.flatten()[0].float() for p in rest]).sum()


def gathered(state: Any) -> Any:
    """A nested state whose sharded tensors are whole. A collective: every process calls it."""
    if isinstance(state, Mapping):
        return {key: gathered(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(gathered(value) for value in state)
    return state.full_tensor() if hasattr(state, "full_tensor") else state


def shard_like(parameters: Mapping[Tensor, dict[str, Any]]) -> None:
    """Split whole tensors of an optimizer's state as their parameters are split: the inverse of `gathered`."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    for parameter, values in parameters.items():
        if not isinstance(parameter, DTensor):
            continue
        for key, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[key] = distribute_tensor(value, parameter.device_mesh, parameter.placements)


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
