"""Clips one after the other; a clip that fails is a result, not the end."""

import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace

from lowlight_cli.clip.results import ClipProgress, ClipResult
from lowlight_cli.clip.work import ClipWork
from lowlight_cli.device import explained_memory
from lowlight_cli.enhancer import Enhancer
from lowlight_cli.errors import LowlightError
from lowlight_cli.machine import release_free_buffers
from lowlight_cli.paths import Job
from lowlight_cli.results import failed_result, name_of
from lowlight_cli.settings import Compute
from lowlight_cli.video import ClipSettings, Span
from lowlight_cli.video.facts import ClipFacts, probe_clip
from lowlight_cli.zero_shot.film import fit_to_film
from lowlight_cli.zero_shot.settings import ZeroShot

_NO_ROOM = "memory ran out beside the network, where frames wait and are steadied; try --no-stabilize-light"

Prepare = Callable[[ClipFacts, Span], Generator[ClipProgress, None, Enhancer]]
"""Gives a clip its enhancer, telling how far it is."""


def enhance_clips(
    jobs: Iterable[Job], prepare: Prepare, settings: ClipSettings
) -> Generator[ClipProgress | ClipResult]:
    """Do the clips in order; yield progress, and a result for each; with `fail_fast` stop after the first failure.

    `prepare` gives each clip its enhancer: `ready(enhancer)` the same one to all, a fit its own.
    """
    for job in jobs:
        assert job.input is not None
        assert job.output is not None
        blank = ClipResult(name_of(job.input), name_of(job.output), "failed")
        started = time.perf_counter()
        try:
            with explained_memory(_NO_ROOM):
                facts = probe_clip(job.input, most_pixels=settings.most_pixels)
                enhancer = yield from prepare(facts, settings.span)
                work = ClipWork(facts, job.output, enhancer, settings)
                result = yield from work.run(blank, started=started)
                del work  # and with it the memory of its frames
        except LowlightError as error:
            result = replace(failed_result(blank, error), seconds=round(time.perf_counter() - started, 3))
        release_free_buffers()
        yield result
        if settings.fail_fast and result.status == "failed":
            return


def ready(enhancer: Enhancer) -> Prepare:
    """Return what gives every clip the same enhancer."""

    def prepare(facts: ClipFacts, span: Span) -> Generator[ClipProgress, None, Enhancer]:  # noqa: ARG001
        yield from ()
        return enhancer

    return prepare


def fitted(settings: ZeroShot, compute: Compute, *, denoise: float | None = None) -> Prepare:
    """Return what fits ZERO-IG to every clip; the steps come as progress."""

    def prepare(facts: ClipFacts, span: Span) -> Generator[ClipProgress, None, Enhancer]:
        fit = fit_to_film(facts, span, settings, compute=compute, denoise=denoise)
        started = time.perf_counter()
        while True:
            try:
                step = next(fit)
            except StopIteration as finished:
                enhancer: Enhancer = finished.value
                return enhancer
            pace = step.step / max(time.perf_counter() - started, 1e-6)
            yield ClipProgress(name_of(facts.path), step.step, step.steps, pace, "fit")

    return prepare
