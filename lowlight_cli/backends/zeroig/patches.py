"""3x3 patches of pictures of a few channels, with which a convolution is a product of matrices; on a CPU.

A picture `(N, C, H, W)` is padded to `(N, H + 2, W + 2, C)`. Patches of some of its rows are `(pixels, 9 C)`, the nine
pixels from the upper left to the lower right, the channels of each side by side.
"""

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from lowlight_cli.loops import Floats, compiled

_PIXELS = 9  # in a patch


def padded(image: Tensor) -> Tensor:
    """Return pictures `(N, C, H, W)` with a border of zeros and channels last: `(N, H + 2, W + 2, C)`, contiguous."""
    return F.pad(image, (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous()


def without_border(image: Tensor) -> Tensor:
    """Return a view `(N, C, H, W)` of pictures that were `padded`."""
    return image[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def patches(image: Floats, rows: slice) -> Floats:
    """Return the patches around the pixels in `rows` of one padded picture `(H + 2, W + 2, C)`."""
    _, columns, channels = image.shape
    found = np.empty(((rows.stop - rows.start) * (columns - 2), _PIXELS * channels), image.dtype)
    _cut(image[rows.start : rows.stop + 2].reshape(-1, columns * channels), channels, found)
    return found


def add_patches(image: Floats, rows: slice, added: Floats) -> None:
    """Add patches, as `patches` returns them, to where they came from."""
    _, columns, channels = image.shape
    _add(added, channels, image[rows.start : rows.stop + 2].reshape(-1, columns * channels))


@compiled
def _cut(image: Floats, channels: int, found: Floats) -> None:
    across = image.shape[1] // channels - 2
    run = 3 * channels
    for y in range(len(found) // across):
        for x in range(across):
            patch = found[y * across + x]
            for down in range(3):
                from_here, to_here = image[y + down, x * channels :], patch[down * run :]
                for each in range(run):
                    to_here[each] = from_here[each]


@compiled
def _add(added: Floats, channels: int, image: Floats) -> None:
    across = image.shape[1] // channels - 2
    run = 3 * channels
    for y in range(len(added) // across):
        for x in range(across):
            patch = added[y * across + x]
            for down in range(3):
                from_here, to_here = patch[down * run :], image[y + down, x * channels :]
                for each in range(run):
                    to_here[each] += from_here[each]
