"""One plan in several parts: complete, disjoint, and the same on every machine, whatever is done already."""

import json
import os
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner, Result

from lowlight_cli.cli import app
from lowlight_cli.errors import SettingsError
from lowlight_cli.paths import Plan, Shard, part_plan, plan_jobs, read_shard

COUNTS = (1, 2, 3, 7)
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 60

_name = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cc"]), min_size=1, max_size=8
)
_file = st.builds(
    lambda parts, suffix: "/".join(parts) + suffix,
    st.lists(_name, min_size=1, max_size=3),
    st.sampled_from([".jpg", ".JPG", ".tif"]),
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(files: set[str], root: Path) -> None:
    """Write those of the files that the disk takes."""
    for file in files:
        path = root / file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(JPEG)
        except OSError:
            continue


def whole(plan: Plan) -> list[tuple[str, str]]:
    return sorted((str(job.input), str(job.output)) for job in (*plan.jobs, *plan.skipped))


def parts_of(count: int, *inputs: str | Path, **options: object) -> list[Plan]:
    """Plan anew for every part, as machines do."""
    return [
        part_plan(plan_jobs(inputs, **options), Shard(index, count))  # type: ignore[arg-type]
        for index in range(1, count + 1)
    ]


@settings(max_examples=40)
@given(files=st.sets(_file, min_size=1, max_size=25), count=st.sampled_from(COUNTS), data=st.data())
def test_the_parts_are_disjoint_and_complete_in_any_order_and_whatever_is_done(tmp_path_factory, files, count, data):
    root = tmp_path_factory.mktemp("shards")
    make(files, root / "in")
    try:
        plan = plan_jobs([root / "in"], recursive=True, output=f"{root}/out/")
    except SettingsError:  # nothing but dotfiles, or two names that some disk takes for one: refused as a whole
        with pytest.raises(SettingsError):
            parts_of(count, root / "in", recursive=True, output=f"{root}/out/")
        return
    parts = parts_of(count, root / "in", recursive=True, output=f"{root}/out/")
    assert Counter(one for part in parts for one in whole(part)) == Counter(whole(plan))
    by_input = {job.input: index for index, part in enumerate(parts) for job in part.jobs}

    # The same files by name, in another order, and some of them done already.
    named = data.draw(st.permutations([job.input for job in plan.jobs]))
    for job in data.draw(st.sets(st.sampled_from(plan.jobs))):
        job.output.parent.mkdir(parents=True, exist_ok=True)
        job.output.write_bytes(JPEG)
    again = parts_of(count, root / "in", recursive=True, output=f"{root}/out/")
    assert [whole(part) for part in again] == [whole(part) for part in parts]
    assert all(by_input[job.input] == index for index, part in enumerate(again) for job in part.jobs)
    template = f"{root}/named/{{stem}}_{{parent}}"
    try:
        one_order = parts_of(count, *named, output=template)
    except SettingsError:  # names that only their folders told apart
        return
    assert [whole(part) for part in one_order] == [
        whole(part) for part in parts_of(count, *named[::-1], output=template)
    ]
    assert Counter(one for part in one_order for one in whole(part)) == Counter(
        whole(plan_jobs(named, output=template))
    )


@pytest.mark.parametrize("count", COUNTS)
def test_a_folder_is_parted_alike_wherever_it_is_mounted(tmp_path, monkeypatch, count):
    make({f"day{n % 3}/é{n}.jpg" for n in range(30)}, tmp_path / "one/shoot")
    shutil.copytree(tmp_path / "one/shoot", tmp_path / "two/mnt/photos")
    # A Mac's disk gives names back decomposed.
    for path in (tmp_path / "two/mnt/photos").rglob("*.jpg"):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    monkeypatch.chdir(tmp_path / "one")
    spellings = [
        parts_of(count, *inputs, recursive=True) for inputs in (["shoot"], ["./shoot/"], [tmp_path / "two/mnt/photos"])
    ]
    first, *others = ([sorted(job.place for job in part.jobs) for part in parts] for parts in spellings)
    assert all(other == first for other in others)
    assert sum(map(len, first)) == 30
    named = parts_of(count, *(Path("shoot").rglob("*.jpg")))
    assert [sorted(job.place for job in part.jobs) for part in named] == first


def test_parts_stay_when_files_are_added():
    make({f"in/a/{n}.jpg" for n in range(20)}, Path())
    before = [{job.place for job in part.jobs} for part in parts_of(3, "in", recursive=True)]
    make({f"in/b/c/{n}.jpg" for n in range(20)}, Path())
    after = [{job.place for job in part.jobs} for part in parts_of(3, "in", recursive=True)]
    assert all(old <= new for old, new in zip(before, after, strict=True))
    assert sum(map(len, after)) == 40


def test_parts_are_about_even():
    make({f"in/{folder}/img.jpg" for folder in range(210)}, Path())
    sizes = [len(part.jobs) for part in parts_of(7, "in", recursive=True)]
    assert sum(sizes) == 210
    assert 10 < min(sizes) <= max(sizes) < 50  # 30 +- 4 standard deviations of chance
    named = [len(part.jobs) for part in parts_of(7, *Path("in").glob("*/img.jpg"))]
    assert named == sizes


def test_what_the_whole_refuses_each_part_refuses():
    make({f"{folder}/a.jpg" for folder in "xyz"}, Path())
    for index in (1, 2, 3):
        with pytest.raises(SettingsError, match="would both become"):
            part_plan(plan_jobs(["x", "y", "z"], output="out/"), Shard(index, 3))


def test_a_name_that_no_machine_can_decode_has_a_part():
    Path(os.fsdecode(b"\xff\xfe.jpg")).write_bytes(JPEG)
    assert sum(len(part.jobs) for part in parts_of(3, ".")) == 1


@pytest.mark.parametrize(
    "text", ["", "1", "1/", "/2", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1.0/2", "\u0661/\u0662", " 1/2"]
)
def test_a_part_that_cannot_be_meant_is_refused(text):
    with pytest.raises(SettingsError, match="--shard"):
        read_shard(text)


# On the command line.


def lowlight(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def pictures(count: int, folder: Path = Path("in")) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        levels = np.random.default_rng(index).integers(0, 90, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{index:02}.png")


@pytest.mark.parametrize("count", COUNTS)
def test_the_parts_of_a_run_make_what_the_run_makes(count):
    pictures(20)
    (Path("in") / "07.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    told: list[dict[str, object]] = []
    codes = []
    for index in range(1, count + 1):
        ran = lowlight("enhance", "in", "-o", "out/", "--model", "identity", "--json", "--shard", f"{index}/{count}")
        told += [json.loads(line) for line in ran.stdout.splitlines()]
        codes.append(ran.exit_code)
    assert Counter(str(one["input"]) for one in told) == Counter(f"in/{index:02}.png" for index in range(20))
    assert sorted(codes) == [0] * (count - 1) + [1]
    assert sorted(path.name for path in Path("out").iterdir()) == [f"{n:02}.png" for n in range(20) if n != 7]
    ran = lowlight("enhance", "in", "-o", "out/", "--model", "identity", "--json", "--shard", f"1/{count}")
    again = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {one["status"] for one in again} <= {"skipped", "failed"}


def test_comparisons_asked_for_afterwards_are_parted_as_their_results_are():
    pictures(8)
    for more in ((), ("--compare",)):
        for index in (1, 2):
            ran = lowlight("enhance", "in", "-o", "out/", "--model", "identity", "--shard", f"{index}/2", *more)
            assert ran.exit_code == 0, ran.output
    made = [path.name for path in Path("out").iterdir()]
    assert sorted(made) == sorted(f"{n:02}{end}.png" for n in range(8) for end in ("", "_compare"))


@pytest.mark.parametrize("command", ["enhance", "zero-shot", "video"])
def test_every_command_over_files_plans_its_part(command):
    names = [f"{n}.{'mp4' if command == 'video' else 'jpg'}" for n in range(12)]
    Path("in").mkdir()
    for name in names:
        (Path("in") / name).write_bytes(JPEG)
    lines = [
        lowlight(command, "in", "-o", "out/", "--dry-run", "--shard", f"{n}/3").stdout.splitlines() for n in (1, 2, 3)
    ]
    assert sorted(line.partition(" ->")[0] for part in lines for line in part) == sorted(f"in/{name}" for name in names)
    assert all(lines), "twelve files leave no part of three empty"


@pytest.mark.parametrize("command", ["enhance", "zero-shot", "video"])
@pytest.mark.parametrize("text", ["2", "0/2", "3/2", "x/y"])
def test_wrong_parts_are_one_sentence_and_exit_2(command, text):
    Path("a.mp4" if command == "video" else "a.jpg").write_bytes(JPEG)
    ran = lowlight(command, ".", "--shard", text)
    assert ran.exit_code == 2
    assert "--shard" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert "Traceback" not in ran.output


def test_a_part_without_files_does_nothing_and_is_no_failure():
    pictures(1)
    codes = [lowlight("enhance", "in", "--model", "identity", "--shard", f"{n}/7").exit_code for n in range(1, 8)]
    assert codes == [0] * 7
    assert Path("in/00_lowlight.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["enhance", "-"], "standard input"), (["zero-shot", "in", "--shared"], "--shared")],
)
def test_what_cannot_be_parted_is_exit_2(arguments, said):
    pictures(2)
    ran = lowlight(*arguments, "--shard", "1/2")
    assert (ran.exit_code, "Traceback" in ran.output) == (2, False)
    assert said in ran.stderr


def test_one_file_for_all_fits_is_refused_though_each_part_has_one_photo():
    pictures(2)
    for index in (1, 2):
        ran = lowlight("zero-shot", "in", "--save-weights", "w.safetensors", "--shard", f"{index}/2")
        assert ran.exit_code == 2
        assert "--save-weights" in ran.stderr
