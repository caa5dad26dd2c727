"""ZERO-IG as a backend: a fitted or published network on a device, exact in tiles."""

import torch
from torch import Tensor

from lowlight_cli.backends import BACKENDS
from lowlight_cli.backends.base import TileEnhancer, WholeEnhancer, bounded
from lowlight_cli.backends.zeroig.network import HALO, ZeroIG, load_network
from lowlight_cli.compiling import compiled
from lowlight_cli.settings import Compiling
from lowlight_cli.weights_file import WeightsFile


class ZeroIGBackend:
    """A ZERO-IG network in eval mode. `denoise` (0..1) leads from the noisy bright picture to the clean one."""

    info = BACKENDS["zeroig"]

    def __init__(
        self,
        network: ZeroIG,
        *,
        device: torch.device,
        dtype: torch.dtype,
        denoise: float = 1.0,
        compiling: Compiling = "off",
    ) -> None:
        assert self.info.halo == HALO
        self._network = network.eval().to(device, dtype)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self._denoise = denoise
        self.enhance = compiled(self._enhanced, compiling)
        # Measured on a CPU: about four maps of the widest network live at once.
        widest = max(parameter.shape[0] for parameter in network.parameters())
        self.peak_bytes_per_pixel = 5 * widest * dtype.itemsize + 96

    def _enhanced(self, image: Tensor) -> Tensor:
        result = self._network(image.contiguous(memory_format=torch.channels_last))
        mixed = torch.lerp(result.enhanced, result.denoised, self._denoise)
        return bounded(mixed.contiguous())

    def whole_enhancer(self, image: Tensor) -> WholeEnhancer:  # noqa: ARG002 - the protocol's signature
        """Return what enhances any picture: nothing is decided beforehand."""
        return self.enhance

    def tile_enhancer(self, preview: Tensor, samples: Tensor) -> TileEnhancer:  # noqa: ARG002 - the protocol's signature
        """Return a function for tiles: nothing reaches further than the halo, so each is a picture of its own."""
        return lambda tile, window: self.enhance(tile)  # noqa: ARG005


def load_zeroig(
    weights: WeightsFile,
    *,
    device: torch.device,
    dtype: torch.dtype,
    denoise: float = 1.0,
    compiling: Compiling = "off",
) -> ZeroIGBackend:
    """Build the networks that the tensors describe and fill them; raises WeightsError when they describe none."""
    network = load_network(weights.tensors)
    return ZeroIGBackend(network, device=device, dtype=dtype, denoise=denoise, compiling=compiling)
