"""What DarkIR is built of, as trained: norm, gate, frequency filter, encoder and decoder block, fusion of skips.

Source: Feijoo et al., *DarkIR: Robust Low-Light Image Restoration*, CVPR 2025 (arXiv 2412.13443); the fusion of
skips is the CSF variant of DarkIR. Attribute names are those of the published checkpoints.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowlight_cli.backends.darkir.dilated import dilated_depthwise


class LayerNorm2d(nn.Module):
    """Normalise over the channels at each pixel: `(N, C, H, W)` in and out, biased variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        # In channels-last memory both permutations are free and the native kernel reads each pixel's channels in a row.
        rows = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return rows.permute(0, 3, 1, 2)


def simple_gate(x: Tensor) -> Tensor:
    """Multiply one half of the channels by the other: `(N, 2C, H, W)` -> `(N, C, H, W)`."""
    first, second = x.chunk(2, dim=1)
    return first * second


class Branch(nn.Module):
    """One depthwise 3x3 convolution of a dilated branch."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        conv: nn.Conv2d = self.branch[0]  # type: ignore[assignment]
        dilation = conv.dilation[0]
        if x.is_cpu and conv.weight.requires_grad and torch.is_grad_enabled():
            return dilated_depthwise(x, conv.weight, conv.bias, dilation)
        if dilation <= 8:
            return conv(x)  # type: ignore[no-any-return]
        # oneDNN has no quick depthwise kernel for padding beyond 8 (six times slower): pad first. By `F.pad`, for an
        # exported graph makes eight scatters of what `convolutions.depthwise` writes in place.
        padded = F.pad(x, (dilation, dilation, dilation, dilation))
        return F.conv2d(padded, conv.weight, conv.bias, dilation=dilation, groups=conv.groups)


def _summed(branches: nn.ModuleList, x: Tensor) -> Tensor:
    total: Tensor = branches[0](x)
    for branch in branches[1:]:
        total = total + branch(x)
    return total


def _channel_attention(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))


class FreMLP(nn.Module):
    """Filter the magnitudes of the picture's spectrum across channels and keep the phases.

    With X = rfft2(x): returns irfft2(process1(|X|) * X/|X|), the direction being 1 where X = 0. A `direction_floor` f
    replaces |X| by sqrt(|X|^2 + f^2): on flat features |X| is close to 0, where the gradient of X/|X| has no bound.
    """

    def __init__(self, channels: int, direction_floor: float = 0.0) -> None:
        super().__init__()
        self.process1 = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(2 * channels, channels, 1),
        )
        self.direction_floor = direction_floor

    def forward(self, x: Tensor) -> Tensor:
        # Half precision has no FFT in general: this stretch is always float32 (or float64).
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.fft.rfft2(x.to(kind))
            if self.direction_floor > 0:
                power = torch.view_as_real(spectrum).square().sum(-1)
                magnitude = (power + self.direction_floor**2).sqrt()
                filtered = spectrum * (self._filter(magnitude) / magnitude)
            else:
                magnitude = spectrum.abs()
                silent = magnitude == 0
                wanted = self._filter(magnitude)
                direction = spectrum / magnitude.masked_fill(silent, 1.0)
                filtered = wanted * direction.masked_fill(silent, 1.0)
            restored: Tensor = torch.fft.irfft2(filtered, s=x.shape[-2:])
            return restored.to(x.dtype)

    def _filter(self, magnitude: Tensor) -> Tensor:
        first, gate, last = self.process1
        assert isinstance(first, nn.Conv2d)
        assert isinstance(last, nn.Conv2d)
        assert first.bias is not None
        assert last.bias is not None
        kind = magnitude.dtype
        hidden = gate(F.conv2d(magnitude, first.weight.to(kind), first.bias.to(kind)))
        return F.conv2d(hidden, last.weight.to(kind), last.bias.to(kind))


class EBlock(nn.Module):
    """Encoder block: spatial mixing with channel attention, then the frequency filter that lifts the light."""

    def __init__(
        self, channels: int, dilations: Sequence[int], *, extra_depth_wise: bool, direction_floor: float
    ) -> None:
        super().__init__()
        wide = 2 * channels
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.extra_conv: nn.Module = (
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels) if extra_depth_wise else nn.Identity()
        )
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.branches = nn.ModuleList(Branch(wide, dilation) for dilation in dilations)
        self.sca = _channel_attention(channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm1 = LayerNorm2d(channels)
        self.norm2 = LayerNorm2d(channels)
        self.freq = FreMLP(channels, direction_floor)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.conv1(self.extra_conv(self.norm1(x)))
        gated = simple_gate(_summed(self.branches, wide))
        y = x + self.beta * self.conv3(gated * self.sca(gated))
        return y + self.gamma * (y * self.freq(self.norm2(y)))  # type: ignore[no-any-return]


class DBlock(nn.Module):
    """Decoder block: dilated branches against blur, then a gated feed-forward step."""

    def __init__(self, channels: int, dilations: Sequence[int], *, extra_depth_wise: bool) -> None:
        super().__init__()
        wide = 2 * channels
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.extra_conv: nn.Module = (
            nn.Conv2d(wide, wide, 3, padding=1, groups=channels) if extra_depth_wise else nn.Identity()
        )
        self.branches = nn.ModuleList(Branch(wide, dilation) for dilation in dilations)
        self.sca = _channel_attention(channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.conv4 = nn.Conv2d(channels, wide, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1 = LayerNorm2d(channels)
        self.norm2 = LayerNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.extra_conv(self.conv1(self.norm1(x)))
        gated = simple_gate(_summed(self.branches, wide))
        y = x + self.beta * self.conv3(gated * self.sca(gated))
        return y + self.gamma * self.conv5(simple_gate(self.conv4(self.norm2(y))))  # type: ignore[no-any-return]


class CrossScaleFusion(nn.Module):
    """Weigh the skip against the upsampled features, channel by channel: g*skip + (1-g)*up."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        squeezed = max(channels // reduction, 1)
        self.fuse = nn.Sequential(nn.Conv2d(2 * channels, channels, 1), nn.ReLU())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, skip: Tensor, up: Tensor) -> Tensor:
        gate = self.gate(self.fuse(torch.cat([skip, up], dim=1)))
        return torch.lerp(up.to(skip), skip, gate.to(skip))  # autocast leaves them different, and a lerp takes one


class Stage(nn.Module):
    """A run of blocks at one scale."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.modules_list = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.modules_list(x)  # type: ignore[no-any-return]


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad `(N, C, H, W)` with zeros at the right and bottom to the next multiple."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple))
