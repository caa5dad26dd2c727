"""Raw photos: developed by LibRaw, with what their files say about them. The files are made here, byte by byte."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from lowlight_cli.errors import InputError
from lowlight_cli.images import read_picture, write_picture
from lowlight_cli.images.extras import _exif_of_preview
from lowlight_cli.settings import Encoding

pytest.importorskip("rawpy", reason="raw photos need an extra")  # which `test` takes along

WIDTH, HEIGHT = 96, 64
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"'
    b' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4" crs:Exposure2012="+1.50">'
    b"<crs:ToneCurve><rdf:Seq><rdf:li>0, 0</rdf:li></rdf:Seq></crs:ToneCurve></rdf:Description></rdf:RDF></x:xmpmeta>"
)

BYTE, ASCII, SHORT, LONG, RATIONAL, SIGNED = 1, 2, 3, 4, 5, 10
Entries = dict[int, tuple[int, bytes]]

DETAILS: Entries = {
    0x829A: (RATIONAL, struct.pack("<2I", 1, 30)),
    0x8827: (SHORT, struct.pack("<H", 3200)),
    0x9003: (ASCII, b"2024:11:05 21:30:00\0"),
    0x927C: (7, b"maker's note with offsets"),
    0xA001: (SHORT, struct.pack("<H", 65535)),
    0xA434: (ASCII, b"24-70mm f/2.8\0"),
}
PLACE: Entries = {1: (ASCII, b"N\0"), 2: (RATIONAL, struct.pack("<6I", 48, 1, 51, 1, 0, 1))}
SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, 7: 1, SIGNED: 8}


def directory(entries: Entries, at: int) -> bytes:
    """Return a directory that begins `at` this place, with its values behind it."""
    lines, values = b"", b""
    end = at + 2 + 12 * len(entries) + 4
    for tag, (kind, value) in sorted(entries.items()):
        field = value.ljust(4, b"\0")
        if len(value) > 4:
            field = struct.pack("<I", end + len(values))
            values += value + bytes(len(value) % 2)
        lines += struct.pack("<2HI", tag, kind, len(value) // SIZES[kind]) + field
    return struct.pack("<H", len(entries)) + lines + bytes(4) + values


def dng() -> bytes:
    """Return a photo of a Bayer sensor that shows an even, warm grey."""
    sensor = np.empty((HEIGHT, WIDTH), "<u2")
    sensor[::2, ::2], sensor[::2, 1::2], sensor[1::2, ::2], sensor[1::2, 1::2] = 6000, 5000, 5000, 3000
    extra = 8192
    place = extra + len(directory(DETAILS, extra))
    pixels = place + len(directory(PLACE, place))
    matrix = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    first: Entries = {
        254: (LONG, bytes(4)),
        256: (LONG, struct.pack("<I", WIDTH)),
        257: (LONG, struct.pack("<I", HEIGHT)),
        258: (SHORT, struct.pack("<H", 16)),
        259: (SHORT, struct.pack("<H", 1)),
        262: (SHORT, struct.pack("<H", 32803)),
        271: (ASCII, b"Maker\0"),
        272: (ASCII, b"Model 1\0"),
        273: (LONG, struct.pack("<I", pixels)),
        274: (SHORT, struct.pack("<H", 6)),
        277: (SHORT, struct.pack("<H", 1)),
        278: (LONG, struct.pack("<I", HEIGHT)),
        279: (LONG, struct.pack("<I", sensor.nbytes)),
        306: (ASCII, b"2024:11:05 21:30:00\0"),
        315: (ASCII, b"Somebody\0"),
        700: (BYTE, XMP),
        33421: (SHORT, struct.pack("<2H", 2, 2)),
        33422: (BYTE, bytes((0, 1, 1, 2))),
        34665: (LONG, struct.pack("<I", extra)),
        34853: (LONG, struct.pack("<I", place)),
        50706: (BYTE, bytes((1, 4, 0, 0))),
        50717: (LONG, struct.pack("<I", 16383)),
        50721: (SIGNED, b"".join(struct.pack("<2i", value, 1) for value in matrix)),
        50728: (RATIONAL, struct.pack("<6I", 1, 1, 1, 1, 1, 1)),
        50778: (SHORT, struct.pack("<H", 21)),
    }
    return (
        (b"II*\0" + struct.pack("<I", 8) + directory(first, 8)).ljust(extra, b"\0")
        + directory(DETAILS, extra)
        + directory(PLACE, place)
        + sensor.tobytes()
    )


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "night.dng"
    path.write_bytes(dng())
    return path


def test_a_raw_photo_is_developed_upright_and_says_what_its_camera_said(photo: Path, tmp_path: Path) -> None:
    picture = read_picture(photo)
    assert (picture.width, picture.height, picture.depth) == (HEIGHT, WIDTH, 16)
    assert not picture.warnings
    result = tmp_path / "night.jpg"
    write_picture(picture, result)
    with Image.open(result) as image:
        exif = image.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
        assert (exif[ExifTags.Base.Make], exif[ExifTags.Base.Artist]) == ("Maker", "Somebody")
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
        assert details[ExifTags.Base.DateTimeOriginal] == "2024:11:05 21:30:00"
        assert (details[ExifTags.Base.ISOSpeedRatings], details[ExifTags.Base.LensModel]) == (3200, "24-70mm f/2.8")
        assert float(details[ExifTags.Base.ExposureTime]) == pytest.approx(1 / 30)
        assert details[ExifTags.Base.ColorSpace] == 1  # what it was developed to, whatever the camera was set to
        assert ExifTags.Base.MakerNote not in details
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == (48, 51, 0)
        xmp = image.info["xmp"]
    assert b'xmp:Rating="4"' in xmp
    assert b"crs:Exposure" not in xmp  # which a program would apply to the developed pixels
    assert b"ToneCurve" not in xmp


def test_a_stream_is_read_as_a_file_is(photo: Path) -> None:
    assert read_picture(photo.read_bytes()).tags == read_picture(photo).tags


def test_without_gps_a_raw_photo_keeps_its_moment_and_loses_its_place(photo: Path, tmp_path: Path) -> None:
    result = tmp_path / "night.tif"
    write_picture(read_picture(photo), result, encoding=Encoding(metadata="no-gps"))
    with Image.open(result) as image:
        assert not image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        assert image.getexif()[ExifTags.Base.Model] == "Model 1"


def test_damaged_directories_cost_the_exif_data_and_not_the_photo(photo: Path) -> None:
    content = bytearray(photo.read_bytes())
    for entry in range(len(DETAILS)):
        content[8192 + 2 + 12 * entry + 2] = 99  # no type
    picture = read_picture(bytes(content))
    assert picture.pixels.shape == (WIDTH, HEIGHT, 3)
    assert picture.tags.exif is not None  # the first directory's
    assert b"Somebody" in picture.tags.exif


def test_a_raw_photo_cut_short_is_one_sentence(photo: Path) -> None:
    with pytest.raises(InputError, match="raw"):
        read_picture(photo.read_bytes()[:4000])


def test_a_dark_raw_photo_is_not_made_bright_twice(photo: Path) -> None:
    """A sensor at a third of its range; LibRaw's own brightening would turn it white."""
    assert 30_000 < read_picture(photo).pixels.mean() < 45_000


class Previewed:
    """A raw photo whose directories cannot be read, as LibRaw gives it: all that is asked for is its preview."""

    def __init__(self, preview: bytes) -> None:
        self.data = preview

    def extract_thumb(self) -> "Previewed":
        return self


@pytest.mark.parametrize(("format", "is_read"), [("JPEG", True), ("PNG", False), ("WEBP", False)])
def test_only_a_jpeg_is_taken_for_a_preview(format: str, is_read: bool) -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Model] = "Model 1"
    Image.new("RGB", (8, 8)).save(file, format, exif=exif)
    assert (b"Model 1" in (_exif_of_preview(Previewed(file.getvalue())) or b"")) == is_read
