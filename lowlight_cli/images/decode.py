"""Files to pictures. All decoding passes `_boundary`, which turns what libraries throw into InputError.

The order never changes: is it a plain file, is it a format we know, does its header ask for more pixels than we have
memory for; only then is anything decoded. The kind of a file is told by its content, never by its name.
"""

import io
import logging
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError

from lowlight_cli.errors import InputError
from lowlight_cli.images import extras
from lowlight_cli.images.budget import default_pixel_budget
from lowlight_cli.images.gather import Directories
from lowlight_cli.images.harvest import format_of, frame_places, orientation_to_undo
from lowlight_cli.images.layout import depth_of
from lowlight_cli.images.libtiff import silence_libtiff
from lowlight_cli.images.picture import Picture
from lowlight_cli.images.sniff import (
    HEAD_BYTES,
    Source,
    bits_of_avif,
    colours_of,
    foreign_name,
    has_gain_map,
    has_more_scans,
    is_lossless_webp,
    kind_of,
    stream_of,
)
from lowlight_cli.images.tiff_tags import Tag
from lowlight_cli.images.unpack import NO_AGREED_WHITE, Reopen, picture_of

_FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM")

# Every scan of a JPEG goes over the whole picture, whether or not it holds anything for it. Encoders write about ten,
# some a hundred for small pictures.
_FEW_SCANS, _MOST_SCANS, _PIXELS_OF_ALL_SCANS = 20, 1000, 1 << 31

# ITU-T H.273: the curves PQ and HLG; the primaries of BT.2020 and Display P3, which no profile stands for.
_HDR_CURVES, _WIDE_PRIMARIES = (16, 18), (9, 12)

LIBRARY_FAILURES = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    EOFError,
    struct.error,
    zlib.error,
)
"""What Pillow and its plugins were seen to raise on some ten thousand damaged files, and their near relations."""

# Pillow logs some of what it also raises; without a handler, Python would print it.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class _ProcessState:
    """Pillow's pixel limit and Python's warning filters, which belong to the whole process.

    They are ours from the first decoder that comes in until the last one leaves, so that decoders work side by side.
    Pillow's limit is the highest budget among them; each holds its own picture against its own (see `_open`).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._budgets: list[int] = []
        self._limit: int | None = None
        self._filters = warnings.catch_warnings()

    def enter(self, budget: int) -> None:
        with self._lock:
            if not self._budgets:
                self._limit, self._filters = Image.MAX_IMAGE_PIXELS, warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._budgets.append(budget)
            self._set_limit()

    def leave(self, budget: int) -> None:
        with self._lock:
            self._budgets.remove(budget)
            if self._budgets:
                self._set_limit()
            else:
                self._filters.__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS = self._limit

    def _set_limit(self) -> None:
        # Pillow refuses, before it decodes, what is more than twice its limit.
        Image.MAX_IMAGE_PIXELS = max(1, max(self._budgets) // 2)


_process_state = _ProcessState()


@dataclass(frozen=True)
class PictureFacts:
    """What a file's header says. `width` and `height` are as the picture is seen, after turning upright.

    `frames` counts the frames of an animation or the pages of a TIFF; pictures that belong to the main one (an MPO's
    second eye, a gain map, a small copy) are not frames. `depth` is bits per channel as we read them.
    """

    format: str
    width: int
    height: int
    frames: int
    depth: int


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame, composed with what stood before it, shown for `milliseconds`."""

    picture: Picture
    milliseconds: float = 0.0


@dataclass(frozen=True)
class Animation:
    """A file of several frames or pages; `plays` is how often it is shown, 0 for ever.

    `places` is where they lie among all pictures of the file, `pixels` how many they have together. `has_still` says
    that a PNG's first frame is only for viewers that cannot animate.
    """

    source: Source
    format: str
    places: Sequence[int]
    pixels: int
    plays: int = 0
    has_still: bool = False
    pixel_budget: int | None = None

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.places)


def probe(source: Source, *, pixel_budget: int | None = None) -> PictureFacts:
    """Read a header; decode no pixels.

    Raises:
        InputError: as for `read_picture`, but for damage in the pixels.
    """
    kind = kind_of(_checked_head(source))
    with _boundary(pixel_budget) as budget:
        if kind == "RAW":
            return PictureFacts(kind, *extras.raw_size(source), frames=1, depth=16)
        with _opened(source, kind, budget) as image:
            width, height = image.size
            if orientation_to_undo(image) >= 5:
                width, height = height, width
            return PictureFacts(format_of(image), width, height, len(frame_places(image)), depth_of(image))


def read_picture(source: Source, *, pixel_budget: int | None = None) -> Picture:
    """Decode a picture from a path or a file's bytes; of an animation, the first frame, with a warning.

    `pixel_budget` is the most pixels a header may ask for; None is `default_pixel_budget()`.

    Raises:
        InputError: missing, no plain file, empty, of no kind we know, damaged, cut off, or larger than the budget. The
            message is a sentence without the path.
    """
    head = _checked_head(source)
    kind = kind_of(head)
    with _boundary(pixel_budget) as budget:
        if kind == "RAW":
            return extras.read_raw(source, budget)
        with _opened(source, kind, budget) as image:
            places = frame_places(image)
            if places[0]:
                image.seek(places[0])
                _require_budget(image, budget)
            picture = _decoded(image, source, partial(_opened, source, kind, budget, places[0]))
    if len(places) > 1:
        picture = picture.with_warning(f"only the first of its {len(places)} frames was read")
    return _with_facts_of_file(picture, source, head)


def read_animation(source: Source, *, pixel_budget: int | None = None) -> Animation:
    """Read what a file says about its frames; `read_frames` then decodes them one by one.

    Raises:
        InputError: as for `read_picture`.
    """
    kind = kind_of(_checked_head(source))
    with _boundary(pixel_budget) as budget, _opened(source, kind, budget) as image:
        places = frame_places(image)
        return Animation(
            source=source,
            format=format_of(image),
            places=places,
            pixels=_pixels_of(image, places),
            plays=_plays_of(image),
            has_still=bool(image.info.get("default_image", False)),
            pixel_budget=pixel_budget,
        )


def _pixels_of(image: ImageFile.ImageFile, places: Sequence[int]) -> int:
    """Return how many pixels all frames have together; only the pages of a TIFF differ in size."""
    if image.format != "TIFF":
        return image.width * image.height * len(places)
    pixels = 0
    for place in places:
        image.seek(place)
        pixels += image.width * image.height
    return pixels


def _plays_of(image: ImageFile.ImageFile) -> int:
    """Return how often an animation is shown: a GIF counts repetitions, and says nothing if there are none."""
    loop = image.info.get("loop")
    if image.format == "GIF":
        return 1 if loop is None else loop + 1 if loop else 0
    return int(loop or 0)


def read_frames(animation: Animation) -> Iterator[Frame]:
    """Yield the frames in order, each composed to a whole picture; only one is in memory at a time.

    Raises:
        InputError: as for `read_picture`; the frames before the damage have been yielded by then.
    """
    source = animation.source
    head = _checked_head(source)
    kind = kind_of(head)
    with _boundary(animation.pixel_budget) as budget:
        image = _open(source, kind, budget)
    with _closed_at_end(image), _opened_once(source, kind, budget) as again:
        for index in animation.places:
            with _boundary(budget):
                image.seek(index)
                _require_budget(image, budget)
                picture = _decoded(image, source, partial(again, index))
                milliseconds = float(image.info.get("duration", 0) or 0)
            yield Frame(_with_facts_of_file(picture, source, head), milliseconds)


def _decoded(image: ImageFile.ImageFile, source: Source, reopen: Reopen) -> Picture:
    if format_of(image) == "JPEG":
        most = max(_FEW_SCANS, min(_MOST_SCANS, _PIXELS_OF_ALL_SCANS // (image.width * image.height)))
        with stream_of(source) as file:
            if has_more_scans(file, most):
                raise InputError(f"it draws its picture in more than {most} scans, too many for its size")
    return picture_of(image, reopen)


def _with_facts_of_file(picture: Picture, source: Source, head: bytes) -> Picture:
    """Add what the decoder does not say of its file: stored without loss, or more in it than was read."""
    if picture.format == "WEBP":
        with _boundary(None), stream_of(source) as file:
            picture = replace(picture, lossless=is_lossless_webp(file))
    for sentence in _unread(picture, head):
        picture = picture.with_warning(sentence)
    return picture


def _unread(picture: Picture, head: bytes) -> Iterator[str]:
    if picture.format == "AVIF":
        if (bits := bits_of_avif(head)) > 8:
            yield f"of its {bits} bits per channel only 8 could be read"
        if has_gain_map(head):
            yield "a gain map in the file was left out"
    primaries, curve = colours_of(head)
    if curve in _HDR_CURVES:
        yield "its HDR light was read as if it were sRGB, so the result looks flat"
    elif primaries in _WIDE_PRIMARIES and picture.icc is None:
        yield "its wide colours were read as if they were sRGB, so the result looks pale"


@contextmanager
def _boundary(pixel_budget: int | None) -> Iterator[int]:
    """Yield the pixel budget in force; Pillow obeys it, is quiet, and what it raises becomes InputError."""
    budget = default_pixel_budget() if pixel_budget is None else pixel_budget
    _process_state.enter(budget)
    try:
        yield budget
    except InputError:
        raise
    except MemoryError as error:
        raise InputError("there is not enough memory to decode it") from error
    except Image.DecompressionBombError as error:
        raise InputError(_too_large(budget)) from error
    except LIBRARY_FAILURES as error:
        raise InputError(_reason(error)) from error
    finally:
        _process_state.leave(budget)


def _too_large(budget: int) -> str:
    return (
        f"it has more than {budget / 1e6:.3g} million pixels, the limit that was asked for or that memory allows; "
        "--max-megapixels asks for another"
    )


def _reason(error: Exception) -> str:
    """Return one sentence for a person; the library's own words follow in brackets."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "there is no permission to read it"
    words = " ".join(str(error).split())[:200]
    if "truncated" in words.lower() or "not enough" in words.lower() or isinstance(error, EOFError):
        return f"it is cut off ({words})" if words else "it is cut off"
    return f"it is damaged or of an unusual kind ({words or type(error).__name__})"


def _checked_head(source: Source) -> bytes:
    """Return the first bytes of a source that is worth opening.

    Raises:
        InputError: it is missing, no plain file (a pipe would block for ever), empty, or of a kind we do not read.
    """
    with _boundary(None):
        if isinstance(source, Path):
            found = source.stat()
            if not stat.S_ISREG(found.st_mode):
                kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or device"
                raise InputError(f"it is {kind}, no file")
        with stream_of(source) as file:
            head = file.read(HEAD_BYTES)
    if not head:
        raise InputError("it is empty")
    if (name := foreign_name(head)) is not None:
        raise InputError(f"it is a file of the kind {name}, which is not supported")
    return head


def _open(source: Source, kind: str | None, budget: int, frame: int = 0) -> ImageFile.ImageFile:
    formats = _FORMATS
    if kind == "HEIF":
        extras.require("HEIF")
        formats = ("HEIF",)
    elif kind == "TIFF":
        silence_libtiff()
    try:
        image = Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=formats)
    except UnidentifiedImageError as error:
        if kind is None:
            raise InputError("it is no picture of a kind that can be read") from error
        if kind == "TIFF" and _has_other_samples(source):
            raise InputError(NO_AGREED_WHITE) from error
        raise InputError(f"it begins as {kind} files do, but is damaged or of an unusual kind") from error
    if kind == "TIFF":
        image.filename = ""  # or Pillow maps the file, with width and height of the picture once it is turned upright
    try:
        _require_budget(image, budget)
        if frame:
            image.seek(frame)
            _require_budget(image, budget)
    except BaseException:
        with suppress(*LIBRARY_FAILURES):
            image.close()
        raise
    return image


def _has_other_samples(source: Source) -> bool:
    """Whether a TIFF that Pillow knows no mode for says that its samples are signed or floating-point numbers."""
    with suppress(*LIBRARY_FAILURES), stream_of(source) as file:
        return bool({2, 3} & set(Directories(file).value(Tag.SAMPLE_FORMAT) or b""))
    return False


def _require_budget(image: ImageFile.ImageFile, budget: int) -> None:
    """Refuse an opened picture, of which only the header was read so far, that asks for more pixels than it may."""
    if image.width * image.height > budget:
        raise InputError(_too_large(budget))


@contextmanager
def _opened(source: Source, kind: str | None, budget: int, frame: int = 0) -> Iterator[ImageFile.ImageFile]:
    image = _open(source, kind, budget, frame)
    with _closed_at_end(image):
        yield image


@contextmanager
def _opened_once(
    source: Source, kind: str | None, budget: int
) -> Iterator[Callable[[int], AbstractContextManager[ImageFile.ImageFile]]]:
    """Yield what gives a file's frames in their order; it opens the file for the first of them, and once only.

    To open it for each would have Pillow read, for every page of a TIFF, the directories of all before it.
    """
    with ExitStack() as held:
        opened: list[ImageFile.ImageFile] = []

        @contextmanager
        def frame_at(index: int) -> Iterator[ImageFile.ImageFile]:
            if not opened:
                opened.append(held.enter_context(_opened(source, kind, budget)))
            opened[0].seek(index)
            _require_budget(opened[0], budget)
            yield opened[0]

        yield frame_at


@contextmanager
def _closed_at_end(image: ImageFile.ImageFile) -> Iterator[None]:
    """Close a picture quietly: of a damaged TIFF, libtiff may have closed the file before us."""
    try:
        yield
    finally:
        with suppress(*LIBRARY_FAILURES):
            image.close()
