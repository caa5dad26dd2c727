"""Channels' averages in DarkIR: of the picture at hand, or of another, so that tiles can share those of the whole."""

from collections.abc import Callable, Iterable

from torch import Tensor

from lowlight_cli.backends.darkir import kernels

Pool = Callable[[Tensor], Tensor]


def pool_here(x: Tensor) -> Tensor:
    """Average each channel over the map at hand: `(N, C, H, W)` -> `(N, C, 1, 1)`."""
    return kernels.mean(x) if kernels.is_quick_for(x) else x.mean((2, 3), keepdim=True)


class PoolRecord:
    """Pooled vectors in the order in which the network asks for them.

    `record` notes the average over everything in a batch as one vector; `pool_from` hands them out again.
    """

    def __init__(self) -> None:
        self.vectors: list[Tensor] = []

    def record(self, x: Tensor) -> Tensor:
        vector = x.mean((0, 2, 3), keepdim=True)
        self.vectors.append(vector)
        return vector


def pool_from(vectors: Iterable[Tensor]) -> Pool:
    """Hand out pooled vectors in the order in which the network asks for them, for one pass."""
    coming = iter(vectors)
    return lambda _: next(coming)
