"""Commands whose help speaks to people: options show what to write after them, not Python's types."""

from typing import Any

from typer.core import TyperCommand, TyperGroup, TyperOption

# What Typer 0.29 shows, and what we show instead; earlier ones have words of their own, which will do.
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
        shown = getattr(parameter, "display_type_rich", None)
        if shown and isinstance(parameter, TyperOption) and parameter.metavar is None:
            parameter.metavar = _VALUES.get(str(shown(ctx)))
    return parameters


class Command(TyperCommand):
    """A command."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, with words for what they take."""
        return _worded(super().get_params(ctx), ctx)


class Group(TyperGroup):
    """A group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, with words for what they take."""
        return _worded(super().get_params(ctx), ctx)
