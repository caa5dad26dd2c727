"""What all commands over files share: telling the plan, reporting the results."""

import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from lowlight_cli.atomic import require_writable, written_by
from lowlight_cli.cli.groups import Running
from lowlight_cli.console import Show, logged_to_stderr
from lowlight_cli.errors import InputError, LowlightError, OutputError, ResourceError
from lowlight_cli.interrupts import interrupts_held
from lowlight_cli.paths import Job, Plan, why_unreadable
from lowlight_cli.results import Failure, FileResult, blank_result, failed_result, last_told, name_of, printable
from lowlight_cli.settings import Engine

if TYPE_CHECKING:
    from lowlight_cli.images import Thumbnail
    from lowlight_cli.report.files import Contents, FilesReport
    from lowlight_cli.spread import Told
    from lowlight_cli.spread.work import Work

_LOOK_SIDE = 360  # of each of the two pictures in a terminal


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


def pictures(files: int, *, pixel_budget: int | None) -> "Contents":
    """Return what a page shows of pictures."""
    from lowlight_cli.report.pictures import Pictures

    return Pictures(files, pixel_budget=pixel_budget)


@contextmanager
def followed(
    plan: Plan,
    running: Running,
    report: Path | None,
    contents: "Callable[[int], Contents]",
    *,
    overwrite: bool,
    noun: str = "files",
    look: bool = False,
) -> "Iterator[Results]":
    """Yield what does a plan's work and tells of it: on the terminal, and on the page `report` if there is one.

    `contents` says, for so many files, what the page shows of them; `noun` is what is counted, and `look` asks for
    pictures in the terminal. Afterwards comes the summary.

    Raises SettingsError for a page's name that cannot be meant, and typer.Exit(1) if anything failed.
    """
    with (
        _planned_page(report, plan, contents, overwrite=overwrite) as page,
        logged_to_stderr(quiet=running.quiet, verbose=running.verbose),
        Show(len(plan.jobs) + len(plan.uncompared), noun=noun, quiet=running.quiet) as show,
    ):
        results = Results(
            plan,
            show,
            as_json=running.as_json,
            fail_fast=running.fail_fast,
            page=page,
            look=_looking(plan, show) if look else None,
        )
        yield results
        results.close()


@contextmanager
def _planned_page(
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


def _looking(plan: Plan, show: Show) -> "Callable[[FileResult], None] | None":
    """Return what shows a result in the terminal, as `--show` asks for; None where nothing can."""
    if not show.is_terminal:
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


class Results:
    """Draws results as they come, counts them, and ends with a summary, a page if asked for, and the exit code.

    `show` is the terminal that they are drawn on.
    """

    def __init__(
        self,
        plan: Plan,
        show: Show,
        *,
        as_json: bool,
        fail_fast: bool,
        page: "FilesReport | None" = None,
        look: "Callable[[FileResult], None] | None" = None,
    ) -> None:
        self.show = show
        self._plan, self._as_json, self._fail_fast = plan, as_json, fail_fast
        self._page, self._look = page, look
        self._made_with = ""
        self._told: FileResult | None = None
        self._counts: Counter[str] = Counter(failed=len(plan.unreadable))
        uncompared = set(plan.uncompared)
        self._passed = [job for job in plan.skipped if job not in uncompared]

    def ready(self, engine: Engine) -> Sequence[Job]:
        """Return the jobs to do: those whose folders take their results."""
        # A cluster's machines write themselves, and where this one cannot they may.
        return self._plan.jobs if engine.kind == "ray" else self.writable(self._plan.jobs, fail_fast=self._fail_fast)

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

    def run(
        self,
        jobs: Sequence[Job],
        prepare: "Callable[[], Work]",
        engine: Engine,
        device: str,
        *,
        draw: "Callable[[Told], None]" = lambda _: None,
    ) -> None:
        """Have the jobs done, if there are any, by the workers of `open_pool`, and raise what it raises.

        `prepare` says what to do with them; it may load torch, and be slow. `draw` is shown every event first.
        """
        if not jobs:
            return
        from lowlight_cli.spread import open_pool

        with (
            open_pool(engine, device, prepare, on_tile=self.show.steps_of("tiles")) as pool,
            # An interrupt must end the work at once, not when the generator happens to be collected.
            closing(pool.run(jobs)) as told,
        ):
            self._made_with = pool.made_with
            self.show.say(pool.made_with)
            self._follow(told, draw)

    def compare(self, show_both: "Callable[[Job], None]") -> None:
        """Have the comparisons drawn whose results an earlier run made; each fails by itself."""
        if not self._fail_fast or self._counts["failed"] == len(self._plan.unreadable):
            self._follow(_compared(self._plan.uncompared, show_both, fail_fast=self._fail_fast))

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

    def _follow(self, told: "Generator[Told]", draw: "Callable[[Told], None]" = lambda _: None) -> None:
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

    def _take(self, result: "Told") -> None:
        if not isinstance(result, FileResult):
            return
        self._tell(result)
        if self._page:
            self._page.add(result)
        if self._look and result.status == "done":
            self._look(result)
        if result.error:
            self.show.tell(f"{result.input}: {result.error.message}")
        for warning in result.warnings:
            self.show.say(f"{result.input}: {warning}")
        self.show.advance(result.input)

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
        self.show.say(f"report: {self._page.target}")

    def _write_interrupted_page(self) -> None:
        """Write what there is to tell; an interrupt weighs more than a page that cannot be written."""
        if not self._page:
            return
        try:
            self._page.write(made_with=self._made_with, interrupted=True)
        except LowlightError as error:
            self.show.tell(str(error))

    def _summarise(self) -> None:
        if self._plan.own_results:
            self.show.say(f"{len(self._plan.own_results)} left out: results of other inputs")
        for path in self._plan.unreadable:
            self.show.tell(f"{path}: {why_unreadable(path)}")
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
            self.show.tell(said)
        else:
            self.show.say(said)


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
