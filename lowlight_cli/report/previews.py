"""Pictures made small for a page: sRGB in 8 bits, as WebP that keeps to a number of bytes."""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lowlight_cli.images import Thumbnail, shrunk

_PAGE_BYTES = 24_000_000  # of a page of up to 400 previews, before and after of 200 pictures
_PAGE_PREVIEWS = 400
_TEXT_BYTES = 1_500  # of the page's own words, for each preview
_MOST_SIDE, _LEAST_SIDE = 1024, 256
_MOST_BYTES, _LEAST_BYTES = 150_000, 3_000
_FULL_SIDE_BYTES = 36_000  # below this a preview looks better smaller than coarser
_QUALITIES = (82, 70, 55, 40, 25)


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
        image = Image.fromarray(shrunk(np.asarray(image), round(max(image.size) * 0.75)))
