"""The whole corpus of damaged, odd and turned pictures, where it lies beside the checkout."""

import hashlib
import json
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from lowlight_cli.errors import InputError
from lowlight_cli.images import Picture, output_format, probe, read_picture, suffix_for, write_picture

FORMATS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "formats"
# On some machines `convert` is another program; the package's own name is not.
IMAGEMAGICK = shutil.which("convert-im6.q16") or shutil.which("magick")
VIPS = shutil.which("vips")
EXIFTOOL = shutil.which("exiftool")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not FORMATS.is_dir(), reason="the shared corpus is not beside this checkout"),
]


def files(folder: str) -> list[Path]:
    return sorted(path for path in (FORMATS / folder).rglob("*") if path.is_file())


def readable(folder: str) -> list[tuple[Path, Picture]]:
    pairs = []
    for path in files(folder):
        try:
            pairs.append((path, read_picture(path)))
        except InputError:
            continue
    return pairs


def test_every_bad_file_is_read_or_refused_without_noise(
    capfd: pytest.CaptureFixture[str],
) -> None:
    outcomes = {"read": 0, "refused": 0}
    for path in files("bad"):
        before = hashlib.sha256(path.read_bytes()).digest()
        started = time.monotonic()
        try:
            read_picture(path)
            outcomes["read"] += 1
        except InputError:
            outcomes["refused"] += 1
        assert time.monotonic() - started < 10, path
        assert hashlib.sha256(path.read_bytes()).digest() == before, path
    assert sum(outcomes.values()) > 7000
    assert outcomes["read"] > 900
    noise = capfd.readouterr()
    assert noise.err == ""
    assert noise.out == ""


def test_every_header_can_be_probed_or_is_refused() -> None:
    for path in files("bad") + files("modes"):
        try:
            facts = probe(path)
        except InputError:
            continue
        assert facts.width > 0, path
        assert facts.frames > 0, path


@pytest.mark.skipif(IMAGEMAGICK is None, reason="ImageMagick is not installed")
def test_every_orientation_is_what_imagemagick_shows() -> None:
    for path, picture in readable("orientation"):
        command = [str(IMAGEMAGICK), f"{path}[0]", "-auto-orient", "-alpha", "off"]
        raw = subprocess.run(
            [*command, "-colorspace", "sRGB", "-depth", "8", "rgb:-"], capture_output=True, check=True
        ).stdout
        theirs = np.frombuffer(raw, np.uint8).reshape(picture.height, picture.width, 3)
        ours = picture.pixels if picture.depth == 8 else picture.pixels >> 8
        assert np.abs(ours.astype(int) - theirs).mean() < 2, path


# Where we differ from both readers, and why we are right.
OUR_OWN_READING = {
    "ojpeg-strip.tif": "old-style JPEG in TIFF, whose colours the others do not turn into RGB",
    "sample-xyb.jpg": "its profile is applied; the others give the XYB values",
    "imageio-jpeg__src__test__resources__jpeg__cmm-exception-corbis-rgb.jpg": "its profile is applied",
    "bmp__q__pal8os2v2.bmp": "the others misread the palette of OS/2",
    "tiff_tiled_planar_16bit_RGBa.tiff": "premultiplied colours, which the others leave as they are",
    "tiff_strip_planar_16bit_RGBa.tiff": "premultiplied colours, which the others leave as they are",
    "hopper.Lab.tif": "Lab is relative to D50 in a TIFF; the others take another white",
    "lab-green.tif": "Lab is relative to D50 in a TIFF; the others take another white",
    "gif__anim__issue_1455_undersized.gif": "each reader fills the part outside the first frame in its own way",
    "ppm.ppm": "its largest value is 1; libvips does not stretch it, ImageMagick does not read it",
    "imageio-jpeg__src__test__resources__jpeg__warning-embedded-color-profile-invalid-ignored-cmyk.jpg": (
        "its CMYK profile is applied"
    ),
}
OUR_OWN_READING |= {f"tiff_gray_2_4_bpp__hopper{name}.tif": "white is zero" for name in ("2I", "2IR", "4I", "4IR")}


@pytest.mark.skipif(IMAGEMAGICK is None or VIPS is None, reason="ImageMagick or libvips is not installed")
def test_every_mode_has_the_means_of_imagemagick_or_libvips(tmp_path: Path) -> None:
    wrong, compared = [], 0
    for path, picture in readable("modes"):
        ours = picture.pixels.reshape(-1, picture.pixels.shape[2]).mean(axis=0) / np.iinfo(picture.pixels.dtype).max
        references = [means for means in (_magick_means(path), _vips_means(path, tmp_path)) if means is not None]
        if not references or path.name in OUR_OWN_READING:
            continue
        compared += 1
        if not any(np.abs(ours - means[: len(ours)]).max() <= 1.5 / 255 for means in references):
            wrong.append((path.name, ours, references))
    assert not wrong
    assert compared > 500


def _magick_means(path: Path) -> np.ndarray | None:
    command = [str(IMAGEMAGICK), f"{path}[0]", "-coalesce", "-auto-orient", "-alpha", "off", "-depth", "16", "rgb:-"]
    raw = subprocess.run(command, capture_output=True).stdout
    return np.frombuffer(raw, np.uint16).reshape(-1, 3).mean(axis=0) / 65535 if raw else None


def _vips_means(path: Path, folder: Path) -> np.ndarray | None:
    target = folder / "means.v"
    if subprocess.run(["vips", "colourspace", str(path), str(target), "srgb"], capture_output=True).returncode:
        return None
    stats = folder / "stats.csv"
    if subprocess.run(["vips", "stats", str(target), str(stats)], capture_output=True).returncode:
        return None
    # One line for all bands, then one for each; the fifth column is the mean.
    lines = [line.split("\t") for line in stats.read_text().splitlines()]
    return np.array([float(line[4]) for line in lines[1:4]]) / 255


@pytest.mark.skipif(EXIFTOOL is None, reason="exiftool is not installed")
def test_metadata_and_profiles_are_in_the_result_as_an_independent_reader_sees_them(tmp_path: Path) -> None:
    pairs = {}
    for path, picture in readable("orientation") + readable("bad/exif-samples"):
        if picture.tags.exif is None and picture.icc is None:
            continue
        target = tmp_path / f"{len(pairs)}{suffix_for(output_format(picture.format), path)}"
        write_picture(picture, target)
        pairs[path] = target
    before, after = _exiftool(list(pairs)), _exiftool(list(pairs.values()))
    assert len(pairs) > 50
    for path, target in pairs.items():
        old, new = before[str(path)], after[str(target)]
        assert new.get("IFD0:Orientation", 1) == 1, path
        for key in old:
            group = key.split(":")[0]
            if group in ("ExifIFD", "GPS", "ICC_Profile", "IPTC") or group.startswith(
                ("Maker", "Canon", "Nikon", "XMP")
            ):
                assert key in new, (path, key)
        for key in ("IFD0:Make", "IFD0:Model", "ExifIFD:DateTimeOriginal", "GPS:GPSLatitude"):
            assert old.get(key) == new.get(key), (path, key)


def _exiftool(paths: list[Path]) -> dict[str, dict[str, object]]:
    command = ["exiftool", "-j", "-G1", "-n", *map(str, paths)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    return {entry["SourceFile"]: entry for entry in found}
