"""The three small networks of ZERO-IG, and how a state dict becomes them.

Source: Shi et al., "ZERO-IG: Zero-Shot Illumination-Guided Joint Denoising and Adaptive Enhancement for Low-Light
Images", CVPR 2024. Attribute names are the published checkpoints' own. Images are RGB floats in [0, 1], NCHW; all
convolutions keep height and width (zero padding), so any size from 1x1 works.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_cli.errors import WeightsError

EPS = 1e-4
HALO = 9  # 2 (denoise_1) + 5 (enhance) + 2 (denoise_2) pixels: nothing reaches further
_REPEATED = "enhance.blocks."


class Denoiser(nn.Module):
    """Predicts the noise in a `(N, channels, H, W)` image: two 3x3 convolutions and a 1x1."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv3 = nn.Conv2d(width, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the noise, in the shape of `image`."""
        hidden = F.leaky_relu_(self.conv1(image), 0.2)
        hidden = F.leaky_relu_(self.conv2(hidden), 0.2)
        return cast(Tensor, self.conv3(hidden))


class Illuminator(nn.Module):
    """Estimates the illumination map of a `(N, 3, H, W)` image; one residual block is applied three times."""

    def __init__(self, width: int) -> None:
        super().__init__()
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
        hidden = F.relu_(self.in_conv(image))
        for _ in range(3):
            hidden = hidden + F.relu_(self.conv(hidden))
        return torch.sigmoid(self.out_conv(hidden)).clamp(EPS, 1.0)


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
        self.enhance = Illuminator(enhance)
        self.denoise_1 = Denoiser(3, denoise_1)
        self.denoise_2 = Denoiser(6, denoise_2)

    def forward(self, image: Tensor) -> Enhanced:
        """Enhance RGB `(N, 3, H, W)` in [0, 1]. In eval mode every output pixel depends on HALO pixels around it."""
        lifted = image + EPS
        clean = (lifted - self.denoise_1(lifted)).clamp(EPS, 1.0)
        light = self.enhance(clean)
        enhanced = (lifted / light).clamp(EPS, 1.0)
        both = torch.cat((enhanced, light), dim=1)
        denoised = (both - self.denoise_2(both)).clamp(EPS, 1.0)[:, :3]
        return Enhanced(enhanced, denoised)


def load_network(state_dict: Mapping[str, Tensor]) -> ZeroIG:
    """Build the network a state dict was saved from, its widths read from the shapes; in its dtype,
    eval mode, channels-last.

    Published files repeat the shared block as `enhance.blocks.0..2.*`; equal copies are accepted, others refused.
    Raises WeightsError, naming two of the keys that do not fit.
    """
    state = {key: value for key, value in state_dict.items() if not key.startswith(_REPEATED)}
    _refuse_other_copies(state_dict, state)
    widths = {name: _width(state, name) for name in ("denoise_1", "enhance", "denoise_2")}
    network = ZeroIG(**widths).to(state["denoise_1.conv1.weight"].dtype)
    wanted = network.state_dict()
    absent = sorted(wanted.keys() - state.keys())
    unknown = sorted(state.keys() - wanted.keys())
    misshapen = sorted(k for k in wanted.keys() & state.keys() if wanted[k].shape != state[k].shape)
    if wrong := [*absent, *unknown, *misshapen]:
        raise WeightsError(
            f"These weights are not ZERO-IG's: {len(absent)} keys absent, {len(unknown)} unknown, "
            f"{len(misshapen)} of another shape, such as {' and '.join(wrong[:2])}."
        )
    network.load_state_dict(state)
    return network.eval().to(memory_format=torch.channels_last)


def _width(state: Mapping[str, Tensor], name: str) -> int:
    key = f"{name}.in_conv.0.weight" if name == "enhance" else f"{name}.conv1.weight"
    weight = state.get(key)
    if weight is None or weight.ndim != 4 or not 1 <= weight.shape[0] <= 1024:
        other = next(iter(state), "nothing at all")
        raise WeightsError(f"These weights are not ZERO-IG's: no usable {key}, but {other}.")
    return weight.shape[0]


def _refuse_other_copies(state_dict: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    for key in state_dict.keys() - kept.keys():
        original = "enhance.conv." + key.removeprefix(_REPEATED).partition(".")[2]
        if original not in kept or not torch.equal(state_dict[key], kept[original]):
            raise WeightsError(f"These weights are not ZERO-IG's: {key} differs from the shared {original}.")
