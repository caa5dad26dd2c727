"""DarkIR's convolutions outside training, each by the quickest way that torch has for it on a device.

- oneDNN's 1x1 convolution is twice as fast as the one that `conv2d` picks, and its depthwise one has no quick kernel
  for padding beyond 8: zeros are put around the features first.
- A convolution that is added to something is added by oneDNN as it computes it, not in a pass of its own.
- On a CUDA GPU cuBLAS adds the bias as it multiplies, cuDNN in a pass of its own.

Pictures are channels-last `(N, C, H, W)`; weights are those of `torch.nn.Conv2d`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
# What torch.compile makes of a convolution followed by an addition; not a public name, so it may go.
_ONEDNN_ADDS = _ONEDNN and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")


def _is_for_onednn(x: Tensor) -> bool:
    # torch's compiler cannot look into these calls, and makes its own choice anyhow.
    return x.is_cpu and _ONEDNN and x.dtype in (torch.float32, torch.bfloat16) and not torch.compiler.is_compiling()


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 1x1 convolution of `x`."""
    if _is_for_onednn(x):
        return torch.mkldnn_convolution(x, weight, bias, (0, 0), (1, 1), (1, 1), 1)
    if x.is_cuda and x.dtype != torch.float32:
        return F.linear(x.permute(0, 2, 3, 1), weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Return the depthwise 3x3 convolution of `x`, zeros around it."""
    x, padding = _prepadded(x, dilation)
    return F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=x.shape[1])


def add_pointwise(total: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Add a 1x1 convolution of `x` to `total`, in place."""
    if _ONEDNN_ADDS and _is_for_onednn(x):
        return _add_convolution(total, x, weight, bias)
    return total.add_(pointwise(x, weight, bias))


def add_depthwise(total: Tensor, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Add a depthwise 3x3 convolution of `x` to `total`, in place."""
    if _ONEDNN_ADDS and _is_for_onednn(x):
        x, padding = _prepadded(x, dilation)
        return _add_convolution(total, x, weight, None, padding=padding, dilation=dilation)
    return total.add_(depthwise(x, weight, None, dilation))


def _add_convolution(
    total: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *, padding: int = 0, dilation: int = 1
) -> Tensor:
    pads, rates, groups = (padding, padding), (dilation, dilation), x.shape[1] // weight.shape[1]
    added: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
        total, x, weight, bias, pads, (1, 1), rates, groups, "add", 1.0, None, [], None
    )
    return added


def _prepadded(x: Tensor, padding: int) -> tuple[Tensor, int]:
    """Return a picture and the padding that a convolution must still do."""
    return (_zero_padded(x, padding), 0) if x.is_cpu and padding > 8 else (x, padding)


def _zero_padded(x: Tensor, width: int) -> Tensor:
    """Put zeros around channels-last `x`. `F.pad` zeroes the middle too before it fills it: twice the time."""
    batch, channels, height, length = x.shape
    size = (batch, channels, height + 2 * width, length + 2 * width)
    padded = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    middle = padded[..., width:-width, :]
    for border in (padded[..., :width, :], padded[..., -width:, :], middle[..., :width], middle[..., -width:]):
        border.zero_()
    middle[..., width:-width] = x
    return padded
