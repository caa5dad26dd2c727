"""`lowlight enhance` as people and scripts use it: real files, real processes, and the identity backend."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from ordinaryuser import as_an_ordinary_user
from PIL import Image
from typer.testing import CliRunner, Result

from lowlight_cli import batch
from lowlight_cli.batch import BatchSettings, enhance_files
from lowlight_cli.cli import app
from lowlight_cli.enhancer import load_enhancer
from lowlight_cli.errors import Interrupted, OutputError
from lowlight_cli.images import Picture
from lowlight_cli.paths import plan_jobs
from lowlight_cli.report.files import _common_folder
from lowlight_cli.results import last_told
from lowlight_cli.settings import Compute


def lowlight(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def identity(*arguments: str | Path) -> Result:
    return lowlight("enhance", *arguments, "--model", "identity", "--device", "cpu")


def picture(path: Path, *, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(levels).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def results(ran: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    """The end to write into of a pipe whose other end is closed already."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def test_one_picture_is_written_beside_its_input(tmp_path):
    source = picture(tmp_path / "night shot.png")
    ran = identity(source)
    assert ran.exit_code == 0, ran.output
    assert (pixels(tmp_path / "night shot_lowlight.png") == pixels(source)).all()
    assert "1 done" in ran.stderr


@pytest.mark.parametrize(
    ("content", "called", "options", "told"),
    [
        ("PNG", "a.jpg", (), "its content is PNG and its name says .jpg; the result is JPEG, as its name says"),
        ("JPEG", "a.PNG", (), "its content is JPEG and its name says .PNG; the result is PNG, as its name says"),
        ("GIF", "a.webp", (), "its content is GIF and its name says .webp; the result is WEBP, as its name says"),
        ("PNG", "a.jpg", ("--format", "jpeg"), ""),
        ("PNG", "a.jpg", ("-o", "OUT/b.webp"), ""),
        ("JPEG", "a.mpo", (), ""),
        ("TIFF", "a.dng", (), ""),
        ("JPEG", "a.jpeg", (), ""),
        ("PNG", "a.2024", (), ""),
    ],
)
def test_a_picture_whose_name_says_another_format_is_told(tmp_path, content, called, options, told):
    frames = [Image.new("RGB", (20, 16), (9 * place, 0, 0)) for place in range(2)]
    more = {"save_all": True, "append_images": frames[1:]} if content == "GIF" else {}
    frames[0].save(tmp_path / called, content, **more)
    ran = identity(tmp_path / called, "--json", *(word.replace("OUT", str(tmp_path)) for word in options))
    assert ran.exit_code == 0, ran.output
    assert [word for word in results(ran)[0]["warnings"] if "name says" in word] == ([told] if told else [])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a disk that takes any bytes for a name")
def test_a_name_that_is_no_text_comes_out_of_json_as_its_bytes(tmp_path):
    named = os.fsencode(tmp_path) + b"/b\xff\\udcfe.png"
    (tmp_path / os.fsdecode(b"b\xff\\udcfe.png")).write_bytes(picture(tmp_path / "other" / "a.png").read_bytes())
    ran = identity(tmp_path, "--json", "--report", tmp_path / "page.html")
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.isascii()
    (told,) = results(ran)
    assert os.fsencode(str(told["input"])) == named
    assert Path(str(told["output"])).exists()
    assert b"b\\udcff\\udcfe.png" in (tmp_path / "page.html").read_bytes()
    again = identity(tmp_path, "--json")
    assert os.fsencode(str(results(again)[0]["input"])) == named
    missing = tmp_path / os.fsdecode(b"cut\xff.png")
    missing.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "cut\\udcff.png: " in identity(missing).stderr


def test_a_second_run_skips_and_says_how_to_do_it_again(tmp_path):
    source = picture(tmp_path / "a.png")
    identity(source)
    before = (tmp_path / "a_lowlight.png").stat().st_mtime_ns
    ran = identity(source)
    assert ran.exit_code == 0
    assert "1 skipped" in ran.stderr
    assert "--overwrite" in ran.stderr
    assert (tmp_path / "a_lowlight.png").stat().st_mtime_ns == before
    assert identity(source, "--overwrite").exit_code == 0
    assert (tmp_path / "a_lowlight.png").stat().st_mtime_ns > before


def test_a_bad_file_fails_the_batch_but_not_its_neighbours(tmp_path):
    for index in range(4):
        picture(tmp_path / f"in/{index}.png", seed=index)
    bad = tmp_path / "in/2.png"
    bad.write_bytes(bad.read_bytes()[:100])
    ran = identity(tmp_path / "in", "-o", tmp_path / "out", "--json")
    assert ran.exit_code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "3.png"]
    told = {Path(str(r["input"])).name: r for r in results(ran)}
    assert [told[f"{i}.png"]["status"] for i in range(4)] == ["done", "done", "failed", "done"]
    assert told["2.png"]["error"]["code"] == "input"
    assert "2.png" in ran.stderr
    assert "1 failed" in ran.stderr
    assert "Traceback" not in ran.output


def test_a_folder_that_takes_no_files_is_found_before_the_work_and_fails_its_own_pictures_alone():
    with as_an_ordinary_user(), tempfile.TemporaryDirectory() as name:
        closed, opened = Path(name) / "closed", Path(name) / "open"
        for folder in (closed, opened):
            picture(folder / "a.png")
        closed.chmod(0o555)
        changed = closed.stat().st_mtime_ns, opened.stat().st_mtime_ns
        alone = identity(closed)
        below = identity(closed, "-o", closed / "new" / "deep", "--json")
        assert (closed.stat().st_mtime_ns, opened.stat().st_mtime_ns) == changed
        both = identity(closed, opened, "--json")
        written = [path.name for path in opened.iterdir()]
        closed.chmod(0o755)
    sentence = f"cannot write into the folder {closed}: Permission denied"
    assert alone.exit_code == below.exit_code == both.exit_code == 1
    assert alone.stderr.splitlines() == [f"{closed / 'a.png'}: {sentence}", "1 failed"], "and no model was made ready"
    assert results(below)[0]["error"] == {"code": "output", "message": sentence}
    assert {one["status"] for one in results(both)} == {"failed", "done"}
    assert sorted(written) == ["a.png", "a_lowlight.png"]


@pytest.mark.parametrize("linked", ["a.png", "c.png"])
def test_a_result_that_is_a_link_into_a_folder_that_takes_no_files_fails_alone(linked):
    with as_an_ordinary_user(), tempfile.TemporaryDirectory() as name:
        shoot, bright, closed = (Path(name) / folder for folder in ("in", "bright", "closed"))
        for each in ("a.png", "b.png", "c.png"):
            picture(shoot / each)
        bright.mkdir()
        closed.mkdir()
        (bright / linked).symlink_to(closed / linked)
        closed.chmod(0o555)
        ran = identity(shoot, "-o", bright, "--overwrite", "--json")
        closed.chmod(0o755)
    told = {Path(one["input"]).name: one["status"] for one in results(ran)}
    assert told == {each: "failed" if each == linked else "done" for each in ("a.png", "b.png", "c.png")}
    assert f"cannot write into the folder {closed}" in ran.stderr


def test_fail_fast_stops_at_the_first_failure(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in "bcd":
        picture(tmp_path / f"{name}.png")
    ran = identity(tmp_path, "-o", tmp_path / "out", "--fail-fast", "--json")
    assert ran.exit_code == 1
    assert [r["status"] for r in results(ran)] == ["failed"]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize(
    "end", ["none", "write fails", "read fails", "network stops", "network breaks", "caller stops"]
)
def test_what_lies_on_the_disk_is_what_was_told_done_however_the_work_ends(tmp_path, monkeypatch, end, threads):
    for name in "abcdefgh":
        picture(tmp_path / f"{name}.png")
    if end == "read fails":
        (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    write = batch.write_picture

    def slowly(result: Picture, target: Path, **how: object) -> tuple[str, ...]:
        time.sleep(0.05)
        if end == "write fails" and target.name == "c.png":
            raise OutputError("the disk is full")
        return write(result, target, **how)

    def break_off(done: int, total: int) -> None:
        nonlocal begun
        begun += 1
        if begun == 4 and end.startswith("network"):
            raise Interrupted if end == "network stops" else ZeroDivisionError

    begun = 0
    monkeypatch.setattr(batch, "write_picture", slowly)
    jobs = plan_jobs([tmp_path], output=f"{tmp_path}/out/").jobs
    how = batch.BatchSettings(threads=threads, fail_fast=True)
    work = batch.enhance_files(jobs, load_enhancer("identity"), how, on_tile=break_off)
    told = []
    with suppress(Interrupted, ZeroDivisionError):
        for result in work:
            told.append(result)
            if end == "caller stops":
                told += last_told(work, Interrupted())
                break
    done = [Path(one.output).name for one in told if one.status == "done"]
    assert sorted(done) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(done) == len(set(done)) == (8 if end == "none" else len(done))


def test_json_holds_what_scripts_need(tmp_path):
    source = picture(tmp_path / "a.png", size=(40, 30))
    (told,) = results(identity(source, "--json"))
    wanted = {
        "input",
        "output",
        "status",
        "error",
        "seconds",
        "width",
        "height",
        "model",
        "device",
        "precision",
        "tile",
    }
    assert wanted <= set(told)
    assert (told["schema"], told["status"], told["error"]) == (1, "done", None)
    assert (told["width"], told["height"], told["tile"], told["precision"]) == (40, 30, 0, "fp32")
    (again,) = results(identity(source, "--json"))
    assert again["status"] == "skipped"


def test_what_stays_as_it_was_is_told_and_what_became_brighter_by_how_much(tmp_path):
    levels = np.full((30, 40, 3), 60, np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    alike = identity(tmp_path / "a.png", "--json")
    assert results(alike)[0]["stops"] == 0
    assert "1 done (1 unchanged: bright enough, unless --exposure says more)" in alike.stderr
    brighter = identity(tmp_path / "a.png", "--json", "--overwrite", "--exposure", "1")
    assert results(brighter)[0]["stops"] == pytest.approx(0.9, abs=0.1)
    assert "unchanged" not in brighter.stderr
    darker = identity(tmp_path / "a.png", "--json", "--overwrite", "--exposure", "-2")
    assert results(darker)[0]["stops"] == pytest.approx(-2, abs=0.05)


def test_a_folder_tree_is_kept(tmp_path):
    picture(tmp_path / "shoot/one/a.png", seed=1)
    picture(tmp_path / "shoot/two/a.png", seed=2)
    assert identity(tmp_path / "shoot", "-r", "-o", f"{tmp_path}/out/").exit_code == 0
    assert (pixels(tmp_path / "out/two/a.png") == pixels(tmp_path / "shoot/two/a.png")).all()
    assert (tmp_path / "out/one/a.png").exists()


def test_a_dry_run_says_everything_and_does_nothing(tmp_path):
    source = picture(tmp_path / "a.png")
    ran = lowlight("enhance", source, "--dry-run")
    assert ran.exit_code == 0
    assert "a_lowlight.png" in ran.stdout
    assert list(tmp_path.iterdir()) == [source]


def test_tiles_and_whole_pictures_of_the_identity_are_equal(tmp_path):
    source = picture(tmp_path / "a.png", size=(333, 201))
    for tile in ("auto", "0", "64", "100"):
        assert identity(source, "--tile", tile, "-o", tmp_path / f"{tile}.png").exit_code == 0
        assert (pixels(tmp_path / f"{tile}.png") == pixels(source)).all()


def test_strength_zero_returns_the_input_and_exposure_moves_light(tmp_path):
    source = picture(tmp_path / "a.png")
    identity(source, "--strength", "0", "--exposure", "2", "-o", tmp_path / "same.png")
    assert (pixels(tmp_path / "same.png") == pixels(source)).all()
    identity(source, "--exposure", "1", "-o", tmp_path / "bright.png")
    identity(source, "--exposure", "-1", "-o", tmp_path / "dim.png")
    dim, own, bright = (pixels(p).mean() for p in (tmp_path / "dim.png", source, tmp_path / "bright.png"))
    assert dim < own * 0.85 < own < bright * 0.85


def test_highlights_are_protected_where_the_input_is_bright(tmp_path):
    levels = np.zeros((20, 40, 3), dtype=np.uint8)
    levels[:, :20], levels[:, 20:] = 60, 250
    Image.fromarray(levels).save(tmp_path / "a.png")
    identity(tmp_path / "a.png", "--exposure", "-2", "--protect-highlights", "1", "-o", tmp_path / "b.png")
    out = pixels(tmp_path / "b.png")
    assert (out[:, 20:] == 250).all()
    assert (out[:, :20] < 40).all()


def test_compare_writes_before_and_after_side_by_side(tmp_path):
    source = picture(tmp_path / "a.png", size=(40, 30))
    assert identity(source, "--compare", "--exposure", "1").exit_code == 0
    both = pixels(tmp_path / "a_lowlight_compare.png")
    assert (both[:30, :40] == pixels(source)).all()
    assert (both[:30, -40:] == pixels(tmp_path / "a_lowlight.png")).all()


def test_pictures_flow_through_pipes(tmp_path, forked):
    source = picture(tmp_path / "a.png")
    ran = forked.run("enhance", "-", "--model", "identity", "-q", stdin=source.read_bytes())
    assert ran.code == 0, ran.said
    (tmp_path / "b.png").write_bytes(ran.out)
    assert (pixels(tmp_path / "b.png") == pixels(source)).all()


def test_names_come_from_a_list(tmp_path):
    for name in ("a b.png", "[x].png"):
        picture(tmp_path / name)
    (tmp_path / "list").write_bytes(b"\0".join(os.fsencode(tmp_path / n) for n in ("a b.png", "[x].png")) + b"\0")
    assert identity("--files-from", tmp_path / "list", "-0", "-o", f"{tmp_path}/out/").exit_code == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a b.png", "[x].png"}


@pytest.mark.parametrize(
    "name", ["[red]x[bold].png", "[#a].png", "{stem}.png", "ü ñ 写真.png", "-dash.png", "a\nb.png"]
)
def test_odd_names_survive(tmp_path, name):
    source = picture(tmp_path / name)
    ran = identity(source, "-v")
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / f"{source.stem}_lowlight.png").exists()


def test_a_failing_file_with_an_odd_name_is_named_as_it_is(tmp_path):
    (tmp_path / "[bold]x[red].png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    ran = identity(tmp_path)
    assert ran.exit_code == 1
    assert "[bold]x[red].png" in ran.stderr.replace("\n", "")


def test_animations_are_done_frame_by_frame(tmp_path):
    frames = [Image.new("RGB", (24, 16), (level, 20, 40)) for level in (10, 60, 110)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=80, lossless=True)
    assert identity(tmp_path / "a.webp").exit_code == 0
    with Image.open(tmp_path / "a_lowlight.webp") as out:
        assert out.n_frames == 3


def test_a_result_that_an_encoder_chokes_on_fails_alone(tmp_path):
    frames = [Image.new("RGB", (24, 16), (level, 20, 40)) for level in (10, 60)]
    # 1000 seconds a frame, which a GIF has no number for.
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=1_000_000, lossless=True)
    picture(tmp_path / "b.png")
    ran = identity(tmp_path, "-o", f"{tmp_path}/out/", "--format", "gif", "--json")
    assert ran.exit_code == 1
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [one["status"] for one in told if "status" in one] == ["failed", "done"]
    assert "the GIF encoder failed" in told[0]["error"]["message"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.gif"]


def test_an_animation_made_to_keep_us_busy_is_refused(tmp_path):
    frame = b"\x21\xf9\x04\x00\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00"
    head = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff"
    (tmp_path / "long.gif").write_bytes(head + frame * 10_001 + b";")
    ran = identity(tmp_path / "long.gif")
    assert ran.exit_code == 1
    assert "10001 frames" in ran.stderr
    assert not (tmp_path / "long_lowlight.gif").exists()


@pytest.mark.parametrize("is_named", [True, False], ids=["named", "in a folder"])
def test_a_link_that_leads_nowhere_fails_alone(tmp_path, is_named):
    source, page = picture(tmp_path / "a.png"), tmp_path / "page.html"
    (link := tmp_path / "b.png").symlink_to("gone.png")
    (tmp_path / "b.txt").symlink_to("gone.txt")
    ran = identity(*([source, link] if is_named else [tmp_path]), "--report", page, "--json")
    assert ran.exit_code == 1
    assert [(one["input"], one["status"]) for one in results(ran)] == [(str(source), "done"), (str(link), "failed")]
    assert results(ran)[1]["error"] == {"code": "input", "message": "the link leads nowhere"}
    assert f"{link}: the link leads nowhere" in ran.stderr
    assert "1 done" in ran.stderr
    assert "1 failed" in ran.stderr
    assert "the link leads nowhere" in page.read_text()
    assert (tmp_path / "a_lowlight.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.png"], "missing.png"),
        ([], "no pictures"),
        (["--tile", "many"], "--tile"),
        (["--precision", "fp99"], "--precision"),
        (["--metadata", "all"], "--metadata"),
        (["--device", "abacus"], "--device"),
        (["--format", "docx"], "docx"),
        (["--model", "nosuch"], "nosuch"),
        (["--dilations", "a,b"], "--dilations"),
        (["-0"], "--files-from"),
        (["--tile", "8"], "--tile"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(tmp_path, arguments, said):
    source = [] if arguments in ([], ["missing.png"]) else [str(picture(tmp_path / "a.png"))]
    ran = lowlight("enhance", *source, *arguments)
    assert ran.exit_code == 2, ran.output
    assert said in ran.stderr
    assert "Traceback" not in ran.output
    assert not (tmp_path / "a_lowlight.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--device", "abacus"], 2, "abacus"),
        (["--device", "cuda:one"], 2, "cuda:one"),
        (["--model", "nosuch"], 2, "nosuch"),
        (["--weights", "nosuch.pt"], 3, "nosuch.pt"),
        (["--weights", "."], 3, "is no weights file"),
        (["--weights", "a.png"], 3, "a.png is neither a safetensors file nor a PyTorch file"),
    ],
)
@pytest.mark.parametrize("way", [[], ["--overwrite", "--dry-run"]], ids=["skipped", "dry run"])
def test_a_slip_is_told_where_there_is_nothing_to_do(tmp_path, monkeypatch, way, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    picture(tmp_path / "a_lowlight.png")
    for command in ("enhance", "zero-shot", "video"):
        if command == "zero-shot" and arguments[0] != "--device":
            continue
        ran = lowlight(command, "a.png", *arguments, *way)
        assert ran.exit_code == code, (command, ran.output)
        assert said in ran.stderr
        assert ran.stdout == ""


def test_initial_weights_that_are_none_are_told_where_there_is_nothing_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    picture(tmp_path / "a_lowlight.png")
    ran = lowlight("zero-shot", "a.png", "--init", "a.png")
    assert ran.exit_code == 3
    assert "a.png is neither a safetensors file nor a PyTorch file" in ran.stderr


def test_options_that_do_nothing_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    for more in (["--quality", "50"], ["--dilations", "1,4,9"], ["--quality", "50", "--format", "tiff"]):
        ran = identity("a.png", *more)
        assert ran.exit_code == 2, ran.output
        assert more[0] in ran.stderr
    assert lowlight("zero-shot", "a.png", "--quality", "50").exit_code == 2
    for more in (["-o", "b.jpg"], ["--format", "webp"]):
        assert identity("a.png", "--quality", "50", *more).exit_code == 0
    assert identity(".", "--quality", "50").exit_code == 0  # whose other pictures, on another day, may be JPEGs


def test_results_are_not_named_after_a_model_that_did_not_make_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    (tmp_path / "mine.safetensors").write_bytes(b"")
    for command in (["enhance", "a.png"], ["video", "a.png"], ["export"]):
        ran = lowlight(*command, "--model", "darkir-lolblur", "--weights", "mine.safetensors")
        assert ran.exit_code == 2, ran.output
        assert "--model and --weights" in ran.stderr


def test_an_absent_device_is_exit_4_and_never_a_fallback(tmp_path):
    ran = lowlight("enhance", picture(tmp_path / "a.png"), "--device", "cuda:99", "--model", "identity")
    assert ran.exit_code == 4
    assert "cuda:99" in ran.stderr
    assert not (tmp_path / "a_lowlight.png").exists()


def test_unreadable_weights_are_exit_3(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"no weights at all")
    ran = lowlight("enhance", picture(tmp_path / "a.png"), "--weights", tmp_path / "w.safetensors")
    assert ran.exit_code == 3
    assert "w.safetensors" in ran.stderr


def test_weights_that_were_never_downloaded_are_exit_3_offline(tmp_path):
    ran = lowlight("enhance", picture(tmp_path / "a.png"), "--model", "darkir-lolblur", "--offline")
    assert ran.exit_code == 3
    assert "weights import" in ran.stderr


def test_a_result_never_replaces_its_input(tmp_path):
    source = picture(tmp_path / "a.png")
    before = source.read_bytes()
    ran = identity(source, "-o", source, "--overwrite")
    assert ran.exit_code == 2
    assert source.read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_standard_output_is_one_sentence(forked):
    with Path("/dev/full").open("wb", buffering=0) as full:
        ran = forked.run("weights", "list", stdout=full.fileno())
    assert ran.code == 1
    assert "standard output" in ran.said
    assert "Traceback" not in ran.said


def test_a_closed_pipe_is_quiet(tmp_path, forked, closed_pipe):
    for index in range(5):
        picture(tmp_path / f"{index}.png")
    ran = forked.run("enhance", tmp_path, "-o", f"{tmp_path}/out/", "--model", "identity", "--json", stdout=closed_pipe)
    assert "Traceback" not in ran.said
    assert "BrokenPipe" not in ran.said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["enhance", "--help"],
        ["weights", "list"],
        ["enhance", "nowhere.png"],
        ["enhance", __file__, "--dry-run"],
        ["enhance", __file__, "--model", "nosuch"],
    ],
)
def test_help_lists_and_wrong_use_load_no_torch_and_its_threads_will_spin_briefly(arguments):
    code = (
        "import os, sys, runpy\n"
        f"sys.argv = ['lowlight', *{arguments!r}]\n"
        "try: runpy.run_module('lowlight_cli', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'\n"
        "assert 'GOMP_SPINCOUNT' in os.environ, 'when torch is loaded it is too late'\n"
    )
    silent = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    ran = subprocess.run([sys.executable, "-c", code], env=silent, capture_output=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_name_writes_no_line_of_its_own_and_hides_nothing(tmp_path):
    hidden = "\u200b\u200f\u2028\ufeff\U000e0041"
    (tmp_path / f"a\n99 done{hidden}:bomb:.png").write_bytes(b"damaged")
    ran = identity(tmp_path, "-o", f"{tmp_path}/out/")
    assert not any(line.startswith("99 done") for line in ran.stderr.splitlines())
    assert not any(each in ran.stderr for each in hidden)
    assert r"a\n99 done\u200b\u200f\u2028\ufeff\U000e0041:bomb:.png" in ran.stderr
    assert r"b\n99 done.png" in identity(tmp_path / "b\n99 done.png").stderr


def test_times_are_preserved_on_request(tmp_path):
    source = picture(tmp_path / "a.png")
    os.utime(source, ns=(10**18, 10**18))
    assert identity(source, "--preserve-times").exit_code == 0
    assert (tmp_path / "a_lowlight.png").stat().st_mtime_ns == 10**18


@pytest.mark.parametrize(
    "arguments",
    [[""], ["a.png", ""], ["a.png", "-o", "-", "--json"], ["a.png", "--max-megapixels", "inf"]],
)
def test_what_a_script_gets_wrong_is_refused_before_any_work(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    ran = identity(*arguments)
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("closed", "words"), [(1, "a.png -o -"), (0, "- -o b.png"), (1, "a.png --json"), (1, "a.png --json --dry-run")]
)
def test_a_closed_stream_is_one_sentence(tmp_path, forked, closed, words):
    picture(tmp_path / "a.png")
    ran = forked.run("enhance", "--model", "identity", "-q", *words.split(), folder=tmp_path, closed=[closed])
    assert ran.code == 1, ran.said
    assert "closed" in ran.said
    assert "Traceback" not in ran.said
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("command", ["", "enhance", "weights", "weights list"])
def test_a_reader_that_leaves_the_help_has_what_it_wanted(forked, closed_pipe, command):
    ran = forked.run(*command.split(), "--help", stdout=closed_pipe)
    assert (ran.code, ran.err) == (0, b"")


def test_what_was_written_when_an_interrupt_came_is_told(tmp_path):
    sources = [picture(tmp_path / f"{number}.png") for number in range(6)]
    enhancer, seen = load_enhancer("identity", compute=Compute("cpu")), 0

    def interrupt(done: int, total: int) -> None:
        nonlocal seen
        seen += done == total
        if seen == 4:
            raise KeyboardInterrupt

    told = []
    following = enhance_files(plan_jobs(sources).jobs, enhancer, BatchSettings(threads=2), on_tile=interrupt)
    with pytest.raises(KeyboardInterrupt):
        told.extend(following)  # keeps what came before
    written = sorted(path.name for path in tmp_path.glob("*_lowlight.png"))
    assert [Path(result.output).name for result in told] == written
    # What still waited for a writer, where the disk is slow, is neither written nor told.
    assert written == ["0_lowlight.png", "1_lowlight.png", "2_lowlight.png"][: len(written)] != []


def test_results_that_are_links_to_one_file_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    shared = picture(tmp_path / "shared.png")
    before = shared.read_bytes()
    sources = [picture(tmp_path / "in" / f"{name}.png", seed=3) for name in "ab"]
    for source in sources:
        (tmp_path / "out" / source.name).symlink_to(shared)
    ran = identity(*sources, "-o", f"{tmp_path}/out/", "--overwrite")
    assert ran.exit_code == 2
    assert "both" in ran.stderr
    assert shared.read_bytes() == before


def test_memory_that_runs_out_while_a_result_is_written_fails_one_picture(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    write = batch.write_picture

    def short(result: Picture, target: Path, **how: object) -> tuple[str, ...]:
        if "a_" in target.name:
            raise MemoryError
        return write(result, target, **how)

    monkeypatch.setattr(batch, "write_picture", short)
    ran = identity(tmp_path, "--json")
    assert ran.exit_code == 1
    told = results(ran)
    assert [one["status"] for one in told] == ["failed", "done"]
    assert told[0]["error"]["code"] == "memory"


@pytest.mark.parametrize("threads", [1, 8])
def test_pictures_that_wait_stay_within_their_bound(tmp_path, monkeypatch, threads):
    """Eight readers hold no more than one does: what is being read counts before it is decoded."""
    for number in range(24):
        picture(tmp_path / f"{number:02}.png", size=(40, 30))
    monkeypatch.setattr(batch, "_PIXELS_IN_FLIGHT", 4 * 40 * 30)
    lock, held, most = threading.Lock(), 0, 0
    read, write = batch.read_picture, batch.write_picture

    def reading(*source: object, **how: object) -> Picture:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return read(*source, **how)

    def writing(*result: object, **how: object) -> tuple[str, ...]:
        nonlocal held
        time.sleep(0.01)
        said = write(*result, **how)
        with lock:
            held -= 1
        return said

    monkeypatch.setattr(batch, "read_picture", reading)
    monkeypatch.setattr(batch, "write_picture", writing)
    assert identity(tmp_path, "-o", f"{tmp_path}/out/", "--jobs", str(threads)).exit_code == 0
    assert most <= 5, "four, and the one that was begun when there was room for a part of it"


@pytest.mark.parametrize("names", [["a.jpg", "b.jpg"], ["x/a.jpg", "y/b.jpg"], ["./a.jpg", "x/b.jpg"]])
def test_files_of_this_folder_share_no_folder_to_speak_of(names):
    assert _common_folder(names) == ""


def test_times_are_kept_for_animations_and_comparisons_too(tmp_path):
    frames = [Image.new("RGB", (24, 16), (level, 20, 40)) for level in (10, 60)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=80)
    picture(tmp_path / "b.png")
    for path in list(tmp_path.iterdir()):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert identity(tmp_path / "a.gif", "--preserve-times").exit_code == 0
    assert identity(tmp_path / "b.png", "--preserve-times", "--compare").exit_code == 0
    assert {path.stat().st_mtime for path in tmp_path.iterdir()} == {1_000_000_000}
    assert (tmp_path / "b_lowlight_compare.png").exists()
