"""Between a film's planes and upright RGB, without moving a colour.

swscale does the work, told to be accurate on the way to RGB: its quicker ways truncate, and a film went there and back
a whole level of 255 darker. On the way from RGB they are off by a twentieth of a level at most and take half the time,
and colours that are averaged where pixels share them come back closer than by a longer filter (a decibel). Into full
range colour is truncated either way (half a level, towards green), so there the matrix is our own, and swscale only
halves the planes. RGB stays in planes on the whole way, as networks take it: swscale makes them in a third of the time
that interleaved pixels cost, and nothing need be taken apart again.
"""

from typing import cast

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from lowlight_cli.buffers import Buffers
from lowlight_cli.video.facts import Colour, Turn
from lowlight_cli.video.siting import Siting, frame_like, frame_sited, is_subsampled

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""`(3, H, W)`, upright RGB; uint8, or uint16 over its whole range for films of more than 8 bits."""

_TO_RGB = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT)
_FROM_RGB = int(Interpolation.AREA | Interpolation.FULL_CHR_H_INP)
_HALVED = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP)
_LIMITED_WHITE = 255 << 8  # what swscale makes of it where it holds more than 8 bits in 16
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
        self._sited: tuple[tuple[Siting, int, int, str], VideoFrame] | None = None

    def upright_rgb(self, frame: VideoFrame, colour: Colour, turn: Turn, *, depth: int) -> Pixels:
        """Return a frame's pixels; `depth` is the film's bits per channel."""
        converted = self._scaler.reformat(
            frame,
            format="gbrp16le" if depth > 8 else "gbrp",
            src_colorspace=_matrix(colour.matrix_for(frame.height))[0],
            src_color_range=ColorRange.JPEG if colour.is_full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=_TO_RGB,
            threads=1,
        )
        dtype = np.uint16 if depth > 8 else np.uint8
        upright = [_turned(_plane(converted, plane, dtype), turn) for plane in range(3)]
        pixels = self._buffers.empty((3, *upright[0].shape), dtype)
        for plane, channel in zip(upright, _GBR, strict=True):
            pixels[channel] = plane
        if depth > 8:
            form = frame.format  # grey and RGB use their whole range, whatever is said of it
            is_whole = colour.is_full_range or form.is_rgb or len(form.components) < 3
            _scale(pixels, 65535 / (((1 << depth) - 1) << (16 - depth) if is_whole else _LIMITED_WHITE))
        return cast(Pixels, pixels)

    def planar(
        self,
        pixels: Pixels,
        pixel_format: str,
        *,
        matrix: int,
        full_range: bool,
        siting: Siting,
        carrier: VideoFrame | None = None,
    ) -> VideoFrame:
        """Return pixels as a frame in an encoder's format, by the matrix with this code point.

        Colours that pixels share come to lie as `siting` says, or as those of the frame that a `carrier` is of,
        which the result carries on.
        """
        _, height, width = pixels.shape
        if full_range:
            depth = VideoFormat(pixel_format).components[0].bits
            planes, order = _full_range_planes(pixels, matrix, depth), (0, 1, 2)
            form = "yuv444p" if depth == 8 else f"yuv444p{depth}le"
        elif pixels.dtype == np.uint16:
            planes, order, form = pixels.copy(), _GBR, "gbrp16le"
            _scale(planes, _LIMITED_WHITE / 65535)
        else:
            planes, order, form = pixels, _GBR, "gbrp"
        if carrier is None:
            frame = self._blank(siting if is_subsampled(pixel_format) else "center", width, height, form)
        else:  # at a price: pixels are made that nobody will see
            frame = frame_like(carrier, width, height, form)
        for plane, channel in enumerate(order):
            _plane(frame, plane, planes.dtype.type)[:] = planes[channel]
        made = self._scaler.reformat(
            frame,
            format=pixel_format,
            src_colorspace=_matrix(matrix)[0],
            dst_colorspace=_matrix(matrix)[0],
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
            interpolation=_HALVED if full_range else _FROM_RGB,
            threads=1,
        )
        made.pict_type = PictureType.NONE  # or encoders make a key frame of it, as that which gave the siting was
        return made

    def _blank(self, siting: Siting, width: int, height: int, form: str) -> VideoFrame:
        """Return a frame to be filled and converted; where it is sited always the same one, which costs a little."""
        if siting == "center":  # which nothing need say; and what is not converted is handed on
            return VideoFrame(width, height, form)
        wanted = siting, width, height, form
        if self._sited is None or self._sited[0] != wanted:
            self._sited = wanted, frame_sited(siting, width, height, form)
        return self._sited[1]


def _scale(pixels: Pixels, factor: float) -> None:
    """Multiply pixels in place, by channels, so that little memory is taken; what is too bright becomes white."""
    for channel in pixels:
        scaled = channel * np.float32(factor)
        np.copyto(channel, np.minimum(scaled + np.float32(0.5), 65535), casting="unsafe")


def _plane(frame: VideoFrame, index: int, dtype: type[np.uint8] | type[np.uint16]) -> Pixels:
    """Return a plane of a frame, `(H, W)`, as it lies in its memory."""
    plane = frame.planes[index]
    lines = np.frombuffer(plane, dtype).reshape(plane.height, -1)  # type: ignore[call-overload]
    return cast(Pixels, lines[:, : plane.width])


def _turned(plane: Pixels, turn: Turn) -> Pixels:
    if turn == Turn():
        return plane
    return np.rot90(plane[:, ::-1] if turn.mirrored else plane, turn.quarters)


def _full_range_planes(pixels: Pixels, matrix: int, depth: int) -> Pixels:
    """Return luma and the two colour differences `(3, H, W)`, full range, rounded to `depth` bits."""
    _, red, blue = _matrix(matrix)
    top = (1 << depth) - 1
    luma = np.array([red, 1 - red - blue, blue], np.float32)
    weights = np.stack((
        luma,
        (np.array([0, 0, 1], np.float32) - luma) / (2 * (1 - blue)),
        (np.array([1, 0, 0], np.float32) - luma) / (2 * (1 - red)),
    ))  # fmt: skip
    weights *= top / np.iinfo(pixels.dtype).max
    values = (weights @ pixels.reshape(3, -1).astype(np.float32)).reshape(pixels.shape)
    values[1:] += (top + 1) // 2
    return cast(Pixels, np.clip(np.rint(values), 0, top).astype(np.uint8 if depth == 8 else np.uint16))


def _matrix(code: int) -> tuple[Colorspace, float, float]:
    return _MATRICES.get(code, _MATRICES[1])
