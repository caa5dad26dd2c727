"""Cut a picture into tiles, run a function on each, join the results without seams: the one place that does so.

Tiles of one picture have the same size. Each sees real neighbours as context, and nothing beyond the picture's
border, where the function pads as it would for the whole picture. What lies within `halo` pixels of a cut is wrong
and thrown away; what remains overlaps, and there neighbours are faded into each other along a raised cosine:

    joined = left + (right - left) * weight

Where both agree the difference is zero and the result exact, for any sizes; no sum of weights is kept or divided by.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lowlight_cli.errors import ResourceError

SMALLEST_TILE = 128


class Window(NamedTuple):
    """Where a tile lies in its picture: rows top to bottom, columns left to right (exclusive ends), in pixels."""

    top: int
    bottom: int
    left: int
    right: int
    height: int
    width: int


TileFunction = Callable[[Tensor, Window], Tensor]


class Source(Protocol):
    """A picture that is read part by part, so that floats exist only for the part at hand."""

    height: int
    width: int

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Return the part `(1, C, h, w)` as floats in [0, 1]."""


class TensorSource:
    """A tensor `(1, C, H, W)` as a `Source`."""

    def __init__(self, image: Tensor) -> None:
        self.image = image
        self.height, self.width = image.shape[-2:]

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Return a view of the part."""
        return self.image[..., rows, columns]


@dataclass(frozen=True)
class Cut:
    """Where one axis is cut: tile i reaches from `starts[i]` to `stops[i]`; `halo` pixels beside a cut do not count."""

    length: int
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    halo: int

    def kept(self, index: int) -> tuple[int, int]:
        """Return first and last (exclusive) pixel of tile `index` that counts."""
        start, stop = self.starts[index], self.stops[index]
        return (start + self.halo if start > 0 else 0), (stop - self.halo if stop < self.length else stop)


def cut(length: int, size: int, *, overlap: int, halo: int = 0, multiple_of: int = 1) -> Cut:
    """Cut `length` pixels into as few equal tiles of at most `size` as overlap and halo allow.

    Tiles start at multiples of `multiple_of`, so that a network that works on blocks of that many pixels sees the same
    blocks as in the whole picture: off by one pixel its answer is another one. They end there too, but for the last,
    which ends with the picture. Where overlap and halo leave no room in `size`, tiles are larger than it.
    """
    # From here on in blocks. What neighbours share must leave every tile a block of its own, or it would not end.
    shared = math.ceil((overlap + 2 * halo) / multiple_of)
    largest = max(size // multiple_of, shared + 1)
    if max(size, largest * multiple_of) >= length:
        return Cut(length, (0,), (length,), halo)
    blocks = math.ceil(length / multiple_of)
    count = math.ceil((blocks - shared) / (largest - shared))
    even = math.ceil((blocks + (count - 1) * shared) / count)
    starts = tuple(round(index * (blocks - even) / (count - 1)) * multiple_of for index in range(count))
    stops = (*(start + even * multiple_of for start in starts[:-1]), length)
    return Cut(length, starts, stops, halo)


def spread_windows(height: int, width: int, *, count: int, side: int, multiple_of: int = 1) -> list[Window]:
    """Spread about `count` squares of `side` pixels evenly over a picture, in rows and columns; never more than fit.

    They begin at multiples of `multiple_of`, as tiles do, and are cut to the picture where it is smaller.
    """
    if not count:
        return []
    wanted = min(max(round(math.sqrt(count * height / width)), 1), count)
    rows = _spread(height, wanted, side, multiple_of)
    columns = _spread(width, max(count // wanted, 1), side, multiple_of)
    tall, wide = min(side, height), min(side, width)
    return [Window(top, top + tall, left, left + wide, height, width) for top in rows for left in columns]


def _spread(length: int, count: int, side: int, multiple_of: int) -> list[int]:
    room = max(length - side, 0)
    count = min(count, max(length // side, 1))
    if count == 1:
        return [room // 2 // multiple_of * multiple_of]
    places = (room * index // (count - 1) // multiple_of * multiple_of for index in range(count))
    return list(dict.fromkeys(places))  # small squares may begin at the same multiple


def _fade(overlap: int) -> Tensor:
    """Return weights of the later tile over `overlap` pixels: a raised cosine from just above 0 to just below 1."""
    steps = (torch.arange(overlap, dtype=torch.float64) + 0.5) / max(overlap, 1)
    return (0.5 - 0.5 * torch.cos(math.pi * steps)).float()


def tiled(
    function: TileFunction,
    image: Tensor,
    *,
    size: int,
    overlap: int,
    halo: int = 0,
    multiple_of: int = 1,
) -> Tensor:
    """Run `function` over tiles of `image` `(1, C, H, W)`; same shape out. `size` 0 takes the picture whole."""
    bands = tiled_rows(function, TensorSource(image), size=size, overlap=overlap, halo=halo, multiple_of=multiple_of)
    return torch.cat(list(bands), dim=-2)


def tiled_rows(
    function: TileFunction,
    source: Source,
    *,
    size: int,
    overlap: int,
    halo: int = 0,
    multiple_of: int = 1,
) -> Iterator[Tensor]:
    """Run `function` over tiles of `source` and yield finished bands `(1, C, rows, W)` from top to bottom.

    Memory is bounded by two bands of tiles, whatever the picture's height. A tile for which memory runs out is cut in
    halves, down to `SMALLEST_TILE`, and so are all after it. `function` gets each tile and its `Window`; `size` 0 makes
    one tile of all.

    Raises ResourceError when memory runs out at the smallest tile.
    """
    rows = cut(source.height, size or source.height, overlap=overlap, halo=halo, multiple_of=multiple_of)
    columns = cut(source.width, size or source.width, overlap=overlap, halo=halo, multiple_of=multiple_of)
    careful = _Careful(function, overlap=overlap, halo=halo, multiple_of=multiple_of)
    tail: Tensor | None = None
    done = 0  # rows that have been yielded
    for index in range(len(rows.starts)):
        top, bottom = rows.kept(index)
        band = _joined_band(careful, source, rows, columns, index)
        if tail is not None:
            shared = tail.shape[-2]
            band[..., :shared, :].sub_(tail).mul_(_fade(shared)[:, None].to(band)).add_(tail)
        following = rows.kept(index + 1)[0] if index + 1 < len(rows.starts) else bottom
        assert top == done
        # What the next band will cover too waits for it.
        tail = band[..., following - top :, :].clone() if following < bottom else None
        yield band[..., : following - top, :]
        done = following


def _joined_band(function: TileFunction, source: Source, rows: Cut, columns: Cut, index: int) -> Tensor:
    first_row = rows.starts[index]
    top, bottom = rows.kept(index)
    band: Tensor | None = None
    filled = 0
    for column, left in enumerate(columns.starts):
        window = Window(first_row, rows.stops[index], left, columns.stops[column], source.height, source.width)
        tile = source.read(slice(window.top, window.bottom), slice(window.left, window.right))
        first, last = columns.kept(column)
        result = function(tile, window)[..., top - first_row : bottom - first_row, first - left : last - left]
        if band is None:
            if len(columns.starts) == 1:
                return result
            band = result.new_empty((*result.shape[:-1], columns.length))
        shared = filled - first
        if shared > 0:
            before = band[..., first:filled]
            before.add_((result[..., :shared] - before).mul_(_fade(shared).to(band)))
        band[..., max(filled, first) : last] = result[..., max(shared, 0) :]
        filled = last
    assert band is not None
    return band


class _Careful:
    """Call a tile function; when memory runs out, call it on halves of the tile, and remember."""

    def __init__(self, function: TileFunction, *, overlap: int, halo: int, multiple_of: int) -> None:
        self._function = function
        self._overlap, self._halo, self._multiple_of = overlap, halo, multiple_of
        self._largest: int | None = None

    def __call__(self, tile: Tensor, window: Window) -> Tensor:
        side = max(tile.shape[-2:])
        if self._largest is None or side <= self._largest:
            try:
                return self._function(tile, window)
            except (torch.OutOfMemoryError, MemoryError) as error:
                if side <= SMALLEST_TILE:
                    raise ResourceError(
                        f"out of memory at a tile of {tile.shape[-1]}x{tile.shape[-2]} pixels; close other programs, "
                        "or try --device cpu or --precision bf16"
                    ) from error
            self._largest = max(SMALLEST_TILE, side // 2)
        return tiled(
            lambda part, inner: self(part, _shifted(inner, window)),
            tile,
            size=self._largest,
            overlap=min(self._overlap, self._largest // 4),
            halo=self._halo,
            multiple_of=self._multiple_of,
        )


def _shifted(inner: Window, outer: Window) -> Window:
    return Window(
        outer.top + inner.top,
        outer.top + inner.bottom,
        outer.left + inner.left,
        outer.left + inner.right,
        outer.height,
        outer.width,
    )


def count_tiles(height: int, width: int, *, size: int, overlap: int, halo: int = 0, multiple_of: int = 1) -> int:
    """Return how many tiles `tiled_rows` will cut."""
    return math.prod(
        len(cut(length, size or length, overlap=overlap, halo=halo, multiple_of=multiple_of).starts)
        for length in (height, width)
    )
