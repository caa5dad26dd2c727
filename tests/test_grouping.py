"""Options in groups: Typer sees each, the command sees the group."""

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from lowlight_cli.cli.grouping import grouped

Size = Annotated[int, typer.Option("--size", "-s", min=1, help="How large.", rich_help_panel="Look")]
Word = Annotated[str | None, typer.Option(help="What it says.", rich_help_panel="Look")]
Loud = Annotated[bool, typer.Option("--loud", help="Shout.")]
Name = Annotated[str, typer.Argument()]


@dataclass(frozen=True)
class Look:
    size: Size = 3
    word: Word = None

    def shown(self) -> str:
        return f"{self.word} at {self.size}"


@dataclass(frozen=True)
class Required:
    size: Annotated[int, typer.Option()]


def told(command, *words):
    app = typer.Typer()
    app.command()(grouped(command))
    return CliRunner().invoke(app, words)


def one_by_one(name: Name, size: Size = 3, word: Word = None, loud: Loud = False) -> None:
    """Say it."""
    typer.echo(f"{name}: {word} at {size}{'!' if loud else ''}")


def in_a_group(*, name: Name, look: Look, loud: Loud = False) -> None:
    """Say it."""
    typer.echo(f"{name}: {look.shown()}{'!' if loud else ''}")


@pytest.mark.parametrize(
    "words", [["a"], ["a", "-s", "5"], ["a", "--word", "x", "--loud"], ["--help"], ["a", "-s", "0"]]
)
def test_a_group_and_its_options_one_by_one_are_one_command(words):
    own, same = told(in_a_group, *words), told(one_by_one, *words)
    assert (own.exit_code, own.output) == (same.exit_code, same.output.replace("one-by-one", "in-a-group"))


def test_the_fields_stand_where_the_group_stood():
    options = inspect.signature(grouped(in_a_group)).parameters
    assert list(options) == ["name", "size", "word", "loud"]
    assert (options["size"].annotation, options["size"].default) == (Size, 3)


def test_a_field_without_a_default_is_an_option_that_must_be_given():
    def command(*, required: Required) -> None:
        typer.echo(required.size)

    assert told(command).exit_code == 2
    assert told(command, "--size", "4").output == "4\n"


def test_two_options_of_one_name_are_refused():
    def command(*, look: Look, size: Size = 1) -> None: ...

    with pytest.raises(ValueError, match="size"):
        grouped(command)
