"""The whole corpus of damaged, odd and turned pictures, where it lies beside the checkout."""

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lowlight_cli.errors import InputError
from lowlight_cli.images import Picture, output_format, probe, read_picture, write_picture

FORMATS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "formats"
# On some machines `convert` is another program; the package's own name is not.
IMAGEMAGICK = shutil.which("convert-im6.q16") or shutil.which("magick")
VIPS = shutil.which("vips")
EXIFTOOL = shutil.which("exiftool")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
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


# Where we differ from both readers, and why we are right: each looked at, side by side.
OUR_OWN_READING = {
    "ojpeg-strip.tif": "old-style JPEG in TIFF: the lizard is green and pink to ImageMagick, libvips does not read it",
    "bmp__q__pal8os2v2.bmp": "a palette of OS/2, which turns to noise in both",
    "bmp__q__rgb32fakealpha.bmp": "the fourth byte of such a pixel is unused; both take it for alpha",
    "images__extra_bits_gray_8b.tiff": "the extra channel is named as of no meaning; both take it for alpha",
    "images__extra_bits_rgb_8b.tiff": "the extra channel is named as of no meaning; both take it for alpha",
    "hopper.Lab.tif": "Lab in a TIFF is relative to D50, which both forget; the formula gives our means within 1/255",
    "lab-green.tif": "Lab in a TIFF is relative to D50, which both forget; the formula gives our means within 1/255",
    "sample-xyb.jpg": "its table of colours ends in another black in the sRGB profile of libvips: 1.1/255 apart",
    "ppm.ppm": "its largest value is 1; libvips does not stretch it, ImageMagick does not read it",
    "colors-animated-8bpc-alpha-exif-xmp.avif": "its alpha is a track of its own, which ImageMagick does not see",
    # Here they are right: where a GIF's first frame leaves a part of the screen free, Pillow paints its background.
    "gif__anim__issue_1455_undersized.gif": "the free part is the background's blue; the others leave it clear",
}


@pytest.mark.skipif(IMAGEMAGICK is None or VIPS is None, reason="ImageMagick or libvips is not installed")
def test_every_mode_has_the_means_of_imagemagick_or_libvips(tmp_path: Path) -> None:
    wrong, compared = [], 0
    for path, picture in readable("modes"):
        if path.name in OUR_OWN_READING:
            continue
        ours, off = _means(picture), np.empty((0, 4))
        for theirs in _readings(path, tmp_path):
            off = np.vstack((off, np.abs(theirs - ours) * 255))
            # ImageMagick does not see the alpha of an AVIF: that may be another reader's.
            if off[:, :3].max(axis=1).min() <= 1 and off[:, 3].min() <= 1:
                break
        else:
            wrong += [(path.name, off)] if len(off) else []
        compared += len(off) > 0
    assert not wrong
    assert compared > 560


def _readings(path: Path, folder: Path) -> Iterator[np.ndarray]:
    """Yield the means that each reader finds, as far as it can read the file."""
    for read in (_magick_means, partial(_vips_means, folder), partial(_vips_means, folder, in_srgb=True)):
        if (means := read(path)) is not None:
            yield means


def _means(picture: Picture) -> np.ndarray:
    """Return the means of red, green, blue and alpha, 0 to 1."""
    top = np.iinfo(picture.pixels.dtype).max
    colours = np.broadcast_to(picture.pixels.reshape(-1, picture.pixels.shape[2]).mean(axis=0), 3)
    return np.array([*colours, top if picture.alpha is None else picture.alpha.mean()]) / top


def _magick_means(path: Path) -> np.ndarray | None:
    command = [str(IMAGEMAGICK), f"{path}[0]", "-coalesce", "-auto-orient", "-depth", "16", "rgba:-"]
    raw = subprocess.run(command, capture_output=True).stdout
    return np.frombuffer(raw, np.uint16).reshape(-1, 4).mean(axis=0) / 65535 if raw else None


def _vips_means(folder: Path, path: Path, *, in_srgb: bool = False) -> np.ndarray | None:
    """Return what libvips reads: the file's own values, or those its profile makes of them in sRGB."""
    target, stats = folder / "means.v", folder / "stats.csv"
    convert = ["icc_transform", path, target, "srgb", "--embedded", "--intent", "perceptual"]
    plain = ["colourspace", path, target, "srgb"]
    for command in (convert if in_srgb else plain, ["stats", target, stats]):
        if subprocess.run([str(VIPS), *map(str, command)], capture_output=True).returncode:
            return None
    # One line for all bands, then one for each; the fifth column is the mean.
    means = [float(line.split("\t")[4]) / 255 for line in stats.read_text().splitlines()[1:]]
    colours, alpha = (means, 1.0) if len(means) in (1, 3) else (means[:-1], means[-1])
    return np.array([*np.broadcast_to(colours, 3), alpha])


@pytest.mark.skipif(EXIFTOOL is None, reason="exiftool is not installed")
def test_metadata_and_profiles_are_in_the_result_as_an_independent_reader_sees_them(tmp_path: Path) -> None:
    pairs = {}
    for path, picture in readable("orientation") + readable("bad/exif-samples"):
        if picture.tags.exif is None and picture.icc is None:
            continue
        target = tmp_path / f"{len(pairs)}.{output_format(picture.format).lower()}"
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
