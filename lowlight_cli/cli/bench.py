"""`lowlight bench`: what models are worth, in numbers against references and in pictures to look at."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from lowlight_cli.cli import options as opt
from lowlight_cli.console import Show, logged_to_stderr
from lowlight_cli.errors import LowlightError, SettingsError
from lowlight_cli.pairs import Split, find_pairs
from lowlight_cli.settings import DEFAULT_MODEL, Compute, Precision

if TYPE_CHECKING:
    from lowlight_cli.metrics import Quality, Score, ScoreName
    from lowlight_cli.quality import MethodSummary, QualityRow, Sample

_SHEET_SIDE = 320
_COLUMNS = ("PSNR", "SSIM", "PSNR GT-mean", "SSIM GT-mean", "mean", "seconds")

PairsOption = Annotated[
    tuple[Path, Path],
    typer.Option(
        "--pairs",
        metavar="LOW REFERENCE",
        help="Two folders (or files) of equal names; twice the same folder finds LOL, LOL-v2, LOL-Blur or LSRW in it.",
    ),
]
SplitOption = Annotated[
    str | None, typer.Option("--split", metavar="train|test", help="Of a data set, only this part.")
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="A name from `lowlight weights list`; may be repeated.", show_default=DEFAULT_MODEL),
]
WeightsFiles = Annotated[
    list[Path] | None, typer.Option("--weights", help="A file of weights; may be repeated.", show_default=False)
]
Scores = Annotated[
    list[str] | None,
    typer.Option("--score", metavar="lpips|brisque", help="A learned score as well; needs lowlight-cli\\[metrics]."),
]
Sheet = Annotated[Path | None, typer.Option("--sheet", metavar="FILE.png", help="Draw inputs, results and references.")]


def bench(
    pairs: PairsOption,
    split: SplitOption = None,
    model: Models = None,
    weights: WeightsFiles = None,
    score: Scores = None,
    sheet: Sheet = None,
    overwrite: opt.Overwrite = False,
    offline: opt.Offline = False,
    device: opt.Device = Compute.device,
    precision: opt.PrecisionOption = Compute.precision,
    tile: opt.Tile = "auto",
    overlap: opt.Overlap = Compute.tiling.overlap,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Measure models against references: PSNR and SSIM, plain and GT-mean.

    [bold]lowlight bench --pairs low/ high/ --model darkir-small --sheet sheet.png[/bold]

    `input` (left alone) and `gamma` (a curve to mean 0.45) are measured as well.
    GT-mean values are taken after the result was scaled to the reference's
    brightness: they forgive a wrong exposure, and are usually 3 to 5 dB higher.
    """
    opt.one_of(precision, get_args(Precision), "--precision")
    wanted = None if split is None else cast(Split, opt.one_of(split, get_args(Split), "--split"))
    names = [cast("ScoreName", opt.one_of(name, ("lpips", "brisque"), "--score")) for name in score or ()]
    if names and offline:
        raise SettingsError("--score fetches weights of its own, so it does not go with --offline")
    if sheet and sheet.exists() and not overwrite:
        raise SettingsError(f"{sheet} exists; --overwrite replaces it")
    found = find_pairs(*pairs, split=wanted)
    models = model or ([] if weights else [DEFAULT_MODEL])
    compute = Compute(device, cast(Precision, precision), opt.read_tiling(tile, overlap))
    from lowlight_cli.metrics import load_score
    from lowlight_cli.quality import load_methods, measure_samples, samples_of, summarise, write_quality_sheet

    samples = samples_of(found)
    with logged_to_stderr(quiet=quiet, verbose=verbose), Show(len(samples), noun="pictures", quiet=quiet) as show:
        scores: dict[str, Score] = {name: load_score(name) for name in names}
        methods = load_methods(models, weights=weights or (), compute=compute, offline=offline)
        side = _SHEET_SIDE if sheet else 0
        measured = measure_samples(samples, methods, scores=scores, thumbnail_side=side)
        table = _Table(samples, list(methods), names, as_json=as_json)
        rows = list(_followed(measured, table, show, len(methods)))
        for summary in summarise(rows):
            table.close(summary)
        if sheet:
            write_quality_sheet(sheet, rows, overwrite=overwrite)
            show.say(f"sheet: {sheet}")
        failed = len({row.sample for row in rows if row.error})
        if failed:
            show.tell(f"{failed} of {len(samples)} pictures failed")
            raise typer.Exit(LowlightError.exit_code)


def _followed(rows: "Iterator[QualityRow]", table: "_Table", show: Show, methods: int) -> "Iterator[QualityRow]":
    """Pass rows on as they come, printed; a picture whose every method is through advances the progress."""
    told: LowlightError | None = None
    for number, row in enumerate(rows, 1):
        table.add(row)
        if row.error and row.error is not told:  # a picture that cannot be read fails once for all methods
            show.tell(f"{row.sample.name}, {row.method}: {row.error}")
            told = row.error
        if number % methods == 0:
            show.advance(row.sample.name)
        yield row


class _Table:
    """Prints rows on stdout as they come: a table for people, or one JSON object a line."""

    def __init__(
        self, samples: "Sequence[Sample]", methods: Sequence[str], scores: Sequence[str], *, as_json: bool
    ) -> None:
        self._as_json = as_json
        self._scores = scores
        self._closing = False
        self._name_width = max(len(_plain(name)) for name in ["mean of 99999", *(each.name for each in samples)])
        self._method_width = max(map(len, methods))
        if not as_json:
            self._line("picture", "method", (*_COLUMNS, *scores))

    def add(self, row: "QualityRow") -> None:
        """Print one result."""
        if self._as_json:
            typer.echo(json.dumps(row.as_json()))
        elif not row.error:
            self._line(row.sample.name, row.method, self._cells(row))

    def close(self, summary: "MethodSummary") -> None:
        """Print one method's means, after all results."""
        if self._as_json:
            typer.echo(json.dumps(summary.as_json()))
            return
        if not self._closing:
            self._closing = True
            typer.echo("")
        self._line(f"mean of {summary.pairs}", summary.method, self._cells(summary))

    def _cells(self, row: "QualityRow | MethodSummary") -> list[str]:
        cells = [*_quality_cells(row.quality), f"{row.mean:.3f}", f"{row.seconds:.3f}"]
        return cells + [f"{row.scores[name]:.3f}" if name in row.scores else "-" for name in self._scores]

    def _line(self, name: str, method: str, cells: Sequence[str]) -> None:
        widths = [len(title) for title in (*_COLUMNS, *self._scores)]
        numbers = "  ".join(cell.rjust(max(width, 7)) for cell, width in zip(cells, widths, strict=True))
        typer.echo(f"{_plain(name):<{self._name_width}}  {method:<{self._method_width}}  {numbers}")


def _quality_cells(quality: "Quality | None") -> list[str]:
    if quality is None:
        return ["-"] * 4
    plain = (f"{quality.psnr:.2f}", f"{quality.ssim:.4f}")
    return [*plain, f"{quality.psnr_gt_mean:.2f}", f"{quality.ssim_gt_mean:.4f}"]


def _plain(name: str) -> str:
    """Escape what is no text in a file's name, and line breaks."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")
