"""Photoshop's image resources: the wrapping in which JPEGs and TIFFs hold IPTC records.

Source: Adobe Photoshop File Formats Specification, "Image Resource Blocks"; IPTC-NAA Information Interchange Model 4.2.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

_START = b"8BIM"
_IPTC = 0x0404
_THUMBNAILS = (1033, 1036)
# Copies of EXIF and XMP, and a digest by which Photoshop tells whether the records changed.
_COPIES = (1058, 1059, 1060, 1061)

# Of record 2: content location code and name, city, sublocation, province, country code and name.
_PLACES = {(2, number) for number in (26, 27, 90, 92, 95, 100, 101)}
_DATA_SET = 0x1C
_LONG = 1 << 15  # a data set's usual limit; longer ones give, behind this bit, the length of their length


class _Resource(NamedTuple):
    """One resource: its number, its content, and all its bytes with head and padding."""

    number: int
    content: bytes
    whole: bytes


class _Record(NamedTuple):
    """One IPTC record: `tag` is (record, data set), `whole` its bytes with head."""

    tag: tuple[int, int]
    whole: bytes


def _iptc_block(records: Iterable[_Record]) -> bytes | None:
    """Return IPTC records as a resource, or None for no records."""
    packed = b"".join(record.whole for record in records)
    if not packed:
        return None
    head = _START + _IPTC.to_bytes(2, "big") + b"\x00\x00" + len(packed).to_bytes(4, "big")
    return head + packed + bytes(len(packed) % 2)


def resources_of(content: bytes) -> bytes | None:
    """Return what programs call a picture's IPTC as resources: it is those, or bare records."""
    return content if content.startswith(_START) else _iptc_block(_records(content))


def with_iptc(block: bytes | None, records: bytes | None) -> bytes | None:
    """Return the resources, with bare IPTC records among them where they hold none of their own."""
    try:
        held = {one.number for one in _resources(block or b"")}
    except ValueError:
        held = set()
    return block if _IPTC in held else ((block or b"") + (_iptc_block(_records(records or b"")) or b"")) or None


def without_thumbnail(block: bytes | None) -> bytes | None:
    """Return the resources without small copies of the picture; None if there are none, or damaged ones."""
    try:
        return b"".join(one.whole for one in _resources(block or b"") if one.number not in _THUMBNAILS) or None
    except ValueError:
        return None


def without_place(block: bytes | None) -> bytes | None:
    """Return the resources without the names of places, and without copies of EXIF and XMP, which may hold them.

    Records that follow a damaged one are left out.
    """
    kept = []
    try:
        for one in _resources(block or b""):
            if one.number == _IPTC:
                kept.append(_iptc_block(record for record in _records(one.content) if record.tag not in _PLACES) or b"")
            elif one.number not in _COPIES:
                kept.append(one.whole)
    except ValueError:
        return None
    return b"".join(kept) or None


def _resources(block: bytes) -> Iterator[_Resource]:
    """Yield the resources of a block up to what is none; ValueError where one is cut off."""
    place = 0
    while block[place : place + 4] == _START:
        number = int.from_bytes(block[place + 4 : place + 6], "big")
        name_end = place + 6 + (block[place + 6 : place + 7] or b"\0")[0] // 2 * 2 + 2
        size = int.from_bytes(block[name_end : name_end + 4], "big")
        start, end = name_end + 4, name_end + 4 + size + size % 2
        if end > len(block) + 1:
            raise ValueError("a resource beyond the end")
        yield _Resource(number, block[start : start + size], block[place:end])
        place = end


def _records(content: bytes) -> Iterator[_Record]:
    """Yield the records up to what is none, or is cut off."""
    place = 0
    while content[place : place + 1] == bytes((_DATA_SET,)):
        size = int.from_bytes(content[place + 3 : place + 5], "big")
        start = place + 5
        if size >= _LONG:
            start += size - _LONG
            size = int.from_bytes(content[place + 5 : start], "big")
        end = start + size
        if end > len(content):
            return
        yield _Record((content[place + 1], content[place + 2]), content[place:end])
        place = end
