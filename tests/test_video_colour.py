"""Films' planes become RGB and RGB their planes, by the standards' formulas, and no colour moves on the way."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from clipmaking import make_clip
from numpy.typing import NDArray

from lowlight_cli.clip import ClipResult, ClipSettings, enhance_clips, ready
from lowlight_cli.enhancer import load_enhancer
from lowlight_cli.paths import Job
from lowlight_cli.video.colour import Converter, Pixels, _plane
from lowlight_cli.video.facts import Colour, Turn, probe_clip
from lowlight_cli.video.siting import Siting, siting_of

FORMATS = ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p12le"]
MATRICES = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
RANGES = {"limited": 1, "full": 2}


def depth_of(pixel_format: str) -> int:
    return VideoFormat(pixel_format).components[0].bits


def formula(pixels: Pixels, code: int, depth: int, *, full: bool) -> NDArray[np.float64]:
    """ITU-T H.273: RGB `(3, H, W)` over its whole range as luma and two colour differences of `depth` bits."""
    red, blue = MATRICES[code]
    r, g, b = pixels / np.iinfo(pixels.dtype).max
    luma = red * r + (1 - red - blue) * g + blue * b
    colours = (b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))
    step, top = 1 << (depth - 8), (1 << depth) - 1
    first, scale, colour_scale = (0, top, top) if full else (16 * step, 219 * step, 224 * step)
    return np.stack([luma * scale + first, *(colour * colour_scale + 128 * step for colour in colours)])


def planes(frame: VideoFrame, depth: int) -> list[Pixels]:
    return [_plane(frame, place, np.uint16 if depth > 8 else np.uint8) for place in range(3)]


@pytest.mark.parametrize("extent", RANGES)
@pytest.mark.parametrize("code", MATRICES)
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_from_rgb_by_the_formula(pixel_format: str, code: int, extent: str) -> None:
    depth, full = depth_of(pixel_format), extent == "full"
    kind = np.uint16 if depth > 8 else np.uint8
    # Blocks of pixels that share their colour: filters have nothing to say.
    colours = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, (3, 5, 8), kind, endpoint=False)
    pixels = colours.repeat(32, axis=1).repeat(32, axis=2)
    wanted = formula(colours, code, depth, full=full)
    frame = Converter().planar(pixels, pixel_format, matrix=code, full_range=full, siting="center")
    for found, plane in zip(planes(frame, depth), wanted, strict=True):
        step = found.shape[0] // 5, found.shape[1] // 8
        middle = found[step[0] // 2 :: step[0], step[1] // 2 :: step[1]]
        differences = middle - plane
        assert np.abs(differences).max() < 1.5
        assert abs(differences.mean()) < 0.15


@pytest.mark.parametrize("extent", RANGES)
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_black_grey_and_white_are_exact_both_ways(pixel_format: str, extent: str) -> None:
    depth, full = depth_of(pixel_format), extent == "full"
    step, top = 1 << (depth - 8), (1 << depth) - 1
    black, white = (0, top) if full else (16 * step, 235 * step)
    for luma in (black, (black + white) // 2, white):
        frame = VideoFrame(64, 48, pixel_format)
        for plane, level in zip(planes(frame, depth), (luma, 128 * step, 128 * step), strict=True):
            plane[:] = level
        pixels = Converter().upright_rgb(frame, Colour(1, 1, 1, RANGES[extent]), Turn(), depth=depth)
        assert pixels / np.iinfo(pixels.dtype).max == pytest.approx((luma - black) / (white - black), abs=0.002)
        again = Converter().planar(pixels, pixel_format, matrix=1, full_range=full, siting="left")
        assert [int(plane[20, 20]) for plane in planes(again, depth)] == [luma, 128 * step, 128 * step]


@pytest.mark.parametrize("pixel_format", ["gbrp10le", "gbrp12le", "gray10le"])
def test_grey_and_rgb_use_their_whole_range(pixel_format: str) -> None:
    frame, depth = VideoFrame(64, 48, pixel_format), depth_of(pixel_format)
    for plane in range(len(frame.planes)):
        _plane(frame, plane, np.uint16)[:] = (1 << depth) - 1 - 4
    pixels = Converter().upright_rgb(frame, Colour(1, 1, 1, 0), Turn(), depth=depth)
    assert pixels / 65535 == pytest.approx(1 - 4 / ((1 << depth) - 1), abs=0.0005)


def test_what_is_brighter_than_white_is_white() -> None:
    frame = VideoFrame(64, 48, "yuv420p10le")
    for plane, level in zip(planes(frame, 10), (1019, 512, 512), strict=True):
        plane[:] = level
    assert (Converter().upright_rgb(frame, Colour(1, 1, 1, 1), Turn(), depth=10) == 65535).all()


def moved(before: NDArray[np.generic], after: NDArray[np.generic]) -> list[float]:
    """Return how far a smooth plane moved, down and across, in its own pixels: by least squares on its slopes."""
    plane = before.astype(float)
    difference = (after - plane)[4:-4, 4:-4]
    slopes = [slope[4:-4, 4:-4] for slope in np.gradient(plane)]
    columns = np.stack([*(slope.ravel() for slope in slopes), np.ones(difference.size)], axis=1)
    return list(-np.linalg.lstsq(columns, difference.ravel(), rcond=None)[0][:2])


def smooth_pixels(seed: int, depth: int) -> Pixels:
    noise = np.random.default_rng(seed).random((3, 12, 16), np.float32)
    for axis in (1, 2):
        for _ in range(3):  # to eight times the size, smoother each time
            noise = noise.repeat(2, axis)
            noise = (np.roll(noise, 1, axis) + 2 * noise + np.roll(noise, -1, axis)) / 4
    top = 65535 if depth > 8 else 255
    return (noise * top).astype(np.uint16 if depth > 8 else np.uint8)


@pytest.mark.parametrize("siting", get_args(Siting))
@pytest.mark.parametrize("extent", RANGES)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "yuv420p10le"])
def test_colours_that_pixels_share_stay_where_they_are(pixel_format: str, extent: str, siting: Siting) -> None:
    depth, full = depth_of(pixel_format), extent == "full"
    converter = Converter()
    first = converter.planar(smooth_pixels(1, depth), pixel_format, matrix=1, full_range=full, siting=siting)
    if "420" in pixel_format:
        assert siting_of(first) == siting
    before = [plane.copy() for plane in planes(first, depth)]
    pixels = converter.upright_rgb(first, Colour(1, 1, 1, RANGES[extent]), Turn(), depth=depth)
    again = converter.planar(pixels, pixel_format, matrix=1, full_range=full, siting=siting)
    for plane, shown in zip(before, planes(again, depth), strict=True):
        assert moved(plane, shown) == pytest.approx([0, 0], abs=0.03)


@pytest.mark.parametrize(
    ("codec", "options", "container", "siting"),
    [
        ("libx264", {}, "mp4", "left"),
        ("libx264", {"x264-params": "chromaloc=2"}, "mp4", "topleft"),
        ("mpeg2video", {"b": "4M"}, "mkv", "left"),
        ("mjpeg", {"b": "4M"}, "mkv", "center"),  # comes out as H.264, which has it on the left unless it says so
    ],
)
def test_a_clip_says_where_its_colours_lie_as_its_source_does(
    tmp_path: Path, codec: str, options: dict[str, str], container: str, siting: Siting
) -> None:
    form = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    shades = [smooth_pixels(seed, 8).transpose(1, 2, 0) for seed in range(2)]
    source = make_clip(
        tmp_path / f"a.{container}", frames=2, size=(128, 96), codec=codec, options=options, pixel_format=form,
        pictures=shades, sound=None,
    )  # fmt: skip
    facts, target = probe_clip(source), tmp_path / f"b.{container}"
    assert facts.siting == siting
    (result,) = (
        event
        for event in enhance_clips([Job(source, target)], ready(load_enhancer("identity")), ClipSettings())
        if isinstance(event, ClipResult)
    )
    assert result.status == "done"
    assert probe_clip(target).siting == siting
