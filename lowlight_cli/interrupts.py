"""Interrupts that wait until what was begun is whole: a step of training, code being compiled."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (int(signal.SIGINT), int(signal.SIGTERM))


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

    def hold(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
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
        if len(asked) < 2:  # else whoever answered has set its own
            for number, handler in before.items():
                signal.signal(number, handler)
    if asked:
        let_go(asked[0], None)
