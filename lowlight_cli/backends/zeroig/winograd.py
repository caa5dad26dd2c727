"""A 3x3 convolution with padding 1 that takes a quarter of the multiplications, and its gradients, on a CPU.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: F(4x4, 3x3). The result is made
in tiles of 4x4 pixels. A tile sees 6x6 pixels, which become 36 mixtures; a mixture of all tiles, times a matrix of its
own, is a mixture of the result; 36 of those become 16 pixels: 2.25 products a pixel for 9.

Pictures are `(N, H, W, C)`. Work goes band by band, so that little is kept of mixtures. Pictures come and go by bands,
too: rows are asked for when they are needed, and handed on as soon as they are made, so that what lies before and after
a convolution need not pass through memory. Each core has consecutive bands of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from math import ceil
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from lowlight_cli.backends.zeroig.mixtures import MIX_KERNEL, SEEN, SIDE, TILES, apart, transforms
from lowlight_cli.loops import Floats
from lowlight_cli.parallel import share_out

_MOST_TILES = 8 * TILES  # of a band, whose pixels of 64 channels then take 4 MB
_FULL = 0.8  # of the tiles of a call
RowsOf = Callable[[int, slice], Floats]  # of the picture of this number these rows: `(rows, W, C)`


class BackwardPart(Protocol):
    """What lies around the backward pass of a convolution, for the rows of one core; another core has another."""

    def gradient(self, number: int, rows: slice) -> Floats:
        """Return the gradient of rows of the result; asked once for each, and before `take` has that row."""

    def image(self, number: int, rows: slice) -> Floats:
        """Return rows of the image."""

    def take(self, number: int, rows: slice, gradient: Floats, image: Floats) -> None:
        """Use, or overwrite, the gradient of rows of the image, given the rows themselves."""


Part = TypeVar("Part", bound=BackwardPart)


class _Band(NamedTuple):
    """Some rows of tiles of a picture: the rows of the result that they make, and those of the image that they see."""

    number: int  # of the picture
    made: slice
    seen: slice
    above: int  # rows seen above those made
    tiles: int

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield the first of some tiles and the one after the last, as many as are transformed at once."""
        return ((start, min(start + TILES, self.tiles)) for start in range(0, self.tiles, TILES))


class _Mixtures(NamedTuple):
    """Room for the 36 mixtures of some tiles."""

    matrices: Tensor  # (36, TILES, C)
    floats: Floats  # the same, and the gaps between them

    @staticmethod
    def apart(kernels: Tensor) -> "_Mixtures":
        """Return room for as many channels as 36 matrices `(36, C, C)` have, to be written by a transform.

        Zeros, since what no tile has written yet may be multiplied, too, and chance numbers can be slow ones.
        """
        number, _, channels = kernels.shape
        room = kernels.new_zeros(number, apart(channels))
        return _Mixtures(room[:, : TILES * channels].view(number, TILES, channels), room.view(-1).numpy())

    @staticmethod
    def side_by_side(kernels: Tensor) -> "_Mixtures":
        """Return room to be read by a transform: without gaps torch writes all 36 products at once."""
        number, _, channels = kernels.shape
        matrices = kernels.new_empty(number, TILES, channels)
        return _Mixtures(matrices, matrices.view(-1).numpy())

    def of(self, tiles: int) -> Tensor:
        """Return the matrices of the first tiles, `(36, tiles, C)`."""
        return self.matrices[:, :tiles]

    def multiply(self, kernels: Tensor, products: "_Mixtures", tiles: int) -> None:
        """Write the products of the first tiles. Of all, where few are missing: that is one call instead of 36."""
        if tiles < _FULL * TILES:
            torch.bmm(self.of(tiles), kernels, out=products.of(tiles))
        else:
            torch.bmm(self.matrices, kernels, out=products.matrices)


class Convolution:
    """A 3x3 convolution with padding 1 of C to C channels, `weight` being `(C, C, 3, 3)`; gradients add up in it."""

    def __init__(self, weight: Tensor) -> None:
        mix = weight.new_tensor(MIX_KERNEL)
        self._kernels = torch.einsum("yi,xj,dcij->yxcd", mix, mix, weight).flatten(0, 1).contiguous()
        self._g_kernels = torch.zeros_like(self._kernels)
        self._transforms = transforms(len(weight))

    def forward(
        self, image: RowsOf, bias: Floats, out: Floats, *, then: Callable[[int, slice], None] | None = None
    ) -> None:
        """Write the convolved pictures, plus `bias`; `then` is told which rows of which one have just been written."""

        def work(bands: Sequence[_Band]) -> None:
            mixed, convolved = _Mixtures.apart(self._kernels), _Mixtures.side_by_side(self._kernels)
            for band in bands:
                seen, made = _in_rows(image(band.number, band.seen)), _in_rows(out[band.number, band.made])
                for start, stop in band.runs():
                    self._transforms.mix(seen, band.above, start, stop, mixed.floats)
                    mixed.multiply(self._kernels, convolved, stop - start)
                    self._transforms.unmix(convolved.floats, bias, start, stop, made)
                if then is not None:
                    then(band.number, band.made)

        share_out(work, _bands(out.shape))

    def backward(self, begin: Callable[[], Part], shape: tuple[int, ...]) -> list[Part]:
        """Go back through one forward pass of pictures `(N, H, W, C)`; return what `begin` made, for each core."""

        def work(bands: Sequence[_Band]) -> _Share[Part]:
            return self._backward(begin(), bands, shape)

        shares = share_out(work, _bands(shape))
        for one, other in pairwise(shares):
            if other.above is not None:
                number, rows, gradient, image = one.below
                one.part.take(number, rows, gradient + other.above, image)
        for share in shares:
            self._g_kernels += share.g_kernels
        return [share.part for share in shares]

    def _backward(self, part: Part, bands: Sequence[_Band], shape: tuple[int, ...]) -> "_Share[Part]":
        mixed, g_convolved = _Mixtures.apart(self._kernels), _Mixtures.apart(self._kernels)
        g_mixed = _Mixtures.side_by_side(self._kernels)
        backwards, g_kernels = self._kernels.transpose(1, 2), torch.zeros_like(self._kernels)
        room = np.zeros((_rows_of_a_band(shape) + 2, *shape[2:]), mixed.floats.dtype)  # with a row above and one below
        above = None
        for band in bands:
            image = part.image(band.number, band.seen)
            gradient = room[1 - band.above :][: len(image)]
            seen, g_made, g_seen = map(_in_rows, (image, part.gradient(band.number, band.made), gradient))
            for start, stop in band.runs():
                self._transforms.mix(seen, band.above, start, stop, mixed.floats)
                self._transforms.unmix_gradient(g_made, start, stop, g_convolved.floats)
                g_kernels.baddbmm_(mixed.of(stop - start).transpose(1, 2), g_convolved.of(stop - start))
                g_convolved.multiply(backwards, g_mixed, stop - start)
                self._transforms.mix_gradient(g_mixed.floats, band.above, start, stop, g_seen)
            # Neighbours have two rows in common, which are done when both have added to them.
            rows = _Rows(band.number, band.seen, gradient, image)
            first, last = 0, len(image)
            if band is bands[0] and band.made.start > 0:
                first = 2
                above = gradient[:first].copy()
            if band.made.stop < shape[1]:
                last -= 2
            if first < last:
                part.take(*rows.cut(first, last))
            below = rows.cut(last, len(image))
            if band is not bands[-1]:
                begun = len(below.gradient)
                room[:begun] = below.gradient
                room[begun:] = 0
        return _Share(part, g_kernels, above, below)

    def weight_gradient(self) -> Tensor:
        """Return the gradient of the weight, of all backward passes together."""
        mix = self._kernels.new_tensor(MIX_KERNEL)
        by_pixel = self._g_kernels.view(SEEN, SEEN, *self._g_kernels.shape[1:])
        return torch.einsum("yi,xj,yxcd->dcij", mix, mix, by_pixel).contiguous(memory_format=torch.channels_last)


class _Rows(NamedTuple):
    """Rows of a picture with their gradient, `(rows, W, C)` each, as `BackwardPart.take` is given them."""

    number: int
    rows: slice
    gradient: Floats
    image: Floats

    def cut(self, first: int, last: int) -> "_Rows":
        """Return some of the rows, counted from the first."""
        rows = slice(self.rows.start + first, self.rows.start + last)
        return _Rows(self.number, rows, self.gradient[first:last], self.image[first:last])


class _Share(NamedTuple, Generic[Part]):
    """What one core has done of a backward pass."""

    part: Part
    g_kernels: Tensor
    above: Floats | None  # its share of the rows in common with the core before, where they meet within a picture
    below: _Rows  # those in common with the core after; none where a picture ends


def _in_rows(picture: Floats) -> Floats:
    """Return rows `(rows, W, C)` as `(rows, W * C)`, the same memory."""
    return picture.reshape(len(picture), -1)


def _rows_of_a_band(shape: tuple[int, ...]) -> int:
    """Return the fewest rows of pixels whose tiles fill their calls, or nearly so."""
    _, height, width, _ = shape
    across, down = ceil(width / SIDE), ceil(height / SIDE)
    most = min(max(_MOST_TILES // across, 1), down)
    tiles = [rows * across for rows in range(1, most + 1)]
    filled = [each / (ceil(each / TILES) * TILES) for each in tiles]
    enough = min(max(filled), _FULL)
    return SIDE * next(rows for rows, share in enumerate(filled, start=1) if share >= enough)


@lru_cache(maxsize=8)
def _bands(shape: tuple[int, ...]) -> Sequence[_Band]:
    """Return the bands of all pictures, in order."""
    number, height, width, _ = shape
    rows = _rows_of_a_band(shape)
    return [
        _band(each, slice(top, min(top + rows, height)), height, -(-width // SIDE))
        for each in range(number)
        for top in range(0, height, rows)
    ]


def _band(number: int, made: slice, height: int, across: int) -> _Band:
    seen = slice(max(made.start - 1, 0), min(made.stop + 1, height))
    tiles = -(-(made.stop - made.start) // SIDE) * across
    return _Band(number, made, seen, made.start - seen.start, tiles)
