"""The loss ZERO-IG fits its networks with, term by term: a picture teaches its own networks by self-consistency.

Source: Shi et al., "ZERO-IG", CVPR 2024, and the behaviour of the authors' code, oddities included (each is named
where it happens). Equal to theirs, and written to be fast: box filters in place of unfolded patches, a separable
blur, one-sided differences counted twice, half-size passes of the denoisers as one batch.

A picture is halved in two ways: along the anti-diagonal and along the diagonal of each 2x2 block. What the halves
share is picture, what they do not is noise. `halves` stacks both in one batch, so that "each against the other"
reads `mse(a, _other(b))`; the mean over both is half the sum of two means, hence factors of 2000 for the paper's 1000.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from lowlight_cli.backends.zeroig.network import EPS, ZeroIG

TINY = 1e-9
MIDDLE_GREY = 0.5  # the mean brightness a picture is lifted to
_GREY = (0.144, 0.587, 0.299)  # over R, G, B in this order, as the authors wrote it
_YCBCR = ((0.257, -0.148, 0.439), (0.564, -0.291, -0.368), (0.098, 0.439, -0.071))
_BAND_ROWS = 64  # of 512 pixels and three channels in fp32: 400 kB
_NEIGHBOURS = (
    (0, 1),
    (1, 0),
    (1, 1),
    (1, -1),
    (0, 2),
    (2, 0),
    (2, 1),
    (2, -1),
    (1, 2),
    (1, -2),
    (2, 2),
    (2, -2),
)


class Cleaned(NamedTuple):
    """What the first denoiser makes of N pictures."""

    clean: Tensor  # L2: x without its predicted noise, (N, 3, H, W)
    clean_halves: Tensor  # P1, P2: the halves of x without theirs, (2N, 3, H/2, W/2)


class Passes(NamedTuple):
    """All that one training evaluation computes, once. The paper's symbols stand beside each; N pictures."""

    image: Tensor  # x, (N, 3, H, W)
    clean: Tensor  # L2: x without its predicted noise
    clean_halves: Tensor  # P1, P2: the halves of x without theirs, (2N, 3, H/2, W/2)
    light: Tensor  # s2: the illumination map
    enhanced: Tensor  # H2
    enhanced_halves: Tensor  # H11, s21 and H12, s22, (2N, 6, H/2, W/2)
    denoised_halves: Tensor  # H13, s13 and H14, s14 (Q1, Q2), (2N, 6, H/2, W/2)
    denoised: Tensor  # H3
    denoised_light: Tensor  # s3


class Terms(NamedTuple):
    """The seven terms, weighted as they enter the loss; scalars."""

    enhancement: Tensor
    first_denoising: Tensor
    second_denoising: Tensor
    colour: Tensor
    illumination: Tensor
    texture: Tensor
    noise_variance: Tensor


def zero_shot_loss(network: ZeroIG, image: Tensor) -> Tensor:
    """Return ZERO-IG's loss, a scalar, for RGB `(N, 3, H, W)` in [0, 1] with both sides at least 12 pixels.

    `network` should be in train mode; batch norm then uses the picture's own statistics.
    """
    return total(zero_shot_terms(training_passes(network, image)))


def total(terms: Terms) -> Tensor:
    """Add the seven weighted terms."""
    return torch.stack(terms).sum()


def add_gradients(network: ZeroIG, image: Tensor) -> Terms:
    """Add the gradients of `zero_shot_loss` to those of the network, and return its terms.

    Only the second term reaches the first denoiser. Its gradients are taken first, which frees the denoiser's
    activations before the other networks make theirs. The others' go back term by term as far as the pictures that
    the terms compare, so that no two terms keep what they made, and from there through the networks together.
    """
    cleaned = clean_pass(network, image)
    denoising = _first_denoising(image, cleaned)
    denoising.backward()  # type: ignore[no-untyped-call]
    detached = Cleaned(cleaned.clean.detach(), cleaned.clean_halves.detach())
    made = bright_passes(network, image, detached)
    compared = Passes(*(picture.detach().requires_grad_(picture.requires_grad) for picture in made))
    terms = []
    for term in _TERMS:
        value = term(compared)
        if value.requires_grad:
            value.backward()  # type: ignore[no-untyped-call]
        terms.append(value.detach())
    reached = {picture: leaf.grad for picture, leaf in zip(made, compared, strict=True) if leaf.grad is not None}
    torch.autograd.backward(list(reached), list(reached.values()))
    return Terms(*terms)


def training_passes(network: ZeroIG, image: Tensor) -> Passes:
    """Run all networks as training needs them: on the picture and on its two halves."""
    return bright_passes(network, image, clean_pass(network, image))


def clean_pass(network: ZeroIG, image: Tensor) -> Cleaned:
    """Run the first denoiser on pictures `(N, 3, H, W)` and on their halves."""
    lifted = image + EPS
    lifted_halves = halves(lifted)
    return Cleaned(
        clean=(lifted - network.denoise_1(lifted)).clamp(EPS, 1.0),
        clean_halves=lifted_halves - network.denoise_1(lifted_halves),
    )


def bright_passes(network: ZeroIG, image: Tensor, cleaned: Cleaned) -> Passes:
    """Run the other two networks on what the first denoiser made."""
    lifted = image + EPS
    lifted_halves = halves(lifted)
    light = network.enhance(cleaned.clean.detach())
    enhanced = (lifted / light).clamp(EPS, 1.0)
    light_halves = halves(light)
    enhanced_halves = torch.cat(((lifted_halves / light_halves).clamp(EPS, 1.0), light_halves), dim=1)
    denoised_halves = _without_noise(network, enhanced_halves)
    denoised = _without_noise(network, torch.cat((enhanced, light), dim=1))
    return Passes(
        image=image,
        clean=cleaned.clean,
        clean_halves=cleaned.clean_halves,
        light=light,
        enhanced=enhanced,
        enhanced_halves=enhanced_halves,
        denoised_halves=denoised_halves,
        denoised=denoised[:, :3],
        denoised_light=denoised[:, 3:],
    )


def _without_noise(network: ZeroIG, both: Tensor) -> Tensor:
    # The gradient flows through the network's argument, not through the minuend.
    noise: Tensor = network.denoise_2(both)
    return (both.detach() - noise).clamp(EPS, 1.0)


def zero_shot_terms(passes: Passes) -> Terms:
    """Return the seven terms by name."""
    return Terms(*(term(passes) for term in _TERMS))


def enhancement(passes: Passes) -> Tensor:
    """Term 1: the illumination map is smooth, near its target, and lifts the cleaned picture to middle grey.

    The factor a, in [1, 25], brings a picture's mean to middle grey; the map's target is (a L)^a 0.7^-a / a.
    """
    clean, light = passes.clean.detach(), passes.light
    factor = (MIDDLE_GREY / (grey(clean).mean(dim=(1, 2, 3), keepdim=True) + TINY)).clamp(1.0, 25.0)
    lifted = factor * clean
    # In fp32 the power may overflow to infinity; the clamp takes that as the bright end it is.
    target = (lifted**factor * 0.7**-factor / factor).clamp(TINY, 1.0)
    return (
        700 * F.mse_loss(light, target)
        + 1000 * F.mse_loss((clean / light).clamp(TINY, 0.8), lifted.clamp(TINY, 1.0))
        + 5 * smoothness(light, clean)
        + 1600 * total_variation(light)
    )


def first_denoising(passes: Passes) -> Tensor:
    """Term 2: one half of the picture, cleaned, equals the other half, and equals the half of the cleaned picture."""
    return _first_denoising(passes.image, Cleaned(passes.clean, passes.clean_halves))


def _first_denoising(image: Tensor, cleaned: Cleaned) -> Tensor:
    clean, clean_halves = cleaned
    return 2000 * (F.mse_loss(halves(image + TINY), _other(clean_halves)) + F.mse_loss(clean_halves, halves(clean)))


def second_denoising(passes: Passes) -> Tensor:
    """Term 3: the same for the brightened picture and its illumination map."""
    return 2000 * (
        F.mse_loss(passes.denoised_halves, _other(passes.enhanced_halves.detach()))
        + F.mse_loss(passes.denoised_halves[:, :3], halves(passes.denoised))
    )


def colour(passes: Passes) -> Tensor:
    """Term 4: blurred, the result keeps the colours of the brightened clean picture."""
    with torch.no_grad():
        kept = blur((passes.clean / passes.light).clamp(0.0, 1.0))
    return 10000 * F.mse_loss(kept, blur(passes.denoised))


def illumination(passes: Passes) -> Tensor:
    """Term 5: the second denoiser leaves the illumination map alone."""
    return 1000 * F.mse_loss(passes.light.detach(), passes.denoised_light)


def texture(passes: Passes) -> Tensor:
    """Term 6: where the halves of the result differ in texture there is noise, and each becomes its 5x5 mean."""
    result_halves = halves(passes.denoised)
    first, second = result_halves.chunk(2)
    mask = texture_mask(first, second)
    # Where there is texture both halves are drawn to the first one, as in the authors' code.
    kept = mask * first
    flat = (1 - mask).repeat(2, 1, 1, 1) * _box_mean_reflect(result_halves)
    return 20000 * F.mse_loss(result_halves, flat + kept.repeat(2, 1, 1, 1))


def noise_variance(passes: Passes) -> Tensor:
    """Term 7: what the second denoiser takes away varies locally as much as the brightened picture did."""
    noise = passes.denoised - passes.enhanced
    return 1000 * F.mse_loss(local_variance(passes.enhanced), local_variance(noise))


_TERMS = (enhancement, first_denoising, second_denoising, colour, illumination, texture, noise_variance)  # as in Terms


def grey(image: Tensor) -> Tensor:
    """Return the weighted sum of the channels, `(N, 3, H, W)` to `(N, 1, H, W)`; red weighs as blue should."""
    return _GREY[0] * image[:, :1] + _GREY[1] * image[:, 1:2] + _GREY[2] * image[:, 2:]


def halves(image: Tensor) -> Tensor:
    """Return both half-size pictures, `(N, C, H, W)` to `(2N, C, H // 2, W // 2)`.

    The first N are the means of the anti-diagonal pixels of each 2x2 block, the next N of the diagonal ones; an odd
    last row or column is dropped.
    """
    even = image[..., : image.shape[-2] // 2 * 2, : image.shape[-1] // 2 * 2]
    upper_left, upper_right = even[..., 0::2, 0::2], even[..., 0::2, 1::2]
    lower_left, lower_right = even[..., 1::2, 0::2], even[..., 1::2, 1::2]
    return torch.cat((upper_right + lower_left, upper_left + lower_right)) * 0.5


def _other(stacked: Tensor) -> Tensor:
    first, second = stacked.chunk(2)
    return torch.cat((second, first))


def total_variation(light: Tensor) -> Tensor:
    """Return the mean squared step down plus the mean squared step right, summed over channels, times 2.

    Sums are divided by the number of steps of one channel, as upstream does.
    """
    down = light[..., 1:, :] - light[..., :-1, :]
    right = light[..., :, 1:] - light[..., :, :-1]
    return 2 * light.shape[1] * (down.square().mean() + right.square().mean())


def smoothness(light: Tensor, guide: Tensor) -> Tensor:
    """Return the weighted differences of `light` to 24 neighbours; the weight falls where `guide` differs too.

    Neighbours p + d and p - d give the same sum, so twelve are computed and counted twice. The guide's colours are
    those of `upstream_ycbcr`; with its scale of one against a 200 the weights stay within 2 % of 1. Only `light` gets
    a gradient.
    """
    return cast(Tensor, _Smoothness.apply(light, guide))  # type: ignore[no-untyped-call]


class _Kept(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]


class _Smoothness(torch.autograd.Function):
    """The gradient falls out of the sum itself: sign(difference) times weight, to one pixel and from the other."""

    @staticmethod
    def forward(ctx: _Kept, light: Tensor, guide: Tensor) -> Tensor:
        light, colours = light.contiguous(), upstream_ycbcr(guide)
        total, slope = light.new_zeros(()), torch.zeros_like(light)
        height, width = light.shape[-2:]
        for down, right in _NEIGHBOURS:
            share = 2 / (len(light) * (height - down) * (width - abs(right)))
            for rows in _bands(height - down, light.device):
                near, far = _shifted(colours, down, right, rows)
                weight = (near - far).square_().sum(dim=1, keepdim=True).div_(-200).exp_().mul_(share)
                near, far = _shifted(light, down, right, rows)
                step = near - far
                pull = step.sgn().mul_(weight)
                total += torch.dot(pull.view(-1), step.view(-1))
                near, far = _shifted(slope, down, right, rows)
                near += pull
                far -= pull
        ctx.save_for_backward(slope)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: _Kept, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradient, None


def _bands(height: int, device: torch.device) -> Iterator[slice]:
    """Yield slices of rows few enough for a CPU's cache; on another device all of them."""
    step = _BAND_ROWS if device.type == "cpu" else height
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _shifted(image: Tensor, down: int, right: int, rows: slice) -> tuple[Tensor, Tensor]:
    """Return views of the pixels in `rows` and of those `down` below and `right` of them, where both exist."""
    columns = image.shape[-1] - abs(right)
    left, start = max(-right, 0), max(right, 0)
    below = slice(rows.start + down, rows.stop + down)
    return image[..., rows, left : left + columns], image[..., below, start : start + columns]


def upstream_ycbcr(image: Tensor) -> Tensor:
    """Return the "YCbCr" the authors' code forms: not a transform of channels but of rows of three in memory.

    Their code reads the contiguous NCHW buffer three numbers at a time. Kept for parity, and harmless: it only
    guides weights close to 1.
    """
    matrix, offset = _ycbcr(image.dtype, image.device)
    return (image.contiguous().view(-1, 3) @ matrix + offset).view(image.shape)


# Constants are brought to a device once: a recorded step must not.
@cache
@torch.inference_mode(mode=False)
def _ycbcr(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    offset = torch.tensor((16.0, 128.0, 128.0), dtype=dtype) / 255
    return torch.tensor(_YCBCR, dtype=dtype, device=device), offset.to(device)


def texture_mask(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 where the local contrasts of two pictures agree (both flat or one texture), else 0; no gradient."""
    with torch.no_grad():
        one, other = _local_std(grey(first)), _local_std(grey(second))
        agreement = 2 * one * other / (one.square() + other.square() + 1e-5)
        return (agreement > 0.975).to(first.dtype)


def _local_std(image: Tensor) -> Tensor:
    # Centred first: the difference of two means loses digits in proportion to the mean's square.
    centred = image - image.mean(dim=(2, 3), keepdim=True)
    mean = _box_mean_reflect(centred)
    variance = _box_mean_reflect(centred.square()) - mean.square()
    return (variance.clamp_min(0) + TINY).sqrt()


def _box_mean_reflect(image: Tensor) -> Tensor:
    return _box_mean(F.pad(image, (2, 2, 2, 2), mode="reflect"))


def local_variance(image: Tensor) -> Tensor:
    """Return the 5x5 mean of squared distances to the 5x5 mean at the same pixel; beyond the border is zero."""
    return _box_mean_zero((image - _box_mean_zero(image)).square())


def _box_mean_zero(image: Tensor) -> Tensor:
    return _box_mean(F.pad(image, (2, 2, 2, 2)))


def _box_mean(image: Tensor) -> Tensor:
    """Return the means of all whole 5x5 boxes, `(N, C, H, W)` to `(N, C, H - 4, W - 4)`."""
    return cast(Tensor, _BoxMean.apply(image))  # type: ignore[no-untyped-call]


class _BoxMean(torch.autograd.Function):
    """Two sums of pairs and one more pixel, down and across: on a CPU much quicker than pooling and its gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, image: Tensor) -> Tensor:  # noqa: ARG004
        image = image.contiguous()
        columns = _sums_of_five(image[..., :-1, :] + image[..., 1:, :], image[..., 4:, :], dim=-2)
        return _sums_of_five(columns[..., :-1] + columns[..., 1:], columns[..., 4:], dim=-1).mul_(1 / 25)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return _box_mean(F.pad(gradient, (4, 4, 4, 4)))


def _sums_of_five(pairs: Tensor, fifth: Tensor, *, dim: int) -> Tensor:
    count = fifth.shape[dim]
    return (pairs.narrow(dim, 0, count) + pairs.narrow(dim, 2, count)).add_(fifth)


def blur(image: Tensor) -> Tensor:
    """Blur with the authors' 21x21 kernel, reflected at the border; sides at least 11.

    Their kernel is the square root of an outer product, so it parts into two one-dimensional passes.
    """
    channels = image.shape[1]
    taps = blur_kernel(image).expand(channels, 1, -1)
    # Channels-last is the memory layout in which a CPU's depthwise convolution is quick.
    padded = F.pad(image, (10, 10, 10, 10), mode="reflect").contiguous(memory_format=torch.channels_last)
    return F.conv2d(F.conv2d(padded, taps[..., None], groups=channels), taps[:, :, None], groups=channels)


def blur_kernel(like: Tensor) -> Tensor:
    """Return the blur's 21 weights, in the dtype and on the device of `like`; they sum to 1.

    The 2D kernel is sqrt(outer(k, k)), k being differences of the normal distribution over linspace(-1 - i/2, 1 + i/2,
    22), i = 3/21; so one dimension is sqrt(k), normalised.
    """
    return _blur_kernel(like.dtype, like.device)


@cache
@torch.inference_mode(mode=False)
def _blur_kernel(dtype: torch.dtype, device: torch.device) -> Tensor:
    reach = 1 + 3 / 21 / 2
    edges = torch.linspace(-reach, reach, 22, dtype=torch.float64)
    weights: Tensor = torch.special.ndtr(edges).diff().sqrt()
    return (weights / weights.sum()).to(device, dtype)
