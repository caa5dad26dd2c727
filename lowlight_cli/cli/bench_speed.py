"""What `lowlight bench` shows: the machine, a row for each case, and what changed since another day."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from lowlight_cli.atomic import write_atomically
from lowlight_cli.bench.compare import Change, compare_reports, differences
from lowlight_cli.bench.rows import BenchRow, Machine, Report, read_report
from lowlight_cli.bench.settings import Speed
from lowlight_cli.console import Show, logged_to_stderr
from lowlight_cli.paths import require_ending, require_free, require_own_names
from lowlight_cli.results import printable

_HEADINGS = ("what", "of", "size", "seconds", "spread", "a second", "peak", "relative")


@dataclass(frozen=True)
class Extras:
    """What is made of a report besides printing it."""

    plot: Path | None = None
    compare: Path | None = None
    overwrite: bool = False


def show_speed(speed: Speed, extras: Extras, *, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Measure and print; raises what loading models raises, before any measurement."""
    if extras.plot:
        require_ending(extras.plot, (".png",), "--plot")
        require_free(extras.plot, overwrite=extras.overwrite)
        require_own_names([extras.plot], inputs=[*speed.weights, *([extras.compare] if extras.compare else [])])
    old = read_report(extras.compare) if extras.compare else None
    with logged_to_stderr(quiet=quiet, verbose=verbose):
        report = _measured(speed, quiet=quiet)
        _print_report(report, as_json=as_json)
        if old:
            _print_changes(report, old, as_json=as_json)
        if extras.plot:
            from lowlight_cli.bench.chart import draw_chart

            write_atomically(extras.plot, draw_chart(report), overwrite=extras.overwrite)


def _measured(speed: Speed, *, quiet: bool) -> Report:
    from lowlight_cli.bench.cases import plan_cases
    from lowlight_cli.bench.measure import describe_machine, measure_cases
    from lowlight_cli.device import choose_device

    device = choose_device(speed.compute.device)
    with TemporaryDirectory(prefix="lowlight-bench-") as folder, Show(1, noun="bench", quiet=quiet) as show:
        cases = list(plan_cases(speed, Path(folder)))
        told = show.steps_of("measurements")
        rows = tuple(measure_cases(cases, device=device, repeat=speed.repeat, on_measurement=told))
        return Report(describe_machine(device, speed.compute), rows)


def _print_report(report: Report, *, as_json: bool) -> None:
    if as_json:
        for told in (report.machine.as_json(), *(row.as_json() for row in report.rows)):
            typer.echo(json.dumps(told))
        return
    typer.echo(_described(report.machine))
    typer.echo("")
    _print_table([_HEADINGS, *(_cells(row) for row in report.rows)], left=3)
    _print_networks(report.rows)


def _described(machine: Machine) -> str:
    versions = f"lowlight {machine.lowlight}, torch {machine.torch}, Python {machine.python}"
    return f"{machine.described}; {versions}; {machine.system}"


def _cells(row: BenchRow) -> tuple[str, ...]:
    peak = row.peak_bytes or row.gpu_bytes
    return (
        row.kind,
        row.name,
        row.size,
        f"{row.median:.4g}",
        f"{row.spread:.0%}",
        f"{row.per_second:.4g} {row.unit}",
        f"{peak / 1e6:.0f} MB" if peak else "-",
        f"{row.relative_median:.2f}" if row.relative else "-",
    )


def _print_networks(rows: Iterable[BenchRow]) -> None:
    networks = {row.name: row for row in rows if row.parameters and row.gmacs}
    if networks:
        typer.echo("")
        for name, row in networks.items():
            typer.echo(f"{printable(name)}: {row.parameters:,} parameters, {row.gmacs:.2f} GMACs at 256x256")


def _print_changes(report: Report, old: Report, *, as_json: bool) -> None:
    changes = list(compare_reports(report, old))
    if as_json:
        for change in changes:
            typer.echo(json.dumps(change.as_json()))
        return
    typer.echo("")
    for name, (ours, theirs) in differences(report, old).items():
        typer.echo(printable(f"{name} was {theirs} and is {ours}"))
    headings = ("what", "of", "size", "time", "certain above", "verdict")
    _print_table([headings, *(_change_cells(change) for change in changes)], left=3)
    if not changes:
        typer.echo("the reports have no row in common")


def _change_cells(change: Change) -> tuple[str, ...]:
    row = change.row
    time, bound = f"x {change.ratio:.3f}", f"x {change.certain_above:.3f}"
    return row.kind, row.name, row.size, time, bound, change.verdict


def _print_table(lines: Sequence[Sequence[str]], *, left: int) -> None:
    """Print lines in columns, the first `left` of them aligned left."""
    shown = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for line in shown:
        cells = (
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        typer.echo("  ".join(cells).rstrip())
