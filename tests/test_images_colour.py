"""Promises about colour: profiles are calculated right in both directions, and nothing outside sRGB is lost."""

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from lowlight_cli.images import Canvas, Picture, read_picture, write_picture
from lowlight_cli.images.colour import ProfileError, linear_to_srgb, parse_profile, srgb_to_linear

# Columns of the linear-RGB-to-XYZ matrix under D50, as the profiles in use have them.
DISPLAY_P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))


def s15f16(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def gamma_curve(gamma: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", 0, 0) + s15f16(gamma)


def srgb_curve() -> bytes:
    numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + s15f16(*numbers)


def table_curve(points: int) -> bytes:
    values = [round(65535 * (index / (points - 1)) ** 2.2) for index in range(points)]
    return b"curv" + bytes(4) + struct.pack(f">I{points}H", points, *values)


def icc_profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    offset, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, offset + len(body), len(content))
        body += content
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x04300000, b"mntr", space, b"XYZ ")
    white = s15f16(0.9642, 1.0, 0.8249)
    header = header.ljust(36, b"\x00") + b"acsp"
    return header.ljust(68, b"\x00") + white.ljust(60, b"\x00") + table + body


def rgb_profile(primaries: tuple[tuple[float, ...], ...], curve: bytes) -> bytes:
    tags = {b"wtpt": b"XYZ " + bytes(4) + s15f16(0.9642, 1.0, 0.8249)}
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True):
        tags[name] = b"XYZ " + bytes(4) + s15f16(*column)
    return icc_profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def grey_profile(curve: bytes) -> bytes:
    return icc_profile(b"GRAY", {b"wtpt": b"XYZ " + bytes(4) + s15f16(0.9642, 1.0, 0.8249), b"kTRC": curve})


PROFILES: dict[str, Callable[[], bytes]] = {
    "display-p3": lambda: rgb_profile(DISPLAY_P3, srgb_curve()),
    "adobe-rgb": lambda: rgb_profile(ADOBE_RGB, gamma_curve(2.19922)),
    "prophoto": lambda: rgb_profile(PROPHOTO, gamma_curve(1.8)),
    "prophoto-table": lambda: rgb_profile(PROPHOTO, table_curve(1024)),
}


def enhanced(picture: Picture, change: Callable[[np.ndarray], np.ndarray]) -> Picture:
    canvas = Canvas(picture)
    for rows in picture.bands():
        canvas.add(change(picture.srgb(rows)).astype(np.float32))
    return canvas.picture()


def random_picture(icc: bytes, dtype: type[np.unsignedinteger], channels: int = 3) -> Picture:
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(5).integers(0, top, (97, 89, channels), endpoint=True).astype(dtype)
    return Picture(pixels, icc=icc, profile=parse_profile(icc), depth=8 * np.dtype(dtype).itemsize)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", PROFILES)
def test_an_untouched_picture_comes_back_exactly_in_every_profile(name: str, dtype: type[np.unsignedinteger]) -> None:
    picture = random_picture(PROFILES[name](), dtype)
    assert np.array_equal(enhanced(picture, lambda x: x).pixels, picture.pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("curve", [gamma_curve(1.0), gamma_curve(2.2), table_curve(256)])
def test_an_untouched_grey_picture_comes_back_exactly(curve: bytes, dtype: type[np.unsignedinteger]) -> None:
    picture = random_picture(grey_profile(curve), dtype, channels=1)
    assert np.array_equal(enhanced(picture, lambda x: x).pixels, picture.pixels)


@pytest.mark.parametrize("name", PROFILES)
def test_what_the_network_sees_agrees_with_littlecms(name: str) -> None:
    icc = PROFILES[name]()
    picture = random_picture(icc, np.uint8)
    image = Image.fromarray(picture.pixels)
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    theirs = np.asarray(ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB")))
    ours = picture.srgb().transpose(1, 2, 0) * 255
    # LittleCMS rounds to 8 bits, and does its own curves in 8-bit steps in the shadows.
    assert np.abs(ours - theirs).mean() < 0.5
    assert np.quantile(np.abs(ours - theirs), 0.99) <= 2.0


def test_a_result_in_display_p3_is_what_the_network_drew() -> None:
    picture = random_picture(PROFILES["display-p3"](), np.uint16)
    wanted = np.full((3, 97, 89), 0.25, dtype=np.float32)
    inside = Picture(np.full_like(picture.pixels, 9000), icc=picture.icc, profile=picture.profile, depth=16)
    result = enhanced(inside, lambda x: wanted[:, : x.shape[1]])
    assert np.abs(result.srgb() - 0.25).max() < 1e-4


def test_a_saturated_colour_outside_srgb_stays_outside_when_made_brighter() -> None:
    icc = PROFILES["display-p3"]()
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[...] = (110, 5, 5)
    picture = Picture(pixels, icc=icc, profile=parse_profile(icc))
    brighter = enhanced(picture, lambda x: linear_to_srgb(np.clip(3 * srgb_to_linear(x), 0, 1)))
    profile = parse_profile(icc)
    before, after = profile.linear(pixels)[:, 0, 0], profile.linear(brighter.pixels)[:, 0, 0]
    assert before[1] < -1e-3, "the colour must lie outside sRGB for this test to mean anything"
    assert after == pytest.approx(3 * before, rel=0.05)


def test_an_srgb_profile_is_known_by_its_numbers_and_costs_nothing() -> None:
    assert parse_profile(rgb_profile(SRGB, srgb_curve())).is_srgb
    assert parse_profile(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()).is_srgb
    assert not parse_profile(PROFILES["display-p3"]()).is_srgb


@pytest.mark.parametrize(
    "icc",
    [
        b"",
        bytes(500),
        rgb_profile(SRGB, srgb_curve())[:200],
        rgb_profile(((0, 0, 0),) * 3, srgb_curve()),
        rgb_profile(SRGB, gamma_curve(0.0)),
        rgb_profile(SRGB, b"curv" + bytes(4) + struct.pack(">I", 1 << 31)),
        rgb_profile(SRGB, b"mft2" + bytes(40)),
        icc_profile(b"RGB ", {}),
        icc_profile(b"CMYK", {}),
    ],
)
def test_a_damaged_or_foreign_profile_is_a_profile_error(icc: bytes) -> None:
    with pytest.raises(ProfileError):
        parse_profile(icc)


@settings(max_examples=60)
@given(st.binary(max_size=40), st.integers(0, 600))
def test_a_profile_with_random_damage_is_read_or_refused(damage: bytes, place: int) -> None:
    icc = bytearray(rgb_profile(DISPLAY_P3, srgb_curve()))
    icc[place : place + len(damage)] = damage
    try:
        profile = parse_profile(bytes(icc))
    except ProfileError:
        return
    ramp = np.arange(256, dtype=np.uint8).reshape(1, -1, 1).repeat(3, axis=2)
    assert np.isfinite(profile.linear(ramp)).all()


@settings(max_examples=40)
@given(arrays.arrays(np.uint16, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40), fill=st.nothing()))
def test_deep_srgb_values_survive_the_network_unchanged(values: np.ndarray) -> None:
    picture = Picture(np.repeat(values[..., None], 3, axis=2), depth=16)
    assert np.array_equal(enhanced(picture, lambda x: x).pixels, picture.pixels)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_png_that_names_its_gamma_is_seen_as_it_is_meant_and_says_so_in_the_result(mode: str) -> None:
    info, file = PngInfo(), io.BytesIO()
    info.add(b"gAMA", struct.pack(">I", 100_000))
    Image.new(mode, (8, 8), 55 if mode == "L" else (55, 55, 55)).save(file, "PNG", pnginfo=info)
    picture = read_picture(file.getvalue())
    # Linear light of 55/255 is what sRGB writes as 128.
    assert picture.srgb()[:, 0, 0] * 255 == pytest.approx([128, 128, 128], abs=0.7)
    again = io.BytesIO()
    write_picture(enhanced(picture, lambda x: x), again)
    result = Image.open(again)
    assert np.array_equal(np.asarray(result), np.full_like(np.asarray(result), 55))
    source = ImageCms.ImageCmsProfile(io.BytesIO(result.info["icc_profile"]))
    seen = ImageCms.profileToProfile(result, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert seen is not None
    assert seen.getpixel((0, 0)) == pytest.approx((128, 128, 128), abs=1)


def test_a_png_with_the_usual_gamma_is_plain_srgb() -> None:
    info, file = PngInfo(), io.BytesIO()
    info.add(b"gAMA", struct.pack(">I", 45455))
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    assert read_picture(file.getvalue()).icc is None


def test_a_profile_inside_a_bmp_is_read_and_the_result_written_as_srgb() -> None:
    icc = PROFILES["display-p3"]()
    header = struct.pack("<I2i2H", 124, 2, 1, 1, 32) + bytes(40) + b"DEBM"
    header = header.ljust(112, b"\x00") + struct.pack("<3I", 124 + 8, len(icc), 0)
    content = (
        struct.pack("<2sI4xI", b"BM", 14 + 124 + 8 + len(icc), 14 + 124) + header + bytes([5, 5, 110, 0] * 2) + icc
    )
    picture = read_picture(content)
    assert picture.icc == icc
    assert picture.pixels[0, 0].tolist() == [110, 5, 5]
    target = io.BytesIO()
    assert "written as sRGB" in write_picture(picture, target)[0]
    assert read_picture(target.getvalue()).pixels[0, 0, 0] > 115


def test_grey_takes_the_luminance_of_a_coloured_result() -> None:
    picture = Picture(np.zeros((2, 2, 1), dtype=np.uint8))
    canvas = Canvas(picture)
    canvas.add(np.array([1.0, 0.0, 0.0], dtype=np.float32).reshape(3, 1, 1).repeat(2, 1).repeat(2, 2))
    red = canvas.picture().pixels[0, 0, 0] / 255
    assert srgb_to_linear(np.float32([red]))[0] == pytest.approx(0.2126, abs=0.005)


def test_eight_bits_of_lab_are_calculated_exactly_in_shadows_too() -> None:
    light, green_red, blue_yellow = np.meshgrid(np.arange(0, 160, 3), *[np.arange(-14, 15, 2)] * 2, indexing="ij")
    levels = np.stack((light, green_red % 256, blue_yellow % 256), -1).reshape(-1, 15, 3).astype(np.uint8)
    file = io.BytesIO()
    Image.frombytes("LAB", (15, len(levels)), levels.tobytes()).save(file, "TIFF")
    # CIE 15:2004, 8.2.1, under D50.
    middle = (light / 2.55 + 16) / 116
    roots = np.stack((middle + green_red / 500, middle, middle - blue_yellow / 200), -1)
    xyz = np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29)) * (0.9642, 1, 0.8249)
    linear = xyz @ np.linalg.inv(np.array(SRGB))
    wanted = linear_to_srgb(linear.clip(0, 1)).reshape(-1, 15, 3) * 255
    inside = ((linear >= 0) & (linear <= 1)).all(-1).reshape(-1, 15)
    assert inside.mean() > 0.8
    assert np.abs(read_picture(file.getvalue()).pixels[inside] - wanted[inside]).max() < 0.7


@pytest.mark.parametrize(
    ("space", "index", "is_adobe"),
    [(65535, "R03", True), (2, None, True), (65535, "R98", False), (65535, None, False), (1, "R03", False)],
)
def test_adobe_rgb_that_exif_alone_tells_of_is_read_and_written_as_such(space: int, index: str | None, is_adobe: bool):
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA001: space} | ({0xA005: {1: index}} if index else {}))
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (60, 90, 40)).save(file, "JPEG", exif=exif, quality=100)
    picture = read_picture(file.getvalue())
    assert (picture.icc is not None) == is_adobe
    if not is_adobe:
        return
    assert picture.icc is not None
    profile = parse_profile(picture.icc)
    wanted = np.array(ADOBE_RGB)
    assert profile.to_srgb == pytest.approx(np.linalg.inv(np.array(SRGB).T) @ wanted.T, abs=2e-3)
    assert profile.curves[0](np.array([0.5]))[0] == pytest.approx(0.5**2.19921875, abs=1e-4)
    target = io.BytesIO()
    write_picture(picture, target)
    assert read_picture(target.getvalue()).icc == picture.icc
