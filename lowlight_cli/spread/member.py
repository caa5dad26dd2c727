"""What runs in a cluster's worker process: one worker, its model loaded once, doing one job after the other."""

import logging
import os
import socket
from contextlib import closing
from threading import Event

from lowlight_cli import __version__
from lowlight_cli.errors import DeviceError, Interrupted, LowlightError, OutputError
from lowlight_cli.paths import Job
from lowlight_cli.results import FileResult
from lowlight_cli.spread.dispatch import Done
from lowlight_cli.spread.work import Work, Worker


class RemoteMember:
    """Answers with values, failures too: an exception that leaves it is a bug."""

    def __init__(self, work: Work, version: str, folder: str | None) -> None:
        self._work, self._version, self._folder = work, version, folder
        self._worker: Worker | None = None
        self._stopping = Event()

    def hello(self) -> str | LowlightError:
        """Load the model; return what it is and where it runs, or why it cannot be."""
        try:
            if self._version != __version__:
                raise DeviceError(
                    f"{socket.gethostname()} has lowlight {__version__} and not {self._version}: results would differ"
                )
            self._enter_folder()
            self._worker = self._work.start(self._work.compute.device)
        except LowlightError as error:
            return error
        return self._worker.made_with

    def do(self, job: Job, again: bool) -> Done:
        """Do a job."""
        assert self._worker is not None
        with _Logged() as logged:
            result, failure = None, None
            try:
                with closing(self._worker.do([job], again=again, on_tile=self._check)) as events:
                    for event in events:
                        if isinstance(event, FileResult):
                            result = event
                            break
                        self._check()
            except LowlightError as error:
                failure = error
            except Interrupted:
                failure = OutputError("stopped before it was finished")
        return Done(result, failure, tuple(logged.records))

    def stop(self) -> None:
        """Leave the job at hand after its tile, step or frame; called from another thread."""
        self._stopping.set()

    def _check(self, done: int = 0, total: int = 0) -> None:  # noqa: ARG002 (it is told of tiles)
        if self._stopping.is_set():
            raise Interrupted

    def _enter_folder(self) -> None:
        """Relative names mean what they mean where the run was begun."""
        if self._folder is not None:
            try:
                os.chdir(self._folder)
            except OSError as error:
                raise DeviceError(
                    f"{socket.gethostname()} does not have the folder {self._folder}: "
                    "the machines of a cluster need one that they share"
                ) from error


class _Logged(logging.Handler):
    """Keeps what the package logs meanwhile, for whoever gave the job."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.levelno, record.getMessage()))

    def __enter__(self) -> "_Logged":
        logging.getLogger("lowlight_cli").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("lowlight_cli").removeHandler(self)
