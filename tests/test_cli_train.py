import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from lowlight_cli.cli.train import train

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
    assert [event["event"] for event in told] == ["progress", "saved", "validation"]
    assert told[0]["step"] == told[0]["steps"] == 3
    assert "step 3 of 3" in result.stderr
    names = {path.name for path in output.iterdir()}
    assert names == {"checkpoint.pt", "tiny.safetensors", "log.jsonl", "curve.png", "preview.png"}
    again = run("--clean", folder / "clean", "--recipe", folder / "tiny.toml", "-o", output, "--device", "cpu", "-q")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.parametrize("words", [(), ("--clean", "x", "--pairs", "x", "y")])
def test_what_to_train_on_must_be_said_once(words):
    result = run(*words)
    assert result.exit_code != 0
    assert "give --clean DIR or --pairs LOW REFERENCE" in str(result.exception)
