"""What kind of file this is, by its content, before any decoder sees it.

The planner's own look at the first bytes (`paths.sniff`) names the format; here is what only a decoder wants to know.
"""

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lowlight_cli.images.directory import MOST_DIRECTORIES, Directory, TiffBlock
from lowlight_cli.images.tiff_tags import Tag
from lowlight_cli.paths import SNIFF_BYTES, sniff

Source = Path | bytes

# Enough for every signature and for the first directories of a raw file.
HEAD_BYTES = 1 << 16

_MOST_CHUNKS = 1000  # before a WebP's first pixels; more is damage

# A JPEG's markers: 0xFF and a byte that is no fill byte, no zero (of coded data) and no restart (among it).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_JPEG_BARE = (0x01, 0xD8)  # markers with no segment behind them
_READ_AT_ONCE = 1 << 16

_FOREIGN = {
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"qoif": "QOI",
    b"DDS ": "DDS",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"SIMPLE": "FITS",
    b"\x00\x00\x01\x00": "icon",
    b"PK\x03\x04": "ZIP archive",
    b"BPG\xfb": "BPG",
    b"<!DOCTYPE": "web page",
    b"<html": "web page",
}

# Colour filter array and linear raw: pixels that are no picture yet.
_RAW_PHOTOMETRICS = (32803, 34892)


def kind_of(head: bytes) -> str | None:
    """Name the format of a file that begins with `head` (`"JPEG"`, `"RAW"`, ...), or return None."""
    format = sniff(head[:SNIFF_BYTES])
    if format == "tiff" and _is_tiff_raw(head):
        return "RAW"
    return format.upper() if format else None


def foreign_name(head: bytes) -> str | None:
    """Return the name of a format we know by sight and do not read."""
    return next((name for start, name in _FOREIGN.items() if head.startswith(start)), None)


def is_lossless_webp(file: BinaryIO) -> bool:
    """Return whether this is a WebP stored without loss; other formats say so by their name.

    Its chunks are walked through, for a profile before the pixels may be of any length.
    """
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WEBP":
        return False
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        name, size = head[:4], int.from_bytes(head[4:], "little")
        if name in (b"VP8L", b"VP8 ", b""):
            return name == b"VP8L"
        # The chunks of an animation's frame follow its place and time.
        file.seek(16 if name == b"ANMF" else size + size % 2, os.SEEK_CUR)
    return False


def has_more_scans(file: BinaryIO, most: int) -> bool:
    """Whether a JPEG's picture is stored in more than this many scans; pictures behind the first one do not count.

    Source: ITU-T T.81, B.1.1.
    """
    scans = 0
    for marker in _jpeg_markers(file):
        scans += marker == _JPEG_SCAN
        if marker == _JPEG_END or scans > most:
            break
    return scans > most


def _jpeg_markers(file: BinaryIO) -> Iterator[int]:
    """Yield a JPEG's markers one after another, passing over what their segments hold and over coded data."""
    window, place = b"", 0
    while True:
        if place > len(window):
            file.seek(place - len(window), os.SEEK_CUR)
            window, place = b"", 0
        found = _JPEG_MARKER.search(window, place)
        if found and found.end() + 2 <= len(window):
            marker, place = window[found.end() - 1], found.end()
            yield marker
            if marker not in _JPEG_BARE:
                place += int.from_bytes(window[place : place + 2], "big")
        elif more := file.read(_READ_AT_ONCE):
            window, place = window[found.start() if found else max(place, len(window) - 1) :] + more, 0
        else:
            return


def bits_of_avif(head: bytes) -> int:
    """Return the bits per channel of an AVIF: 8, 10 or 12; 8 where nothing in `head` says so.

    Source: AV1 Codec ISO Media File Format Binding 1.2, section 2.3 (av1C).
    """
    place = head.find(b"av1C")
    flags = int.from_bytes(head[place + 6 : place + 7], "big") if place >= 0 else 0
    if not flags & 0x40:
        return 8
    return 12 if flags & 0x20 else 10


def colours_of(head: bytes) -> tuple[int, int]:
    """Return the numbers by which a PNG, an AVIF or a HEIC names its primaries and its curve; (2, 2) where it does not.

    Source: ISO/IEC 14496-12, 12.1.5 (colr); PNG Specification, Third Edition, 11.3.2.6 (cICP); ITU-T H.273 for the
    numbers.
    """
    format = sniff(head[:SNIFF_BYTES])
    if format in ("avif", "heif"):
        found = re.search(rb"colrnclx(..)(..)", head, re.DOTALL)
    elif format == "png":
        found = re.search(rb"\x00\x00\x00\x04cICP(.)(.)", head.partition(b"IDAT")[0], re.DOTALL)
    else:
        return 2, 2
    return (int.from_bytes(found[1], "big"), int.from_bytes(found[2], "big")) if found else (2, 2)


def has_gain_map(head: bytes) -> bool:
    """Return whether an AVIF holds a gain map beside its picture: the brand `tmap` says so (ISO 21496-1)."""
    return b"tmap" in head[8:SNIFF_BYTES]


def stream_of(source: Source) -> BinaryIO:
    """Open a file, or its bytes, for reading."""
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source)


def _is_tiff_raw(head: bytes) -> bool:
    """Tell a raw photo from an ordinary TIFF, whose reader would find its thumbnail only."""
    try:
        block = TiffBlock(head)
        first = block.first()
    except ValueError:
        return False
    if first.find(Tag.DNG_VERSION):
        return True
    pointer = first.find(Tag.SUB_DIRECTORIES)
    places = dict.fromkeys(pointer.integers(MOST_DIRECTORIES) if pointer else ())
    directories = [first, *(_directory(block, place) for place in places)]
    return any(_photometric(directory) in _RAW_PHOTOMETRICS for directory in directories)


def _directory(block: TiffBlock, place: int) -> Directory | None:
    try:
        return block.directory(place)
    except ValueError:
        return None


def _photometric(directory: Directory | None) -> int | None:
    entry = directory.find(Tag.PHOTOMETRIC) if directory else None
    return entry.integer() if entry else None
