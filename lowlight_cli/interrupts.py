"""Requests to stop: raised in the main thread as `Interrupted`, but not while what was begun would be left by halves.

Python runs a signal's handler between any two instructions. Where a lock is half taken an exception does harm, and
where memory is freed, or a library calls back, it is lost. There the request is made once more, a moment later.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

from lowlight_cli.errors import Interrupted

_SIGNALS = (int(signal.SIGINT), int(signal.SIGTERM))
_AGAIN_SECONDS = 0.02

_stopped_by: list[int] = []


def raise_on_signals() -> None:
    """Have SIGINT and SIGTERM raise `Interrupted`; a second one ends the process at once."""
    for number in _SIGNALS:
        signal.signal(number, _stop)
    sys.unraisablehook = _unraisable


def stopped_by() -> int | None:
    """Return the signal that has asked this process to stop, None if none has."""
    return _stopped_by[0] if _stopped_by else None


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Have a request to stop wait for the end of the block; a second one does not wait.

    Only the main thread is interrupted, so elsewhere nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in handlers.items() if handler is not None}  # None: not of Python
    asked: list[int] = []
    is_over = False

    def hold(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1 or is_over:
            let_go(number, frame)

    def let_go(number: int, frame: FrameType | None) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        handler = before[number]
        if callable(handler):
            handler(number, frame)
        elif handler == signal.SIG_DFL:
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, hold)
    try:
        yield
    finally:
        is_over = True
        is_main = threading.current_thread() is threading.main_thread()  # any may collect a generator that was left
        if is_main and len(asked) < 2:  # else whoever answered has set its own
            for number, handler in before.items():
                signal.signal(number, handler)
    if asked and is_main:
        let_go(asked[0], None)
    elif asked:
        _ask_again(asked[0])


def _stop(number: int, frame: FrameType | None) -> None:
    if frame and _is_half_locked(frame):
        _ask_again(number)
        return
    _stopped_by.append(number)
    code = 128 + number
    for other in _SIGNALS:
        signal.signal(other, lambda *_: os._exit(code))
    raise Interrupted(code)


def _is_half_locked(frame: FrameType) -> bool:
    """Tell whether a frame is taking or letting go of a condition's lock.

    To raise there leaves the lock held for good, or lets go of it twice, and that error takes the interrupt's place.
    """
    code = frame.f_code
    if code.co_filename != threading.__file__:
        return False
    return code.co_name in ("__enter__", "__exit__", "_release_save", "_acquire_restore") or (
        code.co_name == "wait" and "saved_state" not in frame.f_locals  # which it has when it begins to wait
    )


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    if not issubclass(lost.exc_type, Interrupted):
        sys.__unraisablehook__(lost)
        return
    raise_on_signals()
    _ask_again(_stopped_by.pop())


def _ask_again(number: int) -> None:
    ask = signal.raise_signal if sys.platform == "win32" else partial(os.kill, os.getpid())
    again = threading.Timer(_AGAIN_SECONDS, ask, [number])
    again.daemon = True
    again.start()
