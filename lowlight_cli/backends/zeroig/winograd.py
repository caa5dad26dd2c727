"""A 3x3 convolution with padding 1 that takes a quarter of the multiplications, and its gradients, on a CPU.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: F(4x4, 3x3). The result is made
in tiles of 4x4 pixels. A tile sees 6x6 pixels, which become 36 mixtures; a mixture of all tiles, times a matrix of its
own, is a mixture of the result; 36 of those become 16 pixels: 2.25 products a pixel for 9.

Mixing down the columns is a matrix product of rows as they lie in memory. Mixing along the rows is not, but where
columns lie in `phases` it is a dozen sums of long runs.

Pictures are `(N, H, 4, T, C)` with zeros beyond their width (see `phases`). Work goes band by band, so that a band's
mixtures stay in the cache. For the same reason pictures come and go by bands: rows are asked for when they are needed,
and handed on as soon as they are made, so that what lies before and after a convolution need not pass through memory.
Each core has consecutive bands of its own.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from lowlight_cli.backends.zeroig.phases import PHASES, clear_beyond_
from lowlight_cli.parallel import share_out

RowsOf = Callable[[int, slice], Tensor]  # of the picture of this number these rows: `(rows, 4, T, C)`


class BackwardPart(Protocol):
    """What lies around the backward pass of a convolution, for the rows of one core; another core has another."""

    def gradient(self, number: int, rows: slice) -> Tensor:
        """Return the gradient of rows of the result; asked once for each, and before `take` has that row."""

    def image(self, number: int, rows: slice) -> Tensor:
        """Return rows of the image."""

    def take(self, number: int, rows: slice, gradient: Tensor, image: Tensor) -> None:
        """Use, or overwrite, the gradient of rows of the image, given the rows themselves."""


_ROWS = 4  # of a tile
_TILES = 256  # in a band: times 36 mixtures of 64 channels in fp32 2.4 MB, for the caches of two cores
_MIX = (  # the first and last mixture are scaled so that the fewest sums make them, the kernel's the other way
    (-4 / 5, 0, 1, 0, -1 / 5, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 1, 0, -5 / 4, 0, 1 / 4),
)
_MIX_KERNEL = (
    (-5 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 4),
)
_UNMIX = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_MIXTURES = len(_MIX)
_FOR_BIAS = _MIXTURES + 1  # the mixture that `_UNMIX` adds once to each pixel of a tile, in both directions


Part = TypeVar("Part", bound=BackwardPart)


class _TileRow(NamedTuple):
    """A row of tiles: four rows of the result, fewer at the bottom, and the rows of the image that they come from."""

    made: slice  # counted from the band's first
    seen: slice  # likewise
    places: slice  # of the rows seen among the six; the others lie beyond the picture


class _Band(NamedTuple):
    """Some rows of tiles of a picture, and the rows that they make and see."""

    number: int  # of the picture
    tiles: list[_TileRow]
    made: slice
    seen: slice


class _Mixtures(NamedTuple):
    """36 mixtures of a band, those of one row of the 6x6 pixels after those of another."""

    matrices: Tensor  # (36, tiles, C)
    columns: tuple[Tensor, ...]  # views of the six columns: (6, rows of tiles, T * C)
    has_left: Tensor  # of the first column the tiles that have a left neighbour
    has_right: Tensor  # of the last column those that have a right one


class _Mixer:
    """Turns the rows of a band into mixtures and back, for pictures of one shape `(N, H, 4, T, C)`.

    Halfway, rows are mixed down the columns only: `(6, rows of tiles, 4, T * C)`, a run for each phase.
    """

    def __init__(self, like: Tensor, shape: torch.Size) -> None:
        across, self._channels = shape[3:]
        rows = _tiles_high(shape)
        self._shape = (_MIXTURES, rows, across * self._channels)
        halfway = like.new_empty(_MIXTURES, rows, PHASES, across * self._channels)
        self._phases = halfway.unbind(2)
        self._right_neighbour, self._left_neighbour = (
            self._phases[0][..., self._channels :],
            self._phases[-1][..., : -self._channels],
        )
        self._rows = [each.flatten(1) for each in halfway.unbind(1)]
        self._scratch = like.new_empty(4, *self._shape).unbind()
        self._mix, self._unmix = like.new_tensor(_MIX), like.new_tensor(_UNMIX)

    def new_mixtures(self) -> _Mixtures:
        """Return room for the mixtures of a band."""
        made = self._mix.new_zeros(_MIXTURES, *self._shape)
        columns = made.unbind(1)
        has_left, has_right = columns[0][..., self._channels :], columns[-1][..., : -self._channels]
        return _Mixtures(made.view(_MIXTURES * _MIXTURES, -1, self._channels), columns, has_left, has_right)

    def mix(self, band: _Band, image: Tensor, out: _Mixtures) -> None:
        """Make the mixtures of the rows that a band sees, `(rows, 4, T, C)`."""
        image = image.view(len(image), -1)
        for tile, row in zip(band.tiles, self._rows, strict=False):
            torch.mm(self._mix[:, tile.places], image[tile.seen], out=row)
        one, two, three, four = self._phases
        left, _, _, _, _, right = out.columns
        torch.sub(two, four, alpha=1 / 5, out=left)
        out.has_left.sub_(self._left_neighbour, alpha=4 / 5)
        self._make_inner((four, two), (three, one), (-4, -1), out)
        torch.sub(one, three, alpha=5 / 4, out=right)
        out.has_right.add_(self._right_neighbour, alpha=1 / 4)

    def add_mix_gradient(self, band: _Band, given: _Mixtures, onto: Tensor) -> None:
        """Add the gradients of the rows seen, `(rows, 4, T, C)`, given the mixtures': `mix` transposed."""
        onto = onto.view(len(onto), -1)
        one, two, three, four = self._phases
        left, _, _, _, _, right = given.columns
        sum_ab, difference_ab, sum_cd, difference_cd = self._sums(given)
        torch.sub(right, difference_ab, alpha=4, out=one).sub_(difference_cd, alpha=2)
        self._right_neighbour.add_(given.has_right, alpha=1 / 4)
        torch.sub(left, sum_ab, alpha=4, out=two).sub_(sum_cd)
        torch.add(difference_ab, difference_cd, alpha=2, out=three).sub_(right, alpha=5 / 4)
        torch.add(sum_ab, sum_cd, out=four).sub_(left, alpha=1 / 5)
        self._left_neighbour.sub_(given.has_left, alpha=4 / 5)
        for tile, row in zip(band.tiles, self._rows, strict=False):
            onto[tile.seen].addmm_(self._mix[:, tile.places].t(), row)

    def unmix(self, band: _Band, given: _Mixtures, out: Tensor) -> None:
        """Write the rows that a band makes, `(rows, 4, T, C)`."""
        out = out.view(len(out), -1)
        one, two, three, four = self._phases
        left, _, _, _, _, right = given.columns
        sum_ab, difference_ab, sum_cd, difference_cd = self._sums(given)
        torch.add(sum_ab, sum_cd, out=one).add_(left)
        torch.add(difference_ab, difference_cd, alpha=2, out=two)
        torch.add(sum_ab, sum_cd, alpha=4, out=three)
        torch.add(difference_ab, difference_cd, alpha=8, out=four).add_(right)
        for tile, row in zip(band.tiles, self._rows, strict=False):
            rows = out[tile.made]
            torch.mm(self._unmix[: len(rows)], row, out=rows)

    def unmix_gradient(self, band: _Band, gradient: Tensor, out: _Mixtures) -> None:
        """Make the mixtures' gradients from those of the rows made: `unmix` transposed."""
        gradient = gradient.view(len(gradient), -1)
        for tile, row in zip(band.tiles, self._rows, strict=False):
            rows = gradient[tile.made]
            torch.mm(self._unmix[: len(rows)].t(), rows, out=row)
        for left_over in self._rows[len(band.tiles) :]:
            left_over.zero_()
        one, two, three, four = self._phases
        left, _, _, _, _, right = out.columns
        left.copy_(one)
        self._make_inner((one, three), (two, four), (1, 4), out)
        right.copy_(four)

    def _make_inner(
        self, evens: tuple[Tensor, Tensor], odds: tuple[Tensor, Tensor], shares: tuple[int, int], out: _Mixtures
    ) -> None:
        """Make the inner columns, even +- odd and even +- 2 odd; each is one of a pair and a share of the other."""
        _, a, b, c, d, _ = out.columns
        even, odd, *_ = self._scratch
        for share, weight, total, difference in ((shares[0], 1, a, b), (shares[1], 2, c, d)):
            torch.add(*evens, alpha=share, out=even)
            torch.add(*odds, alpha=share, out=odd)
            torch.add(even, odd, alpha=weight, out=total)
            torch.sub(even, odd, alpha=weight, out=difference)

    def _sums(self, given: _Mixtures) -> tuple[Tensor, ...]:
        _, a, b, c, d, _ = given.columns
        sum_ab, difference_ab, sum_cd, difference_cd = self._scratch
        torch.add(a, b, out=sum_ab)
        torch.sub(a, b, out=difference_ab)
        torch.add(c, d, out=sum_cd)
        torch.sub(c, d, out=difference_cd)
        return self._scratch


class Convolution:
    """A 3x3 convolution with padding 1 of C to C channels, `weight` being `(C, C, 3, 3)`; gradients add up in it."""

    def __init__(self, weight: Tensor) -> None:
        mix = weight.new_tensor(_MIX_KERNEL)
        self._kernels = torch.einsum("yi,xj,dcij->yxcd", mix, mix, weight).flatten(0, 1).contiguous()
        self._g_kernels = torch.zeros_like(self._kernels)

    def forward(
        self,
        image: RowsOf,
        bias: Tensor,
        out: Tensor,
        *,
        width: int,
        then: Callable[[int, slice], None] | None = None,
    ) -> None:
        """Write the convolved pictures, plus `bias`; `then` is told which rows of which one have just been written."""

        def work(bands: Sequence[_Band]) -> None:
            mixer = _Mixer(out, out.shape)
            mixed, convolved = mixer.new_mixtures(), mixer.new_mixtures()
            for band in bands:
                made = out[band.number, band.made]
                mixer.mix(band, image(band.number, band.seen), out=mixed)
                torch.bmm(mixed.matrices, self._kernels, out=convolved.matrices)
                convolved.matrices[_FOR_BIAS].add_(bias)
                mixer.unmix(band, convolved, out=made)
                clear_beyond_(made, width)
                if then is not None:
                    then(band.number, band.made)

        share_out(work, _bands(out.shape))

    def backward(self, begin: Callable[[], Part], shape: torch.Size, *, width: int) -> list[Part]:
        """Go back through one forward pass of pictures `(N, H, 4, T, C)`; return what `begin` made, for each core."""

        def work(bands: Sequence[_Band]) -> _Share[Part]:
            return self._backward(begin(), bands, shape, width)

        shares = share_out(work, _bands(shape))
        for one, other in pairwise(shares):
            if other.above is not None:
                number, rows, gradient, image = one.below
                one.part.take(number, rows, gradient + other.above, image)
        for share in shares:
            self._g_kernels += share.g_kernels
        return [share.part for share in shares]

    def _backward(self, part: Part, bands: Sequence[_Band], shape: torch.Size, width: int) -> "_Share[Part]":
        mixer = _Mixer(self._kernels, shape)
        mixed, g_mixed, g_convolved = mixer.new_mixtures(), mixer.new_mixtures(), mixer.new_mixtures()
        backwards, g_kernels = self._kernels.transpose(1, 2), torch.zeros_like(self._kernels)
        rows_of_band = _tiles_high(shape) * _ROWS
        room = self._kernels.new_zeros(rows_of_band + 2, *shape[2:])  # with a row above and one below
        above = None
        for band in bands:
            image = part.image(band.number, band.seen)
            mixer.mix(band, image, out=mixed)
            mixer.unmix_gradient(band, part.gradient(band.number, band.made), out=g_convolved)
            g_kernels.baddbmm_(mixed.matrices.transpose(1, 2), g_convolved.matrices)
            torch.bmm(g_convolved.matrices, backwards, out=g_mixed.matrices)
            gradient = room[band.seen.start - band.made.start + 1 :][: len(image)]
            mixer.add_mix_gradient(band, g_mixed, onto=gradient)
            clear_beyond_(gradient, width)
            # Neighbours have two rows in common, which are done when both have added to them.
            rows = _Rows(band.number, band.seen, gradient, image)
            first, last = 0, len(image)
            if band is bands[0] and band.made.start > 0:
                first = 2
                above = gradient[:first].clone()
            if band.made.stop < shape[1]:
                last -= 2
            if first < last:
                part.take(*rows.cut(first, last))
            below = rows.cut(last, len(image))
            if band is not bands[-1]:
                begun = len(below.gradient)
                room[:begun] = below.gradient
                room[begun:].zero_()
        return _Share(part, g_kernels, above, below)

    def weight_gradient(self) -> Tensor:
        """Return the gradient of the weight, of all backward passes together."""
        mix = self._kernels.new_tensor(_MIX_KERNEL)
        by_pixel = self._g_kernels.view(_MIXTURES, _MIXTURES, *self._g_kernels.shape[1:])
        return torch.einsum("yi,xj,yxcd->dcij", mix, mix, by_pixel).contiguous(memory_format=torch.channels_last)


class _Rows(NamedTuple):
    """Rows of a picture with their gradient, `(rows, 4, T, C)` each, as `BackwardPart.take` is given them."""

    number: int
    rows: slice
    gradient: Tensor
    image: Tensor

    def cut(self, first: int, last: int) -> "_Rows":
        """Return some of the rows, counted from the first."""
        rows = slice(self.rows.start + first, self.rows.start + last)
        return _Rows(self.number, rows, self.gradient[first:last], self.image[first:last])


class _Share(NamedTuple, Generic[Part]):
    """What one core has done of a backward pass."""

    part: Part
    g_kernels: Tensor
    above: Tensor | None  # its share of the rows in common with the core before, where they meet within a picture
    below: _Rows  # those in common with the core after; none where a picture ends


def _tiles_high(shape: torch.Size) -> int:
    """Return how many rows of tiles make a band."""
    _, height, _, across, _ = shape
    return min(max(_TILES // across, 1), -(-height // _ROWS))


@lru_cache(maxsize=8)
def _bands(shape: torch.Size) -> Sequence[_Band]:
    """Return the bands of all pictures, in order."""
    number, height = shape[:2]
    rows = _tiles_high(shape) * _ROWS
    return [
        _band(each, top, min(top + rows, height), height) for each in range(number) for top in range(0, height, rows)
    ]


def _band(number: int, top: int, bottom: int, height: int) -> _Band:
    made, seen = slice(top, bottom), slice(max(top - 1, 0), min(bottom + 1, height))
    tiles = []
    for start in range(top, bottom, _ROWS):
        stop = min(start + _ROWS, height)
        first, last = max(start - 1, 0), min(start + _ROWS + 1, height)
        tiles.append(
            _TileRow(
                made=slice(start - top, stop - top),
                seen=slice(first - seen.start, last - seen.start),
                places=slice(first - start + 1, last - start + 1),
            )
        )
    return _Band(number, tiles, made, seen)
