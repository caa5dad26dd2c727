"""Enhance files: loading, computing and writing overlap; a file that fails is a result, not the end."""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TextIO

from lowlight_cli.atomic import preserve_times
from lowlight_cli.comparison import require_still, write_comparison
from lowlight_cli.device import explained_memory
from lowlight_cli.enhancer import Enhancer, Progress
from lowlight_cli.errors import InputError, LowlightError, OutputError
from lowlight_cli.images import (
    Animation,
    Frame,
    Picture,
    output_format,
    probe,
    read_animation,
    read_frames,
    read_picture,
    stops_between,
    write_frames,
    write_picture,
)
from lowlight_cli.interrupts import interrupts_held
from lowlight_cli.paths import PICTURES, Job
from lowlight_cli.results import FileResult, blank_result, failed_job, failed_result
from lowlight_cli.settings import Comparison, Encoding, Tone

# Decoded pictures wait for the network and results for the disk; together they stay below about this many pixels, or
# are one picture at a time. One that is being decoded counts as the largest so far.
_PIXELS_IN_FLIGHT = 64_000_000

_NO_ROOM = "memory ran out while it was read, enhanced or written; give --jobs 1, or end other programs"

# Beyond this an animation is a film, or a file made to keep us busy: 40,000 frames of one pixel fit into 1 MB.
_MOST_FRAMES = 10_000


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How files are done, beyond what the model does: see the options of `lowlight enhance`."""

    tone: Tone = Tone()
    encoding: Encoding = Encoding()
    overwrite: bool = False
    preserve_times: bool = False
    fail_fast: bool = False
    threads: int = 1
    pixel_budget: int | None = None
    comparison: Comparison = Comparison()


@dataclass(frozen=True)
class _Loaded:
    content: Picture | Animation
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def enhance_files(
    jobs: Iterable[Job], enhancer: Enhancer, batch: BatchSettings, *, on_tile: Progress | None = None
) -> Iterator[FileResult]:
    """Do the jobs in order and yield a result for each; with `fail_fast`, begin none after the first failure.

    The next picture is decoded and the last one written while the network runs; jobs are taken one by one, as there is
    room for them. Whatever ends the work, what was being written gets its name, and so it is told.
    """
    line = _Line(enhancer, batch, on_tile)
    try:
        for result in line.run(jobs):
            yield result
            if batch.fail_fast and result.status == "failed":
                break
        yield from line.last_written()
    except (Exception, KeyboardInterrupt):
        yield from line.last_written()
        raise
    finally:
        line.close()


class _Line:
    """The assembly line: threads read ahead, the caller's computes, a pool writes behind."""

    def __init__(self, enhancer: Enhancer, batch: BatchSettings, on_tile: Progress | None) -> None:
        self._enhancer, self._batch, self._on_tile = enhancer, batch, on_tile
        self._writers = ThreadPoolExecutor(batch.threads, "write")
        self._reads: deque[tuple[Job, Future[_Loaded]]] = deque()
        self._writes: deque[tuple[FileResult, int, Future[tuple[str, ...]]]] = deque()
        self._largest = 0  # pixels

    def close(self) -> None:
        """Let writes in progress end, and start nothing more."""
        self._writers.shutdown(wait=True, cancel_futures=True)

    def last_written(self) -> Iterator[FileResult]:
        """Let writes in progress end, and yield what became of them."""
        self.close()
        begun = [one for one in self._writes if not one[2].cancelled()]
        self._writes = deque(begun)
        yield from self._written(everything=True)

    def run(self, jobs: Iterable[Job]) -> Iterator[FileResult]:
        waiting = iter(jobs)
        while True:
            self._read_ahead(waiting)
            if not self._reads:
                if not self._writes:
                    return
                yield from self._written(everything=True)  # too much is waiting for the disk, or that was all
                continue
            job, read = self._reads.popleft()
            started = time.perf_counter()
            try:
                loaded = read.result()
                self._largest = max(self._largest, loaded.pixels)
                self._read_ahead(waiting, held=loaded.pixels)
                with explained_memory(_NO_ROOM):
                    self._start(job, loaded, started)
                failed = None
            except LowlightError as error:
                failed = replace(failed_job(job, error), seconds=_seconds_since(started))
            yield from self._written(everything=failed is not None)
            if failed:
                yield failed

    def _read_ahead(self, waiting: Iterator[Job], *, held: int = 0) -> None:
        held += sum(pixels for _, pixels, _ in self._writes)
        while len(self._reads) < self._batch.threads and held + len(self._reads) * self._largest < _PIXELS_IN_FLIGHT:
            if self._reads and not self._largest:
                return  # the first tells how large they are
            job = next(waiting, None)
            if job is None:
                return
            self._reads.append((job, _begun(job, self._batch.pixel_budget)))

    def _start(self, job: Job, loaded: _Loaded, started: float) -> None:
        """Compute one file and hand it to a writer."""
        enhancer, content = self._enhancer, loaded.content
        described = replace(
            blank_result(job, "done"),
            width=loaded.width,
            height=loaded.height,
            model=enhancer.model,
            device=str(enhancer.device),
            warnings=misnamed(job, content.format, self._batch.encoding),
        )
        if isinstance(content, Animation):
            tile = enhancer.tile_size(loaded.height, loaded.width)
            described = replace(described, precision=enhancer.precision, tile=tile)
            warnings = self._do_animation(job, content)
            write = partial(tuple[str, ...], warnings)
        else:
            enhanced = enhancer.enhance(content, tone=self._batch.tone, on_tile=self._on_tile)
            warnings = (*described.warnings, *content.warnings)
            stops = stops_between(content, enhanced.picture)
            described = replace(
                described, precision=enhanced.precision, tile=enhanced.tile, stops=stops, warnings=warnings
            )
            write = partial(_write, job, content, enhanced.picture, self._batch)
        described = replace(described, seconds=_seconds_since(started))
        with interrupts_held():  # what is begun is noted, for `last_written`
            self._writes.append((described, loaded.pixels, self._writers.submit(write)))

    def _do_animation(self, job: Job, animation: Animation) -> tuple[str, ...]:
        """Do frame by frame, one in memory at a time; writing drives reading and computing."""
        if job.variants:
            require_still(animation.frames)

        def frames() -> Iterator[Frame]:
            for index, frame in enumerate(read_frames(animation)):
                enhanced = self._enhancer.enhance(frame.picture, tone=self._batch.tone)
                if self._on_tile:
                    self._on_tile(index + 1, animation.frames)
                yield replace(frame, picture=enhanced.picture)

        target = job.output if job.output is not None else _open_stream(sys.stdout, "output").buffer
        warnings = write_frames(
            frames(), target, animation=animation, encoding=self._batch.encoding, overwrite=self._batch.overwrite
        )
        keep_times(job, self._batch)
        return warnings

    def _written(self, *, everything: bool) -> Iterator[FileResult]:
        while self._writes and (everything or len(self._writes) > self._batch.threads or self._writes[0][2].done()):
            described, _, write = self._writes[0]
            wait([write])
            self._writes.popleft()  # not before: an interrupt of the wait must leave it to `last_written`
            try:
                yield replace(described, warnings=(*described.warnings, *write.result()))
            except LowlightError as error:
                yield failed_result(described, error)


def _seconds_since(started: float) -> float:
    return round(time.perf_counter() - started, 3)


def _open_stream(stream: TextIO | None, what: str) -> TextIO:
    """Return a standard stream; raises OutputError when whoever started us has closed it."""
    if stream is None:
        raise OutputError(f"standard {what} is closed")
    return stream


def _begun(job: Job, pixel_budget: int | None) -> "Future[_Loaded]":
    """Load a job in a thread that nobody waits for at the end.

    A pool's threads are joined when Python ends, and standard input or a slow disk may keep them for ever.
    """
    loaded: Future[_Loaded] = Future()

    def load() -> None:
        try:
            loaded.set_result(_load(job, pixel_budget))
        except BaseException as error:  # it is raised where the picture is awaited
            loaded.set_exception(error)

    threading.Thread(target=load, name="read", daemon=True).start()
    return loaded


def _standard_input() -> bytes:
    """Read standard input to its end, past its buffer, whose lock Python wants for itself when it ends."""
    buffer = _open_stream(sys.stdin, "input").buffer
    data: bytes = getattr(buffer, "raw", buffer).read()
    return data


@explained_memory(_NO_ROOM)
def _load(job: Job, pixel_budget: int | None) -> _Loaded:
    source = job.input if job.input is not None else _standard_input()
    facts = probe(source, pixel_budget=pixel_budget)
    if facts.frames > _MOST_FRAMES:
        raise InputError(f"it has {facts.frames} frames, more than {_MOST_FRAMES}; `lowlight video` does films")
    if facts.frames > 1:
        animation = read_animation(source, pixel_budget=pixel_budget)
        return _Loaded(animation, facts.width, facts.height)
    picture = read_picture(source, pixel_budget=pixel_budget)
    return _Loaded(picture, picture.width, picture.height)


@explained_memory(_NO_ROOM)
def _write(job: Job, original: Picture, result: Picture, batch: BatchSettings) -> tuple[str, ...]:
    if job.output is None:
        stream = _open_stream(sys.stdout, "output").buffer
        warnings = write_picture(result, stream, encoding=batch.encoding)
        stream.flush()
        return warnings
    warnings = write_picture(result, job.output, encoding=batch.encoding, overwrite=batch.overwrite)
    for path in job.variants:
        write_comparison(original, result, path, batch.comparison, encoding=batch.encoding, overwrite=batch.overwrite)
    keep_times(job, batch)
    return warnings


def misnamed(job: Job, format: str, encoding: Encoding) -> tuple[str, ...]:
    """Say so where a picture of another format than its name says is written in that of its name, unasked."""
    if job.input is None or job.output is None or encoding.format is not None:
        return ()
    named, written = PICTURES.format_of(job.input.suffix), output_format(format, target=job.output)
    if named is None or written != output_format(named) or written == output_format(format):
        return ()
    return (f"its content is {format} and its name says {job.input.suffix}; the result is {written}, as its name says",)


def keep_times(job: Job, batch: BatchSettings) -> None:
    """Give all files of a job the times of its input, if that is wanted; raises OutputError."""
    if batch.preserve_times and job.input is not None:
        for path in job.files:
            preserve_times(job.input, path)
