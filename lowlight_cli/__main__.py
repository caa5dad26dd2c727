"""The entry point: signals, streams, then the command line."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import TextIO

from lowlight_cli.errors import Interrupted


def main() -> None:
    """Run `lowlight`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIO) or hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    _listen()
    sys.unraisablehook = _unraisable
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
        if end.code == 128 + signal.SIGINT and _stopped_by:
            sys.exit(128 + _stopped_by[0])
        raise


_stopped_by: list[int] = []  # the signal


def _listen() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Ask once more, a moment later, where nothing could be raised: while memory was freed, in a library's callback."""
    if not issubclass(lost.exc_type, Interrupted):
        sys.__unraisablehook__(lost)
        return
    _listen()
    again = threading.Timer(0.05, os.kill, [os.getpid(), _stopped_by.pop()])
    again.daemon = True
    again.start()


def _stop(number: int, frame: FrameType | None) -> None:
    """Ask the work to stop; a second signal ends the process at once."""
    del frame
    _stopped_by.append(number)
    code = 128 + number
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, lambda *_: os._exit(code))
    raise Interrupted(code)


if __name__ == "__main__":
    main()
