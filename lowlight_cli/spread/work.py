"""What there is to do with any job, as data that can be sent to other machines: pictures, fits, clips.

What fits and clips need is loaded by who does them: a photo should not wait for PyAV.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from lowlight_cli.batch import BatchSettings, enhance_files
from lowlight_cli.device import bound_threads, choose_device, describe_device, precision_used
from lowlight_cli.enhancer import Enhancer, Model, Progress
from lowlight_cli.paths import Job
from lowlight_cli.results import FileResult
from lowlight_cli.settings import Compute
from lowlight_cli.weights_file import WeightsFile
from lowlight_cli.zero_shot.fitted import MODEL
from lowlight_cli.zero_shot.settings import Keep, ZeroShot

if TYPE_CHECKING:
    from lowlight_cli.clip import ClipProgress, ClipSettings
    from lowlight_cli.zero_shot.fit import Step

Told: TypeAlias = "FileResult | Step | ClipProgress"
"""What comes of work: a result for each job, in order, and between them how far it is."""


class Worker(Protocol):
    """Work made ready on one device: its model is loaded. Not for several threads at once."""

    @property
    def made_with(self) -> str:
        """Which model runs where, for a person."""

    def do(self, jobs: Iterable[Job], *, again: bool = False, on_tile: Progress | None = None) -> Generator[Told]:
        """Do the jobs in order, taking each when there is room for it.

        `again` says that another worker began them and was lost: a result that is there is its last deed.
        """


class Work(Protocol):
    """What to do with jobs; picklable."""

    @property
    def compute(self) -> Compute:
        """How to compute, as asked for; its device is what `choose_devices` takes."""

    @property
    def fail_fast(self) -> bool:
        """Whether to stop at the first failure."""

    def start(self, device: str) -> Worker:
        """Make the work ready on a device; raises DeviceError and WeightsError."""


@dataclass(frozen=True)
class PictureWork:
    """Pictures through a trained network."""

    model: Model
    compute: Compute
    batch: BatchSettings

    @property
    def fail_fast(self) -> bool:
        """Whether to stop at the first failure."""
        return self.batch.fail_fast

    def start(self, device: str) -> Worker:
        """Load the network on a device."""
        return _Pictures(self.model.on(replace(self.compute, device=device)), self.batch)


@dataclass(frozen=True)
class FitWork:
    """Photos that networks are fitted to, each for itself or with `shared` all at once."""

    settings: ZeroShot
    batch: BatchSettings
    keep: Keep
    compute: Compute
    initial: WeightsFile | None = None
    shared: bool = False

    @property
    def fail_fast(self) -> bool:
        """Whether to stop at the first failure."""
        return self.batch.fail_fast

    def start(self, device: str) -> Worker:
        """Fits load nothing beforehand."""
        return _Fits(replace(self, compute=replace(self.compute, device=device)))


@dataclass(frozen=True)
class ClipsWork:
    """Clips through a trained network, or through one fitted to each with `fit`."""

    model: Model | None
    compute: Compute
    settings: "ClipSettings"
    fit: ZeroShot | None = None
    denoise: float | None = None

    @property
    def fail_fast(self) -> bool:
        """Whether to stop at the first failure."""
        return self.settings.fail_fast

    def start(self, device: str) -> Worker:
        """Load the network on a device, if there is one before the clip is seen."""
        compute = replace(self.compute, device=device)
        enhancer = None if self.model is None else self.model.on(compute, for_clips=True)
        return _Clips(replace(self, compute=compute), enhancer)


class _Pictures:
    def __init__(self, enhancer: Enhancer, batch: BatchSettings) -> None:
        self._enhancer, self._batch = enhancer, batch
        self.made_with = _made_with(enhancer)

    def do(self, jobs: Iterable[Job], *, again: bool = False, on_tile: Progress | None = None) -> Generator[Told]:
        batch = replace(self._batch, overwrite=True) if again else self._batch
        yield from enhance_files(jobs, self._enhancer, batch, on_tile=on_tile)


class _Fits:
    def __init__(self, work: FitWork) -> None:
        self._work = work
        self.made_with = _fitted_with(work.compute)

    def do(self, jobs: Iterable[Job], *, again: bool = False, on_tile: Progress | None = None) -> Generator[Told]:  # noqa: ARG002
        from lowlight_cli.zero_shot.files import ZeroShotFiles

        work = self._work
        batch = replace(work.batch, overwrite=True) if again else work.batch
        files = ZeroShotFiles(work.settings, batch=batch, keep=work.keep, compute=work.compute, initial=work.initial)
        yield from files.run(jobs, shared=work.shared)


class _Clips:
    def __init__(self, work: ClipsWork, enhancer: Enhancer | None) -> None:
        from lowlight_cli.clip import fitted, ready

        self._settings = work.settings
        if enhancer is None:
            self._prepare = fitted(work.fit or ZeroShot(), work.compute, denoise=work.denoise)
        else:
            self._prepare = ready(enhancer)
        self.made_with = _fitted_with(work.compute) if enhancer is None else _made_with(enhancer)

    def do(self, jobs: Iterable[Job], *, again: bool = False, on_tile: Progress | None = None) -> Generator[Told]:  # noqa: ARG002
        from lowlight_cli.clip import enhance_clips

        settings = replace(self._settings, overwrite=True) if again else self._settings
        yield from enhance_clips(jobs, self._prepare, settings)


def _fitted_with(compute: Compute) -> str:
    bound_threads()
    device = choose_device(compute.device)
    return f"{MODEL} on {describe_device(device)}, {precision_used(compute.precision, device)}"


def _made_with(enhancer: Enhancer) -> str:
    return f"{enhancer.model} on {describe_device(enhancer.device)}, {enhancer.precision}"
