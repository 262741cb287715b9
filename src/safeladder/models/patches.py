"""Patch embedding as the matrix product that it is.

A vision tower that gets its patches cut out (Qwen2.5-VL) embeds each by a convolution whose kernel is the whole patch.
Convolution kernels are slow at that: on a CPU, a fifth of what a laptop model's vision tower costs in training.
"""

from __future__ import annotations

from types import MethodType

import torch.nn.functional as F
from torch import Tensor, nn


def multiply_patches(model: nn.Module) -> None:
    """Let the model's 3-D convolutions take inputs of exactly one kernel as rows of a matrix product.

    Same parameters and state dict; equal values up to the order of sums.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv3d) and not any(module.padding) and module.groups == 1:
            module.forward = MethodType(_forward, module)


def _forward(conv: nn.Conv3d, x: Tensor) -> Tensor:
    if tuple(x.shape[2:]) != conv.kernel_size:
        return nn.Conv3d.forward(conv, x)
    product = F.linear(x.flatten(1), conv.weight.flatten(1), conv.bias)
    return product[:, :, None, None, None]
