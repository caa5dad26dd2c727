"""Where the colours lie that two or four pixels of a film share: read off a frame, and given to one.

Standards put them at the left one of their pixels (MPEG-2, H.264), into the upper left one (BT.2020) or between them
(JPEG, MPEG-1); half a pixel of difference, and red lettering leaves its edges. swscale places them as frames say, but
PyAV neither tells nor sets what a frame says. It shows, though, in what swscale makes of a ramp; and a frame that is
converted hands it on, so one frame from a decoder can give it to any.

Source: ITU-T H.264, annex E.2.1 (chroma_sample_loc_type).
"""

from fractions import Fraction
from functools import cache
from typing import Final, Literal, cast

import numpy as np
from av.codec import CodecContext
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

Siting = Literal["left", "center", "topleft"]

_NUMBERS: Final = {"left": 0, "topleft": 2}
_SIDE, _STEP = 16, 12  # pixels of a ramp, and levels from one to the next
_BLUE = 1  # the plane of blue, and of its difference
_QUICK, _EXACT = int(Interpolation.POINT), int(Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INP)


def is_subsampled(pixel_format: str) -> bool:
    """Whether pixels of a format share their colour."""
    form = VideoFormat(pixel_format)
    return form.chroma_width(2) < 2 or form.chroma_height(2) < 2


def siting_of(frame: VideoFrame) -> Siting:
    """Tell where a frame's colours lie: `center` where it does not say, `left` where every pixel has its own."""
    if not is_subsampled(frame.format.name):
        return "left"
    small = carrier_of(frame)
    if _lies_between(small, axis=1):
        return "center"
    return "left" if _lies_between(small, axis=0) else "topleft"


def frame_sited(siting: Siting, width: int, height: int, form: str) -> VideoFrame:
    """Return a frame of `form` with anything in it; what it is converted to will have its colours there."""
    if siting == "center":
        return VideoFrame(width, height, form)
    return frame_like(_decoded(siting), width, height, form)


def carrier_of(frame: VideoFrame, scaler: VideoReformatter | None = None) -> VideoFrame:
    """Return a small frame with what a frame carries besides its pixels: siting, captions and the like.

    Frame after frame with the same `scaler`, that takes a hundredth of a millisecond.
    """
    return frame_like(frame, _SIDE, _SIDE, "gbrp", scaler)


def frame_like(
    carrier: VideoFrame, width: int, height: int, form: str, scaler: VideoReformatter | None = None
) -> VideoFrame:
    """Return a frame of `form` with anything in it, which carries what `carrier` does; a large one costs some time."""
    scaler = scaler or VideoReformatter()
    return scaler.reformat(carrier, width=width, height=height, format=form, interpolation=_QUICK, threads=1)


def _lies_between(small: VideoFrame, *, axis: int) -> bool:
    """Whether pixels beside each other along an axis (0 down, 1 across) share a colour from between them."""
    ramp = np.arange(_SIDE, dtype=np.uint8) * _STEP
    for plane in range(3):
        _levels(small, plane)[:] = 0
    _levels(small, _BLUE)[:] = ramp if axis == 1 else ramp[:, None]
    own, shared = (
        VideoReformatter().reformat(small, format=form, dst_color_range=ColorRange.JPEG, interpolation=_EXACT)
        for form in ("yuv444p", "yuv420p")
    )
    pixels, pairs = (_levels(made, _BLUE).astype(float) for made in (own, shared))
    if axis == 0:
        pixels, pairs = pixels.T, pairs.T
    first, second = pixels[_SIDE // 2, _SIDE // 2 : _SIDE // 2 + 2]
    return bool(pairs[_SIDE // 4, _SIDE // 4] > first + (second - first) / 4)


@cache
def _decoded(siting: Siting) -> VideoFrame:
    """Return a small frame that came out of a decoder, and whose colours lie there."""
    encoder = CodecContext.create("libx264", "w")
    encoder.width = encoder.height = _SIDE
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1)
    encoder.options = {"tune": "zerolatency", "x264-params": f"chromaloc={_NUMBERS[siting]}"}
    frame = VideoFrame(_SIDE, _SIDE, "yuv420p")
    decoder = CodecContext.create("h264", "r")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    (decoded,) = [one for packet in (*packets, None) for one in decoder.decode(packet)]
    return decoded


def _levels(frame: VideoFrame, plane: int) -> NDArray[np.uint8]:
    found = frame.planes[plane]
    lines = np.frombuffer(found, np.uint8).reshape(found.height, -1)  # type: ignore[call-overload]
    return cast(NDArray[np.uint8], lines[:, : found.width])
