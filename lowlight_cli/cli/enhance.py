"""`lowlight enhance`: pictures through a trained network."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import typer

from lowlight_cli.cli import options as opt
from lowlight_cli.console import Show, logged_to_stderr
from lowlight_cli.errors import LowlightError, SettingsError
from lowlight_cli.paths import Plan, plan_jobs, read_file_list
from lowlight_cli.results import FileResult, blank_result
from lowlight_cli.settings import DEFAULT_MODEL, Compute, Encoding, Metadata, Precision, Tone

if TYPE_CHECKING:
    from lowlight_cli.enhancer import Enhancer


def enhance(
    inputs: opt.Inputs = None,
    output: opt.Output = None,
    suffix: opt.Suffix = None,
    format: opt.Format = None,
    quality: opt.Quality = None,
    metadata: opt.MetadataOption = Encoding.metadata,
    overwrite: opt.Overwrite = False,
    compare: opt.Compare = False,
    preserve_times: opt.PreserveTimes = False,
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
    max_megapixels: opt.MaxPixels = None,
    recursive: opt.Recursive = False,
    files_from: opt.FilesFrom = None,
    null_separated: opt.NullSeparated = False,
    jobs: opt.Jobs = 1,
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
    opt.one_of(precision, get_args(Precision), "--precision")
    compute = Compute(device, cast(Precision, precision), opt.read_tiling(tile, overlap))
    encoding = Encoding(format, quality, cast(Metadata, metadata))
    network = opt.read_dilations(dilations)
    if weights is not None and model == DEFAULT_MODEL:
        model = weights.stem
    plan = plan_jobs(
        _named(inputs, files_from, null_separated=null_separated),
        output=output,
        recursive=recursive,
        suffix=suffix,
        format=format,
        model=model,
        variants=("compare",) if compare else (),
        overwrite=overwrite,
    )
    if dry_run:
        _tell_plan(plan, as_json=as_json)
        return
    with logged_to_stderr(quiet=quiet, verbose=verbose), Show(len(plan.jobs), quiet=quiet) as show:
        report = _Report(plan, show, as_json=as_json)
        if plan.jobs:
            from lowlight_cli.batch import Batch, enhance_files
            from lowlight_cli.enhancer import load_enhancer

            enhancer = load_enhancer(
                model,
                weights=weights,
                compute=compute,
                network=network,
                denoise=denoise,
                offline=offline,
                on_download=show.step,
            )
            show.say(_describe(enhancer))
            batch = Batch(
                tone,
                encoding,
                overwrite,
                preserve_times,
                fail_fast,
                jobs,
                None if max_megapixels is None else round(max_megapixels * 1e6),
            )
            report.follow(enhance_files(plan.jobs, enhancer, batch, on_tile=show.step))
        report.close()


def _named(inputs: list[str] | None, files_from: str | None, *, null_separated: bool) -> list[str | Path]:
    named: list[str | Path] = list(inputs or [])
    if files_from is not None:
        source = sys.stdin.buffer if files_from == "-" else Path(files_from)
        named += read_file_list(source, null_separated=null_separated)
    elif null_separated:
        raise SettingsError("-0 belongs to --files-from")
    return named


def _tell_plan(plan: Plan, *, as_json: bool) -> None:
    results = [blank_result(job, "planned") for job in plan.jobs]
    results += [blank_result(job, "skipped") for job in plan.skipped]
    for result in results:
        if as_json:
            typer.echo(json.dumps(result.as_json()))
        else:
            note = "  (exists: skipped)" if result.status == "skipped" else ""
            typer.echo(f"{result.input} -> {result.output}{note}")


def _describe(enhancer: "Enhancer") -> str:
    from lowlight_cli.device import describe_device

    return f"{enhancer.model} on {describe_device(enhancer.device)}, {enhancer.precision}"


class _Report:
    """Draws results as they come, counts them, and ends with a summary and the exit code."""

    def __init__(self, plan: Plan, show: Show, *, as_json: bool) -> None:
        self._plan, self._show, self._as_json = plan, show, as_json
        self._counts: Counter[str] = Counter(skipped=len(plan.skipped), failed=len(plan.unreadable))
        self._failures: list[str] = []

    def follow(self, results: Iterable[FileResult]) -> None:
        """Take every result; the summary is told even when an interrupt ends them."""
        try:
            for result in results:
                self._take(result)
        except KeyboardInterrupt:
            self._summarise()
            raise

    def close(self) -> None:
        """Name what was skipped and what failed; raise typer.Exit(1) if anything failed."""
        if self._as_json:
            for job in self._plan.skipped:
                typer.echo(json.dumps(blank_result(job, "skipped").as_json()))
        self._summarise()
        if self._counts["failed"]:
            raise typer.Exit(LowlightError.exit_code)

    def _take(self, result: FileResult) -> None:
        self._counts[result.status] += 1
        if self._as_json:
            typer.echo(json.dumps(result.as_json()))
        if result.error:
            self._show.tell(f"{result.input}: {result.error.message}")
        for warning in result.warnings:
            self._show.say(f"{result.input}: {warning}")
        self._show.advance(result.input)

    def _summarise(self) -> None:
        if self._plan.own_results:
            self._show.say(f"{len(self._plan.own_results)} left out: results of other inputs")
        for folder in self._plan.unreadable:
            self._show.tell(f"{folder}: the folder cannot be read")
        counts = self._counts
        parts = [f"{counts['done']} done"] if counts["done"] else []
        if counts["skipped"]:
            parts.append(f"{counts['skipped']} skipped, already there (--overwrite does them again)")
        if counts["failed"]:
            parts.append(f"{counts['failed']} failed")
        said = ", ".join(parts) or "nothing done"
        if counts["failed"]:
            self._show.tell(said)
        else:
            self._show.say(said)
