"""Dilated depthwise convolution whose gradient is quick on a CPU.

oneDNN has no quick gradient for dilated depthwise kernels: in a training step of the embedded network they took half
the time. A convolution of dilation d never mixes pixels whose places differ modulo d: it is d x d ordinary
convolutions of the picture's phases, whose gradient is quick. Measured on one thread of an AVX2 processor, forward
and backward, 8 x 48 channels x 48 x 48, d = 9: 15 ms instead of 109; d = 4: 6 instead of 23.
"""

import torch.nn.functional as F
from torch import Tensor


def dilated_depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Convolve `(N, C, H, W)` with one 3x3 kernel `(C, 1, 3, 3)` per channel, zeros around it; same shape."""
    if dilation == 1:
        return F.conv2d(x, weight, bias, padding=1, groups=x.shape[1])
    if min(x.shape[-2:]) <= 2 * dilation:  # phases of 2 x 2 pixels or less: the few taps that meet the picture
        return _tap_by_tap(x, weight, bias, dilation)
    return _phase_by_phase(x, weight, bias, dilation)


def _phase_by_phase(x: Tensor, weight: Tensor, bias: Tensor | None, d: int) -> Tensor:
    batch, channels, height, width = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -width % d, 0, -height % d))
    rows, columns = padded.shape[1] // d, padded.shape[2] // d
    # (n, row, row phase, column, column phase, c) -> the phases join the batch; channels stay last in memory.
    phases = padded.reshape(batch, rows, d, columns, d, channels).permute(2, 4, 0, 1, 3, 5)
    folded = phases.reshape(d * d * batch, rows, columns, channels).permute(0, 3, 1, 2)
    result = F.conv2d(folded, weight, bias, padding=1, groups=channels).permute(0, 2, 3, 1)
    unfolded = result.reshape(d, d, batch, rows, columns, channels).permute(2, 3, 0, 4, 1, 5)
    whole = unfolded.reshape(batch, rows * d, columns * d, channels)
    return whole[:, :height, :width].permute(0, 3, 1, 2)


def _tap_by_tap(x: Tensor, weight: Tensor, bias: Tensor | None, d: int) -> Tensor:
    height, width = x.shape[-2:]
    total = x * weight[:, 0, 1, 1, None, None]
    if bias is not None:
        total = total + bias[:, None, None]
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            down, right = row * d, column * d
            if (row, column) == (0, 0) or abs(down) >= height or abs(right) >= width:
                continue
            seen = x[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
            weighed = seen * weight[:, 0, row + 1, column + 1, None, None]
            around = (max(-right, 0), max(right, 0), max(-down, 0), max(down, 0))
            total = total + F.pad(weighed, around)
    return total
