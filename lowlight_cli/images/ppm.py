"""PGM and PPM with 8 or 16 bits, which Pillow writes for grey only.

Source: the Netpbm manual pages pgm(5) and ppm(5).
"""

from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray


def write_ppm(file: BinaryIO, size: tuple[int, int, int], bands: Iterable[NDArray[np.integer]], *, depth: int) -> None:
    """Write a grey (P5) or colour (P6) picture; `size` is (height, width, channels), `bands` its rows."""
    height, width, channels = size
    file.write(b"P%d\n%d %d\n%d\n" % (5 if channels == 1 else 6, width, height, (1 << depth) - 1))
    for band in bands:
        file.write(band.astype(f">u{depth // 8}").tobytes())
