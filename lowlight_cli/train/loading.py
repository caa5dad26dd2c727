"""Batches made while others are trained on: by a thread, or by processes of their own."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.utils.data import DataLoader, Dataset

from lowlight_cli.errors import WorkerError
from lowlight_cli.train.processes import Processes
from lowlight_cli.train.recipe import Recipe
from lowlight_cli.train.samples import Batch, Sources

_MOST_WORKERS = 16


class _Steps(Dataset[Batch]):
    """This process's share of every step's batch."""

    def __init__(self, recipe: Recipe, sources: Sources, processes: Processes) -> None:
        self._recipe, self._sources, self._processes = recipe, sources, processes

    def __getitem__(self, step: int) -> Batch:
        stage = self._recipe.schedule.stage(step)
        return self._sources.batch(self._recipe, step, crop=stage.crop, places=self._processes.share(stage.batch))


def usual_workers(device: torch.device, processes: Processes) -> int:
    """How many processes should make samples: beside a CUDA device one a core, but for one core; elsewhere none.

    Where processes do not share the pictures, as on a Mac, each would hold them all.
    """
    if device.type != "cuda":
        return 0
    return max(1, min(_MOST_WORKERS, (os.cpu_count() or 1) // processes.count - 1))


def coming_batches(
    recipe: Recipe, sources: Sources, first: int, *, processes: Processes, workers: int, device: torch.device
) -> Iterator[Batch]:
    """Yield this process's share of the batches from step `first` on, on `device`.

    They are made ahead of time, by a thread when `workers` is 0. The batches are the same, however many make them.

    Raises:
        WorkerError: a worker was killed.
    """
    steps = _Steps(recipe, sources, processes)
    numbers = range(first, recipe.schedule.steps)
    ahead = _by_thread(steps, numbers) if workers == 0 else _by_workers(steps, numbers, workers, device)
    for batch in ahead:
        yield batch.to(device)


def _by_thread(steps: _Steps, numbers: range) -> Iterator[Batch]:
    with ThreadPoolExecutor(1, "samples") as worker:
        coming = worker.submit(steps.__getitem__, numbers[0])
        for following in numbers[1:]:
            batch = coming.result()
            coming = worker.submit(steps.__getitem__, following)
            yield batch
        yield coming.result()


def _by_workers(steps: _Steps, numbers: range, workers: int, device: torch.device) -> Iterator[Batch]:
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # typed for lists of samples, which `batch_size` None excludes
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals_to_the_parent,
        generator=torch.Generator(),  # else the loader would draw from the global one
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WorkerError("a process that made training samples was killed; try fewer --workers") from error


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; the parent ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
