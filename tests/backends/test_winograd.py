"""The convolution with fewer multiplications is the convolution, and so are its gradients, however cores share it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadcount import torch_threads
from torch import Tensor
from torch.nn import functional as F

from lowlight_cli.backends.zeroig import phases, winograd


class Whole:
    """A convolution between pictures that lie in memory; notes which rows it is asked for and given."""

    def __init__(self, gradient: Tensor, image: Tensor, found: Tensor) -> None:
        self._gradient, self._image, self._found = gradient, image, found
        self.asked: list[tuple[int, int]] = []

    def gradient(self, number: int, rows: slice) -> Tensor:
        self.asked.extend((number, row) for row in range(rows.start, rows.stop))
        return self._gradient[number, rows]

    def image(self, number: int, rows: slice) -> Tensor:
        return self._image[number, rows]

    def take(self, number: int, rows: slice, gradient: Tensor, image: Tensor) -> None:
        assert torch.equal(image, self._image[number, rows])
        self._found[number, rows] += gradient


def largest_errors(shape: tuple[int, int, int, int], dtype: torch.dtype, cores: int) -> list[float]:
    """Of the result, the image's gradient and the weight's, in units of each one's largest number."""
    torch.manual_seed(0)
    image, gradient = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    weight, bias = torch.randn(shape[1], shape[1], 3, 3, dtype=dtype), torch.randn(shape[1], dtype=dtype)
    width = shape[-1]
    phased, g_phased = phases.to_phases(image), phases.to_phases(gradient)
    made, found = torch.full_like(phased, torch.nan), torch.zeros_like(phased)
    written: list[tuple[int, int]] = []
    convolution = winograd.Convolution(weight)
    with torch_threads(cores):
        convolution.forward(
            lambda number, rows: phased[number, rows],
            bias,
            made,
            width=width,
            then=lambda number, rows: written.extend((number, row) for row in range(rows.start, rows.stop)),
        )
        parts = convolution.backward(lambda: Whole(g_phased, phased, found), phased.shape, width=width)
    every_row = [(number, row) for number in range(shape[0]) for row in range(shape[2])]
    assert sorted(written) == every_row
    assert sorted(row for part in parts for row in part.asked) == every_row
    for each in (made, found):
        assert torch.equal(phases.clear_beyond_(each.clone(), width), each), "something lies beyond the picture"

    exact_image, exact_weight = image.double().requires_grad_(), weight.double().requires_grad_()
    wanted = F.conv2d(exact_image, exact_weight, bias.double(), padding=1)
    gradients = torch.autograd.grad(wanted, (exact_image, exact_weight), gradient.double())
    results = phases.to_picture(made, width), phases.to_picture(found, width), convolution.weight_gradient()
    return [
        ((one - other).abs().max() / other.abs().max()).item()
        for one, other in zip(results, (wanted, *gradients), strict=True)
    ]


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 3),
    channels=st.integers(1, 5),
    height=st.integers(1, 14),
    width=st.integers(1, 9),
    cores=st.integers(1, 3),
)
def test_any_size_and_any_number_of_channels(count: int, channels: int, height: int, width: int, cores: int):
    assert max(largest_errors((count, channels, height, width), torch.float64, cores)) < 1e-12


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 16, 70, 130), (1, 3, 9, 4 * winograd._TILES + 5)])
def test_several_bands_and_a_last_one_that_is_not_full(shape: tuple[int, int, int, int], cores: int):
    assert max(largest_errors(shape, torch.float64, cores)) < 1e-12
    assert max(largest_errors(shape, torch.float32, cores)) < 5e-5


@given(height=st.integers(1, 7), width=st.integers(1, 13))
def test_columns_dealt_out_to_phases_come_back(height: int, width: int):
    image = torch.rand(2, 3, height, width)
    phased = phases.to_phases(image)
    assert phased.shape == (2, height, phases.PHASES, phases.places(width), 3)
    assert torch.equal(phases.to_picture(phased, width), image)
    assert torch.equal(phased[0, :, 1, 0, 0], image[0, 0, :, 1] if width > 1 else torch.zeros(height))


@given(height=st.integers(1, 7), width=st.integers(1, 13), top=st.integers(0, 6))
def test_patches_are_those_of_unfold_and_add_up_like_those_of_fold(height: int, width: int, top: int):
    image = torch.rand(1, 2, height, width, dtype=torch.float64)
    rows = slice(min(top, height - 1), height)
    inside = phases.to_phases(torch.ones(1, 1, len(range(*rows.indices(height))), width)).flatten() > 0
    windows = phases.windows(image)
    patches = phases.patches(windows[0], rows)[:, inside]
    columns = F.unfold(image, 3, padding=1)[0].view(18, height, width)[:, rows]
    in_phases = phases.to_phases(columns[None])[0].flatten(0, 2).t()[:, inside]
    assert torch.equal(patches, in_phases)

    summed = torch.zeros_like(windows)
    phases.add_patches(summed[0], slice(0, height), phases.patches(windows[0], slice(0, height)))
    wanted = F.fold(F.unfold(image, 3, padding=1), (height, width), 3, padding=1)
    if width % phases.PHASES == 0:
        assert torch.allclose(phases.sum_windows(summed, width), wanted)
