"""The patch embedding as a product gives what the convolution gives."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from safeladder.models.patches import multiply_patches


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_equal_the_convolution(bias):
    torch.manual_seed(0)
    conv = nn.Conv3d(3, 8, (2, 4, 4), stride=(2, 4, 4), bias=bias)
    fast = copy.deepcopy(conv)
    multiply_patches(nn.Sequential(fast))
    assert fast.state_dict().keys() == conv.state_dict().keys()
    for shape in ((5, 3, 2, 4, 4), (2, 3, 4, 8, 4)):  # whole patches; a video that is still to be cut
        x = torch.randn(shape)
        torch.testing.assert_close(fast(x), conv(x), atol=1e-5, rtol=1e-5)
    x = torch.randn(5, 3, 2, 4, 4)
    for layer in (conv, fast):
        layer(x).square().sum().backward()
    torch.testing.assert_close(fast.weight.grad, conv.weight.grad, atol=1e-4, rtol=1e-4)


def test_a_copy_reads_its_own_weights():
    conv = nn.Conv3d(1, 1, 2, stride=2, bias=False)
    multiply_patches(nn.Sequential(conv))
    twin = copy.deepcopy(conv)
    with torch.no_grad():
        twin.weight.zero_()
    x = torch.ones(1, 1, 2, 2, 2)
    assert float(twin(x)) == 0.0
    assert float(conv(x)) == pytest.approx(float(conv.weight.sum()))
