"""A decoded picture, what a network sees of it, and the canvas on which a result is drawn.

A picture is held once, in its own integers, upright, in its own colour profile. Floats exist only for the rows in work:
a 100-Mpx photo costs 300 MB here, not 1.2 GB.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lowlight_cli.images.colour import (
    Floats,
    Profile,
    from_profile,
    grey_of,
    into_profile,
    srgb_to_linear,
)
from lowlight_cli.images.hidden import without_hidden
from lowlight_cli.images.metadata import Tags

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

# Work goes band by band, each of about this many pixels, so that temporary floats stay near 50 MB.
_BAND_PIXELS = 1 << 20

_PIXELS_LOOKED_AT = 1 << 16
_DARKEST = 1e-5  # of mean linear light that stops can be told from


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture or one frame of an animation.

    `pixels` is `(H, W, 3)` or `(H, W, 1)`, uint8 or uint16, upright, encoded in `profile` (None: sRGB, or grey with the
    sRGB curve). `alpha` is `(H, W)` of the same dtype, 0 for transparent, or None. `format` is the file's (`"JPEG"`,
    `"PNG"`, ...); `depth` its bits per channel. `icc` is the profile to write back. `quality` is the estimated JPEG
    quality of the input, None for other formats; `lossless` says that a format which can be either was lossless.
    `warnings` are sentences about what could not be kept.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    format: str = "PNG"
    depth: int = 8
    icc: bytes | None = None
    profile: Profile | None = None
    tags: Tags = field(default_factory=Tags)
    quality: int | None = None
    lossless: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Height in pixels, after turning upright."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Width in pixels, after turning upright."""
        return int(self.pixels.shape[1])

    @property
    def is_grey(self) -> bool:
        """Whether the picture has one channel (and alpha)."""
        return bool(self.pixels.shape[2] == 1)

    def srgb(self, rows: slice = slice(None), columns: slice = slice(None)) -> Floats:
        """Return what a network sees of a part: new sRGB floats `(3, h, w)` in [0, 1], C-contiguous.

        Grey is repeated; colours outside sRGB are clamped, here only (see `Canvas`).
        """
        part = self.pixels[rows, columns]
        if self.profile is not None:
            return np.ascontiguousarray(from_profile(part, self.profile))
        planes = np.empty((3, *part.shape[:2]), dtype=np.float32)
        np.divide(part.transpose(2, 0, 1), np.float32(np.iinfo(part.dtype).max), out=planes)
        return planes

    def preview(self, side: int) -> Floats:
        """Return the picture scaled down by area averaging so that its long side is at most `side` pixels.

        sRGB floats `(3, h, w)` in [0, 1]. A picture that is small enough comes back whole. The same picture gives the
        same preview on every machine.
        """
        scale = min(1.0, side / max(self.height, self.width))
        height, width = max(1, round(self.height * scale)), max(1, round(self.width * scale))
        narrow = np.empty((3, self.height, width), dtype=np.float32)
        for rows in self.bands():
            narrow[:, rows] = _average_areas(self.srgb(rows), width)
        tall = np.ascontiguousarray(narrow.transpose(0, 2, 1))
        return np.ascontiguousarray(_average_areas(tall, height).transpose(0, 2, 1))

    def without_hidden(self) -> "Picture":
        """Return the picture to compute with: colours that alpha hides are drawn from those that are seen."""
        return self if self.alpha is None else replace(self, pixels=without_hidden(self.pixels, self.alpha))

    def part(self, rows: slice, columns: slice) -> "Picture":
        """Return a part of the picture, which shares its memory."""
        alpha = None if self.alpha is None else self.alpha[rows, columns]
        return replace(self, pixels=self.pixels[rows, columns], alpha=alpha)

    def with_part(self, rows: slice, columns: slice, part: "Picture") -> "Picture":
        """Return the picture with another part in the place of its own."""
        pixels = self.pixels.copy()
        pixels[rows, columns] = part.pixels
        return replace(self, pixels=pixels, warnings=part.warnings)

    def bands(self) -> Iterator[slice]:
        """Yield slices of rows from top to bottom, each about a megapixel."""
        step = max(1, _BAND_PIXELS // self.width)
        for top in range(0, self.height, step):
            yield slice(top, min(top + step, self.height))

    def with_warning(self, sentence: str) -> "Picture":
        """Return the same picture with one more warning."""
        return replace(self, warnings=(*self.warnings, sentence))


def stops_between(before: Picture, after: Picture) -> float:
    """Return by how many stops `after` is brighter than `before`, of the same size, in the mean of linear light.

    Read off every n-th pixel that is seen, to two decimals; 0 only where those are the same.
    """
    every = slice(None, None, max(1, math.isqrt(before.width * before.height // _PIXELS_LOOKED_AT)))
    if np.array_equal(before.pixels[every, every], after.pixels[every, every]):
        return 0.0
    seen = ... if before.alpha is None else before.alpha[every, every] > 0
    linear = (srgb_to_linear(each.srgb(every, every)[:, seen]) for each in (before, after))
    dark, bright = (float(each.mean()) + _DARKEST if each.size else 1.0 for each in linear)
    return round(math.log2(bright / dark), 2) or 0.01


class Canvas:
    """Collects a network's result from top to bottom, in the source's own profile, depth and channels.

    Each band of sRGB floats is converted on arrival and rounded (never truncated), so the result costs as much memory
    as the source's integers and no more. What sRGB could not show of the source is scaled with the pixel's gain and
    added back. Where the result equals `source.srgb(...)`, the source's pixels come back exactly, and so do those that
    alpha hides.
    """

    def __init__(self, source: Picture) -> None:
        self._source = source
        self._pixels = np.empty_like(source.pixels)
        self._filled = 0

    @property
    def rows_left(self) -> int:
        """How many rows are still to come."""
        return self._source.height - self._filled

    def add(self, rows: Floats) -> None:
        """Take the next rows: sRGB floats `(3, h, W)`; values are clamped to [0, 1], NaN is not allowed."""
        channels, height, width = rows.shape
        if channels != 3 or width != self._source.width or height > self.rows_left:
            raise ValueError(f"rows of shape {rows.shape} do not fit the {self.rows_left} that are left")
        step = max(1, _BAND_PIXELS // width)
        for top in range(0, height, step):
            band = np.clip(rows[:, top : top + step], 0.0, 1.0)
            place = slice(self._filled, self._filled + band.shape[1])
            self._pixels[place] = self._convert(band, self._source.pixels[place])
            self._filled = place.stop

    @property
    def takes_levels(self) -> bool:
        """Whether rows are only to be rounded, which whoever made them can do where they are: see `add_levels`."""
        return self._source.profile is None and self._source.pixels.shape[2] == 3

    def add_levels(self, rows: Pixels) -> None:
        """Take the next rows as the source's own integers `(h, W, 3)`; only if it `takes_levels`."""
        height, width, channels = rows.shape
        if not self.takes_levels or channels != 3 or width != self._source.width or height > self.rows_left:
            raise ValueError(f"levels of shape {rows.shape} do not fit the {self.rows_left} rows that are left")
        self._pixels[self._filled : self._filled + height] = rows
        self._filled += height

    def picture(self) -> Picture:
        """Return the finished result: the source's format, alpha and tags around the new pixels."""
        if self.rows_left:
            raise ValueError(f"{self.rows_left} rows are missing")
        if self._source.alpha is not None:
            np.copyto(self._pixels, self._source.pixels, where=(self._source.alpha == 0)[..., None])
        return replace(self._source, pixels=self._pixels)

    def _convert(self, band: Floats, own: Pixels) -> NDArray[np.integer]:
        if self._source.profile is not None:
            return into_profile(band, own, self._source.profile)
        if own.shape[2] == 1:
            band = grey_of(band)[None]
        top = np.float32(np.iinfo(own.dtype).max)
        levels: NDArray[np.integer] = np.rint(band * top).astype(own.dtype)
        return levels.transpose(1, 2, 0)


def _average_areas(planes: Floats, width: int) -> Floats:
    """Scale `(3, h, w)` down to `(3, h, width)`: each new pixel is the mean of the exact stretch it covers.

    The mean of a stretch is the difference of the running sum at its two ends; an end inside a pixel takes that share
    of it. Double precision keeps the sums exact to 1e-12 for any width.
    """
    old = planes.shape[2]
    if width == old:
        return planes
    sums = np.zeros((*planes.shape[:2], old + 1))
    np.cumsum(planes, axis=2, dtype=np.float64, out=sums[..., 1:])
    ends = np.arange(width + 1) * (old / width)
    whole = np.minimum(ends.astype(np.intp), old - 1)
    at_ends = sums[..., whole] + (ends - whole) * planes[..., whole]
    means: Floats = (np.diff(at_ends, axis=2) * (width / old)).astype(np.float32)
    return means
