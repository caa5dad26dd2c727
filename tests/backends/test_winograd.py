"""The convolution with fewer multiplications is the convolution, and so are its gradients, however cores share it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadcount import torch_threads
from torch.nn import functional as F

from lowlight_cli.backends.zeroig import mixtures, patches, winograd
from lowlight_cli.loops import Floats


class Whole:
    """A convolution between pictures that lie in memory; notes which rows it is asked for and given."""

    def __init__(self, gradient: Floats, image: Floats, found: Floats) -> None:
        self._gradient, self._image, self._found = gradient, image, found
        self.asked: list[tuple[int, int]] = []

    def gradient(self, number: int, rows: slice) -> Floats:
        self.asked.extend((number, row) for row in range(rows.start, rows.stop))
        return self._gradient[number, rows]

    def image(self, number: int, rows: slice) -> Floats:
        return self._image[number, rows]

    def take(self, number: int, rows: slice, gradient: Floats, image: Floats) -> None:
        assert np.array_equal(image, self._image[number, rows])
        self._found[number, rows] += gradient


def largest_errors(shape: tuple[int, int, int, int], dtype: torch.dtype, cores: int) -> list[float]:
    """Of the result, the image's gradient and the weight's, in units of each one's largest number."""
    torch.manual_seed(0)
    image, gradient = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    weight, bias = torch.randn(shape[1], shape[1], 3, 3, dtype=dtype), torch.randn(shape[1], dtype=dtype)
    hidden, g_hidden = (each.permute(0, 2, 3, 1).contiguous().numpy() for each in (image, gradient))
    made, found = np.full_like(hidden, np.nan), np.zeros_like(hidden)
    written: list[tuple[int, int]] = []
    convolution = winograd.Convolution(weight)
    with torch_threads(cores):
        convolution.forward(
            lambda number, rows: hidden[number, rows],
            bias.numpy(),
            made,
            then=lambda number, rows: written.extend((number, row) for row in range(rows.start, rows.stop)),
        )
        parts = convolution.backward(lambda: Whole(g_hidden, hidden, found), hidden.shape)
    every_row = [(number, row) for number in range(shape[0]) for row in range(shape[2])]
    assert sorted(written) == every_row
    assert sorted(row for part in parts for row in part.asked) == every_row

    exact_image, exact_weight = image.double().requires_grad_(), weight.double().requires_grad_()
    wanted = F.conv2d(exact_image, exact_weight, bias.double(), padding=1)
    gradients = torch.autograd.grad(wanted, (exact_image, exact_weight), gradient.double())
    results = *(torch.from_numpy(each).permute(0, 3, 1, 2) for each in (made, found)), convolution.weight_gradient()
    return [
        ((one - other).abs().max() / other.abs().max()).item()
        for one, other in zip(results, (wanted, *gradients), strict=True)
    ]


@settings(max_examples=40)
@given(
    count=st.integers(1, 3),
    channels=st.sampled_from((1, 4)),
    height=st.integers(1, 14),
    width=st.integers(1, 9),
    cores=st.integers(1, 3),
)
def test_any_size_and_any_number_of_channels(count: int, channels: int, height: int, width: int, cores: int):
    assert max(largest_errors((count, channels, height, width), torch.float64, cores)) < 1e-12


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 4, 70, 130), (1, 4, 9, 2 * mixtures.TILES * mixtures.SIDE + 5)])
def test_several_bands_and_a_last_one_that_is_not_full(shape: tuple[int, int, int, int], cores: int):
    assert max(largest_errors(shape, torch.float64, cores)) < 1e-12
    assert max(largest_errors(shape, torch.float32, cores)) < 5e-5


@settings(deadline=None)  # the first time they are compiled
@given(height=st.integers(1, 7), width=st.integers(1, 13), top=st.integers(0, 6))
def test_patches_are_those_of_unfold_and_add_up_like_those_of_fold(height: int, width: int, top: int):
    image = torch.rand(1, 2, height, width, dtype=torch.float64)
    padded = patches.padded(image)
    rows = slice(min(top, height - 1), height)
    columns = F.unfold(image, 3, padding=1)
    by_channel = columns.view(2, 9, height, width)[:, :, rows].flatten(2)
    assert torch.equal(
        torch.from_numpy(patches.patches(padded[0].numpy(), rows)), by_channel.permute(2, 1, 0).flatten(1)
    )

    summed = torch.zeros_like(padded)
    every = patches.patches(padded[0].numpy(), slice(0, height))
    patches.add_patches(summed[0].numpy(), slice(0, height), every)
    wanted = F.fold(columns, (height, width), 3, padding=1)
    assert torch.allclose(patches.without_border(summed), wanted)
