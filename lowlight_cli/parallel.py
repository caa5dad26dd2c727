"""Work shared out over the processor's cores by Python threads, each of which computes on one core.

torch's own threads share out every operation and wait for each other after it. Where operations are short, or the cores
have no cache in common, waiting and moving data from core to core can take as long as the work. A thread that has its
own part of a picture from beginning to end meets the others once.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from typing import TypeVar

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

    More parts than `torch.get_num_threads()` gain nothing. An error waits for the other parts.
    """
    cores = torch.get_num_threads()
    if cores == 1 or len(parts) == 1:
        with torch.no_grad():
            return [work(part) for part in parts]
    futures: list[Future[Result]] = []
    try:
        torch.set_num_threads(1)  # of the matrix library there is one setting for all threads
        futures.extend(_pool(cores).submit(work, part) for part in parts)
        wait(futures)
    finally:
        wait(futures)  # also when interrupted: they write to buffers of the caller's
        torch.set_num_threads(cores)
    return [future.result() for future in futures]


@cache
def _pool(cores: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores, thread_name_prefix="core", initializer=_begin)


def _begin() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)  # a setting of each thread
