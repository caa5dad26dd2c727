"""The command line: one module per command, and the one boundary that turns failures into sentences.

The commands are `enhance`, `zero_shot`, `video`, `bench` (which shows `bench_speed` or `bench_quality`), `train`,
`weights` and `export`. They share `options`, most of them in `groups`, each of which `grouping` lets a command take as
one parameter. Those over files share `files`, and those that start from weights `initial`. `commands` words their help,
and `versions` answers `--version`.
"""

import errno
import os
import sys
from typing import Annotated, Any

import typer

from lowlight_cli.cli import bench, enhance, export, train, video, weights, zero_shot
from lowlight_cli.cli.commands import Command, Group
from lowlight_cli.cli.versions import version_line, version_page
from lowlight_cli.errors import LowlightError, SettingsError
from lowlight_cli.results import printable


class _Boundary(Group):
    """Expected failures become one sentence and their exit code; a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:  # Typer vendors the type of its contexts
        try:
            return super().invoke(ctx)
        except LowlightError as error:
            say(f"lowlight: {error}")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            say("lowlight: interrupted; what was finished is complete, and nothing is half-written")
            raise typer.Exit(getattr(error, "exit_code", 130)) from error
        except OSError as error:
            let_go_of_output(error)
            raise typer.Exit(1) from error


def let_go_of_output(error: OSError) -> None:
    """Explain that standard output cannot be written, if that is what `error` says, else raise it."""
    if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO) or error.filename is not None:
        raise error
    # Files have their own errors. A reader that went away had the right to.
    if error.errno != errno.EPIPE:
        say(f"lowlight: cannot write to standard output: {error.strerror}")
    # Python would complain once more when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def say(text: str) -> None:
    """Print a sentence on stderr, whatever its encoding can hold."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    typer.echo(printable(text, encoding), err=True)


app = typer.Typer(
    cls=_Boundary,
    name="lowlight",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    help="Make dark photos and clips bright and clean.",
    epilog="Start with: [bold]lowlight enhance photo.jpg[/bold]",
)


@app.callback()
def _root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("-V", "--version", help="Print the version, and leave.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="With --version: libraries, devices, memory, extras, folders.")
    ] = False,
) -> None:
    if version:
        typer.echo(version_page() if verbose else version_line())
        raise typer.Exit
    if verbose or ctx.invoked_subcommand is None:
        raise SettingsError("-v stands after the command, or beside --version")


app.command("enhance", cls=Command)(enhance.enhance)
app.command("zero-shot", cls=Command)(zero_shot.zero_shot)
app.command("video", cls=Command)(video.video)
app.command("bench", cls=Command)(bench.bench)
app.command("train", cls=Command)(train.train)
app.command("export", cls=Command)(export.export)
app.add_typer(weights.app)
