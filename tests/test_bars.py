"""Black bars around pictures and films stay black, and what lies within them is what it is without them."""

import json

import numpy as np
import pytest
from clipmaking import make_clip, see
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from lowlight_cli.bars import within_bars
from lowlight_cli.cli import app

NO_BARS = slice(0, 60), slice(0, 80)


def barred(top: int, bottom: int, left: int, right: int, *, light: int = 40) -> np.ndarray:
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[top : 60 - bottom, left : 80 - right] = np.random.default_rng(0).integers(light // 2, light, 3)
    return picture


@given(st.integers(0, 20), st.integers(0, 20))
def test_bars_are_found_on_opposite_sides(across, down):
    box = within_bars([barred(down, down, across, across)])
    rows = slice(down, 60 - down) if down >= 2 else slice(0, 60)
    columns = slice(across, 80 - across) if across >= 2 else slice(0, 80)
    assert (box or NO_BARS) == (rows, columns) or min(across, down) == 1  # a line of black is no bar


@pytest.mark.parametrize("bars", [(9, 0, 0, 0), (9, 14, 0, 0), (0, 0, 20, 0), (0, 0, 3, 20)])
def test_what_is_black_on_one_side_is_no_bar(bars):
    assert within_bars([barred(*bars)]) is None


def test_a_thing_before_black_has_no_bars():
    rows, columns = np.mgrid[0:240, 0:320]
    round_thing = np.where((rows - 119.5) ** 2 + (columns - 159.5) ** 2 < 6400, 90, 0).astype(np.uint8)
    assert within_bars([round_thing[..., None].repeat(3, 2)]) is None
    assert within_bars([np.zeros((60, 80, 3), np.uint8)]) is None


def test_a_picture_that_grows_dark_towards_its_borders_has_no_bars():
    down = np.minimum(np.arange(240), np.arange(240)[::-1])[:, None] // 8  # of 255, the same in eight rows each
    assert within_bars([np.broadcast_to(down[..., None], (240, 320, 3)).astype(np.uint8)]) is None


def test_bars_are_those_of_all_pictures_and_no_more_are_asked_for_than_tell():
    dark, bright = barred(20, 20, 0, 0), barred(9, 9, 0, 0)
    assert within_bars([np.zeros_like(dark), dark, bright, dark]) == (slice(9, 51), slice(0, 80))
    coming = iter([barred(0, 0, 0, 0), None])
    assert within_bars(coming) is None
    assert next(coming, "asked for") is None


def test_sixteen_bits_and_grey_have_bars_too():
    deep = barred(9, 9, 0, 0).astype(np.uint16) * 257
    deep[0, 0] = 300  # of 65535
    assert within_bars([deep]) == within_bars([deep[..., :1]]) == (slice(9, 51), slice(0, 80))


@pytest.mark.parametrize("command", [["enhance"], ["zero-shot", "--epochs", "2"]])
def test_a_photo_with_bars_becomes_what_it_is_without_them(tmp_path, command):
    draw = np.random.default_rng(1)
    inner = draw.integers(4, 30, (60, 80, 3), np.uint8)
    with_bars = np.pad(inner, ((16, 16), (0, 0), (0, 0)))
    Image.fromarray(inner).save(tmp_path / "inner.png")
    Image.fromarray(with_bars).save(tmp_path / "barred.png")
    ran = CliRunner().invoke(app, [*command, str(tmp_path), "-o", f"{tmp_path}/out/", "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    alone, framed = (np.asarray(Image.open(tmp_path / "out" / name)) for name in ("inner.png", "barred.png"))
    assert alone.mean() > 1.5 * inner.mean()
    assert (framed[16:-16] == alone).all()
    assert not framed[:16].any()
    assert not framed[-16:].any()


def test_a_film_with_bars_keeps_them_and_what_is_written_in_them(tmp_path):
    draw = np.random.default_rng(2)
    inner = [draw.integers(4, 40, (1, 1, 3), np.uint8).repeat(48, 0).repeat(64, 1) for _ in range(12)]
    framed = [np.pad(each, ((12, 12), (0, 0), (0, 0))) for each in inner]
    framed[7][2:6, 20:40] = 200  # for one frame, that is not looked at
    for name, pictures, height in (("inner", inner, 48), ("framed", framed, 72)):
        source = make_clip(tmp_path / f"{name}.mkv", size=(64, height), pictures=pictures, sound=None,
                           pixel_format="yuv444p", options={"crf": "1"})  # fmt: skip
        words = ["video", str(source), "--device", "cpu", "--crf", "1", "--pix-fmt", "yuv444p", "--json"]
        ran = CliRunner().invoke(app, words)
        assert ran.exit_code == 0, ran.output
        assert json.loads(ran.stdout)["frames"] == 12
    alone, both = (see(tmp_path / f"{name}_lowlight.mkv").pixels for name in ("inner", "framed"))
    for number, (one, other) in enumerate(zip(alone, both, strict=True)):
        assert one.mean() > 50
        assert np.abs(one.astype(int) - other[12:-12]).mean() < 2
        assert other[-8:].max() < 8
        if number == 7:
            assert np.abs(other[3:5, 22:38].astype(int) - 200).max() < 12
        else:
            assert other[:8].max() < 8
