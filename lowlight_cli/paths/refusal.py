"""How the planner says no: one condition, one sentence, and paths shown so that any name can be printed."""

from pathlib import PurePath

from lowlight_cli.errors import SettingsError


def refuse_unless(condition: bool, message: str) -> None:
    """Raise SettingsError with `message` unless `condition` holds."""
    if not condition:
        raise SettingsError(message)


def quoted(path: str | PurePath) -> str:
    """Show a path in a message; control characters and bytes that are no text come out escaped."""
    return repr(str(path))
