"""The two hidden stacks of ZERO-IG as single autograd functions: the same numbers, far less memory traffic.

On a CPU a third of a training step is not convolution but reading and writing 64-channel pictures. Here whatever
lies between two convolutions is done strip by strip while the strip is in the processor's cache, and only what the
backward pass cannot recompute for nothing is kept: the convolutions' outputs, not each activation.

Images are `(N, C, H, W)` and made channels-last, so that `_pixels` is a view. First derivatives only.
"""

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

SLOPE = 0.2
_STRIP_PIXELS = 4096  # times 64 channels in fp32: 1 MB, half of a usual second-level cache


class _Kept(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class Normalisation(NamedTuple):
    """What batch norm in train mode carries besides its weights; the running statistics are updated in place."""

    running_mean: Tensor
    running_var: Tensor
    momentum: float
    eps: float


class _Denoiser(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Kept, image: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor
    ) -> Tensor:
        first = F.leaky_relu_(F.conv2d(image, w1, b1, padding=1), SLOPE)
        second = F.conv2d(first, w2, b2, padding=1)
        noise = torch.empty_like(image)
        for hidden, result in _strips(second, noise):
            torch.addmm(b3, F.leaky_relu_(hidden, SLOPE), w3.flatten(1).t(), out=result)
        # A leaky ReLU keeps the sign, so its output serves for its own derivative.
        ctx.save_for_backward(image, first, second, w1, w2, w3)
        return noise

    @staticmethod
    @once_differentiable
    def backward(ctx: _Kept, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, first, second, w1, w2, w3 = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        head = w3.flatten(1)
        g_w3 = torch.zeros_like(head)
        g_second = torch.empty_like(second)
        for g_noise, hidden, g_hidden in _strips(gradient, second, g_second):
            g_w3.addmm_(g_noise.t(), hidden)
            torch.mm(g_noise, head, out=g_hidden)
            _leaky_backward_(g_hidden, hidden)
        g_first, g_w2, g_b2 = _convolution_backward(g_second, first, w2, wants_input=True)
        for g_hidden, hidden in _strips(cast(Tensor, g_first), first):
            _leaky_backward_(g_hidden, hidden)
        g_image, g_w1, g_b1 = _convolution_backward(
            cast(Tensor, g_first), image, w1, wants_input=ctx.needs_input_grad[0]
        )
        return g_image, g_w1, g_b1, g_w2, g_b2, g_w3.view_as(w3), gradient.sum(dim=(0, 2, 3))


class _ResidualBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Kept, image: Tensor, w: Tensor, b: Tensor, gamma: Tensor, beta: Tensor, norm: Normalisation
    ) -> Tensor:
        hidden = F.conv2d(image, w, b, padding=1)
        mean, variance = torch.batch_norm_update_stats(hidden, norm.running_mean, norm.running_var, norm.momentum)
        inverse_std = (variance + norm.eps).rsqrt()
        scale = gamma * inverse_std
        shift = beta - mean * scale
        result = torch.empty_like(image)
        for before, convolved, after in _strips(image, hidden, result):
            torch.addcmul(shift, convolved, scale, out=after)
            after.relu_().add_(before)
        ctx.save_for_backward(image, hidden, w, mean, inverse_std, scale, shift)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: _Kept, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, hidden, w, mean, inverse_std, scale, shift = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        g_hidden = torch.empty_like(hidden)
        g_beta, product = torch.zeros_like(mean), torch.zeros_like(mean)
        for given, convolved, masked in _strips(gradient, hidden, g_hidden):
            normalised = torch.addcmul(shift, convolved, scale)
            torch.ops.aten.threshold_backward.grad_input(given, normalised, 0, grad_input=masked)
            g_beta += masked.sum(dim=0)
            product += (masked * convolved).sum(dim=0)
        # With n = (y - mean) / std: dL/dy = scale (g - mean(g) - n mean(g n)), which is linear in g and y.
        g_gamma = (product - mean * g_beta) * inverse_std
        pixels = hidden.numel() // hidden.shape[1]
        slope = -scale * inverse_std * g_gamma / pixels
        offset = -scale * g_beta / pixels - slope * mean
        for masked, convolved in _strips(g_hidden, hidden):
            masked.mul_(scale).addcmul_(convolved, slope).add_(offset)
        g_image, g_w, g_b = _convolution_backward(g_hidden, image, w, wants_input=True)
        return cast(Tensor, g_image).add_(gradient), g_w, g_b, g_gamma, g_beta, None


def denoiser(image: Tensor, layers: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Return conv1x1(leaky(conv3x3(leaky(conv3x3(image))))); `layers` are weight and bias of each, in order."""
    channels_last = image.contiguous(memory_format=torch.channels_last)
    return cast(Tensor, _Denoiser.apply(channels_last, *layers))  # type: ignore[no-untyped-call]


def residual_block(
    image: Tensor, convolution: tuple[Tensor, Tensor], affine: tuple[Tensor, Tensor], norm: Normalisation
) -> Tensor:
    """Return image + relu(batch_norm(conv3x3(image))) with the batch's own statistics, as in train mode."""
    channels_last = image.contiguous(memory_format=torch.channels_last)
    result = _ResidualBlock.apply(channels_last, *convolution, *affine, norm)  # type: ignore[no-untyped-call]
    return cast(Tensor, result)


def _pixels(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).view(-1, image.shape[1])


def _strips(*images: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of the same few thousand pixels of every image, `(pixels, channels)` each."""
    return zip(*(torch.split(_pixels(image), _STRIP_PIXELS) for image in images), strict=True)


def _leaky_backward_(gradient: Tensor, output: Tensor) -> None:
    torch.ops.aten.leaky_relu_backward.grad_input(gradient, output, SLOPE, True, grad_input=gradient)


def _convolution_backward(
    gradient: Tensor, image: Tensor, weight: Tensor, *, wants_input: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return the gradients of a 3x3 convolution with padding 1, for its image, weight and bias."""
    return cast(
        "tuple[Tensor | None, Tensor, Tensor]",
        torch.ops.aten.convolution_backward(
            gradient,
            image,
            weight,
            [weight.shape[0]],
            [1, 1],
            [1, 1],
            [1, 1],
            False,
            [0, 0],
            1,
            [wants_input, True, True],
        ),
    )
