"""A pool of Ray actors. Ray is imported here, and only when this is called for.

The weights are found and read once, where the run was begun, and sent to the workers: no machine of the cluster needs
a cache, and all compute with the same bytes. What the machines need is this package and the folders of the jobs.
"""

import io
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO, cast

from lowlight_cli import __version__
from lowlight_cli.errors import DeviceError, Interrupted, SettingsError
from lowlight_cli.machine import usable_cpus
from lowlight_cli.paths import Job
from lowlight_cli.settings import Engine
from lowlight_cli.spread.dispatch import Answer, Dispatch, Member, MemberLost
from lowlight_cli.spread.member import RemoteMember
from lowlight_cli.spread.work import Told, Work

_OWN_STORE_BYTES = 1 << 30  # of a cluster made for one run; it holds the weights, and is taken as it fills
_ANSWER_SECONDS = 10.0
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_register_timeout_seconds": "600",  # loading torch on a busy machine takes longer than its minute
}


@contextmanager
def ray_pool(engine: Engine, prepare: Callable[[], Work]) -> "Iterator[_RayPool]":
    """Yield a pool of Ray actors of which one at least is ready.

    Raises SettingsError without the library, DeviceError for a cluster that does not answer or has no such GPUs, what
    `prepare` raises, and WeightsError, DeviceError or WorkerError when no actor can be made ready.
    """
    ray = _import_ray()
    work = prepare()
    with _connected(ray, engine):
        machines = sum(node["Alive"] for node in ray.nodes())
        gpus, cpus, count = _shares(engine, ray.cluster_resources(), machines, wants_gpu=work.compute.device != "cpu")
        actors = ray.remote(concurrency_groups={"leave": 1})(RemoteMember)
        actors = actors.options(num_gpus=gpus, num_cpus=cpus, scheduling_strategy="SPREAD", max_restarts=0)
        held = ray.put(work)
        folder = str(Path.cwd())

        def start() -> Member:
            return _Actor(ray, actors.remote(held, __version__, folder))

        dispatch = Dispatch(start, count, fail_fast=work.fail_fast)
        try:
            dispatch.wait_for_one()
            yield _RayPool(dispatch, count)
        finally:
            dispatch.close()


class _RayPool:
    def __init__(self, dispatch: Dispatch, count: int) -> None:
        self._dispatch, self._count = dispatch, count

    @property
    def made_with(self) -> str:
        """Which model runs where, and on how many workers."""
        made_with = self._dispatch.made_with
        return made_with and f"{made_with}, {self._count} Ray worker{'s' if self._count > 1 else ''}"

    def run(self, jobs: Sequence[Job]) -> Generator[Told]:
        """Do the jobs, and yield a result for each in their order."""
        if any(job.input is None or job.output is None for job in jobs):
            raise SettingsError("--engine ray reads and writes files that all machines see, not - streams")
        yield from self._dispatch.run(jobs)


class _Actor:
    """A member that is a Ray actor."""

    def __init__(self, ray: ModuleType, handle: Any) -> None:  # Ray has no types of its own for handles
        self._ray, self._handle = ray, handle

    def hello(self) -> "Future[Answer]":
        return self._answer(self._handle.hello.remote())

    def do(self, job: Job, *, again: bool) -> "Future[Answer]":
        return self._answer(self._handle.do.remote(job, again))

    def stop(self) -> None:
        self._handle.stop.options(concurrency_group="leave").remote()

    def kill(self) -> None:
        self._ray.kill(self._handle)

    def _answer(self, reference: Any) -> "Future[Answer]":
        """Return a future that knows no Ray: an actor that was lost is MemberLost."""
        answer: Future[Answer] = Future()
        bug, lost = self._ray.exceptions.RayTaskError, self._ray.exceptions.RayError

        def settle(done: "Future[Answer]") -> None:
            error = done.exception()
            if error is None:
                answer.set_result(done.result())
            elif isinstance(error, lost) and not isinstance(error, bug):
                answer.set_exception(MemberLost(_first_line(error)))
            else:
                answer.set_exception(error)

        reference.future().add_done_callback(settle)
        return answer


def _import_ray() -> ModuleType:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        return import_module("ray")
    except ImportError as error:
        raise SettingsError("--engine ray needs an extra: pip install 'lowlight-cli[ray]'") from error


@contextmanager
def _connected(ray: ModuleType, engine: Engine) -> Iterator[None]:
    """Join a cluster, or make one of this machine that ends with the run; raises DeviceError."""
    address = engine.address or os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, object] = {}
    if address == "local":
        cpus = max(usable_cpus(), engine.workers or 1)
        own = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _OWN_STORE_BYTES}
    _knock(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", configure_logging=True, **own)
    except SystemExit as error:  # which is what its handler of SIGTERM raises
        raise Interrupted(128 + signal.SIGTERM) from error
    except Exception as error:  # it raises this very class, among others
        what = "Ray cannot start here" if address == "local" else f"no Ray cluster answers at {address}"
        raise DeviceError(f"{what}: {_first_line(error)}") from error
    finally:
        for number, handler in handlers.items():  # Ray takes SIGTERM for itself
            signal.signal(number, handler)
    try:
        with own_standard_output():
            yield
    finally:
        with redirect_stdout(io.StringIO()):  # what it held back of lost workers, it says now and from this thread
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise DeviceError where nobody listens: Ray itself goes on trying for minutes."""
    match = re.fullmatch(r"\[?([^\[\]/]+)\]?:(\d+)", address)
    if match is None:
        return
    try:
        socket.create_connection((match[1], int(match[2])), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise DeviceError(f"no Ray cluster answers at {address}: {error}") from error


@contextmanager
def own_standard_output() -> Iterator[None]:
    """Keep standard output to the thread that asks for it.

    Ray tells of lost workers there, from a thread of its own and with `log_to_driver` off too; but that is where
    results go, for programs to read.
    """
    before = sys.stdout
    sys.stdout = cast(TextIO, _OneThreadsOutput(before))
    try:
        yield
    finally:
        sys.stdout = before


class _OneThreadsOutput:
    """A text stream that drops what threads other than its maker's write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._owner = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return self._stream.write(text) if threading.get_ident() == self._owner else len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _shares(engine: Engine, resources: dict[str, float], machines: int, *, wants_gpu: bool) -> tuple[float, int, int]:
    """Return GPUs and CPUs of a worker, and how many workers there are; raises DeviceError for too few GPUs."""
    there, cpus = resources.get("GPU", 0.0), resources.get("CPU", 1.0)
    gpus = engine.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if there and wants_gpu else 0.0
    fit = int(there / gpus + 1e-9) if gpus else max(machines, 1)
    count = engine.workers or fit
    if (gpus and fit < count) or not fit:
        raise DeviceError(f"the cluster has {there:g} GPUs, too few for {max(count, 1)} workers with {gpus:g} each")
    return gpus, max(1, int(cpus // count)), count


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
