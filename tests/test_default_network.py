"""What the embedded default promises about whole pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

import lowlight_cli
from lowlight_cli.backends.darkir.adapter import load_darkir
from lowlight_cli.degrade import Camera, draw_shot, render, scene_of_photo, take
from lowlight_cli.images import read_picture
from lowlight_cli.metrics import match_mean, psnr, ssim
from lowlight_cli.train.recipe import read_recipe
from lowlight_cli.weights_file import read_weights

WEIGHTS = Path(lowlight_cli.__file__).parent / "weights" / "darkir-small.safetensors"
SHARED = Path(__file__).resolve().parents[1].parent / "shared"
VALIDATION, PHOTOS = SHARED / "data" / "val_lol", SHARED / "data" / "train" / "photos"


@pytest.fixture(scope="module")
def default():
    return load_darkir(read_weights(WEIGHTS), {}, device=torch.device("cpu"), dtype=torch.float32)


def enhanced(default, picture):
    with torch.inference_mode():
        return (default.enhance(picture) * 255).round() / 255


def scene(height=64, width=96):
    """The light of a made-up photo `(h, w, 3)`: a sky, a ground, a wall with bars, something red."""
    rows = np.linspace(0.75, 0.35, height, dtype=np.float32)[:, None, None]
    photo = np.broadcast_to(rows * np.array([0.9, 1.0, 1.1], np.float32), (height, width, 3)).copy()
    photo[height // 3 :, : width // 3] = (0.5, 0.45, 0.4)
    photo[height // 2 :, width // 2 : width // 2 + 12] = (0.7, 0.2, 0.15)
    photo[height // 3 :, 4 : width // 3 : 8] *= 0.6
    return scene_of_photo(photo)


def photographed(light, stops, seed=0):
    camera = Camera(well_lit_share=0, mild_share=0, empty_share=0, blur_share=0, uneven_share=0, jpeg_share=0)
    shot = draw_shot(camera, np.random.default_rng(seed))
    still = {"stops_under": stops, "cast": (1.0, 1.0, 1.0), "toe": 0.0, "smear": 0.0, "black_level": (0.0, 0.0, 0.0)}
    fields = {**vars(shot), **still}
    seen = take(light, type(shot)(**fields), np.random.default_rng(seed), window=(0.0, 1.0, 0.0, 1.0))
    return torch.from_numpy(seen).permute(2, 0, 1)[None]


def test_the_file_is_small_and_says_how_it_was_made():
    weights = read_weights(WEIGHTS)
    assert WEIGHTS.stat().st_size <= 2.5e6
    recipe = read_recipe("darkir-small")
    assert weights.metadata["recipe"] == recipe.name
    assert weights.metadata["recipe_sha256"] == recipe.digest
    assert weights.metadata["step"] == weights.metadata["steps"] == str(recipe.schedule.steps)
    assert "photographs" in weights.metadata["data"]


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (33, 50), (96, 96)])
def test_black_stays_black_and_white_stays_white(default, value, size):
    flat = torch.full((1, 3, *size), value)
    assert torch.equal(enhanced(default, flat), flat)


def test_a_well_lit_picture_comes_back_as_it_is(default):
    picture = photographed(scene(), 0.0)
    assert psnr(enhanced(default, picture)[0], picture[0]) > 50


def test_a_dark_picture_becomes_bright_and_clean(default):
    wanted = torch.from_numpy(render(scene())).permute(2, 0, 1)
    for stops in (4.0, 6.0):
        dark = photographed(scene(), stops)
        result = enhanced(default, dark)[0]
        assert psnr(result, wanted) > psnr(dark[0], wanted) + 8
        assert psnr(match_mean(result, wanted), wanted) > psnr(match_mean(dark[0], wanted), wanted) + 3


def test_brightness_moves_smoothly_as_exposure_rises(default):
    means = [float(default.enhance(photographed(scene(32, 48), tenth / 10)).mean()) for tenth in range(80, -1, -1)]
    # Against the line through the two before it, and so the more against the mean of its neighbours.
    assert np.abs(np.diff(means, 2)).max() * 255 <= 2


@pytest.mark.parametrize("stops", [2.0, 2.5, 3.0])
def test_a_bright_scene_under_exposed_becomes_bright_though_it_is_bright_on_average(default, stops):
    light = scene()
    light[12:] = light[12:] * 0.3 + 0.7 * light[:12].mean()  # nearly all of it sky
    wanted = torch.from_numpy(render(light)).permute(2, 0, 1)
    dark = photographed(light, stops)
    assert psnr(enhanced(default, dark)[0], wanted) > psnr(dark[0], wanted) + 4


def test_the_dark_half_of_a_half_lit_picture_is_brightened(default):
    light = scene()
    light[:, 48:] *= 2.0**-4.5
    picture = torch.from_numpy(render(light)).permute(2, 0, 1)[None]
    result = enhanced(default, picture)
    assert result[..., 48:].mean() > 1.25 * picture[..., 48:].mean()
    assert result[..., :40].mean() < 0.9


@pytest.mark.skipif(not PHOTOS.exists(), reason="needs ../shared/data/train/photos")
@pytest.mark.slow
def test_well_lit_photographs_held_out_of_training_come_back_as_they_are(default):
    held_out = read_recipe("darkir-small").data.held_out
    compared = 0
    for path in sorted(PHOTOS.iterdir()):
        picture = torch.from_numpy(read_picture(path).srgb())[None]
        if path.stem in held_out and picture.mean() > 0.3:
            assert psnr(enhanced(default, picture)[0], picture[0]) >= 32, path.name
            compared += 1
    assert compared >= 10


@pytest.mark.skipif(not VALIDATION.exists(), reason="needs ../shared/data/val_lol")
@pytest.mark.slow
def test_real_dark_pictures_come_near_their_references(default):
    measured = []
    for low in sorted((VALIDATION / "low").iterdir()):
        reference = torch.from_numpy(read_picture(VALIDATION / "high" / low.name).srgb())
        result = enhanced(default, torch.from_numpy(read_picture(low).srgb())[None])[0]
        measured.append(
            (psnr(result, reference), psnr(match_mean(result, reference), reference), ssim(result, reference))
        )
    plain, gt_mean, similarity = (sum(column) / len(column) for column in zip(*measured, strict=True))
    assert len(measured) == 20
    assert plain >= 20.5
    assert gt_mean >= 25.0
    assert similarity >= 0.80
