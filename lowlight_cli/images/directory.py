"""TIFF directories in a buffer: what EXIF blocks, TIFF files and most raw files are made of.

Read for facts and edited in place; nothing moves, so offsets that others keep into the block stay right. Every offset
is checked against the buffer: damaged entries are passed over, a damaged header is a ValueError.

Source: TIFF 6.0, section 2; EXIF 2.32, section 4.6.
"""

import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from lowlight_cli.images.tiff_tags import BYTES_OF_KIND, Tag

TIFF_STARTS = (b"II*\x00", b"MM\x00*")

MOST_DIRECTORIES = 12
"""How many directories of one file are looked at; a small one may point to hundreds, each as large as the file."""

_INTEGER_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I"}
_POINTERS = (Tag.SUB_DIRECTORIES, Tag.EXIF_DIRECTORY, Tag.GPS_DIRECTORY, Tag.INTEROP_DIRECTORY)


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

    def drop(self, tags: Collection[int]) -> None:
        """Leave the entries of all directories but for these tags, and zeros in place of all else.

        So nothing stays of an entry that is left out, nor of what was unlinked before or what no directory explains:
        right only where makers' notes, which may lead anywhere, are among the tags. What is behind the last is cut off.
        """
        kept = [(one, [entry for entry in one.entries() if entry.tag not in tags]) for one in self._reached(tags)]
        result, end = self.data[:8], 8
        values = sorted((entry.place, entry.size) for _, entries in kept for entry in entries if entry.size > 4)
        for start, size in values:
            # They are copied in their order, each byte once: in a damaged block, many may share the same.
            result += bytes(max(0, start - end)) + self.data[max(start, end) : start + size]
            end = len(result)
        # Directories last, the first one over all others, as in a damaged block they may lie one over another.
        for directory, entries in reversed(kept):
            directory.copy(entries, into=result)
        self.data = result

    def _reached(self, without: Collection[int]) -> list["Directory"]:
        """Return the directories that the first leads to, itself among them, other than by entries of some tags."""
        found: dict[int, Directory] = {}
        places = [self.unpack("I", 4)]
        while places and len(found) < MOST_DIRECTORIES:
            place = places.pop(0)
            with suppress(ValueError):
                if place not in found:
                    found[place] = self.directory(place)
                    places += found[place].pointers(without)
        return list(found.values())


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
            return self.block.directory(self._link())
        except ValueError:
            return None

    def unlink_next(self) -> None:
        """Make this directory the last."""
        if self._end() + 4 <= len(self.block.data):
            self.block.pack("I", self._end(), 0)

    def pointers(self, without: Collection[int] = ()) -> list[int]:
        """Return where the directories below this one and the next begin, by what its entries say but for some tags."""
        found = [entry for entry in self.entries() if entry.tag in _POINTERS and entry.tag not in without]
        return [place for entry in found for place in entry.integers(MOST_DIRECTORIES)] + [self._link()]

    def copy(self, entries: Iterable["Entry"], into: bytearray) -> None:
        """Write this directory to its place in another block, with some of its entries; those behind move up."""
        lines = b"".join(self.block.data[entry.offset : entry.offset + 12] for entry in entries)
        head = struct.pack(f"{self.block.order}H", len(lines) // 12)
        link = struct.pack(f"{self.block.order}I", self._link())
        whole = (head + lines + link)[: len(self.block.data) - self.offset]  # the last may lack its link
        into.extend(bytes(max(0, self.offset + len(whole) - len(into))))
        into[self.offset : self.offset + len(whole)] = whole

    def _link(self) -> int:
        """Return where the next directory begins, 0 where this is the last."""
        try:
            return self.block.unpack("I", self._end())
        except ValueError:
            return 0

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

    def integers(self, most: int = 1000) -> tuple[int, ...]:
        """Return the value as whole numbers, the first `most` of them; empty for another type."""
        kind = _INTEGER_FORMATS.get(self.kind)
        if kind is None:
            return ()
        step = BYTES_OF_KIND[self.kind]
        ends = range(self.place, self.place + min(self.size, most * step), step)
        return tuple(self.block.unpack(kind, place) for place in ends)

    def integer(self) -> int | None:
        """Return the first whole number, or None for another type."""
        return next(iter(self.integers(1)), None)

    def set_integer(self, value: int) -> None:
        """Overwrite the first whole number; a value of another type is left alone."""
        kind = _INTEGER_FORMATS.get(self.kind)
        if kind is not None and self.is_sound():
            self.block.pack(kind, self.place, value)
