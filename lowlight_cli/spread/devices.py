"""Several devices of this machine, each with its own worker and thread, fed from one queue."""

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue

from lowlight_cli.errors import Interrupted
from lowlight_cli.paths import Job
from lowlight_cli.results import FileResult, last_told
from lowlight_cli.spread.order import InOrder
from lowlight_cli.spread.work import Told, Worker


@dataclass(frozen=True)
class _Ended:
    """A thread's last word: the exception that ended it, if one did."""

    error: BaseException | None


class _Feed:
    """Hands out the jobs one by one, with their places in the plan, to whoever asks; nothing once it is closed."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = enumerate(jobs)
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def close(self) -> None:
        self._closed.set()

    def check(self, done: int = 0, total: int = 0) -> None:  # noqa: ARG002 (it is told of tiles)
        """Leave the work at hand when the feed is closed."""
        if self._closed.is_set():
            raise Interrupted

    def take(self, taken: deque[int]) -> Iterator[Job]:
        """Yield jobs as long as there are any; `taken` gets their places."""
        while not self._closed.is_set():
            with self._lock:
                place, job = next(self._jobs, (-1, None))
            if job is None:
                return
            taken.append(place)
            yield job


def do_on_devices(jobs: Sequence[Job], workers: Sequence[Worker], *, fail_fast: bool) -> Generator[Told]:
    """Do the jobs and yield a result for each in their order; steps and frames come as they happen.

    Closing the iterator, or an interrupt, ends each worker after the tile, step or frame at hand, and waits for it, so
    that nothing is left half-written. What they had finished by then is told, except to who has closed the iterator.
    """
    feed = _Feed(jobs)
    told: SimpleQueue[tuple[int, Told] | _Ended] = SimpleQueue()
    threads = [
        threading.Thread(target=_run_worker, args=(worker, feed, told), name=f"device {number}", daemon=True)
        for number, worker in enumerate(workers)
    ]
    order = InOrder(len(jobs), fail_fast=fail_fast)

    def leave() -> None:
        feed.close()
        for thread in threads:
            if thread.ident is not None:
                thread.join()

    def rest() -> Iterator[FileResult]:
        leave()
        while not told.empty():
            event = told.get()
            if not isinstance(event, _Ended) and isinstance(event[1], FileResult):
                yield from order.take(event[0], event[1])
        yield from order.rest()

    try:
        for thread in threads:
            thread.start()
        working = len(threads)
        while working and not order.is_complete:
            event = told.get()
            if isinstance(event, _Ended):
                if event.error is not None:
                    raise event.error
                working -= 1
                continue
            place, one = event
            if isinstance(one, FileResult):
                yield from order.take(place, one)
            else:
                yield one
        yield from rest()
    except (Exception, KeyboardInterrupt):
        yield from rest()
        raise
    finally:
        leave()


def _run_worker(worker: Worker, feed: _Feed, told: "SimpleQueue[tuple[int, Told] | _Ended]") -> None:
    taken: deque[int] = deque()

    def tell(event: Told) -> None:
        told.put((taken.popleft() if isinstance(event, FileResult) else -1, event))

    try:
        with closing(worker.do(feed.take(taken), on_tile=feed.check)) as events:
            try:
                for event in events:
                    tell(event)
                    feed.check()
            except Interrupted as stop:
                for event in last_told(events, stop):
                    tell(event)
    except BaseException as error:  # it is raised where the results are awaited
        told.put(_Ended(error))
    else:
        told.put(_Ended(None))
