"""Write docs/cli.md, the reference of the command line, from the command line itself.

    python docs/make_cli.py

`tests/test_reference.py` fails as long as the file says something else.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from lowlight_cli.cli import app

TARGET = Path(__file__).with_name("cli.md")

_HEAD = """\
# The command line

Made from the commands themselves by `python docs/make_cli.py`; `lowlight COMMAND --help` says the same.
"""
_BOLD = re.compile(r"\[bold\](.*?)\[/bold\]\s*(.*)")


def reference() -> str:
    """Return the whole reference as Markdown."""
    root = typer.main.get_command(app)
    return "\n".join((_HEAD, *_command("lowlight", root, typer.Context(root))))


def _command(name: str, command: Any, context: typer.Context) -> Iterator[str]:
    yield f"## {name}\n"
    yield from _prose(command.help or "")
    parameters = [each for each in command.get_params(context) if not getattr(each, "hidden", False)]
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    words = [f"{each.metavar}..." if each.nargs != 1 else str(each.metavar) for each in arguments]
    group = hasattr(command, "commands")
    yield f"Usage: `{' '.join([name, '[OPTIONS]', *(['COMMAND ...'] if group else words)])}`\n"
    for argument, word in zip(arguments, words, strict=True):
        yield f"- `{word}`: {_plain(argument.help)}\n"
    options = [each for each in parameters if each.param_type_name == "option" and each.name != "help"]
    for panel in dict.fromkeys(each.rich_help_panel for each in options):
        if panel:
            yield f"**{panel}**\n"
        yield "| option | what it does | default |\n|---|---|---|"
        yield from (_option(each) for each in options if each.rich_help_panel == panel)
        yield ""
    for sub, each in getattr(command, "commands", {}).items():
        yield from _command(f"{name} {sub}", each, typer.Context(each, parent=context))


def _prose(text: str) -> Iterator[str]:
    """Yield paragraphs; lines that are commands become one block of shell."""
    for paragraph in text.split("\n\n"):
        lines = paragraph.strip().splitlines()
        shown = [_BOLD.match(line) for line in lines]
        if lines and all(shown):
            width = max(len(found[1]) for found in shown if found)
            commands = [f"{found[1]:<{width}}  # {found[2]}" if found[2] else found[1] for found in shown if found]
            yield "\n".join(("```sh", *commands, "```\n")).replace("\\[", "[")
        elif lines:
            yield f"{_plain(' '.join(lines))}\n"


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    least, most = ("" if bound is None else f"{bound:g}" for bound in (option.min, option.max))
    span = f" ({least} to {most})" if least and most else f" (at least {least})" if least else ""
    value = f" `{option.metavar}`{span}" if option.metavar else ""
    said = f" Set by `{option.envvar}`." if option.envvar else ""
    return f"| {names}{value.replace('|', chr(92) + '|')} | {_plain(option.help)}{said} | {_default(option)} |"


def _default(option: Any) -> str:
    if isinstance(option.show_default, str):
        return _plain(option.show_default)
    shown = option.default not in (None, False, "") and option.show_default
    return f"`{'on' if option.default is True else option.default}`" if shown else ""


def _plain(text: str | None) -> str:
    """Return words of the help without Rich's marks, safe within a table."""
    return re.sub(r"\[/?bold\]", "", text or "").replace("\\[", "[").replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
