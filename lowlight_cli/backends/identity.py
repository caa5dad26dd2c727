"""The picture as it is: the whole path of files, tiles and casts without a network, for tests and measurements."""

from torch import Tensor

from lowlight_cli.backends import BACKENDS
from lowlight_cli.backends.base import TileEnhancer, WholeEnhancer


class Identity:
    """A backend that returns its input."""

    info = BACKENDS["identity"]
    peak_bytes_per_pixel = 24

    def enhance(self, image: Tensor) -> Tensor:
        """Return a copy of the picture."""
        return image.clone()

    def whole_enhancer(self, image: Tensor) -> WholeEnhancer:  # noqa: ARG002 - the protocol's signature
        """Return what returns the picture itself."""
        return lambda picture: picture

    def tile_enhancer(self, preview: Tensor, samples: Tensor) -> TileEnhancer:  # noqa: ARG002 - the protocol's signature
        """Return a function that copies tiles."""
        return lambda tile, window: tile.clone()  # noqa: ARG005
