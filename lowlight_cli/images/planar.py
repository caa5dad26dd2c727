"""TIFFs whose channels lie apart, plane behind plane: each plane as a grey picture of its own.

Pillow reads such planes with 8 bits each and forgets what alpha means for them. Yet every plane lies in the file as a
grey picture would; only a directory that says so is missing. It is put behind the file's bytes, in memory, and nothing
else moves.

Source: TIFF 6.0, sections 7, 8 (PlanarConfiguration) and 15.
"""

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from lowlight_cli.images.directory import Directory, Entry, TiffBlock
from lowlight_cli.images.picture import Pixels
from lowlight_cli.images.tiff_tags import Tag

_COMMON = frozenset([
    Tag.IMAGE_WIDTH, Tag.IMAGE_LENGTH, Tag.COMPRESSION, Tag.FILL_ORDER, Tag.ORIENTATION, Tag.ROWS_PER_STRIP,
    Tag.PREDICTOR, Tag.TILE_WIDTH, Tag.TILE_LENGTH, Tag.JPEG_TABLES,
])  # fmt: skip
# First those of the first plane, then those of the second, and so on.
_PARTED = frozenset([Tag.STRIP_OFFSETS, Tag.STRIP_BYTE_COUNTS, Tag.TILE_OFFSETS, Tag.TILE_BYTE_COUNTS])
_SHORT = 3


def read_planes(content: bytes, *, place: int, planes: int, bits: int) -> Pixels:
    """Return a page of `planes` planes, of 8 or 16 bits each, from the bytes of the whole file: `(H, W, planes)`.

    Raises:
        ValueError: no directory begins at `place`, or it does not part into so many planes. Damage raises whatever
            Pillow raises.
    """
    greys = []
    for file in _plane_files(content, place, planes, bits):
        with Image.open(io.BytesIO(file), formats=("TIFF",)) as grey:
            greys.append(np.asarray(grey))
    whole = np.stack(greys, axis=2)
    return whole.astype(np.uint16) if bits == 16 else whole.astype(np.uint8)


def _plane_files(content: bytes, place: int, planes: int, bits: int) -> Iterator[bytes]:
    """Yield for each plane the whole file, with the directory of a grey picture."""
    block = TiffBlock(content)
    found = block.directory(place)
    # A directory begins at an even place.
    start = len(content) + len(content) % 2
    header = content[:4] + struct.pack(f"{block.order}I", start)
    whole = header + content[8:] + bytes(start - len(content))
    for plane in range(planes):
        yield whole + _directory_of_plane(found, plane, planes, bits)


def _directory_of_plane(whole: Directory, plane: int, planes: int, bits: int) -> bytes:
    order = whole.block.order
    fixed = {Tag.BITS_PER_SAMPLE: bits, Tag.PHOTOMETRIC: 1, Tag.SAMPLES_PER_PIXEL: 1, Tag.PLANAR_CONFIGURATION: 1}
    lines: dict[int, bytes] = {
        tag: struct.pack(f"{order}HHIHxx", tag, _SHORT, 1, value) for tag, value in fixed.items()
    }
    for entry in whole.entries():
        if entry.tag in _COMMON:
            lines[entry.tag] = bytes(whole.block.data[entry.offset : entry.offset + 12])
        elif entry.tag in _PARTED:
            lines[entry.tag] = _part(entry, plane, planes)
    return struct.pack(f"{order}H", len(lines)) + b"".join(lines[tag] for tag in sorted(lines)) + bytes(4)


def _part(entry: Entry, plane: int, planes: int) -> bytes:
    """Return an entry that names one plane's share of a list; a long share stays where it lies in the file."""
    if entry.count % planes:
        raise ValueError("its strips do not part into planes")
    size = entry.size // planes
    place = entry.place + plane * size
    if size <= 4:
        field = bytes(entry.block.data[place : place + size]).ljust(4, b"\x00")
    else:
        field = struct.pack(f"{entry.block.order}I", place)
    return struct.pack(f"{entry.block.order}HHI", entry.tag, entry.kind, entry.count // planes) + field
