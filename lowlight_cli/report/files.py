"""The report on files: before and after of each, what was done and how long it took, and what failed for which reason.

What is shown is read from the files themselves, inputs and results alike, so the page shows what lies on the disk, also
of results that an earlier run made. That happens between two files of the batch and in its own thread: a second thread
would win little beside a network that uses all cores, and its buffers, between those of the batch, broke up the heap
until twice the memory was held.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from statistics import median
from typing import Protocol

from lowlight_cli.errors import OutputError
from lowlight_cli.paths import Job, Plan, why_unreadable
from lowlight_cli.report.page import Card, Page, Row, Table, check_page_target
from lowlight_cli.report.words import duration_in_words, size_in_words
from lowlight_cli.results import FileResult, blank_result, name_of


class Contents(Protocol):
    """What a report on files shows of its kind of file: `report.pictures.Pictures`, `report.clips.Clips`."""

    @property
    def noun(self) -> str:
        """What one of them is called."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the facts that only this kind of file has."""

    def cards(self, job: Job, result: FileResult, name: str, came: str) -> Iterator[Card]:
        """Yield the cards of one file, whose result is there; `came` says how."""

    def cells(self, result: FileResult) -> tuple[str, ...]:
        """Return the facts of one file, as many as there are `columns`."""


@dataclass(frozen=True)
class _Entry:
    result: FileResult
    card: int | None = None


class FilesReport:
    """Takes results as they come and, at the end or at an interrupt, writes the page.

    A page that cannot be written does not stop the work: `write` says so. Making one refuses, with SettingsError, a
    target that cannot be meant: see `check_page_target`.
    """

    def __init__(
        self, target: Path, plan: Plan, contents: Contents, *, command: str = "", overwrite: bool = False
    ) -> None:
        inputs = [job.input for job in (*plan.jobs, *plan.skipped) if job.input is not None]
        check_page_target(target, overwrite=overwrite, inputs=inputs)
        self._plan, self._contents = plan, contents
        self._jobs = {name_of(job.input): job for job in (*plan.jobs, *plan.skipped)}
        self.target = target
        self._page = Page(target, command=command)
        self._folder = _common_folder(self._jobs)
        self._entries: list[_Entry] = []
        self._failure: OutputError | None = None

    def close(self) -> None:
        """Forget the pictures."""
        self._page.close()

    def add(self, result: FileResult) -> None:
        """Take a result, and read what there is to show of it."""
        job = self._jobs.get(result.input)
        card = None
        if job is not None and result.status != "failed" and self._failure is None:
            try:
                card = self._draw(job, result)
            except OutputError as error:
                self._failure = error
        self._entries.append(_Entry(result, card))

    def write(self, *, made_with: str = "", interrupted: bool = False) -> None:
        """Write the page; raises OutputError.

        `made_with` names model, device and precision, where the results do not say enough.
        """
        seconds = self._page.seconds
        told = {entry.result.input for entry in self._entries}
        for result in (blank_result(job, "skipped") for job in self._plan.skipped):
            if result.input not in told:
                self._entries.append(_Entry(result)) if interrupted else self.add(result)
        if self._failure is not None:
            raise self._failure
        results = [entry.result for entry in self._entries]
        left = sum(name_of(job.input) not in told for job in self._plan.jobs)
        said = self._lead(results, seconds, left=left)
        made = dict.fromkeys(f"{each.model} on {each.device}, {each.precision}" for each in results if each.model)
        self._page.write(
            title="lowlight report",
            lead=f"Interrupted: {said}" if interrupted else said,
            made_with=made_with or "; ".join(made),
            facts={"Folder": self._folder},
            tables=(self._failures(results), self._files()),
        )

    def _draw(self, job: Job, result: FileResult) -> int | None:
        """Add what there is to show of a file; return the number of its first card, if it has any."""
        came = f"took {duration_in_words(result.seconds)}" if result.status == "done" else "was there already"
        cards = self._contents.cards(job, result, self._short(result.input), came)
        return next(iter([self._page.add(card) for card in cards]), None)

    def _lead(self, results: Sequence[FileResult], seconds: float, *, left: int) -> str:
        counts = Counter(result.status for result in results)
        counts["failed"] += len(self._plan.unreadable)
        parts = [f"{counts[status]} {status}" for status in ("done", "compared", "failed", "skipped") if counts[status]]
        if left > 0:
            parts.append(f"{left} not begun or not finished")
        said = f"{', '.join(parts) or 'nothing done'}, in {duration_in_words(seconds)}"
        took = [result.seconds for result in results if result.status == "done"]
        each = f"; {duration_in_words(median(took))} a {self._contents.noun} (median)" if len(took) > 1 else ""
        return said + each

    def _failures(self, results: Sequence[FileResult]) -> Table:
        rows = [
            Row((self._short(each.input), each.error.message, each.error.code), is_bad=True)
            for each in results
            if each.error
        ]
        rows += [Row((name_of(path), why_unreadable(path), "input"), is_bad=True) for path in self._plan.unreadable]
        return Table("Failures", ("File", "Why", "Code"), rows)

    def _files(self) -> Table:
        columns = ("File", "Result", "Status", "Size", *self._contents.columns, "Time", "Tile", "Precision", "Notes")
        rows = [self._row(entry.result, entry.card) for entry in self._entries]
        return Table(f"All files: {len(rows)}", columns, rows, is_folded=True)

    def _row(self, result: FileResult, card: int | None) -> Row:
        notes = [*([result.error.message] if result.error else []), *result.warnings]
        cells = (
            self._short(result.input),
            "" if result.error else result.output,
            result.status,
            size_in_words(result.width, result.height) if result.width and result.height else "",
            *self._contents.cells(result),
            duration_in_words(result.seconds) if result.status == "done" else "",
            {None: "", 0: "whole"}.get(result.tile, str(result.tile)),
            result.precision or "",
            "; ".join(notes),
        )
        return Row(cells, card, is_bad=result.error is not None)

    def _short(self, name: str) -> str:
        """Leave out what all inputs have in common."""
        return name.removeprefix(self._folder)


def _common_folder(names: Iterable[str]) -> str:
    """Return the folder that all inputs share, with a separator at its end; empty if there is none to speak of."""
    try:
        folder = os.path.commonpath([PurePath(name).parent for name in names])
    except ValueError:  # no name, two drives, or some names from the root on and some not
        return ""
    return "" if folder in ("", ".") else f"{folder.rstrip(os.sep)}{os.sep}"
