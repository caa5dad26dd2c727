"""What a file says about its picture (EXIF, XMP, IPTC, resolution), kept true after the pixels changed.

EXIF is edited in place, byte for byte, never taken apart and put together again: camera makers' notes hold offsets into
the block around them, and any rebuilding breaks them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from lowlight_cli.images import photoshop
from lowlight_cli.images import xmp as packets
from lowlight_cli.images.directory import Directory, Entry, TiffBlock
from lowlight_cli.images.tiff_tags import Tag
from lowlight_cli.settings import Metadata

EXIF_START = b"Exif\x00\x00"
"""What stands before the block in a JPEG."""

_WIDTHS = (Tag.IMAGE_WIDTH, Tag.PIXEL_X_DIMENSION)
_HEIGHTS = (Tag.IMAGE_LENGTH, Tag.PIXEL_Y_DIMENSION)
_SRGB, _ADOBE_RGB, _UNCALIBRATED = 1, 2, 65535  # colour spaces
_INTEROP_INDEX = 1
_PLACES = (Tag.GPS_DIRECTORY, Tag.MAKER_NOTE, Tag.DNG_PRIVATE_DATA, Tag.XMP, Tag.IPTC, Tag.PHOTOSHOP)

# Names of a PNG's texts: plain ones, and those that ImageMagick gives to what it knows of EXIF and XMP.
_PLACE_TEXT = re.compile(
    r"gps|latitude|longitude|location|country|(?:^|[^a-z])(?:lat|lon|long|city|state|province)(?![a-z])", re.IGNORECASE
)


@dataclass(frozen=True)
class Tags:
    """Metadata in the form in which files carry it.

    `exif` is a bare TIFF block (without `Exif\\0\\0`), `xmp` a UTF-8 packet, `iptc` a Photoshop resource block, `dpi`
    dots per inch across and down, `text` the named texts of a PNG.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    comment: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()

    def chosen(self, metadata: Metadata) -> "Tags":
        """Return what `--metadata` leaves: all, all but places, or nothing but the resolution."""
        if metadata == "strip":
            return Tags(dpi=self.dpi)
        if metadata == "no-gps":
            return self._without_place()
        return self

    def _without_place(self) -> "Tags":
        return replace(
            self,
            exif=without_place(self.exif),
            xmp=self.xmp and packets.without_place(self.xmp),
            iptc=photoshop.without_place(self.iptc),
            text=tuple(text for text in self.text if not _PLACE_TEXT.search(text[0])),
        )

    def upright(self, orientation: int, width: int, height: int) -> "Tags":
        """Return the tags of a picture turned upright from `orientation`, now of this size in pixels."""
        exif, xmp, dpi = self.exif, self.xmp, self.dpi
        if exif is not None:
            exif = _upright_exif(exif, width, height)
        if xmp is not None:
            # An orientation that stands in XMP alone is left: no viewer obeys it, and neither did we.
            xmp = packets.upright(xmp, width, height, turned=orientation != 1)
        if dpi is not None and orientation >= 5:
            dpi = (dpi[1], dpi[0])
        return replace(self, exif=exif, xmp=xmp, dpi=dpi)


def readable_exif(raw: bytes | None) -> bytes | None:
    """Return the bare TIFF block of an EXIF field, or None when there is none or it cannot be read."""
    block = (raw or b"").removeprefix(EXIF_START)
    try:
        TiffBlock(block).first()
    except ValueError:
        return None
    return block


def orientation_of(exif: bytes | None) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) where none is given or it makes no sense."""
    if exif is None:
        return 1
    entry = TiffBlock(exif).first().find(Tag.ORIENTATION)
    value = entry.integer() if entry else None
    return value if value is not None and 1 <= value <= 8 else 1


def without_place(exif: bytes | None) -> bytes | None:
    """Return the block without its GPS directories, whoever points to them, and without what may name places as well.

    That is makers' notes, some of which hold a city, and copies of XMP and IPTC.
    """
    if exif is None:
        return None
    block = TiffBlock(exif)
    block.drop(_PLACES)
    return block.bytes()


def as_srgb(exif: bytes) -> bytes:
    """Return the block of a picture that is in sRGB now."""
    block = TiffBlock(exif)
    pointer = block.first().find(Tag.EXIF_DIRECTORY)
    for entry in _entries_at(block, pointer) if pointer else ():
        if entry.tag == Tag.COLOUR_SPACE:
            entry.set_integer(_SRGB)
    return block.bytes()


def is_adobe_rgb(exif: bytes | None) -> bool:
    """Say whether EXIF tells of Adobe RGB, as cameras do that write no profile: DCF 2.0's optional file, R03.

    Its colour space is "uncalibrated", which is said of others too; some cameras say 2, which stands in no standard.
    """
    if exif is None:
        return False
    block = TiffBlock(exif)
    pointer = block.first().find(Tag.EXIF_DIRECTORY)
    told = {entry.tag: entry for entry in (_entries_at(block, pointer) if pointer else ())}
    space, pointer = told.get(Tag.COLOUR_SPACE), told.get(Tag.INTEROP_DIRECTORY)
    number = space.integer() if space else None
    if number != _UNCALIBRATED or pointer is None:
        return number == _ADOBE_RGB
    words = (block.data[one.place : one.place + 3] for one in _entries_at(block, pointer) if one.tag == _INTEROP_INDEX)
    return next(words, b"") == b"R03"


def _upright_exif(exif: bytes, width: int, height: int) -> bytes:
    block = TiffBlock(exif)
    first = block.first()
    orientation = first.find(Tag.ORIENTATION)
    if orientation:
        orientation.set_integer(1)
    pointer = first.find(Tag.EXIF_DIRECTORY)
    for entry in (*first.entries(), *(_entries_at(block, pointer) if pointer else ())):
        if entry.tag in _WIDTHS:
            entry.set_integer(width)
        elif entry.tag in _HEIGHTS:
            entry.set_integer(height)
    _drop_thumbnail(block, first)
    return block.bytes()


def _drop_thumbnail(block: TiffBlock, first: Directory) -> None:
    """Unlink the second directory, which shows the dark picture small, and erase its pixels."""
    second = first.next()
    first.unlink_next()
    if second is None:
        return
    start, length = second.find(Tag.THUMBNAIL_START), second.find(Tag.THUMBNAIL_LENGTH)
    if start and length:
        block.cut(start.integer() or 0, length.integer() or 0)


def _entries_at(block: TiffBlock, pointer: Entry) -> Iterator[Entry]:
    offset = pointer.integer()
    try:
        directory = block.directory(offset or 0)
    except ValueError:
        return
    yield from directory.entries()
