"""How the planner says no: one condition, one sentence, and paths shown so that any name can be printed."""

from pathlib import PurePath

from lowlight_cli.errors import SettingsError


def refuse_unless(condition: bool, message: str, *about: object) -> None:
    """Raise SettingsError with `message` unless `condition` holds; its `{}` are for `about`, where paths are `quoted`.

    The sentence is put together only where it is needed: a plan asks some ten conditions of every file.
    """
    if not condition:
        shown = [quoted(one) if isinstance(one, PurePath) else one for one in about]
        raise SettingsError(message.format(*shown) if about else message)


def quoted(path: str | PurePath) -> str:
    """Show a path in a message; control characters and bytes that are no text come out escaped."""
    return repr(str(path))
