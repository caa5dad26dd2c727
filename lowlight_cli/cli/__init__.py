"""The command line: one module per command, and the one boundary that turns failures into sentences."""

import errno
import importlib.metadata
import os
import platform
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lowlight_cli import __version__
from lowlight_cli.cli import bench, enhance, train, video, weights, zero_shot
from lowlight_cli.errors import LowlightError


class _Boundary(TyperGroup):
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
            if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO) or error.filename is not None:
                raise
            # Standard output, for files have their own errors. A reader that went away had the right to.
            if error.errno != errno.EPIPE:
                say(f"lowlight: cannot write to standard output: {error.strerror}")
            # Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(1) from error


def say(text: str) -> None:
    """Print one line on stderr, whatever its encoding can hold."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=True)


app = typer.Typer(
    cls=_Boundary,
    name="lowlight",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make dark photos and clips bright and clean.",
    epilog="Start with: [bold]lowlight enhance photo.jpg[/bold]",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        torch = importlib.metadata.version("torch")
        typer.echo(f"lowlight {__version__} (torch {torch}, Python {platform.python_version()}, {platform.platform()})")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print versions.")
    ] = False,
) -> None:
    del version


app.command("enhance")(enhance.enhance)
app.command("zero-shot")(zero_shot.zero_shot)
app.command("video")(video.video)
app.command("bench")(bench.bench)
app.command("train")(train.train)
app.add_typer(weights.app)
