"""Fit photos that lie in files: results, weights, previews, logs; a photo that fails is a result, not the end."""

import itertools
import logging
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from lowlight_cli.batch import BatchSettings, keep_times, misnamed
from lowlight_cli.comparison import write_comparison
from lowlight_cli.device import bound_threads, choose_device, explained_memory
from lowlight_cli.enhancer import Enhancer, PictureSource, box_of
from lowlight_cli.errors import InputError, LowlightError, OutputError
from lowlight_cli.images import Picture, probe, read_picture, stops_between, write_picture
from lowlight_cli.paths import Job, variant_path
from lowlight_cli.results import FileResult, blank_result, failed_job, failed_result, name_of
from lowlight_cli.settings import Compute
from lowlight_cli.weights_file import WeightsFile, write_weights
from lowlight_cli.zero_shot.finish import finished
from lowlight_cli.zero_shot.fit import Fit, Step
from lowlight_cli.zero_shot.fitted import MODEL, fitted_enhancer
from lowlight_cli.zero_shot.log import FitLog
from lowlight_cli.zero_shot.settings import Keep, ZeroShot

logger = logging.getLogger(__name__)

_NO_ROOM = "memory ran out; give --preset fast, which fits parts of a picture, or end other programs"


class ZeroShotFiles:
    """Fits and enhances jobs one after the other, or one fit for all of them."""

    def __init__(
        self,
        settings: ZeroShot,
        *,
        batch: BatchSettings,
        keep: Keep,
        compute: Compute,
        initial: WeightsFile | None = None,
    ) -> None:
        self._settings, self._batch, self._keep, self._compute = settings, batch, keep, compute
        self._initial = initial
        self._log = None if keep.log is None or keep.curve is None else FitLog(keep.log, keep.curve)

    def run(self, jobs: Iterable[Job], *, shared: bool = False) -> Iterator[Step | FileResult]:
        """Yield a `Step` after each optimiser step and a `FileResult` for each job, in order.

        With `shared`, one fit sees all photos in turn; they are all held in memory, as integers.
        """
        for group in [list(jobs)] if shared else ([job] for job in jobs):
            failed = False
            for event in self._run_group(group):
                yield event
                failed = failed or (isinstance(event, FileResult) and event.status == "failed")
            if failed and self._batch.fail_fast:
                return

    def _run_group(self, jobs: Sequence[Job]) -> Iterator[Step | FileResult]:
        started = time.perf_counter()
        photos: list[tuple[Job, Picture]] = []
        for job in jobs:
            try:
                photos.append((job, self._read(job)))
            except LowlightError as error:
                yield failed_job(job, error)
        if not photos:
            return
        try:
            with explained_memory(_NO_ROOM):
                state = yield from self._fitted(photos)
        except LowlightError as error:
            yield from (failed_job(job, error) for job, _ in photos)
            return
        for number, (job, photo) in enumerate(photos, start=1):
            try:
                with explained_memory(_NO_ROOM):
                    result = self._write(job, photo, state)
            except LowlightError as error:
                result = failed_job(job, error)
            if number == len(photos):  # the pictures come first: a record that cannot be written costs none
                result = self._recorded(result, state)
            yield replace(result, seconds=round(time.perf_counter() - started, 3))

    def _read(self, job: Job) -> Picture:
        if job.input is None:
            raise InputError("zero-shot reads files, not standard input")
        if probe(job.input, pixel_budget=self._batch.pixel_budget).frames > 1:
            raise InputError("zero-shot fits still pictures, and this one has several frames")
        return read_picture(job.input, pixel_budget=self._batch.pixel_budget)

    def _fitted(self, photos: Sequence[tuple[Job, Picture]]) -> Generator[Step, None, dict[str, Tensor]]:
        """Yield the steps; the generator's own result is the fitted state dict."""
        device = choose_device(self._compute.device)
        bound_threads()
        boxes = [(photo, box_of(photo)) for _, photo in photos]
        sources = [PictureSource(photo.part(*box) if box else photo) for photo, box in boxes]
        fit = Fit(sources, self._settings, initial=self._initial, device=device)
        number = 0
        try:
            for step in fit.run():
                number = step.step
                if self._log is not None:
                    self._log.note(step, name_of(photos[0][0].input))
                if self._keep.preview_every and number % self._keep.preview_every == 0:
                    self._write_previews(photos, fit.state_dict(), number)
                yield step
        except (KeyboardInterrupt, GeneratorExit):
            if self._keep.on_interrupt == "save" and number:
                try:
                    self._write_latest(photos, fit.state_dict(), number)
                    self._write_records(fit.state_dict())
                except LowlightError as error:  # the request to stop weighs more
                    logger.warning("the latest state is not kept: %s", error)
            elif self._log is not None:
                self._log.discard()
            raise
        return fit.state_dict()

    def _recorded(self, result: FileResult, state: Mapping[str, Tensor]) -> FileResult:
        """Write what tells of the fit; return the result, failed if that cannot be written."""
        try:
            self._write_records(state)
        except LowlightError as error:
            told = type(error)(f"the picture is written, and what tells of its fit is not: {error}")
            return result if result.error else failed_result(result, told)
        return result

    def _write_records(self, state: Mapping[str, Tensor]) -> None:
        if self._keep.weights:
            described = {"backend": "zeroig", **{key: str(value) for key, value in vars(self._settings).items()}}
            write_weights(self._keep.weights, state, described)
        if self._log is not None:
            self._log.finish()

    def _write(self, job: Job, photo: Picture, state: Mapping[str, Tensor]) -> FileResult:
        if job.output is None:
            raise OutputError("zero-shot writes files, not standard output")
        enhancer = self._enhancer(state, denoise=self._denoise_saved)
        result, tile = self._enhanced(enhancer, photo)
        warnings = self._write_picture(result, job.output)
        for path in job.variants:
            if path == variant_path(job.output, "compare"):
                how, encoding = self._batch.comparison, self._batch.encoding
                write_comparison(photo, result, path, how, encoding=encoding, overwrite=self._batch.overwrite)
            else:
                self._write_picture(self._noisy(state, photo), path)
        keep_times(job, self._batch)
        return replace(
            blank_result(job, "done"),
            width=photo.width,
            height=photo.height,
            model=MODEL,
            device=str(enhancer.device),
            precision=enhancer.precision,
            tile=tile,
            stops=stops_between(photo, result),
            warnings=(*misnamed(job, photo.format, self._batch.encoding), *photo.warnings, *warnings),
        )

    def _write_picture(self, picture: Picture, path: Path) -> tuple[str, ...]:
        return write_picture(picture, path, encoding=self._batch.encoding, overwrite=self._batch.overwrite)

    def _write_latest(self, photos: Sequence[tuple[Job, Picture]], state: Mapping[str, Tensor], number: int) -> None:
        for job, photo in photos:
            if job.output is not None:
                path = _free(job.output.with_name(f"{job.output.stem}.step{number}{job.output.suffix}"))
                result, _ = self._enhanced(self._enhancer(state, denoise=self._denoise_saved), photo)
                write_picture(result, path, encoding=self._batch.encoding)
                if self._keep.save == "both":
                    write_picture(self._noisy(state, photo), _free(variant_path(path, "enhanced")),
                                  encoding=self._batch.encoding)  # fmt: skip

    def _write_previews(self, photos: Sequence[tuple[Job, Picture]], state: Mapping[str, Tensor], number: int) -> None:
        folder = self._keep.preview_folder
        for job, photo in photos:
            if folder is not None and job.output is not None:
                result, _ = self._enhanced(self._enhancer(state, denoise=self._denoise_saved), photo)
                path = folder / f"{job.output.stem}.step{number}{job.output.suffix}"
                write_picture(result, path, encoding=self._batch.encoding, overwrite=True)

    def _noisy(self, state: Mapping[str, Tensor], photo: Picture) -> Picture:
        return self._enhanced(self._enhancer(state, denoise=0), photo)[0]

    def _enhanced(self, enhancer: Enhancer, photo: Picture) -> tuple[Picture, int]:
        enhanced = enhancer.enhance(photo, tone=self._batch.tone)
        keep = self._keep
        if not (keep.white_balance or keep.contrast):
            return enhanced.picture, enhanced.tile
        done = finished(enhanced.picture, white_balance=keep.white_balance, contrast=keep.contrast)
        return done, enhanced.tile

    @property
    def _denoise_saved(self) -> float | None:
        """How much noise is taken from the picture that is saved first."""
        return 0.0 if self._keep.save == "enhanced" else self._keep.denoise

    def _enhancer(self, state: Mapping[str, Tensor], *, denoise: float | None) -> Enhancer:
        return fitted_enhancer(state, self._compute, denoise=denoise)


def _free(path: Path) -> Path:
    """Return the path, or the first one like it that names no file: nobody can be asked at an interrupt."""
    names = (path.with_name(f"{path.stem}_{number}{path.suffix}") for number in itertools.count(2))
    return path if not path.exists() else next(name for name in names if not name.exists())
