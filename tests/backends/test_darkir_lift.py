import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lowlight_cli.backends.darkir.lift import (
    MAX_STOPS,
    TARGET,
    choose_lift,
    lift,
    plan_lift,
    run_lifted,
)
from lowlight_cli.degrade import render, scene_of_photo
from lowlight_cli.tone import to_encoded, to_linear


def scene(seed=0, height=36, width=48):
    """Linear light of a made-up, well-exposed photo `(1, 3, h, w)`: patches and a ramp."""
    rng = np.random.default_rng(seed)
    photo = rng.random((height // 12, width // 12, 3), np.float32).repeat(12, 0).repeat(12, 1)
    photo *= np.linspace(0.3, 1.1, width, dtype=np.float32)[None, :, None]
    return scene_of_photo(photo.clip(0, 1))


def photographed(light, stops):
    """The scene, photographed with `stops` less exposure by a camera of unlimited depth."""
    return torch.from_numpy(render(light, 2.0**-stops)).permute(2, 0, 1)[None]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 10))
def test_a_lift_keeps_the_order_of_pixels_and_never_darkens(first, second, stops):
    low, high = sorted((first, second))
    lifted = lift(torch.tensor([low, high], dtype=torch.float64), stops)
    assert lifted[0] <= lifted[1] + 1e-12
    assert lifted[0] >= low - 1e-9
    assert 0 <= lifted[0] <= lifted[1] <= 1 + 1e-9


@pytest.mark.parametrize("stops", [0.0, 1e-6, 0.3, 2.0, 6.0, 9.5])
def test_black_stays_black_and_white_white(stops):
    assert torch.allclose(lift(torch.tensor([0.0, 1.0]), stops), torch.tensor([0.0, 1.0]), atol=1e-5)


@given(st.floats(0.01, 10))
def test_shadows_get_as_many_stops_as_the_lift_says(stops):
    shadow = torch.tensor([1e-7], dtype=torch.float64)
    gain = float(to_linear(lift(to_encoded(shadow), stops)) / shadow)
    assert math.log2(gain) == pytest.approx(stops, abs=0.01)


def test_no_lift_is_the_picture_itself_bit_for_bit():
    picture = torch.rand(1, 3, 8, 8)
    assert lift(picture, 0.0) is picture
    nonsense = run_lifted(lambda folded: folded[:, :12] * 0, picture, torch.zeros(1), unshuffle=2)
    assert torch.equal(nonsense, picture)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_flat_black_and_flat_white_are_not_lifted(value):
    assert choose_lift(torch.full((1, 3, 20, 30), value)) == 0.0


def test_dark_pictures_are_lifted_to_the_same_brightness_whatever_their_exposure():
    for stops in (4.0, 5.0, 6.0):
        dark = photographed(scene(), stops)
        bright = lift(dark, choose_lift(dark)).amax(1).square().mean().sqrt()
        assert float(bright) == pytest.approx(TARGET, abs=0.02)


def test_the_lift_is_capped():
    assert choose_lift(photographed(scene(), 16.0)) <= MAX_STOPS


def test_brightness_moves_smoothly_as_exposure_rises_from_darkness_to_daylight():
    means = []
    for tenth in range(120, -1, -1):
        dark = photographed(scene(), tenth / 10)
        means.append(float(lift(dark, *plan_lift(dark)).mean()))
    bends = np.abs(np.diff(means, 2)) * 255
    assert bends.max() < 1
    assert max(means) < 0.7


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (500, 400)])
def test_any_size_has_a_lift_and_the_input_is_untouched(size):
    picture = torch.full((1, 3, *size), 0.04)
    before = picture.clone()
    assert 3 < choose_lift(picture) < 9
    assert torch.equal(picture, before)


def test_a_picture_and_its_preview_get_nearly_the_same_lift():
    dark = photographed(scene(height=360, width=480), 5.0)
    dark = (dark + 0.01 * torch.randn(dark.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    preview = torch.nn.functional.interpolate(dark, size=(180, 240), mode="area")
    assert choose_lift(preview) == pytest.approx(choose_lift(dark), abs=0.1)


def test_a_half_lit_picture_is_lifted():
    light = scene()
    light[:, 24:] *= 2.0**-5
    picture = torch.from_numpy(render(light)).permute(2, 0, 1)[None]
    lifted = lift(picture, *plan_lift(picture))
    assert lifted[..., 24:].mean() > 1.2 * picture[..., 24:].mean()


def dark_room(lamp: bool) -> Tensor:
    """A room seven stops under; `lamp`: with a patterned lamp that the exposure was made for."""
    picture = photographed(scene(), 7.0)
    if lamp:
        picture[..., 8:24, 40:56] = torch.tensor([1.0, 0.55, 0.15])[:, None, None]
        picture[..., 8:24, 40:56:4] *= 0.8
    return picture


def test_lights_keep_their_pattern_where_one_curve_would_wash_it_out():
    room = dark_room(lamp=True)
    planned = plan_lift(room)
    assert planned.roll_off > 0.9
    assert planned.stops > 3

    def pattern(picture: Tensor) -> float:
        return float((picture[:, 0, 8:24, 41:56:4] - picture[:, 0, 8:24, 40:56:4]).mean())

    assert pattern(lift(room, *planned)) > 0.15 * pattern(room)
    assert pattern(lift(room, *planned)) > 3 * pattern(lift(room, planned.stops))


def test_what_is_half_lit_keeps_its_texture_where_the_curve_would_drown_it():
    """A pavement in the light before a house at night, and a lit window."""
    picture = photographed(scene(), 7.0)
    picture[..., 2:4, 40:44] = 0.95
    picture[..., -8:, :] = 0.42
    picture[..., -8:, ::2] = 0.36
    planned = plan_lift(picture)
    assert planned.stops > 4

    def texture(bright: Tensor) -> float:
        return float(bright[..., -8:, 1::2].mean() - bright[..., -8:, ::2].mean())

    assert texture(lift(picture, *planned)) > 0.5 * texture(picture)


def test_what_is_all_but_black_loses_its_tint_beside_lights_and_nothing_else_does():
    def lifted(picture: Tensor) -> Tensor:
        return lift(picture, *plan_lift(picture))

    for lamp in (True, False):
        room = dark_room(lamp)
        room[..., :8] = torch.tensor([0.0, 4.0, 3.0])[:, None, None] / 255
        room[..., 8:16] = torch.tensor([6.0, 12.0, 3.0])[:, None, None] / 255
        bright = lifted(room)
        spread = bright.amax(1) - bright.amin(1)
        assert spread[..., 8:16].min() > 0.1
        if lamp:
            assert spread[..., :8].max() < 0.03
            assert bright[..., :8].mean() > 3 * room[..., :8].mean()
        else:
            assert spread[..., :8].min() > 0.1


def test_a_picture_without_lights_is_lifted_as_in_training():
    room = dark_room(lamp=False)
    assert plan_lift(room) == (choose_lift(room), 0.0)


@pytest.mark.parametrize("roll_off", [0.0, 0.3, 1.0])
def test_every_curve_rises_from_black_to_white_with_the_gain_it_is_named_for(roll_off):
    greys = torch.linspace(0, 1, 4096).expand(1, 3, 1, -1)
    lifted = lift(greys, 5.0, roll_off)
    assert (lifted.diff() >= -1e-6).all()
    assert lifted[..., 0].abs().max() < 1e-6
    assert (lifted[..., -1] - 1).abs().max() < 1e-5
    faint = torch.full((1, 3, 1, 1), 1e-6 * 12.92)
    assert float(to_linear(lift(faint, 5.0, roll_off)).mean() / 1e-6) == pytest.approx(2**5.0, rel=0.01)


def test_the_network_is_told_the_lift_and_sees_folded_pixels():
    seen = []

    def network(folded):
        seen.append(folded)
        return folded[:, :12]

    picture = torch.rand(2, 3, 8, 6)
    result = run_lifted(network, picture, torch.tensor([3.0, MAX_STOPS]), unshuffle=2)
    assert torch.allclose(result, picture)
    assert seen[0].shape == (2, 13, 4, 3)
    assert torch.allclose(seen[0][:, 12].mean((1, 2)), torch.tensor([3.0 / MAX_STOPS, 1.0]))
    assert torch.equal(run_lifted(lambda image: image, picture, None), picture)
