"""What every backend takes and gives.

A backend is one way to make a picture bright: a network with its weights, ready on a device. It knows nothing of
files, tiles, precision fallback or strength; those are the same for all and live above it.
"""

import math
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from lowlight_cli.backends import BackendInfo
from lowlight_cli.tiling import TileFunction, Window

TileEnhancer = TileFunction
WholeEnhancer = Callable[[Tensor], Tensor]

__all__ = ["Backend", "BackendInfo", "TileEnhancer", "WholeEnhancer", "Window", "bounded"]


def bounded(result: Tensor) -> Tensor:
    """Clamp to [0, 1] in place, and turn infinities into NaN: a clamp alone would make them look sound."""
    return result.nan_to_num_(nan=math.nan, posinf=math.nan, neginf=math.nan).clamp_(0, 1)


class Backend(Protocol):
    """A loaded backend.

    Its functions take RGB float32 tensors `(1, 3, H, W)` in [0, 1], any H, W >= 1, on the backend's device, and return
    the same shape, device and dtype, clamped to [0, 1] by `bounded`. The caller's tensor is never changed, but may be
    what comes back. Padding to a multiple is the backend's business.

    A backend in a half precision computes in it what it changes about a picture, never the picture itself: bfloat16
    has 128 levels between a half and one, and a picture of 16 bits would come out with 7.
    """

    @property
    def info(self) -> BackendInfo:
        """The facts of this backend."""

    @property
    def peak_bytes_per_pixel(self) -> int:
        """About how much memory one pixel of a tile costs at the peak, in bytes."""

    def enhance(self, image: Tensor) -> Tensor:
        """Enhance a whole picture."""

    def whole_enhancer(self, image: Tensor) -> WholeEnhancer:
        """Return a function that enhances this picture, having decided what must be decided on the CPU.

        For pictures that come in a row: a GPU that is at work on one need not be waited for before the next is begun.
        """

    def tile_enhancer(self, preview: Tensor, samples: Tensor) -> TileEnhancer:
        """Return a function for the tiles of one picture, given the picture scaled down to `info.preview_side`.

        `samples` `(n, 3, h, w)` are parts of the picture at full size, spread evenly over it; `n` is `info.samples`, or
        less where the picture is small or memory short.

        Tiles agree with each other as if the picture had been seen whole: exactly, when `info.halo` is a number;
        otherwise as nearly as the preview allows. A backend that wants no preview, or no samples, gets an
        empty tensor.
        """
