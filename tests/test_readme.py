"""What the README says exists: every command, every option, every file it shows."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lowlight_cli.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.S)
COMMANDS = sorted(
    {
        part.strip()
        for block in BLOCKS
        for line in block.splitlines()
        for part in re.split(r"&&|\|", line.split("  #")[0])
    }
)
LOWLIGHT = [command for command in COMMANDS if command.startswith("lowlight ")]


def help_of(words: list[str]) -> str:
    """Return the help of the deepest command that the words name."""
    depth = 2 if words[:1] == ["weights"] else 1
    ran = CliRunner().invoke(app, [*words[:depth], "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert ran.exit_code == 0, ran.output
    return ran.output


@pytest.mark.parametrize("command", LOWLIGHT)
def test_every_command_and_option_of_the_readme_exists(command):
    words = shlex.split(command.split(">")[0])[1:]
    told = help_of(words)
    for option in (word for word in words if re.fullmatch(r"--?[a-z0-9][a-z-]*", word)):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", told), f"{option} is not in the help"


def test_the_readme_shows_commands():
    assert len(LOWLIGHT) >= 8


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_every_file_the_readme_links_to_is_there(link):
    assert (ROOT / link).exists()


def test_options_named_in_the_text_exist():
    told = "".join(help_of([name]) for name in ("enhance", "bench", "video", "zero-shot", "train"))
    for option in set(re.findall(r"`(--[a-z][a-z-]+)", README)):
        assert option in told or option == "--help", option
