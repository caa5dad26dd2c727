"""The three small networks of ZERO-IG, and how a state dict becomes them.

Source: Shi et al., "ZERO-IG: Zero-Shot Illumination-Guided Joint Denoising and Adaptive Enhancement for Low-Light
Images", CVPR 2024. Attribute names are the published checkpoints' own. Images are RGB floats in [0, 1], NCHW; all
convolutions keep height and width (zero padding), so any size from 1x1 works.
"""

import threading
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_cli.buffers import Buffers
from lowlight_cli.errors import WeightsError
from lowlight_cli.weights_file import load_strict

EPS = 1e-4
SLOPE = 0.2  # of the denoisers' leaky ReLU
HALO = 9  # 2 (denoise_1) + 5 (enhance) + 2 (denoise_2) pixels: nothing reaches further
_REPEATS = 3  # of the residual block
_REPEATED = "enhance.blocks."
_GENERATOR = threading.Lock()  # of random numbers, one for all threads: whatever is built draws from it
_DenoiserLayers = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _may_fuse(image: Tensor) -> bool:
    # Without gradients the plain layers keep nothing anyway; on a GPU strips would only be many small launches.
    is_plain = image.device.type == "cpu" and image.dtype in (torch.float32, torch.float64)
    return is_plain and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


class Denoiser(nn.Module):
    """Predicts the noise in a `(N, channels, H, W)` image: two 3x3 convolutions and a 1x1."""

    def __init__(self, channels: int, width: int, buffers: Buffers | None = None) -> None:
        super().__init__()
        self._memory = buffers or Buffers()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv3 = nn.Conv2d(width, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the noise, in the shape of `image`."""
        if _may_fuse(image):
            from lowlight_cli.backends.zeroig import fused  # and Numba, which whoever only enhances can do without

            return fused.denoiser(image, cast(_DenoiserLayers, tuple(self.parameters())), SLOPE, self._memory)
        hidden = F.leaky_relu_(self.conv1(image), SLOPE)
        hidden = F.leaky_relu_(self.conv2(hidden), SLOPE)
        return cast(Tensor, self.conv3(hidden))


class Illuminator(nn.Module):
    """Estimates the illumination map of a `(N, 3, H, W)` image; one residual block is applied three times."""

    def __init__(self, width: int, buffers: Buffers | None = None) -> None:
        super().__init__()
        self._memory = buffers or Buffers()
        self.in_conv = nn.Sequential(nn.Conv2d(3, width, 3, padding=1))
        self.conv = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
        self.out_conv = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1))
        self._initialise()

    def _initialise(self) -> None:
        norm = cast(nn.BatchNorm2d, self.conv[1])
        for stack in (self.in_conv, self.conv, self.out_conv):
            convolution = cast(nn.Conv2d, stack[0])
            nn.init.normal_(convolution.weight, 0.0, 0.02)
            nn.init.zeros_(cast(Tensor, convolution.bias))
            if stack is self.conv:
                nn.init.normal_(norm.weight, 1.0, 0.02)

    def forward(self, image: Tensor) -> Tensor:
        """Return the illumination map, `(N, 3, H, W)` in [EPS, 1]."""
        convolution, norm = cast(nn.Conv2d, self.conv[0]), cast(nn.BatchNorm2d, self.conv[1])
        if _may_fuse(image):
            return self._fused(image, convolution, norm).sigmoid().clamp(EPS, 1.0)
        hidden = F.relu_(self.in_conv(image))
        for _ in range(_REPEATS):
            hidden = hidden + F.relu_(self.conv(hidden))
        return torch.sigmoid(self.out_conv(hidden)).clamp(EPS, 1.0)

    def _fused(self, image: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
        from lowlight_cli.backends.zeroig import fused, residual

        if norm.training:
            cast(Tensor, norm.num_batches_tracked).add_(_REPEATS)
        layers = fused.IlluminatorLayers(
            *cast(nn.Conv2d, self.in_conv[0]).parameters(),
            *convolution.parameters(),
            *norm.parameters(),
            *cast(nn.Conv2d, self.out_conv[0]).parameters(),
        )
        running_mean, running_var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        statistics = residual.Normalisation(
            running_mean, running_var, cast(float, norm.momentum), norm.eps, training=norm.training
        )
        return fused.illuminator(image, layers, statistics, self._memory, repeats=_REPEATS)


class Enhanced(NamedTuple):
    """What the networks make of a picture: `(N, 3, H, W)` each, in [EPS, 1]."""

    enhanced: Tensor  # H2: brightened, noise and all
    denoised: Tensor  # H3: brightened and clean, the final picture


class ZeroIG(nn.Module):
    """Noise, illumination and second noise network. A picture is reflectance times illumination.

    The widths are those of the authors' training and published files (their class's own default for the second
    denoiser, 96, is used by none of them).
    """

    def __init__(self, *, denoise_1: int = 48, enhance: int = 64, denoise_2: int = 48) -> None:
        super().__init__()
        buffers = Buffers()  # pictures of 48 channels and of 64 take each other's place
        self.enhance = Illuminator(enhance, buffers)
        self.denoise_1 = Denoiser(3, denoise_1, buffers)
        self.denoise_2 = Denoiser(6, denoise_2, buffers)

    def forward(self, image: Tensor) -> Enhanced:
        """Enhance RGB `(N, 3, H, W)` in [0, 1]. In eval mode every output pixel depends on HALO pixels around it."""
        # Where it is a half precision, noise and light are computed in it, and pictures stay finer.
        own = self.denoise_1.conv1.weight.dtype
        lifted = image + EPS
        clean = (lifted - self.denoise_1(lifted.to(own))).clamp(EPS, 1.0)
        light = self.enhance(clean.to(own))
        enhanced = (lifted / light).clamp(EPS, 1.0)
        both = torch.cat((enhanced, light), dim=1)
        denoised = (both - self.denoise_2(both.to(own))).clamp(EPS, 1.0)[:, :3]
        return Enhanced(enhanced, denoised)


def new_network(seed: int) -> ZeroIG:
    """Build a network with the initial weights of a seed, which are the same whatever other threads build."""
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ZeroIG()


def load_network(tensors: Mapping[str, Tensor]) -> ZeroIG:
    """Build the network that a state dict was saved from: widths read off the shapes, in its dtype, eval mode.

    Published files repeat the shared block as `enhance.blocks.0..2.*`; equal copies are accepted, others refused.

    Raises:
        WeightsError: names or shapes do not fit; two of each are named.
    """
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(_REPEATED)}
    for name in tensors.keys() - own.keys():
        original = own.get("enhance.conv." + name.removeprefix(_REPEATED).partition(".")[2])
        if original is None or not torch.equal(tensors[name], original):
            raise WeightsError(f"the weights are not ZERO-IG's: {name} differs from the block it should repeat")
    first = own.get("denoise_1.conv1.weight", torch.empty(()))
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        network = ZeroIG(
            denoise_1=_width(own, "denoise_1.conv1.weight", usual=48),
            enhance=_width(own, "enhance.in_conv.0.weight", usual=64),
            denoise_2=_width(own, "denoise_2.conv1.weight", usual=48),
        ).to(first.dtype if first.is_floating_point() else torch.float32)
    load_strict(network, own, described_as="the file, read as ZERO-IG,")
    return network.eval()


def _width(tensors: Mapping[str, Tensor], name: str, *, usual: int) -> int:
    # Where the tensor is absent or odd, the usual width lets `load_strict` tell what does not fit.
    weight = tensors.get(name)
    return usual if weight is None or weight.ndim != 4 else min(max(weight.shape[0], 1), 1024)
