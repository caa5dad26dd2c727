"""The entry point: streams, signals, then the command line."""

import signal
import sys
from io import TextIOWrapper

from lowlight_cli.interrupts import raise_on_signals, stopped_by
from lowlight_cli.startup import load_torch_lean, spin_briefly


def main() -> None:
    """Run `lowlight`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # closed, it is None
            stream.reconfigure(errors="backslashreplace")
    raise_on_signals()
    spin_briefly()
    load_torch_lean()
    try:
        from lowlight_cli.cli import app, let_go_of_output

        try:
            app()
        except OSError as error:  # help and version are told before any command's own boundary
            let_go_of_output(error)
            sys.exit(1)
    except KeyboardInterrupt as stop:  # while the command line was being loaded, or when its work was over
        sys.exit(getattr(stop, "exit_code", 130))
    except SystemExit as end:
        # Outside of any command's boundary Typer takes every stop for Ctrl-C.
        if end.code == 128 + signal.SIGINT and (number := stopped_by()):
            sys.exit(128 + number)
        raise


if __name__ == "__main__":
    main()
