"""What the README says is so: its commands parse, its files are there, its citations are true, and all of it works."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from lowlight_cli import errors
from lowlight_cli.cli import app
from lowlight_cli.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs/cli.md").read_text(encoding="utf-8")

SHELL = re.compile(r"```sh\n(.*?)```", flags=re.S)
ELSEWHERE = ("pip", "cat", "find", "pytest", "cp")  # what else stands in a line of shell


def lines_of(text: str) -> list[str]:
    """Return the lines of all blocks of shell, without comments."""
    return [
        line.split("  #")[0].strip() for block in SHELL.findall(text) for line in block.splitlines() if line.strip()
    ]


def parts_of(text: str) -> list[str]:
    """Return the commands of all blocks of shell, each once."""
    return sorted({part.strip() for line in lines_of(text) for part in re.split(r"&&|\|", line)})


def parse(words: list[str]) -> None:
    """Parse a command as `lowlight` would, without running it; fails for what it does not understand."""
    command = typer.main.get_command(app)
    context = typer.Context(command)
    while hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, name
        command = command.commands[name]
    with command.make_context(command.name, list(words), parent=context):
        pass


@pytest.mark.parametrize("part", [part for part in parts_of(README + REFERENCE) if part.startswith("lowlight ")])
def test_every_command_shown_is_understood(part):
    parse(shlex.split(part.split(">")[0])[1:])


@pytest.mark.parametrize(
    "words", [["enhance", "--nonesuch"], ["nonesuch"], ["weights", "nonesuch"], ["video", "a", "--crf", "much"]]
)
def test_what_the_commands_do_not_understand_would_be_noticed(words):
    usage_error = typer.BadParameter.__mro__[1]
    with pytest.raises((AssertionError, usage_error)):
        parse(words)


def test_the_readme_shows_every_command_and_nothing_but_commands():
    shown = parts_of(README)
    assert {part.split()[0] for part in shown} <= {"lowlight", *ELSEWHERE}
    for command in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert any(part.startswith(f"lowlight {command}") for part in shown), command


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"])
def test_every_file_that_is_linked_to_or_named_is_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    named = re.findall(r"`((?:lowlight_cli|tests|examples|docs)/[\w./-]+)`", text)
    for path in (*links, *named):
        if "_lowlight" in path:  # a result
            continue
        assert (ROOT / name).parent.joinpath(path).exists() or (ROOT / path).exists(), path


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_options_named_in_the_text_exist(name):
    for option in set(re.findall(r"`(--[a-z][a-z-]+)", (ROOT / name).read_text(encoding="utf-8"))):
        assert f"`{option}`" in REFERENCE or option == "--help", option


def test_citations_are_those_of_the_manifest():
    [block] = re.findall(r"```bibtex\n(.*?)```", README, flags=re.S)
    wanted = dict.fromkeys(entry.citation.strip() for entry in read_manifest().values())
    assert block.strip() == "\n\n".join(wanted)
    told = CliRunner().invoke(app, ["weights", "list", "-v"]).output
    for line in block.splitlines():
        assert line in told


def test_exit_codes_are_those_of_the_errors():
    [said] = re.findall(r"^Exit codes: (.*)\.$", README, flags=re.M)
    codes = dict(reversed(part.split(" ", 1)) for part in said.split(", "))
    told = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert told <= {int(code) for code in codes.values()}
    for word, error in (("something failed", errors.LowlightError), ("wrong use", errors.SettingsError)):
        assert int(codes[word]) == error.exit_code
    for word, error in (("weights", errors.WeightsError), ("device absent", errors.DeviceError)):
        assert int(codes[word]) == error.exit_code


def test_examples_are_all_listed_with_their_terms():
    listed = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    for path in (ROOT / "examples").iterdir():
        is_result = "_lowlight" in path.name
        assert is_result or path.name == "README.md" or f"`{path.name}" in listed, path.name


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    [code] = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    dark_photo(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    bright = names["bright"]
    assert isinstance(bright, Image.Image)
    assert np.asarray(bright).mean() > 2 * np.asarray(Image.open("photo.jpg")).mean()


def test_the_python_of_its_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    dark_photo(tmp_path / "photo.jpg")
    rng = np.random.default_rng(0)
    for number in range(3):
        for side in ("dark", "bright"):
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(tmp_path / side / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text("utf-8"), flags=re.S):
        exec(compile(code, "docs/python.md", "exec"), names)
    assert names["array"].shape == np.asarray(names["photo"]).shape
    assert names["batch"].lifted.shape == (2, 3, 32, 32)
    assert (tmp_path / "bright.jpg").exists()
    assert (tmp_path / "run/mine.safetensors").exists()
    assert len(names["terms"]) == 7


def dark_photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[0:48, 0:64]
    levels = np.stack((rows / 3, columns / 4, np.full_like(rows, 9.0)), axis=-1)
    Image.fromarray(levels.astype(np.uint8)).save(path)
    return path


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line as a person would, with `lowlight` on the path."""
    path = folder / "bin"
    path.mkdir(exist_ok=True)
    command = path / "lowlight"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m lowlight_cli "$@"\n')
    command.chmod(0o755)
    # One thread: two that wait for each other on a busy machine take many times as long.
    more = {"OMP_NUM_THREADS": "1", "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=folder / "here",
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """Make the folder in which the README's commands are meant to be run: photos, a shoot and clips."""
    here = tmp_path / "here"
    for name in ("photo.jpg", "night.png", "dark.png", "next.png", "shoot/a.jpg", "shoot/more/b.jpg"):
        dark_photo(here / name)
    (here / "clips").mkdir()
    for name in ("clip.mp4", "clips/one.mp4"):
        shutil.copy(ROOT / "examples/night.mp4", here / name)
    return tmp_path


# What needs the network, data sets, or a checkout is tested elsewhere.
_NOT_HERE = ("pip ", "weights download", "darkir-lolblur", "my_darkir", "lowlight train", "bench")
_NOT_HERE += () if find_spec("onnx") else ("onnx",)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_stranger_can_do_all_that_the_readme_shows(stranger):
    here = stranger / "here"
    for line in lines_of(README):
        if any(word in line for word in _NOT_HERE):
            continue
        ran = shell(stranger, line)
        assert ran.returncode == 0, f"{line}\n{ran.stderr}"
        assert "Traceback" not in ran.stderr
    for made in (
        "photo_lowlight.jpg", "photo_lowlight_compare.jpg", "bright/more/b.jpg", "shoot.html", "bright.png",
        "out/more/b.jpg", "night_lowlight.png", "night.safetensors", "fit.jsonl", "next_lowlight.png",
        "clip_lowlight.mp4", "clip.html", "bright/one.mp4",
    ):  # fmt: skip
        assert (here / made).stat().st_size > 0, made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("lowlight enhance nowhere.jpg", 2, "nowhere.jpg"),
        ("lowlight enhance photo.jpg --strength 3", 2, "strength"),
        ("lowlight enhance photo.jpg --model nonesuch", 2, "nonesuch"),
        ("lowlight enhance photo.jpg --weights nowhere.safetensors", 3, "nowhere.safetensors"),
        ("lowlight enhance photo.jpg --device cuda:9", 4, "cuda:9"),
        ("echo no picture > bad.jpg; lowlight enhance bad.jpg photo.jpg", 1, "bad.jpg"),
        ("lowlight video photo.jpg", 1, "`lowlight enhance` does pictures"),
    ],
)
def test_what_goes_wrong_on_purpose_is_told_in_a_sentence(stranger, line, code, said):
    ran = shell(stranger, line)
    assert ran.returncode == code, ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_fit_that_is_skipped_says_that_no_weights_were_kept(tmp_path):
    dark_photo(tmp_path / "night.png")
    dark_photo(tmp_path / "night_lowlight.png")
    kept = tmp_path / "night.safetensors"
    ran = CliRunner().invoke(app, ["zero-shot", str(tmp_path / "night.png"), "--save-weights", str(kept)])
    assert ran.exit_code == 0
    assert "nothing was fitted" in ran.stderr
    assert not kept.exists()
