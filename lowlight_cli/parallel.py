"""Work shared out over the processor's cores by Python threads, each of which computes on one core.

torch's own threads share out every operation and wait for each other after it. Where operations are short, or the cores
have no cache in common, waiting and moving data from core to core can take as long as the work. A thread that has its
own part of a picture from beginning to end meets the others once.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def split(whole: Sequence[Part], count: int) -> list[Sequence[Part]]:
    """Cut a sequence into `count` consecutive parts of nearly equal length, fewer where there are not as many items."""
    count = max(min(count, len(whole)), 1)
    edges = [len(whole) * number // count for number in range(count + 1)]
    return [whole[start:stop] for start, stop in pairwise(edges)]


def for_each_part(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Return the results of `work`, in order; each part has a thread with a core of its own, and no gradients.

    More parts than `core_count()` gain nothing. An error waits for the other parts.
    """
    with a_core_each() as cores:
        if cores.count == 1 or len(parts) == 1:
            with torch.no_grad():
                return [work(part) for part in parts]
        futures = [cores.begin(work, part) for part in parts]
        cores.finish()  # here, where an interrupt is followed by waiting
    return [future.result() for future in futures]


def share_out(work: Callable[[Sequence[Part]], Result], whole: Sequence[Part]) -> list[Result]:
    """Return the results of `work` for consecutive parts of a sequence, one for each core, as `for_each_part` does."""
    return for_each_part(work, split(whole, core_count()))


def core_count() -> int:
    """Return how many cores work is shared out over: as many as torch would use for one operation."""
    held = _held_here()
    return torch.get_num_threads() if held is None else held.count


class Cores:
    """Threads with a core each, as many as torch would use for one operation."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._begun: set[Future[Any]] = set()

    def begin(self, work: Callable[[Part], Result], part: Part) -> Future[Result]:
        """Have `work` done for a part as soon as a core is free, without gradients."""
        future = _pool(self.count).submit(work, part)
        self._begun.add(future)
        future.add_done_callback(self._begun.discard)
        return future

    def finish(self) -> None:
        """Wait until everything begun is done."""
        wait(self._begun.copy())

    def give_up(self) -> None:
        """Let what no core has taken up yet be."""
        for future in self._begun.copy():
            future.cancel()


_this_thread = threading.local()


def _held_here() -> Cores | None:
    held: Cores | None = getattr(_this_thread, "cores", None)
    return held


@contextmanager
def a_core_each() -> Iterator[Cores]:
    """Give each thread of `Cores` its core, until everything begun is done; until then this thread has one as well.

    A block within another uses the other's. That is worth it around work that is shared out several times: the helpers
    of torch's last operation before it spin for one or two milliseconds, on a core that another thread should have.
    """
    held = _held_here()
    if held is not None:
        yield held
        return
    cores = Cores(torch.get_num_threads())
    try:
        _this_thread.cores = cores
        torch.set_num_threads(1)  # of the matrix library, too, which has one setting for all threads
        yield cores
    except BaseException:
        cores.give_up()
        raise
    finally:
        cores.finish()  # also when interrupted: there may be buffers of the caller's to write to
        torch.set_num_threads(cores.count)
        _this_thread.cores = None


@cache
def _pool(cores: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores, thread_name_prefix="core", initializer=_begin)


def _forget_threads() -> None:
    _pool.cache_clear()
    _this_thread.cores = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)  # a child has none of the threads


def _begin() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)  # a setting of each thread
