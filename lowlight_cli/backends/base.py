"""What every backend takes and gives.

A backend is one way to make a picture bright: a network with its weights, ready on a device. It knows nothing of
files, tiles, precision fallback or strength; those are the same for all and live above it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


@dataclass(frozen=True)
class BackendInfo:
    """Facts about a backend, as data.

    `halo` is the receptive radius in pixels when tiles with that much real context are exact, or None when the
    backend is global and only makes tiles agree approximately. `preview_side` is the long side in pixels of the
    scaled-down picture that `tile_enhancer` wants to see first (0: none).
    """

    name: str
    summary: str
    halo: int | None
    preview_side: int
    needs_weights: bool
    trainable: bool
    multiple_of: int
    hidden: bool = False


class Window(NamedTuple):
    """Where a tile lies in its picture: rows top to bottom, columns left to right (exclusive ends), in pixels."""

    top: int
    bottom: int
    left: int
    right: int
    height: int
    width: int


TileEnhancer = Callable[[Tensor, Window], Tensor]


class Backend(Protocol):
    """A loaded backend.

    Both methods take RGB float tensors `(1, 3, H, W)` in [0, 1], any H, W >= 1, on the backend's device and in its
    dtype, and return the same shape, device and dtype, clamped to [0, 1]. The caller's tensor is never changed.
    Padding to a multiple is the backend's business.
    """

    @property
    def info(self) -> BackendInfo:
        """The facts of this backend."""

    def enhance(self, image: Tensor) -> Tensor:
        """Enhance a whole picture."""

    def tile_enhancer(self, preview: Tensor) -> TileEnhancer:
        """Return a function for the tiles of one picture, given the picture scaled down to `info.preview_side`.

        Tiles must agree with each other as if the picture had been seen whole: exactly, when `info.halo` is a
        number; otherwise as nearly as the preview allows. A backend without a preview gets a 1x1 picture.
        """
