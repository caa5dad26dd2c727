"""How near tiles come to the whole picture, with the embedded network: `python tests/bench_tiles.py SIDE PHOTO...`.

For each photo larger than a tile: the PSNR of the result in tiles to that of the whole picture, and the largest step
of brightness where two tiles meet, in 255ths: means over 16 pixels on either side and 64 along the seam.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lowlight_cli.enhancer import Enhancer, load_enhancer
from lowlight_cli.images import read_picture
from lowlight_cli.settings import DEFAULT_MODEL, Compute, Tiling

_BESIDE, _ALONG = 16, 64


def in_tiles(side: int) -> Enhancer:
    """Return the embedded network, in fp32 on the CPU, in tiles of this side; 0 for the whole picture."""
    return load_enhancer(DEFAULT_MODEL, compute=Compute("cpu", "fp32", Tiling(side)))


def steps(difference: NDArray[np.float64], side: int) -> Iterator[float]:
    """Yield, for each horizontal seam, the largest step of a difference `(H, W)` across it."""
    width = difference.shape[1] // _ALONG * _ALONG
    for seam in range(side, len(difference) - _BESIDE, side - Tiling.overlap):
        above, below = difference[seam - _BESIDE : seam, :width], difference[seam : seam + _BESIDE, :width]
        yield float(np.abs((above - below).mean(0).reshape(-1, _ALONG).mean(1)).max())


def main(side: int, photos: list[Path]) -> None:
    """Print a line for each photo."""
    whole, tiled = in_tiles(0), in_tiles(side)
    for path in photos:
        photo = read_picture(path)
        if max(photo.height, photo.width) <= side:
            continue
        one, other = (enhancer.enhance(photo).picture.pixels.astype(float) for enhancer in (whole, tiled))
        decibels = 10 * np.log10(255**2 / max(np.square(one - other).mean(), 1e-9))
        light = (other - one).mean(2)
        largest = max([*steps(light, side), *steps(light.T, side)], default=0.0)
        print(f"{path.name}: {decibels:.1f} dB, steps of {largest:.1f}/255 at most")


if __name__ == "__main__":
    main(int(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
