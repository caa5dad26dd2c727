"""Work that goes on beside the caller's: a thread that produces ahead, and one that consumes behind.

The threads hold only a few items, so that memory stays flat whatever is slower; they hand failures to the caller, and
are over when their `with` block ends. Handing an item over costs two switches of threads and a wait for Python's lock:
work that takes less than that is done inline.
"""

import threading
from collections.abc import Callable, Iterator
from queue import Empty, Full, Queue
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")

_GLANCE_SECONDS = 0.1  # how often a waiting thread looks whether it should stop


class _Stopped(Exception):  # noqa: N818 - no failure
    """The other side has left."""


class _Channel(Generic[Item]):
    """A bounded queue that either side can leave."""

    def __init__(self, room: int) -> None:
        self._queue: Queue[Item] = Queue(room)
        self.left = threading.Event()

    def put(self, item: Item) -> None:
        while not self.left.is_set():
            try:
                return self._queue.put(item, timeout=_GLANCE_SECONDS)
            except Full:
                continue
        raise _Stopped

    def take(self) -> Item:
        while not self.left.is_set():
            try:
                return self._queue.get(timeout=_GLANCE_SECONDS)
            except Empty:
                continue
        raise _Stopped


class _Beside:
    """A thread that is over when the `with` block ends, and also when an interrupt comes before the block has begun.

    What the thread reads and writes may be closed as soon as it is over, and not before.
    """

    def __init__(self, name: str, work: Callable[[], None], left: threading.Event) -> None:
        self._work, self._left = work, left
        self._deciding, self._is_at_work, self._over = threading.Lock(), False, threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        try:
            self._thread.start()  # waits, so interrupts like to come here
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        with self._deciding:
            self._left.set()
            is_at_work = self._is_at_work
        if is_at_work:
            self._over.wait()

    def _run(self) -> None:
        with self._deciding:
            if self._left.is_set():
                return
            self._is_at_work = True
        try:
            self._work()
        finally:
            self._over.set()


class Prefetcher(_Beside, Generic[Item]):
    """Iterate over `items`, which a thread produces up to `room` items ahead; its exception is raised here."""

    def __init__(self, items: Iterator[Item], *, room: int) -> None:
        self._items = items
        self._channel: _Channel[tuple[Item] | BaseException | None] = _Channel(room)
        super().__init__("read", self._produce, self._channel.left)

    def __iter__(self) -> Iterator[Item]:
        while (given := self._channel.take()) is not None:
            if isinstance(given, BaseException):
                raise given
            yield given[0]

    def _produce(self) -> None:
        try:
            for item in self._items:
                self._channel.put((item,))
            self._channel.put(None)
        except _Stopped:
            return
        except BaseException as error:
            try:
                self._channel.put(error)
            except _Stopped:
                return


class BackgroundCalls(_Beside):
    """Run calls in order in a thread, at most `room` waiting; a failure is raised by the next `do` or by `finish`."""

    def __init__(self, *, room: int) -> None:
        self._channel: _Channel[Callable[[], None] | None] = _Channel(room)
        self._failure: BaseException | None = None
        super().__init__("write", self._consume, self._channel.left)

    def do(self, call: Callable[[], None]) -> None:
        """Have a call run after those before it."""
        self._hand_over(call)

    def finish(self) -> None:
        """Wait until everything is done."""
        self._hand_over(None)
        self._over.wait()
        if self._failure is not None:
            raise self._failure

    def _hand_over(self, call: Callable[[], None] | None) -> None:
        try:
            self._channel.put(call)
        except _Stopped:
            if self._failure is not None:
                raise self._failure from None
            raise

    def _consume(self) -> None:
        try:
            while (call := self._channel.take()) is not None:
                call()
        except _Stopped:
            return
        except BaseException as error:
            self._failure = error
            self._channel.left.set()


class InlineCalls:
    """Run calls where `BackgroundCalls` would have a thread run them, in the caller's own."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def do(self, call: Callable[[], None]) -> None:
        """Run a call."""
        call()

    def finish(self) -> None:
        """Do nothing: everything is done."""
