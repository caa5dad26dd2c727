"""The entry point: signals, streams, then the command line."""

import os
import signal
import sys
import threading
from functools import partial
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


def _stop(number: int, frame: FrameType | None) -> None:
    """Ask the work to stop; a second signal ends the process at once."""
    if frame and _is_half_locked(frame):
        _ask_again(number)
        return
    _stopped_by.append(number)
    code = 128 + number
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, lambda *_: os._exit(code))
    raise Interrupted(code)


def _is_half_locked(frame: FrameType) -> bool:
    """Tell whether a frame is taking or letting go of a condition's lock: to raise there does either by halves.

    The lock would be held for good, or its second release would raise, too, and that is no interrupt any more.
    """
    code = frame.f_code
    if code.co_filename != threading.__file__:
        return False
    return code.co_name in ("__enter__", "__exit__", "_release_save", "_acquire_restore") or (
        code.co_name == "wait" and "saved_state" not in frame.f_locals  # which it has when it begins to wait
    )


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Have a stop asked for again that could not be raised: while memory was freed, in a library's callback."""
    if not issubclass(lost.exc_type, Interrupted):
        sys.__unraisablehook__(lost)
        return
    _listen()
    _ask_again(_stopped_by.pop())


def _ask_again(number: int) -> None:
    """Send this process a signal a moment later."""
    ask = signal.raise_signal if sys.platform == "win32" else partial(os.kill, os.getpid())
    again = threading.Timer(0.02, ask, [number])
    again.daemon = True
    again.start()


if __name__ == "__main__":
    main()
