"""The whole way of the corpus beside the checkout: `lowlight enhance` with the identity backend, file by file.

What comes out is what went in: size, format, depth, frames, light, alpha, profile and tags, and an independent reader
agrees on the tags. The damaged part of the corpus fails in sentences.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lowlight_cli.errors import InputError
from lowlight_cli.images import FORMATS, Picture, probe, read_picture

CORPUS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "formats"
EXIFTOOL = shutil.which("exiftool")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not CORPUS.is_dir(), reason="the shared corpus is not beside this checkout"),
]

LOSSY = ("JPEG", "WEBP", "AVIF", "HEIF", "GIF")
# Written as sRGB, or without a profile that is not the picture's; the warning says so.
PROFILE_CHANGES = ("written as sRGB", "profile is damaged", "another kind of picture", "further pictures")
# Their names promise another format than their content, and a name is kept.
MISNAMED = ("mozilla__jpg-size-6x6.jpg", "courB08.pbm")
# Forty thousand frames of one pixel: read right, but slow.
SLOW = ("uber.gif",)


class Done(NamedTuple):
    """A file and its result, both decoded, and the line that was told of them."""

    source: Path
    target: Path
    line: dict[str, object]

    @property
    def pictures(self) -> tuple[Picture, Picture]:
        return read_picture(self.source), read_picture(self.target)


def enhanced(sources: list[Path], folder: Path) -> tuple[list[dict[str, object]], "subprocess.CompletedProcess[bytes]"]:
    command = [sys.executable, "-m", "lowlight_cli", "enhance", "--files-from", "-", "-0", "--model", "identity"]
    names = b"\0".join(str(path).encode() for path in sources)
    target = f"{folder}/{{parent}}/{{stem}}{{ext}}"
    ran = subprocess.run([*command, "--json", "-o", target], input=names, capture_output=True, check=False)
    return [json.loads(line) for line in ran.stdout.splitlines()], ran


def files(*folders: str) -> list[Path]:
    paths = (path for folder in folders for path in (CORPUS / folder).rglob("*") if path.is_file())
    return sorted(path for path in paths if path.name not in SLOW)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> list[Done]:
    lines, ran = enhanced(files("modes", "orientation"), tmp_path_factory.mktemp("results"))
    assert ran.returncode == 1
    assert len(lines) == len(files("modes", "orientation"))
    for line in lines:
        if line["status"] == "failed":
            with pytest.raises(InputError):
                read_picture(Path(str(line["input"])))
    results = [Done(Path(str(line["input"])), Path(str(line["output"])), line) for line in lines]
    return [each for each in results if each.line["status"] == "done"]


def test_every_readable_file_is_done(done: list[Done]) -> None:
    assert len(done) > 650


def test_size_format_depth_and_time_are_the_inputs(done: list[Done]) -> None:
    for each in done:
        before, after = probe(each.source), probe(each.target)
        assert (after.width, after.height) == (before.width, before.height), each.source
        assert (each.line["width"], each.line["height"]) == (before.width, before.height), each.source
        assert after.format == before.format or each.source.name in MISNAMED, each.source
        said = str(each.line["warnings"])
        assert after.depth == before.depth or "written with 8 of 16" in said, each.source
        # Encoders join frames that are equal; what is left is still an animation, or never changed at all.
        assert after.frames <= before.frames, each.source


def test_light_and_alpha_are_the_inputs(done: list[Done]) -> None:
    for each in done:
        if each.source.name in MISNAMED:
            continue
        before, after = each.pictures
        is_lossy = before.format in LOSSY and not before.lossless
        off = np.abs(before.srgb() - after.srgb()) * 255
        assert off.mean() <= (5.5 if is_lossy else 0), each.source
        assert np.abs(before.srgb().mean(axis=(1, 2)) - after.srgb().mean(axis=(1, 2))).max() * 255 <= 2.5, each.source
        if before.alpha is not None and (before.alpha != np.iinfo(before.alpha.dtype).max).any():
            assert after.alpha is not None, each.source
            # HEIF's encoder has no lossless alpha.
            allowed = 1 if before.format == "HEIF" else 0
            assert np.abs(before.alpha.astype(int) - after.alpha).max() <= allowed, each.source


def test_profiles_are_kept_byte_for_byte_or_the_change_is_told(done: list[Done]) -> None:
    for each in done:
        before, after = each.pictures
        assert after.icc == (before.icc if FORMATS[after.format].profiled else None), each.source
    assert sum(each.pictures[1].icc is not None for each in done) > 50


@pytest.mark.skipif(EXIFTOOL is None, reason="exiftool is not installed")
def test_an_independent_reader_finds_the_tags_and_profiles_again(done: list[Done]) -> None:
    before, after = (_exiftool([each[which] for each in done]) for which in (0, 1))
    compared = 0
    for each in done:
        old, new = before[str(each.source)], after[str(each.target)]
        said, holds_profile = str(each.line["warnings"]), FORMATS[probe(each.target).format].profiled
        for key, value in old.items():
            group = key.partition(":")[0]
            if group == "ICC_Profile" and (any(words in said for words in PROFILE_CHANGES) or not holds_profile):
                continue
            if group in ("ExifIFD", "GPS", "ICC_Profile", "InteropIFD"):
                compared += 1
                assert key in new, (each.source, key)
                if group == "GPS" or key.endswith(("DateTimeOriginal", "ISO", "FNumber", "ExposureTime")):
                    assert new[key] == value, (each.source, key)
        for key in ("IFD0:Make", "IFD0:Model", "IFD0:Artist", "IFD0:Copyright", "XMP-dc:Creator"):
            assert new.get(key) == old.get(key), (each.source, key)
        assert new.get("IFD0:Orientation", 1) == 1, each.source
    assert compared > 2000


def _exiftool(paths: list[Path]) -> dict[str, dict[str, object]]:
    command = [str(EXIFTOOL), "-j", "-G1", "-n", *map(str, paths)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    return {entry["SourceFile"]: entry for entry in found}


def test_a_folder_of_damaged_files_fails_in_sentences(tmp_path: Path) -> None:
    lines, ran = enhanced(files("bad"), tmp_path)
    assert ran.returncode == 1
    assert len(lines) == len(files("bad")) > 7000
    assert b"Traceback" not in ran.stderr
    failed = [line["error"] for line in lines if line["status"] == "failed"]
    assert len(failed) > 5000
    for error in failed:
        assert isinstance(error, dict)
        assert error["code"] in ("input", "output"), error
        assert error["message"], error
        assert "\n" not in error["message"], error
    assert not list(tmp_path.rglob("*.part"))
