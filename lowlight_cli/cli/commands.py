"""Commands whose help speaks to people: options show what to write after them, not Python's types."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from lowlight_cli.errors import SettingsError

# What Typer shows, and what we show instead.
_VALUES = {
    "<bool>": "",
    "<int>": "N",
    "<int range>": "N",
    "<float>": "X",
    "<float range>": "X",
    "<path>": "FILE",
    "<list[path]>": "FILE",
    "<str>": "TEXT",
    "<list[str]>": "TEXT",
}


def _worded(parameters: list[Any], ctx: Any) -> list[Any]:
    for parameter in parameters:
        if isinstance(parameter, TyperArgument):
            parameter.display_type_rich = lambda ctx: None  # type: ignore[method-assign]  # noqa: ARG005  its name will do
        elif isinstance(parameter, TyperOption) and parameter.metavar is None:
            value = str(parameter.display_type_rich(ctx))
            parameter.metavar = value.strip("<>") if "|" in value else _VALUES.get(value.lower())
    return parameters


@contextmanager
def _readers_may_leave() -> Iterator[None]:
    """Take a reader that has what it wanted of the help, such as `head`, for no failure; Rich ends with exit code 1."""
    try:
        yield
    except (BrokenPipeError, SystemExit) as end:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains when it flushes at exit
        raise typer.Exit from end


@contextmanager
def _refusals_told() -> Iterator[None]:
    """Have a number that is refused told its bounds: Typer names one of them, to NaN and to words as well.

    A word that is none of its choices is refused as all else that cannot be meant is: raises SettingsError.
    """
    try:
        yield
    except typer.BadParameter as error:
        least, most = (getattr(error.param, name, None) for name in ("min", "max"))
        if least is not None:
            number = "whole number" if getattr(error.param, "metavar", None) == _VALUES["<int>"] else "number"
            error.message = f"it is a {number} of at least {least:g}" + ("" if most is None else f", at most {most:g}")
        word, is_told, choices = error.message.removeprefix("Value error, ").partition(" is not one of ")
        if is_told and error.param is not None:
            choices = choices.replace("'", "").rstrip(".")
            raise SettingsError(f"{error.param.opts[0]} is one of {choices}, not {word}") from error
        raise


class Command(TyperCommand):
    """A command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; raises Typer's exceptions."""
        with _refusals_told():
            return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        with _readers_may_leave():
            super().format_help(ctx, formatter)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, with words for what they take."""
        return _worded(super().get_params(ctx), ctx)


class Group(TyperGroup):
    """A group of commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        with _readers_may_leave():
            super().format_help(ctx, formatter)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, with words for what they take."""
        return _worded(super().get_params(ctx), ctx)
