"""Training losses between pictures `(N, 3, H, W)`: each returns a scalar, 0 where the two are equal."""

from functools import cache
from importlib import import_module
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowlight_cli.errors import SettingsError, WeightsError

_SSIM_SIGMA = 1.5
_SSIM_RADIUS = 5
# Wang et al., *Multi-scale structural similarity*, 2003: the weights of the five scales.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Wang et al., *High-resolution image synthesis with conditional GANs*, 2018: of VGG-19's layers the first ReLU of each
# block, counted behind the one that normalises, and what its features weigh.
_VGG_WEIGHTS: Final = {2: 1 / 32, 7: 1 / 16, 12: 1 / 8, 21: 1 / 4, 30: 1.0}
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def charbonnier(output: Tensor, reference: Tensor, eps: float = 1e-3) -> Tensor:
    """Mean of sqrt(d^2 + eps^2) - eps: the absolute difference, rounded off near 0. DarkIR's authors: eps of 1e-6."""
    return ((output - reference).square() + eps**2).sqrt().mean() - eps


def l1(output: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute difference."""
    return (output - reference).abs().mean()


def low_frequency(output: Tensor, reference: Tensor, cell: int = 16) -> Tensor:
    """Mean absolute difference of the averages over cells of `cell` pixels: light and colour without texture."""
    return (F.avg_pool2d(output, cell) - F.avg_pool2d(reference, cell)).abs().mean()


def detail(output: Tensor, reference: Tensor, cell: int = 16, eps: float = 1e-3) -> Tensor:
    """Charbonnier loss of what remains when the averages over cells of `cell` pixels are taken away.

    A picture's right brightness is a guess, and where the guess is off by more than the noise, an absolute
    difference has the same sign everywhere and says nothing about noise. Here it does. Sides are multiples of `cell`.
    """
    difference = output - reference
    means = F.interpolate(F.avg_pool2d(difference, cell), scale_factor=cell, mode="nearest")
    return ((difference - means).square() + eps**2).sqrt().mean() - eps


def edge(output: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical steps between neighbouring pixels."""
    d = output - reference
    return (d[..., 1:, :] - d[..., :-1, :]).abs().mean() + (d[..., 1:] - d[..., :-1]).abs().mean()


def frequency(output: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute difference of the orthonormal spectra (Jiang et al., *Focal frequency loss*, without focus)."""
    with torch.autocast(output.device.type, enabled=False):
        spectrum = torch.fft.rfft2(output.float() - reference.float(), norm="ortho")
        # |X| has no gradient at 0; the parts taken apart have one.
        return torch.view_as_real(spectrum).abs().mean()


@cache
def _window(device: torch.device, dtype: torch.dtype) -> Tensor:
    # Kept for later calls, so it must not become an inference tensor when the first of them comes from validation.
    with torch.inference_mode(False):
        offsets = torch.arange(-_SSIM_RADIUS, _SSIM_RADIUS + 1, dtype=torch.float64)
        weights = torch.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
        return (weights / weights.sum()).to(device, dtype)


def _windowed(maps: Tensor) -> Tensor:
    """Gaussian means inside the picture, `(N, C, H, W)` -> `(N, C, H - 10, W - 10)`."""
    channels = maps.shape[1]
    row = _window(maps.device, maps.dtype).expand(channels, 1, 1, -1)
    return F.conv2d(F.conv2d(maps, row, groups=channels), row.transpose(2, 3), groups=channels)


def _similarities(output: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Mean SSIM and mean contrast-structure term (Wang et al., 2004; K1 = 0.01, K2 = 0.03, range 1)."""
    count = output.shape[1]
    moments = torch.cat([output, reference, output.square() + reference.square(), output * reference], dim=1)
    mean_x, mean_y, mean_squares, mean_product = torch.split(_windowed(moments), count, dim=1)
    squares, product = mean_x.square() + mean_y.square(), mean_x * mean_y
    structure = (2 * (mean_product - product) + 9e-4) / (mean_squares - squares + 9e-4)
    return ((2 * product + 1e-4) / (squares + 1e-4) * structure).mean(), structure.mean()


def ssim_loss(output: Tensor, reference: Tensor) -> Tensor:
    """1 - SSIM, Gaussian window of sigma 1.5; both sides at least 11 pixels."""
    return 1 - _similarities(output.float(), reference.float())[0]


def ms_ssim_loss(output: Tensor, reference: Tensor) -> Tensor:
    """1 - MS-SSIM over as many of the five scales as the picture has room for (11 pixels at the coarsest)."""
    output, reference = output.float(), reference.float()
    scales = min(len(_SCALE_WEIGHTS), (min(output.shape[-2:]) // 11).bit_length())
    weights = _SCALE_WEIGHTS[:scales]
    similarity = output.new_ones(())
    for scale, weight in enumerate(weights):
        whole, structure = _similarities(output, reference)
        term = whole if scale == scales - 1 else structure
        # Early in training a term can be negative, whose power is NaN; the floor has no gradient, others carry on.
        similarity = similarity * term.clamp_min(1e-4) ** (weight / sum(weights))
        if scale < scales - 1:
            output, reference = F.avg_pool2d(output, 2), F.avg_pool2d(reference, 2)
    return 1 - similarity


def perceptual(output: Tensor, reference: Tensor) -> Tensor:
    """`feature_distance` by the VGG-19 that learned ImageNet (Johnson et al., *Perceptual losses*, 2016).

    DarkIR's authors add 0.01 times a loss of this kind. Raises as `load_vgg` does.
    """
    return feature_distance(load_vgg(output.device), output, reference)


def feature_distance(vgg: nn.Sequential, output: Tensor, reference: Tensor) -> Tensor:
    """Weighted sum of the mean absolute differences of the features of `load_vgg`; sides of at least 16 pixels."""
    total, seen, wanted = output.new_zeros(()), output, reference
    for place, layer in enumerate(vgg):
        seen = layer(seen)
        with torch.no_grad():
            wanted = layer(wanted)
        if place in _VGG_WEIGHTS:
            total = total + _VGG_WEIGHTS[place] * (seen - wanted).abs().mean()
    return total


@cache
def load_vgg(device: torch.device) -> nn.Sequential:
    """Return VGG-19 up to the last layer that `perceptual` needs, behind one that normalises pictures in [0, 1].

    It is torchvision's, which fetches 575 MB of weights on first use. Raises SettingsError when torchvision is not
    there or does not work with this torch, WeightsError when the weights cannot be fetched.
    """
    try:
        models = import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        message = f"the perceptual loss needs an extra: pip install 'lowlight-cli[metrics]' ({error})"
        raise SettingsError(message) from error
    try:
        layers = models.vgg19(weights="IMAGENET1K_V1", progress=False).features
    except (OSError, RuntimeError) as error:  # RuntimeError: what came is not what was asked for
        raise WeightsError(f"the perceptual loss cannot fetch VGG-19's weights: {error}") from error
    vgg = nn.Sequential(_normalising(), *layers[: max(_VGG_WEIGHTS)])
    return vgg.requires_grad_(False).eval().to(device)


def _normalising() -> nn.Module:
    """What a batch norm does that has learned ImageNet's mean and deviation, and learns no more."""
    norm = nn.BatchNorm2d(3, eps=0.0, affine=False)
    norm.running_mean = torch.tensor(_IMAGENET_MEAN)
    norm.running_var = torch.tensor(_IMAGENET_DEVIATION).square()
    return norm
