"""How good the results are: every method on every pair, against the reference where there is one.

Results are measured in the picture's own depth, rounded as a lossless file would hold them. Every row carries the
plain numbers and the GT-mean ones under names of their own.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean
from types import MappingProxyType

import numpy as np
import torch

from lowlight_cli.enhancer import Enhancer, load_enhancer
from lowlight_cli.errors import InputError, LowlightError
from lowlight_cli.images import Canvas, Picture, Thumbnail, read_picture, thumbnail_of
from lowlight_cli.metrics import Quality, Score, mean_grey, measure_quality
from lowlight_cli.pairs import Pairs
from lowlight_cli.results import name_of
from lowlight_cli.settings import Compute
from lowlight_cli.sheet import Cell, write_sheet
from lowlight_cli.tone import bisected

Method = Callable[[Picture], Picture]
"""Turns a picture into its result: an `Enhancer.enhance`, or a baseline."""

SCHEMA = 1
GAMMA_MEAN = 0.45
_MOST_POWER = 64.0
SHEET_PAIRS = 24


@dataclass(frozen=True)
class Sample:
    """A picture to measure results on; without a reference only what needs none is measured."""

    name: str
    low: Path
    reference: Path | None = None


@dataclass(frozen=True)
class QualityRow:
    """One method's result on one sample, or why there is none.

    `mean` is the result's mean grey in [0, 1]; `seconds` the method's own time, without reading and measuring;
    `scores` are further ones by name; `thumbnail` is the result scaled down, when asked for.
    """

    method: str
    sample: Sample
    seconds: float = 0.0
    mean: float = math.nan
    quality: Quality | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    error: LowlightError | None = None
    thumbnail: Thumbnail | None = None

    def as_json(self) -> dict[str, object]:
        """Return the object that `--json` prints for this row."""
        return {
            "schema": SCHEMA,
            "kind": "sample",
            "method": self.method,
            "name": self.sample.name,
            "low": name_of(self.sample.low),
            "reference": name_of(self.sample.reference) if self.sample.reference else None,
            **_quality_as_json(self.quality),
            **self.scores,
            "mean": _finite(self.mean),
            "seconds": _finite(self.seconds),
            "error": {"code": self.error.code, "message": str(self.error)} if self.error else None,
        }


@dataclass(frozen=True)
class MethodSummary:
    """A method's means over its `pairs`, or over all samples where none has a reference; `failed` gave no result."""

    method: str
    pairs: int
    failed: int
    quality: Quality | None
    scores: Mapping[str, float]
    mean: float
    seconds: float

    def as_json(self) -> dict[str, object]:
        """Return the object that `--json` prints for this method."""
        return {
            "schema": SCHEMA,
            "kind": "summary",
            "method": self.method,
            "pairs": self.pairs,
            "failed": self.failed,
            **_quality_as_json(self.quality),
            **self.scores,
            "mean": _finite(self.mean),
            "seconds": _finite(self.seconds),
        }


def samples_of(pairs: Pairs) -> list[Sample]:
    """Return all pairs as samples, and the dark pictures that stayed alone after them."""
    alone = [Sample(path.stem, path) for path in pairs.unpaired_low]
    return [*(Sample(pair.name, pair.low, pair.reference) for pair in pairs.pairs), *alone]


def leave_alone(picture: Picture) -> Picture:
    """Return the picture as it is: what doing nothing is worth."""
    return picture


def gamma_to_mean(picture: Picture) -> Picture:
    """Raise the picture to the power that takes its mean to 0.45: what doing nothing clever is worth."""
    encoded = picture.srgb()
    counts = np.bincount(np.rint(encoded * 65535).astype(np.uint16).ravel(), minlength=65536) / encoded.size
    levels = np.arange(65536) / 65535

    def is_bright(power: float) -> bool:
        return float((levels**power) @ counts) > GAMMA_MEAN

    power = bisected(is_bright, 0.0, _MOST_POWER, steps=40)
    canvas = Canvas(picture)
    canvas.add(encoded ** np.float32(power))
    return canvas.picture()


BASELINES: Mapping[str, Method] = {"input": leave_alone, "gamma": gamma_to_mean}


def load_methods(
    models: Sequence[str],
    *,
    weights: Sequence[Path] = (),
    network: Mapping[str, object] | None = None,
    denoise: float | None = None,
    compute: Compute = Compute(),
    offline: bool = False,
) -> dict[str, Method]:
    """Return the baselines, the models of the weights manifest and those of files, ready to run, by name or path.

    `network` and `denoise` are as in `load_enhancer`, the former for files alone. Raises what it raises.
    """
    named = {model: load_enhancer(model, denoise=denoise, compute=compute, offline=offline) for model in models}
    files = {
        str(path): load_enhancer(str(path), weights=path, network=network, denoise=denoise, compute=compute)
        for path in weights
    }
    return {**BASELINES, **{name: _method(enhancer) for name, enhancer in {**named, **files}.items()}}


def _method(enhancer: Enhancer) -> Method:
    return lambda picture: enhancer.enhance(picture).picture


def measure_samples(
    samples: Iterable[Sample],
    methods: Mapping[str, Method],
    *,
    scores: Mapping[str, Score] = MappingProxyType({}),
    thumbnail_side: int = 0,
) -> Iterator[QualityRow]:
    """Yield one row per sample and method, sample by sample; what fails is a row with its error.

    `scores` are taken as well, where they can be. With `thumbnail_side` rows carry their result scaled down to
    that long side in pixels.
    """
    for sample in samples:
        try:
            low = read_picture(sample.low)
            reference = read_picture(sample.reference) if sample.reference else None
            _require_one_size(low, reference)
        except LowlightError as error:
            yield from (QualityRow(method, sample, error=error) for method in methods)
            continue
        for name, method in methods.items():
            row = QualityRow(name, sample)
            try:
                start = time.perf_counter()
                result = method(low)
                row = replace(row, seconds=time.perf_counter() - start)
                row = _measured(row, result, reference, scores)
            except LowlightError as error:
                row = replace(row, error=error)
            else:
                row = replace(row, thumbnail=thumbnail_of(result, thumbnail_side) if thumbnail_side else None)
            yield row


def _measured(row: QualityRow, result: Picture, reference: Picture | None, scores: Mapping[str, Score]) -> QualityRow:
    image = torch.from_numpy(result.srgb())
    wanted = torch.from_numpy(reference.srgb()) if reference else None
    taken = {name: score(image, wanted) for name, score in scores.items()}
    return replace(
        row,
        mean=mean_grey(image),
        quality=measure_quality(image, wanted) if wanted is not None else None,
        scores={name: value for name, value in taken.items() if value is not None},
    )


def summarise(rows: Sequence[QualityRow]) -> list[MethodSummary]:
    """Return the means of each method, in the order in which the methods come."""
    summaries = []
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        compared = [row for row in own if row.quality]
        done = compared or [row for row in own if row.error is None]
        qualities = [row.quality for row in compared if row.quality]
        summaries.append(
            MethodSummary(
                method,
                pairs=len(qualities),
                failed=sum(row.error is not None for row in own),
                quality=_mean_quality(qualities) if qualities else None,
                scores=_mean_scores(done),
                mean=fmean(row.mean for row in done) if done else math.nan,
                seconds=fmean(row.seconds for row in done) if done else math.nan,
            )
        )
    return summaries


def _mean_quality(qualities: Sequence[Quality]) -> Quality:
    return Quality(
        psnr=fmean(each.psnr for each in qualities),
        ssim=fmean(each.ssim for each in qualities),
        psnr_gt_mean=fmean(each.psnr_gt_mean for each in qualities),
        ssim_gt_mean=fmean(each.ssim_gt_mean for each in qualities),
    )


def _mean_scores(rows: Sequence[QualityRow]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row.scores)
    return {name: fmean(row.scores[name] for row in rows if name in row.scores) for name in names}


def write_quality_sheet(target: Path, rows: Sequence[QualityRow], *, overwrite: bool = False) -> None:
    """Write a PNG with one line per sample: each method's result and the reference, labelled with plain PSNR.

    Shows at most `SHEET_PAIRS` samples, evenly chosen; the rows need thumbnails. Raises OutputError.
    """
    samples = list(dict.fromkeys(row.sample for row in rows))
    step = max(1, math.ceil(len(samples) / SHEET_PAIRS))
    lines = []
    for sample in samples[::step]:
        own = [row for row in rows if row.sample == sample]
        side = max((max(row.thumbnail.shape[:2]) for row in own if row.thumbnail is not None), default=0)
        cells = [Cell(row.thumbnail, _label(row)) for row in own]
        if sample.reference and side:
            cells.append(Cell(thumbnail_of(read_picture(sample.reference), side), "reference"))
        lines.append([replace(cells[0], label=f"{sample.name}  {cells[0].label}"), *cells[1:]])
    write_sheet(target, lines, overwrite=overwrite)


def _label(row: QualityRow) -> str:
    if row.error:
        return f"{row.method}: {row.error}"
    return f"{row.method}  {row.quality.psnr:.2f} dB" if row.quality else row.method


def _quality_as_json(quality: Quality | None) -> dict[str, float | None]:
    values = asdict(quality) if quality else dict.fromkeys(field.name for field in fields(Quality))
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: float | None) -> float | None:
    """JSON has neither infinity (equal pictures) nor NaN (nothing measured)."""
    return value if value is not None and math.isfinite(value) else None


def _require_one_size(low: Picture, reference: Picture | None) -> None:
    if reference and (low.width, low.height) != (reference.width, reference.height):
        raise InputError(
            f"the picture is {low.width}x{low.height} and its reference {reference.width}x{reference.height}"
        )
