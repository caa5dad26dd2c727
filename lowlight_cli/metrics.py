"""How near a result is to its reference, and how much a network computes: the numbers papers print.

All pictures are RGB float tensors `(3, H, W)` in [0, 1]. PSNR and SSIM equal scikit-image's
`peak_signal_noise_ratio` and `structural_similarity` (data_range=1).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import inf, log10, prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lowlight_cli.errors import InputError, SettingsError, WeightsError

ScoreName = Literal["lpips", "brisque"]
Score = Callable[[Tensor, Tensor | None], float | None]
"""Takes a result and its reference, if there is one; None when the score needs a reference and has none."""

_C1, _C2 = 0.01**2, 0.03**2
_GREY_WEIGHTS = torch.tensor((0.299, 0.587, 0.114), dtype=torch.float64)


@dataclass(frozen=True)
class Quality:
    """One result against its reference.

    PSNR in dB, infinite for equal pictures; SSIM at most 1. The `gt_mean` values are taken after the result was
    scaled to the reference's mean brightness: they say nothing about exposure, are usually 3 to 5 dB higher, and
    are never to be shown without their name.
    """

    psnr: float
    ssim: float
    psnr_gt_mean: float
    ssim_gt_mean: float


def measure_quality(result: Tensor, reference: Tensor) -> Quality:
    """Compare two pictures of one size; raises InputError when a side is shorter than SSIM's 11 pixels."""
    matched = match_mean(result, reference)
    return Quality(
        psnr=psnr(result, reference),
        ssim=ssim(result, reference),
        psnr_gt_mean=psnr(matched, reference),
        ssim_gt_mean=ssim(matched, reference),
    )


def psnr(image: Tensor, reference: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB over all pixels and channels, infinite for equal pictures."""
    _require_one_shape(image, reference)
    error = float((image.double() - reference.double()).square().mean())
    return inf if error == 0 else -10 * log10(error)


def ssim(image: Tensor, reference: Tensor) -> float:
    """Return the structural similarity (Wang et al. 2004), averaged over the channels and all whole windows.

    The window is the paper's and that of scikit-image's `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False`. Raises InputError when the picture is smaller than the window.
    """
    _require_one_shape(image, reference)
    weights = _window().to(image.device)
    side = len(weights)
    if min(image.shape[-2:]) < side:
        raise InputError(f"too small to compare: SSIM needs {side}x{side} pixels")
    channels = zip(image.float(), reference.float(), strict=True)
    return sum(_ssim_of_channel(x, y, weights) for x, y in channels) / len(image)


def _ssim_of_channel(x: Tensor, y: Tensor, weights: Tensor) -> float:
    """Return the mean structural similarity of two `(H, W)` planes."""
    # The four maps as channels, channels last: the depthwise kernel for it is fifty times faster than others.
    maps = torch.stack((x, y, x * x + y * y, x * y), dim=-1).unsqueeze(0).permute(0, 3, 1, 2)
    kernel = weights.expand(4, 1, -1)
    # Without padding only windows that lie inside the picture count.
    rows = F.conv2d(maps, kernel.unsqueeze(-1).contiguous(), groups=4)
    mean_x, mean_y, mean_squares, mean_xy = F.conv2d(rows, kernel.unsqueeze(-2).contiguous(), groups=4)[0]
    squares, product = mean_x * mean_x + mean_y * mean_y, mean_x * mean_y
    variances, covariance = mean_squares - squares, mean_xy - product
    similarity = (2 * product + _C1) * (2 * covariance + _C2) / ((squares + _C1) * (variances + _C2))
    return float(similarity.mean(dtype=torch.float64))


def _window() -> Tensor:
    """Return the window along one axis: 11 samples of a Gaussian of sigma 1.5, cut at 3.5 sigma."""
    weights = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    return (weights / weights.sum()).float()


def match_mean(image: Tensor, reference: Tensor) -> Tensor:
    """Return `image` scaled so that its mean grey is the reference's, and clamped: the field's "GT-mean".

    Grey is the luma of the encoded values, as in the evaluation code this practice comes from. A black picture
    stays black.
    """
    _require_one_shape(image, reference)
    gain = mean_grey(reference) / max(mean_grey(image), 1e-8)
    return (image * gain).clamp(0, 1)


def mean_grey(image: Tensor) -> float:
    """Return the mean of a picture's Rec. 601 luma."""
    return float(image.mean(dim=(1, 2)).double().cpu() @ _GREY_WEIGHTS)


def load_score(name: ScoreName) -> Score:
    """Make a learned score ready: `lpips` (VGG, needs the reference) or `brisque` (needs none); lower is better.

    Both come from the package piq, which fetches their weights on first use. Raises SettingsError when piq is not
    there or does not work with this torch, WeightsError when the weights cannot be fetched.
    """
    try:
        piq = import_module("piq")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise SettingsError(f"{name} needs an extra: pip install 'lowlight-cli[metrics]' ({error})") from error
    try:
        if name == "brisque":
            piq.brisque(torch.rand(1, 3, 64, 64))  # now and not at the first picture
            return lambda image, _: float(piq.brisque(image[None]))
        distance = piq.LPIPS(reduction="none").eval()
    except OSError as error:
        raise WeightsError(f"{name} cannot fetch its weights: {error}") from error
    return lambda image, reference: None if reference is None else float(distance(image[None], reference[None]))


def count_parameters(network: nn.Module) -> int:
    """Return how many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, image: Tensor) -> int:
    """Return the multiply-adds of one pass over `image`, `(N, C, H, W)`: convolutions and matrix products.

    A bias counts as one, Fourier transforms and elementwise work as nothing, as in published counts.
    """
    counted = {torch.ops.aten.convolution: _convolution_flops}
    # As designed: in train mode no network folds itself for inference, and without gradients none fuses its steps.
    designed = copy.deepcopy(network).train()
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=counted) as counter:
        designed(image)
    return int(counter.get_total_flops()) // 2


def _convolution_flops(
    image: Sequence[int],
    kernel: Sequence[int],
    bias: Sequence[int] | None,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    *_: object,
    out_shape: Sequence[int],
) -> int:
    """Count one convolution from its shapes, as FlopCounterMode asks, and the bias that it leaves out."""
    # The kernel is (out, in / groups, ...), or (in, out / groups, ...) when transposed.
    macs = prod(image if transposed else out_shape) * prod(kernel[1:])
    return 2 * (macs + (prod(out_shape) if bias is not None else 0))


def _require_one_shape(image: Tensor, reference: Tensor) -> None:
    if image.shape != reference.shape or image.dim() != 3:
        raise ValueError(f"pictures of shapes {tuple(image.shape)} and {tuple(reference.shape)} cannot be compared")
