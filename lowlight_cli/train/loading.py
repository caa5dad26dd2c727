"""Batches made while others are trained on: by a thread, or by processes of their own."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import NamedTuple

import torch
import torch.multiprocessing  # tensors travel between processes through shared memory

from lowlight_cli.errors import WorkerError
from lowlight_cli.machine import usable_cpus
from lowlight_cli.train.processes import Processes
from lowlight_cli.train.recipe import Recipe
from lowlight_cli.train.samples import Batch, Sources

logger = logging.getLogger(__name__)

_MOST_WORKERS = 16
_AHEAD = 2  # batches that are made or wait, for each worker
_CAN_FORK = sys.platform == "linux"


class _Made(NamedTuple):
    """A batch, and what its maker has to tell of pictures that could not be read."""

    batch: Batch
    told: list[str]


_Make = Callable[[int], _Made]


def usual_workers(device: torch.device) -> int:
    """How many processes should make samples: beside a CUDA device one a core, but for one core; elsewhere none.

    Where processes cannot be forked they do not share the pictures, and each would hold them all.
    """
    if device.type != "cuda" or not _CAN_FORK:
        return 0
    trainings = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST_WORKERS, usable_cpus() // trainings - 1))


def coming_batches(
    recipe: Recipe, sources: Sources, first: int, *, processes: Processes, workers: int, device: torch.device
) -> Iterator[Batch]:
    """Yield this process's share of the batches from step `first` on, on `device`.

    They are made ahead of time, by a thread when `workers` is 0. The batches are the same, however many make them. A
    picture that turns out to be unreadable is warned of once.

    Raises:
        InputError: none of the pictures can be read.
        SettingsError: a batch cannot be shared out.
        WorkerError: a process that makes samples was killed.
    """
    for stage in recipe.schedule.stages:
        processes.share(stage.batch)
    maker = _Maker(recipe, sources, processes)
    warned = set[str]()
    try:
        for made in _made_ahead(maker, range(first, recipe.schedule.steps), workers=workers, device=device):
            for sentence in made.told:
                if sentence not in warned:
                    warned.add(sentence)
                    logger.warning("%s", sentence)
            yield made.batch.to(device)
    except BrokenProcessPool as error:
        raise WorkerError("a process that made training samples was killed; try fewer --workers") from error


def _made_ahead(maker: "_Maker", steps: range, *, workers: int, device: torch.device) -> Iterator[_Made]:
    with ExitStack() as stack:
        if workers == 0:
            pool: Executor = stack.enter_context(ThreadPoolExecutor(1, "samples"))
            make: _Make = maker
        else:
            context = multiprocessing.get_context("fork" if _CAN_FORK else None)
            pool = ProcessPoolExecutor(workers, context, _begin_work, (maker, os.getpid()))
            stack.callback(pool.shutdown, cancel_futures=True)
            make = _make
        # Pinned memory is copied to a GPU while it computes; putting a batch there takes a thread's time.
        pinning = stack.enter_context(ThreadPoolExecutor(1, "pinning"))
        coming: deque[Future[_Made]] = deque()
        for step in steps:
            if len(coming) >= _AHEAD * max(workers, 1):
                yield coming.popleft().result()
            made = pool.submit(make, step)
            coming.append(pinning.submit(_pinned, made) if device.type == "cuda" else made)
        while coming:
            yield coming.popleft().result()


class _Maker:
    """Makes this process's share of any step's batch."""

    def __init__(self, recipe: Recipe, sources: Sources, processes: Processes) -> None:
        self._recipe, self._sources, self._processes = recipe, sources, processes

    def __call__(self, step: int) -> _Made:
        stage = self._recipe.schedule.stage(step)
        places, told = self._processes.share(stage.batch), list[str]()
        batch = self._sources.batch(self._recipe, step, crop=stage.crop, places=places, tell=told.append)
        return _Made(batch, told)


def _pinned(made: Future[_Made]) -> _Made:
    batch, told = made.result()
    return _Made(Batch(*(part.pin_memory() for part in batch)), told)


# In a worker.

_maker: _Maker | None = None


def _begin_work(maker: _Maker, parent: int) -> None:
    global _maker
    _maker = maker
    torch.set_num_threads(1)
    # Ctrl-C reaches every process of a terminal; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), name="watching the parent", daemon=True).start()


def _end_with(parent: int) -> None:
    """Leave when the parent is gone: killed, it cannot say so, and the pipe's other end is held by fellow workers."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _make(step: int) -> _Made:
    assert _maker is not None
    return _maker(step)
