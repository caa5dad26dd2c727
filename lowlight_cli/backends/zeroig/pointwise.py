"""What ZERO-IG's hidden stacks do pixel by pixel, each in one pass over memory; on a CPU.

Hidden pixels are `(pixels, C)`, contiguous; what each channel has of its own is `(C,)`.
"""

import numpy as np

from lowlight_cli.loops import Floats, compiled


@compiled
def leaky_relu(given: Floats, slope: float, out: Floats) -> None:
    """Write leaky ReLU of all numbers."""
    numbers, results = given.reshape(-1), out.reshape(-1)
    factor = given.dtype.type(slope)
    for each in range(len(numbers)):
        number = numbers[each]
        results[each] = number if number > 0 else number * factor


@compiled
def leaky_relu_of_sum(numbers: Floats, bias: Floats, slope: float) -> None:
    """Turn numbers into leaky ReLU of their sum with `bias`."""
    factor, zero = numbers.dtype.type(slope), numbers.dtype.type(0)
    for pixel in range(len(numbers)):
        here = numbers[pixel]
        for c in range(len(here)):
            number = here[c] + bias[c]
            here[c] = number if number > zero else number * factor


@compiled
def leaky_relu_gradient(result: Floats, slope: float, gradient: Floats, g_bias: Floats) -> None:
    """Turn the gradient of leaky ReLU's result into that of its argument, and add it up in `g_bias`.

    `result` may be the argument as well: it has the same sign.
    """
    factor = gradient.dtype.type(slope)
    total = np.zeros_like(g_bias)
    for pixel in range(len(gradient)):
        signs, flowing = result[pixel], gradient[pixel]
        for c in range(len(flowing)):
            flowing[c] = flowing[c] if signs[c] > 0 else flowing[c] * factor
        for c in range(len(flowing)):
            total[c] += flowing[c]
    g_bias += total


@compiled
def moments(hidden: Floats, mean: Floats, variance: Floats) -> None:
    """Write mean and variance of each channel."""
    count = hidden.dtype.type(len(hidden))
    mean[:] = 0
    for pixel in range(len(hidden)):
        mean += hidden[pixel]
    mean /= count
    variance[:] = 0
    for pixel in range(len(hidden)):
        numbers = hidden[pixel]
        for c in range(len(numbers)):
            distance = numbers[c] - mean[c]
            variance[c] += distance * distance
    variance /= count


@compiled
def add_residual(hidden: Floats, scale: Floats, shift: Floats, features: Floats) -> None:
    """Add relu(scale hidden + shift) to the features."""
    zero = hidden.dtype.type(0)
    for pixel in range(len(hidden)):
        numbers, sums = hidden[pixel], features[pixel]
        for c in range(len(numbers)):
            residual = numbers[c] * scale[c] + shift[c]
            sums[c] += zero if residual < zero else residual


@compiled
def take_residual(
    hidden: Floats, scale: Floats, shift: Floats, flowing: Floats, features: Floats, g_shift: Floats, product: Floats
) -> None:
    """Take relu(scale hidden + shift) from the features again, given the gradient of their sum.

    Adds the gradient of `scale hidden + shift` up in `g_shift`, and its products with `hidden` in `product`.
    """
    gradients, products = np.zeros_like(g_shift), np.zeros_like(product)
    masked, residual, zero = np.empty_like(g_shift), np.empty_like(g_shift), hidden.dtype.type(0)
    for pixel in range(len(hidden)):
        numbers, sums, gradient = hidden[pixel], features[pixel], flowing[pixel]
        for c in range(len(numbers)):
            normalised = numbers[c] * scale[c] + shift[c]
            residual[c] = zero if normalised < zero else normalised
        for c in range(len(numbers)):
            sums[c] -= residual[c]
        for c in range(len(numbers)):
            masked[c] = gradient[c] if residual[c] > zero else zero
        for c in range(len(numbers)):
            gradients[c] += masked[c]
        for c in range(len(numbers)):
            products[c] += masked[c] * numbers[c]
    g_shift += gradients
    product += products


@compiled
def hidden_gradient(
    hidden: Floats, scale: Floats, shift: Floats, slope: Floats, offset: Floats, flowing: Floats, out: Floats
) -> None:
    """Write slope hidden + offset, plus `scale` times `flowing` wherever relu(scale hidden + shift) lets it through."""
    zero = hidden.dtype.type(0)
    for pixel in range(len(hidden)):
        numbers, gradient, found = hidden[pixel], flowing[pixel], out[pixel]
        for c in range(len(numbers)):
            through = gradient[c] if numbers[c] * scale[c] + shift[c] > zero else zero
            found[c] = through * scale[c] + (numbers[c] * slope[c] + offset[c])
