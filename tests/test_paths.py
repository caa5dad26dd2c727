"""Inputs to jobs: no result over an input, no two results under one name, no surprises on the second run."""

import io
import os
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ordinaryuser import as_an_ordinary_user

from lowlight_cli.errors import SettingsError
from lowlight_cli.pairs import find_pairs
from lowlight_cli.paths import (
    PICTURES,
    SNIFF_BYTES,
    Job,
    Plan,
    plan_jobs,
    read_file_list,
    sniff,
    variant_path,
)

JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 60
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 60


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(*names: str, content: bytes = JPEG) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)


def results(plan: Plan) -> dict[str, str]:
    return {str(job.input): str(job.output) for job in plan.jobs}


def done(plan: Plan) -> None:
    for job in plan.jobs:
        for file in job.files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(JPEG)


# Where results go.


def test_a_result_stands_beside_its_input_by_default() -> None:
    make("night.jpg", "trip/day.2.PNG")
    assert results(plan_jobs(["night.jpg", "trip/day.2.PNG"])) == {
        "night.jpg": "night_lowlight.jpg",
        "trip/day.2.PNG": "trip/day.2_lowlight.PNG",
    }


@pytest.mark.parametrize("folder", ["out", "out/", "there", "there.jpg/"])
def test_a_folder_gets_the_inputs_names(folder: str) -> None:
    make("night.jpg")
    Path("there").mkdir()
    assert results(plan_jobs(["night.jpg"], output=folder)) == {"night.jpg": str(Path(folder, "night.jpg"))}


def test_a_searched_folder_keeps_its_tree_below_the_output() -> None:
    make("shoot/a.jpg", "shoot/x/a.jpg", "shoot/x/y/b.png")
    assert results(plan_jobs(["shoot"], output="out", recursive=True)) == {
        "shoot/a.jpg": "out/a.jpg",
        "shoot/x/a.jpg": "out/x/a.jpg",
        "shoot/x/y/b.png": "out/x/y/b.png",
    }
    assert results(plan_jobs(["shoot"], output="out")) == {"shoot/a.jpg": "out/a.jpg"}


def test_a_template_names_results_from_their_parts() -> None:
    make("shoot/x/a.jpg", "b.png")
    template = "out/{parent}/{stem}-{model}{ext}"
    planned = results(plan_jobs(["shoot", Path("b.png").absolute()], output=template, recursive=True, model="m"))
    here = Path.cwd()
    assert planned == {
        "shoot/x/a.jpg": "out/shoot/x/a-m.jpg",
        str(here / "b.png"): f"out/{here.name}/b-m.png",
    }


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{stem}_bright", "night_bright.jpg"),
        ("out/{parent}/", "out/shoot/night.jpg"),
        ("out/{stem}.png", "out/night.png"),
        ("{{{stem}}}{ext}", "{night}.jpg"),
        ("a{{b}}/{stem}", "a{b}/night.jpg"),
        ("a{{b}}.webp", "a{b}.webp"),
        ("{stem}.v2", "night.v2.jpg"),
    ],
)
def test_a_template_is_completed_to_a_file_name(template: str, expected: str) -> None:
    make("shoot/night.jpg")
    assert results(plan_jobs(["shoot/night.jpg"], output=template)) == {"shoot/night.jpg": expected}


def test_an_existing_folder_with_braces_is_no_template() -> None:
    make("night.jpg")
    Path("{stem}").mkdir()
    assert results(plan_jobs(["night.jpg"], output="{stem}")) == {"night.jpg": "{stem}/night.jpg"}


@pytest.mark.parametrize(
    "template",
    ["{name}.png", "{stem!r}.png", "{stem:>9}.png", "{stem.upper}.png", "{}.png", "{stem", "stem}"],
)
def test_a_template_with_unknown_fields_is_refused(template: str) -> None:
    make("night.jpg")
    with pytest.raises(SettingsError, match="template"):
        plan_jobs(["night.jpg"], output=template)


@pytest.mark.parametrize(
    "template", ["out/{stem}/x.png", "out/{stem}/{stem}{ext}", "out/a/{stem}/../../../{stem}{ext}"]
)
def test_a_template_never_leaves_its_folder(template: str) -> None:
    make("...jpg")  # whose stem is `..`
    with pytest.raises(SettingsError, match="leave"):
        plan_jobs(["...jpg"], output=template)


def test_a_model_cannot_lead_a_template_astray() -> None:
    make("night.jpg")
    for model in ("../../x", ".."):
        with pytest.raises(SettingsError, match="leave"):
            plan_jobs(["night.jpg"], output="out/{model}/{stem}{ext}", model=model)


def test_an_absolute_model_stays_below_the_output() -> None:
    make("night.jpg")
    planned = plan_jobs(["night.jpg"], output="out/{model}/{stem}{ext}", model="/etc/x")
    assert results(planned) == {"night.jpg": "out/etc/x/night.jpg"}


def test_a_link_below_the_output_does_not_lead_a_template_out() -> None:
    make("shoot/night.jpg")
    Path("elsewhere").mkdir()
    Path("out").mkdir()
    Path("out/shoot").symlink_to("../elsewhere")
    with pytest.raises(SettingsError, match="leave"):
        plan_jobs(["shoot/night.jpg"], output="out/{parent}/{stem}{ext}")


def test_a_suffix_replaces_the_default_one_and_marks_files_in_a_folder() -> None:
    make("night.jpg")
    assert results(plan_jobs(["night.jpg"], suffix="-x")) == {"night.jpg": "night-x.jpg"}
    assert results(plan_jobs(["night.jpg"], suffix="-x", output="out/")) == {"night.jpg": "out/night-x.jpg"}


@pytest.mark.parametrize("suffix", ["/x", "../x", "a/b"])
def test_a_suffix_is_no_way_into_another_folder(suffix: str) -> None:
    make("night.jpg")
    with pytest.raises(SettingsError, match="--suffix"):
        plan_jobs(["night.jpg"], suffix=suffix)


@pytest.mark.parametrize("output", ["x.jpg", "{stem}.jpg"])
def test_a_suffix_beside_a_whole_name_is_refused_instead_of_ignored(output: str) -> None:
    make("night.jpg")
    with pytest.raises(SettingsError, match="--suffix"):
        plan_jobs(["night.jpg"], suffix="-x", output=output)


def test_one_output_file_cannot_hold_several_results() -> None:
    make("a.jpg", "b.jpg", "one.png")
    for output in ("out.jpg", "one.png"):
        with pytest.raises(SettingsError, match="folder"):
            plan_jobs(["a.jpg", "b.jpg"], output=output)
    with pytest.raises(SettingsError, match="standard output"):
        plan_jobs(["a.jpg", "b.jpg"], output="-")


def test_a_result_cannot_go_below_a_file_or_replace_a_folder() -> None:
    make("a.jpg", "file")
    with pytest.raises(SettingsError, match="file' is no folder"):
        plan_jobs(["a.jpg"], output="file/x/")
    Path("a_lowlight.jpg").mkdir()
    with pytest.raises(SettingsError, match="replace a folder"):
        plan_jobs(["a.jpg"], overwrite=True)


def test_variants_stand_beside_the_result() -> None:
    make("a.jpg")
    (job,) = plan_jobs(["a.jpg"], variants=["compare", "enhanced"]).jobs
    assert job.files == (
        Path("a_lowlight.jpg"),
        Path("a_lowlight_compare.jpg"),
        Path("a_lowlight_enhanced.jpg"),
    )
    assert variant_path(Path("out/a.b.png"), "enhanced") == Path("out/a.b_enhanced.png")


# Formats and suffixes.


def test_a_format_changes_the_suffix_only_where_it_is_another() -> None:
    make("a.JPEG", "b.png", "c.tif")
    planned = results(plan_jobs(["a.JPEG", "b.png", "c.tif"], format="JPG", output="out"))
    assert planned == {"a.JPEG": "out/a.JPEG", "b.png": "out/b.jpg", "c.tif": "out/c.jpg"}


def test_what_cannot_be_written_goes_into_its_stand_in() -> None:
    make("a.NEF", "b.mpo")
    assert results(plan_jobs(["a.NEF", "b.mpo"], output="out")) == {
        "a.NEF": "out/a.tif",
        "b.mpo": "out/b.jpg",
    }


@pytest.mark.parametrize("output", ["x.nef", "x.txt", "x.png"])
def test_an_output_name_must_agree_with_the_format(output: str) -> None:
    make("a.jpg")
    with pytest.raises(SettingsError):
        plan_jobs(["a.jpg"], output=output, format="jpeg" if output == "x.png" else None)


@pytest.mark.parametrize("format", ["raw", "psd", "", "mpo"])
def test_a_format_that_is_not_written_is_refused(format: str) -> None:
    make("a.jpg")
    if format:
        with pytest.raises(SettingsError, match="jpeg"):
            plan_jobs(["a.jpg"], format=format)
    else:
        assert plan_jobs(["a.jpg"], format=format).jobs


def test_content_gives_the_type_where_the_name_does_not() -> None:
    make("photo", "holiday.2024", "upload.tmp")
    make("raw.bin", content=b"nothing known")
    planned = results(plan_jobs(["photo", "holiday.2024", "upload.tmp", "raw.bin"]))
    assert planned == {
        "holiday.2024": "holiday.2024_lowlight.jpg",
        "photo": "photo_lowlight.jpg",
        "raw.bin": "raw_lowlight.bin",
        "upload.tmp": "upload.tmp_lowlight.jpg",
    }


@pytest.mark.parametrize(
    ("head", "format"),
    [
        (JPEG, "jpeg"),
        (PNG, "png"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "webp"),
        (b"RIFF\x10\0\0\0AVI LIST", None),
        (b"GIF89a", "gif"),
        (b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", "bmp"),
        (b"BM\x36\0\0\0", None),
        (b"BMW 320d, winter tyres", None),
        (b"II*\0\x08\0\0\0", "tiff"),
        (b"MM\0*\0\0\0\x08", "tiff"),
        (b"II*\0\x10\0\0\0CR\x02\x00", "raw"),
        (b"FUJIFILMCCD-RAW 0201", "raw"),
        (b"IIRO\x08\0\0\0", "raw"),
        (b"IIU\0\x18\0\0\0", "raw"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "avif"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "avif"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "heif"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", None),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", None),
        (b"P6\n2 2\n255\n", "ppm"),
        (b"P5 2 2 255 ", "ppm"),
        (b"P3#one\n # two\n2#three\n\t2", "ppm"),
        (b"P5\n# a comment longer than what is looked at".ljust(SNIFF_BYTES, b"x"), "ppm"),
        (b"P6\n", None),
        (b"P1 priorities", None),
        (b"P2 2024 goals", None),
        (b"P3 # heading\ntext", None),
        (b"P7\n", None),
        (b"Poem", None),
        (b"%PDF-1.7", None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_the_first_bytes_tell_the_format(head: bytes, format: str | None) -> None:
    assert sniff(head) == format


def test_texts_that_begin_like_pictures_are_passed_over_in_a_folder() -> None:
    make("in/a.jpg")
    make("in/BMW_notes.txt", content=b"BMW 320d\nwinter tyres")
    make("in/P1 plan.md", content=b"P1 priorities\n1. rest\n")
    plan = plan_jobs(["in"])
    assert list(results(plan)) == ["in/a.jpg"]
    assert not plan.unreadable


@given(st.binary(max_size=SNIFF_BYTES))
def test_any_bytes_can_be_sniffed(head: bytes) -> None:
    assert sniff(head) in {None, *PICTURES.suffixes.values()}


def test_the_planner_and_the_decoder_know_the_same_formats() -> None:
    from lowlight_cli.images import FORMATS
    from lowlight_cli.images.encode import _WRITERS

    known = {format.upper() for format in PICTURES.suffixes.values()}
    read_only = {format.upper() for format in PICTURES.written_as}
    assert FORMATS.keys() == known - {"MPO"}  # a JPEG to the decoder, which has no name of its own for it
    assert _WRITERS.keys() == known - read_only


# What the inputs mean.


def test_a_folder_gives_its_pictures_and_leaves_the_rest_alone() -> None:
    make(
        "s/a.jpg",
        "s/._a.jpg",
        "s/.hidden.png",
        "s/Thumbs.db",
        "s/.git/x.jpg",
        "s/@eaDir/a.jpg",
        "s/__MACOSX/b.jpg",
    )
    make("s/notes.txt", "s/clip.mp4", content=b"words")
    make("s/nameless")
    plan = plan_jobs(["s"], recursive=True)
    assert set(results(plan)) == {"s/a.jpg", "s/nameless"}
    assert not plan.unreadable


def test_a_named_file_is_taken_whatever_its_name() -> None:
    make("._a.jpg", ".hidden.png", "notes.txt", content=b"words")
    assert len(plan_jobs(["._a.jpg", ".hidden.png", "notes.txt"]).jobs) == 3


def test_globs_are_expanded_where_the_shell_did_not() -> None:
    make("s/a.jpg", "s/b.png", "s/x/c.jpg")
    make("s/notes.txt", content=b"words")
    assert set(results(plan_jobs(["s/*"]))) == {"s/a.jpg", "s/b.png", "s/x/c.jpg"}
    assert set(results(plan_jobs(["s/*.jpg"]))) == {"s/a.jpg"}
    assert set(results(plan_jobs(["s/**/*.jpg"]))) == {"s/a.jpg", "s/x/c.jpg"}
    assert set(results(plan_jobs([f"{Path.cwd()}/s/[ab].*"]))) == {
        f"{Path.cwd()}/s/a.jpg",
        f"{Path.cwd()}/s/b.png",
    }


def test_a_file_whose_name_looks_like_a_glob_wins() -> None:
    make("a[1].jpg", "a1.jpg")
    assert set(results(plan_jobs(["a[1].jpg"]))) == {"a[1].jpg"}
    Path("a[1].jpg").unlink()
    assert set(results(plan_jobs(["a[1].jpg"]))) == {"a1.jpg"}
    with pytest.raises(SettingsError, match=r"a\[1\]"):
        plan_jobs([Path("a[1].jpg")])


@pytest.mark.parametrize("missing", ["gone.jpg", "no/such/folder", "*.jpg", "x" * 300, "nul\0byte", "file/below"])
def test_a_missing_input_is_named(missing: str) -> None:
    make("file")
    with pytest.raises(SettingsError, match="there is no file or folder"):
        plan_jobs([missing])


def test_what_permissions_hide_is_not_called_missing() -> None:
    with as_an_ordinary_user(), tempfile.TemporaryDirectory() as name:
        hidden = Path(name, "hidden")
        hidden.mkdir()
        (hidden / "a.jpg").write_bytes(JPEG)
        hidden.chmod(0)
        try:
            for ask in (plan_jobs, lambda paths: find_pairs(paths[0], paths[0])):
                with pytest.raises(SettingsError, match="permission denied"):
                    ask([hidden / "a.jpg"])
        finally:
            hidden.chmod(0o700)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_an_open_file_of_the_system_is_no_place_for_results() -> None:
    make("a.jpg")
    with Path("a.jpg").open("rb") as file:
        for name in (f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}"):
            with pytest.raises(SettingsError, match="name its result with --output"):
                plan_jobs([name])
            assert plan_jobs([name], output="out.jpg").jobs[0].output == Path("out.jpg")


def test_a_folder_without_pictures_is_refused() -> None:
    make("s/x/a.jpg")
    with pytest.raises(SettingsError, match="no pictures found in 's'; with -r"):
        plan_jobs(["s"])
    with pytest.raises(SettingsError, match="no pictures named"):
        plan_jobs([])


def test_the_same_file_is_done_once_however_it_is_spelled() -> None:
    make("s/x/a.jpg")
    Path("link").symlink_to("s")
    inputs = ["s/x/a.jpg", "./s/x/../x/a.jpg", Path("s/x/a.jpg").absolute(), "link/x/a.jpg", "s"]
    for order in permutations(inputs):
        plan = plan_jobs(order, output="out", recursive=True)
        assert results(plan) == {"s/x/a.jpg": "out/x/a.jpg"}


def test_links_to_folders_are_not_followed_and_loops_do_not_hang() -> None:
    make("s/a.jpg", "elsewhere/b.jpg")
    Path("s/loop").symlink_to(".")
    Path("s/other").symlink_to("../elsewhere")
    Path("s/nowhere.jpg").symlink_to("gone")
    Path("s/self.jpg").symlink_to("self.jpg")
    plan = plan_jobs(["s"], recursive=True)
    assert set(results(plan)) == {"s/a.jpg"}
    assert set(plan.unreadable) == {Path("s", name) for name in ("nowhere.jpg", "self.jpg")}
    assert set(results(plan_jobs(["s/other"]))) == {"s/other/b.jpg"}
    with pytest.raises(SettingsError, match="self"):
        plan_jobs(["s/self.jpg"])


def test_a_folder_of_pairs_that_is_a_link_to_nowhere_is_named() -> None:
    Path("low").symlink_to("gone")
    with pytest.raises(SettingsError, match="there is no file or folder 'low'"):
        find_pairs(Path("low"), Path("low"))


def test_pipes_in_a_folder_are_left_alone() -> None:
    make("s/a.jpg")
    os.mkfifo("s/pipe.jpg")
    os.mkfifo("s/pipe")
    assert set(results(plan_jobs(["s"]))) == {"s/a.jpg"}
    with pytest.raises(SettingsError, match="--output"):
        plan_jobs(["s/pipe"])


@pytest.mark.timeout(20)  # it took more than a minute when each name was looked for among all others
def test_a_folder_of_many_folders_is_searched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    make("s/a.jpg")
    names = [f"{number:06}" for number in range(60_000)]  # which need not be on the disk
    monkeypatch.setattr(os, "walk", lambda *_, **__: iter([("s", [*names, ".hidden"], ["a.jpg"])]))
    assert set(results(plan_jobs(["s"], recursive=True))) == {"s/a.jpg"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_reported_and_its_neighbours_are_done() -> None:
    make("s/a.jpg", "s/closed/b.jpg")
    Path("s/closed").chmod(0)
    plan = plan_jobs(["s"], recursive=True)
    Path("s/closed").chmod(0o700)
    assert set(results(plan)) == {"s/a.jpg"}
    assert plan.unreadable == (Path("s/closed"),)


def test_standard_input_goes_to_standard_output_or_into_a_file() -> None:
    assert plan_jobs(["-"]).jobs == (Job(None, None),)
    assert plan_jobs(["-"], output="x.png").jobs == (Job(None, Path("x.png")),)
    make("x.png", "a.jpg")
    assert plan_jobs(["-"], output="x.png").skipped == (Job(None, Path("x.png")),)
    assert plan_jobs(["a.jpg"], output="-").jobs == (Job(Path("a.jpg"), None),)
    for inputs, output in ((["-", "a.jpg"], None), (["-"], "out/"), (["-"], "{stem}.png"), (["-"], "x.txt")):
        with pytest.raises(SettingsError):
            plan_jobs(inputs, output=output)


def test_a_file_called_minus_can_be_meant() -> None:
    make("-")
    assert results(plan_jobs([Path("-")])) == {"-": "-_lowlight.jpg"}


def test_a_list_of_files_is_taken_literally() -> None:
    assert read_file_list(io.BytesIO(b"a.jpg\r\n\nb[1]*.jpg\n-\n")) == [
        Path("a.jpg"),
        Path("b[1]*.jpg"),
        Path("-"),
    ]
    names = [b"a\nb.jpg", b"\xff.jpg", b"c.jpg"]
    listed = read_file_list(io.BytesIO(b"\0".join(names) + b"\0"), null_separated=True)
    assert [os.fsencode(path) for path in listed] == names
    with pytest.raises(SettingsError, match="-0"):
        read_file_list(io.BytesIO(b"a\0b\0"))
    with pytest.raises(SettingsError, match=r"cannot read the list of files 'gone\.txt': No such file or directory"):
        read_file_list(Path("gone.txt"))


# A second run, and results in the way.


def test_a_second_run_skips_what_is_done_unless_told_to_overwrite() -> None:
    make("s/a.jpg", "s/b.jpg", "s/c.cr2", "s/c.tif")
    done(plan_jobs(["s"]))
    again = plan_jobs(["s"])
    assert (again.jobs, len(again.skipped), len(again.own_results)) == ((), 4, 4)
    assert len(plan_jobs(["s"], overwrite=True).jobs) == 4


def test_an_existing_variant_is_not_overwritten_either() -> None:
    make("a.jpg", "out/a_compare.jpg")
    assert plan_jobs(["a.jpg"], output="out", variants=["compare"]).jobs == ()


def test_our_own_names_are_left_out_when_their_source_is_there() -> None:
    make(
        "s/a.jpg",
        "s/a_lowlight.png",
        "s/a_lowlight_compare.jpg",
        "s/b_lowlight.jpg",
        "s/c_enhanced.jpg",
        "s/a-x.jpg",
    )
    plan = plan_jobs(["s"], suffix="-x")
    assert plan.own_results == tuple(
        Path("s", f"a{end}.{type}") for end, type in (("-x", "jpg"), ("_lowlight", "png"), ("_lowlight_compare", "jpg"))
    )
    assert {str(job.input) for job in plan.jobs} == {"s/b_lowlight.jpg", "s/c_enhanced.jpg"}
    assert results(plan_jobs(["s/a_lowlight.png"])) == {"s/a_lowlight.png": "s/a_lowlight_lowlight.png"}


def test_results_in_a_folder_below_the_input_are_not_done_again() -> None:
    make("s/a.jpg", "s/x/b.jpg")
    for output in ("s/bright", "s/{stem}_v2{ext}"):
        done(plan_jobs(["s"], output=output, recursive=True))
        again = plan_jobs(["s"], output=output, recursive=True)
        assert again.jobs == ()
        assert {str(job.input) for job in again.skipped} == {"s/a.jpg", "s/x/b.jpg"}
        for folder in ("s/bright",):
            for file in Path(folder).rglob("*.jpg"):
                file.unlink()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_result_never_replaces_its_own_input(overwrite: bool) -> None:
    make("a.jpg")
    os.link("a.jpg", "hard.jpg")
    Path("soft.jpg").symlink_to("a.jpg")
    for output in ("a.jpg", "./x/../a.jpg", ".", "hard.jpg", "soft.jpg", "{stem}{ext}"):
        with pytest.raises(SettingsError, match=r"replace the input 'a\.jpg'"):
            plan_jobs(["a.jpg"], output=output, overwrite=overwrite)
    with pytest.raises(SettingsError, match="replace the input"):
        plan_jobs(["a.jpg"], suffix="", overwrite=overwrite)


def test_a_result_never_replaces_another_input() -> None:
    make("a.jpg", "a_v2.jpg")
    with pytest.raises(SettingsError, match=r"replace the input 'a_v2\.jpg'"):
        plan_jobs(["a.jpg", "a_v2.jpg"], output="{stem}_v2{ext}", overwrite=True)
    plan = plan_jobs(["a.jpg", "a_v2.jpg"], output="{stem}_v2{ext}")
    assert (plan.jobs, plan.own_results) == ((), (Path("a_v2.jpg"),))


# Two inputs, one name.


def test_two_inputs_with_one_result_are_refused_by_name() -> None:
    make("x/a.jpg", "y/a.jpg")
    with pytest.raises(SettingsError, match=r"'x/a.jpg' and 'y/a.jpg' would both become 'out/a.jpg'"):
        plan_jobs(["y/a.jpg", "x/a.jpg"], output="out/")
    with pytest.raises(SettingsError, match="both become"):
        plan_jobs(["x", "y"], output="{{}}.png")
    assert len(plan_jobs(["x", "y"], output="out/{parent}/{stem}{ext}").jobs) == 2


def test_results_that_a_disk_could_take_for_one_are_refused() -> None:
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    for one, other in (("A.jpg", "a.jpg"), (composed, decomposed), ("straße.jpg", "STRASSE.jpg")):
        make(f"x/{one}", f"y/{other}")
        with pytest.raises(SettingsError, match="both become"):
            plan_jobs([f"x/{one}", f"y/{other}"], output="out/")


def test_folders_that_the_disk_itself_tells_apart_are_two() -> None:
    make("s/A/x.jpg", "s/a/x.jpg")
    if Path("s/A").samefile("s/a"):
        pytest.skip("this disk is case-blind")
    assert len(plan_jobs(["s"], recursive=True).jobs) == 2


def test_files_that_differ_only_in_case_get_numbers_of_their_own() -> None:
    make("A.JPG", "a.jpg", "b.jpg")
    if Path("A.JPG").samefile("a.jpg"):
        pytest.skip("this disk is case-blind")
    expected = {"A.JPG": "out/A.JPG", "a.jpg": "out/a_2.jpg", "b.jpg": "out/b.jpg"}
    for order in permutations(("a.jpg", "A.JPG", "b.jpg")):
        assert results(plan_jobs(order, output="out/")) == expected
    make("a.png")
    assert results(plan_jobs(["."], output="out", format="png")) == {
        "A.JPG": "out/A_JPG.png",
        "a.jpg": "out/a_jpg_2.png",
        "a.png": "out/a.png",
        "b.jpg": "out/b.png",
    }
    with pytest.raises(SettingsError, match="would both become"):
        plan_jobs(["A.JPG", "a.jpg"], output="{model}{ext}")


def test_the_results_of_files_that_differ_only_in_case_are_known_again() -> None:
    make("A.JPG", "a.jpg")
    if Path("A.JPG").samefile("a.jpg"):
        pytest.skip("this disk is case-blind")
    plan = plan_jobs(["."], variants=["compare"])
    assert results(plan) == {"A.JPG": "A_lowlight.JPG", "a.jpg": "a_2_lowlight.jpg"}
    done(plan)
    again = plan_jobs(["."], variants=["compare"], overwrite=True)
    assert (again.jobs, len(again.own_results)) == (plan.jobs, 4)


def test_a_remedy_for_two_inputs_with_one_result_is_one_that_works() -> None:
    make("x/a.jpg", "y/a.jpg", "x/a_compare.jpg")
    with pytest.raises(
        SettingsError, match=r"apart with --output 'FOLDER/\{parent\}/\{stem\}\{ext\}' or in separate runs"
    ):
        plan_jobs(["x/a.jpg", "y/a.jpg"], output="out/")
    with pytest.raises(SettingsError, match="apart in separate runs, each with an --output folder of its own"):
        plan_jobs(["x"], output="out", variants=["compare"])


def test_a_raw_file_beside_its_jpeg_gets_a_name_of_its_own() -> None:
    make("a.cr2", "a.tif", "b.nef", "c.nef", "c.dng")
    assert results(plan_jobs(["."], output="out")) == {
        "a.cr2": "out/a_cr2.tif",
        "a.tif": "out/a.tif",
        "b.nef": "out/b.tif",
        "c.dng": "out/c_dng.tif",
        "c.nef": "out/c_nef.tif",
    }
    make("d.jpg", "d.png")
    assert results(plan_jobs(["d.jpg", "d.png"], format="png")) == {
        "d.jpg": "d_jpg_lowlight.png",
        "d.png": "d_lowlight.png",
    }


def test_a_variant_may_not_take_a_neighbours_name() -> None:
    make("a.jpg", "a_compare.jpg")
    with pytest.raises(SettingsError, match="both become"):
        plan_jobs(["a.jpg", "a_compare.jpg"], output="out", variants=["compare"])


# Awful names.


@pytest.mark.parametrize(
    "name",
    [
        b"caf\xe9.jpg",
        b"-rf.jpg",
        b"a b\tc\nd.jpg",
        b"[red]{x}%s.jpg",
        b"CON.jpg",
        b"trailing .jpg",
        b"a.jpg.",
        b"a.jpg ",
        "\u202egpj.exe.jpg".encode(),
        "🌃.JPG".encode(),
        b"~.jpg",
        b"a'\"`$x.jpg",
    ],
)
def test_awful_names_survive(name: bytes) -> None:
    path = Path(os.fsdecode(name))
    path.write_bytes(JPEG)
    (job,) = plan_jobs([path]).jobs
    assert job.input == path
    assert job.output is not None
    assert job.output.name.startswith(path.stem)
    assert job.output.suffix.lower() == ".jpg"
    job.output.write_bytes(JPEG)
    assert plan_jobs([str(path)]).skipped == (job,)
    assert plan_jobs(["."]).skipped == (job,)


def test_a_name_too_long_for_the_disk_is_refused_before_work() -> None:
    name = "n" * 251 + ".jpg"
    make(name)
    with pytest.raises(SettingsError, match="264 bytes"):
        plan_jobs([name])
    assert plan_jobs([name], output="out/").jobs
    for output in ("x" * 300 + ".jpg", "x" * 300 + "/", "x" * 300 + "/y.jpg"):
        with pytest.raises(SettingsError, match="bytes"):
            plan_jobs([name], output=output)


# For all inputs.

NAMES = st.sampled_from(
    [
        *(
            "a.jpg",
            "A.jpg",
            "a.png",
            "a.tif",
            "a.nef",
            "a_nef.tif",
            "b.jpg",
            "é.jpg",
            "e\u0301.jpg",
            "a",
            "...jpg",
        ),
        *(
            "a_lowlight.jpg",
            "a_lowlight_compare.jpg",
            "x/a.jpg",
            "x/y/a.jpg",
            "X/a.jpg",
            "x/a_jpg.png",
            "out/a.jpg",
        ),
    ]
)
OUTPUTS = st.sampled_from(
    [
        None,
        "out",
        "out/",
        ".",
        "x",
        "out/{parent}/{stem}{ext}",
        "{stem}_2{ext}",
        "out/{stem}/{stem}",
        "x/{stem}.png",
    ]
)
INPUTS = st.lists(st.one_of(NAMES, st.sampled_from([".", "x", "*.jpg", "**/*.png"])), min_size=1, max_size=5)
OPTIONS = st.fixed_dictionaries(
    {
        "output": OUTPUTS,
        "recursive": st.booleans(),
        "format": st.sampled_from([None, "png", "tiff"]),
        "overwrite": st.booleans(),
        "suffix": st.sampled_from([None, "", "_x"]),
        "variants": st.sampled_from([(), ("compare",)]),
    }
)


def in_a_fresh_folder(names: set[str]) -> Iterator[Path]:
    back = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            make(*names)
            yield Path(folder)
        finally:
            os.chdir(back)


def test_folders_that_differ_only_in_case_are_named_alike_by_a_second_run() -> None:
    for _ in in_a_fresh_folder({"X/a.jpg", "x/a.jpg"}):
        if len(list(Path().iterdir())) == 1:
            pytest.skip("needs a disk that tells case apart")
        first = plan_jobs(["."], output="out", recursive=True)
        assert {str(job.output) for job in first.jobs} == {"out/X/a.jpg", "out/x/a_2.jpg"}
        done(first)
        second = plan_jobs(["."], output="out", recursive=True)
        assert not second.jobs
        assert {job.output for job in second.skipped} == {job.output for job in first.jobs}


@settings(max_examples=100)
@given(names=st.sets(NAMES, min_size=1, max_size=8), inputs=INPUTS, options=OPTIONS, random=st.randoms())
def test_plans_never_collide_never_touch_an_input_and_ignore_the_order(names, inputs, options, random) -> None:  # type: ignore[no-untyped-def]
    for _ in in_a_fresh_folder(names):
        try:
            plan = plan_jobs(inputs, **options)
        except SettingsError:
            shuffled = random.sample(inputs, len(inputs))
            with pytest.raises(SettingsError):
                plan_jobs(shuffled, **options)
            continue
        assert plan == plan_jobs(random.sample(inputs, len(inputs)), **options)
        written = [file for job in plan.jobs for file in job.files]
        folded = [unicodedata.normalize("NFC", os.path.realpath(file)) for file in written]
        assert len(set(folded)) == len(folded)
        sources = [job.input for job in (*plan.jobs, *plan.skipped) if job.input]
        for file in written:
            if file.exists():
                assert options["overwrite"]
                assert not any(file.samefile(source) for source in sources)
            if options["output"] and "{" in options["output"]:
                base = options["output"].partition("{")[0]
                assert Path(os.path.realpath(file)).is_relative_to(os.path.realpath(base or "."))
        done(plan)
        # Results among the inputs under the inputs' own stems are inputs to the second run, and refused.
        with suppress(SettingsError):
            assert not plan_jobs(inputs, **{**options, "overwrite": False}).jobs
