"""Between a film's planes and upright RGB, without moving a colour.

swscale does the work, told to be accurate: its quicker ways truncate, and a film went through RGB and back a whole
level of 255 darker. Into full range it truncates colour even so (half a level, towards green), so there the matrix
is our own, and swscale only halves the planes. RGB stays in planes on the whole way, as networks take it: swscale
makes them in a third of the time that interleaved pixels cost, and nothing need be taken apart again.
"""

from typing import cast

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from lowlight_cli.buffers import Buffers
from lowlight_cli.video.facts import Colour, Turn

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""`(3, H, W)`, upright RGB; uint8, or uint16 over its whole range for films of more than 8 bits."""

_ACCURATE = int(
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
_GBR = (1, 2, 0)  # the order in which ffmpeg holds planes of RGB

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


class Converter:
    """Converts the frames of one film, one way; keeps what swscale prepares. Not for several threads at once."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()
        self._buffers = Buffers()

    def upright_rgb(self, frame: VideoFrame, colour: Colour, turn: Turn, *, depth: int) -> Pixels:
        """Return a frame's pixels; `depth` is the film's bits per channel."""
        converted = self._scaler.reformat(
            frame,
            format="gbrp16le" if depth > 8 else "gbrp",
            src_colorspace=_matrix(colour.matrix_for(frame.height))[0],
            src_color_range=ColorRange.JPEG if colour.is_full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=_ACCURATE,
            threads=1,
        )
        dtype = np.uint16 if depth > 8 else np.uint8
        upright = [_turned(_plane(converted, plane, dtype), turn) for plane in range(3)]
        pixels = self._buffers.empty((3, *upright[0].shape), dtype)
        for plane, channel in zip(upright, _GBR, strict=True):
            pixels[channel] = plane
        return cast(Pixels, pixels)

    def planar(self, pixels: Pixels, pixel_format: str, *, matrix: int, full_range: bool) -> VideoFrame:
        """Return pixels as a frame in an encoder's format, by the matrix with this code point."""
        _, height, width = pixels.shape
        deep = "16le" if pixels.dtype == np.uint16 else ""
        frame = VideoFrame(width, height, f"{'yuv444p' if full_range else 'gbrp'}{deep}")
        planes, order = (_full_range_planes(pixels, matrix), (0, 1, 2)) if full_range else (pixels, _GBR)
        for plane, channel in enumerate(order):
            _plane(frame, plane, pixels.dtype.type)[:] = planes[channel]
        return self._scaler.reformat(
            frame,
            format=pixel_format,
            src_colorspace=_matrix(matrix)[0],
            dst_colorspace=_matrix(matrix)[0],
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
            interpolation=_ACCURATE,
            threads=1,
        )


def _plane(frame: VideoFrame, index: int, dtype: type[np.uint8] | type[np.uint16]) -> Pixels:
    """Return a plane of a frame, `(H, W)`, as it lies in its memory."""
    plane = frame.planes[index]
    lines = np.frombuffer(plane, dtype).reshape(plane.height, -1)  # type: ignore[call-overload]
    return cast(Pixels, lines[:, : plane.width])


def _turned(plane: Pixels, turn: Turn) -> Pixels:
    return np.rot90(plane[:, ::-1] if turn.mirrored else plane, turn.quarters)


def _full_range_planes(pixels: Pixels, matrix: int) -> Pixels:
    """Return luma and the two colour differences `(3, H, W)`, full range, rounded."""
    _, red, blue = _matrix(matrix)
    top = np.iinfo(pixels.dtype).max
    luma = np.array([red, 1 - red - blue, blue], np.float32)
    weights = np.stack((
        luma,
        (np.array([0, 0, 1], np.float32) - luma) / (2 * (1 - blue)),
        (np.array([1, 0, 0], np.float32) - luma) / (2 * (1 - red)),
    ))  # fmt: skip
    values = (weights @ pixels.reshape(3, -1).astype(np.float32)).reshape(pixels.shape)
    values[1:] += (top + 1) // 2
    return cast(Pixels, np.clip(np.rint(values), 0, top).astype(pixels.dtype))


def _matrix(code: int) -> tuple[Colorspace, float, float]:
    return _MATRICES.get(code, _MATRICES[1])
