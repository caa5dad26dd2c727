"""TIFF directories in a buffer: what EXIF blocks, TIFF files and most raw files are made of.

Read for facts and edited in place; nothing moves, so offsets that others keep into the block stay right. Every offset
is checked against the buffer: damaged entries are passed over, a damaged header is a ValueError.

Source: TIFF 6.0, section 2; EXIF 2.32, section 4.6.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lowlight_cli.images.tiff_tags import BYTES_OF_KIND

TIFF_STARTS = (b"II*\x00", b"MM\x00*")

_INTEGER_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I"}


class TiffBlock:
    """A TIFF structure held in memory; edits stay in a copy of the bytes given."""

    def __init__(self, content: bytes) -> None:
        if content[:4] not in TIFF_STARTS:
            raise ValueError("no TIFF header")
        self.data = bytearray(content)
        self.order = "<" if content[:1] == b"I" else ">"

    def first(self) -> "Directory":
        """Return the first directory, or raise ValueError when there is none in the buffer."""
        return self.directory(self.unpack("I", 4))

    def directory(self, offset: int) -> "Directory":
        """Return the directory at `offset`, or raise ValueError when none fits there."""
        if offset < 8:
            raise ValueError("a directory inside the header")
        count = self.unpack("H", offset)
        if offset + 2 + 12 * count > len(self.data):
            raise ValueError("a directory beyond the end")
        return Directory(self, offset)

    def unpack(self, kind: str, offset: int) -> int:
        """Read one integer of `struct` kind `kind`, or raise ValueError beyond the end."""
        try:
            (value,) = struct.unpack_from(self.order + kind, self.data, offset)
        except struct.error as error:
            raise ValueError("beyond the end") from error
        return int(value)

    def pack(self, kind: str, offset: int, value: int) -> None:
        """Write one integer in place; one too large for its kind becomes 0, which means unknown."""
        size = struct.calcsize(kind)
        struct.pack_into(self.order + kind, self.data, offset, value if value < 1 << (8 * size) else 0)

    def cut(self, start: int, length: int) -> None:
        """Cut off a stretch of bytes where it is the end; elsewhere, overwrite it with zeros."""
        end = min(start + length, len(self.data))
        if not 8 <= start < end:
            return
        if end >= len(self.data) - 3:
            del self.data[start:]
        else:
            self.data[start:end] = bytes(end - start)

    def bytes(self) -> bytes:
        """Return the block as it stands."""
        return bytes(self.data)


@dataclass(frozen=True)
class Directory:
    """One list of entries in a block."""

    block: TiffBlock
    offset: int

    def entries(self) -> Iterator["Entry"]:
        """Yield the entries whose values lie inside the block."""
        for index in range(self._count()):
            entry = Entry(self.block, self.offset + 2 + 12 * index)
            if entry.is_sound():
                yield entry

    def find(self, tag: int) -> "Entry | None":
        """Return the first sound entry with this tag."""
        return next((entry for entry in self.entries() if entry.tag == tag), None)

    def next(self) -> "Directory | None":
        """Return the directory this one points to, if there is a sound one."""
        try:
            return self.block.directory(self.block.unpack("I", self._end()))
        except ValueError:
            return None

    def unlink_next(self) -> None:
        """Make this directory the last."""
        if self._end() + 4 <= len(self.block.data):
            self.block.pack("I", self._end(), 0)

    def remove(self, entry: "Entry") -> None:
        """Take one entry out; those behind it move up, their values stay where they are."""
        data, end = self.block.data, min(self._end() + 4, len(self.block.data))
        data[entry.offset : end] = data[entry.offset + 12 : end] + bytes(12)
        self.block.pack("H", self.offset, self._count() - 1)

    def _count(self) -> int:
        return self.block.unpack("H", self.offset)

    def _end(self) -> int:
        return self.offset + 2 + 12 * self._count()


@dataclass(frozen=True)
class Entry:
    """One entry: a tag, a type, and a value inside it or elsewhere in the block."""

    block: TiffBlock
    offset: int

    @property
    def tag(self) -> int:
        """The tag's number."""
        return self.block.unpack("H", self.offset)

    @property
    def kind(self) -> int:
        """The type's number."""
        return self.block.unpack("H", self.offset + 2)

    @property
    def count(self) -> int:
        """How many numbers or letters the value has."""
        return self.block.unpack("I", self.offset + 4)

    @property
    def size(self) -> int:
        """Length of the value in bytes."""
        return BYTES_OF_KIND.get(self.kind, 0) * self.count

    @property
    def place(self) -> int:
        """Where the value lies in the block."""
        return self.offset + 8 if self.size <= 4 else self.block.unpack("I", self.offset + 8)

    def is_sound(self) -> bool:
        """Whether the type is known and the value lies inside the block, behind its header."""
        return self.size > 0 and 8 <= self.place <= len(self.block.data) - self.size

    def integers(self) -> tuple[int, ...]:
        """Return the value as whole numbers; empty for another type. At most a thousand are read."""
        kind = _INTEGER_FORMATS.get(self.kind)
        if kind is None:
            return ()
        step = BYTES_OF_KIND[self.kind]
        ends = range(self.place, self.place + min(self.size, 1000 * step), step)
        return tuple(self.block.unpack(kind, place) for place in ends)

    def integer(self) -> int | None:
        """Return the first whole number, or None for another type."""
        return next(iter(self.integers()), None)

    def set_integer(self, value: int) -> None:
        """Overwrite the first whole number; a value of another type is left alone."""
        kind = _INTEGER_FORMATS.get(self.kind)
        if kind is not None and self.is_sound():
            self.block.pack(kind, self.place, value)

    def erase(self) -> None:
        """Overwrite the value with zeros and the entry with an empty one."""
        self.block.data[self.place : self.place + self.size] = bytes(self.size)
        self.block.data[self.offset : self.offset + 12] = bytes(12)
