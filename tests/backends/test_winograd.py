"""The convolution with fewer multiplications is the convolution, and so are its gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lowlight_cli.backends.zeroig import winograd


def channels_last(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


def largest_errors(shape: tuple[int, int, int, int], outputs: int, dtype: torch.dtype) -> list[float]:
    """Of the result, the image's gradient and the weight's, in units of each one's largest number."""
    torch.manual_seed(0)
    image = channels_last(*shape, dtype=dtype)
    gradient = channels_last(shape[0], outputs, *shape[2:], dtype=dtype)
    weight = torch.randn(outputs, shape[1], 3, 3, dtype=dtype)
    bias = torch.randn(outputs, dtype=dtype)
    onto = torch.ones_like(image)
    g_weight = winograd.add_gradients(gradient, image, weight, onto=onto)
    found = winograd.convolve(image, weight, bias), onto - 1, g_weight

    exact_image, exact_weight = image.double().requires_grad_(), weight.double().requires_grad_()
    wanted = F.conv2d(exact_image, exact_weight, bias.double(), padding=1)
    gradients = torch.autograd.grad(wanted, (exact_image, exact_weight), gradient.double())
    return [
        ((one - other).abs().max() / other.abs().max()).item()
        for one, other in zip(found, (wanted, *gradients), strict=True)
    ]


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 2),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 5),
    height=st.integers(1, 14),
    width=st.integers(1, 9),
)
def test_any_size_and_any_number_of_channels(count: int, inputs: int, outputs: int, height: int, width: int):
    assert max(largest_errors((count, inputs, height, width), outputs, torch.float64)) < 1e-12


@pytest.mark.parametrize("shape", [(2, 16, 70, 130), (1, 3, 9, winograd._STREAM_PIXELS + 5)])
def test_several_bands_and_a_last_one_that_is_not_full(shape: tuple[int, int, int, int]):
    assert max(largest_errors(shape, 8, torch.float64)) < 1e-12
    assert max(largest_errors(shape, 8, torch.float32)) < 5e-5
