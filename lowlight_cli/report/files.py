"""The report on files: before and after of each, what was done and how long it took, and what failed for which reason.

Pictures are read from the files themselves, inputs and results alike, so the page shows what lies on the disk, also of
results that an earlier run made. That happens between two pictures of the batch and in its own thread: a second thread
would win little beside a network that uses all cores, and its buffers, between those of the batch, broke up the heap
until twice the memory was held.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePath
from statistics import median
from types import TracebackType
from typing import Self

from lowlight_cli.errors import InputError, OutputError
from lowlight_cli.images import Picture, read_picture
from lowlight_cli.paths import Job, Plan
from lowlight_cli.report.page import Card, Page, Row, Table, View, check_page_target
from lowlight_cli.report.previews import make_preview, preview_size, thumbnail_of
from lowlight_cli.report.words import duration_in_words, size_in_words, versions_in_words
from lowlight_cli.results import FileResult, blank_result, name_of


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
        self,
        target: Path,
        plan: Plan,
        *,
        command: str = "",
        overwrite: bool = False,
        pixel_budget: int | None = None,
    ) -> None:
        inputs = [job.input for job in (*plan.jobs, *plan.skipped) if job.input is not None]
        check_page_target(target, overwrite=overwrite, inputs=inputs)
        self._plan, self._command, self._pixel_budget = plan, command, pixel_budget
        self._jobs = {name_of(job.input): job for job in (*plan.jobs, *plan.skipped)}
        self.target = target
        self._page = Page(target)
        self._folder = _common_folder(self._jobs)
        self._size = preview_size(2 * len(self._jobs))
        self._entries: list[_Entry] = []
        self._failure: OutputError | None = None
        self._started, self._began = time.perf_counter(), datetime.now().astimezone()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._page.close()

    def add(self, result: FileResult) -> None:
        """Take a result, and read its pictures."""
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
        seconds = time.perf_counter() - self._started
        told = {entry.result.input for entry in self._entries}
        for result in (blank_result(job, "skipped") for job in self._plan.skipped):
            if result.input not in told:
                self._entries.append(_Entry(result)) if interrupted else self.add(result)
        if self._failure is not None:
            raise self._failure
        results = [entry.result for entry in self._entries]
        left = len(self._plan.jobs) - sum(result.status != "skipped" for result in results)
        self._page.write(
            title="lowlight report",
            lead=_lead(results, len(self._plan.unreadable), seconds, left=left, interrupted=interrupted),
            facts=self._facts(results, made_with),
            tables=(self._failures(results), self._files()),
        )

    def _draw(self, job: Job, result: FileResult) -> int | None:
        """Add a card with both pictures; None where there is nothing to read, or it cannot be read any more."""
        if job.input is None or job.output is None:
            return None
        try:
            views = tuple(self._view(label, path) for label, path in (("before", job.input), ("after", job.output)))
        except InputError:
            return None
        (before, width, height), (after, _, _) = views
        words = [
            size_in_words(width, height),
            duration_in_words(result.seconds) if result.status == "done" else "was there already",
            *result.warnings,
        ]
        return self._page.add(Card(self._short(result.input), " · ".join(words), width, height, (before, after)))

    def _view(self, label: str, path: Path) -> tuple[View, int, int]:
        picture: Picture = read_picture(path, pixel_budget=self._pixel_budget)
        preview = make_preview(thumbnail_of(picture, self._size.side), self._size.most_bytes)
        return View(label, preview), picture.width, picture.height

    def _facts(self, results: Sequence[FileResult], made_with: str) -> dict[str, str]:
        made = dict.fromkeys(f"{each.model} on {each.device}, {each.precision}" for each in results if each.model)
        facts = {"Made with": made_with or "; ".join(made), "Begun": f"{self._began:%Y-%m-%d %H:%M:%S %Z}"}
        facts |= {"Folder": self._folder} if self._folder else {}
        facts |= {"Versions": versions_in_words(), "Command": self._command}
        return {name: value for name, value in facts.items() if value}

    def _failures(self, results: Sequence[FileResult]) -> Table:
        rows = [
            Row((self._short(each.input), each.error.message, each.error.code), is_bad=True)
            for each in results
            if each.error
        ]
        rows += [
            Row((name_of(path), "the folder cannot be read", "input"), is_bad=True) for path in self._plan.unreadable
        ]
        return Table("Failures", ("File", "Why", "Code"), rows)

    def _files(self) -> Table:
        columns = ("File", "Result", "Status", "Size", "Time", "Tile", "Precision", "Notes")
        rows = [self._row(entry.result, entry.card) for entry in self._entries]
        return Table(f"All files: {len(rows)}", columns, rows, is_folded=True)

    def _row(self, result: FileResult, card: int | None) -> Row:
        notes = [*([result.error.message] if result.error else []), *result.warnings]
        cells = (
            self._short(result.input),
            "" if result.error else result.output,
            result.status,
            size_in_words(result.width, result.height) if result.width and result.height else "",
            duration_in_words(result.seconds) if result.status == "done" else "",
            {None: "", 0: "whole"}.get(result.tile, str(result.tile)),
            result.precision or "",
            "; ".join(notes),
        )
        return Row(cells, card, is_bad=result.error is not None)

    def _short(self, name: str) -> str:
        """Leave out what all inputs have in common."""
        return name.removeprefix(self._folder)


def _lead(results: Sequence[FileResult], unreadable: int, seconds: float, *, left: int, interrupted: bool) -> str:
    counts = Counter(result.status for result in results)
    counts["failed"] += unreadable
    parts = [f"{counts[status]} {status}" for status in ("done", "failed", "skipped") if counts[status]]
    if left > 0:
        parts.append(f"{left} not begun or not finished")
    said = f"{', '.join(parts) or 'nothing done'}, in {duration_in_words(seconds)}"
    took = [result.seconds for result in results if result.status == "done"]
    if len(took) > 1:
        said += f"; {duration_in_words(median(took))} a picture (median)"
    return f"Interrupted: {said}" if interrupted else said


def _common_folder(names: Iterable[str]) -> str:
    """Return the folder that all inputs share, with a separator at its end; empty if there is none to speak of."""
    try:
        folder = os.path.commonpath([PurePath(name).parent for name in names])
    except ValueError:  # no name, two drives, or some names from the root on and some not
        return ""
    return "" if folder == "." else f"{folder.rstrip(os.sep)}{os.sep}"
