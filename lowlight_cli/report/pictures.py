"""Pictures on a report on files: each one before and after."""

from collections.abc import Iterator
from pathlib import Path

from lowlight_cli.errors import InputError
from lowlight_cli.images import Picture, read_picture, thumbnail_of
from lowlight_cli.paths import Job
from lowlight_cli.report.page import Card, View
from lowlight_cli.report.previews import make_preview, preview_size
from lowlight_cli.report.words import size_in_words
from lowlight_cli.results import FileResult


class Pictures:
    """Shows each picture whole; see `lowlight_cli.report.files.Contents`."""

    noun = "picture"
    columns: tuple[str, ...] = ("Stops",)

    def __init__(self, files: int, *, pixel_budget: int | None = None) -> None:
        self._size = preview_size(2 * files)
        self._pixel_budget = pixel_budget

    def cards(self, job: Job, result: FileResult, name: str, came: str) -> Iterator[Card]:
        """Yield a card with both pictures; none where there is nothing to read, or it cannot be read any more."""
        if job.input is None or job.output is None:
            return
        try:
            views = tuple(self._view(label, path) for label, path in (("before", job.input), ("after", job.output)))
        except InputError:
            return
        (before, width, height), (after, _, _) = views
        caption = " · ".join((size_in_words(width, height), came, *result.warnings))
        yield Card(name, caption, width, height, (before, after))

    def cells(self, result: FileResult) -> tuple[str, ...]:
        """Return by how many stops a picture became brighter."""
        return ("" if result.stops is None else f"{result.stops:+.1f}" if result.stops else "as it was",)

    def _view(self, label: str, path: Path) -> tuple[View, int, int]:
        picture: Picture = read_picture(path, pixel_budget=self._pixel_budget)
        preview = make_preview(thumbnail_of(picture, self._size.side), self._size.most_bytes)
        return View(label, preview), picture.width, picture.height
