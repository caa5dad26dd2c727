"""Clean photos and HDR panoramas, made dark anew for every sample."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from lowlight_cli.backends.darkir.lift import TARGET, choose_lift, lift
from lowlight_cli.degrade import (
    Picture,
    Shot,
    draw_shot,
    encoded_light,
    linear_light,
    render,
    scene_of_photo,
    take,
)
from lowlight_cli.errors import InputError, SettingsError
from lowlight_cli.images import read_picture
from lowlight_cli.paths import PICTURES, files_below
from lowlight_cli.results import name_of
from lowlight_cli.tone import bisected
from lowlight_cli.train.events import LeftOut
from lowlight_cli.train.radiance import look, read_radiance
from lowlight_cli.train.recipe import Recipe
from lowlight_cli.train.samples import Sample, Sources, digest_of, part_held_out, place_crop

logger = logging.getLogger(__name__)

_PREVIEW_SIDE = 32
_PREVIEW_REPEAT = 4  # pixels of noise averaged, each way, per pixel of the preview that the lift is read from
_CLEAN = replace(PICTURES, suffixes={**PICTURES.suffixes, ".hdr": "hdr"})
_WHOLE = (0.0, 1.0, 0.0, 1.0)
_FEWEST = 2  # pictures: one to train on, one to validate on
_WARNINGS = 3


def _tensor(picture: Picture) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)


def _shrunk(scene: Picture) -> Picture:
    """Average linear light down to a long side of about `_PREVIEW_SIDE` pixels."""
    cell = max(1, math.ceil(max(scene.shape[:2]) / _PREVIEW_SIDE))
    rows, columns = max(1, scene.shape[0] // cell), max(1, scene.shape[1] // cell)
    cut = scene[: rows * cell, : columns * cell]
    if cut.shape[:2] != (rows * cell, columns * cell):
        return scene
    means: Picture = cut.reshape(rows, cell, columns, cell, 3).mean((1, 3), dtype=np.float32)
    return means


def _stops_to_target(preview: Picture) -> float:
    """Stops by which a scene's exposure must rise for its rendering to be as bright as the lift aims at."""

    def is_dark(stops: float) -> bool:
        return float(np.sqrt(np.square(render(preview, 2.0**stops).max(2)).mean())) < TARGET

    return bisected(is_dark, -4.0, 12.0, steps=14)


@dataclass(frozen=True)
class _Scene:
    """A scene to photograph: its light, a small preview of it, and its distance from the lift's brightness."""

    light: Picture
    preview: Picture
    stops_to_target: float
    window: tuple[float, float, float, float] = _WHOLE

    def sample(self, recipe: Recipe, rng: Generator) -> Sample:
        shot = draw_shot(recipe.camera, rng)
        dark = take(self.light, shot, rng, window=self.window)
        shift = min(max(self.stops_to_target, -0.5), 2.5) * (1 - recipe.data.native_share) * shot.confidence
        reference = _tensor(np.zeros_like(dark) if shot.empty else render(self.light, 2.0**shift))
        if not recipe.network.lift:
            return Sample(_tensor(dark), reference, 0.0)
        stops = max(self._lift(shot, rng) + recipe.data.lift_jitter * float(rng.standard_normal()), 0.0)
        return Sample(lift(_tensor(dark), stops), reference, stops)

    def _lift(self, shot: Shot, rng: Generator) -> float:
        """The lift that the whole picture would get, read from a preview photographed under the same circumstances."""
        seen = self.preview.repeat(_PREVIEW_REPEAT, 0).repeat(_PREVIEW_REPEAT, 1)
        plain = replace(shot, focus=0.0, motion=(0.0, 0.0), smear=0.0, jpeg=0)
        noisy = linear_light(take(seen, plain, rng, window=_WHOLE))
        means = noisy.reshape(self.preview.shape[0], _PREVIEW_REPEAT, self.preview.shape[1], _PREVIEW_REPEAT, 3)
        return choose_lift(_tensor(encoded_light(means.mean((1, 3), dtype=np.float32)))[None])


class CleanPhoto:
    """A clean, well-exposed photograph, made dark anew for every sample."""

    def __init__(self, photo: NDArray[np.uint8]) -> None:
        self._photo = photo
        self._preview = _shrunk(scene_of_photo(photo.astype(np.float32) / np.float32(255)))
        self._stops = _stops_to_target(self._preview)

    def sample(self, recipe: Recipe, crop: int, rng: Generator) -> Sample:
        """Cut a crop, and photograph it with too little light."""
        height, width = self._photo.shape[:2]
        top, left = place_crop(height, width, crop, rng)
        cut = self._photo[top : top + crop, left : left + crop].astype(np.float32) / np.float32(255)
        window = (top / height, (top + crop) / height, left / width, (left + crop) / width)
        return _Scene(scene_of_photo(cut), self._preview, self._stops, window).sample(recipe, rng)


class Panorama:
    """An HDR panorama, looked at through another window for every sample."""

    def __init__(self, radiance: Picture) -> None:
        self._radiance = radiance

    def sample(self, recipe: Recipe, crop: int, rng: Generator) -> Sample:
        """Draw a view, expose it about right, cut a crop, and photograph it with too little light."""
        height = max(192, crop)
        width = height * 4 // 3
        pitch, field = rng.uniform(-0.5, 0.5), rng.uniform(1.0, 1.7)
        view = look(self._radiance, yaw=rng.uniform(0, 6.28), pitch=pitch, field=field, size=(height, width))
        view *= np.float32(0.5 / max(float(np.median(view.max(2))), 1e-6))
        preview = _shrunk(view)
        own = float(rng.normal(0.0, 0.35))  # a photographer's exposure varies; native_share keeps some of it
        exposure = np.float32(2.0 ** (_stops_to_target(preview) + own))
        top, left = place_crop(height, width, crop, rng)
        light = view[top : top + crop, left : left + crop] * exposure
        window = (top / height, (top + crop) / height, left / width, (left + crop) / width)
        return _Scene(light, preview * exposure, -own, window).sample(recipe, rng)


def read_planes(path: Path) -> NDArray[np.float32]:
    """Read any picture we can decode as sRGB planes `(3, h, w)` in [0, 1]; raises InputError, which names it."""
    try:
        return read_picture(path).srgb()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_photo(path: Path) -> NDArray[np.uint8]:
    """Read any picture we can decode as 8-bit sRGB `(h, w, 3)`; raises InputError, which names it."""
    planes = read_planes(path)
    return np.rint(planes.transpose(1, 2, 0) * 255).astype(np.uint8)


def load_clean(folder: Path, recipe: Recipe) -> tuple[Sources, Sources]:
    """Load clean photos and .hdr panoramas under `folder`: those to train on, and those held out.

    Any picture that `read_picture` reads is one, and what hidden files hold is none. What cannot be read, or is smaller
    than the recipe's crops, is left out with a warning. Where the recipe's list names none of the pictures, every
    twentieth is held out, or of fewer the last.

    Raises:
        SettingsError: there is no such folder, or too few pictures in it.
    """
    if not folder.is_dir():
        raise SettingsError(f"there is no folder {str(folder)!r} with pictures to train on")
    smallest = max(stage.crop for stage in recipe.schedule.stages)
    found: list[tuple[Path, CleanPhoto | Panorama]] = []
    left_out: list[LeftOut] = []
    for path in files_below(folder, _CLEAN):
        try:
            found.append((path, _read_source(path, smallest)))
        except InputError as error:
            left_out.append(LeftOut(name_of(path), str(error).removeprefix(f"{path}: ")))
    warn_of(left_out)
    if len(found) < _FEWEST:
        raise SettingsError(
            f"{folder} holds too few pictures to train on: {len(found)} of at least {smallest}x{smallest} pixels that "
            f"can be read; {_FEWEST} are needed, for one is validated on"
        )
    found.sort(key=lambda one: isinstance(one[1], CleanPhoto))  # a panorama is the last to be held out
    training = [one for one in found if one[0].stem not in recipe.data.held_out]
    held_out = [one for one in found if one[0].stem in recipe.data.held_out]
    if not held_out:
        training, held_out = part_held_out(found)
    if not training:
        raise SettingsError(f"the recipe holds out every picture of {folder}, and none is left to train on")
    return _sources(training, folder, left_out=tuple(left_out)), _sources(held_out, folder)


def _read_source(path: Path, smallest: int) -> CleanPhoto | Panorama:
    if path.suffix.lower() == ".hdr":
        return Panorama(read_radiance(path))
    photo = read_photo(path)
    if min(photo.shape[:2]) < smallest:
        raise InputError(f"{path}: it is smaller than the crops of {smallest}x{smallest}")
    return CleanPhoto(photo)


def warn_of(left_out: Sequence[LeftOut]) -> None:
    """Name the first few in the log, and count them all."""
    for one in left_out[:_WARNINGS]:
        logger.warning("left out: %s: %s", one.input, one.reason)
    if len(left_out) > _WARNINGS:
        logger.warning("left out in all: %d pictures", len(left_out))


def _sources(
    found: Sequence[tuple[Path, CleanPhoto | Panorama]], folder: Path, *, left_out: tuple[LeftOut, ...] = ()
) -> Sources:
    return Sources(
        [source for _, source in found if isinstance(source, CleanPhoto)],
        [source for _, source in found if isinstance(source, Panorama)],
        left_out,
        digest_of((path.relative_to(folder).as_posix(), path) for path, _ in found),
    )
