"""White balance and contrast, off unless asked for: one global curve per channel, taken from a small preview."""

import numpy as np
from numpy.typing import NDArray

from lowlight_cli.images import Canvas, Picture
from lowlight_cli.images.colour import Floats, linear_to_srgb, srgb_to_linear

_PREVIEW_SIDE = 512
_LARGEST_BALANCE = 2.0
_ENDS = (0.5, 99.5)  # per cent of the luma that may be clipped
_LIFT_LIMIT, _DROP_LIMIT = 0.15, 0.7  # black is never taken above, nor white below these


def finished(picture: Picture, *, white_balance: bool, contrast: bool) -> Picture:
    """Return the picture with its colours balanced, then its contrast stretched; all else as it was.

    White balance is the grey-world rule in linear light: a channel is multiplied by mean(all) / mean(channel), kept
    within [1/2, 2]. Contrast is (x - black) / (white - black), where black and white are the 0.5th and 99.5th
    percentile of the mean of the channels, black at most 0.15 and white at least 0.7.
    """
    preview = picture.without_hidden().preview(_PREVIEW_SIDE)
    gains = grey_world_gains(preview) if white_balance else np.ones(3, dtype=np.float32)
    black, white = ends(_balanced(preview, gains)) if contrast else (0.0, 1.0)
    canvas = Canvas(picture)
    for rows in picture.bands():
        stretched = (_balanced(picture.srgb(rows), gains) - np.float32(black)) / np.float32(white - black)
        canvas.add(np.clip(stretched, 0.0, 1.0))
    return canvas.picture()


def grey_world_gains(picture: Floats) -> NDArray[np.float32]:
    """Return the factor of each channel of sRGB floats `(3, h, w)`, in linear light."""
    means = srgb_to_linear(picture).mean(axis=(1, 2)) + 1e-6
    gains: NDArray[np.float32] = np.clip(means.mean() / means, 1 / _LARGEST_BALANCE, _LARGEST_BALANCE).astype(
        np.float32
    )
    return gains


def ends(picture: Floats) -> tuple[float, float]:
    """Return where black and white of sRGB floats `(3, h, w)` should be."""
    low, high = np.percentile(picture.mean(axis=0), _ENDS)
    return min(float(low), _LIFT_LIMIT), max(float(high), _DROP_LIMIT)


def _balanced(picture: Floats, gains: NDArray[np.float32]) -> Floats:
    if (gains == 1).all():
        return picture
    balanced: Floats = linear_to_srgb(np.clip(srgb_to_linear(picture) * gains[:, None, None], 0.0, 1.0))
    return balanced
