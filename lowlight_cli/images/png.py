"""PNG with 16 bits per channel and colour or alpha, which Pillow cannot write.

Source: PNG Specification, Third Edition (W3C), sections 5, 9 and 11.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Chunk = tuple[bytes, bytes]

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
# Level 6 is zlib's own balance; the filters below do most of the work.
_COMPRESSION = 6


def write_png(
    file: BinaryIO,
    size: tuple[int, int, int],
    bands: Iterable[NDArray[np.integer]],
    *,
    chunks: Iterable[Chunk],
) -> None:
    """Write a 16-bit PNG: `size` is (height, width, channels), `bands` its rows `(h, W, channels)`.

    `chunks` are written before the pixels, in order (colour profile, EXIF, texts).
    """
    height, width, channels = size
    file.write(b"\x89PNG\r\n\x1a\n")
    _write_chunk(file, b"IHDR", struct.pack(">2I5B", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0))
    for name, content in chunks:
        _write_chunk(file, name, content)
    packer = zlib.compressobj(_COMPRESSION)
    for lines in _filtered(bands, width, channels):
        if packed := packer.compress(lines.data):
            _write_chunk(file, b"IDAT", packed)
    _write_chunk(file, b"IDAT", packer.flush())
    _write_chunk(file, b"IEND", b"")


def profile_chunk(icc: bytes) -> Chunk:
    """Return the chunk that carries a colour profile."""
    return b"iCCP", b"ICC Profile\x00\x00" + zlib.compress(icc)


def resolution_chunk(dpi: tuple[float, float]) -> Chunk:
    """Return the chunk that carries the resolution, in dots per metre."""
    across, down = (round(value / 0.0254) for value in dpi)
    return b"pHYs", struct.pack(">2IB", across, down, 1)


def _write_chunk(file: BinaryIO, name: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + name)
    file.write(content)
    file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(name))))


def _filtered(bands: Iterable[NDArray[np.integer]], width: int, channels: int) -> Iterator[Bytes]:
    """Yield the lines of each band, each behind the number of the filter that suits it best."""
    pixel = 2 * channels
    above = np.zeros((1, width * pixel), dtype=np.uint8)
    for band in bands:
        lines = band.astype(">u2").view(np.uint8).reshape(len(band), -1)
        up = np.concatenate([above, lines[:-1]])
        left, corner = _shifted(lines, pixel), _shifted(up, pixel)
        candidates = {0: lines, 1: lines - left, 2: lines - up, 4: lines - _paeth(left, up, corner)}
        costs = np.stack([_cost(candidate) for candidate in candidates.values()])
        best = np.argmin(costs, axis=0)
        result = np.empty((len(lines), 1 + lines.shape[1]), dtype=np.uint8)
        for index, (number, candidate) in enumerate(candidates.items()):
            chosen = best == index
            result[chosen, 0] = number
            result[chosen, 1:] = candidate[chosen]
        above = lines[-1:]
        yield result


def _shifted(lines: Bytes, pixel: int) -> Bytes:
    return np.pad(lines, ((0, 0), (pixel, 0)))[:, :-pixel]


def _cost(differences: Bytes) -> NDArray[np.int64]:
    """Return the sum of absolute differences of each line: the specification's own measure (section 12.7)."""
    costs: NDArray[np.int64] = np.abs(differences.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64)
    return costs


def _paeth(left: Bytes, up: Bytes, corner: Bytes) -> Bytes:
    """Return whichever of the three neighbours is nearest to left + up - corner (section 9.4)."""
    a, b, c = (plane.astype(np.int16) for plane in (left, up, corner))
    to_left, to_up, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    near_left = (to_left <= to_up) & (to_left <= to_corner)
    return np.where(near_left, left, np.where(to_up <= to_corner, up, corner))
