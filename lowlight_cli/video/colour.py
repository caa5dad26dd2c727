"""Between a film's planes and upright RGB, without moving a colour.

swscale does the work, told to be accurate: its quicker ways truncate, and a film went through RGB and back a whole
level of 255 darker. Into full range it truncates colour even so (half a level, towards green), so there the matrix
is our own, and swscale only halves the planes.
"""

from typing import cast

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray

from lowlight_cli.video.facts import Colour, Turn

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""`(H, W, 3)`, upright RGB; uint8, or uint16 over its whole range for films of more than 8 bits."""

_ACCURATE = int(
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)

# What swscale calls the matrices of ISO/IEC 23091-2, and their weights of red and blue in luma.
_MATRICES = {
    1: (Colorspace.ITU709, 0.2126, 0.0722),
    4: (Colorspace.FCC, 0.30, 0.11),
    5: (Colorspace.ITU601, 0.299, 0.114),
    6: (Colorspace.ITU601, 0.299, 0.114),
    7: (Colorspace.SMPTE240M, 0.212, 0.087),
    9: (Colorspace.BT2020, 0.2627, 0.0593),
    10: (Colorspace.BT2020, 0.2627, 0.0593),
}


def upright_rgb(frame: VideoFrame, colour: Colour, turn: Turn, *, depth: int) -> Pixels:
    """Return a frame's pixels; `depth` is the film's bits per channel."""
    packed = frame.reformat(
        format="rgb48le" if depth > 8 else "rgb24",
        src_colorspace=_matrix(colour.matrix_for(frame.height))[0],
        src_color_range=ColorRange.JPEG if colour.is_full_range else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_ACCURATE,
        threads=1,
    )
    pixels = packed.to_ndarray()
    mirrored = pixels[:, ::-1] if turn.mirrored else pixels
    return cast(Pixels, np.ascontiguousarray(np.rot90(mirrored, turn.quarters)))


def planar(pixels: Pixels, pixel_format: str, *, matrix: int, full_range: bool) -> VideoFrame:
    """Return pixels as a frame in an encoder's format, by the matrix with this code point."""
    deep = pixels.dtype == np.uint16
    if full_range:
        planes = _full_range_planes(pixels, matrix)
        frame = VideoFrame.from_ndarray(planes, format="yuv444p16le" if deep else "yuv444p", channel_last=True)
    else:
        frame = VideoFrame.from_ndarray(pixels, format="rgb48le" if deep else "rgb24")
    wanted = ColorRange.JPEG if full_range else ColorRange.MPEG
    return frame.reformat(
        format=pixel_format,
        src_colorspace=_matrix(matrix)[0],
        dst_colorspace=_matrix(matrix)[0],
        src_color_range=ColorRange.JPEG,
        dst_color_range=wanted,
        interpolation=_ACCURATE,
        threads=1,
    )


def _full_range_planes(pixels: Pixels, matrix: int) -> Pixels:
    """Return luma and the two colour differences `(H, W, 3)`, full range, rounded."""
    _, red, blue = _matrix(matrix)
    top = np.iinfo(pixels.dtype).max
    luma = np.array([red, 1 - red - blue, blue], np.float32)
    weights = np.stack((
        luma,
        (np.array([0, 0, 1], np.float32) - luma) / (2 * (1 - blue)),
        (np.array([1, 0, 0], np.float32) - luma) / (2 * (1 - red)),
    ))  # fmt: skip
    values = pixels.astype(np.float32) @ weights.T
    values[..., 1:] += (top + 1) // 2
    return cast(Pixels, np.clip(np.rint(values), 0, top).astype(pixels.dtype))


def _matrix(code: int) -> tuple[Colorspace, float, float]:
    return _MATRICES.get(code, _MATRICES[1])
