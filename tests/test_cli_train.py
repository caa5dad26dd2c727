import json
import math

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from lowlight_cli.cli.train import train
from lowlight_cli.errors import LowlightError, SettingsError
from lowlight_cli.train.events import Progress, as_record
from lowlight_cli.train.journal import draw_curve
from lowlight_cli.train.recipe import parse_recipe, read_recipe
from lowlight_cli.train.settings import published_recipes

RECIPE = """
name = "tiny"
[network]
width = 8
enc_blk_nums = [1]
dec_blk_nums = [1]
middle_blk_num_enc = 1
middle_blk_num_dec = 1
dilations = [1]
unshuffle = 2
[data]
held_out = ["photo2"]
[schedule]
stages = [{ steps = 3, crop = 32, batch = 2 }]
"""


@pytest.fixture
def folder(tmp_path):
    """A folder of three photos, and a recipe beside it."""
    (tmp_path / "clean").mkdir()
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / "clean" / f"photo{number}.png")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return tmp_path


def run(*words):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(train)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_training_tells_its_course_and_leaves_its_files(folder):
    output = folder / "run"
    result = run(
        "--clean", folder / "clean", "--recipe", folder / "tiny.toml", "-o", output, "--device", "cpu", "--json"
    )
    assert result.exit_code == 0, result.output
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in told] == ["started", "progress", "saved", "validation"]
    assert (told[0]["step"], told[0]["training"], told[0]["held_out"], told[0]["left_out"]) == (0, 2, 1, [])
    assert told[1]["step"] == told[1]["steps"] == 3
    assert (told[3]["crops"], told[3]["crop"]) == (24, 32)
    said = result.stderr.splitlines()
    assert said[0].startswith("on cpu (")
    assert said[0].endswith("): 2 pictures to train on and 1 to validate on; 3 steps")
    assert said[1].startswith("step 3 of 3")
    assert said[1].endswith(", 0:00 left")
    names = {path.name for path in output.iterdir()}
    assert names == {"checkpoint.pt", "tiny.safetensors", "recipe.toml", "log.jsonl", "curve.png", "preview.png"}
    assert read_recipe(str(output / "recipe.toml")) == parse_recipe(RECIPE)
    assert [json.loads(line)["event"] for line in (output / "log.jsonl").read_text().splitlines()] == [
        event["event"] for event in told
    ]
    again = run("--clean", folder / "clean", "--recipe", folder / "tiny.toml", "-o", output, "--device", "cpu", "-q")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.parametrize("words", [(), ("--clean", "x", "--pairs", "x", "y")])
def test_what_to_train_on_must_be_said_once(words):
    result = run(*words)
    assert result.exit_code != 0
    assert "give --clean DIR or --pairs LOW REFERENCE" in str(result.exception)


def refused(folder, *words):
    """Run from the folder; return the sentence, having seen that nothing changed."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(LowlightError) as refusal:
        run_raising("--recipe", folder / "tiny.toml", "--device", "cpu", "-q", *words)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    return str(refusal.value)


def run_raising(*words):
    result = run(*words)
    if result.exception:
        raise result.exception


def test_a_training_keeps_out_of_the_pictures_and_of_what_others_wrote(folder):
    assert "among the pictures" in refused(folder, "--clean", folder / "clean", "-o", folder / "clean")
    assert "among the pictures" in refused(folder, "--clean", folder / "clean", "-o", folder / "clean" / "run")
    (folder / "other").mkdir()
    for name in ("preview.png", "recipe.toml"):
        (folder / "other" / name).write_bytes(b"mine")
        assert "no training is" in refused(folder, "--clean", folder / "clean", "-o", folder / "other")
        (folder / "other" / name).unlink()
    (folder / "log").mkdir()
    for content in ('{"a": 1}', "5", '{"step": 1}'):
        (folder / "log" / "log.jsonl").write_text(content)
        assert "no training's log" in refused(folder, "--clean", folder / "clean", "-o", folder / "log")
    (folder / "log" / "log.jsonl").write_bytes(b"\xff\xfe")
    assert "no training's log" in refused(folder, "--clean", folder / "clean", "-o", folder / "log")


def test_a_training_from_other_weights_tells_where_it_starts_and_logs_it_once(folder):
    words = "--clean", folder / "clean", "--recipe", folder / "tiny.toml", "--device", "cpu"
    assert run(*words, "-o", folder / "first").exit_code == 0
    initial = folder / "first" / "tiny.safetensors"
    tuning = *words, "-o", folder / "tuned", "--init", initial
    for _ in range(2):  # the first as if it had been killed before its first checkpoint
        result = run(*tuning)
        assert result.exit_code == 0, result.output
        said = result.stderr.splitlines()
        assert said[0].endswith("3 steps")
        assert said[1].startswith("validation on 24 crops of 32 pixels: ")
        (folder / "tuned" / "checkpoint.pt").unlink()
        (folder / "tuned" / "tiny.safetensors").unlink()
    logged = [json.loads(line) for line in (folder / "tuned" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if line["event"] == "validation"] == [0, 3]
    assert "no weights of that name" in refused(folder, *words[:2], "-o", folder / "other", "--init", "nothing")
    zeroig = "--init zeroig-initial: it is not for darkir"
    assert zeroig in refused(folder, *words[:2], "-o", folder / "other", "--init", "zeroig-initial")


def cut_off(folder, number):
    whole = (folder / "clean" / "photo0.png").read_bytes()
    for each in range(number):
        (folder / "clean" / f"cut{each}.png").write_bytes(whole[:-200])


def test_pictures_that_cannot_be_read_are_left_out_and_named(folder):
    cut_off(folder, 5)
    words = ("--clean", folder / "clean", "--recipe", folder / "tiny.toml", "-o", folder / "run", "--device", "cpu")
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    said = result.stderr.splitlines()
    assert [line.partition("cut")[2][:5] for line in said[:3]] == ["0.png", "1.png", "2.png"]
    assert said[3] == "left out in all: 5 pictures"
    assert "2 pictures to train on and 1 to validate on, 5 left out; 3 steps" in said[4]
    started = json.loads(result.stdout.splitlines()[0])
    assert [one["input"] for one in started["left_out"]] == [str(folder / f"clean/cut{each}.png") for each in range(5)]
    assert all(one["reason"].startswith("it is cut off") for one in started["left_out"])


def test_too_few_pictures_are_refused_with_the_number_that_is_needed(folder):
    cut_off(folder, 1)
    for number in (1, 2):
        (folder / "clean" / f"photo{number}.png").unlink()
    assert "1 of at least 32x32 pixels that can be read; 2 are needed" in refused(folder, "--clean", folder / "clean")


def test_a_training_says_where_it_goes_on_and_that_its_pictures_are_others(folder):
    words = ("--clean", folder / "clean", "-o", folder / "run", "--device", "cpu", "--recipe", folder / "tiny.toml")
    assert run(*words).exit_code == 0
    (folder / "tiny.toml").write_text(
        RECIPE.replace("steps = 3", "steps = 5").replace("[schedule]", "[schedule]\ndecay = 0")
    )
    same = run(*words)
    assert "goes on after step 3 of 5" in same.stderr
    assert "other pictures" not in same.stderr
    (folder / "clean" / "photo1.png").rename(folder / "clean" / "another.png")
    over = run(*words)
    assert "was trained on other pictures than these; another --output begins anew" in over.stderr
    assert "is over: all its steps were taken before" in over.stderr
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "started"] == [0, 3, 5]
    assert [line["step"] for line in lines if line["event"] != "started"] == [3, 3, 3, 5, 5, 5]
    recipe = read_recipe(str(folder / "run" / "recipe.toml"))
    assert (recipe.schedule.steps, recipe.schedule.decay) == (5, 0)


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        ("name", '"../evil"'),
        ("network.width", "0"),
        ("network.enc_blk_nums", "[]"),
        ("network.enc_blk_nums", "[1, 1]"),
        ("network.dilations", "[0]"),
        ("schedule.stages", "[]"),
        ("schedule.stages", "[5]"),
        ("schedule.stages", "[{ steps = 0, crop = 32, batch = 2 }]"),
        ("schedule.stages", "[{ steps = 3, crop = 0, batch = 2 }]"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_one_sentence(setting, wrong):
    text = f"{setting} = {wrong}\n" if setting == "name" else f'name = "x"\n{setting} = {wrong}\n'
    with pytest.raises(SettingsError, match="recipe"):
        parse_recipe(text)


def test_what_is_not_finite_is_null_in_records_and_no_point_of_the_curve(tmp_path):
    record = as_record(Progress(3, 9, math.nan, math.inf, 1e-3, 1, 0.5))
    assert json.loads(json.dumps(record, allow_nan=False))["loss"] is None
    draw_curve(tmp_path / "curve.png", [record, as_record(Progress(6, 9, 0.5, 1.0, 1e-3, 0, 0.5))])
    assert (tmp_path / "curve.png").exists()


def test_the_help_names_the_published_recipes():
    told = run("--help").output
    assert all(name in told for name in published_recipes())


def test_a_folder_that_is_not_there_is_named(folder):
    assert "there is no folder" in refused(folder, "--clean", folder / "nope", "-o", folder / "run")
