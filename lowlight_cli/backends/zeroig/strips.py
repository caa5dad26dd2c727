"""Work on hidden pictures strip by strip, while a strip is in the cache, shared out over the cores."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lowlight_cli.loops import Floats
from lowlight_cli.parallel import share_out

_STRIP_PIXELS = 4096  # times 64 channels in fp32: 1 MB; smaller strips cost more in calls than they save
Strip = tuple[int, slice]  # the number of a picture and some of its rows


def by_strips(shape: tuple[int, ...], work: Callable[[Sequence[Strip]], tuple[Any, ...]]) -> tuple[Any, ...]:
    """Share out the strips of pictures `(N, H, W, C)`; return the sums of what `work` finds in each share."""
    return sums(share_out(work, list(_strips(shape))))


def sums(parts: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return the sums of the first, of the second ... arrays or tensors of all parts; the first part's are reused."""
    first, *others = parts
    for other in others:
        for total, share in zip(first, other, strict=True):
            total += share
    return first


def pixels(hidden: Floats) -> Floats:
    """Return a hidden picture, or rows of one, as `(pixels, C)`, the same memory."""
    return hidden.reshape(-1, hidden.shape[-1])


def _strips(shape: tuple[int, ...]) -> Iterator[Strip]:
    number, height, width, _ = shape
    count = max(_STRIP_PIXELS // width, 1)
    for each in range(number):
        for top in range(0, height, count):
            yield each, slice(top, min(top + count, height))
