"""`lowlight enhance`: pictures through a trained network."""

import sys
from contextlib import closing
from functools import partial
from typing import cast, get_args

from lowlight_cli.cli import options as opt
from lowlight_cli.cli.files import Report, comparing, looking, named_inputs, pictures, planned_page, tell_plan
from lowlight_cli.console import Show, logged_to_stderr
from lowlight_cli.errors import SettingsError
from lowlight_cli.paths import part_plan, plan_jobs, read_shard
from lowlight_cli.settings import DEFAULT_MODEL, Comparison, Compute, Encoding, Engine, Metadata, Tone


def enhance(
    inputs: opt.Inputs = None,
    output: opt.Output = None,
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
    model: opt.Model = DEFAULT_MODEL,
    weights: opt.WeightsOption = None,
    dilations: opt.Dilations = None,
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
    max_megapixels: opt.MaxPixels = None,
    recursive: opt.Recursive = False,
    files_from: opt.FilesFrom = None,
    null_separated: opt.NullSeparated = False,
    shard: opt.Shard = None,
    engine: opt.EngineOption = Engine.kind,
    ray_address: opt.RayAddress = None,
    workers: opt.Workers = None,
    gpus_per_worker: opt.GpusPerWorker = None,
    jobs: opt.Jobs = 1,
    show_pictures: opt.ShowPictures = False,
    dry_run: opt.DryRun = False,
    fail_fast: opt.FailFast = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Make dark photos bright and clean with a trained network.

    [bold]lowlight enhance photo.jpg[/bold]                  writes photo_lowlight.jpg
    [bold]lowlight enhance shoot/ -r -o bright/[/bold]       a folder, its tree kept
    [bold]lowlight enhance *.jpg --compare --exposure 0.5[/bold]
    """
    tone = Tone(strength, exposure, protect_highlights, denoise)
    opt.one_of(metadata, get_args(Metadata), "--metadata")
    compute = opt.read_compute(device, precision, tile, overlap, compiling)
    encoding = Encoding(format, quality, cast(Metadata, metadata))
    network = opt.read_dilations(dilations, weights)
    comparison = opt.read_comparison(compare, compare_style, compare_size)
    spread = opt.read_engine(engine, ray_address, workers, gpus_per_worker)
    model = opt.name_model(model, weights)
    named = named_inputs(inputs, files_from, null_separated=null_separated)
    plan = plan_jobs(
        named,
        output=output,
        recursive=recursive,
        suffix=suffix,
        format=format,
        model=model,
        variants=("compare",) if comparison else (),
        beside=() if report is None else (report,),
        overwrite=overwrite,
    )
    opt.check_quality(encoding, plan, named)
    if not dry_run and any(job.output is None for job in plan.jobs):
        _refuse_misused_stdout(as_json=as_json)
    plan = plan if shard is None else part_plan(plan, read_shard(shard))
    if dry_run:
        tell_plan(plan, as_json=as_json)
        return
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
            from lowlight_cli.enhancer import find_model
            from lowlight_cli.spread import PictureWork, open_pool

            batch = Batch(
                tone=tone,
                encoding=encoding,
                overwrite=overwrite,
                preserve_times=preserve_times,
                fail_fast=fail_fast,
                threads=jobs,
                pixel_budget=opt.pixels(max_megapixels),
                comparison=comparison or Comparison(),
            )

            def prepare() -> PictureWork:
                on_download = show.steps_of("bytes")
                found = find_model(
                    model, weights=weights, network=network, denoise=denoise, offline=offline, on_download=on_download
                )
                return PictureWork(found, compute, batch)

            on_tile = show.steps_of("tiles")
            with open_pool(spread, device, prepare, on_tile=on_tile) as pool, closing(pool.run(ready)) as told:
                results.announce(pool.made_with)
                results.follow(told)
        if comparison and plan.uncompared:
            pixel_budget = opt.pixels(max_megapixels)
            how = comparing(comparison, encoding, preserve_times=preserve_times, pixel_budget=pixel_budget)
            results.compare(how, fail_fast=fail_fast)
        results.close()


def _refuse_misused_stdout(*, as_json: bool) -> None:
    """Refuse a picture on a standard output that is a person's, or where JSON goes; raises SettingsError."""
    if as_json:
        raise SettingsError("--json and the picture cannot both go to standard output; give --output a file name")
    if sys.stdout is not None and sys.stdout.isatty():
        raise SettingsError("standard output is a terminal; redirect it or give --output a name")
