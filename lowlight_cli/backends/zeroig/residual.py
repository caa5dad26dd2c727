"""relu(batch norm(hidden)), which ZERO-IG's illuminator adds to its features, and its gradients, on a CPU."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lowlight_cli.backends.zeroig import pointwise
from lowlight_cli.backends.zeroig.strips import Strip, by_strips, pixels
from lowlight_cli.backends.zeroig.winograd import RowsOf
from lowlight_cli.loops import Floats


class Normalisation(NamedTuple):
    """What batch norm carries besides its weights.

    In train mode it takes the batch's own statistics and updates the running ones, in place; else it takes those.
    """

    running_mean: Tensor
    running_var: Tensor
    momentum: float
    eps: float
    training: bool


class Moments:
    """Gathers mean and variance of a hidden picture `(N, H, W, C)`, per channel, from its rows as they are made."""

    def __init__(self, hidden: Floats) -> None:
        self._hidden = hidden
        self._found: dict[tuple[int, int], tuple[int, Floats, Floats]] = {}

    def take(self, number: int, rows: slice) -> None:
        """Take rows of a picture; each once, by any core."""
        taken = pixels(self._hidden[number, rows])
        mean, variance = np.empty_like(taken[0]), np.empty_like(taken[0])
        pointwise.moments(taken, mean, variance)
        self._found[number, rows.start] = len(taken), mean, variance

    def count_among(self, norm: Normalisation) -> tuple[Tensor, Tensor]:
        """Return mean and variance, once all rows were taken, and count them among the running ones."""
        in_order = (self._found[key] for key in sorted(self._found))  # however the cores took turns
        counts, *moments = zip(*in_order, strict=True)
        means, variances = (torch.from_numpy(np.stack(each)) for each in moments)
        count = sum(counts)
        shares = means.new_tensor(counts)[:, None] / count
        mean = (shares * means).sum(dim=0)
        variance = (shares * (variances + (means - mean).square())).sum(dim=0)
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
        return mean, variance


class Scaling(NamedTuple):
    """Batch norm, per channel: scale and shift turn a convolution's output into the normalised one."""

    mean: Tensor
    inverse_std: Tensor
    scale: Tensor
    shift: Tensor

    @staticmethod
    def by(moments: tuple[Tensor, Tensor], gamma: Tensor, beta: Tensor, eps: float) -> "Scaling":
        """Return the scaling by mean and variance."""
        mean, variance = moments
        inverse_std = (variance + eps).rsqrt()
        scale = gamma * inverse_std
        return Scaling(mean.clone(), inverse_std, scale, beta - mean * scale)


class ResidualGradients(NamedTuple):
    """Of a `Residual`, in train mode or not."""

    gamma: Tensor
    beta: Tensor
    bias: Tensor  # of the convolution before
    hidden: RowsOf  # made when asked for


class Residual(NamedTuple):
    """relu(batch norm(hidden)), made wherever it is needed and never kept."""

    hidden: Floats  # what the convolution made, (N, H, W, C)
    scaling: Scaling

    def add(self, features: Floats) -> None:
        """Add it to the features."""
        scale, shift = self.scaling.scale.numpy(), self.scaling.shift.numpy()

        def work(strips: Sequence[Strip]) -> tuple[()]:
            for strip in strips:
                pointwise.add_residual(pixels(self.hidden[strip]), scale, shift, pixels(features[strip]))
            return ()

        by_strips(features.shape, work)

    def backward(self, flowing: Floats, features: Floats, *, in_training: bool) -> ResidualGradients:
        """Return the gradients, `flowing` being that of the features with the residual.

        The residual is taken from the features again: they are what the convolution before it had seen, but for
        rounding.
        """
        mean, inverse_std, scale, shift = self.scaling
        scales, shifts = scale.numpy(), shift.numpy()

        def work(strips: Sequence[Strip]) -> tuple[Floats, Floats]:
            g_shift, product = np.zeros_like(scales), np.zeros_like(scales)
            for strip in strips:
                hidden, gradient, sums = (pixels(each[strip]) for each in (self.hidden, flowing, features))
                pointwise.take_residual(hidden, scales, shifts, gradient, sums, g_shift, product)
            return g_shift, product

        g_beta, product = map(torch.from_numpy, by_strips(features.shape, work))
        g_gamma = (product - mean * g_beta) * inverse_std
        if in_training:
            # With n = (y - mean) / std: dL/dy = scale (g - mean(g) - n mean(g n)), which is linear in g and y. The mean
            # takes a bias before it away again: a gradient of zero, where autograd would find rounding noise.
            count = self.hidden[..., 0].size
            slope = -scale * inverse_std * g_gamma / count
            offset, g_bias = -scale * g_beta / count - slope * mean, torch.zeros_like(scale)
        else:
            # Running statistics do not depend on y: dL/dy = scale g.
            slope, offset, g_bias = torch.zeros_like(scale), torch.zeros_like(scale), scale * g_beta
        slopes, offsets = slope.numpy(), offset.numpy()

        def g_hidden(number: int, rows: slice) -> Floats:
            found = np.empty_like(self.hidden[number, rows])
            hidden, gradient = pixels(self.hidden[number, rows]), pixels(flowing[number, rows])
            pointwise.hidden_gradient(hidden, scales, shifts, slopes, offsets, gradient, pixels(found))
            return found

        return ResidualGradients(g_gamma, g_beta, g_bias, g_hidden)
