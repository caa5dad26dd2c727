"""TIFF with 8 or 16 bits per channel, grey or colour, with or without alpha, one page or several.

Pillow cannot write 16-bit colour. The file begins with the picture's EXIF block, which is itself a TIFF without pixels:
its entries and the makers' notes keep every offset, and need not be understood to stay whole. Strips and a new first
directory follow behind it.

Source: TIFF 6.0; Adobe TIFF Technical Note 3 (deflate).
"""

import struct
import zlib
from collections.abc import Iterable
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lowlight_cli.errors import OutputError
from lowlight_cli.images.directory import TiffBlock
from lowlight_cli.images.tiff_tags import Tag

_SHORT, _LONG, _RATIONAL, _BYTE, _UNDEFINED = 3, 4, 5, 1, 7
_DEFLATE, _HORIZONTAL_PREDICTOR, _GREY, _RGB, _UNASSOCIATED_ALPHA, _INCHES = 8, 2, 1, 2, 2, 2

_MOST_BYTES = (1 << 32) - 1  # places in the file are numbers of 32 bits

# Entries of the EXIF block that describe the layout of a file, not the picture: they are ours to write, or stale.
_LAYOUT = frozenset([
    *range(254, 267), Tag.STRIP_OFFSETS, *range(277, 285), *range(286, 298), *range(301, 304), *range(317, 344),
    Tag.JPEG_TABLES, *range(512, 533), Tag.XMP, Tag.PHOTOSHOP, Tag.ICC_PROFILE,
])  # fmt: skip


class TiffWriter:
    """Writes pages one after another; only compressed strips leave memory, so pages may be large and many."""

    def __init__(self, file: BinaryIO, exif: bytes | None = None) -> None:
        self._file = file
        block = exif or b"II*\x00\x00\x00\x00\x00"
        self._order = "<" if block[:1] == b"I" else ">"
        self._kept = _kept_entries(block) if exif else {}
        # Where the offset of the next directory is to be written: first in the header.
        self._link = 4
        file.write(block)

    def add_page(
        self,
        size: tuple[int, int, int],
        bands: Iterable[NDArray[np.integer]],
        *,
        depth: int,
        icc: bytes | None = None,
        xmp: bytes | None = None,
        iptc: bytes | None = None,
        dpi: tuple[float, float] | None = None,
    ) -> None:
        """Write one page: `size` is (height, width, channels), `bands` its rows `(h, W, channels)`.

        Every band becomes a strip, so all but the last must have the same height. `depth` is 8 or 16.

        Raises:
            OutputError: the file would grow beyond 4 GB.
        """
        height, width, channels = size
        offsets, lengths, rows_per_strip = [], [], 0
        for band in bands:
            rows_per_strip = rows_per_strip or len(band)
            offsets.append(self._append(zlib.compress(self._predicted(band, depth))))
            lengths.append(self._file.tell() - offsets[-1])
        colours = channels if channels in (1, 3) else channels - 1
        entries = {
            Tag.IMAGE_WIDTH: (_LONG, [width]),
            Tag.IMAGE_LENGTH: (_LONG, [height]),
            Tag.BITS_PER_SAMPLE: (_SHORT, [depth] * channels),
            Tag.COMPRESSION: (_SHORT, [_DEFLATE]),
            Tag.PHOTOMETRIC: (_SHORT, [_GREY if colours == 1 else _RGB]),
            Tag.STRIP_OFFSETS: (_LONG, offsets),
            Tag.SAMPLES_PER_PIXEL: (_SHORT, [channels]),
            Tag.ROWS_PER_STRIP: (_LONG, [rows_per_strip]),
            Tag.STRIP_BYTE_COUNTS: (_LONG, lengths),
            Tag.PLANAR_CONFIGURATION: (_SHORT, [1]),
            Tag.PREDICTOR: (_SHORT, [_HORIZONTAL_PREDICTOR]),
        }
        if channels != colours:
            entries[Tag.EXTRA_SAMPLES] = (_SHORT, [_UNASSOCIATED_ALPHA])
        packed: dict[int, tuple[int, int, bytes]] = {
            tag: self._packed(kind, values) for tag, (kind, values) in entries.items()
        }
        if dpi is not None:
            packed[Tag.X_RESOLUTION], packed[Tag.Y_RESOLUTION] = (self._rational(value) for value in dpi)
            packed[Tag.RESOLUTION_UNIT] = self._packed(_SHORT, [_INCHES])
        blocks = (Tag.XMP, _BYTE, xmp), (Tag.PHOTOSHOP, _BYTE, iptc), (Tag.ICC_PROFILE, _UNDEFINED, icc)
        for tag, kind, content in blocks:
            if content:
                packed[tag] = (kind, len(content), content)
        self._write_directory(packed)
        # What the EXIF block says belongs to the first page.
        self._kept = {}

    def _predicted(self, band: NDArray[np.integer], depth: int) -> bytes:
        kind = np.dtype(f"{self._order}u{depth // 8}")
        differences = band.astype(kind)
        differences[:, 1:] = band[:, 1:] - band[:, :-1]
        return differences.tobytes()

    def _packed(self, kind: int, values: list[int]) -> tuple[int, int, bytes]:
        letter = "H" if kind == _SHORT else "I"
        return kind, len(values), struct.pack(f"{self._order}{len(values)}{letter}", *values)

    def _rational(self, value: float) -> tuple[int, int, bytes]:
        ratio = Fraction(value).limit_denominator(10_000)
        return _RATIONAL, 1, struct.pack(f"{self._order}2I", ratio.numerator, ratio.denominator)

    def _write_directory(self, packed: dict[int, tuple[int, int, bytes]]) -> None:
        lines = {tag: line for tag, line in self._kept.items() if tag not in packed}
        for tag, (kind, count, content) in packed.items():
            field = content.ljust(4, b"\x00") if len(content) <= 4 else self._u32(self._append(content))
            lines[tag] = struct.pack(f"{self._order}HHI", tag, kind, count) + field
        start = struct.pack(f"{self._order}H", len(lines))
        place = self._append(start + b"".join(lines[tag] for tag in sorted(lines)) + bytes(4))
        self._file.seek(self._link)
        self._file.write(self._u32(place))
        self._file.seek(0, 2)
        self._link = place + 2 + 12 * len(lines)

    def _append(self, content: bytes) -> int:
        """Write at the end of the file, at an even place as the format demands, and return that place."""
        place = self._file.tell()
        if place % 2:
            self._file.write(b"\x00")
            place += 1
        if place + len(content) > _MOST_BYTES:
            raise OutputError(
                "a TIFF holds at most 4 GB, and the result would be larger; choose --format png for a single picture, "
                "and split a file of many pages"
            )
        self._file.write(content)
        return place

    def _u32(self, value: int) -> bytes:
        return struct.pack(f"{self._order}I", value)


def _kept_entries(block: bytes) -> dict[int, bytes]:
    """Return the entries of an EXIF block's first directory that describe the picture, as their 12 bytes."""
    first = TiffBlock(block).first()
    return {entry.tag: block[entry.offset : entry.offset + 12] for entry in first.entries() if entry.tag not in _LAYOUT}
