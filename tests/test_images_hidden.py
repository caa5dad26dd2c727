"""Colours under full transparency: they come back as they are, and change nothing of what is seen."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from typer.testing import CliRunner

from lowlight_cli.arrays import enhance
from lowlight_cli.cli import app
from lowlight_cli.images import Picture
from lowlight_cli.images.hidden import without_hidden

DTYPES = st.sampled_from([np.uint8, np.uint16])


@given(st.data(), DTYPES, st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]))
def test_hidden_colours_are_drawn_from_what_is_seen_and_from_nothing_else(data, dtype, height, width, channels):
    pixels = data.draw(arrays(dtype, (height, width, channels)))
    alpha = data.draw(arrays(dtype, (height, width), elements=st.sampled_from([0, 0, 1, 200])))
    seen = alpha > 0
    filled = without_hidden(pixels, alpha)
    assert filled.dtype == dtype
    assert (filled[seen] == pixels[seen]).all()
    if not seen.any():
        return
    assert (filled.min((0, 1)) >= pixels[seen].min(0)).all()
    assert (filled.max((0, 1)) <= pixels[seen].max(0)).all()
    others = np.where(seen[..., None], pixels, data.draw(arrays(dtype, (height, width, channels))))
    assert (without_hidden(others, alpha) == filled).all()


def test_bands_make_no_difference(monkeypatch):
    draw = np.random.default_rng(0)
    pixels, alpha = draw.integers(0, 256, (41, 30, 3), np.uint8), draw.integers(0, 2, (41, 30)).astype(np.uint8)
    whole = without_hidden(pixels, alpha)
    monkeypatch.setattr("lowlight_cli.images.hidden._BAND_PIXELS", 150)
    assert (without_hidden(pixels, alpha) == whole).all()


def test_a_picture_without_alpha_is_itself():
    picture = Picture(np.zeros((2, 3, 3), np.uint8))
    assert picture.without_hidden() is picture


@pytest.mark.parametrize("command", [["enhance"], ["zero-shot", "--epochs", "3", "--contrast"]])
def test_what_alpha_hides_changes_nothing_that_is_seen_and_is_kept(tmp_path, command):
    rows, columns = np.mgrid[0:48, 0:64]
    colours = np.stack((rows, columns, rows + columns), -1).astype(np.uint8) // 4
    alpha = np.where((rows - 24) ** 2 + (columns - 32) ** 2 < 300, 255, 0).astype(np.uint8)
    for name, hidden in (("black", 0), ("white", 255)):
        shown = np.where(alpha[..., None] > 0, colours, hidden).astype(np.uint8)
        Image.fromarray(np.dstack((shown, alpha))).save(tmp_path / f"{name}.png")
    ran = CliRunner().invoke(app, [*command, str(tmp_path), "-o", f"{tmp_path}/out/", "--device", "cpu", "--json"])
    assert ran.exit_code == 0, ran.output
    stops = {json.loads(line)["stops"] for line in ran.stdout.splitlines()}
    assert len(stops) == 1
    black, white = (np.asarray(Image.open(tmp_path / f"out/{name}.png")) for name in ("black", "white"))
    assert (black[alpha > 0] == white[alpha > 0]).all()
    assert black[alpha > 0][:, :3].mean() > 2 * colours[alpha > 0].mean()
    assert (black[..., 3] == alpha).all()
    assert (black[alpha == 0][:, :3] == 0).all()
    assert (white[alpha == 0][:, :3] == 255).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_from_python_what_alpha_hides_changes_nothing_either(dtype):
    most = 1 if dtype == np.float32 else np.iinfo(dtype).max
    alpha = (np.random.default_rng(0).random((32, 40)) > 0.5) * most
    colours = np.random.default_rng(1).random((32, 40, 3)) * 0.1 * most
    given = [np.where(alpha[..., None] > 0, colours, hidden) for hidden in (0, most)]
    results = [enhance(np.dstack((shown, alpha)).astype(dtype)) for shown in given]
    seen = alpha > 0
    assert (results[0][seen] == results[1][seen]).all()
    assert results[0][seen][:, :3].mean() > 2 * colours[seen].mean()
    for result, hidden in zip(results, (0, most), strict=True):
        assert (result[~seen][:, :3] == hidden).all()
        assert (result[..., 3] == alpha).all()
