"""Clean photos and HDR panoramas, made dark anew for every sample."""

import logging
import math
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
from lowlight_cli.train.radiance import look, read_radiance
from lowlight_cli.train.recipe import Recipe
from lowlight_cli.train.samples import Sample, Source, Sources, place_crop

logger = logging.getLogger(__name__)

_PREVIEW_SIDE = 32
_PREVIEW_REPEAT = 4  # pixels of noise averaged, each way, per pixel of the preview that the lift is read from
_CLEAN = replace(PICTURES, suffixes={**PICTURES.suffixes, ".hdr": "hdr"})
_WHOLE = (0.0, 1.0, 0.0, 1.0)


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
    low, high = -4.0, 12.0
    for _ in range(14):
        middle = (low + high) / 2
        bright = float(np.sqrt(np.square(render(preview, 2.0**middle).max(2)).mean()))
        low, high = (middle, high) if bright < TARGET else (low, middle)
    return (low + high) / 2


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

    Any picture that `read_picture` reads is one, and what hidden files hold is none. Photos smaller than the recipe's
    crops are left out, with a warning.

    Raises:
        SettingsError: there is no such folder, or no picture in it to train on.
        InputError: a picture cannot be read.
    """
    if not folder.is_dir():
        raise SettingsError(f"there is no folder {str(folder)!r} with pictures to train on")
    smallest = max(stage.crop for stage in recipe.schedule.stages)
    parts: dict[bool, tuple[list[Source], list[Source]]] = {False: ([], []), True: ([], [])}
    small = 0
    for path in files_below(folder, _CLEAN):
        photos, panoramas = parts[path.stem in recipe.data.held_out]
        if path.suffix.lower() == ".hdr":
            panoramas.append(Panorama(read_radiance(path)))
            continue
        photo = read_photo(path)
        if min(photo.shape[:2]) >= smallest:
            photos.append(CleanPhoto(photo))
        else:
            small += 1
    if small:
        logger.warning("left out as smaller than the crops of %dx%d: %d of the photos", smallest, smallest, small)
    training, held_out = (Sources(*parts[part]) for part in (False, True))
    if training.is_empty:
        raise SettingsError(f"{folder} holds no picture of at least {smallest}x{smallest} pixels to train on")
    return training, held_out
