"""The kernels that `kernels` launches, in Triton's own Python. Importing this needs Triton."""

import os

import triton
import triton.language as tl

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # what it does anyhow; 3.9 warns where nobody has said so


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
def depthwise_kernel(
    x, weights, bias, result, height, width, channels, out_channels,
    D0: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
    S0: tl.constexpr, S1: tl.constexpr, S2: tl.constexpr,
    GATED: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """`kernels.depthwise`: a program for `BLOCK_W` pixels of a row and `BLOCK_C` channels of a picture."""
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
def norm_kernel(
    x, weight, bias, result, pixels, channels, eps,
    PLANES: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """`kernels.norm` and `norm_planes`: a program for `BLOCK_P` pixels and all their channels."""
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
    if PLANES:
        place = channel[None, :].to(tl.int64) * pixels + pixel[:, None]
    tl.store(result + place, normal.to(result.dtype.element_ty), mask=exists)


@triton.jit
def mean_kernel(
    x, result, pixels, channels, share,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """`kernels.mean`: the sum of one share of a picture's pixels, `share` of them, for each channel."""
    channel = tl.arange(0, BLOCK_C)
    inside = channel < channels
    first = tl.program_id(0).to(tl.int64) * share
    x += tl.program_id(1).to(tl.int64) * pixels * channels
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for start in range(0, share, BLOCK_P):
        within = start + tl.arange(0, BLOCK_P)
        exists = (within < share) & (first + within < pixels)
        place = (first + within)[:, None] * channels + channel[None, :]
        total += tl.load(x + place, mask=exists[:, None] & inside[None, :], other=0.0).to(tl.float32)
    at = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(result + at * channels + channel, tl.sum(total, 0), mask=inside)


@triton.jit
def product_kernel(
    x, planes, result, pixels, channels,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """`kernels.add_product`: a program for `BLOCK_P` pixels and all their channels."""
    pixel = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.arange(0, BLOCK_C)
    exists = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    place = pixel[:, None] * channels + channel[None, :]
    factor = tl.load(planes + channel[None, :].to(tl.int64) * pixels + pixel[:, None], mask=exists, other=0.0)
    value = tl.load(x + place, mask=exists, other=0.0).to(tl.float32)
    tl.store(result + place, (value + value * factor).to(result.dtype.element_ty), mask=exists)


@triton.jit
def filter_kernel(
    spectrum, result, weights, pixels, channels, hidden, tiny, floor_squared,
    PRECISION: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """`kernels.filter_spectrum`: a program for `BLOCK_P` frequencies and all their channels.

    A complex number is read and written as one integer of 64 bits, its real part in the lower half.
    """
    pixel = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.arange(0, BLOCK_C)
    inside = channel < channels
    exists = (pixel < pixels)[:, None] & inside[None, :]
    place = channel[None, :].to(tl.int64) * pixels + pixel[:, None]
    both = tl.load(spectrum + place, mask=exists, other=0)
    real = (both & 0xFFFFFFFF).to(tl.int32).to(tl.float32, bitcast=True) + tiny
    imaginary = (both >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    magnitude = tl.sqrt(real * real + imaginary * imaginary + floor_squared)
    layer = tl.where(inside[None, :], magnitude, 0.0)
    outof = weights + hidden * channels
    biases = outof + hidden * channels
    shift = tl.load(biases + hidden + channel, mask=inside, other=0.0)
    gain = tl.zeros((BLOCK_P, BLOCK_C), tl.float32) + shift[None, :]
    for start in range(0, hidden, BLOCK_H):
        unit = start + tl.arange(0, BLOCK_H)
        known = unit < hidden
        wanted = inside[:, None] & known[None, :]
        weight = tl.load(weights + unit[None, :] * channels + channel[:, None], mask=wanted, other=0.0)
        bias = tl.load(biases + unit, mask=known, other=0.0)
        inner = tl.dot(layer, weight, input_precision=PRECISION) + bias[None, :]
        inner = tl.where(inner > 0, inner, 0.1 * inner)
        wanted = known[:, None] & inside[None, :]
        weight = tl.load(outof + channel[None, :] * hidden + unit[:, None], mask=wanted, other=0.0)
        gain = tl.dot(inner, weight, gain, input_precision=PRECISION)
    gain = gain / magnitude
    low = (real * gain).to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    high = (imaginary * gain).to(tl.int32, bitcast=True).to(tl.int64) << 32
    tl.store(result + place, low | high, mask=exists)
