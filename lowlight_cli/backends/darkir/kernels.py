"""DarkIR's slow steps on a CUDA GPU, written as kernels.

- cuDNN has no quick depthwise kernel for dilated, channels-last pictures, and torch's layer norm gives each pixel's few
  channels a whole block of threads. Measured on an H200, 64 channels of 1920x1088 in bf16: 8.5 ms for one dilated
  convolution where reading and writing takes 0.13, and 2.3 ms for the norm; together they were two thirds of a frame.
- What is done to a spectrum between the two transforms is ten passes over it, two of them matrix products.
- From pixels to planes and back, torch copies one number at a time, far apart in memory.
- The average of each channel makes torch read eight bytes where it needs sixteen.

Triton comes with torch's CUDA builds for Linux, and builds a little C code when it is first used. Where it is absent or
cannot, `prepare` finds that out, `is_quick_for` says so, and torch's own steps serve.
"""

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from lowlight_cli.device import is_out_of_memory

logger = logging.getLogger(__name__)

MOST_TAPS: Final = 3
_NUMBERS: Final = 2048  # pixels times channels that a program works on at once
_RUN: Final = 32  # pixels, at least, that a program reads or writes next to each other in a plane
_MOST_ROWS: Final = 65_535  # of a CUDA grid's second axis
_SHARES: Final = 528  # of a picture that are averaged beside each other: four for each multiprocessor of a large card
_MOST_FILTERED: Final = 128  # channels, as weights must fit beside the pixels
_FILTERED: Final = 4096  # frequencies times channels that a program filters at once
_HIDDEN_UNITS: Final = 64  # that it computes at a time
_RUNS_ON: Final[dict[int, bool]] = {}  # by the number of the device


class Tap(NamedTuple):
    """A 3x3 depthwise convolution: its dilation, and whether it reads each channel's neighbour in its pair instead."""

    dilation: int
    swapped: bool = False


def prepare(device: torch.device) -> None:
    """Find out whether the kernels run on a CUDA device: `is_quick_for` says no before. Raises torch.OutOfMemoryError.

    Where they do not, a warning says why, once: torch's own steps then take four times as long.
    """
    if device.type != "cuda" or device.index in _RUNS_ON:
        return
    try:
        _try_all(device)
    except Exception as error:  # no Triton, no C compiler, no Python headers, a card too old: all end here
        if is_out_of_memory(error):
            raise
        logger.warning("torch's own steps serve on %s, four times as slow, because Triton fails: %s", device, error)
        _RUNS_ON[device.index] = False
    else:
        _RUNS_ON[device.index] = True


def is_quick_for(x: Tensor) -> bool:
    """Tell whether the kernels here serve `x` `(N, C, H, W)`."""
    if not x.is_cuda or x.dtype == torch.float64 or x.shape[-2] > _MOST_ROWS:
        return False
    return _RUNS_ON.get(x.device.index, False)


def _try_all(device: torch.device) -> None:
    """Run every kernel once, on a few numbers; raises whatever goes wrong."""
    x = torch.ones(1, 4, 1, 1, device=device)
    planes = norm_planes(x, x.flatten(), x.flatten(), 1e-6)
    add_product(norm(x, x.flatten(), x.flatten(), 1e-6, dtype=torch.float32), planes)
    taps = [Tap(1), Tap(1, swapped=True)]
    mean(depthwise(x, x.new_ones(18, 4), x.flatten(), taps, gated=True))
    matrix = x.new_ones(_MOST_FILTERED, _MOST_FILTERED + 1)
    spectrum = x.new_ones(_MOST_FILTERED, 1, 1, dtype=torch.complex64)
    filter_spectrum(spectrum, filter_weights(matrix, matrix), tiny=0.0, floor=0.0, exact=True)
    from lowlight_cli.backends.darkir import operators  # noqa: F401 - torch's compiler knows them from now on


def _kernels() -> Any:
    # Imported when a GPU asks for it: 0.2 seconds that no CPU's start-up needs to wait for.
    from lowlight_cli.backends.darkir import triton_kernels

    return triton_kernels


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, whichever the tensors are on."""
    # The interpreter's tensors are a CPU's.
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _warps(numbers: int) -> int:
    """Return how many groups of 32 threads share so many numbers: 16 or more for each thread."""
    return min(8, max(4, numbers // 512))


def _power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


def tap_weights(weights: Sequence[Tensor]) -> Tensor:
    """Put the kernels `(C, 1, 3, 3)` of several depthwise convolutions into the order that `depthwise` wants."""
    return torch.cat([weight.flatten(1).T for weight in weights]).contiguous()


def depthwise(x: Tensor, weights: Tensor, bias: Tensor, taps: Sequence[Tap], *, gated: bool = False) -> Tensor:
    """Sum up to `MOST_TAPS` depthwise 3x3 convolutions of channels-last `x` `(N, C, H, W)`, zeros around it.

    `weights` `(9 * len(taps), C)` are from `tap_weights`. `gated` multiplies one half of the channels by the other as
    `simple_gate` does: `(N, C / 2, H, W)`; else the shape stays.
    """
    if torch.compiler.is_compiling():
        rates, swaps = [tap.dilation for tap in taps], [tap.swapped for tap in taps]
        summed: Tensor = torch.ops.lowlight.depthwise(x, weights, bias, rates, swaps, gated)
        return summed
    rows = x.permute(0, 2, 3, 1).contiguous()
    count, height, width, channels = rows.shape
    out_channels = channels // 2 if gated else channels
    result = rows.new_empty(count, height, width, out_channels)
    block_c = min(64, _power_of_2(out_channels))
    # Convolutions that read the same neighbourhood win by larger blocks, which share more of it; a single one loses.
    numbers = _NUMBERS * (2 if len(taps) > 1 else 1)
    block_w = max(1, numbers // block_c // (2 if gated else 1))
    grid = (math.ceil(width / block_w) * math.ceil(out_channels / block_c), height, count)
    padded = [*taps, *[Tap(0)] * (MOST_TAPS - len(taps))]
    with _current(x.device):
        _kernels().depthwise_kernel[grid](
            rows, weights, bias, result, height, width, channels, out_channels,
            D0=padded[0].dilation, D1=padded[1].dilation, D2=padded[2].dilation,
            S0=padded[0].swapped, S1=padded[1].swapped, S2=padded[2].swapped,
            GATED=gated, BLOCK_W=block_w, BLOCK_C=block_c,
        )  # fmt: skip
    return result.permute(0, 3, 1, 2)


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, dtype: torch.dtype) -> Tensor:
    """Normalise channels-last `x` `(N, C, H, W)` over its channels; same shape, in `dtype`."""
    if torch.compiler.is_compiling():
        normal: Tensor = torch.ops.lowlight.norm(x, weight, bias, eps, dtype)
        return normal
    rows = x.permute(0, 2, 3, 1).contiguous()
    result = torch.empty_like(rows, dtype=dtype)
    _normalise(rows, weight, bias, eps, result, as_planes=False)
    return result.permute(0, 3, 1, 2)


def norm_planes(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise one channels-last picture `(1, C, H, W)` over its channels, into float32 planes `(C, H, W)`."""
    if torch.compiler.is_compiling():
        normal: Tensor = torch.ops.lowlight.norm_planes(x, weight, bias, eps)
        return normal
    planes = torch.empty(x.shape[1:], device=x.device)
    _normalise(x.permute(0, 2, 3, 1).contiguous(), weight, bias, eps, planes, as_planes=True)
    return planes


def _normalise(rows: Tensor, weight: Tensor, bias: Tensor, eps: float, result: Tensor, *, as_planes: bool) -> None:
    channels, pixels = rows.shape[-1], rows.numel() // rows.shape[-1]
    block_c = _power_of_2(channels)
    block_p = max(_RUN if as_planes else 1, _NUMBERS // block_c)
    with _current(rows.device):
        _kernels().norm_kernel[(math.ceil(pixels / block_p),)](
            rows, weight, bias, result, pixels, channels, eps,
            PLANES=as_planes, BLOCK_P=block_p, BLOCK_C=block_c, num_warps=_warps(block_p * block_c),
        )  # fmt: skip


def add_product(x: Tensor, planes: Tensor, *, in_place: bool = True) -> Tensor:
    """Return x + x * planes for one channels-last picture `(1, C, H, W)` and float32 planes `(C, H, W)`."""
    if torch.compiler.is_compiling():
        total: Tensor = torch.ops.lowlight.add_product(x, planes)
        return total
    rows = x.permute(0, 2, 3, 1).contiguous()  # of what is contiguous already, this is no copy
    result = rows if in_place else torch.empty_like(rows)
    channels, pixels = rows.shape[-1], rows.numel() // rows.shape[-1]
    block_c = _power_of_2(channels)
    block_p = max(_RUN, _NUMBERS // block_c)
    with _current(x.device):
        _kernels().product_kernel[(math.ceil(pixels / block_p),)](
            rows, planes.contiguous(), result, pixels, channels,
            BLOCK_P=block_p, BLOCK_C=block_c, num_warps=_warps(block_p * block_c),
        )  # fmt: skip
    return result.permute(0, 3, 1, 2)


def mean(x: Tensor) -> Tensor:
    """Average each channel of channels-last `(N, C, H, W)`: `(N, C, 1, 1)`, summed in float32."""
    if torch.compiler.is_compiling():
        averages: Tensor = torch.ops.lowlight.mean(x)
        return averages
    rows = x.permute(0, 2, 3, 1).contiguous()
    count, channels, pixels = len(rows), rows.shape[-1], rows.shape[1] * rows.shape[2]
    block_c = _power_of_2(channels)
    block_p = max(1, _NUMBERS // block_c)
    share = math.ceil(pixels / _SHARES / block_p) * block_p
    shares = math.ceil(pixels / share)
    sums = torch.empty(count, shares, channels, device=x.device)
    with _current(x.device):
        _kernels().mean_kernel[(shares, count)](rows, sums, pixels, channels, share, BLOCK_P=block_p, BLOCK_C=block_c)
    return (sums.sum(1) / pixels).to(x.dtype)[:, :, None, None]


def filters(channels: int) -> bool:
    """Tell whether `filter_spectrum` serves so many channels."""
    return channels <= _MOST_FILTERED


def filter_weights(into: Tensor, outof: Tensor) -> Tensor:
    """Put two layers with a last column of biases, `(hidden, C + 1)` and `(C, hidden + 1)`, in one row of numbers."""
    return torch.cat([into[:, :-1].flatten(), outof[:, :-1].flatten(), into[:, -1], outof[:, -1]])


def filter_spectrum(
    spectrum: Tensor, weights: Tensor, *, tiny: float, floor: float, exact: bool, in_place: bool = True
) -> Tensor:
    """Return X times outof(leaky(into(|X|))) / |X| for a spectrum X, contiguous complex64 `(C, H, F)`.

    |X| is sqrt(|X + tiny|^2 + floor^2); leaky is LeakyReLU with slope 0.1; `weights` are from `filter_weights`. Unless
    `exact`, the products are of TF32's numbers, whose 10 bits are still more than a half precision has.
    """
    if torch.compiler.is_compiling():
        filtered: Tensor = torch.ops.lowlight.filter_spectrum(spectrum, weights, tiny, floor, exact)
        return filtered
    result = spectrum if in_place else torch.empty_like(spectrum)
    given, made = (torch.view_as_real(complex_).view(torch.int64) for complex_ in (spectrum, result))
    channels, pixels = len(spectrum), spectrum[0].numel()
    hidden = (len(weights) - channels) // (2 * channels + 1)
    block_c = max(16, _power_of_2(channels))
    block_p = max(16, _FILTERED // block_c)
    with _current(spectrum.device):
        _kernels().filter_kernel[(math.ceil(pixels / block_p),)](
            given, made, weights, pixels, channels, hidden, tiny, floor**2,
            # Three products of shortened numbers make one that is as exact as float32.
            PRECISION="tf32x3" if exact else "tf32",
            # Loads ahead of their use would take room from programs beside this one.
            BLOCK_P=block_p, BLOCK_C=block_c, BLOCK_H=_HIDDEN_UNITS, num_stages=1,
        )  # fmt: skip
    return result
