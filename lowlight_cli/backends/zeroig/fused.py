"""The hidden stacks of ZERO-IG as single autograd functions: the same numbers, a third of the memory traffic.

On a CPU a third of a training step is not convolution but reading and writing 64-channel pictures. Here whatever
lies between two convolutions is done while a few rows are in the processor's cache, and only what the backward pass
cannot recompute for next to nothing is kept: the convolutions' outputs, not each activation. Each core has rows of its
own.

Pictures of a few channels are `(N, C, H, W)`. Hidden ones lie in `phases`, `(N, H, 4, T, C)`, with zeros beyond their
width: each function that writes one sees to them. First derivatives only.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from lowlight_cli.backends.zeroig import phases, winograd
from lowlight_cli.parallel import a_core_each, share_out

SLOPE = 0.2
_STRIP_PIXELS = 4096  # times 64 channels in fp32: 1 MB; smaller strips cost more in calls than they save
_Strip = tuple[int, slice]  # the number of a picture and some of its rows


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
        stem = _Stem(image, w1, b1, SLOPE)
        second, noise = stem.empty(len(b2)), stem.empty(len(b3))

        def finish(number: int, rows: slice) -> None:
            hidden = F.leaky_relu(_pixels(second[number, rows]), SLOPE)
            torch.addmm(b3, hidden, w3.flatten(1).t(), out=_pixels(noise[number, rows]))

        winograd.Convolution(w2).forward(stem.rows, b2, second, width=stem.width, then=finish)
        ctx.save_for_backward(image, second, w1, b1, w2, w3)
        return phases.to_picture(noise, stem.width)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Kept, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, second, w1, b1, w2, w3 = ctx.saved_tensors
        stem, convolution, g_noise = _Stem(image, w1, b1, SLOPE), winograd.Convolution(w2), phases.to_phases(gradient)

        def begin() -> _DenoiserPart:
            return _DenoiserPart(
                _StemGradients(stem, for_image=ctx.needs_input_grad[0]), second, g_noise, w3.flatten(1)
            )

        parts = convolution.backward(begin, second.shape, width=stem.width)
        g_w3, g_b2 = _sums((part.g_head, part.g_bias) for part in parts)
        g_stem = _StemGradients.of_all([part.stem_gradients for part in parts])
        g_b3 = gradient.sum(dim=(0, 2, 3))
        return *g_stem, convolution.weight_gradient(), g_b2, g_w3.view_as(w3), g_b3


class _DenoiserPart:
    """One core's part of a denoiser's backward pass, around its second convolution."""

    def __init__(self, stem_gradients: "_StemGradients", second: Tensor, g_noise: Tensor, head: Tensor) -> None:
        self.stem_gradients = stem_gradients
        self.image = stem_gradients.stem.rows
        self.g_head, self.g_bias = torch.zeros_like(head), torch.zeros_like(head[0])
        self._second, self._g_noise, self._head = second, g_noise, head

    def gradient(self, number: int, rows: slice) -> Tensor:
        """Return the gradient of the second convolution's result."""
        before, g_noise = _pixels(self._second[number, rows]), _pixels(self._g_noise[number, rows])
        self.g_head.addmm_(g_noise.t(), F.leaky_relu(before, SLOPE))
        found = _leaky_backward_(g_noise @ self._head, before, SLOPE)
        self.g_bias += found.sum(dim=0)
        return found.view_as(self._second[number, rows])

    def take(self, number: int, rows: slice, gradient: Tensor, image: Tensor) -> None:
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
    ) -> Tensor:
        stem, convolution = _Stem(image, w_in, b_in, 0.0), winograd.Convolution(w)
        features = stem.whole()
        ctx.residuals = []
        for _ in range(repeats):
            hidden = torch.empty_like(features)
            moments = _Moments(hidden, stem.width)
            convolution.forward(
                lambda number, rows: features[number, rows], b, hidden, width=stem.width, then=moments.take
            )
            residual = _Residual(hidden, moments.statistics(gamma, beta, norm), stem.width)
            residual.add(features)
            ctx.residuals.append(residual)
        ctx.features = features
        ctx.save_for_backward(image, w_in, b_in, w, w_out)
        return _head(features, w_out, b_out, stem.width)

    @staticmethod
    @once_differentiable
    @a_core_each()
    def backward(ctx: "_IlluminatorKept", gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, w_in, b_in, w, w_out = ctx.saved_tensors
        features, residuals = _taken(ctx)
        stem, convolution = _Stem(image, w_in, b_in, 0.0), winograd.Convolution(w)
        flowing, g_w_out = _head_backward(gradient, features, w_out)
        g_gamma, g_beta = torch.zeros_like(b_in), torch.zeros_like(b_in)
        parts: list[_IlluminatorPart] = []
        while residuals:
            residual = residuals.pop()
            g_scale, g_shift, g_hidden = residual.backward(flowing, features)
            g_gamma += g_scale
            g_beta += g_shift

            def begin(g_hidden: winograd.RowsOf = g_hidden, first: bool = not residuals) -> _IlluminatorPart:
                g_stem = _StemGradients(stem, for_image=ctx.needs_input_grad[0]) if first else None
                return _IlluminatorPart(g_hidden, features, flowing, g_stem)

            parts = convolution.backward(begin, features.shape, width=stem.width)
        g_stem = _StemGradients.of_all([part.stem_gradients for part in parts if part.stem_gradients])
        # Batch norm takes a bias before it away again: its gradient is zero, where autograd would find rounding noise.
        g_b = torch.zeros_like(g_gamma)
        g_w, g_b_out = convolution.weight_gradient(), gradient.sum(dim=(0, 2, 3))
        return *g_stem, g_w, g_b, g_gamma, g_beta, g_w_out, g_b_out, None, None


class _IlluminatorPart:
    """One core's part of the backward pass around one of the illuminator's convolutions.

    `flowing` is the gradient of the features, which the convolution adds to; from the first one it goes to the stem.
    """

    def __init__(
        self, g_hidden: winograd.RowsOf, features: Tensor, flowing: Tensor, stem_gradients: "_StemGradients | None"
    ) -> None:
        self.gradient = g_hidden
        self.stem_gradients = stem_gradients
        self._features, self._flowing = features, flowing

    def image(self, number: int, rows: slice) -> Tensor:
        """Return the features that the convolution saw."""
        return self._features[number, rows]

    def take(self, number: int, rows: slice, gradient: Tensor, image: Tensor) -> None:  # noqa: ARG002
        """Add the convolution's share of the features' gradient."""
        flowing = self._flowing[number, rows]
        flowing += gradient
        if self.stem_gradients:
            self.stem_gradients.add(number, rows, flowing, self.stem_gradients.stem.rows(number, rows))


class _IlluminatorKept(_Kept):
    features: Tensor | None  # after the last residual
    residuals: "list[_Residual]"


def _taken(ctx: _IlluminatorKept) -> "tuple[Tensor, list[_Residual]]":
    """Return the features, which the backward pass writes over, and let go of them."""
    features, ctx.features = ctx.features, None
    if features is None:
        raise RuntimeError("a fused illuminator has one backward pass for each forward pass")
    return features, ctx.residuals


def denoiser(image: Tensor, layers: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Return conv1x1(leaky(conv3x3(leaky(conv3x3(image))))); `layers` are weight and bias of each, in order."""
    return cast(Tensor, _Denoiser.apply(image, *layers))  # type: ignore[no-untyped-call]


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
    return cast(Tensor, _Illuminator.apply(image, *layers, norm, repeats))  # type: ignore[no-untyped-call]


def _pixels(hidden: Tensor) -> Tensor:
    return hidden.view(-1, hidden.shape[-1])


def _strips(shape: torch.Size) -> Iterator[_Strip]:
    number, height, phase_count, across, _ = shape
    count = max(_STRIP_PIXELS // (phase_count * across), 1)
    for each in range(number):
        for top in range(0, height, count):
            yield each, slice(top, min(top + count, height))


def _by_strips(shape: torch.Size, work: Callable[[Sequence[_Strip]], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Share out the strips of hidden pictures over the cores; return the sums of what `work` finds in each share."""
    return _sums(share_out(work, list(_strips(shape))))


def _sums(parts: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    first, *others = parts
    for other in others:
        for total, share in zip(first, other, strict=True):
            total += share
    return first


def _leaky_backward_(gradient: Tensor, output: Tensor, slope: float) -> Tensor:
    """Multiply by a leaky ReLU's derivative, told by its output or, which has the same sign, by its input."""
    torch.ops.aten.leaky_relu_backward.grad_input(gradient, output, slope, True, grad_input=gradient)
    return gradient


class _Statistics(NamedTuple):
    """Of one batch, per channel; scale and shift turn a convolution's output into the normalised one."""

    mean: Tensor
    inverse_std: Tensor
    scale: Tensor
    shift: Tensor


class _Moments:
    """Gathers mean and variance of a hidden picture, per channel, from its rows as they are made."""

    def __init__(self, hidden: Tensor, width: int) -> None:
        self._hidden = hidden
        self._count, self._places = _pixel_count(hidden, width), hidden[..., 0].numel()
        self._found: dict[tuple[int, int], tuple[int, Tensor, Tensor]] = {}

    def take(self, number: int, rows: slice) -> None:
        """Take rows of a picture; each once, by any core."""
        pixels = _pixels(self._hidden[number, rows])
        channels_last = pixels.t()[None, :, :, None]  # `var_mean` takes 30 times as long
        mean, variance = torch.batch_norm_update_stats(channels_last, None, None, 0)
        self._found[number, rows.start] = len(pixels), mean, variance

    def statistics(self, gamma: Tensor, beta: Tensor, norm: Normalisation) -> _Statistics:
        """Return the batch's statistics, once all rows were taken, and count them among the running ones."""
        in_order = (self._found[key] for key in sorted(self._found))  # however the cores took turns
        counts, *moments = zip(*in_order, strict=True)
        shares, (means, variances) = gamma.new_tensor(counts)[:, None] / self._places, map(torch.stack, moments)
        mean = (shares * means).sum(dim=0)
        variance = (shares * (variances + (means - mean).square())).sum(dim=0)
        if self._places > self._count:  # the zeros beyond the picture were counted
            squares = (variance + mean.square()) * (self._places / self._count)
            mean = mean * (self._places / self._count)
            variance = squares - mean.square()
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (self._count / (self._count - 1)), norm.momentum)
        inverse_std = (variance + norm.eps).rsqrt()
        scale = gamma * inverse_std
        return _Statistics(mean, inverse_std, scale, beta - mean * scale)


def _pixel_count(hidden: Tensor, width: int) -> int:
    return len(hidden) * hidden.shape[1] * width


class _Residual(NamedTuple):
    """relu(batch norm(hidden)), made wherever it is needed and never kept."""

    hidden: Tensor  # what the convolution made
    statistics: _Statistics
    width: int

    def add(self, features: Tensor) -> None:
        """Add it to the features."""

        def work(strips: Sequence[_Strip]) -> tuple[()]:
            for strip in strips:
                _pixels(features[strip]).add_(self._of(_pixels(self.hidden[strip])))
            return ()

        _by_strips(features.shape, work)
        phases.clear_beyond_(features, self.width)

    def backward(self, flowing: Tensor, features: Tensor) -> tuple[Tensor, Tensor, winograd.RowsOf]:
        """Return the gradients of batch norm's weight and bias, and a source of those of `hidden`.

        `flowing` is the gradient of the features with the residual. It is taken from them again: what the convolution
        before it had seen, but for rounding.
        """
        mean, inverse_std, scale, _ = self.statistics

        def work(strips: Sequence[_Strip]) -> tuple[Tensor, Tensor]:
            g_beta, product = torch.zeros_like(mean), torch.zeros_like(mean)
            for strip in strips:
                convolved = _pixels(self.hidden[strip])
                residual = self._of(convolved)
                _pixels(features[strip]).sub_(residual)
                masked = torch.ops.aten.threshold_backward(_pixels(flowing[strip]), residual, 0)
                g_beta += masked.sum(dim=0)
                product += masked.mul_(convolved).sum(dim=0)
            return g_beta, product

        g_beta, product = _by_strips(features.shape, work)
        phases.clear_beyond_(features, self.width)
        # With n = (y - mean) / std: dL/dy = scale (g - mean(g) - n mean(g n)), which is linear in g and y.
        g_gamma = (product - mean * g_beta) * inverse_std
        count = _pixel_count(self.hidden, self.width)
        slope = -scale * inverse_std * g_gamma / count
        offset = -scale * g_beta / count - slope * mean

        def g_hidden(number: int, rows: slice) -> Tensor:
            given, convolved = _pixels(flowing[number, rows]), _pixels(self.hidden[number, rows])
            masked = torch.ops.aten.threshold_backward(given, self._of(convolved), 0)
            found = torch.addcmul(offset, convolved, slope).addcmul_(masked, scale)
            return phases.clear_beyond_(found.view_as(flowing[number, rows]), self.width)

        return g_gamma, g_beta, g_hidden

    def _of(self, hidden: Tensor) -> Tensor:
        return torch.addcmul(self.statistics.shift, hidden, self.statistics.scale).relu_()


class _Stem:
    """leaky(conv3x3(image)) of a picture of few channels: so cheap that it is made row by row wherever it is needed."""

    def __init__(self, image: Tensor, weight: Tensor, bias: Tensor, slope: float) -> None:
        self.weight, self.slope, self.width = weight, slope, image.shape[-1]
        self.windows = phases.windows(image)
        self.kernel = weight.flatten(1).t()
        self._bias = bias

    def empty(self, channels: int) -> Tensor:
        """Return room for a hidden picture of the image's size."""
        number, _, height, _, across = self.windows.shape
        return self._bias.new_empty(number, height - 2, phases.PHASES, across, channels)

    def rows(self, number: int, rows: slice) -> Tensor:
        """Return these rows of the result for one of the images: `(rows, 4, T, channels)`."""
        patches = phases.patches(self.windows[number], rows)
        made = F.leaky_relu_(torch.addmm(self._bias, patches.t(), self.kernel), self.slope)
        phased = made.view(rows.stop - rows.start, phases.PHASES, -1, len(self._bias))
        return phases.clear_beyond_(phased, self.width)

    def whole(self) -> Tensor:
        """Return all rows of all images."""
        made = self.empty(len(self._bias))

        def work(strips: Sequence[_Strip]) -> tuple[()]:
            for strip in strips:
                made[strip] = self.rows(*strip)
            return ()

        _by_strips(made.shape, work)
        return made


class _StemGradients:
    """The gradients of a `_Stem` for its image, weight and bias, added up over some of its rows."""

    def __init__(self, stem: _Stem, *, for_image: bool) -> None:
        self.stem = stem
        self._kernel, self._bias = torch.zeros_like(stem.kernel), torch.zeros_like(stem.kernel[0])
        self._windows = torch.zeros_like(stem.windows) if for_image else None

    def add(self, number: int, rows: slice, gradient: Tensor, output: Tensor) -> None:
        """Take rows of the result's gradient and of the result itself; the gradient is overwritten."""
        given = _leaky_backward_(_pixels(gradient), _pixels(output), self.stem.slope)
        self._kernel.addmm_(phases.patches(self.stem.windows[number], rows), given)
        self._bias += given.sum(dim=0)
        if self._windows is not None:
            phases.add_patches(self._windows[number], rows, self.stem.kernel @ given.t())

    @staticmethod
    def of_all(parts: "Sequence[_StemGradients]") -> tuple[Tensor | None, Tensor, Tensor]:
        """Return the gradients for image, weight and bias that the parts have found together."""
        stem = parts[0].stem
        kernel, bias, *windows = _sums((part._kernel, part._bias, *_given(part._windows)) for part in parts)
        g_image = phases.sum_windows(windows[0], stem.width) if windows else None
        return g_image, kernel.t().reshape(stem.weight.shape), bias


def _given(tensor: Tensor | None) -> tuple[Tensor, ...]:
    return () if tensor is None else (tensor,)


def _head(features: Tensor, weight: Tensor, bias: Tensor, width: int) -> Tensor:
    """Return conv3x3(features), a picture of a few channels: each pixel's share of its neighbours, added up."""
    number, height, phase_count, across, _ = features.shape
    kernel = _head_kernel(weight)

    def work(strips: Sequence[_Strip]) -> tuple[Tensor]:
        windows = bias.new_zeros(number, len(bias), height + 2, phase_count + 2, across)
        for each, rows in strips:
            phases.add_patches(windows[each], rows, kernel @ _pixels(features[each, rows]).t())
        return (windows,)

    (windows,) = _by_strips(features.shape, work)
    return phases.sum_windows(windows, width) + bias.view(-1, 1, 1)


def _head_backward(gradient: Tensor, features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of `_head` for its features and weight."""
    windows, kernel, g_features = phases.windows(gradient), _head_kernel(weight), torch.empty_like(features)

    def work(strips: Sequence[_Strip]) -> tuple[Tensor]:
        g_kernel = torch.zeros_like(kernel)
        for number, rows in strips:
            patches = phases.patches(windows[number], rows)
            torch.mm(patches.t(), kernel, out=_pixels(g_features[number, rows]))
            g_kernel.addmm_(patches, _pixels(features[number, rows]))
        return (g_kernel,)

    (g_kernel,) = _by_strips(features.shape, work)
    phases.clear_beyond_(g_features, gradient.shape[-1])
    outputs, inputs = weight.shape[:2]
    return g_features, g_kernel.view(outputs, 3, 3, inputs).flip(1, 2).permute(0, 3, 1, 2).contiguous()


def _head_kernel(weight: Tensor) -> Tensor:
    """Return what a pixel of the features gives to its neighbours: `(outputs * 9, inputs)`."""
    return weight.flip(2, 3).transpose(0, 1).flatten(1).t()
