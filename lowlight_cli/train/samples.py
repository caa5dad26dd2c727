"""Samples and batches, and the pools they are drawn from."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from lowlight_cli.errors import InputError
from lowlight_cli.train.events import LeftOut
from lowlight_cli.train.recipe import Recipe

logger = logging.getLogger(__name__)

_VALIDATION_SHARE = 20

T = TypeVar("T")


class Sample(NamedTuple):
    """A dark crop, already lifted, and its reference, `(3, h, w)` sRGB in [0, 1]; `stops` is the lift."""

    lifted: Tensor
    reference: Tensor
    stops: float


class Batch(NamedTuple):
    """Samples stacked: `(n, 3, h, w)` twice, and `(n,)` stops."""

    lifted: Tensor
    reference: Tensor
    stops: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return Batch(*(part.to(device, non_blocking=device.type == "cuda") for part in self))


class Source(Protocol):
    """Something that samples can be drawn from."""

    def sample(self, recipe: Recipe, crop: int, rng: Generator) -> Sample:
        """Draw a square sample with sides of `crop` pixels; raises InputError, which names the file."""


def place_crop(height: int, width: int, crop: int, rng: Generator) -> tuple[int, int]:
    """Draw the top left corner of a square crop from a picture that has room for it."""
    return int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1))


def part_held_out(items: Sequence[T]) -> tuple[list[T], list[T]]:
    """Part what nobody has parted: those to train on, and every twentieth, of fewer the last, held out."""
    held_out = set(range(_VALIDATION_SHARE - 1, len(items), _VALIDATION_SHARE)) or {len(items) - 1}
    return (
        [item for place, item in enumerate(items) if place not in held_out],
        [item for place, item in enumerate(items) if place in held_out],
    )


def digest_of(named: Iterable[tuple[str, Path]]) -> str:
    """Name a choice of files by their names and sizes, wherever their folder lies; raises InputError."""
    try:
        sizes = sorted(f"{name}\0{path.stat().st_size}" for name, path in named)
    except OSError as error:
        raise InputError(f"the pictures cannot be read: {error.strerror or error}") from error
    return hashlib.sha256("\n".join(sizes).encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Sources:
    """Photos and panoramas to draw from.

    `left_out` are files found beside them that cannot be used; `digest` tells these pictures from others.
    """

    photos: Sequence[Source]
    panoramas: Sequence[Source] = ()
    left_out: tuple[LeftOut, ...] = ()
    digest: str = ""

    def draw(self, recipe: Recipe, crop: int, rng: Generator) -> Sample:
        """Draw one sample, turned and mirrored at random."""
        view = bool(self.panoramas) and (not self.photos or rng.random() < recipe.data.view_share)
        pool = self.panoramas if view else self.photos
        return _turned(pool[int(rng.integers(len(pool)))].sample(recipe, crop, rng), rng)

    def __len__(self) -> int:
        return len(self.photos) + len(self.panoramas)

    @property
    def count(self) -> str:
        """How many there are, in words."""
        panoramas = f" and {len(self.panoramas)} panoramas" if self.panoramas else ""
        return f"{len(self.photos)} photographs{panoramas}"

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw from."""
        return not self.photos and not self.panoramas

    def batch(
        self,
        recipe: Recipe,
        step: int,
        *,
        crop: int,
        places: Iterable[int],
        tell: Callable[[str], None] = logger.warning,
    ) -> Batch:
        """The samples at some places of a step's batch.

        A sample is a function of the recipe, the step and the place alone, so that resuming is exact and several
        processes can share a batch. Where a picture turns out to be unreadable another takes its place, and `tell` is
        told, every time.

        Raises:
            InputError: none of the pictures can be read.
        """
        samples = [self._at(recipe, step, crop, place=place, tell=tell) for place in places]
        return Batch(
            torch.stack([sample.lifted for sample in samples]),
            torch.stack([sample.reference for sample in samples]),
            torch.tensor([sample.stops for sample in samples], dtype=torch.float32),
        )

    def _at(self, recipe: Recipe, step: int, crop: int, *, place: int, tell: Callable[[str], None]) -> Sample:
        try:
            return self.draw(recipe, crop, np.random.default_rng([recipe.seed, step, place]))
        except InputError as error:
            tell(f"left out: {error}")
        # Each in turn, in an order of this place's own: one that can be read is found if there is any.
        everything = (*self.photos, *self.panoramas)
        rng = np.random.default_rng([recipe.seed, step, place, 1])
        for index in rng.permutation(len(everything)):
            try:
                return _turned(everything[index].sample(recipe, crop, rng), rng)
            except InputError as error:
                tell(f"left out: {error}")
                last = error
        raise InputError(f"not one of {len(self)} pictures can be read; replace or remove them: {last}")


def _turned(sample: Sample, rng: Generator) -> Sample:
    """A sample turned and mirrored at random."""
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))

    def turned(image: Tensor) -> Tensor:
        image = image.rot90(turns, (1, 2))
        return image.flip(2) if mirrored else image

    return Sample(turned(sample.lifted), turned(sample.reference), sample.stops)
