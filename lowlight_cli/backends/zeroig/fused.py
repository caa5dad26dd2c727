"""The hidden stacks of ZERO-IG as single autograd functions: the same numbers, a third of the memory traffic.

On a CPU a third of a training step is not convolution but reading and writing 64-channel pictures. Here whatever
lies between two convolutions is done while a few rows are in the processor's cache, and only what the backward pass
cannot recompute for next to nothing is kept: the convolutions' outputs, not each activation. Each core has rows of its
own.

Pictures of a few channels are tensors `(N, C, H, W)`, hidden ones arrays `(N, H, W, C)`: a slice of an array costs a
tenth of a tensor's, and does not let go of Python's lock. First derivatives only.
"""

from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from lowlight_cli.backends.zeroig.edges import Stem, StemGradients, head, head_gradients
from lowlight_cli.backends.zeroig.pointwise import leaky_relu, leaky_relu_gradient
from lowlight_cli.backends.zeroig.residual import Moments, Normalisation, Residual, Scaling
from lowlight_cli.backends.zeroig.strips import pixels, sums
from lowlight_cli.backends.zeroig.winograd import Convolution, RowsOf
from lowlight_cli.buffers import Buffers
from lowlight_cli.loops import Floats
from lowlight_cli.parallel import a_core_each


class _Kept(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    hidden: Floats | None  # what the backward pass needs once more


class _Denoiser(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: "_DenoiserKept",
        image: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        w3: Tensor,
        b3: Tensor,
        slope: float,
        buffers: Buffers,
    ) -> Tensor:
        stem = Stem(image, w1, b1, slope)
        second = buffers.empty(stem.shape(len(b2)), stem.image.dtype, roomy=True)
        noise = image.new_empty(stem.shape(len(b3)))

        def finish(number: int, rows: slice) -> None:
            before = pixels(second[number, rows])
            hidden = np.empty_like(before)
            leaky_relu(before, slope, hidden)
            torch.addmm(b3, torch.from_numpy(hidden), w3.flatten(1).t(), out=noise[number, rows].flatten(0, 1))

        Convolution(w2).forward(stem.rows, b2.detach().numpy(), second, then=finish)
        ctx.hidden, ctx.slope = second, slope
        ctx.save_for_backward(image, w1, b1, w2, w3)
        return noise.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: "_DenoiserKept", gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, w1, b1, w2, w3 = ctx.saved_tensors
        second = _taken(ctx)
        stem, convolution = Stem(image, w1, b1, ctx.slope), Convolution(w2)
        g_noise = gradient.permute(0, 2, 3, 1).contiguous()

        def begin() -> _DenoiserPart:
            g_stem = StemGradients(stem, for_image=ctx.needs_input_grad[0])
            return _DenoiserPart(g_stem, second, g_noise.numpy(), w3.flatten(1))

        parts = convolution.backward(begin, second.shape)
        g_w3, g_b2 = sums((part.g_head, part.g_bias) for part in parts)
        g_stem = StemGradients.of_all([part.stem_gradients for part in parts])
        g_b3 = gradient.sum(dim=(0, 2, 3))
        return *g_stem, convolution.weight_gradient(), g_b2, g_w3.view_as(w3), g_b3, None, None


class _DenoiserKept(_Kept):
    slope: float


class _DenoiserPart:
    """One core's part of a denoiser's backward pass, around its second convolution."""

    def __init__(self, stem_gradients: StemGradients, second: Floats, g_noise: Floats, head: Tensor) -> None:
        self.stem_gradients = stem_gradients
        self.image = stem_gradients.stem.rows
        self.g_head, self.g_bias = torch.zeros_like(head), torch.zeros_like(head[0])
        self._second, self._g_noise, self._head = second, g_noise, head
        self._slope = stem_gradients.stem.slope

    def gradient(self, number: int, rows: slice) -> Floats:
        """Return the gradient of the second convolution's result."""
        before, g_noise = pixels(self._second[number, rows]), torch.from_numpy(pixels(self._g_noise[number, rows]))
        hidden = np.empty_like(before)
        leaky_relu(before, self._slope, hidden)
        self.g_head.addmm_(g_noise.t(), torch.from_numpy(hidden))
        found: Floats = torch.mm(g_noise, self._head, out=torch.from_numpy(hidden)).numpy()
        leaky_relu_gradient(before, self._slope, found, self.g_bias.numpy())
        return found.reshape(self._second[number, rows].shape)

    def take(self, number: int, rows: slice, gradient: Floats, image: Floats) -> None:
        """Go on to the first convolution."""
        self.stem_gradients.add(number, rows, gradient, image)


class _Illuminator(torch.autograd.Function):
    """Of the features, which every residual adds to, only the last are kept.

    The backward pass takes one residual after the other away. Where ReLU was zero only the first features themselves
    can tell, since the sums have rounded: they are made a second time.
    """

    @staticmethod
    @a_core_each()
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
        buffers: Buffers,
    ) -> Tensor:
        stem, convolution = Stem(image, w_in, b_in, 0.0), Convolution(w)
        shape, kind = stem.shape(len(b)), stem.image.dtype
        features = buffers.empty(shape, kind, roomy=True)
        stem.write(features)
        ctx.residuals = []
        for _ in range(repeats):
            hidden = buffers.empty(shape, kind, roomy=True)
            moments = Moments(hidden)
            convolution.forward(
                lambda number, rows: features[number, rows],
                b.detach().numpy(),
                hidden,
                then=moments.take if norm.training else None,
            )
            found = moments.count_among(norm) if norm.training else (norm.running_mean, norm.running_var)
            residual = Residual(hidden, Scaling.by(found, gamma, beta, norm.eps))
            residual.add(features)
            ctx.residuals.append(residual)
        ctx.hidden, ctx.buffers, ctx.in_training = features, buffers, norm.training
        ctx.save_for_backward(image, w_in, b_in, w, w_out)
        return head(features, w_out, b_out)

    @staticmethod
    @once_differentiable
    @a_core_each()
    def backward(ctx: "_IlluminatorKept", gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, w_in, b_in, w, w_out = ctx.saved_tensors
        features, residuals = _taken(ctx), ctx.residuals
        stem, convolution = Stem(image, w_in, b_in, 0.0), Convolution(w)
        flowing = ctx.buffers.empty(features.shape, features.dtype, roomy=True)
        g_w_out = head_gradients(gradient, features, w_out, flowing)
        g_gamma, g_beta, g_b = (torch.zeros_like(b_in) for _ in range(3))
        parts: list[_IlluminatorPart] = []
        while residuals:
            found = residuals.pop().backward(flowing, features, in_training=ctx.in_training)
            g_gamma += found.gamma
            g_beta += found.beta
            g_b += found.bias

            def begin(g_hidden: RowsOf = found.hidden, first: bool = not residuals) -> _IlluminatorPart:
                g_stem = StemGradients(stem, for_image=ctx.needs_input_grad[0]) if first else None
                return _IlluminatorPart(g_hidden, features, flowing, g_stem)

            parts = convolution.backward(begin, features.shape)
        g_stem = StemGradients.of_all([part.stem_gradients for part in parts if part.stem_gradients])
        g_w, g_b_out = convolution.weight_gradient(), gradient.sum(dim=(0, 2, 3))
        return *g_stem, g_w, g_b, g_gamma, g_beta, g_w_out, g_b_out, None, None, None


class _IlluminatorPart:
    """One core's part of the backward pass around one of the illuminator's convolutions.

    `flowing` is the gradient of the features, which the convolution adds to; from the first one it goes to the stem.
    """

    def __init__(
        self, g_hidden: RowsOf, features: Floats, flowing: Floats, stem_gradients: StemGradients | None
    ) -> None:
        self.gradient = g_hidden
        self.stem_gradients = stem_gradients
        self._features, self._flowing = features, flowing

    def image(self, number: int, rows: slice) -> Floats:
        """Return the features that the convolution saw."""
        return self._features[number, rows]

    def take(self, number: int, rows: slice, gradient: Floats, image: Floats) -> None:  # noqa: ARG002
        """Add the convolution's share of the features' gradient."""
        flowing = self._flowing[number, rows]
        flowing += gradient
        if self.stem_gradients:
            self.stem_gradients.add(number, rows, flowing, self.stem_gradients.stem.rows(number, rows))


class _IlluminatorKept(_Kept):
    in_training: bool
    residuals: list[Residual]
    buffers: Buffers


def _taken(ctx: _Kept) -> Floats:
    """Return the hidden picture that was kept, and let go of it: its memory, and what lies in it, is used again."""
    taken, ctx.hidden = ctx.hidden, None
    if taken is None:
        raise RuntimeError("a fused stack has one backward pass for each forward pass")
    return taken


def denoiser(
    image: Tensor, layers: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], slope: float, buffers: Buffers
) -> Tensor:
    """Return conv1x1(leaky(conv3x3(leaky(conv3x3(image))))); `layers` are weight and bias of each, in order."""
    return cast(Tensor, _Denoiser.apply(image, *layers, slope, buffers))  # type: ignore[no-untyped-call]


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


def illuminator(
    image: Tensor, layers: IlluminatorLayers, norm: Normalisation, buffers: Buffers, *, repeats: int
) -> Tensor:
    """Return conv_out(x), where x = relu(conv_in(image)) and then `repeats` times x += relu(batch_norm(conv(x)))."""
    return cast(Tensor, _Illuminator.apply(image, *layers, norm, repeats, buffers))  # type: ignore[no-untyped-call]
