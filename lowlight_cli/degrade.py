"""The camera model: a clean photograph or a linear HDR view becomes a picture taken with too little light.

The chain follows the light: scene -> uneven illumination -> blur of the hand, at times of focus too -> short exposure
-> sensor (shot, read and row noise, black level, colour filters) -> demosaicing -> camera tone curve -> denoise smear
-> 8 bits -> JPEG. The ranges stand in `Camera`, but for a few shares in `draw_shot`; `Shot` is one draw from them.
Arrays are `(height, width, 3)` float32; *scene* light is linear, unbounded above, and 1 - exp(-scene) is the
well-exposed rendering, so that a fixed camera which halves its exposure halves the scene's light and nothing else.
"""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from lowlight_cli.errors import SettingsError

Picture = NDArray[np.float32]
Range = tuple[float, float]

_WHITE = 0.98  # share of full white at which a clipped highlight is taken to lie: 1 - exp(-3.9)

_ANY, _SHARE, _POSITIVE = 1e6, (0.0, 1.0), (1e-6, 1e6)
# Where something else than 0 and above makes sense to the chain.
_LIMITS: Mapping[str, Range] = {
    **dict.fromkeys(("mild_share", "well_lit_share", "empty_share", "uneven_share", "blur_share"), _SHARE),
    **dict.fromkeys(("quiet_share", "strong_cast_share", "demosaic_share", "smear_share", "jpeg_share"), _SHARE),
    **dict.fromkeys(("demosaic_weight", "smear_weight"), _SHARE),
    **dict.fromkeys(("electrons", "read_electrons", "quiet_noise", "red_gain", "blue_gain"), _POSITIVE),
    **dict.fromkeys(("jpeg_quality", "jpeg_quality_dark"), (1.0, 100.0)),
    "black_level": (-_ANY, _ANY),
    "saturation": (-0.9, _ANY),  # the matrix has no inverse at -1
}


@dataclass(frozen=True)
class Camera:
    """Ranges of the camera model; pairs are (least, most), and shares are probabilities.

    Sources. Exposure, electrons, balance gains, black levels and casts: fitted to cover the 20 validation pairs of LOL
    v1, which lie 5 to 8 stops under, with noise that is white in space and has standard deviations of about 2.0, 1.1
    and 1.5 of 255 in red, green and blue, almost the same from level 5 to level 50: photons and reading in linear light
    with about 24,000 electrons at white and 5 for reading, red amplified 3.4 and blue 2 times. Their black lies up to
    one step of 255 off, by -2.0 +- 4.2, 0.2 +- 2.3 and 0.4 +- 1.9 times 1e-4 of white in red, green and blue: lifted by
    seven stops, that is a green shadow. The ranges reach from there to phones (fewer electrons) and to long exposures
    (quiet). Blur, smear, JPEG and shares are our choice.
    """

    stops_under: Range = (3.0, 7.9)
    mild_share: float = 0.15  # of pictures that miss only `mild_stops`
    mild_stops: Range = (0.3, 3.0)
    well_lit_share: float = 0.05  # left as they are: the network must learn to leave them alone
    empty_share: float = 0.01  # a black frame with its sensor's noise off: black must stay black

    uneven_share: float = 0.2
    uneven_stops: Range = (0.3, 1.5)

    blur_share: float = 0.15
    focus_pixels: Range = (0.4, 1.4)  # standard deviation of the defocus, in half of the blurred shots
    motion_pixels: Range = (2.0, 8.0)  # length of the hand's path

    electrons: Range = (4e3, 4e4)  # at white, at full exposure
    read_electrons: Range = (1.5, 15.0)
    row_noise: Range = (0.0, 0.15)  # of the read noise
    quiet_share: float = 0.1  # a long exposure or a good denoiser: noise times `quiet_noise`
    quiet_noise: Range = (0.05, 0.4)
    black_level: Range = (-0.6, 0.5)  # in read-noise standard deviations
    black_tint: float = 0.5  # standard deviation of a channel's own black level, in the same unit
    red_gain: Range = (1.5, 3.6)
    blue_gain: Range = (1.2, 2.6)
    saturation: Range = (-0.15, 0.4)  # of the colour matrix, row-normalised
    cast_stops: float = 0.22  # standard deviation of the red and blue casts left by the white balance
    strong_cast_share: float = 0.2
    strong_cast_stops: float = 0.5

    demosaic_share: float = 0.25
    demosaic_weight: Range = (0.03, 0.2)
    toe: float = 0.04  # standard deviation of the log exponent of the dark rendering
    smear_share: float = 0.12
    smear_weight: Range = (0.4, 0.9)
    jpeg_share: float = 0.3
    jpeg_quality: tuple[int, int] = (70, 97)  # from the first up to, and without, the second
    jpeg_quality_dark: int = 88  # at least, beyond three stops: below it nothing of a dark picture is left

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least, most = value if isinstance(value, tuple) else (value, value)
            floor, ceiling = _LIMITS.get(name, (0.0, _ANY))
            if not floor <= least <= most <= ceiling:
                told = list(value) if isinstance(value, tuple) else value
                raise SettingsError(f"{name} cannot be {told}: from least to most, within {floor:g} and {ceiling:g}")


@dataclass(frozen=True)
class Illumination:
    """A smooth field of light: a tilt and a pool about `centre` (0..1 across and down), `stops` strong; 0: even."""

    stops: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)
    centre: tuple[float, float] = (0.5, 0.5)


@dataclass(frozen=True)
class Shot:
    """One draw from a `Camera`: everything about a picture but its noise. Stops are log2; gains are linear."""

    stops_under: float
    confidence: float  # 0 well lit .. 1 clearly dark: how far the reference may be re-exposed
    empty: bool
    illumination: Illumination
    focus: float
    motion: tuple[float, float]  # length in pixels, angle in radians
    electrons: float
    read_electrons: float
    row_noise: float
    black_level: tuple[float, float, float]
    balance: tuple[float, float, float]
    saturation: float
    cast: tuple[float, float, float]
    demosaic: float
    toe: float
    smear: float
    jpeg: int  # 0: none


def linear_light(encoded: Picture) -> Picture:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    power = ((encoded + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, encoded / 12.92, power).astype(np.float32)


def encoded_light(linear: Picture) -> Picture:
    """SRGB values of linear light in [0, 1]; the inverse of `linear_light`."""
    power = 1.055 * np.maximum(linear, 0.0031308) ** np.float32(1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, linear * 12.92, power).astype(np.float32)


def scene_of_photo(photo: Picture) -> Picture:
    """The light of the scene behind a well-exposed sRGB photograph: its rendering undone."""
    scene: Picture = -np.log1p(-_WHITE * linear_light(photo)).astype(np.float32)
    return scene


def render(scene: Picture, exposure: float = 1.0) -> Picture:
    """The well-exposed picture, sRGB in [0, 1], of a scene's light times `exposure`; white where the scene clips."""
    return encoded_light(np.clip(-np.expm1(-scene * np.float32(exposure)) / _WHITE, 0.0, 1.0))


def _uniform(rng: Generator, span: Range) -> float:
    return float(rng.uniform(*span))


def _log_uniform(rng: Generator, span: Range) -> float:
    return math.exp(_uniform(rng, (math.log(span[0]), math.log(span[1]))))


def _draw_illumination(stops: float, rng: Generator) -> Illumination:
    tilt_x, tilt_y, centre_x, centre_y = (float(draw) for draw in rng.uniform(-1, 1, 4))
    return Illumination(stops, (tilt_x, tilt_y), (0.5 + centre_x / 2, 0.5 + centre_y / 2))


def _black_level(camera: Camera, rng: Generator) -> tuple[float, float, float]:
    common = _uniform(rng, camera.black_level)
    red, green, blue = (common + camera.black_tint * float(draw) for draw in rng.standard_normal(3))
    return red, green, blue


def draw_shot(camera: Camera, rng: Generator) -> Shot:
    """Draw one picture's circumstances from the camera's ranges."""

    def chance(share: float) -> bool:
        return float(rng.random()) < share

    kind = float(rng.random())
    well_lit = kind < camera.well_lit_share
    mild = not well_lit and kind < camera.well_lit_share + camera.mild_share
    stops = 0.0 if well_lit else _uniform(rng, camera.mild_stops if mild else camera.stops_under)
    certain = min(max((stops - 0.5) / 2.0, 0.0), 1.0)
    uneven = _uniform(rng, camera.uneven_stops) if chance(camera.uneven_share) and not well_lit else 0.0
    blurred = chance(camera.blur_share) and not well_lit
    quiet = well_lit or chance(camera.quiet_share)
    noise = _log_uniform(rng, camera.quiet_noise) if quiet else 1.0
    cast = camera.strong_cast_stops if chance(camera.strong_cast_share) else camera.cast_stops
    lowest_quality, highest_quality = camera.jpeg_quality
    if stops > 3:
        lowest_quality = max(lowest_quality, min(camera.jpeg_quality_dark, highest_quality))
    red, blue = (float(2.0 ** (0.0 if well_lit else cast * draw)) for draw in rng.standard_normal(2))
    return Shot(
        stops_under=stops,
        confidence=certain * certain * (3 - 2 * certain),
        empty=chance(camera.empty_share),
        illumination=_draw_illumination(uneven, rng),
        focus=_uniform(rng, camera.focus_pixels) if blurred and chance(0.5) else 0.0,
        motion=(_uniform(rng, camera.motion_pixels), _uniform(rng, (0, math.pi))) if blurred else (0.0, 0.0),
        electrons=_log_uniform(rng, camera.electrons) / noise**2,
        read_electrons=_log_uniform(rng, camera.read_electrons) / noise,
        row_noise=_uniform(rng, camera.row_noise) if chance(0.3) else 0.0,
        black_level=(0.0, 0.0, 0.0) if well_lit else _black_level(camera, rng),
        balance=(_uniform(rng, camera.red_gain), 1.0, _uniform(rng, camera.blue_gain)),
        saturation=_uniform(rng, camera.saturation),
        cast=(red, 1.0, blue),
        demosaic=_uniform(rng, camera.demosaic_weight) if chance(camera.demosaic_share) else 0.0,
        toe=0.0 if well_lit else float(camera.toe * rng.standard_normal()),
        smear=_uniform(rng, camera.smear_weight) if chance(camera.smear_share) and not well_lit else 0.0,
        jpeg=int(rng.integers(lowest_quality, max(highest_quality, lowest_quality + 1)))
        if chance(camera.jpeg_share)
        else 0,
    )


def _light_field(field: Illumination, rows: NDArray[np.float32], columns: NDArray[np.float32]) -> Picture:
    """Factors on the light, `(rows, columns, 1)`, at picture coordinates in [0, 1]; 1 on average, about."""
    x, y = columns[None, :, None], rows[:, None, None]
    pool = np.exp(-((x - field.centre[0]) ** 2 + (y - field.centre[1]) ** 2) / 0.18)
    tilt = field.tilt[0] * (x - 0.5) + field.tilt[1] * (y - 0.5)
    return np.exp2(field.stops * (1.4 * tilt + 1.2 * pool - 0.6)).astype(np.float32)


def _smoothed(image: Picture, weight: float) -> Picture:
    """Convolve with [w, 1-2w, w] down and across; edges repeat."""
    w = np.float32(weight)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    down = padded[1:-1] * (1 - 2 * w) + (padded[:-2] + padded[2:]) * w
    across = down[:, 1:-1] * (1 - 2 * w) + (down[:, :-2] + down[:, 2:]) * w
    return across.astype(np.float32, copy=False)


def _blurred(scene: Picture, shot: Shot) -> Picture:
    """Defocus as repeated small kernels, then the hand's straight path as a mean of shifted copies."""
    variance = shot.focus**2
    while variance > 1e-3:
        part = min(variance, 0.5)
        scene, variance = _smoothed(scene, part / 2), variance - part
    length, angle = shot.motion
    if length <= 0:
        return scene
    count = math.ceil(length) + 1  # no step is longer than a pixel
    reach = math.ceil(length / 2)
    padded = np.pad(scene, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    total = np.zeros_like(scene)
    height, width = scene.shape[:2]
    for place in np.linspace(-length / 2, length / 2, count):
        top, left = reach + round(place * math.sin(angle)), reach + round(place * math.cos(angle))
        total += padded[top : top + height, left : left + width]
    total /= np.float32(count)
    return total


def _colour_matrix(saturation: float) -> NDArray[np.float32]:
    """Sensor colour to sRGB: rows sum to 1, so grey stays grey; 0 is the identity."""
    return ((1 + saturation) * np.eye(3) - saturation / 3).astype(np.float32)


def _sensed(light: Picture, shot: Shot, rng: Generator) -> Picture:
    """What the sensor makes of linear light (1 is white at full exposure), in the same unit: noise, black level."""
    matrix = _colour_matrix(shot.saturation)
    balance: NDArray[np.float32] = np.asarray(shot.balance, np.float32)
    sensor = np.maximum(light @ np.linalg.inv(matrix).T, 0.0) / balance
    # Shot noise is Poisson; its normal approximation is good from ten electrons up, and read noise hides it below.
    read = shot.read_electrons / shot.electrons
    variance = sensor / np.float32(shot.electrons) + np.float32(read**2)
    noise = np.sqrt(variance) * rng.standard_normal(sensor.shape, np.float32)
    noisy: Picture = (sensor + noise).astype(np.float32, copy=False)
    if shot.row_noise:
        noisy += np.float32(read * shot.row_noise) * rng.standard_normal((sensor.shape[0], 1, 1), np.float32)
    noisy += np.float32(read) * np.asarray(shot.black_level, np.float32)
    if shot.demosaic:
        noisy = _smoothed(noisy, shot.demosaic)
    return ((noisy * balance) @ matrix.T).astype(np.float32, copy=False)


def _compressed(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0 if quality > 85 else 2)
    return np.asarray(Image.open(buffer))


def take(scene: Picture, shot: Shot, rng: Generator, *, window: tuple[float, float, float, float]) -> Picture:
    """Photograph a scene under a shot's circumstances: `(h, w, 3)` linear light in, 8-bit sRGB steps in [0, 1] out.

    `window` (top, bottom, left, right, as shares of the whole picture) places a crop in the picture's illumination.
    """
    height, width = scene.shape[:2]
    if shot.empty:
        return np.zeros_like(scene)
    top, bottom, left, right = window
    rows = np.linspace(top, bottom, height, dtype=np.float32)
    columns = np.linspace(left, right, width, dtype=np.float32)
    light = scene
    if shot.illumination.stops:
        light = light * _light_field(shot.illumination, rows, columns)
    light = _blurred(light, shot) * np.float32(2.0**-shot.stops_under)
    light = _sensed(np.minimum(light, 8.0) * np.asarray(shot.cast, np.float32), shot, rng)
    picture = render(np.maximum(light, 0.0))
    if shot.toe:
        picture = picture ** np.float32(math.exp(shot.toe))
    if shot.smear:
        smooth = _smoothed(_smoothed(picture, 0.25), 0.25)
        picture += np.float32(shot.smear) * (smooth - picture)
    steps = np.rint(np.clip(picture, 0.0, 1.0) * 255).astype(np.uint8)
    seen = _compressed(steps, shot.jpeg) if shot.jpeg else steps
    return seen.astype(np.float32) / np.float32(255)
