"""Before and after in one picture: every pixel where it belongs, in any depth, and words that cover none of them."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from test_images_colour import PROFILES
from typer.testing import CliRunner

from lowlight_cli.cli import app
from lowlight_cli.comparison import PREVIEW_SIDE, compared
from lowlight_cli.images import Picture, read_picture, write_picture
from lowlight_cli.images.profiles import parse_profile
from lowlight_cli.settings import Comparison


def both(height: int, width: int, *, channels: int = 3, dtype: type = np.uint8, **more: object) -> list[Picture]:
    top = int(np.iinfo(dtype).max)
    rng = np.random.default_rng(0)
    levels = [rng.integers(0, top, (height, width, channels), dtype=dtype, endpoint=True) for _ in range(2)]
    return [Picture(pixels, depth=8 if top == 255 else 16, **more) for pixels in levels]  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (30, 40), (120, 9), (7, 400), (600, 900)])
def test_side_by_side_holds_every_pixel_of_both_above_the_words(size, channels, dtype):
    height, width = size
    before, after = both(height, width, channels=channels, dtype=dtype)
    drawn = compared(before, after)
    assert drawn.pixels.dtype == dtype
    assert drawn.width > 2 * width
    assert drawn.height > height
    assert (drawn.pixels[:height, :width] == before.pixels).all()
    assert (drawn.pixels[:height, -width:] == after.pixels).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (30, 41), (600, 900)])
def test_split_shows_the_left_of_one_and_the_right_of_the_other(size, dtype):
    height, width = size
    before, after = both(height, width, dtype=dtype)
    drawn = compared(before, after, Comparison("split"))
    assert drawn.width == width
    left = (drawn.pixels[:height] == before.pixels).all(axis=(0, 2))
    right = (drawn.pixels[:height] == after.pixels).all(axis=(0, 2))
    covered = width - int(left[: width // 2].sum()) - int(right[width // 2 :].sum())
    assert covered <= max(4, width // 100), "all but the line shows a picture"


@pytest.mark.parametrize("style", ["side", "split"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_words_are_light_on_dark_and_opaque_at_both_sides(style, dtype):
    before, after = both(300, 400, dtype=dtype)
    alpha = np.zeros((300, 400), dtype=dtype)
    drawn = compared(before, Picture(after.pixels, alpha=alpha), Comparison(style))
    assert drawn.alpha is not None
    assert (drawn.alpha[:300, :190] == 0).all()
    assert (drawn.alpha[:300, -190:] == 0).all()
    strip = drawn.pixels[300:].astype(float) / np.iinfo(dtype).max
    assert (drawn.alpha[300:] == np.iinfo(dtype).max).all()
    middle = strip.shape[1] // 2
    for part in (strip[:, :middle], strip[:, middle:]):
        assert part.max() > 0.8
        assert np.median(part) < 0.15
    assert (strip[:, middle - 5 : middle] < 0.15).all(), "the first word ends before the second begins"


def test_without_room_there_are_no_words_and_no_failure():
    before, after = both(30, 20)
    strip = compared(before, after, Comparison("split")).pixels[30:]
    assert strip.max() < 40


@pytest.mark.parametrize("style", ["side", "split"])
@pytest.mark.parametrize(("height", "width"), [(1500, 2000), (2500, 800), (60, 40)])
def test_a_preview_is_small_and_keeps_the_shape(style, height, width):
    before, after = both(height, width, dtype=np.uint16)
    small = compared(before, after, Comparison(style, "preview"))
    assert (small.pixels.dtype, small.depth, small.profile, small.icc) == (np.uint8, 8, None, None)
    assert max(small.width, small.height) <= PREVIEW_SIDE * 1.06
    one = small.width / 2 if style == "side" else small.width
    assert one / small.height == pytest.approx(width / height, rel=0.08) or max(height, width) < 100


def test_a_preview_in_a_wide_profile_shows_the_colours_as_srgb():
    icc = PROFILES["display-p3"]()
    flat = np.full((200, 300, 3), (30, 90, 60), dtype=np.uint8)
    wide = Picture(flat, icc=icc, profile=parse_profile(icc))
    shown = compared(wide, wide, Comparison("split", "preview")).pixels[20, 20]
    assert np.abs(shown - wide.srgb()[:, 0, 0] * 255).max() <= 0.51
    assert compared(wide, wide).profile is wide.profile


@pytest.mark.parametrize(
    ("options", "width"),
    [(("--compare",), 82), (("--compare-style", "split"), 40), (("--compare-size", "preview"), 82)],
)
def test_the_command_writes_it_beside_the_result(tmp_path, options, width):
    Image.new("RGB", (40, 30), (20, 20, 30)).save(tmp_path / "a.png")
    told = ["enhance", str(tmp_path / "a.png"), "--model", "identity", "--exposure", "1", *options]
    ran = CliRunner().invoke(app, told)
    assert ran.exit_code == 0, ran.output
    assert read_picture(tmp_path / "a_lowlight_compare.png").width == width


@pytest.mark.parametrize("option", [("--compare-style", "top"), ("--compare-size", "huge")])
@pytest.mark.parametrize("command", ["enhance", "zero-shot"])
def test_another_manner_is_refused_in_a_sentence(tmp_path, command, option):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    ran = CliRunner().invoke(app, [command, str(tmp_path / "a.png"), *option])
    assert ran.exit_code == 2
    assert f"{option[0]} is one of" in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_comparison_too_wide_for_its_format_is_of_preview_size(tmp_path):
    Image.fromarray(np.full((8, 9000, 3), 90, np.uint8)).save(tmp_path / "wide.webp")
    ran = CliRunner().invoke(app, ["enhance", str(tmp_path / "wide.webp"), "--model", "identity", "--compare"])
    assert ran.exit_code == 0, ran.output
    assert read_picture(tmp_path / "wide_lowlight.webp").width == 9000
    assert read_picture(tmp_path / "wide_lowlight_compare.webp").width in range(PREVIEW_SIDE, PREVIEW_SIDE + 20)


def run(*told: object):
    return CliRunner().invoke(app, [str(word) for word in told])


ENHANCED = ("--model", "identity", "--device", "cpu")


@pytest.mark.parametrize("command", ["enhance", "zero-shot"])
def test_a_comparison_asked_for_afterwards_is_made_of_the_result_that_is_there(tmp_path, command, monkeypatch):
    Image.new("RGB", (40, 30), (20, 20, 30)).save(tmp_path / "a.png")
    Image.new("RGB", (40, 30), (90, 80, 70)).save(tmp_path / "a_lowlight.png")
    before = (tmp_path / "a_lowlight.png").read_bytes()
    monkeypatch.setitem(sys.modules, "lowlight_cli.batch", None)  # nothing is to be computed
    ran = run(command, tmp_path, "--compare", "--preserve-times", "--json", "--report", tmp_path / "page.html")
    assert ran.exit_code == 0, ran.output
    assert [json.loads(line)["status"] for line in ran.stdout.splitlines()] == ["compared"]
    assert "1 compared with what was there" in ran.stderr
    assert "skipped" not in ran.stderr
    assert "1 compared, in" in (tmp_path / "page.html").read_text()
    drawn = np.asarray(Image.open(tmp_path / "a_lowlight_compare.png"))
    assert (drawn[:30, :40] == (20, 20, 30)).all()
    assert (drawn[:30, -40:] == (90, 80, 70)).all()
    assert (tmp_path / "a_lowlight.png").read_bytes() == before
    times = [(tmp_path / name).stat().st_mtime_ns for name in ("a.png", "a_lowlight_compare.png")]
    assert times[0] == times[1]
    assert "1 skipped, already there (--overwrite" in run(command, tmp_path, "--compare").stderr


@pytest.mark.parametrize("format", ["jpeg", "bmp", "webp"])
def test_a_comparison_made_afterwards_shows_what_its_format_could_not_hold_alike(tmp_path, format):
    icc = PROFILES["display-p3"]()
    levels = np.full((30, 40, 3), (7000, 21000, 14000), dtype=np.uint16)
    write_picture(Picture(levels, depth=16, icc=icc, profile=parse_profile(icc)), tmp_path / "a.png")
    names = ("-o", tmp_path / f"b.{format}")
    assert run("enhance", tmp_path / "a.png", *names, *ENHANCED, "--compare").exit_code == 0
    (at_once := tmp_path / f"b_compare.{format}").rename(tmp_path / f"once.{format}")
    ran = run("enhance", tmp_path / "a.png", *names, *ENHANCED, "--compare")
    assert ran.exit_code == 0, ran.output
    early, late = (read_picture(path) for path in (tmp_path / f"once.{format}", at_once))
    assert (early.pixels.shape, early.icc) == (late.pixels.shape, late.icc)
    assert np.abs(early.pixels[2:28, 2:38].astype(int) - late.pixels[2:28, 2:38]).max() <= 2


def test_a_result_of_another_size_fails_its_comparison_and_no_other(tmp_path):
    for name, size in (("a", 40), ("a_lowlight", 20), ("b", 40), ("b_lowlight", 40)):
        Image.new("RGB", (size, 30), (20, 20, 30)).save(tmp_path / f"{name}.png")
    ran = run("enhance", tmp_path, "--compare")
    assert ran.exit_code == 1
    assert "a_lowlight.png is of another size, so there is no comparison; --overwrite makes both anew" in ran.stderr
    assert "1 compared with what was there, 1 failed" in ran.stderr
    assert (tmp_path / "b_lowlight_compare.png").exists()
    (tmp_path / "b_lowlight_compare.png").unlink()
    assert run("enhance", tmp_path, "--compare", "--fail-fast").exit_code == 1
    assert not (tmp_path / "b_lowlight_compare.png").exists()


def test_skipped_files_that_lack_what_only_a_new_fit_makes_are_told(tmp_path):
    for name in ("a", "a_lowlight"):
        Image.new("RGB", (40, 30), (20, 20, 30)).save(tmp_path / f"{name}.png")
    ran = run("zero-shot", tmp_path / "a.png", "--save", "both")
    assert "1 skipped, already there, 1 of them without all their files (--overwrite does them again)" in ran.stderr


def test_a_dry_run_names_comparisons_as_well(tmp_path):
    for name in ("a", "b", "b_lowlight", "c", "c_lowlight", "c_lowlight_compare"):
        Image.new("RGB", (40, 30), (20, 20, 30)).save(tmp_path / f"{name}.png")
    there, inputs = f"{tmp_path}/", [tmp_path / f"{name}.png" for name in "abc"]
    ran = run("enhance", *inputs, "--compare", "--dry-run")
    assert ran.stdout.replace(there, "").splitlines() == [
        "a.png -> a_lowlight.png",
        "a.png -> a_lowlight_compare.png",
        "b.png -> b_lowlight.png  (exists: skipped)",
        "b.png -> b_lowlight_compare.png",
        "c.png -> c_lowlight.png  (exists: skipped)",
    ]
    told = map(json.loads, run("enhance", *inputs, "--compare", "--dry-run", "--json").stdout.splitlines())
    named = [[name.removeprefix(there) for name in one["variants"]] for one in told]
    assert named == [["a_lowlight_compare.png"], ["b_lowlight_compare.png"], []]


def test_a_comparison_that_memory_has_no_room_for_fails_in_a_sentence(tmp_path, monkeypatch):
    for name in ("a", "a_lowlight"):
        Image.new("RGB", (40, 30), (20, 20, 30)).save(tmp_path / f"{name}.png")

    def no_room(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("lowlight_cli.comparison.compared", no_room)
    ran = run("enhance", tmp_path / "a.png", "--compare")
    assert ran.exit_code == 1
    assert "memory ran out while it was compared" in ran.stderr
