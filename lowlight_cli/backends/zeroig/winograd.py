"""A 3x3 convolution with padding 1 that takes half the multiplications, and its gradients, on a CPU.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, applied down the columns only:
F(4, 3). Six rows become six mixtures of them; a mixture is convolved along its row by three matrix products; six
convolved mixtures become four rows of the result: 4.5 products a pixel for 9. In both directions it would be 2.25, but
then mixing costs more than it saves, since a mixture along the rows is no matrix product of what lies in memory.

Weight gradients gain the most: as matrix products they are five times sooner than the library's convolution is on
large pictures, and half of them are spared as well.

Images are `(N, C, H, W)`, channels-last. Work goes band by band, so that a band's mixtures stay in the cache. A band
is kept as a stream of pixels, row after row with one zero between: then a shift by a pixel is a shift of the stream.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_ROWS = 4  # of the result, from two more of the image
_STREAM_PIXELS = 2048  # times 64 channels in fp32: one mixture of a band is 512 kB, shared by the caches of two cores
_MIX = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_MIX_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_UNMIX = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_MIXTURES = len(_MIX)
_FOR_BIAS = 1  # the mixture that `_UNMIX` adds once to each of the four rows
_Kernels = Sequence[Sequence[Tensor]]  # of each mixture, for each of its three taps a matrix (C, D)


class _Tile(NamedTuple):
    """Four rows of the result, fewer at the bottom, and the rows of the image that they come from."""

    made: slice
    seen: slice
    places: slice  # of the rows seen among the six; the others lie beyond the picture


class _Stream:
    """The six mixtures of a band: `(6, 1 + rows * (width + 1), channels)`, a zero first and after each row.

    `rows` holds a view of each row in every mixture, `(6, width * channels)`. `taps` holds, for each mixture, the left
    neighbours of its pixels, the pixels and their right neighbours. They are made once: a step looks at 10,000.
    """

    def __init__(self, image: Tensor, *, rows: int, channels: int) -> None:
        width = image.shape[-1]
        pixels = image.new_zeros(_MIXTURES, 1 + rows * (width + 1), channels)
        flat = pixels.view(_MIXTURES, -1)
        starts = ((1 + row * (width + 1)) * channels for row in range(rows))
        self.rows = [flat[:, start : start + width * channels] for start in starts]
        self.taps = [(each[:-2], each[1:-1], each[2:]) for each in pixels]


def convolve(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the convolution of `(N, C, H, W)` with `(D, C, 3, 3)`, plus `bias`: `(N, D, H, W)`."""
    result = _empty(image, len(weight))
    mix, unmix = image.new_tensor(_MIX), image.new_tensor(_UNMIX)
    kernels = [tuple(taps) for taps in _mixed_kernels(weight)]
    bands = _bands(image)
    mixed, convolved = (_Stream(image, rows=len(bands[0]), channels=count) for count in weight.shape[1::-1])
    for seen, made in zip(_rows(image), _rows(result), strict=True):
        for band in bands:
            for tile, row in zip(band, mixed.rows, strict=False):
                torch.mm(mix[:, tile.places], seen[tile.seen], out=row)
            _convolve_rows(mixed, kernels, out=convolved)
            convolved.taps[_FOR_BIAS][1].add_(bias)
            for tile, row in zip(band, convolved.rows, strict=False):
                rows = made[tile.made]
                torch.mm(unmix[: len(rows)], row, out=rows)
    return result


def add_gradients(gradient: Tensor, image: Tensor, weight: Tensor, *, onto: Tensor) -> Tensor:
    """Add the image's gradient to `onto` and return the weight's, given the result's."""
    mix, unmix = image.new_tensor(_MIX), image.new_tensor(_UNMIX)
    kernels = _mixed_kernels(weight)
    backwards = [tuple(taps) for taps in kernels.flip(1).transpose(2, 3)]
    g_kernels = torch.zeros_like(kernels)
    bands = _bands(image)
    outputs, inputs = weight.shape[:2]
    count = len(bands[0])
    mixed, g_mixed = _Stream(image, rows=count, channels=inputs), _Stream(image, rows=count, channels=inputs)
    g_convolved = _Stream(image, rows=count, channels=outputs)
    for seen, g_seen, g_made in zip(_rows(image), _rows(onto), _rows(gradient), strict=True):
        for band in bands:
            for tile, row, g_row in zip(band, mixed.rows, g_convolved.rows, strict=False):
                rows = g_made[tile.made]
                torch.mm(mix[:, tile.places], seen[tile.seen], out=row)
                torch.mm(unmix[: len(rows)].t(), rows, out=g_row)
            for left_over in g_convolved.rows[len(band) :]:
                left_over.zero_()
            _add_kernel_gradients(mixed, g_convolved, onto=g_kernels)
            _convolve_rows(g_convolved, backwards, out=g_mixed)
            for tile, row in zip(band, g_mixed.rows, strict=False):
                g_seen[tile.seen].addmm_(mix[:, tile.places].t(), row)
    g_weight: Tensor = torch.tensordot(image.new_tensor(_MIX_KERNEL), g_kernels, dims=([0], [0]))  # row, column, C, D
    return g_weight.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def _convolve_rows(mixed: _Stream, kernels: _Kernels, *, out: _Stream) -> None:
    """Convolve each mixture along its rows. The zeros between the rows of `out` are not kept: no tap may read them."""
    for (before, here, after), (left, middle, right), (_, total, _) in zip(mixed.taps, kernels, out.taps, strict=True):
        torch.mm(before, left, out=total)
        total.addmm_(here, middle).addmm_(after, right)


def _add_kernel_gradients(mixed: _Stream, g_convolved: _Stream, *, onto: Tensor) -> None:
    for taps, (_, given, _), gradients in zip(mixed.taps, g_convolved.taps, onto, strict=True):
        for tap, gradient in zip(taps, gradients, strict=True):
            gradient.addmm_(tap.t(), given)


def _mixed_kernels(weight: Tensor) -> Tensor:
    """Return a row of three `(C, D)` matrices for each mixture: `(6, 3, C, D)` for a weight `(D, C, 3, 3)`."""
    mixed: Tensor = torch.tensordot(weight.new_tensor(_MIX_KERNEL), weight, dims=([1], [2]))  # mixture, D, C, column
    return mixed.permute(0, 3, 2, 1).contiguous()


def _bands(image: Tensor) -> list[list[_Tile]]:
    """Return the tiles of a picture, gathered in bands of about `_STREAM_PIXELS`."""
    height, width = image.shape[-2:]
    tiles = []
    for top in range(0, height, _ROWS):
        first, last = max(top - 1, 0), min(top + _ROWS + 1, height)
        made = slice(top, min(top + _ROWS, height))
        tiles.append(_Tile(made, slice(first, last), slice(first - top + 1, last - top + 1)))
    count = max(_STREAM_PIXELS // width, 1)
    return [tiles[start : start + count] for start in range(0, len(tiles), count)]


def _empty(like: Tensor, channels: int) -> Tensor:
    shape = (len(like), channels, *like.shape[-2:])
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _rows(image: Tensor) -> Tensor:
    """Return a view of the rows of pictures, `(N, H, W * C)`."""
    return image.permute(0, 2, 3, 1).view(len(image), image.shape[-2], -1)
