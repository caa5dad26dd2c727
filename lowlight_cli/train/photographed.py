"""Pairs that were photographed: a dark picture, and the same scene in good light."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from lowlight_cli.backends.darkir.lift import choose_lift, lift
from lowlight_cli.errors import InputError, SettingsError
from lowlight_cli.pairs import Pair, find_pairs
from lowlight_cli.train.recipe import Recipe
from lowlight_cli.train.samples import Sample, Sources, digest_of, part_held_out, place_crop
from lowlight_cli.train.scenes import read_planes


class PhotographedPair:
    """A pair of files, read anew for every sample: data sets are larger than memory."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._stops: float | None = None

    def sample(self, recipe: Recipe, crop: int, rng: Generator) -> Sample:
        """Cut the same crop from both.

        Raises:
            InputError: a file cannot be read, the two differ in size, or are smaller than the crop.
        """
        low, reference = _read(self._pair.low), _read(self._pair.reference)
        if low.shape != reference.shape:
            raise InputError(f"{self._pair.low} and {self._pair.reference} differ in size")
        height, width = low.shape[-2:]
        if min(height, width) < crop:
            raise InputError(f"{self._pair.low} is smaller than the recipe's crops of {crop} pixels")
        top, left = place_crop(height, width, crop, rng)
        cut = (slice(None), slice(top, top + crop), slice(left, left + crop))
        stops = 0.0
        if recipe.network.lift:
            if self._stops is None:
                self._stops = choose_lift(low[None])
            stops = max(self._stops + recipe.data.lift_jitter * float(rng.standard_normal()), 0.0)
        return Sample(lift(low[cut], stops), reference[cut], stops)


def _read(path: Path) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(read_planes(path)))


def load_pairs(low: Path, reference: Path) -> tuple[Sources, Sources]:
    """Find pairs to train on and pairs held out: a data set's own test split, or else every twentieth pair.

    Two folders with files of equal names, or twice the root of LOL, LOL-v2, LOL-Blur or LSRW.

    Raises:
        SettingsError: a folder is missing, nothing matches, or too little to hold any out.
        InputError: a file is not there any more.
    """
    everything = find_pairs(low, reference).pairs
    if low.samefile(reference):
        training = find_pairs(low, reference, split="train").pairs
        names = {pair.name for pair in training}
        held_out = tuple(pair for pair in everything if pair.name not in names)
    else:
        training, held_out = everything, ()
    if not held_out:
        training, held_out = map(tuple, part_held_out(training))
    if not training:
        raise SettingsError(f"{low} and {reference} hold one pair; training needs at least two")
    return _sources(training), _sources(held_out)


def _sources(pairs: Sequence[Pair]) -> Sources:
    digest = digest_of((pair.name, path) for pair in pairs for path in (pair.low, pair.reference))
    return Sources([PhotographedPair(pair) for pair in pairs], digest=digest)
