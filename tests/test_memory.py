"""How much memory a picture takes, as a process of its own: its integers twice, and floats for a band of it only."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


def peak_bytes(*arguments: str) -> int:
    command = [sys.executable, "-m", "lowlight_cli.bench.child", "enhance", *arguments, "-q"]
    return int(subprocess.run(command, capture_output=True, text=True, timeout=280, check=True).stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_100_megapixels_through_identity_stay_under_1600_megabytes(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    row = np.arange(10_000 * 3, dtype=np.uint32).reshape(1, 10_000, 3)
    pixels = np.empty((10_000, 10_000, 3), dtype=np.uint8)
    for top in range(0, 10_000, 100):
        pixels[top : top + 100] = (row * 7 + top) % 97
    Image.fromarray(pixels).save(tmp_path / f"large.{suffix}", compress_level=1)
    result = tmp_path / f"result.{suffix}"
    peak = peak_bytes(str(tmp_path / f"large.{suffix}"), "-o", str(result), "--model", "identity")
    print(f"{suffix}: {peak / 1e6:.0f} MB")
    assert peak < 1_600_000_000
    with Image.open(result) as written:
        assert written.size == (10_000, 10_000)
        if suffix == "png":  # without loss, so the way through tiles and bands must be exact
            assert (np.asarray(written) == pixels).all()
