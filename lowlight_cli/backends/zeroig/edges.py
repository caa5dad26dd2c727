"""The first and the last convolution of ZERO-IG's hidden stacks, and their gradients, on a CPU.

Between a few channels and many a convolution is a product of matrices: the patches around the pixels, times the kernel.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lowlight_cli.backends.zeroig.patches import add_patches, padded, patches, without_border
from lowlight_cli.backends.zeroig.pointwise import leaky_relu_gradient, leaky_relu_of_sum
from lowlight_cli.backends.zeroig.strips import Strip, by_strips, pixels, sums
from lowlight_cli.loops import Floats


class Stem:
    """leaky(conv3x3(image)) of a picture of few channels: so cheap that it is made row by row wherever it is needed."""

    def __init__(self, image: Tensor, weight: Tensor, bias: Tensor, slope: float) -> None:
        self.weight, self.slope = weight, slope
        self.image: Floats = padded(image).numpy()
        self.kernel = weight.permute(2, 3, 1, 0).flatten(0, 2)  # (9 C, hidden)
        self._bias: Floats = bias.detach().numpy()

    def shape(self, channels: int) -> tuple[int, int, int, int]:
        """Return the shape of a hidden picture of the image's size: `(N, H, W, channels)`."""
        number, height, width, _ = self.image.shape
        return number, height - 2, width - 2, channels

    def rows(self, number: int, rows: slice) -> Floats:
        """Return these rows of the result for one of the images: `(rows, W, channels)`."""
        found = torch.from_numpy(patches(self.image[number], rows))
        made: Floats = torch.mm(found, self.kernel).numpy()
        leaky_relu_of_sum(made, self._bias, self.slope)
        return made.reshape(rows.stop - rows.start, -1, len(self._bias))

    def write(self, made: Floats) -> None:
        """Write all rows of all images."""

        def work(strips: Sequence[Strip]) -> tuple[()]:
            for strip in strips:
                made[strip] = self.rows(*strip)
            return ()

        by_strips(made.shape, work)


class StemGradients:
    """The gradients of a `Stem` for its image, weight and bias, added up over some of its rows."""

    def __init__(self, stem: Stem, *, for_image: bool) -> None:
        self.stem = stem
        self._kernel, self._bias = torch.zeros_like(stem.kernel), torch.zeros_like(stem.kernel[0])
        self._image = self._kernel.new_zeros(stem.image.shape) if for_image else None

    def add(self, number: int, rows: slice, gradient: Floats, output: Floats) -> None:
        """Take rows of the result's gradient and of the result itself; the gradient is overwritten."""
        given = pixels(gradient)
        leaky_relu_gradient(pixels(output), self.stem.slope, given, self._bias.numpy())
        flowing = torch.from_numpy(given)
        self._kernel.addmm_(torch.from_numpy(patches(self.stem.image[number], rows)).t(), flowing)
        if self._image is not None:
            add_patches(self._image[number].numpy(), rows, (flowing @ self.stem.kernel.t()).numpy())

    @staticmethod
    def of_all(parts: "Sequence[StemGradients]") -> tuple[Tensor | None, Tensor, Tensor]:
        """Return the gradients for image, weight and bias that the parts have found together."""
        hidden, channels, *_ = parts[0].stem.weight.shape
        kernel, bias, *image = sums((part._kernel, part._bias, *_given(part._image)) for part in parts)
        g_image = without_border(image[0]) if image else None
        return g_image, kernel.view(3, 3, channels, hidden).permute(3, 2, 0, 1), bias


def _given(tensor: Tensor | None) -> tuple[Tensor, ...]:
    return () if tensor is None else (tensor,)


def head(features: Floats, weight: Tensor, bias: Tensor) -> Tensor:
    """Return conv3x3(features), a picture of a few channels: each pixel's share of its neighbours, added up."""
    number, height, width, _ = features.shape
    kernel = _head_kernel(weight)

    def work(strips: Sequence[Strip]) -> tuple[Tensor]:
        made = bias.new_zeros(number, height + 2, width + 2, len(bias))
        for each, rows in strips:
            shares = torch.from_numpy(pixels(features[each, rows])) @ kernel
            add_patches(made[each].numpy(), rows, shares.numpy())
        return (made,)

    (made,) = by_strips(features.shape, work)
    return without_border(made) + bias.view(-1, 1, 1)


def head_gradients(gradient: Tensor, features: Floats, weight: Tensor, g_features: Floats) -> Tensor:
    """Write the gradient of `head` for its features, `(N, H, W, C)`; return that for its weight."""
    image, kernel = padded(gradient).numpy(), _head_kernel(weight)

    def work(strips: Sequence[Strip]) -> tuple[Tensor]:
        g_kernel = torch.zeros_like(kernel)
        for number, rows in strips:
            found = torch.from_numpy(patches(image[number], rows))
            torch.mm(found, kernel.t(), out=torch.from_numpy(pixels(g_features[number, rows])))
            g_kernel.addmm_(torch.from_numpy(pixels(features[number, rows])).t(), found)
        return (g_kernel,)

    g_kernel: Tensor
    (g_kernel,) = by_strips(features.shape, work)
    outputs, inputs = weight.shape[:2]
    return g_kernel.view(inputs, 3, 3, outputs).flip(1, 2).permute(3, 0, 1, 2)


def _head_kernel(weight: Tensor) -> Tensor:
    """Return what a pixel of the features gives to its neighbours: `(inputs, 9 * outputs)`."""
    return weight.flip(2, 3).permute(1, 2, 3, 0).flatten(1)
