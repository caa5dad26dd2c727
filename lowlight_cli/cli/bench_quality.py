"""What `lowlight bench --pairs` shows: a row for each picture and method, then each method's means."""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from lowlight_cli.cli import options as opt
from lowlight_cli.console import Show, logged_to_stderr
from lowlight_cli.errors import LowlightError, SettingsError
from lowlight_cli.pairs import Split, find_pairs
from lowlight_cli.paths import require_ending, require_free, require_own_names
from lowlight_cli.report.words import figures_in_words
from lowlight_cli.results import printable
from lowlight_cli.settings import Compute

if TYPE_CHECKING:
    from lowlight_cli.metrics import Score, ScoreName
    from lowlight_cli.quality import MethodSummary, QualityRow, Sample
    from lowlight_cli.report.quality import QualityReport

_SHEET_SIDE = 320
_NAMED = 3
_COLUMNS = ("PSNR", "SSIM", "PSNR GT-mean", "SSIM GT-mean", "mean", "seconds")


@dataclass(frozen=True)
class QualityWanted:
    """Which pictures are measured against which, with which models and scores, and where they are drawn."""

    pairs: tuple[Path, Path]
    models: Sequence[str]
    weights: Sequence[Path]
    compute: Compute
    split: Split | None = None
    scores: Sequence[str] = ()
    sheet: Path | None = None
    overwrite: bool = False
    offline: bool = False
    report: Path | None = None
    network: Mapping[str, object] = field(default_factory=dict)
    denoise: float | None = None


def show_quality(wanted: QualityWanted, *, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Measure and print; raises typer.Exit(1) when a picture failed, and what loading models raises."""
    sheet = wanted.sheet
    names = [cast("ScoreName", opt.one_of(name, ("lpips", "brisque"), "--score")) for name in wanted.scores]
    if names and wanted.offline:
        raise SettingsError("--score fetches weights of its own, so it does not go with --offline")
    if sheet:
        require_ending(sheet, (".png",), "--sheet")
        require_free(sheet, overwrite=wanted.overwrite)
    found = find_pairs(*wanted.pairs, split=wanted.split)
    sources = [path for pair in found.pairs for path in (pair.low, pair.reference)]
    sources += [*found.unpaired_low, *found.unpaired_reference, *wanted.weights]
    require_own_names([path for path in (sheet, wanted.report) if path is not None], inputs=sources)
    from lowlight_cli.metrics import load_score
    from lowlight_cli.quality import load_methods, measure_samples, samples_of, summarise, write_quality_sheet

    samples = samples_of(found)
    with (
        _planned_page(wanted, samples) as page,
        logged_to_stderr(quiet=quiet, verbose=verbose),
        Show(len(samples), noun="pictures", quiet=quiet) as show,
    ):
        _tell_of_lone(found.unpaired_reference, show)
        scores: dict[str, Score] = {name: load_score(name) for name in names}
        methods = load_methods(
            wanted.models,
            weights=wanted.weights,
            network=wanted.network,
            denoise=wanted.denoise,
            compute=wanted.compute,
            offline=wanted.offline,
        )
        side = max(_SHEET_SIDE if sheet else 0, page.side if page else 0)
        measured = measure_samples(samples, methods, scores=scores, thumbnail_side=side)
        table = _Table(samples, list(methods), names, as_json=as_json)
        followed = _followed(measured, table, show, len(methods))
        rows = list(_paged(followed, page, keep_thumbnails=sheet is not None) if page else followed)
        summaries = summarise(rows)
        for summary in summaries:
            table.close(summary)
        if sheet:
            write_quality_sheet(sheet, rows, overwrite=wanted.overwrite)
            show.say(f"sheet: {sheet}")
        if page:
            page.write(summaries, made_with=_made_with(wanted))
            show.say(f"report: {page.target}")
        failed = len({row.sample for row in rows if row.error})
        if failed:
            show.tell(f"{failed} of {len(samples)} pictures failed")
            raise typer.Exit(LowlightError.exit_code)


def _tell_of_lone(references: Sequence[Path], show: Show) -> None:
    """Name the first few references that nothing is compared with, and count them all."""
    for path in references[:_NAMED]:
        show.say(f"left out: {path}: no dark picture has its name")
    if len(references) > _NAMED:
        show.say(f"left out in all: {len(references)} references")


@contextmanager
def _planned_page(wanted: QualityWanted, samples: "Sequence[Sample]") -> "Iterator[QualityReport | None]":
    """Yield the page that `--report` asks for, if it does; raises SettingsError for a name that cannot be meant."""
    if wanted.report is None:
        yield None
        return
    from lowlight_cli.quality import BASELINES
    from lowlight_cli.report.quality import QualityReport

    report = QualityReport(
        wanted.report,
        samples,
        methods=len(BASELINES) + len(wanted.models) + len(wanted.weights),
        scores=wanted.scores,
        command=shlex.join(["lowlight", *sys.argv[1:]]),
        overwrite=wanted.overwrite,
    )
    with closing(report) as page:
        yield page


def _paged(rows: "Iterator[QualityRow]", page: "QualityReport", *, keep_thumbnails: bool) -> "Iterator[QualityRow]":
    """Pass rows on, with no more of their pictures than a sheet needs; an interrupt writes the page as far as it is."""
    from lowlight_cli.images import shrunk
    from lowlight_cli.quality import summarise

    try:
        for row in rows:
            page.add(row)
            kept = row.thumbnail if keep_thumbnails else None
            yield replace(row, thumbnail=None if kept is None else shrunk(kept, _SHEET_SIDE))
    except KeyboardInterrupt:
        with suppress(LowlightError):  # the interrupt weighs more
            page.write(summarise(page.rows), interrupted=True)
        raise


def _made_with(wanted: QualityWanted) -> str:
    from lowlight_cli.device import choose_device, describe_device, precision_used

    device = choose_device(wanted.compute.device)
    names = ", ".join([*wanted.models, *map(str, wanted.weights)])
    return f"{names} on {describe_device(device)}, {precision_used(wanted.compute.precision, device)}"


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
        self._name_width = max(len(printable(name)) for name in ["mean of 99999", *(each.name for each in samples)])
        self._method_width = max(len(printable(name)) for name in methods)
        if not as_json:
            self._line("picture", "method", (*_COLUMNS, *scores))

    def add(self, row: "QualityRow") -> None:
        """Print one result."""
        if self._as_json:
            typer.echo(json.dumps(row.as_json()))
        elif not row.error:
            self._line(row.sample.name, row.method, figures_in_words(row, self._scores))

    def close(self, summary: "MethodSummary") -> None:
        """Print one method's means, after all results."""
        if self._as_json:
            typer.echo(json.dumps(summary.as_json()))
            return
        if not self._closing:
            self._closing = True
            typer.echo("")
        self._line(f"mean of {summary.pairs}", summary.method, figures_in_words(summary, self._scores))

    def _line(self, name: str, method: str, cells: Sequence[str]) -> None:
        widths = [len(title) for title in (*_COLUMNS, *self._scores)]
        numbers = "  ".join(cell.rjust(max(width, 7)) for cell, width in zip(cells, widths, strict=True))
        typer.echo(f"{printable(name):<{self._name_width}}  {printable(method):<{self._method_width}}  {numbers}")
