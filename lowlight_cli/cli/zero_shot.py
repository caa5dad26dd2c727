"""`lowlight zero-shot`: ZERO-IG fitted to the photos themselves."""

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from lowlight_cli.atomic import require_writable
from lowlight_cli.cli import options as opt
from lowlight_cli.cli.files import Report, comparing, looking, named_inputs, pictures, planned_page, tell_plan
from lowlight_cli.cli.initial import read_initial, require_initial
from lowlight_cli.console import Show, logged_to_stderr
from lowlight_cli.errors import SettingsError
from lowlight_cli.paths import Plan, Variant, is_folder, part_plan, plan_jobs, read_shard, require_free
from lowlight_cli.settings import Comparison, Compute, Encoding, Engine, Metadata, Tone
from lowlight_cli.zero_shot.settings import FAST_STEPS, PAPER_STEPS, Keep, OnInterrupt, Preset, Save, ZeroShot

if TYPE_CHECKING:
    from lowlight_cli.spread import Told

_FIT, _KEEP = "Fit", "Keep"
_PRESETS_HELP = (
    f"fast: a prepared start, at most {FAST_STEPS} steps on crops; paper: {PAPER_STEPS} on the whole picture."
)

PresetOption = Annotated[str, typer.Option("--preset", help=_PRESETS_HELP, rich_help_panel=_FIT)]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="Exactly this many optimiser steps.", show_default="the preset's", rich_help_panel=_FIT),
]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", help="Learning rate.", show_default="the preset's", rich_help_panel=_FIT),
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same bytes on a CPU.", rich_help_panel=_FIT)]
Init = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE", help="Start from these ZERO-IG weights instead.", rich_help_panel=_FIT),
]
Shared = Annotated[
    bool, typer.Option("--shared", help="One fit for all photos: a burst, frames, a shoot.", rich_help_panel=_FIT)
]
SaveOption = Annotated[
    str, typer.Option("--save", help="denoised, enhanced (noise and all) or both.", rich_help_panel=_KEEP)
]
SaveWeights = Annotated[
    Path | None, typer.Option(metavar="FILE.safetensors", help="Keep the fitted weights.", rich_help_panel=_KEEP)
]
PreviewEvery = Annotated[
    int, typer.Option(min=0, metavar="N", help="Write a preview every N steps.", rich_help_panel=_KEEP)
]
PreviewFolder = Annotated[
    Path | None, typer.Option("--preview-dir", metavar="DIR", help="Where previews go.", rich_help_panel=_KEEP)
]
Log = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.jsonl",
        help="A JSON line per step with its terms, as it goes; at the end *_loss.png beside it, a curve.",
        rich_help_panel=_KEEP,
    ),
]
OnInterruptOption = Annotated[
    str,
    typer.Option("--on-interrupt", help="discard, or save: keep the latest state as *.stepN.*", rich_help_panel=_KEEP),
]
WhiteBalance = Annotated[
    bool, typer.Option("--white-balance", help="Then balance the colours (grey world).", rich_help_panel="Look")
]
Contrast = Annotated[bool, typer.Option("--contrast", help="Then stretch the contrast gently.", rich_help_panel="Look")]


def zero_shot(
    inputs: opt.FileInputs = None,
    preset: PresetOption = ZeroShot.preset,
    epochs: Epochs = ZeroShot.epochs,
    lr: LearningRate = ZeroShot.lr,
    seed: Seed = ZeroShot.seed,
    init: Init = None,
    shared: Shared = False,
    save: SaveOption = Keep.save,
    save_weights: SaveWeights = None,
    preview_every: PreviewEvery = Keep.preview_every,
    preview_dir: PreviewFolder = None,
    log: Log = None,
    on_interrupt: OnInterruptOption = Keep.on_interrupt,
    output: opt.FileOutput = None,
    suffix: opt.Suffix = None,
    format: opt.Format = None,
    quality: opt.Quality = None,
    metadata: opt.MetadataOption = Encoding.metadata,
    overwrite: opt.Overwrite = False,
    compare: opt.Compare = False,
    compare_style: opt.CompareStyleOption = None,
    compare_size: opt.CompareSizeOption = None,
    preserve_times: opt.PreserveTimes = False,
    report: opt.ReportPage = None,
    offline: opt.Offline = False,
    strength: opt.Strength = Tone.strength,
    exposure: opt.Exposure = Tone.exposure,
    protect_highlights: opt.ProtectHighlights = Tone.protect_highlights,
    denoise: opt.Denoise = None,
    white_balance: WhiteBalance = False,
    contrast: Contrast = False,
    device: opt.Device = Compute.device,
    tile: opt.Tile = "auto",
    overlap: opt.Overlap = Compute.tiling.overlap,
    max_megapixels: opt.MaxPixels = None,
    recursive: opt.Recursive = False,
    files_from: opt.FilesFrom = None,
    null_separated: opt.NullSeparated = False,
    shard: opt.Shard = None,
    engine: opt.EngineOption = Engine.kind,
    ray_address: opt.RayAddress = None,
    workers: opt.Workers = None,
    gpus_per_worker: opt.GpusPerWorker = None,
    show_pictures: opt.ShowPictures = False,
    dry_run: opt.DryRun = False,
    fail_fast: opt.FailFast = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Fit three tiny networks to each photo, without training data, and make it bright and clean.

    [bold]lowlight zero-shot night.png[/bold]                 writes night_lowlight.png
    [bold]lowlight zero-shot night.png --preset paper[/bold]  the method as published
    [bold]lowlight zero-shot burst/ --shared -o bright/[/bold]
    """
    settings = ZeroShot(cast(Preset, opt.one_of(preset, get_args(Preset), "--preset")), epochs, lr, seed)
    keep = Keep(
        save=cast(Save, opt.one_of(save, get_args(Save), "--save")),
        weights=save_weights,
        log=log,
        preview_every=preview_every,
        preview_folder=preview_dir,
        on_interrupt=cast(OnInterrupt, opt.one_of(on_interrupt, get_args(OnInterrupt), "--on-interrupt")),
        white_balance=white_balance,
        contrast=contrast,
    )
    encoding = Encoding(format, quality, cast(Metadata, opt.one_of(metadata, get_args(Metadata), "--metadata")))
    tone, compute = (
        Tone(strength, exposure, protect_highlights, denoise),
        Compute(device, "fp32", opt.read_tiling(tile, overlap)),
    )
    comparison = opt.read_comparison(compare, compare_style, compare_size)
    spread = opt.read_engine(engine, ray_address, workers, gpus_per_worker)
    if init is not None:
        require_initial(init)
    variants: list[Variant] = ["enhanced"] if save == "both" else []
    named = named_inputs(inputs, files_from, null_separated=null_separated)
    plan = plan_jobs(
        named,
        output=output,
        recursive=recursive,
        suffix=suffix,
        format=format,
        model="zeroig",
        variants=[*variants, "compare"] if comparison else variants,
        beside=[*keep.records, *([] if report is None else [report])],
        overwrite=overwrite,
    )
    opt.check_quality(encoding, plan, named)
    _refuse_unclear(plan, keep, shared=shared, overwrite=overwrite)
    for path in keep.records if plan.jobs else ():
        require_free(path, overwrite=overwrite)
    if shared and (shard is not None or spread.kind != "local" or device == "cuda:all"):
        raise SettingsError("--shared is one fit for all photos, which --shard, --engine ray and cuda:all would part")
    plan = plan if shard is None else part_plan(plan, read_shard(shard))
    if dry_run:
        tell_plan(plan, as_json=as_json)
        return
    previews = () if preview_dir is None else (preview_dir / "preview",)
    for path in (*keep.records, *previews) if plan.jobs else ():
        require_writable(path)
    with (
        planned_page(report, plan, partial(pictures, max_megapixels=max_megapixels), overwrite=overwrite) as page,
        logged_to_stderr(quiet=quiet, verbose=verbose),
        Show(len(plan.jobs) + len(plan.uncompared), quiet=quiet) as show,
    ):
        results = Report(plan, show, as_json=as_json, page=page, look=looking(show_pictures, plan, show))
        # A cluster's machines write themselves, and where this one cannot they may.
        ready = plan.jobs if spread.kind == "ray" else results.writable(plan.jobs, fail_fast=fail_fast)
        if ready:
            from lowlight_cli.batch import Batch
            from lowlight_cli.spread import FitWork, open_pool

            batch = Batch(
                tone=tone,
                encoding=encoding,
                overwrite=overwrite,
                preserve_times=preserve_times,
                fail_fast=fail_fast,
                pixel_budget=opt.pixels(max_megapixels),
                comparison=comparison or Comparison(),
            )

            def prepare() -> FitWork:
                initial = None if init is None else read_initial(init, "zeroig", show, offline=offline).weights
                return FitWork(settings, batch, keep, compute, initial, shared)

            with open_pool(spread, device, prepare) as pool, closing(pool.run(ready)) as told:
                results.announce(pool.made_with)
                results.follow(told, partial(_draw, show))
        elif not plan.jobs and (keep.weights or keep.log):
            show.tell("nothing was fitted, so there is nothing for --save-weights and --log; --overwrite fits again")
        if comparison and plan.uncompared:
            pixel_budget = opt.pixels(max_megapixels)
            how = comparing(comparison, encoding, preserve_times=preserve_times, pixel_budget=pixel_budget)
            results.compare(how, fail_fast=fail_fast)
        results.close()


def _refuse_unclear(plan: Plan, keep: Keep, *, shared: bool, overwrite: bool) -> None:
    several = len(plan.jobs) + len(plan.skipped) > 1
    if several and not shared and (keep.weights or keep.log):
        raise SettingsError("--save-weights and --log take one photo, or several with --shared")
    if any(job.input is None or job.output is None for job in plan.jobs):
        raise SettingsError("zero-shot reads and writes files, not - streams")
    if keep.preview_folder is not None:
        _refuse_lost_previews(plan, keep.preview_folder, overwrite=overwrite)


def _refuse_lost_previews(plan: Plan, folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder where previews would take one another's names, or a photo's, or without leave any file's."""
    stems = [job.output.stem for job in plan.jobs if job.output is not None]
    if len(set(stems)) < len(stems):
        raise SettingsError("--preview-dir takes previews of photos whose results have different names")
    places = {job.input.parent.resolve() for job in (*plan.jobs, *plan.skipped) if job.input is not None}
    if folder.resolve() in places:
        raise SettingsError(f"--preview-dir takes a folder of its own, and {str(folder)!r} holds the photos")
    if not plan.jobs or overwrite or not is_folder(folder):
        return
    try:
        holds_files = any(folder.iterdir())
    except OSError as error:
        raise SettingsError(f"--preview-dir: {str(folder)!r} cannot be read: {error.strerror}") from error
    if holds_files:
        raise SettingsError(f"--preview-dir: {str(folder)!r} holds files; use --overwrite to replace those of one name")


def _draw(show: Show, event: "Told") -> None:
    from lowlight_cli.zero_shot.fit import Step

    if isinstance(event, Step):
        show.step(event.step, event.steps, "steps")
