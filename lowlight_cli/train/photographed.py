"""Pairs that were photographed: a dark picture, and the same scene in good light."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from lowlight_cli.backends.darkir.lift import choose_lift, lift
from lowlight_cli.errors import InputError, SettingsError
from lowlight_cli.images import probe
from lowlight_cli.pairs import Pair, Split, find_pairs, require_known_splits
from lowlight_cli.results import name_of
from lowlight_cli.train.events import LeftOut
from lowlight_cli.train.recipe import Recipe
from lowlight_cli.train.samples import Sample, Sources, digest_of, part_held_out, place_crop
from lowlight_cli.train.scenes import read_planes, warn_of


class PhotographedPair:
    """A pair of files, read anew for every sample: data sets are larger than memory."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._stops: float | None = None

    def sample(self, recipe: Recipe, crop: int, rng: Generator) -> Sample:
        """Cut the same crop from both.

        Raises:
            InputError: a file cannot be read, the two differ in size, or are smaller than the crop.
        """
        low, reference = _read(self.pair.low), _read(self.pair.reference)
        if low.shape != reference.shape:
            raise InputError(f"{self.pair.low} and {self.pair.reference} differ in size")
        height, width = low.shape[-2:]
        if min(height, width) < crop:
            raise InputError(f"{self.pair.low} is smaller than the recipe's crops of {crop} pixels")
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


def load_pairs(low: Path, reference: Path, recipe: Recipe) -> tuple[Sources, Sources]:
    """Find pairs to train on and pairs held out: of those the recipe lists, a val split and a test split the first.

    Without any of these every twentieth is held out. What lies in a val or test split is never trained on. Two folders
    with files of equal names, or twice the root of LOL, LOL-v2, LOL-Blur or LSRW. Pairs whose files cannot be read as
    far as their heads go, differ in size or are smaller than the recipe's crops are left out with a warning, and so are
    pictures without a partner.

    Raises:
        SettingsError: a folder is missing, nothing matches, pairs are of no known split beside others that are, or
            there is too little to hold any out.
        InputError: a file is not there any more.
    """
    smallest = max(stage.crop for stage in recipe.schedule.stages)
    found = find_pairs(low, reference)
    require_known_splits(found.pairs)
    faults = {pair: fault for pair in found.pairs if (fault := _fault_of(pair, smallest))}
    alone = [LeftOut(name_of(path), "it has no reference of its name") for path in found.unpaired_low]
    alone += [LeftOut(name_of(path), "no dark picture has its name") for path in found.unpaired_reference]
    left_out = (*faults.values(), *alone)
    warn_of(left_out)
    usable = [pair for pair in found.pairs if pair not in faults]
    listed = [pair for pair in usable if _is_listed(pair, recipe)]
    training = [pair for pair in usable if pair.split in (None, "train") and not _is_listed(pair, recipe)]
    held_out = listed or _of_split(usable, "val") or _of_split(usable, "test")
    if held_out and not training:
        holding = "the recipe holds" if listed else "the names of their folders hold"
        raise SettingsError(f"{holding} out every pair of {low} and {reference}, and none is left to train on")
    if not held_out:
        training, held_out = part_held_out(training)
    if not training:
        raise SettingsError(
            f"{low} and {reference} hold too few pairs to train on: {len(usable)} of at least {smallest}x{smallest} "
            "pixels that can be read; two are needed, for one is validated on"
        )
    return _sources(training, left_out), _sources(held_out)


def _of_split(pairs: Sequence[Pair], split: Split) -> list[Pair]:
    return [pair for pair in pairs if pair.split == split]


def _is_listed(pair: Pair, recipe: Recipe) -> bool:
    """Whether a recipe holds a pair out: by the stem of either file, or by the pair's name or the end of it."""
    names = {pair.low.stem, pair.reference.stem, pair.name, PurePosixPath(pair.name).name}
    return not names.isdisjoint(recipe.data.held_out)


def _fault_of(pair: Pair, smallest: int) -> LeftOut | None:
    """Say why a pair cannot be trained on, if the heads of its files tell."""
    sizes = []
    for path in (pair.low, pair.reference):
        try:
            facts = probe(path)
        except InputError as error:
            return LeftOut(name_of(path), str(error))
        sizes.append((facts.width, facts.height))
    if sizes[0] != sizes[1]:
        return LeftOut(name_of(pair.low), "it and its reference differ in size")
    if min(sizes[0]) < smallest:
        return LeftOut(name_of(pair.low), f"it is smaller than the crops of {smallest}x{smallest}")
    return None


def _sources(pairs: Sequence[Pair], left_out: tuple[LeftOut, ...] = ()) -> Sources:
    digest = digest_of((pair.name, path) for pair in pairs for path in (pair.low, pair.reference))
    return Sources([PhotographedPair(pair) for pair in pairs], left_out=left_out, digest=digest)
