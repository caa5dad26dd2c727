"""The report on quality: every method's result beside its reference, with the figures of each and their means."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lowlight_cli.errors import InputError, OutputError
from lowlight_cli.images import probe, read_picture, thumbnail_of
from lowlight_cli.report.page import Card, Page, Row, Table, View, check_page_target
from lowlight_cli.report.previews import make_preview, preview_size
from lowlight_cli.report.words import duration_in_words, figures_in_words

if TYPE_CHECKING:
    from lowlight_cli.quality import MethodSummary, QualityRow, Sample

_COLUMNS = ("PSNR", "SSIM", "PSNR GT-mean", "SSIM GT-mean", "Mean", "Seconds")


class QualityReport:
    """Takes rows as they come, sample by sample; holds the pictures of one sample at most.

    `side` is the long side in pixels that the rows' thumbnails should have. `rows` are those taken, without their
    thumbnails. Making one raises SettingsError for a target that cannot be meant: see `check_page_target`.
    """

    def __init__(
        self,
        target: Path,
        samples: Sequence["Sample"],
        *,
        methods: int,
        scores: Sequence[str] = (),
        command: str = "",
        overwrite: bool = False,
    ) -> None:
        files = [path for sample in samples for path in (sample.low, sample.reference) if path is not None]
        check_page_target(target, overwrite=overwrite, inputs=files)
        self.target = target
        self._page = Page(target, command=command)
        self._samples, self._scores = len(samples), scores
        self._size = preview_size(len(samples) * (methods + 1))
        self.side = self._size.side
        self.rows: list[QualityRow] = []
        self._cards: dict[Sample, int | None] = {}
        self._open: list[QualityRow] = []
        self._failure: OutputError | None = None

    def close(self) -> None:
        """Forget the pictures."""
        self._page.close()

    def add(self, row: "QualityRow") -> None:
        """Take a row. What goes wrong here waits for `write`, for the measuring shall not stop."""
        if self._open and self._open[0].sample != row.sample:
            self._close_sample()
        self._open.append(row if self._failure is None else replace(row, thumbnail=None))
        self.rows.append(replace(row, thumbnail=None))

    def write(self, summaries: Sequence["MethodSummary"], *, made_with: str = "", interrupted: bool = False) -> None:
        """Write the page; raises OutputError."""
        if self._open:
            self._close_sample()
        if self._failure is not None:
            raise self._failure
        said = f"{len(self._cards)} of {self._samples} pictures, in {duration_in_words(self._page.seconds)}"
        self._page.write(
            title="lowlight quality report",
            lead=f"Interrupted: {said}" if interrupted else said,
            made_with=made_with,
            tables=(self._means(summaries), self._failures(), self._all()),
        )

    def _close_sample(self) -> None:
        """Make a card of one sample's results, those of models first among them, and its reference."""
        rows, self._open = self._open, []
        sample = rows[0].sample
        shown = sorted((row for row in rows if row.thumbnail is not None), key=lambda row: _rank(row.method))
        self._cards[sample] = None
        if len(shown) < 2:
            return
        try:
            facts = probe(sample.low)
            views = (*(self._view(row) for row in shown), *self._reference(sample.reference))
            caption = "\n".join(_sentence(row) for row in shown if row.quality)
            self._cards[sample] = self._page.add(Card(sample.name, caption, facts.width, facts.height, views))
        except InputError:  # it was there when it was measured; the figures stand
            return
        except OutputError as error:
            self._failure = error

    def _view(self, row: "QualityRow") -> View:
        assert row.thumbnail is not None
        note = f"{row.quality.psnr:.2f} dB" if row.quality else ""
        return View(row.method, make_preview(row.thumbnail, self._size.most_bytes), note)

    def _reference(self, path: Path | None) -> list[View]:
        if path is None:
            return []
        thumbnail = thumbnail_of(read_picture(path), self._size.side)
        return [View("reference", make_preview(thumbnail, self._size.most_bytes))]

    def _means(self, summaries: Sequence["MethodSummary"]) -> Table:
        rows = [Row((each.method, str(each.pairs), *figures_in_words(each, self._scores))) for each in summaries]
        return Table("Means", ("Method", "Pairs", *_COLUMNS, *self._scores), rows)

    def _failures(self) -> Table:
        rows = [
            Row((row.sample.name, row.method, str(row.error), row.error.code), is_bad=True)
            for row in self.rows
            if row.error
        ]
        return Table("Failures", ("Picture", "Method", "Why", "Code"), rows)

    def _all(self) -> Table:
        rows = [
            Row((row.sample.name, row.method, *figures_in_words(row, self._scores)), self._cards.get(row.sample))
            for row in self.rows
            if not row.error
        ]
        return Table(f"All results: {len(rows)}", ("Picture", "Method", *_COLUMNS, *self._scores), rows, is_folded=True)


def _rank(method: str) -> int:
    """Put the input left, where sliders begin, then models, then the baseline."""
    return {"input": 0, "gamma": 2}.get(method, 1)


def _sentence(row: "QualityRow") -> str:
    quality = row.quality
    assert quality is not None
    return (
        f"{row.method} {quality.psnr:.2f} dB, SSIM {quality.ssim:.3f} "
        f"(GT-mean {quality.psnr_gt_mean:.2f} dB, {quality.ssim_gt_mean:.3f})"
    )
