"""What Pillow leaves out of BMP: transparency that readers look at, and an embedded colour profile.

Source: BITMAPV4HEADER and BITMAPV5HEADER of the Windows GDI documentation; the masks say which byte of a pixel is what.
"""

import struct
from typing import IO, BinaryIO

import numpy as np
from numpy.typing import NDArray

_FILE_HEADER, _V4_HEADER = 14, 108
_V5_HEADER, _EMBEDDED = 124, b"DEBM"
# Larger profiles are made of tables, for printers.
_MOST_PROFILE_BYTES = 1 << 22
_BITFIELDS = 3
_MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
_INCH = 0.0254


def write_bmp(file: BinaryIO, pixels: NDArray[np.uint8], *, dpi: tuple[float, float]) -> None:
    """Write RGB with alpha, `(H, W, 4)`; `dpi` is dots per inch across and down."""
    height, width, _ = pixels.shape
    start, size = _FILE_HEADER + _V4_HEADER, pixels.size
    across, down = (round(value / _INCH) for value in dpi)
    file.write(struct.pack("<2sI4xI", b"BM", start + size, start))
    file.write(struct.pack("<I2i2H", _V4_HEADER, width, height, 1, 32))
    file.write(struct.pack("<2I2i2I", _BITFIELDS, size, across, down, 0, 0))
    # sRGB needs no primaries and no gamma behind its name.
    file.write(struct.pack("<4I4s48x", *_MASKS, b"BGRs"))
    # Rows lie from bottom to top, the bytes of a pixel from blue to red.
    file.write(np.ascontiguousarray(pixels[::-1, :, [2, 1, 0, 3]]).data)


def embedded_profile(file: IO[bytes]) -> bytes | None:
    """Return the ICC profile inside an open BMP, if it has one."""
    file.seek(0)
    header = file.read(_FILE_HEADER + _V5_HEADER)
    if len(header) < _FILE_HEADER + _V5_HEADER or header[70:74] != _EMBEDDED:
        return None
    info_size, place, size = (struct.unpack_from("<I", header, offset)[0] for offset in (14, 126, 130))
    if info_size != _V5_HEADER or not 128 <= size <= _MOST_PROFILE_BYTES:
        return None
    file.seek(_FILE_HEADER + place)
    return file.read(size)
