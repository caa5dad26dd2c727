"""What the command line says of itself: help with examples, a reference that is true, completion, versions."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lowlight_cli import __version__
from lowlight_cli.cli import app

ROOT = Path(__file__).resolve().parents[1]
AS_INSTALLED = "import sys; sys.argv[0] = 'lowlight'; from lowlight_cli.__main__ import main; main()"
WIDE = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}


def commands() -> list[str]:
    """Return every command, as words after `lowlight`."""
    found = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        found += [f"{name} {sub}" for sub in getattr(command, "commands", {})] or [name]
    return found


def test_the_reference_says_what_the_commands_say():
    made = runpy.run_path(str(ROOT / "docs/make_cli.py"))["reference"]()
    written = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert written == made, "run: python docs/make_cli.py"
    for command in commands():
        assert f"## lowlight {command}\n" in written


@pytest.mark.parametrize("command", commands())
def test_help_has_examples_that_the_command_understands(command):
    ran = CliRunner().invoke(app, [*command.split(), "--help"], env=WIDE)
    assert ran.exit_code == 0
    examples = [line.strip(" │") for line in ran.output.splitlines() if f"lowlight {command} " in line]
    examples = [line for line in examples if "Usage:" not in line]
    assert examples, "every command shows how it is used"
    for example in examples:
        for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", example.split("  ")[0]):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", ran.output.replace(example, "")), option


@pytest.mark.parametrize("command", ["", "weights", *commands()])
def test_help_shows_words_and_not_types_and_explains_every_option(command):
    ran = CliRunner().invoke(app, [*command.split(), "--help"], env=WIDE)
    for kind in ("<bool>", "<str>", "<int", "<float", "<path>", "<list"):
        assert kind not in ran.output
    node = typer.main.get_command(app)
    for word in command.split():
        node = node.commands[word]  # type: ignore[attr-defined]
    assert all(option.help for option in node.params)


@pytest.mark.parametrize("command", ["enhance", "zero-shot", "video"])
def test_help_offers_standard_streams_where_they_are_taken(command):
    told = CliRunner().invoke(app, [command, "--help"], env=WIDE).output
    assert ("standard input" in told, "standard output." in told) == ((command == "enhance"),) * 2
    ran = CliRunner().invoke(app, [command, "-", "--dry-run"])
    assert ran.exit_code == (0 if command == "enhance" else 2)


@pytest.mark.parametrize("value", ["nan", "inf", "9", "much"])
def test_a_number_that_cannot_be_is_told_its_bounds(value):
    for option, told in (("--strength", "at least 0, at most 1"), ("--exposure", "at least -8, at most 8")):
        ran = CliRunner().invoke(app, ["enhance", "a.png", option, value], env=WIDE)
        assert ran.exit_code == 2
        assert f"'{option}': it is a number of {told}" in ran.stderr
    ran = CliRunner().invoke(app, ["enhance", "a.png", "--jobs", "1.5"], env=WIDE)
    assert "'--jobs': it is a whole number of at least 1, at most 64" in ran.stderr


@pytest.mark.parametrize(
    ("command", "option", "choices"),
    [
        ("enhance", "--precision", "auto, fp32, bf16, fp16"),
        ("enhance", "--compile", "auto, off, graph, full"),
        ("enhance", "--engine", "local, ray"),
        ("video", "--metadata", "keep, strip, no-gps"),
        ("zero-shot", "--preset", "fast, paper"),
        ("zero-shot", "--save", "denoised, enhanced, both"),
        ("zero-shot", "--on-interrupt", "discard, save"),
        ("bench", "--split", "train, val, test"),
        ("export", "--format", "onnx, torchscript"),
    ],
)
def test_a_word_that_cannot_be_is_told_its_choices_and_help_shows_them(command, option, choices):
    ran = CliRunner().invoke(app, [command, option, "none"], env=WIDE)
    assert ran.exit_code == 2
    assert ran.stderr == f"lowlight: {option} is one of {choices}, not 'none'\n"
    told = CliRunner().invoke(app, [command, "--help"], env=WIDE).output
    assert re.search(rf"{option} +{re.escape(choices.replace(', ', '|'))} ", told)


def lowlight(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-c", AS_INSTALLED, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **more}, timeout=120, check=False)


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_told_at_once_without_loading_what_it_names(option):
    ran = lowlight(option)
    assert ran.returncode == 0
    assert ran.stdout.startswith(f"lowlight {__version__} (torch ")
    loaded = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert "typer" in loaded, "the list of imports is there"
    assert not loaded & {"torch", "numpy", "PIL", "av"}


def test_with_verbose_the_version_tells_what_a_report_of_a_fault_should_say():
    ran = CliRunner().invoke(app, ["-Vv"])
    assert ran.exit_code == 0
    facts = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in ran.output.splitlines())
    assert facts["lowlight"] == __version__
    assert facts["devices"].startswith("cpu (")
    assert {"python", "torch", "libavcodec", "chosen", "extras", "cache"} <= facts.keys()
    assert facts["cache"] == os.environ["LOWLIGHT_CACHE_DIR"]


@pytest.mark.parametrize("arguments", [["-v"], ["-v", "weights", "list"]])
def test_verbose_where_it_means_nothing_is_refused(arguments):
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 2
    assert "stands after the command" in ran.stderr


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("lowlight zero", "zero-shot"),
        ("lowlight enhance --compare-s", "--compare-style"),
        ("lowlight enhance --model darkir-lol", "darkir-lolblur"),
        ("lowlight weights download zeroig-lsrw-n", "zeroig-lsrw-nikon"),
    ],
)
def test_bash_completes_commands_options_and_names(typed, offered):
    words = shlex.split(typed)
    ran = lowlight(
        _LOWLIGHT_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(words) - 1), _TYPER_COMPLETE_ARGS=typed
    )
    assert offered in ran.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_a_shell(tmp_path, shell):
    environment = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    ran = subprocess.run(
        [sys.executable, "-c", AS_INSTALLED, "--install-completion", shell],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_LOWLIGHT_COMPLETE" in path.read_text() for path in written), written
