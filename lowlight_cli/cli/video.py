"""`lowlight video`: clips frame by frame, with sound, timing and calm."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from lowlight_cli.cli import options as opt
from lowlight_cli.cli.files import Report, named_inputs, planned_page, tell_plan
from lowlight_cli.console import Show, logged_to_stderr
from lowlight_cli.errors import SettingsError
from lowlight_cli.paths import Plan, part_plan, plan_jobs, read_shard
from lowlight_cli.results import FileResult
from lowlight_cli.settings import DEFAULT_MODEL, Compute, Encoding, Engine, Metadata, Tone
from lowlight_cli.video import CLIPS, Film, Span, read_time
from lowlight_cli.video.settings import read_arguments
from lowlight_cli.zero_shot.settings import ZeroShot

if TYPE_CHECKING:
    from lowlight_cli.report.files import Contents
    from lowlight_cli.spread import Told

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


def video(
    inputs: opt.FileInputs = None,
    output: opt.FileOutput = None,
    suffix: opt.Suffix = None,
    format: ClipFormat = None,
    codec: Codec = Film.codec,
    crf: Crf = Film.crf,
    preset: PresetOption = Film.preset,
    pixel_format: PixelFormat = Film.pixel_format,
    encoder_arguments: EncoderArguments = None,
    metadata: opt.MetadataOption = Encoding.metadata,
    overwrite: opt.Overwrite = False,
    side_by_side: SideBySide = False,
    contact_sheet: ContactSheet = 0,
    preserve_times: opt.PreserveTimes = False,
    report: ClipReportPage = None,
    start: Start = None,
    end: End = None,
    stabilize_light: StabilizeLight = None,
    stabilize_strength: StabilizeStrength = None,
    model: opt.Model = DEFAULT_MODEL,
    weights: opt.WeightsOption = None,
    dilations: opt.Dilations = None,
    zero_shot: ZeroShotOption = False,
    offline: opt.Offline = False,
    strength: opt.Strength = Tone.strength,
    exposure: opt.Exposure = Tone.exposure,
    protect_highlights: opt.ProtectHighlights = Tone.protect_highlights,
    denoise: opt.Denoise = None,
    device: opt.Device = Compute.device,
    precision: opt.PrecisionOption = Compute.precision,
    tile: opt.Tile = "auto",
    overlap: opt.Overlap = Compute.tiling.overlap,
    compiling: opt.CompileOption = Compute.compile,
    frames_per_batch: FramesPerBatch = 1,
    max_megapixels: opt.MaxPixels = None,
    recursive: opt.Recursive = False,
    files_from: opt.FilesFrom = None,
    null_separated: opt.NullSeparated = False,
    shard: opt.Shard = None,
    engine: opt.EngineOption = Engine.kind,
    ray_address: opt.RayAddress = None,
    workers: opt.Workers = None,
    gpus_per_worker: opt.GpusPerWorker = None,
    resume: Resume = False,
    dry_run: opt.DryRun = False,
    fail_fast: opt.FailFast = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Make dark clips bright, clean and calm; sound, timing and tags are kept.

    [bold]lowlight video clip.mp4[/bold]                       writes clip_lowlight.mp4
    [bold]lowlight video clip.mov --start 0:10 --end 0:20 --side-by-side[/bold]
    [bold]lowlight video night/ -o bright/ --resume[/bold]     a killed run goes on
    """
    tone = Tone(strength, exposure, protect_highlights, denoise)
    opt.one_of(metadata, get_args(Metadata), "--metadata")
    compute = opt.read_compute(device, precision, tile, overlap, compiling)
    film = Film(codec, crf, preset, pixel_format, read_arguments(encoder_arguments or []))
    span = Span(*(() if start is None else (read_time(start, "--start"),)))
    if end is not None:
        span = Span(span.start, read_time(end, "--end"))
    network = opt.read_dilations(dilations, weights)
    spread = opt.read_engine(engine, ray_address, workers, gpus_per_worker)
    if zero_shot and (weights is not None or model != DEFAULT_MODEL or network):
        raise SettingsError("--zero-shot fits its own weights: it takes no --model, no --weights and no --dilations")
    steadiness = _steadiness(stabilize_light, stabilize_strength)
    model = opt.name_model(model, weights)
    plan = plan_jobs(
        named_inputs(inputs, files_from, null_separated=null_separated),
        media=CLIPS,
        output=output,
        recursive=recursive,
        suffix=suffix,
        format=format,
        model=model,
        variants=("sheet",) if contact_sheet else (),
        beside=() if report is None else (report,),
        overwrite=overwrite,
    )
    _refuse_streams(plan)
    plan = plan if shard is None else part_plan(plan, read_shard(shard))
    if dry_run:
        tell_plan(plan, as_json=as_json)
        return
    shown = partial(_clips, span=span, side_by_side=side_by_side, max_megapixels=max_megapixels)
    with (
        planned_page(report, plan, shown, overwrite=overwrite) as page,
        logged_to_stderr(quiet=quiet, verbose=verbose),
        Show(len(plan.jobs) + len(plan.uncompared), noun="clips", quiet=quiet) as show,
    ):
        results = Report(plan, show, as_json=as_json, page=page)
        if plan.jobs:
            from lowlight_cli.clip import ClipSettings, check_film
            from lowlight_cli.enhancer import find_model
            from lowlight_cli.spread import ClipsWork, open_pool
            from lowlight_cli.video.encoders import require_container

            settings = ClipSettings(
                tone=tone,
                film=film,
                span=span,
                metadata=cast(Metadata, metadata),
                stabilize=steadiness,
                side_by_side=side_by_side,
                contact_sheet=contact_sheet,
                frames_per_batch=frames_per_batch,
                resume=resume,
                overwrite=overwrite,
                preserve_times=preserve_times,
                fail_fast=fail_fast,
                most_pixels=opt.pixels(max_megapixels) or ClipSettings.most_pixels,
            )
            check_film(film)
            if codec is not None:
                require_container(codec, {CLIPS.format_of(job.output.suffix) for job in plan.jobs if job.output})

            def prepare() -> ClipsWork:
                if zero_shot:
                    return ClipsWork(None, compute, settings, ZeroShot(), 1.0 if denoise is None else denoise)
                on_download = show.steps_of("bytes")
                found = find_model(
                    model, weights=weights, network=network, denoise=denoise, offline=offline, on_download=on_download
                )
                return ClipsWork(found, compute, settings)

            # An interrupt must end the work at once, not when the generator happens to be collected.
            with open_pool(spread, device, prepare) as pool, closing(pool.run(plan.jobs)) as told:
                results.announce(pool.made_with)
                try:
                    results.follow(told, _drawing(show))
                except KeyboardInterrupt:
                    if resume:
                        show.say("the same command goes on from what is finished")
                    raise
        if contact_sheet and plan.uncompared:
            from lowlight_cli.clip import sheet_job

            how = partial(
                sheet_job,
                count=contact_sheet,
                span=span,
                side_by_side=side_by_side,
                most_pixels=opt.pixels(max_megapixels),
                preserve_times=preserve_times,
            )
            results.compare(how, fail_fast=fail_fast)
        if plan.skipped:
            from lowlight_cli.video.segments import remove_outlived

            remove_outlived(job.output for job in plan.skipped if job.output is not None)
        results.close()


def _steadiness(light: bool | None, strength: float | None) -> float | None:
    """Return the strength of the anti-flicker filter; None where the model decides."""
    if light is False:
        if strength:
            raise SettingsError("--no-stabilize-light has no --stabilize-strength")
        return 0.0
    if strength is None:
        return 1.0 if light else None
    return strength


def _clips(files: int, *, span: Span, side_by_side: bool, max_megapixels: float | None) -> "Contents":
    from lowlight_cli.report.clips import Clips

    most_pixels = opt.pixels(max_megapixels)
    return Clips(files, span=span, side_by_side=side_by_side, most_pixels=most_pixels)


def _refuse_streams(plan: Plan) -> None:
    if any(job.input is None or job.output is None for job in plan.jobs):
        raise SettingsError("clips are read from files and written to files, not - streams")


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
