"""One page of cards and tables, complete in itself: style, script and pictures are inside, and nothing is fetched.

Pictures wait in an unnamed file beside the page, so that memory does not grow with them. In the page they come last,
as text that nothing decodes until its card comes near the window: the words are painted at once, and a thousand
pictures scroll like ten.
"""

import base64
import hashlib
import html
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from string import Template
from types import MappingProxyType

from lowlight_cli.atomic import atomic_file, make_folder
from lowlight_cli.errors import OutputError, SettingsError
from lowlight_cli.paths import facts_of, is_file
from lowlight_cli.report.previews import Preview
from lowlight_cli.report.words import versions_in_words, without_home
from lowlight_cli.results import printable

_MARK = b"<!-- a report by lowlight -->"
_DATA_PLACE = "<!-- pictures -->"
_NONE: Mapping[str, str] = MappingProxyType({})
_ENDINGS = (".html", ".htm")


@dataclass(frozen=True)
class View:
    """One of a card's pictures: what it is called, what there is to say of it, and its preview."""

    label: str
    preview: Preview
    note: str = ""


@dataclass(frozen=True)
class Card:
    """Pictures of one size that are compared by a slider: the first two, or those that are chosen.

    `width` and `height` are those of the pictures, not of their previews.
    """

    name: str
    caption: str
    width: int
    height: int
    views: tuple[View, ...]


@dataclass(frozen=True)
class Row:
    """A line of a table; its first cell leads to a card, if there is one. `is_bad` marks a failure."""

    cells: tuple[str, ...]
    card: int | None = None
    is_bad: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the page; `is_folded` shows only the title until it is opened."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    is_folded: bool = False


def check_page_target(target: Path, *, overwrite: bool = False, inputs: Sequence[Path] = ()) -> None:
    """Refuse a name for a page that cannot be meant: not HTML, an input, or a file that is no report of ours.

    Reports are made again at every run, so one of ours is replaced, and another file only with `overwrite`.

    Raises SettingsError.
    """
    if target.suffix.lower() not in _ENDINGS:
        raise SettingsError(f"--report writes a page: {target} does not end with .html")
    if not facts_of(target):
        return
    if not is_file(target):
        raise SettingsError(f"--report: {target} is no file")
    with suppress(OSError), target.open("rb") as file:
        if _MARK in file.read(200):
            return
    if not overwrite:
        raise SettingsError(f"--report: {target} exists and is no report; --overwrite replaces it")
    if any(facts_of(path) and path.samefile(target) for path in inputs):
        raise SettingsError(f"--report: {target} is one of the inputs")


class Page:
    """Collects cards, and writes the page. `command` is the command line that it is the report of.

    Making one begins to count the `seconds` that the work takes.
    """

    def __init__(self, target: Path, *, command: str = "") -> None:
        self.target = target
        self._command = command
        self._cards: list[str] = []
        self._started, self._begun = time.perf_counter(), datetime.now().astimezone()
        make_folder(target)
        try:
            # It has no name, or loses it with us: nothing is left behind, however we end.
            self._pictures = tempfile.TemporaryFile(dir=target.parent)  # noqa: SIM115  lives as long as the page
        except OSError as error:
            raise self._failed(error) from error

    @property
    def seconds(self) -> float:
        """How long ago the page was begun."""
        return time.perf_counter() - self._started

    def add(self, card: Card) -> int:
        """Take a card and return its number; raises OutputError when there is no room for its pictures."""
        number = len(self._cards)
        try:
            for place, view in enumerate(card.views):
                text = base64.b64encode(view.preview.content)
                self._pictures.write(b'<script type="text/plain" id="v%d-%d">%b</script>\n' % (number, place, text))
        except OSError as error:
            raise self._failed(error) from error
        self._cards.append(_card(number, card))
        return number

    def write(
        self, *, title: str, lead: str, tables: Sequence[Table], made_with: str = "", facts: Mapping[str, str] = _NONE
    ) -> None:
        """Write the page, complete or not at all; raises OutputError. Facts that say nothing are left out."""
        begun = f"{self._begun:%Y-%m-%d %H:%M:%S %Z}"
        told = {**facts, "Begun": begun, "Versions": versions_in_words(), "Command": self._command}
        script = _part("page.js")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        page = Template(_part("page.html")).substitute(
            script_digest=digest,
            title=_text(title),
            lead=_text(lead),
            made_with=_text(f"Made with {made_with}" if made_with else "How it was made"),
            style=_part("page.css"),
            facts="".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in told.items() if value),
            tables="\n".join(_table(table) for table in tables if table.rows),
            cards="\n".join(self._cards),
            script=script,
        )
        before, after = page.split(_DATA_PLACE)
        with atomic_file(self.target, overwrite=True) as file:
            file.write(before.encode())
            self._pictures.seek(0)
            shutil.copyfileobj(self._pictures, file)
            file.write(after.encode())

    def close(self) -> None:
        """Forget the pictures."""
        with suppress(OSError):  # what a full disk did not take is tried once more
            self._pictures.close()

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.target}: {error.strerror or error}")


def _part(name: str) -> str:
    return resources.files("lowlight_cli.report").joinpath(name).read_text(encoding="utf-8")


def _text(words: str) -> str:
    """Escape what HTML takes for its own, in text as in attributes, and what nobody sees or can decode.

    Pages are passed on to others: where the user's own folder lies, and so the user's name, is left out of all words.
    """
    return html.escape(printable(without_home(words)))


def _card(number: int, card: Card) -> str:
    name, first, shown = _text(card.name), card.views[0].preview, printable(without_home(card.name))
    views = [(view.label, view.note, view.preview.width, view.preview.height) for view in card.views]
    about = json.dumps({"name": shown, "width": card.width, "height": card.height, "views": views})
    choices = ""
    if len(card.views) > 2:
        choices = f"<p>{_choice('Left', card, 0)} {_choice('Right', card, 1)}</p>"
    return f"""\
<article class="card" id="p{number}" style="--aspect:{first.width / first.height:.4f}" data-about="{_text(about)}">
<div class="pair" role="slider" tabindex="0" aria-label="Before and after: {name}" aria-orientation="horizontal"
 aria-valuemin="0" aria-valuemax="100" aria-valuenow="50">
<img class="right" alt=""><img class="left" alt=""><span class="handle"></span><b></b><b></b></div>
<div class="words"><h3><bdi>{name}</bdi></h3><button type="button" class="open" aria-label="Enlarge {name}">\
Enlarge</button>
<p>{_text(card.caption)}</p>{choices}</div>
</article>"""


def _choice(side: str, card: Card, chosen: int) -> str:
    options = "".join(
        f'<option value="{place}"{" selected" if place == chosen else ""}>{_text(view.label)}</option>'
        for place, view in enumerate(card.views)
    )
    return f'<label>{side} <select class="{side.lower()}">{options}</select></label>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in table.columns)
    body = "\n".join(_row(row) for row in table.rows)
    drawn = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(table.title)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )
    if table.is_folded:
        return f"<details><summary>{_text(table.title)}</summary>{drawn}</details>"
    return f"<section><h2>{_text(table.title)}</h2>{drawn}</section>"


def _row(row: Row) -> str:
    first, *rest = (f"<bdi>{_text(cell)}</bdi>" for cell in row.cells)
    if row.card is not None:
        first = f'<a href="#p{row.card}">{first}</a>'
    cells = "".join(f"<td>{cell}</td>" for cell in rest)
    return f'<tr{" class=bad" if row.is_bad else ""}><th scope="row">{first}</th>{cells}</tr>'
