"""Promises of the anti-flicker filter: static light is calm, motion unmixed, and what really changes is followed."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lowlight_cli.degrade import Illumination, Shot, render, take
from lowlight_cli.settings import DEFAULT_MODEL
from lowlight_cli.stabilize import (
    LOOK_AHEAD,
    LOOK_BACK,
    Light,
    apply_correction,
    compare_light,
    correction,
    light_cells,
)

HEIGHT, WIDTH, RATE = 72, 128, 24
NIGHT = Shot(
    stops_under=4.5,
    confidence=1.0,
    empty=False,
    illumination=Illumination(),
    focus=0.0,
    motion=(0.0, 0.0),
    electrons=2e4,
    read_electrons=6.0,
    row_noise=0.0,
    black_level=(0.1, 0.0, 0.1),
    balance=(2.0, 1.0, 1.6),
    saturation=0.1,
    cast=(1.1, 1.0, 0.95),
    demosaic=0.08,
    toe=0.0,
    smear=0.0,
    jpeg=0,
)
LUMA = torch.tensor([0.2126, 0.7152, 0.0722])


def street(shift: int = 0) -> np.ndarray:
    """A scene of blocks, windows and lamps, in linear light; shifted sideways by whole pixels."""
    rng = np.random.default_rng(3)
    blocks = np.kron(rng.uniform(0.1, 0.9, (9, 24, 3)), np.ones((8, 8, 1)))
    windows = np.kron(rng.uniform(0, 1, (36, 96, 1)) > 0.9, np.ones((2, 2, 1))) * (1.5, 1.2, 0.7)
    return (blocks + windows)[:, shift : shift + WIDTH].astype(np.float32)


def with_passer_by(scene: np.ndarray, frame: int) -> np.ndarray:
    passed = scene.copy()
    place = frame * 3 % (WIDTH - 20)
    passed[30:60, place : place + 14] = (1.2, 0.4, 0.2)
    return passed


def filmed(scenes: Sequence[np.ndarray], light: Sequence[float]) -> list[Tensor]:
    """Night frames `(1, 3, H, W)`, noise fresh in each."""
    rng = np.random.default_rng(5)
    lit = [scene * np.float32(level) for scene, level in zip(scenes, light, strict=True)]
    return [tensor(take(scene, NIGHT, rng, window=(0, 1, 0, 1))) for scene in lit]


def tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]


def fixed(frame: Tensor) -> Tensor:
    """An enhancement that knows no frame but its own: a fixed curve."""
    return (frame * 3).clamp(0, 1) ** 0.8


def adaptive(frame: Tensor) -> Tensor:
    """One that answers half of a change of exposure, and whose colour wavers with what it sees."""
    gain = (0.35 / frame.mean().clamp_min(1e-3)) ** 0.5
    tint = (frame.mean(dim=(2, 3), keepdim=True) / frame.mean().clamp_min(1e-3)) ** -0.5
    return (frame * gain * 2.5 * tint).clamp(0, 1) ** 0.8


def steadied(frames: Sequence[Tensor], enhance: Callable[[Tensor], Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the frames enhanced one by one, and the same with calm light."""
    made = [enhance(frame) for frame in frames]
    lights: list[Light] = []
    for frame, result in zip(frames, made, strict=True):
        lights.append(compare_light(light_cells(frame), light_cells(result), lights[-1] if lights else None))
    calm = []
    for place, result in enumerate(made):
        first = max(0, place - LOOK_BACK)
        window = lights[first : place + LOOK_AHEAD + 1]
        calm.append(apply_correction(result, correction(window, place - first)))
    return made, calm


def luma(frames: Sequence[Tensor]) -> np.ndarray:
    return np.array([float((frame[0] * LUMA[:, None, None]).sum(0).mean()) for frame in frames])


def psnr(result: Tensor, clean: Tensor) -> float:
    return float(-10 * torch.log10((result - clean).square().mean()))


def wobbles(count: int) -> dict[str, np.ndarray]:
    rng, time = np.random.default_rng(7), np.arange(count) / RATE
    return {
        "random": 1 + 0.05 * rng.standard_normal(count),
        "quick": 1 + 0.05 * np.sin(2 * np.pi * 5 * time),
        "slow": 1 + 0.05 * np.sin(2 * np.pi * 1.5 * time),
    }


@pytest.mark.parametrize("enhance", [fixed, adaptive])
@pytest.mark.parametrize("kind", ["random", "quick", "slow"])
def test_a_static_clip_whose_exposure_wavers_is_four_times_as_calm(kind, enhance):
    frames = filmed([street()] * 72, wobbles(72)[kind])
    made, calm = (luma(one) for one in steadied(frames, enhance))
    assert calm.std() <= made.std() / 4, (calm.std(), made.std())
    assert calm.mean() == pytest.approx(made.mean(), rel=0.01)


@pytest.mark.parametrize("enhance", [fixed, adaptive])
def test_colour_is_as_calm_as_brightness(enhance):
    rng = np.random.default_rng(9)
    frames = [frame * (1 + 0.05 * tensor(rng.standard_normal((1, 1, 3)).astype(np.float32))) for frame in
              filmed([street()] * 48, np.ones(48))]  # fmt: skip
    made, calm = steadied([frame.clamp(0, 1) for frame in frames], enhance)
    for channel in range(3):
        wavers, rests = (np.std([float(one[0, channel].mean()) for one in many]) for many in (made, calm))
        assert rests <= wavers / 3


@pytest.mark.parametrize("wobble", [0.0, 0.05])
@pytest.mark.parametrize("enhance", [fixed, adaptive])
def test_a_moving_clip_keeps_its_likeness_to_the_clean_frames(enhance, wobble):
    light = 1 + wobble * np.random.default_rng(11).standard_normal(48)
    scenes = [with_passer_by(street(frame), frame) for frame in range(48)]
    made, calm = steadied(filmed(scenes, light), enhance)
    clean = [tensor(render(scene)) for scene in scenes]
    lost = [psnr(a, c) - psnr(b, c) for a, b, c in zip(made, calm, clean, strict=True)]
    assert np.mean(lost) <= 0.3, np.mean(lost)


LIGHTS: dict[str, Callable[[int], float]] = {
    "a step up of two stops": lambda frame: 1.0 if frame < 30 else 4.0,
    "a step down of two stops": lambda frame: 1.0 if frame < 30 else 0.25,
    "a fade out of two seconds": lambda frame: 2.0 ** (-3 * min(max((frame - 12) / (2 * RATE), 0), 1)),
    "a fade in of two seconds": lambda frame: 2.0 ** (-3 + 3 * min(max((frame - 12) / (2 * RATE), 0), 1)),
}


@pytest.mark.parametrize("enhance", [fixed, adaptive])
@pytest.mark.parametrize("what", LIGHTS)
def test_light_that_really_changes_is_followed(what, enhance):
    frames = filmed([street()] * 72, [LIGHTS[what](frame) for frame in range(72)])
    made, calm = (luma(one) for one in steadied(frames, enhance))
    off = np.abs(calm / made - 1)
    assert off[30 + RATE // 2 :].max() <= 0.1
    assert off.max() <= 0.15


def test_nothing_is_mixed_across_a_cut():
    scenes = [street()] * 20 + [street()[::-1, ::-1] * 0.3] * 20
    made, calm = steadied(filmed(scenes, np.ones(40)), fixed)
    alone, _ = steadied(filmed(scenes, np.ones(40))[20:], fixed)
    for before, after in zip(made, calm, strict=True):
        assert abs(float(after.mean() / before.mean()) - 1) < 0.02
    assert len(alone) == 20


def test_a_calm_clip_is_left_alone():
    frames = [tensor(render(street() * 0.05))] * 40
    made, calm = steadied(frames, fixed)
    for before, after in zip(made, calm, strict=True):
        assert float((after - before).abs().max()) < 1e-4


def test_strength_zero_changes_nothing_and_one_half_goes_half_the_way():
    frames = filmed([street()] * 20, wobbles(20)["random"])
    lights: list[Light] = []
    for frame in frames:
        lights.append(compare_light(light_cells(frame), light_cells(fixed(frame)), lights[-1] if lights else None))
    whole, half, none = (correction(lights, 10, strength=strength) for strength in (1.0, 0.5, 0.0))
    assert np.abs(whole).max() > 0
    np.testing.assert_allclose(half, whole / 2, atol=1e-6)
    assert not none.any()


@pytest.fixture(scope="module")
def default_network() -> Callable[[Tensor], Tensor]:
    from lowlight_cli.enhancer import load_enhancer

    return load_enhancer(DEFAULT_MODEL, offline=True).enhance_tensor


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_default_network_is_steadied_as_promised(default_network):
    made, calm = steadied(filmed([street()] * 60, wobbles(60)["random"]), default_network)
    assert luma(calm).std() <= luma(made).std() / 4
    scenes = [with_passer_by(street(frame), frame) for frame in range(30)]
    made, calm = steadied(filmed(scenes, np.ones(30)), default_network)
    clean = [tensor(render(scene)) for scene in scenes]
    assert np.mean([psnr(a, c) - psnr(b, c) for a, b, c in zip(made, calm, clean, strict=True)]) <= 0.3
    for what in ("a step up of two stops", "a fade in of two seconds"):
        made, calm = steadied(filmed([street()] * 72, [LIGHTS[what](frame) for frame in range(72)]), default_network)
        assert np.abs(luma(calm) / luma(made) - 1)[30 + RATE // 2 :].max() <= 0.1


@pytest.mark.parametrize("size", [(72, 128), (50, 333), (7, 3), (8, 8), (9, 40)])
def test_light_is_the_mean_of_every_cell_also_of_the_narrow_last_ones(size):
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    side = max(8, -(-max(size) // 32))
    cells = light_cells(picture).numpy()
    for row in range(cells.shape[1]):
        for column in range(cells.shape[2]):
            cell = picture[0, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
            np.testing.assert_allclose(np.exp(cells[:, row, column]) - 0.02, cell.mean(dim=(1, 2)), atol=1e-5)
    assert cells.shape[1:] == (-(-size[0] // side), -(-size[1] // side))


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    count=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_any_frames_give_numbers_in_range(height, width, count, seed):
    draw = torch.Generator().manual_seed(seed)
    frames = [torch.rand(1, 3, height, width, generator=draw) ** 4 for _ in range(count)]
    _, calm = steadied(frames, lambda frame: 1 - frame)
    for one in calm:
        assert one.shape == (1, 3, height, width)
        assert bool(one.isfinite().all())
        assert 0 <= float(one.min()) <= float(one.max()) <= 1
