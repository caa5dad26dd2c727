"""Pictures made small for a page: sRGB in 8 bits, as WebP that keeps to a number of bytes."""

import io
import math
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lowlight_cli.images import Picture

Thumbnail = NDArray[np.uint8]

_PAGE_BYTES = 24_000_000  # of a page of up to 400 previews, before and after of 200 pictures
_PAGE_PREVIEWS = 400
_TEXT_BYTES = 1_500  # of the page's own words, for each preview
_MOST_SIDE, _LEAST_SIDE = 1024, 256
_MOST_BYTES, _LEAST_BYTES = 150_000, 3_000
_FULL_SIDE_BYTES = 36_000  # below this a preview looks better smaller than coarser
_QUALITIES = (82, 70, 55, 40, 25)
_BACKDROP = np.float32(128)  # grey behind what is transparent


@dataclass(frozen=True)
class PreviewSize:
    """How large a preview may be: its long side in pixels, and its bytes."""

    side: int
    most_bytes: int


@dataclass(frozen=True)
class Preview:
    """A picture made small: `content` is a WebP of `width` times `height` pixels."""

    width: int
    height: int
    content: bytes


def preview_size(previews: int) -> PreviewSize:
    """Return how large each of so many previews may be.

    Pages of up to 400 previews stay below 25 MB. Larger ones grow with the square root of their number, and the
    previews shrink: 1,000 pictures before and after take 54 MB.
    """
    previews = max(previews, 1)
    page = _PAGE_BYTES * max(1.0, math.sqrt(previews / _PAGE_PREVIEWS))
    # Base64 writes three bytes as four letters.
    share = int((page / previews - _TEXT_BYTES) * 3 / 4)
    most_bytes = min(max(share, _LEAST_BYTES), _MOST_BYTES)
    side = _MOST_SIDE * math.sqrt(min(1.0, most_bytes / _FULL_SIDE_BYTES))
    return PreviewSize(max(_LEAST_SIDE, round(side / 32) * 32), most_bytes)


def make_preview(thumbnail: Thumbnail, most_bytes: int) -> Preview:
    """Encode `(h, w, 3)` sRGB as finely as `most_bytes` allow; what no quality makes fit is scaled down further."""
    image = Image.fromarray(thumbnail)
    while True:
        for quality in _QUALITIES:
            written = io.BytesIO()
            image.save(written, "WEBP", quality=quality, method=2)
            if written.tell() <= most_bytes or max(image.size) <= 16:
                return Preview(image.width, image.height, written.getvalue())
        image = image.resize(_scaled(image.width, image.height, round(max(image.size) * 0.75)), Image.Resampling.BOX)


def thumbnail_of(picture: Picture, side: int) -> Thumbnail:
    """Return a picture scaled down by area averaging to a long side of at most `side` pixels: `(h, w, 3)` sRGB, 8 bits.

    What is transparent is shown on grey.
    """
    if picture.pixels.dtype == np.uint8:
        # Pillow averages integers ten times as fast as floats are averaged; the profile then meets a small picture.
        size = _scaled(picture.width, picture.height, side)
        pixels = _shrunk(cast(Thumbnail, picture.pixels), size).reshape(size[1], size[0], -1)
        planes = replace(picture, pixels=pixels, alpha=None).srgb()
    else:
        planes = picture.preview(side)
    levels = np.clip(planes, 0, 1).transpose(1, 2, 0) * np.float32(255)
    if picture.alpha is not None:
        alpha = picture.alpha if picture.alpha.dtype == np.uint8 else picture.alpha >> 8
        share = _shrunk(alpha.astype(np.uint8), (levels.shape[1], levels.shape[0]))[..., None] / np.float32(255)
        levels = levels * share + _BACKDROP * (1 - share)
    eight: Thumbnail = np.rint(levels).astype(np.uint8)
    return eight


def shrink(thumbnail: Thumbnail, side: int) -> Thumbnail:
    """Return a thumbnail whose long side is at most `side` pixels."""
    return _shrunk(thumbnail, _scaled(thumbnail.shape[1], thumbnail.shape[0], side))


def _scaled(width: int, height: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _shrunk(pixels: Thumbnail, size: tuple[int, int]) -> Thumbnail:
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels)
    return np.asarray(image.resize(size, Image.Resampling.BOX))
