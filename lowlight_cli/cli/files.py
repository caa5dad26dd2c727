"""What all commands over files share: reading the inputs, telling the plan, reporting the results."""

import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from lowlight_cli.atomic import require_writable, written_by
from lowlight_cli.cli import options as opt
from lowlight_cli.console import Show
from lowlight_cli.errors import InputError, LowlightError, OutputError, ResourceError, SettingsError
from lowlight_cli.interrupts import interrupts_held
from lowlight_cli.paths import Job, Plan, read_file_list, why_unreadable
from lowlight_cli.results import Failure, FileResult, blank_result, failed_result, last_told, name_of, printable
from lowlight_cli.settings import Comparison, Encoding

if TYPE_CHECKING:
    from lowlight_cli.images import Thumbnail
    from lowlight_cli.report.files import Contents, FilesReport
    from lowlight_cli.spread import Told

_LOOK_SIDE = 360  # of each of the two pictures in a terminal


def named_inputs(inputs: list[str] | None, files_from: str | None, *, null_separated: bool) -> list[str | Path]:
    """Return the inputs of the command line and of `--files-from`; raises SettingsError."""
    named: list[str | Path] = list(inputs or [])
    if files_from is not None:
        if files_from == "-" and sys.stdin is None:
            raise SettingsError("--files-from -: standard input is closed")
        source = sys.stdin.buffer if files_from == "-" else Path(files_from)
        named += read_file_list(source, null_separated=null_separated)
    elif null_separated:
        raise SettingsError("-0 belongs to --files-from")
    return named


def tell_plan(plan: Plan, *, as_json: bool) -> None:
    """Print what `--dry-run` is asked for: a line per file or an object per job."""
    uncompared = set(plan.uncompared)
    planned = [(blank_result(job, "planned"), job.variants) for job in plan.jobs]
    planned += [(blank_result(job, "skipped"), job.missing if job in uncompared else ()) for job in plan.skipped]
    for result, variants in planned:
        if as_json:
            typer.echo(json.dumps({**result.as_json(), "variants": [name_of(path) for path in variants]}))
            continue
        note = "  (exists: skipped)" if result.status == "skipped" else ""
        typer.echo(f"{printable(result.input)} -> {printable(result.output)}{note}")
        for path in variants:
            typer.echo(f"{printable(result.input)} -> {printable(name_of(path))}")


@contextmanager
def planned_page(
    target: Path | None, plan: Plan, contents: "Callable[[int], Contents]", *, overwrite: bool
) -> "Iterator[FilesReport | None]":
    """Yield the page that `--report` asks for, if it does; raises SettingsError for a name that cannot be meant.

    `contents` says, for so many files, what the page shows of them.
    """
    if target is None:
        yield None
        return
    from lowlight_cli.report.files import FilesReport

    shown = contents(len(plan.jobs) + len(plan.skipped))
    command = shlex.join(["lowlight", *sys.argv[1:]])
    with closing(FilesReport(target, plan, shown, command=command, overwrite=overwrite)) as page:
        yield page


def pictures(files: int, *, max_megapixels: float | None) -> "Contents":
    """Return what a page shows of pictures."""
    from lowlight_cli.report.pictures import Pictures

    return Pictures(files, pixel_budget=opt.pixels(max_megapixels))


def looking(wanted: bool, plan: Plan, show: Show) -> "Callable[[FileResult], None] | None":
    """Return what shows a result in the terminal, as `--show` asks for; None where nobody asks or nothing can."""
    if not wanted or not show.is_terminal:
        return None
    from lowlight_cli.terminal import drawn, protocol_of

    protocol = protocol_of(os.environ)
    if protocol is None:
        show.say("--show: this terminal does not say that it shows pictures")
        return None
    from lowlight_cli.comparison import compared
    from lowlight_cli.images import Picture, read_picture, thumbnail_of

    jobs = {name_of(job.input): job for job in plan.jobs}

    def look(result: FileResult) -> None:
        job = jobs[result.input]
        if job.input is None or job.output is None:
            return
        with suppress(LowlightError):  # it went away, or cannot be read any more: there is nothing to look at
            before, after = (Picture(thumbnail_of(read_picture(each), _LOOK_SIDE)) for each in (job.input, job.output))
            both = compared(before, after).pixels
            show.write(drawn(cast("Thumbnail", both), protocol))

    return look


def comparing(
    how: Comparison, encoding: Encoding, *, preserve_times: bool, pixel_budget: int | None
) -> Callable[[Job], None]:
    """Return what draws the comparison of a picture with the result that an earlier run made."""
    from lowlight_cli.comparison import compare_job

    return partial(compare_job, how=how, encoding=encoding, preserve_times=preserve_times, pixel_budget=pixel_budget)


class Report:
    """Draws results as they come, counts them, and ends with a summary, a page if asked for, and the exit code."""

    def __init__(
        self,
        plan: Plan,
        show: Show,
        *,
        as_json: bool,
        page: "FilesReport | None" = None,
        look: "Callable[[FileResult], None] | None" = None,
    ) -> None:
        self._plan, self._show, self._as_json, self._page = plan, show, as_json, page
        self._look = look
        self._made_with = ""
        self._told: FileResult | None = None
        self._counts: Counter[str] = Counter(failed=len(plan.unreadable))
        uncompared = set(plan.uncompared)
        self._passed = [job for job in plan.skipped if job not in uncompared]
        self._failures: list[str] = []

    def announce(self, made_with: str) -> None:
        """Say which model runs where."""
        self._made_with = made_with
        self._show.say(made_with)

    def writable(self, jobs: Sequence[Job], *, fail_fast: bool) -> list[Job]:
        """Return the jobs whose folders take their results; the others fail here, before there is any work."""
        folders = {path: written_by(path).parent for job in jobs for path in job.files}
        refused: dict[Path, OutputError] = {}
        for folder, path in {folder: path for path, folder in folders.items()}.items():
            try:
                require_writable(path)
            except OutputError as error:
                refused[folder] = error
        ready = []
        for job in jobs:
            refusal = next((refused[folders[path]] for path in job.files if folders[path] in refused), None)
            if refusal is None:
                ready.append(job)
                continue
            self._take(failed_result(blank_result(job, "failed"), refusal))
            if fail_fast:
                return []
        return ready

    def follow(self, told: "Generator[Told]", draw: "Callable[[Told], None]" = lambda _: None) -> None:
        """Draw every event and take every result; an interrupt has its summary and its page too."""
        event: Told | None = None
        try:
            for event in told:
                draw(event)
                self._take(event)
        except KeyboardInterrupt as stop:
            self._tell(event)
            for event in last_told(told, stop):
                self._take(event)
            self._summarise()
            self._write_interrupted_page()
            raise

    def compare(self, show_both: "Callable[[Job], None]", *, fail_fast: bool) -> None:
        """Have the comparisons drawn whose results an earlier run made; each fails by itself."""
        if not fail_fast or self._counts["failed"] == len(self._plan.unreadable):
            self.follow(_compared(self._plan.uncompared, show_both, fail_fast=fail_fast))

    def close(self) -> None:
        """Name what was skipped and what failed; raise typer.Exit(1) if anything failed."""
        if self._as_json:
            for job in self._passed:
                typer.echo(json.dumps(blank_result(job, "skipped").as_json()))
            for path in self._plan.unreadable:
                failure = Failure(InputError.code, why_unreadable(path))
                typer.echo(json.dumps(FileResult(name_of(path), "", "failed", failure).as_json()))
        self._summarise()
        self._write_page()
        if self._counts["failed"]:
            raise typer.Exit(LowlightError.exit_code)

    def _take(self, result: "Told") -> None:
        if not isinstance(result, FileResult):
            return
        self._tell(result)
        if self._page:
            self._page.add(result)
        if self._look and result.status == "done":
            self._look(result)
        if result.error:
            self._show.tell(f"{result.input}: {result.error.message}")
        for warning in result.warnings:
            self._show.say(f"{result.input}: {warning}")
        self._show.advance(result.input)

    def _tell(self, result: "Told | None") -> None:
        """Count a result and print it as JSON: both and once, whenever an interrupt comes."""
        with interrupts_held():
            if not isinstance(result, FileResult) or result is self._told:
                return
            self._told = result
            self._counts[result.status] += 1
            self._counts["unchanged"] += result.status == "done" and result.stops == 0
            if self._as_json:
                typer.echo(json.dumps(result.as_json()))

    def _write_page(self) -> None:
        if not self._page:
            return
        try:
            self._page.write(made_with=self._made_with)
        except KeyboardInterrupt:
            self._write_interrupted_page()
            raise
        self._show.say(f"report: {self._page.target}")

    def _write_interrupted_page(self) -> None:
        """Write what there is to tell; an interrupt weighs more than a page that cannot be written."""
        if not self._page:
            return
        try:
            self._page.write(made_with=self._made_with, interrupted=True)
        except LowlightError as error:
            self._show.tell(str(error))

    def _summarise(self) -> None:
        if self._plan.own_results:
            self._show.say(f"{len(self._plan.own_results)} left out: results of other inputs")
        for path in self._plan.unreadable:
            self._show.tell(f"{path}: {why_unreadable(path)}")
        counts = self._counts
        parts = [f"{counts['done']} done"] if counts["done"] else []
        if counts["unchanged"]:
            parts[0] += f" ({counts['unchanged']} unchanged: bright enough, unless --exposure says more)"
        if counts["compared"]:
            parts.append(f"{counts['compared']} compared with what was there")
        if self._passed:
            lacking = sum(bool(job.missing) for job in self._passed)
            without = f", {lacking} of them without all their files" if lacking else ""
            parts.append(f"{len(self._passed)} skipped, already there{without} (--overwrite does them again)")
        if counts["failed"]:
            parts.append(f"{counts['failed']} failed")
        said = ", ".join(parts) or "nothing done"
        if counts["failed"]:
            self._show.tell(said)
        else:
            self._show.say(said)


def _compared(jobs: Sequence[Job], show_both: Callable[[Job], None], *, fail_fast: bool) -> "Generator[Told]":
    for job in jobs:
        result = blank_result(job, "compared")
        try:
            show_both(job)
        except LowlightError as error:
            result = failed_result(result, error)
        except MemoryError:
            result = failed_result(result, ResourceError("memory ran out while it was compared; end other programs"))
        yield result
        if fail_fast and result.error:
            return
