"""What the TIFF directories of a file say of its picture, as an EXIF block of their own: values byte for byte.

A TIFF, and most raw photos, mix description with the layout of their pixels, anywhere in the file. Only what is asked
for is read of it.

Source: TIFF 6.0, section 2; the BigTIFF proposal (offsets of 8 bytes); EXIF 2.32, section 4.6.
"""

import io
import struct
from collections.abc import Collection
from contextlib import suppress
from typing import IO, NamedTuple

from lowlight_cli.images.tiff_tags import BYTES_OF_KIND, Tag

# Entries that describe, and are true of a result as well.
_DESCRIPTIVE = (
    Tag.DOCUMENT_NAME, Tag.IMAGE_DESCRIPTION, Tag.MAKE, Tag.MODEL, Tag.PAGE_NAME, Tag.SOFTWARE, Tag.DATE_TIME,
    Tag.ARTIST, Tag.HOST_COMPUTER, Tag.RATING, Tag.RATING_PERCENT, Tag.COPYRIGHT,
    Tag.XP_TITLE, Tag.XP_COMMENT, Tag.XP_AUTHOR, Tag.XP_KEYWORDS, Tag.XP_SUBJECT,
)  # fmt: skip

_ORDERS = {b"II": "<", b"MM": ">"}
_BIG = 43
_LONG = 4
_POINTERS = {4: "I", 13: "I", 16: "Q", 18: "Q"}
_LARGEST_VALUE = 1 << 24  # bytes; descriptions are shorter


class _Value(NamedTuple):
    kind: int
    content: bytes


_Directory = dict[int, "_Value | _Directory"]


def directory_bytes(file: IO[bytes], place: int) -> int:
    """Return how long the directory that begins at `place` of a TIFF says to be, at most up to the end of the file."""
    file.seek(0)
    head = file.read(4)
    is_big = head[2] == _BIG
    file.seek(place)
    count = int.from_bytes(file.read(8 if is_big else 2), "little" if head[:2] == b"II" else "big")
    return min(count * (20 if is_big else 12), file.seek(0, io.SEEK_END) - place)


class Directories:
    """The directories of one page of a file: that which begins at `place`, or the first.

    Raises ValueError where there are none, or OSError.
    """

    def __init__(self, file: IO[bytes], place: int | None = None) -> None:
        self._file, self._length = file, file.seek(0, io.SEEK_END)
        head = self._read(0, 8)
        order = _ORDERS.get(head[:2])
        if order is None:
            raise ValueError("no TIFF header")
        self._order = order
        self._is_big = struct.unpack(f"{order}H", head[2:4]) == (_BIG,)
        self._word = "Q" if self._is_big else "I"
        self._first = self._directory(self._number(self._word, 8 if self._is_big else 4) if place is None else place)

    def value(self, tag: int) -> bytes | None:
        """Return the bytes of an entry of the first directory."""
        found = self._first.get(tag)
        return found.content if isinstance(found, _Value) else None

    def exif(self, *, without: Collection[int] = ()) -> bytes | None:
        """Return what describes the picture, without some tags: a block with one directory, and those below it."""
        described = self._narrowed({tag: self._first[tag] for tag in _DESCRIPTIVE if tag in self._first})
        for pointer in (Tag.EXIF_DIRECTORY, Tag.GPS_DIRECTORY):
            if below := self._below(self._first, pointer):
                described[pointer] = self._narrowed({tag: value for tag, value in below.items() if tag not in without})
        details = described.get(Tag.EXIF_DIRECTORY)
        if isinstance(details, dict) and Tag.INTEROP_DIRECTORY in details:
            interop = self._below(details, Tag.INTEROP_DIRECTORY)
            del details[Tag.INTEROP_DIRECTORY]
            if interop:
                details[Tag.INTEROP_DIRECTORY] = self._narrowed(interop)
        if not described:
            return None
        start = b"II*\x00" if self._order == "<" else b"MM\x00*"
        return start + struct.pack(f"{self._order}I", 8) + self._packed(described, 8)

    def has_maker_note(self) -> bool:
        """Whether a camera's maker wrote notes, whose offsets only hold in this very file."""
        return Tag.MAKER_NOTE in (self._below(self._first, Tag.EXIF_DIRECTORY) or ())

    def is_damaged(self) -> bool:
        """Whether a directory below the first cannot be read."""
        return any(
            tag in self._first and self._below(self._first, tag) is None
            for tag in (Tag.EXIF_DIRECTORY, Tag.GPS_DIRECTORY)
        )

    def _read(self, place: int, size: int) -> bytes:
        if place + size > self._length:
            raise ValueError("beyond the end")
        self._file.seek(place)
        return self._file.read(size)

    def _number(self, kind: str, place: int) -> int:
        (value,) = struct.unpack(f"{self._order}{kind}", self._read(place, struct.calcsize(kind)))
        return int(value)

    def _count(self, place: int) -> tuple[int, int]:
        """Return how many entries a directory has, and where they begin."""
        kind = "Q" if self._is_big else "H"
        count = self._number(kind, place)
        if place < 8 or count > 1 << 12:
            raise ValueError("no directory")
        return count, place + struct.calcsize(kind)

    def _directory(self, place: int) -> _Directory:
        """Read a directory; entries that are damaged, or of a kind that EXIF does not know, are passed over.

        So are those that hold, with the ones before them, more than the file: a small one may give the same megabytes
        for the value of each of thousands.
        """
        count, first = self._count(place)
        line = struct.Struct(f"{self._order}2H2{self._word}")
        room = struct.calcsize(self._word)
        found: _Directory = {}
        left = self._length
        for number, (tag, kind, length, at) in enumerate(line.iter_unpack(self._read(first, count * line.size))):
            size = length * BYTES_OF_KIND.get(kind, 0)
            if 0 < size < min(_LARGEST_VALUE, left):
                left -= size
                with suppress(ValueError):
                    within = first + number * line.size + line.size - room
                    found[tag] = _Value(kind, self._read(within if size <= room else at, size))
        return found

    def _below(self, directory: _Directory, pointer: int) -> _Directory | None:
        """Return the directory that an entry points to; None where there is none, or none that can be read."""
        found = directory.get(pointer)
        try:
            if isinstance(found, _Value):
                (place,) = struct.unpack(f"{self._order}{_POINTERS[found.kind]}", found.content)
                return self._directory(place)
        except (ValueError, LookupError, struct.error):
            pass
        return None

    def _narrowed(self, directory: _Directory) -> _Directory:
        """Return a directory with BigTIFF's 64-bit numbers, which EXIF does not know, as 32 bits; larger ones go."""
        narrow: _Directory = {}
        for tag, value in directory.items():
            if isinstance(value, _Value) and _POINTERS.get(value.kind) == "Q":
                numbers = struct.unpack(f"{self._order}{len(value.content) // 8}Q", value.content)
                if max(numbers) >> 32:
                    continue
                value = _Value(_LONG, struct.pack(f"{self._order}{len(numbers)}I", *numbers))
            narrow[tag] = value
        return narrow

    def _packed(self, directory: _Directory, place: int) -> bytes:
        """Return a directory that begins at `place` of a block, what its entries hold behind it."""
        lines, behind = b"", b""
        end = place + 2 + 12 * len(directory) + 4
        for tag, value in sorted(directory.items()):
            at = end + len(behind)
            if isinstance(value, _Value):
                kind, count, content = value.kind, len(value.content) // BYTES_OF_KIND[value.kind], value.content
            else:
                kind, count, content = _LONG, 1, self._packed(value, at)
            lines += struct.pack(f"{self._order}HHI", tag, kind, count)
            if isinstance(value, _Value) and len(content) <= 4:
                lines += content.ljust(4, b"\x00")
            else:
                lines += struct.pack(f"{self._order}I", at)
                behind += content + bytes(len(content) % 2)
        return struct.pack(f"{self._order}H", len(directory)) + lines + bytes(4) + behind
