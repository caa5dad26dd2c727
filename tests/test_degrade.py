import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowlight_cli.degrade import (
    Camera,
    Illumination,
    Shot,
    draw_shot,
    encoded_light,
    linear_light,
    render,
    scene_of_photo,
    take,
)

WHOLE = (0.0, 1.0, 0.0, 1.0)
STILL = Shot(
    stops_under=0.0,
    confidence=1.0,
    empty=False,
    illumination=Illumination(),
    focus=0.0,
    motion=(0.0, 0.0),
    electrons=1e12,
    read_electrons=0.0,
    row_noise=0.0,
    black_level=(0.0, 0.0, 0.0),
    balance=(1.0, 1.0, 1.0),
    saturation=0.0,
    cast=(1.0, 1.0, 1.0),
    demosaic=0.0,
    toe=0.0,
    smear=0.0,
    jpeg=0,
)


def photo(height=48, width=64, seed=0):
    coarse = np.random.default_rng(seed).random((height // 8, width // 8, 3), np.float32)
    return coarse.repeat(8, 0).repeat(8, 1)


def photographed(scene, shot, seed=0):
    return take(scene, shot, np.random.default_rng(seed), window=WHOLE)


@given(st.floats(0, 1, width=32))
def test_rendering_the_scene_of_a_photo_gives_the_photo_back(value):
    pixel = np.full((1, 1, 3), value, np.float32)
    assert np.allclose(encoded_light(linear_light(pixel)), pixel, atol=1e-5)
    assert np.allclose(render(scene_of_photo(pixel)), pixel, atol=1e-5)


def test_a_well_lit_still_shot_without_noise_is_the_photo_in_8_bits():
    picture = photo()
    assert np.abs(photographed(scene_of_photo(picture), STILL) - picture).max() <= 0.5 / 255 + 1e-4


@given(st.floats(0, 8), st.floats(0, 3), st.integers(0, 2**31))
def test_less_exposure_never_makes_a_pixel_brighter(stops, more, seed):
    shot = dataclasses.replace(
        draw_shot(Camera(), np.random.default_rng(seed)),
        electrons=1e12, read_electrons=0.0, black_level=(0.0, 0.0, 0.0), jpeg=0, saturation=0.0,
    )  # fmt: skip
    scene = scene_of_photo(photo(16, 16))
    brighter = photographed(scene, dataclasses.replace(shot, stops_under=stops))
    darker = photographed(scene, dataclasses.replace(shot, stops_under=stops + more))
    assert (darker <= brighter + 1.01 / 255).all()


@pytest.mark.parametrize(("electrons", "read"), [(400.0, 0.0), (400.0, 12.0), (1500.0, 40.0)])
@pytest.mark.parametrize("light", [0.2, 0.6])
def test_noise_in_linear_light_has_the_variance_of_photons_and_reading(electrons, read, light):
    scene = np.full((256, 256, 3), light, np.float32)
    shot = dataclasses.replace(STILL, electrons=electrons, read_electrons=read)
    seen = scene_of_photo(photographed(scene, shot))
    wanted = light / electrons + (read / electrons) ** 2
    # 200,000 samples know a variance within 0.3 %; the 8-bit steps and the clipping at black add a little.
    assert seen.var() == pytest.approx(wanted, rel=0.03)
    assert seen.mean() == pytest.approx(light, rel=0.01)


def test_balance_gains_make_red_and_blue_noisier_than_green():
    scene = np.full((128, 128, 3), 0.4, np.float32)
    shot = dataclasses.replace(STILL, electrons=500.0, balance=(2.0, 1.0, 1.5))
    red, green, blue = scene_of_photo(photographed(scene, shot)).var((0, 1))
    assert red / green == pytest.approx(2.0, rel=0.1)
    assert blue / green == pytest.approx(1.5, rel=0.1)


def test_row_noise_moves_whole_rows():
    scene = np.full((64, 256, 3), 0.4, np.float32)
    shot = dataclasses.replace(STILL, electrons=1e4, read_electrons=200.0, row_noise=1.0)
    seen = photographed(scene, shot)
    assert seen.mean((1, 2)).std() > 5 * seen.mean((0, 2)).std()


def test_the_same_seed_gives_the_same_picture_and_another_seed_another():
    scene = scene_of_photo(photo())
    shot = draw_shot(Camera(well_lit_share=0.0, empty_share=0.0), np.random.default_rng(3))
    assert np.array_equal(photographed(scene, shot, 1), photographed(scene, shot, 1))
    assert not np.array_equal(photographed(scene, shot, 1), photographed(scene, shot, 2))


def test_a_crop_lies_in_the_same_light_as_its_picture():
    scene = np.full((64, 64, 3), 0.5, np.float32)
    shot = dataclasses.replace(STILL, illumination=Illumination(1.5, (0.7, -0.4), (0.65, 0.8)))
    whole = photographed(scene, shot)
    assert whole.max() - whole.min() > 0.1
    spot = take(scene[:1, :1], shot, np.random.default_rng(0), window=(0.25, 0.25, 0.75, 0.75))
    assert np.abs(spot[0, 0] - whole[16, 47]).max() <= 2 / 255


def test_lamps_that_clip_stay_bright_when_all_else_sinks():
    scene = np.full((32, 32, 3), 0.3, np.float32)
    scene[8:16, 8:16] = 500.0
    seen = photographed(scene, dataclasses.replace(STILL, stops_under=6.0))
    assert seen[10:14, 10:14].min() > 0.95
    assert seen[20:, 20:].max() < 0.1


def test_a_moved_camera_smears_along_its_path_and_keeps_the_light():
    scene = np.zeros((33, 33, 3), np.float32)
    scene[16, 16] = 1.0
    seen = scene_of_photo(photographed(scene, dataclasses.replace(STILL, motion=(8.0, 0.0))))
    assert (seen[16].max(1) > 0.01).sum() >= 7
    assert (seen[:, 16].max(1) > 0.01).sum() == 1
    assert seen[..., 0].sum() == pytest.approx(1.0, rel=0.1)


def test_an_empty_frame_is_black():
    assert not photographed(scene_of_photo(photo()), dataclasses.replace(STILL, empty=True)).any()


@given(st.integers(0, 2**31), st.tuples(st.integers(1, 100), st.integers(1, 100)).map(sorted), st.integers(1, 100))
def test_a_cameras_jpeg_quality_stays_in_any_range_and_above_that_of_dark_pictures(seed, qualities, dark):
    low, high = qualities
    camera = Camera(jpeg_quality=(low, high), jpeg_quality_dark=dark, jpeg_share=1.0)
    shot = draw_shot(camera, np.random.default_rng(seed))
    assert low <= shot.jpeg <= high
    assert shot.stops_under <= 3 or shot.jpeg >= min(dark, high)


@given(st.integers(0, 2**31))
def test_every_draw_lies_in_the_cameras_ranges(seed):
    camera = Camera()
    shot = draw_shot(camera, np.random.default_rng(seed))
    assert 0 <= shot.stops_under <= camera.stops_under[1]
    assert 0 <= shot.confidence <= 1
    assert camera.red_gain[0] <= shot.balance[0] <= camera.red_gain[1]
    assert shot.jpeg == 0 or camera.jpeg_quality[0] <= shot.jpeg < camera.jpeg_quality[1]
    if shot.stops_under == 0:
        assert shot.cast == (1.0, 1.0, 1.0)
        assert shot.motion[0] == shot.focus == shot.illumination.stops == 0


@given(st.integers(0, 2**31))
def test_every_shot_gives_a_picture_in_8_bit_steps(seed):
    rng = np.random.default_rng(seed)
    seen = take(scene_of_photo(photo(16, 24)), draw_shot(Camera(), rng), rng, window=WHOLE)
    assert seen.shape == (16, 24, 3)
    assert seen.dtype == np.float32
    assert np.abs(seen * 255 - np.rint(seen * 255)).max() < 1e-3
    assert 0 <= seen.min() <= seen.max() <= 1


def test_a_camera_covers_the_darkness_it_promises():
    stops = [draw_shot(Camera(), np.random.default_rng(seed)).stops_under for seed in range(600)]
    assert 0.02 < np.mean(np.equal(stops, 0)) < 0.09
    assert max(stops) > 7.5
    assert 0.1 < np.mean([0 < value < 3 for value in stops]) < 0.22
