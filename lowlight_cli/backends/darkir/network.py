"""The DarkIR network and its cross-scale-fusion variant, as trained.

Source: Feijoo et al., *DarkIR: Robust Low-Light Image Restoration*, CVPR 2025 (arXiv 2412.13443); the fusion of
skips is the CSF variant of DarkIR. Attribute names are those of the published checkpoints. `inference.fold` turns a
trained network into the form that pictures run through.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.Module):
    """Normalise over the channels at each pixel: `(N, C, H, W)` in and out, biased variance."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

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
        return self.branch(x)  # type: ignore[no-any-return]


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
                scale = self.process1.to(kind)(magnitude) / magnitude
                filtered = spectrum * scale
            else:
                magnitude = spectrum.abs()
                silent = magnitude == 0
                wanted = self.process1.to(kind)(magnitude)
                scale = wanted / magnitude.masked_fill(silent, 1.0)
                filtered = torch.where(silent, wanted.to(spectrum.dtype), spectrum * scale)
            return torch.fft.irfft2(filtered, s=x.shape[-2:]).to(x.dtype)


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
        gated = simple_gate(torch.stack([branch(wide) for branch in self.branches]).sum(0))
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
        gated = simple_gate(torch.stack([branch(wide) for branch in self.branches]).sum(0))
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
        return torch.lerp(up, skip, gate)


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


class DarkIR(nn.Module):
    """DarkIR: an encoder that lifts the light in the frequency domain and a decoder that removes blur and noise.

    `forward(image)` takes RGB `(N, 3, H, W)` in [0, 1], any size, and returns the same shape, not clamped;
    `forward(image, side_loss=True)` returns `(side, out)`, `side` being the deep-supervision picture at
    1/2^n of the padded size, n = len(enc_blk_nums).

    Published sizes: width 32 (DarkIR-m), width 64 (DarkIR-l). Beyond the paper: `use_csf` and `csf_reduction` select
    the cross-scale-fusion variant; `encoder_dilations` puts dilated branches in the encoder too; `extra_channels`
    more input channels condition the network without being part of the picture; `direction_floor` as in `FreMLP`.
    """

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 32,
        middle_blk_num_enc: int = 2,
        middle_blk_num_dec: int = 2,
        enc_blk_nums: Sequence[int] = (1, 2, 3),
        dec_blk_nums: Sequence[int] = (3, 1, 1),
        dilations: Sequence[int] = (1, 4, 9),
        extra_depth_wise: bool = True,
        *,
        use_csf: bool = False,
        csf_reduction: int = 4,
        encoder_dilations: Sequence[int] = (1,),
        extra_channels: int = 0,
        direction_floor: float = 0.0,
    ) -> None:
        super().__init__()
        if len(enc_blk_nums) != len(dec_blk_nums):
            raise ValueError("the encoder and the decoder need the same number of stages")

        def encoder(channels: int, count: int) -> Stage:
            return Stage(
                [
                    EBlock(
                        channels,
                        encoder_dilations,
                        extra_depth_wise=extra_depth_wise,
                        direction_floor=direction_floor,
                    )
                    for _ in range(count)
                ]
            )

        def decoder(channels: int, count: int) -> Stage:
            blocks = [DBlock(channels, dilations, extra_depth_wise=extra_depth_wise) for _ in range(count)]
            return Stage(blocks)

        widths = [width * 2**level for level in range(len(enc_blk_nums) + 1)]
        deepest = widths[-1]
        self.intro = nn.Conv2d(img_channel + extra_channels, width, 3, padding=1)
        self.encoders = nn.ModuleList(encoder(c, n) for c, n in zip(widths, enc_blk_nums, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths[:-1])
        self.middle_blks_enc = encoder(deepest, middle_blk_num_enc)
        self.middle_blks_dec = decoder(deepest, middle_blk_num_dec)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 2 * c, 1, bias=False), nn.PixelShuffle(2)) for c in reversed(widths[1:])
        )
        up_widths = widths[-2::-1]
        self.csf_blocks = nn.ModuleList(CrossScaleFusion(c, csf_reduction) for c in up_widths if use_csf)
        self.decoders = nn.ModuleList(decoder(c, n) for c, n in zip(up_widths, dec_blk_nums, strict=True))
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)
        self.side_out = nn.Conv2d(deepest, img_channel, 3, padding=1)
        self.img_channel = img_channel
        self.multiple_of: int = 2 ** len(enc_blk_nums)

    def forward(self, image: Tensor, side_loss: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        padded = pad_to_multiple(image, self.multiple_of)
        x = self.intro(padded)
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        light = self.middle_blks_enc(x)
        x = self.middle_blks_dec(light) + light
        for level, (up, decoder) in enumerate(zip(self.ups, self.decoders, strict=True)):
            x, skip = up(x), skips.pop()
            x = decoder(self.csf_blocks[level](skip, x) if self.csf_blocks else x + skip)
        out = self.ending(x) + padded[:, : self.img_channel]
        out = out[..., : image.shape[-2], : image.shape[-1]]
        return (self.side_out(light), out) if side_loss else out
