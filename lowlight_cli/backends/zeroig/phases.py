"""The layout in which hidden pictures lie while ZERO-IG is fitted on a CPU: their columns dealt out to four phases.

A picture `(N, C, H, W)` becomes `(N, H, 4, T, C)`: column w lies in phase w % 4 at place w // 4, a pixel's channels
side by side. Where W is no multiple of four, the last of the T places lies beyond the picture in some phases; it holds
zeros, and whoever writes such a picture sees to that.

What it is for: sums of columns, as `winograd` forms them, are sums of long runs of memory, and so are the shifted
copies of which a picture of few channels makes its patches.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

PHASES = 4
_TAPS = 3  # of a convolution, in both directions


def places(width: int) -> int:
    """Return T, the number of columns in each phase of a picture `width` pixels wide."""
    return -(-width // PHASES)


def to_phases(image: Tensor) -> Tensor:
    """Deal out the columns of `(N, C, H, W)`: `(N, H, 4, T, C)`, contiguous."""
    width = image.shape[-1]
    columns = F.pad(image, (0, PHASES * places(width) - width)).contiguous()
    return columns.view(*image.shape[:-1], -1, PHASES).permute(0, 2, 4, 3, 1).contiguous()


def to_picture(phased: Tensor, width: int) -> Tensor:
    """Put the columns of `(N, H, 4, T, C)` in their order again: `(N, C, H, width)`, channels-last."""
    columns = phased.transpose(2, 3).flatten(2, 3)[:, :, :width]
    return columns.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def clear_beyond_(phased: Tensor, width: int) -> Tensor:
    """Put zeros where no column of a picture `width` pixels wide lies: in pictures or in rows of one."""
    if width % PHASES:
        phased[..., width % PHASES :, -1, :] = 0
    return phased


def windows(image: Tensor) -> Tensor:
    """Return what `patches` cuts from: `(N, C, H + 2, 6, T)`, a tile's four columns, its neighbours, a zero border."""
    width = image.shape[-1]
    padded = F.pad(image, (1, PHASES * places(width) - width + 1, 1, 1))
    return padded.unfold(-1, PHASES + 2, PHASES).transpose(-1, -2).contiguous()


def patches(cut: Tensor, rows: slice) -> Tensor:
    """Return the 3x3 patches in `rows` of one of the `windows`: `(9 C, rows * 4 T)`, pixels in the order of phases."""
    count = rows.stop - rows.start
    taps = cut[:, rows.start : rows.stop + 2].unfold(1, count, 1).unfold(2, PHASES, 1)  # (C, 3, 3, T, rows, 4)
    return taps.permute(0, 1, 2, 4, 5, 3).reshape(len(cut) * _TAPS * _TAPS, -1)


def add_patches(cut: Tensor, rows: slice, added: Tensor) -> None:
    """Add 3x3 patches, as `patches` returns them, to where they came from."""
    count = rows.stop - rows.start
    shares = added.view(len(cut), _TAPS, _TAPS, count, PHASES, -1)
    for down in range(_TAPS):
        for right in range(_TAPS):
            cut[:, rows.start + down : rows.stop + down, right : right + PHASES] += shares[:, down, right]


def sum_windows(cut: Tensor, width: int) -> Tensor:
    """Return the picture `(N, C, H, width)` whose pixels are the sums of theirs in all `windows`."""
    number, channels, height, _, count = cut.shape
    padded = cut.new_zeros(number, channels, height, count + 1, PHASES)
    padded[..., :-1, :] = cut[..., :PHASES, :].transpose(-1, -2)
    padded[..., 1:, :2] += cut[..., PHASES:, :].transpose(-1, -2)
    return padded.flatten(-2)[..., 1:-1, 1 : width + 1]
