"""The dilated depthwise convolution that trains quickly is torch's own, to rounding, in value and gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lowlight_cli.backends.darkir.dilated import dilated_depthwise


@settings(max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    dilation=st.sampled_from((1, 2, 4, 9, 18)),
    biased=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_value_and_gradients_equal_those_of_torch(height, width, dilation, biased, seed):
    torch.manual_seed(seed)
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True) if biased else None
    wrt = [x, weight] if bias is None else [x, weight, bias]

    ours = dilated_depthwise(x, weight, bias, dilation)
    torchs = F.conv2d(x, weight, bias, padding=dilation, dilation=dilation, groups=3)
    assert ours.shape == torchs.shape
    assert torch.allclose(ours, torchs, rtol=0, atol=1e-12)
    outer = torch.randn_like(ours)
    for mine, theirs in zip(
        torch.autograd.grad(ours, wrt, outer), torch.autograd.grad(torchs, wrt, outer), strict=True
    ):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [(6, 6), (12, 12), (48, 48)])
def test_channels_stay_last_in_memory(size):
    x = torch.randn(2, 8, *size).to(memory_format=torch.channels_last)
    result = dilated_depthwise(x, torch.randn(8, 1, 3, 3), None, 9)
    assert result.stride(1) == 1
