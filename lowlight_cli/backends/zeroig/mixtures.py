"""Winograd's transforms of tiles, between pictures and the mixtures that `winograd` multiplies; on a CPU.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: F(4x4, 3x3). Six pixels in a
line become six mixtures; six mixtures of a result become four pixels of it; each is done along the rows and down the
columns. The first and the last mixture are scaled so that the fewest sums make them, the kernel's the other way.

A picture is `(rows, columns * C)`, a pixel's channels side by side. Tiles are counted along its rows of tiles, four
pixels each way; those of a call are `start` to `stop`, at most `TILES`. Mixtures are 36 pictures of C channels, one
pixel for each tile, those of one row of the 6x6 after those of another. Where a transform writes them they lie `apart`,
where it reads them they lie side by side. What lies beyond the picture is zero.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lowlight_cli.loops import Floats, compiled, inlined

TILES = 128  # in a call, enough for it to be worth 36 products; of 64 channels in fp32, mixtures then take 1.2 MB
SIDE = 4  # of a tile, in pixels of the result
SEEN = 6  # pixels of the image, each way, that a tile is made from
MIX_KERNEL = (
    (-5 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 4),
)
_CACHE_LINE = 16  # numbers in fp32; of larger ones it takes more lines


_Number: TypeAlias = Callable[[Any], Any]  # a type of numbers, which turns constants into its own
_Six: TypeAlias = tuple[float, float, float, float, float, float]


def apart(channels: int) -> int:
    """Return how many numbers lie between the beginnings of two mixtures that a transform writes.

    A line more than they take: multiples of a power of two would put a tile's pixels of all mixtures into the same few
    places of the cache, where they drive each other out.
    """
    return TILES * channels + _CACHE_LINE


class Transforms(NamedTuple):
    """The transforms for C channels.

    `first` is the row of the image, as given, that lies where the result's first row does: 1 where a row above it is
    given, too.
    """

    mix: Callable[[Floats, int, int, int, Floats], None]
    """`(image, first, start, stop, mixtures)`: make the mixtures of an image."""
    unmix: Callable[[Floats, Floats, int, int, Floats], None]
    """`(mixtures, bias, start, stop, result)`: write pixels of the result, `bias` (C,) added."""
    mix_gradient: Callable[[Floats, int, int, int, Floats], None]
    """`(mixtures, first, start, stop, image)`: add to an image's gradient, given that of its mixtures."""
    unmix_gradient: Callable[[Floats, int, int, Floats], None]
    """`(result, start, stop, mixtures)`: make the gradient of mixtures, given the result's."""


@inlined
def _scratch(count: int, picture: Floats) -> Floats:
    """Return room for so many numbers like the picture's, which begins where a cache line does."""
    room = np.empty(count + _CACHE_LINE, picture.dtype)
    skipped = -room.ctypes.data // room.itemsize % _CACHE_LINE
    return room[skipped : skipped + count]


@inlined
def _mixed(number: _Number, a: float, b: float, c: float, d: float, e: float, f: float) -> _Six:
    """Return the six mixtures of six pixels; `number` turns constants into the pixels' type."""
    even, odd = e - number(4) * c, d - number(4) * b
    other_even, other_odd = e - c, number(2) * (d - b)
    first, last = c - number(0.8) * a - number(0.2) * e, b - number(1.25) * d + number(0.25) * f
    return first, even + odd, even - odd, other_even + other_odd, other_even - other_odd, last


@inlined
def _mixed_transposed(number: _Number, a: float, b: float, c: float, d: float, e: float, f: float) -> _Six:
    """Return the gradients of six pixels, given those of their mixtures."""
    total, difference = b + c, b - c
    other_total, other_difference = d + e, number(2) * (d - e)
    inner = a - number(4) * total - other_total, difference + other_difference - number(1.25) * f
    return (
        number(-0.8) * a,
        f - number(4) * difference - other_difference,
        inner[0],
        inner[1],
        total + other_total - number(0.2) * a,
        number(0.25) * f,
    )


@inlined
def _unmixed(
    number: _Number, a: float, b: float, c: float, d: float, e: float, f: float
) -> tuple[float, float, float, float]:
    """Return the four pixels that six mixtures of a result make."""
    total, difference = b + c, b - c
    other_total, other_difference = d + e, d - e
    return (
        a + total + other_total,
        difference + number(2) * other_difference,
        total + number(4) * other_total,
        difference + number(8) * other_difference + f,
    )


@inlined
def _unmixed_transposed(number: _Number, a: float, b: float, c: float, d: float) -> _Six:
    """Return the gradients of six mixtures, given those of the four pixels that they make."""
    even, odd = a + c, b + d
    other_even, other_odd = a + number(4) * c, number(2) * b + number(8) * d
    return a, even + odd, even - odd, other_even + other_odd, other_even - other_odd, d


@compiled
def _cut(picture: Floats, top: int, left: int, patch: Floats) -> None:
    """Copy a patch, `(rows, columns * C)`, from a picture that it may reach beyond."""
    for y in range(patch.shape[0]):
        inside = 0 <= top + y < picture.shape[0]
        for x in range(patch.shape[1]):
            patch[y, x] = picture[top + y, left + x] if inside and 0 <= left + x < picture.shape[1] else 0


@compiled
def _paste(patch: Floats, top: int, left: int, picture: Floats) -> None:
    """Copy a patch to a picture that it may reach beyond."""
    for y in range(max(-top, 0), min(patch.shape[0], picture.shape[0] - top)):
        for x in range(max(-left, 0), min(patch.shape[1], picture.shape[1] - left)):
            picture[top + y, left + x] = patch[y, x]


@compiled
def _paste_sum(patch: Floats, top: int, left: int, picture: Floats) -> None:
    """Add a patch to a picture that it may reach beyond."""
    for y in range(max(-top, 0), min(patch.shape[0], picture.shape[0] - top)):
        for x in range(max(-left, 0), min(patch.shape[1], picture.shape[1] - left)):
            picture[top + y, left + x] += patch[y, x]


@cache
def transforms(channels: int) -> Transforms:
    """Return the transforms for pictures of so many channels.

    Compiled for each number of channels: only where all distances between what a loop reads and writes are known can
    the compiler tell that it may work on many channels at once.
    """
    C = channels
    RUN = SEEN * C  # floats in a row of what a tile sees
    STEP = TILES * C  # from one mixture that is read to the next
    DOWN = SEEN * STEP  # from one row of them to the next
    APART = apart(C)  # the same for mixtures that are written
    BELOW = SEEN * APART

    @compiled
    def mix(image: Floats, first: int, start: int, stop: int, mixtures: Floats) -> None:
        rows, floats = image.shape
        across, number = -(-floats // (SIDE * C)), image.dtype.type
        patch, half = np.empty((SEEN, RUN), image.dtype), _scratch(SEEN * RUN, image)
        for tile in range(start, stop):
            top, left = first + tile // across * SIDE - 1, (tile % across * SIDE - 1) * C
            within = top >= 0 and top + SEEN <= rows and left >= 0 and left + RUN <= floats
            if not within:
                _cut(image, top, left, patch)
            for y in range(SEEN):
                p = image[top + y, left : left + RUN] if within else patch[y]
                h = half[y * RUN : (y + 1) * RUN]
                for c in range(C):
                    h[c], h[C + c], h[2 * C + c], h[3 * C + c], h[4 * C + c], h[5 * C + c] = _mixed(
                        number, p[c], p[C + c], p[2 * C + c], p[3 * C + c], p[4 * C + c], p[5 * C + c]
                    )
            for x in range(SEEN):
                h, m = half[x * C :], mixtures[x * APART + (tile - start) * C :]
                for c in range(C):
                    m[c], m[BELOW + c], m[2 * BELOW + c], m[3 * BELOW + c], m[4 * BELOW + c], m[5 * BELOW + c] = _mixed(
                        number, h[c], h[RUN + c], h[2 * RUN + c], h[3 * RUN + c], h[4 * RUN + c], h[5 * RUN + c]
                    )

    @compiled
    def unmix(mixtures: Floats, bias: Floats, start: int, stop: int, result: Floats) -> None:
        rows, floats = result.shape
        across, number = -(-floats // (SIDE * C)), result.dtype.type
        patch, half = np.empty((SIDE, SIDE * C), result.dtype), _scratch(SIDE * RUN, result)
        for tile in range(start, stop):
            top, left = tile // across * SIDE, tile % across * SIDE * C
            within = top + SIDE <= rows and left + SIDE * C <= floats
            for x in range(SEEN):
                h, m = half[x * C :], mixtures[x * STEP + (tile - start) * C :]
                for c in range(C):
                    h[c], h[RUN + c], h[2 * RUN + c], h[3 * RUN + c] = _unmixed(
                        number, m[c], m[DOWN + c], m[2 * DOWN + c], m[3 * DOWN + c], m[4 * DOWN + c], m[5 * DOWN + c]
                    )
            for y in range(SIDE):
                p = result[top + y, left : left + SIDE * C] if within else patch[y]
                h = half[y * RUN : (y + 1) * RUN]
                for c in range(C):
                    one, two, three, four = _unmixed(
                        number, h[c], h[C + c], h[2 * C + c], h[3 * C + c], h[4 * C + c], h[5 * C + c]
                    )
                    p[c], p[C + c] = one + bias[c], two + bias[c]
                    p[2 * C + c], p[3 * C + c] = three + bias[c], four + bias[c]
            if not within:
                _paste(patch, top, left, result)

    @compiled
    def mix_gradient(mixtures: Floats, first: int, start: int, stop: int, image: Floats) -> None:
        rows, floats = image.shape
        across, number = -(-floats // (SIDE * C)), image.dtype.type
        patch, half = np.empty((SEEN, RUN), image.dtype), _scratch(SEEN * RUN, image)
        for tile in range(start, stop):
            top, left = first + tile // across * SIDE - 1, (tile % across * SIDE - 1) * C
            within = top >= 0 and top + SEEN <= rows and left >= 0 and left + RUN <= floats
            for x in range(SEEN):
                h, m = half[x * C :], mixtures[x * STEP + (tile - start) * C :]
                for c in range(C):
                    h[c], h[RUN + c], h[2 * RUN + c], h[3 * RUN + c], h[4 * RUN + c], h[5 * RUN + c] = (
                        _mixed_transposed(
                            number,
                            m[c],
                            m[DOWN + c],
                            m[2 * DOWN + c],
                            m[3 * DOWN + c],
                            m[4 * DOWN + c],
                            m[5 * DOWN + c],
                        )
                    )
            if not within:
                patch[:] = 0
            for y in range(SEEN):
                p = image[top + y, left : left + RUN] if within else patch[y]
                h = half[y * RUN : (y + 1) * RUN]
                for c in range(C):
                    one, two, three, four, five, six = _mixed_transposed(
                        number, h[c], h[C + c], h[2 * C + c], h[3 * C + c], h[4 * C + c], h[5 * C + c]
                    )
                    p[c] += one
                    p[C + c] += two
                    p[2 * C + c] += three
                    p[3 * C + c] += four
                    p[4 * C + c] += five
                    p[5 * C + c] += six
            if not within:
                _paste_sum(patch, top, left, image)

    @compiled
    def unmix_gradient(result: Floats, start: int, stop: int, mixtures: Floats) -> None:
        rows, floats = result.shape
        across, number = -(-floats // (SIDE * C)), result.dtype.type
        patch, half = np.empty((SIDE, SIDE * C), result.dtype), _scratch(SIDE * RUN, result)
        for tile in range(start, stop):
            top, left = tile // across * SIDE, tile % across * SIDE * C
            within = top + SIDE <= rows and left + SIDE * C <= floats
            if not within:
                _cut(result, top, left, patch)
            for y in range(SIDE):
                p = result[top + y, left : left + SIDE * C] if within else patch[y]
                h = half[y * RUN : (y + 1) * RUN]
                for c in range(C):
                    h[c], h[C + c], h[2 * C + c], h[3 * C + c], h[4 * C + c], h[5 * C + c] = _unmixed_transposed(
                        number, p[c], p[C + c], p[2 * C + c], p[3 * C + c]
                    )
            for x in range(SEEN):
                h, m = half[x * C :], mixtures[x * APART + (tile - start) * C :]
                for c in range(C):
                    m[c], m[BELOW + c], m[2 * BELOW + c], m[3 * BELOW + c], m[4 * BELOW + c], m[5 * BELOW + c] = (
                        _unmixed_transposed(number, h[c], h[RUN + c], h[2 * RUN + c], h[3 * RUN + c])
                    )

    return Transforms(mix, unmix, mix_gradient, unmix_gradient)
