"""Promises of pictures: every mode and depth right, metadata kept true, every bad file one clear sentence."""

import io
import itertools
import math
import os
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, IptcImagePlugin, PngImagePlugin, TiffImagePlugin

from lowlight_cli.errors import InputError, OutputError, SettingsError
from lowlight_cli.images import (
    Canvas,
    Frame,
    Picture,
    output_format,
    pillow_image,
    probe,
    read_animation,
    read_frames,
    read_picture,
    stops_between,
    write_frames,
    write_picture,
)
from lowlight_cli.images import xmp as xmp_packets
from lowlight_cli.images.colour import linear_to_srgb, parse_profile
from lowlight_cli.images.gamma import adobe_rgb, profile_of_png
from lowlight_cli.images.metadata import Tags, as_srgb, orientation_of, readable_exif
from lowlight_cli.images.profiles import plan_colour
from lowlight_cli.images.sniff import bits_of_avif, has_gain_map, has_more_scans
from lowlight_cli.settings import Encoding

XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 tiff:Orientation="6" exif:GPSLatitude="52,30N" photoshop:City="secret" tiff:Make="Maker">
<Iptc4xmpExt:LocationCreated><rdf:Bag><rdf:li><Iptc4xmpExt:City>secret</Iptc4xmpExt:City></rdf:li></rdf:Bag>
</Iptc4xmpExt:LocationCreated></rdf:Description></rdf:RDF></x:xmpmeta>"""
CITY, KEYWORD, DIGEST = b"\x1c\x02\x5a\x00\x06secret", b"\x1c\x02\x19\x00\x05night", b"8BIM\x04\x25\0\0\0\0\0\x04abcd"
LONG_CAPTION = b"\x1c\x02\x78\x80\x04\x00\x00\x80\x01" + bytes(0x8001)


def noise(*shape: int, dtype: type[np.unsignedinteger] = np.uint8) -> np.ndarray:
    return np.random.default_rng(3).integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def written(picture: Picture, name: str, **choices: object) -> bytes:
    file = io.BytesIO()
    write_picture(picture, file, encoding=Encoding(format=name, **choices))  # type: ignore[arg-type]
    return file.getvalue()


def exif_with(**fields: object) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = fields.get("orientation", 1)
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.ExifImageWidth: 24,
        ExifTags.Base.ExifImageHeight: 16,
        ExifTags.Base.MakerNote: b"maker's note with offsets inside",
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSMapDatum: "WGS-84 secret"}
    return exif.tobytes()


# --- Modes and depths


@pytest.mark.parametrize("name", ["PNG", "TIFF", "BMP", "WEBP", "PPM", "JPEG", "AVIF", "GIF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_gives_back_what_was_written(name: str, channels: int) -> None:
    picture = Picture(np.full((20, 31, channels), 77, dtype=np.uint8), lossless=True)
    again = read_picture(written(picture, name))
    assert again.format == name
    assert (again.height, again.width) == (20, 31)
    assert np.abs(again.pixels.astype(int) - 77).max() <= 1
    if name in ("PNG", "TIFF", "PPM", "JPEG"):
        assert again.pixels.shape == picture.pixels.shape


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_portable_map_keeps_every_bit(channels: int, dtype: type[np.unsignedinteger]) -> None:
    picture = Picture(noise(33, 47, channels, dtype=dtype), depth=8 * np.dtype(dtype).itemsize)
    assert np.array_equal(read_picture(written(picture, "PPM")).pixels, picture.pixels)


def test_samples_of_a_portable_map_above_its_largest_are_white() -> None:
    picture = read_picture(b"P6 2 1 1000\n" + struct.pack(">6H", 1000, 1001, 60000, 65535, 500, 0))
    assert picture.pixels.ravel().tolist() == [65535, 65535, 65535, 65535, 32768, 0]


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_formats_keep_every_bit(
    name: str, channels: int, alpha: bool, dtype: type[np.unsignedinteger]
) -> None:
    deep = dtype is np.uint16
    picture = Picture(
        noise(33, 47, channels, dtype=dtype),
        alpha=noise(33, 47, dtype=dtype) if alpha else None,
        depth=16 if deep else 8,
    )
    again = read_picture(written(picture, name))
    assert again.depth == picture.depth
    # Equal too where the grey came back as three equal channels, as 16-bit grey with alpha does in a TIFF.
    assert (again.pixels == picture.pixels).all()
    assert (again.alpha is None) == (picture.alpha is None)
    if picture.alpha is not None and again.alpha is not None:
        assert np.array_equal(again.alpha, picture.alpha)


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP", "AVIF", "BMP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_carried_over_untouched(name: str, channels: int) -> None:
    again = read_picture(written(Picture(noise(33, 47, channels) // 4, alpha=noise(33, 47)), name))
    assert again.alpha is not None
    assert np.array_equal(again.alpha, noise(33, 47))


def test_the_alpha_of_a_bmp_is_where_another_reader_looks_for_it() -> None:
    picture = Picture(noise(9, 7, 3), alpha=noise(9, 7))
    image = Image.open(io.BytesIO(written(picture, "BMP")))
    assert image.mode == "RGBA"
    assert np.array_equal(np.asarray(image), np.dstack((noise(9, 7, 3), noise(9, 7))))
    assert image.info["dpi"] == pytest.approx((96, 96), abs=0.1)


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 3, 4]), st.sampled_from(["PNG", "TIFF"]))
def test_deep_pictures_of_any_size_keep_every_bit(height: int, width: int, channels: int, name: str) -> None:
    values = noise(height, width, channels, dtype=np.uint16)
    colours = channels - (channels % 2 == 0)
    picture = Picture(values[..., :colours], values[..., -1] if channels % 2 == 0 else None, depth=16)
    again = read_picture(written(picture, name))
    assert (again.pixels == picture.pixels).all()


def test_a_dark_deep_picture_is_still_sixteen_bits() -> None:
    dark = Picture(np.full((8, 8, 3), 200, dtype=np.uint16), depth=16)
    again = read_picture(written(dark, "PNG"))
    assert again.pixels.dtype == np.uint16
    assert again.srgb().max() == pytest.approx(200 / 65535)


def test_deep_colour_of_both_byte_orders_and_packings_is_read_right() -> None:
    tifffile = pytest.importorskip("tifffile")
    values = noise(19, 23, 3, dtype=np.uint16)
    for order in "<>":
        for compression in (None, "zlib"):
            file = io.BytesIO()
            tifffile.imwrite(file, values, byteorder=order, photometric="rgb", compression=compression, metadata=None)
            again = read_picture(file.getvalue())
            assert np.array_equal(again.pixels, values), (order, compression)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (3, 2), 1), [255]),
        (Image.new("L", (3, 2), 90), [90]),
        (Image.new("I;16", (3, 2), 30000), [30000]),
        (Image.new("P", (3, 2), 1, ), None),
        (Image.new("LA", (3, 2), (90, 120)), [90]),
        (Image.new("RGBA", (3, 2), (10, 20, 30, 40)), [10, 20, 30]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)  # fmt: skip
def test_every_png_mode_has_the_values_of_the_file(image: Image.Image, expected: list[int] | None) -> None:
    picture = read_picture(encoded(image, "PNG"))
    wanted = expected or list(image.convert("RGB").getpixel((0, 0)))  # type: ignore[arg-type]
    assert picture.pixels[0, 0].tolist() == wanted
    if image.mode in ("LA", "RGBA"):
        assert picture.alpha is not None
        assert picture.alpha[0, 0] == image.getpixel((0, 0))[-1]  # type: ignore[index]


def test_a_palette_with_transparency_becomes_colour_and_alpha() -> None:
    image = Image.new("P", (4, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1, 1, 0])
    picture = read_picture(encoded(image, "PNG", transparency=1))
    assert picture.pixels[0].tolist() == [[10, 20, 30], [200, 100, 50], [200, 100, 50], [10, 20, 30]]
    assert picture.alpha is not None
    assert picture.alpha[0].tolist() == [255, 0, 0, 255]


PRESS = Path("/usr/share/color/icc/ghostscript/default_cmyk.icc")


@pytest.mark.skipif(not PRESS.exists(), reason="needs the profile of a press, which ghostscript brings")
def test_the_black_of_a_press_is_black() -> None:
    """The darkest ink there is becomes the darkest light there is, and what lies between keeps its distance."""
    press, srgb = ImageCms.getOpenProfile(str(PRESS)), ImageCms.createProfile("sRGB")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    ramp = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2))
    ink = ImageCms.profileToProfile(ramp, srgb, press, intent, "CMYK", flags=flags)
    assert ink is not None
    back = read_picture(encoded(ink, "TIFF", icc_profile=PRESS.read_bytes())).pixels.astype(int)
    assert back[0, 0].max() <= 10
    assert np.abs(back[0] - np.arange(256)[:, None]).max() <= 12


def test_cmyk_becomes_srgb_and_says_so() -> None:
    picture = read_picture(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"))
    assert picture.pixels[0, 0].tolist() == [255, 0, 0]
    assert picture.warnings == ("CMYK colours are written as sRGB",)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_channels_that_lie_apart_in_a_tiff_keep_every_bit(
    dtype: type[np.unsignedinteger], channels: int, compression: str | None
) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = noise(channels, 37, 53, dtype=dtype)
    for order in "<>":
        for strips in ({"rowsperstrip": 5}, {"rowsperstrip": 37}, {"tile": (16, 16)}):
            file = io.BytesIO()
            tifffile.imwrite(
                file, values, byteorder=order, photometric="rgb", planarconfig="separate", compression=compression,
                extrasamples=["unassalpha"] * (channels - 3), metadata=None, **strips,
            )  # fmt: skip
            again = read_picture(file.getvalue())
            assert probe(file.getvalue()).depth == again.depth == 8 * np.dtype(dtype).itemsize
            assert np.array_equal(np.moveaxis(again.pixels, 2, 0), values[:3]), (order, strips)
            assert again.alpha is None if channels == 3 else np.array_equal(again.alpha, values[3])


def test_premultiplied_channels_that_lie_apart_are_divided_by_their_alpha() -> None:
    tifffile = pytest.importorskip("tifffile")
    alpha = np.full((8, 8), 0x8000, dtype=np.uint16)
    planes = np.stack([*(np.full((8, 8), value, dtype=np.uint16) for value in (0x4000, 0x2000, 0)), alpha])
    file = io.BytesIO()
    tifffile.imwrite(
        file, planes, photometric="rgb", planarconfig="separate", compression="zlib", extrasamples=["assocalpha"],
        metadata=None,
    )  # fmt: skip
    picture = read_picture(file.getvalue())
    assert picture.pixels[0, 0].tolist() == pytest.approx([0x4000 * 65535 / 0x8000, 0x2000 * 65535 / 0x8000, 0], abs=1)
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, alpha)


def test_a_channel_without_a_meaning_is_left_out_and_said() -> None:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, noise(8, 8, 4), photometric="rgb", extrasamples=["unspecified"], metadata=None)
    picture = read_picture(file.getvalue())
    assert np.array_equal(picture.pixels, noise(8, 8, 4)[..., :3])
    assert picture.alpha is None
    assert "neither colour nor transparency" in picture.warnings[0]


def test_white_is_zero_is_turned_round_at_sixteen_bits() -> None:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, noise(8, 8, dtype=np.uint16), photometric="miniswhite", metadata=None)
    assert np.array_equal(read_picture(file.getvalue()).pixels[..., 0], 65535 - noise(8, 8, dtype=np.uint16))


def test_floating_point_samples_are_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match="floating-point"):
        read_picture(encoded(Image.new("F", (4, 4), 0.5), "TIFF"))


# --- What a network sees


def test_srgb_gives_planes_between_zero_and_one_and_a_preview_of_their_means() -> None:
    picture = Picture(noise(120, 90, 3))
    whole = picture.srgb()
    assert whole.shape == (3, 120, 90)
    assert whole.dtype == np.float32
    assert whole.flags.c_contiguous
    assert np.array_equal(whole[:, 10:20, 30:50], picture.srgb(slice(10, 20), slice(30, 50)))
    assert np.array_equal(picture.preview(500), whole)
    small = picture.preview(40)
    assert small.shape == (3, 40, 30)
    assert small == pytest.approx(whole.reshape(3, 40, 3, 30, 3).mean(axis=(2, 4)), abs=1e-6)


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 70))
def test_a_preview_of_any_size_keeps_the_mean(height: int, width: int, side: int) -> None:
    picture = Picture(noise(height, width, 3))
    preview = picture.preview(side)
    assert max(preview.shape[1:]) <= max(side, 1)
    assert preview.mean() == pytest.approx(picture.srgb().mean(), abs=1e-5)


def test_a_canvas_refuses_rows_that_do_not_fit_and_a_result_with_holes() -> None:
    canvas = Canvas(Picture(noise(5, 4, 3)))
    with pytest.raises(ValueError, match="do not fit"):
        canvas.add(np.zeros((3, 6, 4), dtype=np.float32))
    canvas.add(np.zeros((3, 2, 4), dtype=np.float32))
    with pytest.raises(ValueError, match="3 rows are missing"):
        canvas.picture()


def test_a_result_is_rounded_and_clamped() -> None:
    canvas = Canvas(Picture(noise(1, 4, 3)))
    row = np.array([-0.5, 100.6 / 255, 100.4 / 255, 1.5], dtype=np.float32)
    canvas.add(np.broadcast_to(row, (3, 1, 4)))
    assert canvas.picture().pixels[0, :, 0].tolist() == [0, 101, 100, 255]


def test_rows_that_are_levels_already_come_back_as_they_are_where_only_rounding_was_left() -> None:
    source = Picture(noise(5, 4, 3), alpha=np.array([[0, 9, 9, 9]] * 5, dtype=np.uint8))
    canvas, levels = Canvas(source), noise(5, 4, 3)[::-1]
    assert canvas.takes_levels
    canvas.add_levels(levels[:2])
    for wrong in (levels[:4], levels[:2, :3], levels[:2, :, :1]):
        with pytest.raises(ValueError, match="do not fit the 3 rows"):
            canvas.add_levels(wrong)
    canvas.add_levels(levels[2:])
    pixels = canvas.picture().pixels
    assert np.array_equal(pixels[:, 1:], levels[:, 1:])
    assert np.array_equal(pixels[:, 0], source.pixels[:, 0])  # which alpha hides
    for other in (Picture(noise(5, 4, 1)), Picture(noise(5, 4, 3), profile=parse_profile(adobe_rgb()))):
        assert not Canvas(other).takes_levels
        with pytest.raises(ValueError, match="do not fit"):
            Canvas(other).add_levels(levels)


# --- Metadata


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_applied_once(orientation: int, name: str) -> None:
    upright = Image.new("L", (24, 16), 255)
    upright.paste(0, (0, 0, 12, 8))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    lying = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    content = encoded(lying.convert("RGB"), name, exif=exif_with(orientation=orientation))
    facts = probe(content)
    assert (facts.width, facts.height) == (24, 16)
    for picture in (read_picture(content), read_picture(written(read_picture(content), name))):
        assert picture.pixels.shape == (16, 24, 3)
        assert np.abs(picture.pixels[..., 0].astype(int) - np.asarray(upright)).mean() < 2


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_xmp_and_profile_are_in_the_result_and_true(name: str) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encoded(
        Image.new("RGB", (24, 16), (40, 50, 60)), "WEBP", exif=exif_with(orientation=6), xmp=XMP, icc_profile=icc
    )
    result = Image.open(io.BytesIO(written(read_picture(content), name)))
    exif = result.getexif()
    assert exif[ExifTags.Base.Make] == "Maker"
    assert exif.get(ExifTags.Base.Orientation, 1) == 1
    details = exif.get_ifd(ExifTags.IFD.Exif)
    assert details[ExifTags.Base.MakerNote] == b"maker's note with offsets inside"
    assert (details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]) == (16, 24)
    assert result.info["icc_profile"] == icc
    assert b'tiff:Orientation="1"' in result.info["xmp"]


def test_an_avif_deeper_or_wider_than_what_can_be_read_says_so() -> None:
    plain = encoded(Image.new("RGB", (24, 16), (40, 50, 60)), "AVIF")
    assert read_picture(plain).warnings == ()
    flags, numbers = plain.index(b"av1C") + 6, plain.index(b"colrnclx") + 8
    for bits, mark in ((10, 0x40), (12, 0x60)):
        # Pillow writes 8 bits only, and does not open a header that lies: the header alone must do.
        assert bits_of_avif(plain[:flags] + bytes([plain[flags] | mark])) == bits
    assert has_gain_map(plain.replace(b"MA1B", b"tmap", 1))
    assert not has_gain_map(plain)
    for content, said in (
        (plain[:numbers] + struct.pack(">2H", 9, 16) + plain[numbers + 4 :], "HDR light"),
        (plain[:numbers] + struct.pack(">2H", 12, 13) + plain[numbers + 4 :], "wide colours"),
    ):
        assert said in read_picture(content).warnings[0]


def test_a_gain_map_and_an_extended_packet_leave_no_claim_behind() -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" '
        b'xmpNote:HasExtendedXMP="0FBF8664" tiff:Make="Maker"><Container:Directory><rdf:Seq/></Container:Directory>'
        b"</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    images = [Image.fromarray(noise(16, 24, 3)) for _ in range(2)]
    content = encoded(images[0], "MPO", save_all=True, append_images=images[1:], xmp=xmp)
    picture = read_picture(content)
    assert "gain map" in picture.warnings[0]
    assert "extended part" in picture.warnings[1]
    result = written(picture, "JPEG")
    assert b'tiff:Make="Maker"' in result
    for claim in (b"hdrgm:Version", b"Container:Directory", b"HasExtendedXMP"):
        assert claim in content
        assert claim not in result


OPEN_TAGS = {
    "open tags": b"<xmp:Thumbnails>",
    "cut tags": b"<xmp:Thumbnails ",
    "extensions": b"<xmpNote:HasExtendedXMP>",
    "tags of many names": b"".join(b"<crs:a%x>" % number for number in range(10_000)),
}


@pytest.mark.timeout(30)  # each took minutes when every tag was looked for up to the end
@pytest.mark.parametrize("repeated", OPEN_TAGS.values(), ids=OPEN_TAGS)
def test_a_packet_of_tags_that_are_never_closed_takes_no_minutes(repeated: bytes) -> None:
    xmp = XMP + repeated * ((1 << 20) // len(repeated))
    assert Tags(xmp=xmp).upright(1, 24, 16).xmp == xmp
    assert xmp_packets.without_developing(xmp) == xmp
    assert xmp_packets.without_extension(xmp) == xmp
    assert len(Tags(xmp=xmp).chosen("no-gps").xmp or b"") > 1 << 19


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "repeated",
    [b"<a:City>", b"<a:City ", b"</a:City ", b" a:City ", b" a:City='", b"</a:City>", b" latitude", b"a", b"a:", b"<"],
)
def test_a_packet_of_parts_of_places_takes_no_minutes(repeated: bytes) -> None:
    assert Tags(xmp=repeated * ((1 << 20) // len(repeated))).chosen("no-gps").xmp is not None


@pytest.mark.timeout(30)
def test_a_block_of_many_resources_takes_no_minutes() -> None:
    block = b"8BIM\x04\x20" + bytes(6)
    assert Tags(iptc=block * 200_000).chosen("no-gps").iptc == block * 200_000


@pytest.mark.parametrize(
    ("xmp", "kept"),
    [
        (b"<a><crs:X>1</crs:X></a>", b"<a></a>"),
        (b'<a><crs:X b="1"><c/></crs:X> <crs:Y/><crs:Z /></a>', b"<a> </a>"),
        (b'<a><crs:X b="1"/><c/><crs:X>1</crs:X></a>', b"<a><c/></a>"),
        (b"<a><crs:X><crs:Y>1</crs:Y></crs:X>2<crs:Y>1</crs:Y></a>", b"<a>2</a>"),
        (b'<a crs:X="1" b="2" crs:Y = \'3\'/>', b'<a b="2"/>'),
        (b"<a><crs:X>1</crs:XY><crs:X", b"<a><crs:X>1</crs:XY><crs:X"),
    ],
)
def test_properties_go_with_all_that_is_in_them(xmp: bytes, kept: bytes) -> None:
    assert xmp_packets.without_developing(xmp) == kept


def test_a_makers_note_stays_where_its_offsets_expect_it() -> None:
    content = encoded(Image.new("RGB", (24, 16)), "JPEG", exif=exif_with(orientation=8))
    place = exif_with().removeprefix(b"Exif\x00\x00").index(b"maker's note")
    # A TIFF begins with the block itself, so its offsets are those of the file.
    assert written(read_picture(content), "TIFF").index(b"maker's note") == place
    jpeg = read_picture(written(read_picture(content), "JPEG")).tags.exif
    assert jpeg is not None
    assert jpeg.index(b"maker's note") == place


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF"])
def test_without_gps_a_makers_note_goes_as_it_may_name_a_city(name: str) -> None:
    content = encoded(Image.new("RGB", (24, 16)), "JPEG", exif=exif_with())
    result = written(read_picture(content), name, metadata="no-gps")
    assert b"maker's note" not in result
    exif = Image.open(io.BytesIO(result)).getexif()
    assert exif[ExifTags.Base.Make] == "Maker"
    assert ExifTags.Base.MakerNote not in exif.get_ifd(ExifTags.IFD.Exif)


def test_a_stale_thumbnail_is_gone() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    thumbnail = encoded(Image.new("RGB", (16, 8), "red"), "JPEG")
    block = exif.tobytes().removeprefix(b"Exif\x00\x00")
    order = "<" if block[:1] == b"I" else ">"
    link = 8 + 2 + 12
    start = len(block) + 2 + 24 + 4
    second = struct.pack(f"{order}HHHIIHHIII", 2, 0x201, 4, 1, start, 0x202, 4, 1, len(thumbnail), 0)
    block = block[:link] + struct.pack(f"{order}I", len(block)) + block[link + 4 :] + second + thumbnail
    content = encoded(Image.new("RGB", (24, 16)), "JPEG", exif=b"Exif\x00\x00" + block)
    assert Image.open(io.BytesIO(content)).getexif().get_ifd(ExifTags.IFD.IFD1)
    result = written(read_picture(content), "JPEG")
    assert not Image.open(io.BytesIO(result)).getexif().get_ifd(ExifTags.IFD.IFD1)
    assert result.count(b"\xff\xd8\xff") == 1
    assert Image.open(io.BytesIO(result)).getexif()[ExifTags.Base.Make] == "Maker"


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_without_gps_no_trace_of_the_place_is_left(name: str) -> None:
    segment = iptc_segment(KEYWORD + CITY) + DIGEST
    content = encoded(Image.new("RGB", (24, 16)), "JPEG", exif=exif_with(), xmp=XMP, extra=jpeg_iptc(segment))
    assert b"secret" in written(read_picture(content), name)
    picture = read_picture(content)
    result = written(picture, name, metadata="no-gps")
    assert b"secret" not in result
    assert b"52,30N" not in result
    if name in ("JPEG", "PNG", "TIFF"):
        assert read_picture(result).tags.iptc == iptc_segment(KEYWORD)
    exif = Image.open(io.BytesIO(result)).getexif()
    assert not exif.get_ifd(ExifTags.IFD.GPSInfo)
    assert exif[ExifTags.Base.Make] == "Maker"


def directory_of(at: int, *entries: tuple[int, int, int, bytes], link: int = 0) -> bytes:
    """Return a directory of (tag, kind, count, value) that begins `at` this place, long values behind it."""
    lines, behind = b"", b""
    end = at + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        field = value if len(value) <= 4 else struct.pack("<I", end + len(behind))
        behind += value if len(value) > 4 else b""
        lines += struct.pack("<HHI", tag, kind, count) + field.ljust(4, b"\0")
    return struct.pack("<H", len(entries)) + lines + struct.pack("<I", link) + behind


def exif_that_points_from(directory: str, kind: int) -> bytes:
    """Return a block whose first, Exif or second directory (the thumbnail's) points to the place."""
    pointer = (0x8825, kind, 1, struct.pack("<I", 300))
    pointers = {name: [pointer] if name == directory else [] for name in ("first", "details", "second")}
    first = [(0x10F, 2, 6, b"Maker\0"), *pointers["first"], (0x8769, 4, 1, struct.pack("<I", 100))]
    details = [(0x9003, 2, 20, b"2024:11:05 21:30:00\0"), *pointers["details"]]
    block = b"II*\0" + struct.pack("<I", 8) + directory_of(8, *first, link=200)
    block = block.ljust(100, b"\0") + directory_of(100, *details)
    block = block.ljust(200, b"\0") + directory_of(200, (0x103, 3, 1, b"\x06\0"), *pointers["second"])
    place = [(1, 2, 2, b"N\0"), (2, 5, 3, b"a secret, in 24 letters.")]
    return b"Exif\0\0" + block.ljust(300, b"\0") + directory_of(300, *place)


@pytest.mark.parametrize("kind", [4, 9, 13, 3])  # LONG, as they should be, SLONG, IFD, SHORT
@pytest.mark.parametrize("directory", ["first", "details", "second"])
def test_without_gps_no_trace_is_left_whoever_points_to_the_place(directory: str, kind: int) -> None:
    content = encoded(Image.new("RGB", (24, 16)), "JPEG", exif=exif_that_points_from(directory, kind))
    for name in ("JPEG", "PNG", "TIFF"):
        result = written(read_picture(content), name, metadata="no-gps")
        assert b"a secret" not in result
        exif = Image.open(io.BytesIO(result)).getexif()
        assert 0x8825 not in exif
        assert 0x8825 not in exif.get_ifd(ExifTags.IFD.Exif)
        assert exif[ExifTags.Base.Make] == "Maker"
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "2024:11:05 21:30:00"


@pytest.mark.timeout(30)  # of each of these the many ways to the one directory took minutes
@pytest.mark.parametrize("tag", [0x8825, 0x8769, 0x14A], ids=["places", "details", "pictures"])
def test_a_directory_that_thousands_point_to_is_looked_at_once(tag: int) -> None:
    many = 12_000
    at = 8 + 2 + 12 * many + 4
    block = b"II*\0" + struct.pack("<I", 8) + directory_of(8, *[(tag, 4, 1, struct.pack("<I", at))] * many)
    block += directory_of(at, *[(1, 0, 1, b"")] * many)  # of no kind, so none of them can be erased
    assert len(Tags(exif=block).chosen("no-gps").exif or b"") <= len(block)


@pytest.mark.parametrize(
    ("records", "kept"),
    [
        (KEYWORD + LONG_CAPTION + CITY, KEYWORD + LONG_CAPTION),
        (KEYWORD + CITY + b"\x1c\x02\x19\xff\xff", KEYWORD),
        (KEYWORD + b"x", KEYWORD),
        (CITY, None),
    ],
)
def test_no_place_hides_among_odd_records(records: bytes, kept: bytes | None) -> None:
    content = encoded(Image.new("RGB", (24, 16)), "JPEG", extra=jpeg_iptc(iptc_segment(records)))
    result = written(read_picture(content), "JPEG", metadata="no-gps")
    assert read_picture(result).tags.iptc == (kept and iptc_segment(kept))


def test_iptc_stays_with_a_png_as_other_programs_write_it() -> None:
    content = encoded(Image.new("RGB", (24, 16)), "JPEG", extra=jpeg_iptc(iptc_segment(KEYWORD * 20)))
    for depth in (8, 16):
        picture = read_picture(content)
        if depth == 16:
            picture = replace(picture, pixels=picture.pixels.astype(np.uint16) * 257, depth=16)
        again = read_picture(written(picture, "PNG"))
        assert again.tags.iptc == iptc_segment(KEYWORD * 20)
        assert not again.tags.text
    info = PngImagePlugin.PngInfo()  # bare records, as some write them
    info.add_text("Raw profile type iptc", f"\niptc\n{len(KEYWORD):8}\n{KEYWORD.hex()}\n", zip=True)
    assert read_picture(encoded(Image.new("L", (8, 8)), "PNG", pnginfo=info)).tags.iptc == iptc_segment(KEYWORD)


def test_what_a_format_has_no_place_for_is_said() -> None:
    content = encoded(Image.new("RGB", (24, 16)), "JPEG", exif=exif_with(), extra=jpeg_iptc(iptc_segment(KEYWORD)))
    for name, said in {
        "WEBP": ("WEBP holds no IPTC data; left out",),
        "BMP": ("BMP holds no EXIF and no IPTC data; left out",),
        "TIFF": (),
    }.items():
        assert write_picture(read_picture(content), io.BytesIO(), encoding=Encoding(format=name)) == said
        assert not write_picture(read_picture(content), io.BytesIO(), encoding=Encoding(format=name, metadata="strip"))


def iptc_segment(records: bytes) -> bytes:
    """Return records as Photoshop's resource 1028."""
    return b"8BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + records + bytes(len(records) % 2)


def jpeg_iptc(resources: bytes) -> bytes:
    """Return resources as a JPEG's segment."""
    content = b"Photoshop 3.0\0" + resources
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


def test_strip_leaves_the_profile_that_the_pixels_need_and_nothing_else() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "somebody")
    content = encoded(Image.new("RGB", (24, 16)), "PNG", exif=exif_with(), pnginfo=info, icc_profile=icc)
    assert b"somebody" in written(read_picture(content), "PNG")
    result = written(read_picture(content), "PNG", metadata="strip")
    assert b"somebody" not in result
    assert b"Maker" not in result
    assert Image.open(io.BytesIO(result)).info["icc_profile"] == icc


def test_jpeg_quality_is_at_least_the_inputs_and_colour_is_not_subsampled() -> None:
    image = Image.fromarray(noise(64, 64, 3))
    for quality in (30, 75, 92, 97, 100):
        picture = read_picture(encoded(image, "JPEG", quality=quality))
        assert picture.quality is not None
        assert abs(picture.quality - quality) <= 1
        again = read_picture(written(picture, "JPEG"))
        assert again.quality is not None
        assert again.quality >= max(picture.quality, 91)
    assert Image.open(io.BytesIO(written(picture, "JPEG"))).layer[0][1:3] == (1, 1)  # type: ignore[attr-defined]


def test_a_damaged_profile_is_left_out_with_a_warning() -> None:
    picture = read_picture(encoded(Image.new("RGB", (8, 8)), "PNG", icc_profile=b"x" * 200))
    assert picture.icc is None
    assert "damaged" in picture.warnings[0]


# --- Files that are no pictures


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, data, b"IEND")
    )


BAD_FILES = {
    "empty": (b"", "it is empty"),
    "text": (b"hello, world, this is no picture", "no picture"),
    "web page": (b"<!DOCTYPE html><html></html>", "web page"),
    "cut-off JPEG": (encoded(Image.new("RGB", (64, 64)), "JPEG")[:400], "cut off|begins as JPEG files do"),
    "cut-off PNG": (encoded(Image.fromarray(noise(64, 64, 3)), "PNG")[:5000], "cut off"),
    "cut-off noise JPEG": (encoded(Image.fromarray(noise(64, 64, 3)), "JPEG")[:3000], "cut off"),
    "PNG of 10 gigapixels": (png_header(100_000, 100_000), "million pixels"),
    "GIF without frames": (b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "cut off|damaged"),
    "TIFF with a loop": (b"II*\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x00", "damaged"),
    "JPEG 2000": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "BMP of no size": (b"BM" + bytes(52), "BMP|damaged"),
}


@pytest.mark.parametrize(("content", "reason"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_one_clear_sentence(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    for source in (content, path):
        with pytest.raises(InputError, match=reason) as caught:
            read_picture(source)
        assert "\n" not in str(caught.value)
        assert str(path) not in str(caught.value)
    assert path.read_bytes() == content


def test_scans_of_a_jpeg_are_counted_as_its_decoder_meets_them() -> None:
    plain = encoded(Image.fromarray(noise(64, 64, 3)), "JPEG", quality=95)
    progressive = encoded(Image.fromarray(noise(64, 64, 3)), "JPEG", progressive=True, comment=b"\xff\xda" * 200)
    for content, scans in ((plain, 1), (progressive, 10), (progressive + plain * 3, 10), (plain[:-2], 1)):
        assert has_more_scans(io.BytesIO(content), scans - 1)
        assert not has_more_scans(io.BytesIO(content), scans)
    within = progressive.replace(b"\xff\xd9", b"")
    for length in (1, 65_530, 65_531, 65_532, 65_533):  # so that the next lies across what is read at once
        segment = b"\xff\xfe" + struct.pack(">H", length + 2) + b"\xff" * length
        assert has_more_scans(io.BytesIO(within + segment + b"\xff\xda\0\x02" + plain), 10)
        assert not has_more_scans(io.BytesIO(within + segment + b"\xff\xd9" + plain), 10)


@settings(max_examples=150)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"]),
    st.binary(min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_a_file_with_random_damage_is_read_or_refused(name: str, damage: bytes, where: float) -> None:
    content = bytearray(encoded(Image.fromarray(noise(9, 11, 3)), name, exif=exif_with(orientation=6)))
    place = int(where * len(content))
    content[place : place + len(damage)] = damage
    try:
        picture = read_picture(bytes(content), pixel_budget=1 << 20)
    except InputError:
        return
    written(picture, "JPEG")
    written(picture, "TIFF", metadata="no-gps")


def test_a_damaged_exif_block_is_edited_within_itself() -> None:
    sound = exif_with(orientation=6).removeprefix(b"Exif\x00\x00")
    for place, value in itertools.product(range(4, len(sound)), (*range(12), 24, 26, 36, 48, 127, 255)):
        damaged = bytearray(sound)
        damaged[place] = value
        block = readable_exif(bytes(damaged))
        if block is None:
            continue
        tags = Tags(exif=block)
        for edited in (
            tags.chosen("no-gps"),
            tags.upright(orientation_of(block), 70_000, 16),
            Tags(exif=as_srgb(block)),
        ):
            assert edited.exif is not None
            assert len(edited.exif) <= len(block)
            assert readable_exif(edited.exif) is not None


@pytest.mark.parametrize("dots_per_metre", [1, 39, 2_500_000, 30_000_000, 1 << 31, (1 << 32) - 1])
def test_a_senseless_resolution_hinders_no_format(dots_per_metre: int) -> None:
    content = bytearray(encoded(Image.new("RGB", (5, 4)), "BMP"))
    struct.pack_into("<2I", content, 38, dots_per_metre, dots_per_metre)
    picture = read_picture(bytes(content))
    for name in ("JPEG", "PNG", "TIFF", "WEBP", "BMP"):
        assert read_picture(written(picture, name)).height == 4


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt"])
def test_a_bomb_in_the_metadata_is_not_blown_up(name: bytes) -> None:
    resource = pytest.importorskip("resource")
    content = {b"zTXt": b"Comment\0\0", b"iCCP": b"icc\0\0", b"iTXt": b"Comment\0\1\0\0\0"}[name]
    packer = zlib.compressobj(1)
    content += b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    plain = encoded(Image.new("RGB", (4, 4)), "PNG")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        picture = read_picture(plain[:33] + chunk + plain[33:])
    except InputError:
        picture = None
    assert picture is None or picture.icc is None
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    # Linux counts kilobytes, macOS bytes.
    assert grown * (1 if sys.platform == "darwin" else 1024) < 50e6


def test_folders_pipes_and_missing_files_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("", "folder"), ("pipe", "pipe"), ("missing", "no such file")):
        started = time.monotonic()
        with pytest.raises(InputError, match=reason):
            read_picture(tmp_path / name)
        assert time.monotonic() - started < 5


def test_the_pixel_budget_is_read_from_the_header_and_can_be_raised() -> None:
    content = encoded(Image.new("RGB", (200, 100)), "PNG")
    with pytest.raises(InputError, match=r"million pixels.*--max-megapixels"):
        read_picture(content, pixel_budget=10_000)
    assert read_picture(content, pixel_budget=20_000).width == 200


def test_the_librarys_own_limit_is_as_it_was(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    read_picture(encoded(Image.new("RGB", (20, 10)), "PNG"))
    with pytest.raises(InputError):
        read_picture(tmp_path / "missing")
    assert before == Image.MAX_IMAGE_PIXELS


def test_an_input_is_never_changed(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.new("RGB", (20, 10)), "JPEG"))
    path.chmod(0o444)
    before, times = path.read_bytes(), path.stat().st_mtime_ns
    write_picture(read_picture(path), tmp_path / "result.jpg")
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == times


# --- Formats and writing


def test_a_result_keeps_the_inputs_format_unless_asked_otherwise() -> None:
    assert output_format("PNG") == "PNG"
    assert output_format("PNG", requested="jpg") == "JPEG"
    assert output_format("PNG", target=Path("out.webp")) == "WEBP"
    assert output_format("PNG", target=Path("out.unknown")) == "PNG"
    assert output_format("RAW") == "TIFF"
    assert output_format("JPEG", target=Path("photo.mpo")) == "JPEG"
    assert output_format("PNG", target=Path("photo.dng")) == "PNG"
    with pytest.raises(SettingsError, match="there are avif, bmp"):
        output_format("PNG", requested="docx")


def test_what_a_format_cannot_hold_is_said() -> None:
    deep = Picture(noise(8, 8, 3, dtype=np.uint16), noise(8, 8, dtype=np.uint16), depth=16)
    file = io.BytesIO()
    warnings = write_picture(deep, file, encoding=Encoding(format="jpg"))
    assert len(warnings) == 2
    assert any("8 of 16" in warning for warning in warnings)
    assert any("transparency" in warning for warning in warnings)


def test_a_picture_too_large_for_its_format_is_refused_before_it_is_written(tmp_path: Path) -> None:
    long = Picture(np.zeros((1, 17000, 3), dtype=np.uint8))
    with pytest.raises(OutputError, match="16383"):
        write_picture(long, tmp_path / "long.webp")
    assert not list(tmp_path.iterdir())


def test_the_same_picture_gives_the_same_bytes() -> None:
    picture = Picture(noise(40, 40, 3))
    for name in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        assert written(picture, name) == written(picture, name)


# --- Animations


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_comes_back_frame_for_frame(name: str, tmp_path: Path) -> None:
    shades = (30, 90, 150, 210)
    images = [Image.new("RGB", (16, 12), (shade, shade, shade)) for shade in shades]
    extra = {} if name == "AVIF" else {"loop": 3}
    path = tmp_path / "animation"
    path.write_bytes(
        encoded(images[0], name, save_all=True, append_images=images[1:], duration=[100, 200, 300, 400], **extra)
    )
    animation = read_animation(path)
    assert probe(path).frames == animation.frames == 4
    brighter = (
        Frame(Picture(frame.picture.pixels + np.uint8(20), format=name), frame.milliseconds)
        for frame in read_frames(animation)
    )
    target = tmp_path / f"result.{name.lower()}"
    write_frames(brighter, target, animation=animation)
    again = read_animation(target)
    frames = list(read_frames(again))
    assert [frame.milliseconds for frame in frames] == [100, 200, 300, 400]
    assert [int(frame.picture.pixels[6, 8, 0]) for frame in frames] == pytest.approx(
        [shade + 20 for shade in shades], abs=3
    )
    assert again.plays == animation.plays


def test_pages_of_a_deep_tiff_stay_pages_of_their_own_sizes(tmp_path: Path) -> None:
    pages = [Picture(noise(5 + n, 9 - n, 3, dtype=np.uint16), depth=16, format="TIFF") for n in range(3)]
    target = tmp_path / "pages.tif"
    source = read_animation(written(pages[0], "TIFF"))
    write_frames((Frame(page) for page in pages), target, animation=source)
    again = [frame.picture.pixels for frame in read_frames(read_animation(target))]
    assert len(again) == 3
    assert all(np.array_equal(page.pixels, pixels) for page, pixels in zip(pages, again, strict=True))


def test_what_of_a_page_could_not_be_read_is_said_once() -> None:
    pages = [Image.new("CMYK", (4, 4), (0, 255, 255, shade)) for shade in (0, 50)]
    animation = read_animation(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert write_frames(read_frames(animation), io.BytesIO(), animation=animation) == (
        "CMYK colours are written as sRGB",
    )


def test_deep_pages_say_so_when_they_become_an_animation_of_eight_bits() -> None:
    pages = [Frame(Picture(noise(5, 9, 3, dtype=np.uint16), depth=16), 100) for _ in range(2)]
    animation = read_animation(written(pages[0].picture, "TIFF"))
    target = io.BytesIO()
    (said,) = write_frames(pages, target, animation=animation, encoding=Encoding(format="png"))
    assert "PNG is written with 8 of 16" in said
    assert read_picture(target.getvalue()).depth == 8


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG"])
def test_an_animation_that_memory_cannot_hold_is_refused_before_its_first_frame(name: str, tmp_path: Path) -> None:
    images = [Image.new("RGB", (20, 10), (shade, 0, 0)) for shade in (30, 90, 150)]
    content = encoded(images[0], name, save_all=True, append_images=images[1:], duration=100)

    def frames() -> Iterator[Frame]:
        raise AssertionError("a frame was asked for")
        yield

    small = read_animation(content, pixel_budget=599)
    with pytest.raises(OutputError, match=r"3 frames have 0.0006 million pixels together.*`lowlight video`"):
        write_frames(frames(), tmp_path / "a.gif", animation=small)
    assert not list(tmp_path.iterdir())
    write_frames(read_frames(small), tmp_path / "a.tif", animation=small)  # which writes its pages as they come
    enough = read_animation(content, pixel_budget=600)
    write_frames(read_frames(enough), tmp_path / "a.gif", animation=enough)


def test_the_pages_of_a_tiff_count_with_their_own_sizes() -> None:
    first, *others = (Image.new("L", (side, side)) for side in (2, 3, 4))
    content = encoded(first, "TIFF", save_all=True, append_images=others)
    assert read_animation(content).pixels == 4 + 9 + 16


def test_an_animation_is_never_reduced_to_one_frame_in_silence(tmp_path: Path) -> None:
    images = [Image.new("L", (4, 4), shade) for shade in (0, 255)]
    content = encoded(images[0], "GIF", save_all=True, append_images=images[1:])
    assert "first of its 2 frames" in read_picture(content).warnings[-1]

    def unwanted() -> Frame:
        pytest.fail("no frame may be asked for")

    with pytest.raises(OutputError, match="holds one picture, not 2"):
        write_frames((unwanted() for _ in range(2)), tmp_path / "still.jpg", animation=read_animation(content))


# --- Notebooks


def test_a_picture_of_16_bits_is_rounded_for_pillow() -> None:
    pixels = noise(9, 7, 1, dtype=np.uint16)
    shown = np.asarray(pillow_image(Picture(pixels, depth=16)))
    assert np.abs(shown - pixels[..., 0] / 257).max() <= 0.5


# --- Extras


def test_a_heic_photo_is_read_and_written_with_its_extra_or_named_without() -> None:
    heic = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"lowlight-cli\[heic\]"):
            read_picture(heic)
        return
    with pytest.raises(InputError):
        read_picture(heic)
    again = read_picture(written(Picture(np.full((16, 24, 3), 80, dtype=np.uint8)), "HEIF"))
    assert again.format == "HEIF"
    assert np.abs(again.pixels.astype(int) - 80).max() <= 3


def test_a_raw_photo_is_not_mistaken_for_its_thumbnail() -> None:
    exif = Image.Exif()
    exif[0xC612] = b"\x01\x04\x00\x00"
    dng = encoded(Image.new("RGB", (16, 12)), "TIFF", exif=exif)
    with pytest.raises(InputError) as caught:
        read_picture(dng)
    assert "raw" in str(caught.value).lower()


@pytest.mark.filterwarnings("ignore:Metadata Warning")  # what Pillow says of that tag, also as it writes it
def test_iptc_in_a_tag_of_its_own_stays_with_a_tiff_and_with_a_jpeg(tmp_path: Path) -> None:
    """Tag 33723; what is cut off in it costs no picture."""
    city = b"\x1c\x02\x5a\x00\x05Paris"
    source = tmp_path / "a.tif"
    for content in (city[:3], city):
        directory = TiffImagePlugin.ImageFileDirectory_v2()
        directory[33723] = content
        directory.tagtype[33723] = 7
        Image.new("RGB", (20, 10)).save(source, tiffinfo=directory)
        write_picture(read_picture(source), tmp_path / "c.tif", overwrite=True)
    for name in ("b.tif", "b.jpg"):
        write_picture(read_picture(source), tmp_path / name)
    with Image.open(tmp_path / "b.jpg") as result:
        assert IptcImagePlugin.getiptcinfo(result) == {(2, 90): b"Paris"}
    with Image.open(tmp_path / "b.tif") as result:  # among Photoshop's resources, as JPEGs have it
        assert result.tag_v2[34377] == b"8BIM\x04\x04\0\0\0\0\0\x0a" + city


# --- What other programs write


def hex_text(name: str, content: bytes) -> str:
    return f"\n{name}\n{len(content):8}\n{content.hex()}\n"


def test_a_png_says_what_its_writer_had_no_chunk_for() -> None:
    exif, packet = exif_with(orientation=6), b"http://ns.adobe.com/xap/1.0/\x00" + XMP
    for texts in ({"xmp": XMP, "exif": exif}, {"xmp": packet, "APP1": exif}, {"APP1": packet, "exif": exif}):
        info = PngImagePlugin.PngInfo()
        for name, content in texts.items():
            info.add_text(f"Raw profile type {name}", hex_text(name, content), zip=True)
        picture = read_picture(encoded(Image.new("RGB", (24, 16)), "PNG", pnginfo=info))
        assert (picture.width, picture.height) == (16, 24)
        assert b"Maker" in (picture.tags.exif or b"")
        assert b"photoshop:City" in (picture.tags.xmp or b"")
        assert not picture.tags.text


def test_places_go_whatever_their_writer_called_them() -> None:
    drone = XMP.replace(b"exif:GPSLatitude", b"drone-dji:GpsLatitude")
    result = written(read_picture(encoded(Image.new("RGB", (8, 8)), "JPEG", xmp=drone)), "JPEG", metadata="no-gps")
    assert b"52,30N" not in result
    info = PngImagePlugin.PngInfo()
    for name in (
        *("exif:GPSLatitude", "xmp:GPSLongitude", "photoshop:City", "photoshop:State", "Iptc4xmpCore:Location"),
        *("Latitude", "geo:lat", "City", "state", "Country Code", "Sub-location", "Location"),
    ):
        info.add_text(name, "secret")
    info.add_text("Author", "somebody")
    content = encoded(Image.new("RGB", (8, 8)), "PNG", pnginfo=info)
    assert read_picture(written(read_picture(content), "PNG", metadata="no-gps")).tags.text == (("Author", "somebody"),)


RDF = b"""<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 xmlns:geo="http://www.w3.org/2003/01/geo/wgs84_pos#" xmlns:GPS="http://ns.adobe.com/exif/1.0/"
 xmlns:\xc3\xa4="http://ns.adobe.com/photoshop/1.0/" xmlns:core="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/">"""


@pytest.mark.parametrize(
    "place",
    [
        b' \xc3\xa4:City="secret" core:Location=\'secret\' core:CountryCode = "secret"/>',
        b' geo:lat="secret" geo:long="secret"/>',
        b' GPS:GPSLatitude="secret"/>',
        b"><GPS:GPSLatitude>secret</GPS:GPSLatitude ></rdf:Description>",
        b'><City xmlns="http://ns.adobe.com/photoshop/1.0/">secret</City\n></rdf:Description>',
        b"><core:Location>secret</core:Location><geo:lat>secret</geo:lat></rdf:Description>",
    ],
)
def test_places_in_xmp_go_whatever_prefix_their_namespace_has(place: bytes) -> None:
    xmp = RDF + b'<rdf:Description tiff:Make="Maker"' + place + b"</rdf:RDF>"
    ElementTree.fromstring(xmp)
    left = Tags(xmp=xmp).chosen("no-gps").xmp
    assert left is not None
    assert b"secret" not in left
    description = ElementTree.fromstring(left)[0]
    assert description.attrib == {"{http://ns.adobe.com/tiff/1.0/}Make": "Maker"}
    assert not len(description)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_without_gps_a_packet_whose_names_cannot_be_told_goes(encoding: str) -> None:
    packet = XMP.decode().encode(encoding)
    result = written(read_picture(encoded(Image.new("RGB", (8, 8)), "JPEG", xmp=packet)), "JPEG", metadata="no-gps")
    assert "secret".encode(encoding)[-12:] not in result
    assert Tags(xmp=XMP + b"\0").chosen("no-gps").xmp  # as some end it


def test_a_clip_behind_a_photo_is_named_and_no_longer_claimed() -> None:
    claims = XMP.replace(b"tiff:Make", b'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" '
                         b'GCamera:MicroVideo="1" GCamera:MicroVideoOffset="5000" tiff:Make')  # fmt: skip
    picture = read_picture(encoded(Image.new("RGB", (8, 8)), "JPEG", xmp=claims) + bytes(5000))
    assert "left out" in picture.warnings[0]
    assert b"MicroVideo" not in (picture.tags.xmp or b"MicroVideo")
    assert not read_picture(encoded(Image.new("RGB", (8, 8)), "JPEG", xmp=XMP)).warnings


@pytest.mark.parametrize("name", ["WEBP", "AVIF", "TIFF"])
def test_grey_with_a_profile_looks_the_same_where_only_colour_is_held(name: str) -> None:
    profile = profile_of_png({"gamma": 1.0}, grey=True)  # linear light
    deep = name == "TIFF"  # with alpha, which readers know in colour only
    pixels = np.full((16, 16, 1), 0.2 * (65535 if deep else 255), np.uint16 if deep else np.uint8)
    alpha = np.full((16, 16), 65535, np.uint16) if deep else None
    picture = Picture(pixels, alpha=alpha, depth=16 if deep else 8)
    plan = plan_colour("L", profile)
    picture = replace(picture, icc=plan.icc, profile=plan.profile, lossless=True)
    again = read_picture(written(picture, name))
    assert not again.warnings
    assert again.icc is None
    assert again.srgb()[:, 4, 4] == pytest.approx(picture.srgb()[:, 4, 4], abs=0.012)


def test_wide_and_bright_colours_that_are_not_understood_are_said() -> None:
    plain = encoded(Image.new("RGB", (8, 8)), "PNG")
    for primaries, curve, words in ((12, 13, "pale"), (9, 16, "flat"), (1, 13, "")):
        chunk = b"cICP" + bytes((primaries, curve, 0, 1))
        chunk = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        said = read_picture(plain[:33] + chunk + plain[33:]).warnings
        assert [words in one for one in said] == [True] * bool(words)


@pytest.mark.parametrize("length", [20_001, 100_000])
@pytest.mark.parametrize("lossless", [True, False])
def test_a_lossless_webp_is_told_behind_a_long_profile(length: int, lossless: bool, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().ljust(length, b"\0")
    image = Image.fromarray(noise(16, 16, 3))
    path = tmp_path / "a.webp"
    for frames in ({}, {"save_all": True, "append_images": [image.rotate(90)]}):
        path.write_bytes(encoded(image, "WEBP", lossless=lossless, icc_profile=profile, **frames))
        for source in (path, path.read_bytes()):
            assert read_picture(source).lossless is lossless
            assert next(one.picture.lossless for one in read_frames(read_animation(source))) is lossless


@pytest.mark.parametrize(("loop", "plays"), [(None, 1), (0, 0), (2, 3)])
def test_an_animation_plays_as_often_in_every_format(loop: int | None, plays: int, tmp_path: Path) -> None:
    images = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (20, 90)]
    path = tmp_path / "a.gif"
    path.write_bytes(encoded(images[0], "GIF", save_all=True, append_images=images[1:], duration=90,
                             **({} if loop is None else {"loop": loop})))  # fmt: skip
    for name in ("webp", "png", "gif"):
        animation = read_animation(path)
        assert animation.plays == plays
        path = tmp_path / f"b.{name}"
        write_frames(read_frames(animation), path, animation=animation)
    assert read_animation(path).plays == plays


@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 1), (3, 700), (300, 400)]), st.floats(0.1, 4))
def test_stops_between_pictures_are_those_of_their_light(seed: int, size: tuple[int, int], factor: float) -> None:
    light = np.random.default_rng(seed).random((*size, 3)) ** 2 / 5
    before, after = (
        Picture(np.rint(linear_to_srgb((light * gain).astype(np.float32)) * 65535).astype(np.uint16), depth=16)
        for gain in (1, factor)
    )
    wanted = math.log2(((light * factor).mean() + 1e-5) / (light.mean() + 1e-5))
    assert abs(stops_between(before, after) - wanted) <= 0.02
    assert stops_between(after, before) == pytest.approx(-stops_between(before, after), abs=0.021)
    assert stops_between(before, before) == 0


def test_one_pixel_that_changed_is_a_change() -> None:
    before = Picture(np.zeros((4, 4, 3), np.uint8))
    after = Picture(np.eye(4, dtype=np.uint8)[..., None].repeat(3, axis=2))
    assert stops_between(before, after) > 0
