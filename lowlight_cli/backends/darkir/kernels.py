"""DarkIR's two slow steps on a CUDA GPU, written as kernels: depthwise convolutions and the norm over channels.

cuDNN has no quick depthwise kernel for dilated, channels-last pictures, and torch's layer norm gives each pixel's few
channels a whole block of threads. Measured on an H200, 64 channels of 1920x1088 in bf16: 8.5 ms for one dilated
convolution where reading and writing takes 0.13, and 2.3 ms for the norm; together they were two thirds of a frame.

Triton comes with torch's CUDA builds for Linux. Where it is absent `is_quick_for` says so and torch's own steps serve.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # a CPU's torch, or one for Windows
    triton = None

HAS_TRITON: Final = triton is not None

MOST_TAPS: Final = 3
_PIXELS: Final = 2048  # numbers that a program works on at once: pixels times channels


class Tap(NamedTuple):
    """A 3x3 depthwise convolution: its dilation, and whether it reads each channel's neighbour in its pair instead."""

    dilation: int
    swapped: bool = False


def is_quick_for(x: Tensor) -> bool:
    """Tell whether the kernels here serve `x`; torch's compiler is left to write its own."""
    return HAS_TRITON and x.is_cuda and x.dtype != torch.float64 and not torch.compiler.is_compiling()


def tap_weights(weights: Sequence[Tensor]) -> Tensor:
    """Put the kernels `(C, 1, 3, 3)` of several depthwise convolutions into the order that `depthwise` wants."""
    return torch.cat([weight.flatten(1).T for weight in weights]).contiguous()


def depthwise(x: Tensor, weights: Tensor, bias: Tensor, taps: Sequence[Tap], *, gated: bool = False) -> Tensor:
    """Sum up to `MOST_TAPS` depthwise 3x3 convolutions of channels-last `x` `(N, C, H, W)`, zeros around it.

    `weights` `(9 * len(taps), C)` are from `tap_weights`. `gated` multiplies one half of the channels by the other as
    `simple_gate` does: `(N, C / 2, H, W)`; else the shape stays.
    """
    rows = x.permute(0, 2, 3, 1).contiguous()
    count, height, width, channels = rows.shape
    out_channels = channels // 2 if gated else channels
    result = rows.new_empty(count, height, width, out_channels)
    block_c = min(64, triton.next_power_of_2(out_channels))
    block_w = max(1, _PIXELS // block_c // (2 if gated else 1))
    grid = (math.ceil(width / block_w) * math.ceil(out_channels / block_c), height, count)
    padded = [*taps, *[Tap(0)] * (MOST_TAPS - len(taps))]
    _depthwise_kernel[grid](
        rows, weights, bias, result, height, width, channels, out_channels,
        D0=padded[0].dilation, D1=padded[1].dilation, D2=padded[2].dilation,
        S0=padded[0].swapped, S1=padded[1].swapped, S2=padded[2].swapped,
        GATED=gated, BLOCK_W=block_w, BLOCK_C=block_c,
    )  # fmt: skip
    return result.permute(0, 3, 1, 2)


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, dtype: torch.dtype) -> Tensor:
    """Normalise channels-last `x` `(N, C, H, W)` over its channels; same shape, in `dtype`."""
    rows = x.permute(0, 2, 3, 1).contiguous()
    channels, pixels = rows.shape[-1], rows.numel() // rows.shape[-1]
    result = torch.empty_like(rows, dtype=dtype)
    block_c = triton.next_power_of_2(channels)
    block_p = max(1, _PIXELS // block_c)
    _norm_kernel[(math.ceil(pixels / block_p),)](
        rows, weight, bias, result, pixels, channels, eps, BLOCK_P=block_p, BLOCK_C=block_c
    )
    return result.permute(0, 3, 1, 2)


if HAS_TRITON:

    @triton.jit
    def _convolved(
        x, weights, total, row, columns, channel, inside, height, width, channels,
        FIRST: tl.constexpr, DILATION: tl.constexpr, SWAPPED: tl.constexpr,
    ):  # fmt: skip
        """Add one 3x3 convolution, whose weights begin at row `FIRST`, to `total` `(columns, channels)`."""
        for ky in range(3):  # unrolled, all 27 loads at once would not fit the registers
            at_row = row + (ky - 1) * DILATION
            end = tl.where((at_row >= 0) & (at_row < height), width, 0)
            line = x + at_row.to(tl.int64) * width * channels
            for kx in tl.static_range(3):
                at_column = columns + (kx - 1) * DILATION
                exists = (at_column >= 0) & (at_column < end)
                place = at_column[:, None] * channels + channel[None, :]
                value = tl.load(line + place, mask=exists[:, None] & inside[None, :], other=0.0)
                if SWAPPED:  # in registers: neighbours read one by one would be slow
                    even, odd = tl.split(value.reshape(value.shape[0], value.shape[1] // 2, 2))
                    value = tl.join(odd, even).reshape(value.shape[0], value.shape[1])
                weight = tl.load(weights + (FIRST + ky * 3 + kx) * channels + channel, mask=inside, other=0.0)
                total += value.to(tl.float32) * weight.to(tl.float32)[None, :]
        return total

    @triton.jit
    def _summed(
        x, weights, bias, row, columns, channel, inside, height, width, channels,
        D0: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
        S0: tl.constexpr, S1: tl.constexpr, S2: tl.constexpr,
        BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
    ):  # fmt: skip
        """All convolutions of a block of pixels and channels."""
        start = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
        total = tl.zeros((BLOCK_W, BLOCK_C), tl.float32) + start[None, :]
        total = _convolved(x, weights, total, row, columns, channel, inside, height, width, channels, 0, D0, S0)
        if D1 > 0:
            total = _convolved(x, weights, total, row, columns, channel, inside, height, width, channels, 9, D1, S1)
        if D2 > 0:
            total = _convolved(x, weights, total, row, columns, channel, inside, height, width, channels, 18, D2, S2)
        return total

    @triton.jit
    def _depthwise_kernel(
        x, weights, bias, result, height, width, channels, out_channels,
        D0: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
        S0: tl.constexpr, S1: tl.constexpr, S2: tl.constexpr,
        GATED: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
    ):  # fmt: skip
        blocks = tl.cdiv(width, BLOCK_W)
        columns = tl.program_id(0) % blocks * BLOCK_W + tl.arange(0, BLOCK_W)
        channel = tl.program_id(0) // blocks * BLOCK_C + tl.arange(0, BLOCK_C)
        row = tl.program_id(1)
        picture = tl.program_id(2).to(tl.int64) * height * width
        x += picture * channels
        inside = channel < out_channels
        total = _summed(
            x, weights, bias, row, columns, channel, inside, height, width, channels,
            D0, D1, D2, S0, S1, S2, BLOCK_W, BLOCK_C,
        )  # fmt: skip
        if GATED:
            total *= _summed(
                x, weights, bias, row, columns, channel + out_channels, inside, height, width, channels,
                D0, D1, D2, S0, S1, S2, BLOCK_W, BLOCK_C,
            )  # fmt: skip
        line = result + (picture + row.to(tl.int64) * width) * out_channels
        place = columns[:, None] * out_channels + channel[None, :]
        tl.store(line + place, total.to(result.dtype.element_ty), mask=(columns < width)[:, None] & inside[None, :])

    @triton.jit
    def _norm_kernel(
        x, weight, bias, result, pixels, channels, eps,
        BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
    ):  # fmt: skip
        pixel = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
        channel = tl.arange(0, BLOCK_C)
        inside = channel < channels
        place = pixel[:, None] * channels + channel[None, :]
        exists = (pixel < pixels)[:, None] & inside[None, :]
        value = tl.load(x + place, mask=exists, other=0.0).to(tl.float32)
        mean = tl.sum(value, 1) / channels
        away = tl.where(inside[None, :], value - mean[:, None], 0.0)
        scale = 1.0 / tl.sqrt(tl.sum(away * away, 1) / channels + eps)
        factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
        shift = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
        normal = away * scale[:, None] * factor[None, :] + shift[None, :]
        tl.store(result + place, normal.to(result.dtype.element_ty), mask=exists)
