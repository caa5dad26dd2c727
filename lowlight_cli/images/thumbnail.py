"""Pictures made small to look at: sRGB in 8 bits, whatever they were."""

from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lowlight_cli.images.picture import Picture

Thumbnail = NDArray[np.uint8]

_BACKDROP = np.float32(128)  # grey behind what is transparent


def thumbnail_of(picture: Picture, side: int) -> Thumbnail:
    """Return a picture scaled down by area averaging to a long side of at most `side` pixels: `(h, w, 3)` sRGB, 8 bits.

    What is transparent is shown on grey.
    """
    if picture.pixels.dtype == np.uint8:
        # Pillow averages integers ten times as fast as floats are averaged; the profile then meets a small picture.
        size = _scaled(picture.width, picture.height, side)
        pixels = _resized(cast(Thumbnail, picture.pixels), size).reshape(size[1], size[0], -1)
        planes = replace(picture, pixels=pixels, alpha=None).srgb()
    else:
        planes = picture.preview(side)
    levels = np.clip(planes, 0, 1).transpose(1, 2, 0) * np.float32(255)
    if picture.alpha is not None:
        alpha = picture.alpha if picture.alpha.dtype == np.uint8 else picture.alpha >> 8
        share = _resized(alpha.astype(np.uint8), (levels.shape[1], levels.shape[0]))[..., None] / np.float32(255)
        levels = levels * share + _BACKDROP * (1 - share)
    eight: Thumbnail = np.rint(levels).astype(np.uint8)
    return eight


def shrunk(thumbnail: Thumbnail, side: int) -> Thumbnail:
    """Return a thumbnail whose long side is at most `side` pixels."""
    return _resized(thumbnail, _scaled(thumbnail.shape[1], thumbnail.shape[0], side))


def _scaled(width: int, height: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resized(pixels: Thumbnail, size: tuple[int, int]) -> Thumbnail:
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels)
    return np.asarray(image.resize(size, Image.Resampling.BOX))
