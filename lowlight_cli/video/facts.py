"""What a clip is: its film's size, turn, colour and timing, read without decoding more than one frame."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer, OutputContainer
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from lowlight_cli.errors import InputError
from lowlight_cli.paths import PICTURES, is_file, sniff_file
from lowlight_cli.video.settings import MOST_PIXELS, Span
from lowlight_cli.video.siting import Siting, siting_of

# Code points of ISO/IEC 23091-2, as ffmpeg numbers them too.
UNSPECIFIED = 2
_RGB_MATRIX, _MATRIX_709, _MATRIX_601 = 0, 1, 6
_TRANSFER_PQ = 16
_FULL_RANGE = 2

# What ffmpeg calls the readers of films: those of containers, then those of streams without one. It has hundreds, and
# some of them open what the file names, wherever that lies (concat, HLS, DASH, VobSub, numbered pictures). The last two
# are for subtitles within AVI.
_READERS = (
    *("mov", "matroska", "avi", "flv", "live_flv", "mpegts", "mpeg", "asf", "ogg", "mxf", "nut", "rm", "wtv", "gxf"),
    *("gif", "apng", "dhav", "yuv4mpegpipe", "ivf", "obu", "av1", "h263", "h264", "hevc", "vvc", "m4v", "mpegvideo"),
    *("mjpeg", "vc1", "dv", "srt", "ass"),
)

_ROUNDED_UP = 1 << 22
"""Pixels by which a decoder may count more than there are: it rounds both sides up, to 64 at most."""

_HD_HEIGHT = 720
"""From this height on, a film that does not say its matrix is taken as BT.709, below it as BT.601: as players do."""


@dataclass(frozen=True)
class Colour:
    """A film's colour tags: code points of ISO/IEC 23091-2, and the range (0 unsaid, 1 limited, 2 full)."""

    matrix: int
    primaries: int
    transfer: int
    range: int

    def matrix_for(self, height: int) -> int:
        """Return the matrix to compute with, also where the film does not say one."""
        if self.matrix not in (_RGB_MATRIX, UNSPECIFIED, 3):
            return self.matrix
        return _MATRIX_709 if height >= _HD_HEIGHT else _MATRIX_601

    @property
    def is_full_range(self) -> bool:
        """Whether black is 0 and white the largest number."""
        return self.range == _FULL_RANGE


@dataclass(frozen=True)
class Turn:
    """How stored pixels must be turned to be upright: a mirroring left to right, then quarter turns to the left."""

    quarters: int = 0
    mirrored: bool = False

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places."""
        return self.quarters % 2 == 1


@dataclass(frozen=True)
class ClipFacts:
    """A clip whose film can be decoded. Sizes are those of the upright film, in pixels.

    `seconds` is what the container says, and may be wrong or None; `depth` is bits per channel, `siting` where pixels
    that share a colour have it; `most_pixels` is what no frame may have more of.
    """

    path: Path
    format: str
    codec: str
    width: int
    height: int
    turn: Turn
    pixel_aspect: Fraction
    pixel_format: str
    depth: int
    has_alpha: bool
    colour: Colour
    siting: Siting
    time_base: Fraction
    rate: Fraction | None
    start: Fraction
    seconds: Fraction | None
    tags: tuple[tuple[str, str], ...]
    most_pixels: int = MOST_PIXELS

    def end_of(self, span: Span) -> Fraction | None:
        """Return when a part ends, in seconds from the clip's beginning; None if nobody knows."""
        return min(filter(None, (self.seconds, span.end)), default=None)

    @property
    def without_the_part(self) -> str:
        """What is said where no frame lies in the part of the clip that was asked for."""
        length = "" if self.seconds is None else f", of a clip of {float(self.seconds):.1f} seconds"
        return f"no frame of its film lies in the part asked for{length}"


def open_clip(path: Path, *, most_pixels: int | None = None) -> InputContainer:
    """Open a clip for reading; raises InputError with one sentence when it cannot be.

    ffmpeg decodes a frame of each track, to look at it, if that has no more than `most_pixels`.
    """
    options = {"format_whitelist": ",".join(_READERS)}
    if most_pixels is not None:
        options |= _decoder_options(most_pixels)
    try:
        # Tags in the wild are in any encoding; what is no UTF-8 must not cost the clip.
        return av.open(ffmpegs_name(path), "r", metadata_errors="replace", options=options)
    except FileNotFoundError as error:
        raise InputError("there is no such file") from error
    except PermissionError as error:
        raise InputError("the file may not be read") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        if is_file(path) and path.stat().st_size == 0:
            raise InputError("it is empty") from error
        if getattr(error, "errno", None) == errno.EINVAL:  # none of our readers
            if sniff_file(path, PICTURES):
                raise InputError("it is a picture and no clip; `lowlight enhance` does pictures") from error
            raise InputError("not a clip of a kind that is read") from error
        raise InputError(f"not a clip that can be read: {reason(error)}") from error


def ffmpegs_name(path: Path) -> str:
    """Return a file's name as ffmpeg takes it, which holds what stands before a colon for a protocol: `10:11.mp4`."""
    return f"file:{path}"


def reason(error: BaseException) -> str:
    """Return what ffmpeg says went wrong, without errno and path."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return said[0].lower() + said[1:]


def open_film(path: Path, *, most_pixels: int) -> tuple[InputContainer, VideoStream]:
    """Open a clip and find its film, whose decoder refuses larger frames; raises InputError where there is none.

    What it raises then is for `require_pixels`.
    """
    container = open_clip(path, most_pixels=most_pixels)
    try:
        film = _find_film(container)
        if film.codec_context is None:  # as PyAV gives for a codec that no decoder is known for
            raise InputError("no frame of its film can be decoded: its codec is not known")
    except InputError:
        container.close()
        raise
    film.codec_context.options = _decoder_options(most_pixels)
    return container, film


def _decoder_options(most_pixels: int) -> dict[str, str]:
    return {"max_pixels": str(most_pixels + _ROUNDED_UP)}


def require_pixels(
    frame: VideoFrame | VideoCodecContext, most_pixels: int, refusal: av.FFmpegError | None = None
) -> None:
    """Raise InputError for a frame, or a decoder with its `refusal`, of more pixels than there may be."""
    pixels = frame.width * frame.height
    if pixels > most_pixels:
        raise InputError(f"its film has {pixels / 1e6:.3g} megapixels, more than --max-megapixels allows")
    # Most decoders forget a size that they refuse; AV1's says that it is out of range.
    if refusal and (refusal.errno == errno.ERANGE or (refusal.errno == errno.EINVAL and not pixels)):
        raise InputError("its film has more megapixels than --max-megapixels allows") from refusal


def _find_film(container: InputContainer) -> VideoStream:
    """Return the track that is the film: the best video that is no cover picture; raises InputError for none."""
    films = find_films(container)
    if not films:
        kinds = sorted({stream.type for stream in container.streams if stream.type != "video"})
        held = "a cover picture" if container.streams.video else " and ".join(kinds) if kinds else "no track at all"
        raise InputError(f"there is no film in it, only {held}" if held != "no track at all" else f"it holds {held}")
    best = container.streams.best("video")
    return best if isinstance(best, VideoStream) and best in films else films[0]


def find_films(container: InputContainer | OutputContainer) -> list[VideoStream]:
    """Return the video tracks that are no cover pictures."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def probe_clip(path: Path, *, most_pixels: int = MOST_PIXELS) -> ClipFacts:
    """Read the facts of a clip, decoding up to its first frame.

    Raises InputError for what cannot be read, holds no film, is larger than `most_pixels`, or is HDR of a kind whose
    numbers mean nothing to a network for ordinary pictures.
    """
    container, film = open_film(path, most_pixels=most_pixels)
    with container:
        require_pixels(film.codec_context, most_pixels)
        frame = _first_frame(container, film, most_pixels)
        return replace(_facts(path, container, film, frame), most_pixels=most_pixels)


def _first_frame(container: InputContainer, film: VideoStream, most_pixels: int) -> VideoFrame:
    failure: BaseException | None = None
    try:
        for packet in container.demux(film):
            try:
                for frame in packet.decode():
                    require_pixels(frame, most_pixels)
                    return frame
            except av.FFmpegError as error:
                require_pixels(film.codec_context, most_pixels, error)
                failure = failure or error
    except (av.FFmpegError, OSError) as error:
        failure = failure or error
    raise InputError(f"no frame of its film can be decoded{f': {reason(failure)}' if failure else ''}")


def _facts(path: Path, container: InputContainer, film: VideoStream, frame: VideoFrame) -> ClipFacts:
    turn = turn_of(frame)
    width, height = frame.width, frame.height
    components = frame.format.components
    colour = Colour(frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
    if frame.format.name.startswith("yuvj"):  # the old way of saying full range
        colour = Colour(colour.matrix, colour.primaries, colour.transfer, _FULL_RANGE)
    depth = max(component.bits for component in components)
    if colour.transfer == _TRANSFER_PQ:
        raise InputError(
            "it is HDR with the PQ curve, which enhancement would flatten; convert it to ordinary video (SDR) first"
        )
    aspect = film.sample_aspect_ratio or film.codec_context.sample_aspect_ratio or Fraction(1)  # the container's first
    time_base = film.time_base or Fraction(1, 1000)
    stated = film.duration * time_base if film.duration else None
    length = stated or (Fraction(container.duration, av.time_base) if container.duration else None)
    start = Fraction(container.start_time or 0, av.time_base)
    if length and container.format.name.startswith("matroska"):  # which counts from zero, wherever its clip begins
        length = max(length - max(start, Fraction(0)), Fraction(0)) or None
    has_alpha = any(component.is_alpha for component in components) or film.metadata.get("alpha_mode") == "1"
    return ClipFacts(
        path=path,
        format=container.format.name,
        codec=film.codec.canonical_name,
        width=height if turn.swaps_sides else width,
        height=width if turn.swaps_sides else height,
        turn=turn,
        pixel_aspect=1 / aspect if turn.swaps_sides and aspect else aspect or Fraction(1),
        pixel_format=frame.format.name,
        depth=depth,
        has_alpha=has_alpha,
        colour=colour,
        siting=siting_of(frame),
        time_base=time_base,
        rate=film.average_rate or None,
        start=start,
        seconds=length,
        tags=tuple(container.metadata.items()),
    )


# A display matrix maps stored to shown places: (a, b, c, d) in 16.16 numbers, here by their signs. The four turns to
# the right that cameras write, and their mirror images.
_TURNS: dict[tuple[int, ...], Turn] = {
    (1, 0, 0, 1): Turn(0),
    (0, 1, -1, 0): Turn(3),
    (-1, 0, 0, -1): Turn(2),
    (0, -1, 1, 0): Turn(1),
    (-1, 0, 0, 1): Turn(0, mirrored=True),
    (1, 0, 0, -1): Turn(2, mirrored=True),
    (0, 1, 1, 0): Turn(1, mirrored=True),
    (0, -1, -1, 0): Turn(3, mirrored=True),
}


def turn_of(frame: VideoFrame) -> Turn:
    """Read a frame's display matrix; a matrix that is none of the eight right-angled ones counts as upright."""
    said = side_data_of(frame)
    if said is None:
        return Turn(round(frame.rotation / 90) % 4)  # PyAV reads this by itself, but no mirroring
    data = said.get(SideData.DISPLAYMATRIX)
    if data is None:
        return Turn()
    return turn_of_matrix(memoryview(bytes(data)).cast("i").tolist())


def side_data_of(frame: VideoFrame) -> SideDataContainer | None:
    """Return what stands beside a frame's pixels; None where PyAV does not know all of it, as EXIF in Motion JPEG."""
    try:
        return cast(SideDataContainer, frame.side_data)
    except ValueError:
        return None


def turn_of_matrix(matrix: Sequence[int]) -> Turn:
    """Return what the nine numbers of a display matrix (a b u c d v x y w) ask for."""
    signs = tuple((matrix[place] > 0) - (matrix[place] < 0) for place in (0, 1, 3, 4))
    return _TURNS.get(signs, Turn())
