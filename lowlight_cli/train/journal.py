"""The training's log: events as JSON lines, the course of it as a picture."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from lowlight_cli.atomic import append_line, atomic_file, write_atomically
from lowlight_cli.errors import SettingsError
from lowlight_cli.train.events import Event, Record, Started, Validation, as_record

_SIZE, _MARGIN = (900, 520), 60
_PAPER, _INK, _LOSS_INK, _PSNR_INK = (255, 255, 255), (60, 60, 60), (200, 60, 40), (40, 90, 190)

Points = Sequence[tuple[float, float]]


def journaled(events: Iterable[Event], folder: Path) -> Iterator[Event]:
    """Pass events on, and append each to `log.jsonl`; draw `curve.png` anew at every validation.

    What the log holds beyond the step that the training goes on after is dropped first, so that a resumed training
    leaves no step in it twice. Only the last line can be cut short, by a kill; the next start drops it.

    Raises:
        OutputError: a file cannot be written.
    """
    log, curve = folder / "log.jsonl", folder / "curve.png"
    records: list[Record] = []
    for event in events:
        if isinstance(event, Started):
            records = _records_until(log, event.step or -1)  # anew, with what was told before the first step
            kept = "".join(json.dumps(record) + "\n" for record in records)
            write_atomically(log, kept.encode(), overwrite=True)
        records.append(as_record(event))
        append_line(log, json.dumps(records[-1]))
        if isinstance(event, Validation):
            draw_curve(curve, records)
        yield event


def _records_until(log: Path, step: int) -> list[Record]:
    """Read the complete lines of a log up to a step."""
    records: list[Record] = []
    try:
        lines = log.read_text("utf-8").splitlines() if log.exists() else []
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:  # cut short by a kill
                continue
            if record["event"] and record["step"] <= step:
                records.append(record)
    except (OSError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise SettingsError(f"{log} is no training's log; give --output another folder") from error
    return records


def _series(records: Sequence[Record], kind: str, value: Literal["loss", "psnr"]) -> Points:
    found = ((record["step"], record[value]) for record in records if record["event"] == kind)
    return [(step, number) for step, number in found if number is not None]


def draw_curve(target: Path, records: Sequence[Record]) -> None:
    """Draw the loss (left axis) and the PSNR of the validation crops (right axis) over the steps, as a PNG.

    Raises:
        OutputError: the file cannot be written.
    """
    paper = Image.new("RGB", _SIZE, _PAPER)
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(14)
    right, bottom = _SIZE[0] - _MARGIN, _SIZE[1] - _MARGIN
    draw.rectangle((_MARGIN, _MARGIN, right, bottom), outline=_INK)
    loss, psnr = _series(records, "progress", "loss"), _series(records, "validation", "psnr")
    last = max(1, *(point[0] for point in (*loss, *psnr)))
    draw.text((_MARGIN, 20), "loss", font=font, fill=_LOSS_INK)
    draw.text((right, 20), "PSNR of validation crops, dB", font=font, fill=_PSNR_INK, anchor="ra")
    draw.text((right - 60, bottom + 20), f"step {last:g}", font=font, fill=_INK)
    for points, ink, place in ((loss, _LOSS_INK, 8), (psnr, _PSNR_INK, right + 8)):
        if not points:
            continue
        low, high = min(value for _, value in points), max(value for _, value in points)
        span = max(high - low, 1e-9)
        across, down = (right - _MARGIN) / last, (bottom - _MARGIN) / span
        path = [(_MARGIN + step * across, bottom - (value - low) * down) for step, value in points]
        draw.line(path if len(path) > 1 else path * 2, fill=ink, width=2)
        draw.text((place, _MARGIN - 8), f"{high:.3g}", font=font, fill=ink)
        draw.text((place, bottom - 8), f"{low:.3g}", font=font, fill=ink)
    with atomic_file(target, overwrite=True) as file:
        paper.save(file, format="PNG")
