"""Who does the work, chosen by the engine and the device."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Protocol

from lowlight_cli.device import ALL_GPUS, choose_devices
from lowlight_cli.enhancer import Progress
from lowlight_cli.errors import SettingsError
from lowlight_cli.paths import Job
from lowlight_cli.settings import Engine
from lowlight_cli.spread.devices import do_on_devices
from lowlight_cli.spread.work import Told, Work, Worker


class WorkerPool(Protocol):
    """Workers that are ready."""

    @property
    def made_with(self) -> str:
        """Which model runs where, for a person."""

    def run(self, jobs: Sequence[Job]) -> Generator[Told]:
        """Do the jobs, and yield a result for each in their order."""


@contextmanager
def open_pool(
    engine: Engine, device: str, prepare: Callable[[], Work], *, on_tile: Progress | None = None
) -> Iterator[WorkerPool]:
    """Yield workers that are ready, each with its model; on leaving they are gone.

    `prepare` finds the model, which may take a download; it is called when the device is known to be there.
    `on_tile` is told of tiles as long as there is one worker.

    Raises SettingsError, DeviceError for a device or cluster that is not there, WeightsError, and WorkerError.
    """
    if engine.kind == "ray":
        if device == ALL_GPUS:
            raise SettingsError("--engine ray gives each worker its own GPU: --device cuda:all is for --engine local")
        from lowlight_cli.spread.cluster import ray_pool

        with ray_pool(engine, prepare) as pool:
            yield pool
        return
    devices = choose_devices(device)
    work = prepare()
    yield LocalPool([work.start(str(each)) for each in devices], fail_fast=work.fail_fast, on_tile=on_tile)


class LocalPool:
    """Workers in this process, one a device."""

    def __init__(self, workers: Sequence[Worker], *, fail_fast: bool, on_tile: Progress | None = None) -> None:
        self._workers, self._fail_fast, self._on_tile = workers, fail_fast, on_tile

    @property
    def made_with(self) -> str:
        """Which model runs where."""
        return "; ".join(filter(None, (worker.made_with for worker in self._workers)))

    def run(self, jobs: Sequence[Job]) -> Generator[Told]:
        """Do the jobs: in this thread with one worker or one job, else each worker in its own."""
        if len(self._workers) > 1 and len(jobs) > 1:
            return do_on_devices(jobs, self._workers, fail_fast=self._fail_fast)
        return self._run_here(jobs)

    def _run_here(self, jobs: Sequence[Job]) -> Generator[Told]:
        with closing(self._workers[0].do(jobs, on_tile=self._on_tile)) as events:
            yield from events
