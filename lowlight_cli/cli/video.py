"""`lowlight video`: clips frame by frame, with sound, timing and calm."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowlight_cli.cli import options as opt
from lowlight_cli.cli.files import followed, tell_plan
from lowlight_cli.cli.grouping import grouped
from lowlight_cli.cli.groups import Computing, Look, Network, Running, Searching, Spreading, pixels
from lowlight_cli.console import Show
from lowlight_cli.errors import SettingsError
from lowlight_cli.paths import Job, Plan, plan_jobs
from lowlight_cli.results import FileResult
from lowlight_cli.settings import Tone
from lowlight_cli.video import CLIPS, ClipSettings, Film, Span, read_time
from lowlight_cli.video.settings import read_arguments
from lowlight_cli.zero_shot.settings import ZeroShot

if TYPE_CHECKING:
    from lowlight_cli.report.files import Contents
    from lowlight_cli.spread import ClipsWork, Told

_FILM, _PART, _LIGHT = "Film", "Part", "Light"

Codec = Annotated[
    str | None,
    typer.Option(
        help="h264, hevc, vp9, av1, or an encoder of ffmpeg's.", show_default="the clip's", rich_help_panel=_FILM
    ),
]
Crf = Annotated[
    float | None,
    typer.Option(min=0, max=63, help="Quality; lower is better.", show_default="h264 18", rich_help_panel=_FILM),
]
PresetOption = Annotated[
    str | None,
    typer.Option("--preset", help="The encoder's speed.", show_default="h264 veryfast", rich_help_panel=_FILM),
]
PixelFormat = Annotated[
    str | None,
    typer.Option("--pix-fmt", help="Such as yuv420p10le.", show_default="like the clip's", rich_help_panel=_FILM),
]
EncoderArguments = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder-arg", metavar="NAME=VALUE", help="Handed to the encoder; repeatable.", rich_help_panel=_FILM
    ),
]
ClipFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="mp4, mov, mkv, webm (sound is Opus or Vorbis: AAC is dropped), ...",
        show_default="the input's",
        rich_help_panel=_FILM,
    ),
]
Start = Annotated[
    str | None, typer.Option(metavar="TIME", help="Begin here: seconds or [HH:]MM:SS.mmm.", rich_help_panel=_PART)
]
End = Annotated[str | None, typer.Option(metavar="TIME", help="End here.", rich_help_panel=_PART)]
SideBySide = Annotated[
    bool, typer.Option("--side-by-side", help="Show the original at the left.", rich_help_panel=_FILM)
]
ContactSheet = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, max=100, help="Also write N frames, before and after, as *_sheet.png.",
        show_default=False, rich_help_panel=_FILM,
    ),
]  # fmt: skip
ClipReportPage = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        help="Also write one page with key frames before and after, times and failures.",
        rich_help_panel="Output",
    ),
]
StabilizeLight = Annotated[
    bool | None,
    typer.Option(
        "--stabilize-light/--no-stabilize-light",
        help="Calm flickering light.",
        show_default="on, but for the identity",
        rich_help_panel=_LIGHT,
    ),
]
StabilizeStrength = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="How calm: 0 not at all, 1 wholly.", show_default="1", rich_help_panel=_LIGHT),
]
FramesPerBatch = Annotated[
    int,
    typer.Option(min=1, max=64, help="Frames a GPU is given beside the one waited for.", rich_help_panel="Compute"),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Keep what is finished, and go on from it after a kill.", rich_help_panel="Batch"),
]
ZeroShotOption = Annotated[
    bool,
    typer.Option("--zero-shot", help="Fit ZERO-IG to some frames of the clip instead.", rich_help_panel="Model"),
]


@dataclass(frozen=True)
class ClipWriting:
    """How clips are named and written, and what is made beside them."""

    suffix: opt.Suffix = None
    metadata: opt.MetadataOption = ClipSettings.metadata
    overwrite: opt.Overwrite = ClipSettings.overwrite
    preserve_times: opt.PreserveTimes = ClipSettings.preserve_times
    report: ClipReportPage = None


@dataclass(frozen=True)
class Filming:
    """What becomes of the film: how it is encoded, what it shows, which part of it, and how calm its light is."""

    format: ClipFormat = None
    codec: Codec = Film.codec
    crf: Crf = Film.crf
    preset: PresetOption = Film.preset
    pixel_format: PixelFormat = Film.pixel_format
    encoder_arguments: EncoderArguments = None
    side_by_side: SideBySide = ClipSettings.side_by_side
    contact_sheet: ContactSheet = ClipSettings.contact_sheet
    start: Start = None
    end: End = None
    stabilize_light: StabilizeLight = None
    stabilize_strength: StabilizeStrength = None

    def film(self) -> Film:
        """Return how the film is encoded; raises SettingsError."""
        return Film(self.codec, self.crf, self.preset, self.pixel_format, read_arguments(self.encoder_arguments or []))

    def span(self) -> Span:
        """Return the part that is done; raises SettingsError."""
        start = Span.start if self.start is None else read_time(self.start, "--start")
        return Span(start, None if self.end is None else read_time(self.end, "--end"))

    def steadiness(self) -> float | None:
        """Return the strength of the anti-flicker filter, None where the model decides; raises SettingsError."""
        if self.stabilize_light is False:
            if self.stabilize_strength:
                raise SettingsError("--no-stabilize-light has no --stabilize-strength")
            return 0.0
        if self.stabilize_strength is None:
            return 1.0 if self.stabilize_light else None
        return self.stabilize_strength

    def settings(self, writing: ClipWriting, *, tone: Tone, fail_fast: bool) -> ClipSettings:
        """Return how clips are done, as far as these options say it; raises SettingsError."""
        return ClipSettings(
            tone=tone,
            film=self.film(),
            span=self.span(),
            metadata=writing.metadata,
            stabilize=self.steadiness(),
            side_by_side=self.side_by_side,
            contact_sheet=self.contact_sheet,
            overwrite=writing.overwrite,
            preserve_times=writing.preserve_times,
            fail_fast=fail_fast,
        )


@grouped
def video(
    *,
    inputs: opt.FileInputs = None,
    output: opt.FileOutput = None,
    writing: ClipWriting,
    filming: Filming,
    network: Network,
    zero_shot: ZeroShotOption = False,
    offline: opt.Offline = False,
    look: Look,
    computing: Computing,
    frames_per_batch: FramesPerBatch = ClipSettings.frames_per_batch,
    max_megapixels: opt.MaxPixels = None,
    searching: Searching,
    spreading: Spreading,
    resume: Resume = False,
    running: Running,
) -> None:
    """Make dark clips bright, clean and calm; sound, timing and tags are kept.

    [bold]lowlight video clip.mp4[/bold]                       writes clip_lowlight.mp4
    [bold]lowlight video clip.mov --start 0:10 --end 0:20 --side-by-side[/bold]
    [bold]lowlight video night/ -o bright/ --resume[/bold]     a killed run goes on
    """
    settings = replace(
        filming.settings(writing, tone=look.tone(), fail_fast=running.fail_fast),
        frames_per_batch=frames_per_batch,
        resume=resume,
        most_pixels=pixels(max_megapixels) or ClipSettings.most_pixels,
    )
    compute, engine = computing.compute(), spreading.chosen_engine()
    if zero_shot and network != Network():
        raise SettingsError("--zero-shot fits its own weights: it takes no --model, no --weights and no --dilations")
    plan = spreading.part_of(
        _planned(searching.named(inputs), output, writing, filming, network, recursive=searching.recursive)
    )
    _require_encoder(plan, settings.film)
    if running.dry_run:
        tell_plan(plan, as_json=running.as_json)
        return
    shown = partial(_clips, settings)
    with followed(plan, running, writing.report, shown, overwrite=writing.overwrite, noun="clips") as results:

        def prepare() -> "ClipsWork":
            from lowlight_cli.spread import ClipsWork

            if zero_shot:
                return ClipsWork(None, compute, settings, ZeroShot(), look.denoise)
            found = network.find(results.show, denoise=look.denoise, offline=offline)
            return ClipsWork(found, compute, settings)

        if plan.jobs:
            with _told_how_to_go_on(results.show, resume=resume):
                results.run(plan.jobs, prepare, engine, compute.device, draw=_drawing(results.show))
        if plan.uncompared:
            results.compare(_drawing_sheet(settings))
        _remove_outlived(plan)


def _planned(
    named: Sequence[str | Path],
    output: str | None,
    writing: ClipWriting,
    filming: Filming,
    network: Network,
    *,
    recursive: bool,
) -> Plan:
    plan = plan_jobs(
        named,
        media=CLIPS,
        output=output,
        recursive=recursive,
        suffix=writing.suffix,
        format=filming.format,
        model=network.name(),
        variants=("sheet",) if filming.contact_sheet else (),
        beside=() if writing.report is None else (writing.report,),
        overwrite=writing.overwrite,
    )
    if any(job.input is None or job.output is None for job in plan.jobs):
        raise SettingsError("clips are read from files and written to files, not - streams")
    return plan


def _clips(settings: ClipSettings, files: int) -> "Contents":
    """Return what a page shows of clips."""
    from lowlight_cli.report.clips import Clips

    return Clips(files, span=settings.span, side_by_side=settings.side_by_side, most_pixels=settings.most_pixels)


def _drawing_sheet(settings: ClipSettings) -> Callable[[Job], None]:
    """Return what draws the contact sheet of a clip and the result that an earlier run made."""
    from lowlight_cli.clip import sheet_job

    return partial(
        sheet_job,
        count=settings.contact_sheet,
        span=settings.span,
        side_by_side=settings.side_by_side,
        most_pixels=settings.most_pixels,
        preserve_times=settings.preserve_times,
    )


def _require_encoder(plan: Plan, film: Film) -> None:
    """Refuse, before any work, a codec that is not there or that a result's container cannot hold."""
    if film.codec is not None and plan.jobs:
        from lowlight_cli.video.encoders import require_container

        require_container(film.codec, {CLIPS.format_of(job.output.suffix) for job in plan.jobs if job.output})


@contextmanager
def _told_how_to_go_on(show: Show, *, resume: bool) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if resume:
            show.say("the same command goes on from what is finished")
        raise


def _remove_outlived(plan: Plan) -> None:
    """Remove what killed runs left of clips that are finished by now."""
    if plan.skipped:
        from lowlight_cli.video.segments import remove_outlived

        remove_outlived(job.output for job in plan.skipped if job.output is not None)


def _drawing(show: Show) -> "Callable[[Told], None]":
    """Return what draws progress; it raises SettingsError for an option that the first clip cannot have."""
    from lowlight_cli.clip import ClipProgress

    is_first = True

    def draw(told: "Told") -> None:
        nonlocal is_first
        if isinstance(told, ClipProgress) and told.stage == "resumed":
            show.say(f"{told.input}: goes on after frame {told.done}, which an earlier run left finished")
        elif isinstance(told, ClipProgress):
            what = "steps" if told.stage == "fit" else "frames"
            show.step(told.done, told.total, f"{what}, {told.frames_per_second:.1f} a second", item=told.input)
        elif isinstance(told, FileResult):
            if is_first and told.error and told.error.code == SettingsError.code:  # which would fail all the others
                raise SettingsError(told.error.message)
            is_first = False

    return draw
