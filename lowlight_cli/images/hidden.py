"""Colours that alpha hides, drawn from those that are seen: what nobody sees must not change what is."""

from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

_BAND_PIXELS = 1 << 20

Levels = TypeVar("Levels", NDArray[np.uint8] | NDArray[np.uint16], NDArray[np.float32])
Cells: TypeAlias = NDArray[np.float32]


def without_hidden(pixels: Levels, alpha: NDArray[Any]) -> Levels:
    """Return `(H, W, C)` with other colours where alpha `(H, W)` is 0: those of what is seen nearby, ever more blurred.

    Pull and push: cells of twice the side average what is seen in them, until every cell sees something; then what is
    hidden takes the colour of its cell. Returned as it is where nothing is hidden, or everything.
    """
    if alpha.all() or not alpha.any():
        return pixels
    step = max(1, _BAND_PIXELS // pixels.shape[1] // 2) * 2
    bands = [slice(top, top + step) for top in range(0, pixels.shape[0], step)]
    pulled = [_pulled(pixels[rows].astype(np.float32), alpha[rows] > 0) for rows in bands]
    means = _filled(*(np.concatenate(part) for part in zip(*pulled, strict=True)))
    filled = pixels.copy()
    for rows in bands:
        own = _doubled(means[rows.start // 2 : rows.stop // 2], alpha[rows].shape)
        if np.issubdtype(pixels.dtype, np.integer):
            own = np.rint(own)
        np.copyto(filled[rows], own.astype(pixels.dtype), where=alpha[rows, :, None] == 0)
    return filled


def _filled(means: Cells, seen: NDArray[np.bool_]) -> Cells:
    """Give cells that see nothing the mean of a larger one."""
    if seen.all():
        return means
    return np.where(seen[..., None], means, _doubled(_filled(*_pulled(means, seen)), seen.shape))


def _pulled(cells: Cells, seen: NDArray[np.bool_]) -> tuple[Cells, NDArray[np.bool_]]:
    """Return the mean of what is seen in every two by two cells, at odd ends in fewer, and where anything is."""
    share: Cells = seen[..., None].astype(np.float32)
    counts = _sums(share)
    means = np.divide(_sums(cells * share), np.maximum(counts, 1), dtype=np.float32)
    return means, counts[..., 0] > 0


def _sums(cells: Cells) -> Cells:
    rows = cells[0::2].copy()
    rows[: len(cells) // 2] += cells[1::2]
    both = rows[:, 0::2].copy()
    both[:, : rows.shape[1] // 2] += rows[:, 1::2]
    return both


def _doubled(cells: Cells, size: tuple[int, ...]) -> Cells:
    return cells.repeat(2, axis=0).repeat(2, axis=1)[: size[0], : size[1]]
