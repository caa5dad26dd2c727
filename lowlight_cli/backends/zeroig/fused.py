"""The hidden stacks of ZERO-IG as single autograd functions: the same numbers, less memory traffic, half the memory.

On a CPU a third of a training step is not convolution but reading and writing 64-channel pictures. Here whatever
lies between two convolutions is done strip by strip while the strip is in the processor's cache, and only what the
backward pass cannot recompute for next to nothing is kept: the convolutions' outputs, not each activation.

Images are `(N, C, H, W)` and made channels-last, so that `_pixels` is a view. First derivatives only.
"""

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from lowlight_cli.backends.zeroig import winograd

SLOPE = 0.2
_STRIP_PIXELS = 4096  # times 64 channels in fp32: 1 MB; smaller strips cost more in calls than they save


class _Kept(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class Normalisation(NamedTuple):
    """What batch norm in train mode carries besides its weights; the running statistics are updated in place."""

    running_mean: Tensor
    running_var: Tensor
    momentum: float
    eps: float


class _Statistics(NamedTuple):
    """Of one batch, per channel; scale and shift turn a convolution's output into the normalised one."""

    mean: Tensor
    inverse_std: Tensor
    scale: Tensor
    shift: Tensor


class _Denoiser(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Kept, image: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor
    ) -> Tensor:
        second = winograd.convolve(_stem(image, w1, b1, SLOPE), w2, b2)
        noise = torch.empty_like(image)
        for hidden, result in _strips(second, noise):
            torch.addmm(b3, F.leaky_relu_(hidden, SLOPE), w3.flatten(1).t(), out=result)
        # A leaky ReLU keeps the sign, so its output serves for its own derivative.
        ctx.save_for_backward(image, second, w1, b1, w2, w3)
        return noise

    @staticmethod
    @once_differentiable
    def backward(ctx: _Kept, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, second, w1, b1, w2, w3 = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        head = w3.flatten(1)
        g_w3, g_b2 = torch.zeros_like(head), torch.zeros_like(head[0])
        g_second = torch.empty_like(second)
        for g_noise, hidden, g_hidden in _strips(gradient, second, g_second):
            g_w3.addmm_(g_noise.t(), hidden)
            torch.mm(g_noise, head, out=g_hidden)
            _leaky_backward_(g_hidden, hidden, SLOPE)
            g_b2 += g_hidden.sum(dim=0)
        first = _stem(image, w1, b1, SLOPE)
        g_first = torch.zeros_like(first)
        g_w2 = winograd.add_gradients(g_second, first, w2, onto=g_first)
        del g_second
        g_image, g_w1, g_b1 = _stem_backward(ctx, g_first, image, first, w1, slope=SLOPE)
        return g_image, g_w1, g_b1, g_w2, g_b2, g_w3.view_as(w3), gradient.sum(dim=(0, 2, 3))


class _Illuminator(torch.autograd.Function):
    """Of the features, which every residual adds to, none are kept.

    The backward pass adds the residuals up again and then takes one after the other away. Where ReLU was zero only the
    first features themselves can tell, since the sums have rounded: they are made a second time.
    """

    @staticmethod
    def forward(
        ctx: "_IlluminatorKept",
        image: Tensor,
        w_in: Tensor,
        b_in: Tensor,
        w: Tensor,
        b: Tensor,
        gamma: Tensor,
        beta: Tensor,
        w_out: Tensor,
        b_out: Tensor,
        norm: Normalisation,
        repeats: int,
    ) -> Tensor:
        hidden: list[Tensor] = []
        ctx.statistics = []
        features = _stem(image, w_in, b_in, 0.0)
        for _ in range(repeats):
            hidden.append(winograd.convolve(features, w, b))
            ctx.statistics.append(_statistics(hidden[-1], gamma, beta, norm))
            _add_residual_(features, hidden[-1], ctx.statistics[-1])
        ctx.save_for_backward(image, w_in, b_in, w, w_out, *hidden)
        return F.conv2d(features, w_out, b_out, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: "_IlluminatorKept", gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, w_in, b_in, w, w_out, *hidden = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        features = _stem(image, w_in, b_in, 0.0)
        for each, statistics in zip(hidden, ctx.statistics, strict=True):
            _add_residual_(features, each, statistics)
        flowing, g_w_out = _head_backward(gradient, features, w_out)
        g_hidden = torch.empty_like(features)
        g_w, g_gamma, g_beta = torch.zeros_like(w), torch.zeros_like(w[:, 0, 0, 0]), torch.zeros_like(w[:, 0, 0, 0])
        for each, statistics in zip(reversed(hidden), reversed(ctx.statistics), strict=True):
            g_scale, g_shift = _residual_backward(flowing, each, statistics, features, out=g_hidden)
            g_w += winograd.add_gradients(g_hidden, features, w, onto=flowing)
            g_gamma += g_scale
            g_beta += g_shift
        del features, g_hidden
        g_image, g_w_in, g_b_in = _stem_backward(ctx, flowing, image, _stem(image, w_in, b_in, 0.0), w_in, slope=0.0)
        g_b_out = gradient.sum(dim=(0, 2, 3))
        # Batch norm takes a bias before it away again: its gradient is zero, where autograd would find rounding noise.
        g_b = torch.zeros_like(g_gamma)
        return g_image, g_w_in, g_b_in, g_w, g_b, g_gamma, g_beta, g_w_out, g_b_out, None, None


class _IlluminatorKept(_Kept):
    statistics: list[_Statistics]


def denoiser(image: Tensor, layers: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Return conv1x1(leaky(conv3x3(leaky(conv3x3(image))))); `layers` are weight and bias of each, in order."""
    channels_last = image.contiguous(memory_format=torch.channels_last)
    return cast(Tensor, _Denoiser.apply(channels_last, *layers))  # type: ignore[no-untyped-call]


class IlluminatorLayers(NamedTuple):
    """Weights and biases of `illuminator`, in the order in which they are applied."""

    w_in: Tensor
    b_in: Tensor
    w: Tensor
    b: Tensor
    gamma: Tensor
    beta: Tensor
    w_out: Tensor
    b_out: Tensor


def illuminator(image: Tensor, layers: IlluminatorLayers, norm: Normalisation, *, repeats: int) -> Tensor:
    """Return conv_out(x), where x = relu(conv_in(image)) and then `repeats` times x += relu(batch_norm(conv(x))).

    Batch norm uses the batch's own statistics, as in train mode.
    """
    channels_last = image.contiguous(memory_format=torch.channels_last)
    return cast(Tensor, _Illuminator.apply(channels_last, *layers, norm, repeats))  # type: ignore[no-untyped-call]


def _pixels(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).view(-1, image.shape[1])


def _strips(*images: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of the same few pixels of every image, `(pixels, channels)` each."""
    return zip(*(torch.split(_pixels(image), _STRIP_PIXELS) for image in images), strict=True)


def _leaky_backward_(gradient: Tensor, output: Tensor, slope: float) -> None:
    torch.ops.aten.leaky_relu_backward.grad_input(gradient, output, slope, True, grad_input=gradient)


def _statistics(hidden: Tensor, gamma: Tensor, beta: Tensor, norm: Normalisation) -> _Statistics:
    mean, variance = torch.batch_norm_update_stats(hidden, norm.running_mean, norm.running_var, norm.momentum)
    inverse_std = (variance + norm.eps).rsqrt()
    scale = gamma * inverse_std
    return _Statistics(mean, inverse_std, scale, beta - mean * scale)


def _add_residual_(features: Tensor, hidden: Tensor, statistics: _Statistics) -> None:
    """Add relu(batch norm(hidden)) to `features`."""
    for before, convolved in _strips(features, hidden):
        before += torch.addcmul(statistics.shift, convolved, statistics.scale).relu_()


def _residual_backward(
    gradient: Tensor, hidden: Tensor, statistics: _Statistics, features: Tensor, *, out: Tensor
) -> tuple[Tensor, Tensor]:
    """Write the gradient of relu(batch norm(hidden)) for `hidden`; return those for batch norm's weight and bias.

    On the way the residual is taken from `features` again: what the convolution before it had seen, but for rounding.
    """
    mean, inverse_std, scale, shift = statistics
    g_beta, product = torch.zeros_like(mean), torch.zeros_like(mean)
    for given, convolved, after, masked in _strips(gradient, hidden, features, out):
        residual = torch.addcmul(shift, convolved, scale).relu_()
        after -= residual
        torch.ops.aten.threshold_backward.grad_input(given, residual, 0, grad_input=masked)
        g_beta += masked.sum(dim=0)
        product += torch.mul(masked, convolved, out=residual).sum(dim=0)
    # With n = (y - mean) / std: dL/dy = scale (g - mean(g) - n mean(g n)), which is linear in g and y.
    g_gamma = (product - mean * g_beta) * inverse_std
    pixels = hidden.numel() // hidden.shape[1]
    slope = -scale * inverse_std * g_gamma / pixels
    offset = -scale * g_beta / pixels - slope * mean
    for masked, convolved in _strips(out, hidden):
        torch.addcmul(torch.addcmul(offset, convolved, slope), masked, scale, out=masked)
    return g_gamma, g_beta


def _stem(image: Tensor, weight: Tensor, bias: Tensor, slope: float) -> Tensor:
    """Return leaky(conv3x3(image)): so cheap that the backward passes do it again rather than keep it."""
    return F.leaky_relu_(F.conv2d(image, weight, bias, padding=1), slope)


def _stem_backward(
    ctx: _Kept, gradient: Tensor, image: Tensor, output: Tensor, weight: Tensor, *, slope: float
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return the gradients of leaky(conv3x3(image)), whose `output` is given; `gradient` is overwritten."""
    g_weight, g_bias = torch.zeros_like(weight.flatten(1).t()), torch.zeros_like(weight[:, 0, 0, 0])
    for patches, given, activated in _unfolded(image, gradient, output):
        _leaky_backward_(given, activated, slope)
        g_weight.addmm_(patches, given)
        g_bias += given.sum(dim=0)
    g_image = _image_gradient(gradient, image, weight) if ctx.needs_input_grad[0] else None
    return g_image, g_weight.t().reshape(weight.shape), g_bias


def _head_backward(gradient: Tensor, image: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of conv3x3(image) for its image and weight, where the result has a few channels only."""
    g_image = torch.empty_like(image)
    kernel = weight.flip(2, 3).transpose(1, 2).transpose(2, 3).reshape(-1, weight.shape[1])  # (outputs * 9, inputs)
    g_kernel = torch.zeros_like(kernel)
    for patches, seen, g_seen in _unfolded(gradient, image, g_image):
        torch.mm(patches.t(), kernel, out=g_seen)
        g_kernel.addmm_(patches, seen)
    outputs, inputs = weight.shape[:2]
    return g_image, g_kernel.view(outputs, 3, 3, inputs).flip(1, 2).permute(0, 3, 1, 2).contiguous()


def _unfolded(narrow: Tensor, *wide: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield, strip by strip, the 3x3 patches of a picture of few channels, `(channels * 9, pixels)`, and the others.

    A matrix product per strip then has done with it while it is in the cache; the library's weight gradients take two
    to four times as long.
    """
    padded = F.pad(narrow, (1, 1, 1, 1))
    height, width = narrow.shape[-2:]
    count = max(_STRIP_PIXELS // width, 1)
    for number in range(len(narrow)):
        for top in range(0, height, count):
            rows = slice(top, min(top + count, height))
            patches = F.unfold(padded[number : number + 1, :, rows.start : rows.stop + 2], 3)[0]
            yield patches, *(_pixels(each[number : number + 1, :, rows]) for each in wide)


def _image_gradient(gradient: Tensor, image: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of a 3x3 convolution with padding 1 for its image."""
    ones = [1, 1]
    mask = [True, False, False]
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, image, weight, None, ones, ones, ones, False, [0, 0], 1, mask
    )
    return found[0]
