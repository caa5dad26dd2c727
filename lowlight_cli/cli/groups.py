"""Options that several commands share, in groups: what belongs together, and the methods that say what it means.

Whatever reads an option raises SettingsError for what cannot be meant. A command with options of its own has its
groups beside it.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lowlight_cli.backends import BACKENDS
from lowlight_cli.cli import options as opt
from lowlight_cli.console import Show
from lowlight_cli.errors import SettingsError, WeightsError
from lowlight_cli.manifest import find_entry, read_manifest
from lowlight_cli.paths import (
    PICTURES,
    Job,
    Plan,
    facts_of,
    is_file,
    part_plan,
    read_file_list,
    read_shard,
    why_absent,
)
from lowlight_cli.settings import (
    DEFAULT_MODEL,
    Comparison,
    Compute,
    Encoding,
    Engine,
    Tiling,
    Tone,
)
from lowlight_cli.weights_kind import KIND_BYTES, weights_kind

if TYPE_CHECKING:
    from lowlight_cli.batch import BatchSettings
    from lowlight_cli.enhancer import Model

_LOSSLESS = ("png", "tiff", "bmp", "gif", "ppm")


@dataclass(frozen=True)
class Searching:
    """Which files, beside those that are named as arguments."""

    recursive: opt.Recursive = False
    files_from: opt.FilesFrom = None
    null_separated: opt.NullSeparated = False

    def named(self, inputs: list[str] | None) -> list[str | Path]:
        """Return the inputs of the command line and of `--files-from`."""
        named: list[str | Path] = list(inputs or [])
        if self.files_from is not None:
            if self.files_from == "-" and sys.stdin is None:
                raise SettingsError("--files-from -: standard input is closed")
            source = sys.stdin.buffer if self.files_from == "-" else Path(self.files_from)
            named += read_file_list(source, null_separated=self.null_separated)
        elif self.null_separated:
            raise SettingsError("-0 belongs to --files-from")
        return named


@dataclass(frozen=True)
class Writing:
    """How pictures are named and written, and what is made beside them."""

    suffix: opt.Suffix = None
    format: opt.Format = None
    quality: opt.Quality = None
    metadata: opt.MetadataOption = Encoding.metadata
    overwrite: opt.Overwrite = False
    compare: opt.Compare = False
    compare_style: opt.CompareStyleOption = None
    compare_size: opt.CompareSizeOption = None
    preserve_times: opt.PreserveTimes = False
    report: opt.ReportPage = None

    def encoding(self) -> Encoding:
        """Return how results are written."""
        return Encoding(self.format, self.quality, self.metadata)

    def comparison(self) -> Comparison | None:
        """Return what `--compare` and its two manners mean, None if no comparison is wanted."""
        if not (self.compare or self.compare_style or self.compare_size):
            return None
        return Comparison(self.compare_style or Comparison.style, self.compare_size or Comparison.size)

    @property
    def records(self) -> tuple[Path, ...]:
        """What is written beside the results and is none of them."""
        return () if self.report is None else (self.report,)

    def check_quality(self, plan: Plan, named: Sequence[str | Path]) -> None:
        """Refuse a quality that no result has, where `--format` or the one named file says so.

        Several files may be others tomorrow, as those of a folder, and the command is right all the same.
        """
        encoding = self.encoding()
        outputs = [job.output for job in (*plan.jobs, *plan.skipped)]
        lossless = all(output and PICTURES.format_of(output.suffix) in _LOSSLESS for output in outputs)
        certain = encoding.format is not None or (len(named) == 1 and is_file(Path(named[0])))
        if encoding.quality is not None and lossless and certain:
            raise SettingsError("--quality is of JPEG, WebP, AVIF and HEIC, and no result is one of them")

    def batch(self, tone: Tone, *, fail_fast: bool, threads: int = 1, pixel_budget: int | None) -> "BatchSettings":
        """Return how files are done; it loads torch."""
        from lowlight_cli.batch import BatchSettings

        return BatchSettings(
            tone=tone,
            encoding=self.encoding(),
            overwrite=self.overwrite,
            preserve_times=self.preserve_times,
            fail_fast=fail_fast,
            threads=threads,
            pixel_budget=pixel_budget,
            comparison=self.comparison() or Comparison(),
        )

    def drawing_comparison(self, *, pixel_budget: int | None) -> Callable[[Job], None]:
        """Return what draws the comparison of a picture with the result that an earlier run made."""
        from lowlight_cli.comparison import compare_job

        return partial(
            compare_job,
            how=self.comparison() or Comparison(),
            encoding=self.encoding(),
            preserve_times=self.preserve_times,
            pixel_budget=pixel_budget,
        )


@dataclass(frozen=True)
class Network:
    """Which network."""

    model: opt.Model = DEFAULT_MODEL
    weights: opt.WeightsOption = None
    dilations: opt.Dilations = None

    def name(self) -> str:
        """Return what results are named after: the model, or the file of `--weights`.

        Raises SettingsError for a model that there is not, or beside a file, and for settings that cannot be meant;
        WeightsError for a file that is not there.
        """
        self.settings()  # for what it refuses
        if self.weights is None:
            if self.model not in BACKENDS or BACKENDS[self.model].needs_weights:
                find_entry(read_manifest(), self.model)
            return self.model
        if self.model != DEFAULT_MODEL:
            raise SettingsError("--model and --weights each name a network; give one of them")
        require_weights(self.weights)
        return self.weights.stem

    def settings(self) -> Mapping[str, object]:
        """Return the settings of the network that a file of weights does not tell."""
        return read_dilations(self.dilations, self.weights)

    def find(self, show: Show, *, denoise: float | None, offline: bool) -> "Model":
        """Find and read the network, downloaded first where it has to be; it loads torch. Raises as `find_model`."""
        from lowlight_cli.enhancer import find_model

        return find_model(
            self.name(),
            weights=self.weights,
            network=self.settings(),
            denoise=denoise,
            offline=offline,
            on_download=show.steps_of("bytes"),
        )


@dataclass(frozen=True)
class Look:
    """How far the result goes, and for networks that part noise from light, how much of it goes."""

    strength: opt.Strength = Tone.strength
    exposure: opt.Exposure = Tone.exposure
    protect_highlights: opt.ProtectHighlights = Tone.protect_highlights
    denoise: opt.Denoise = None

    def tone(self) -> Tone:
        """Return what is done to the network's result."""
        return Tone(self.strength, self.exposure, self.protect_highlights)


@dataclass(frozen=True)
class Computing:
    """Where a network computes, and how precisely."""

    device: opt.Device = Compute.device
    precision: opt.PrecisionOption = Compute.precision
    tile: opt.Tile = "auto"
    overlap: opt.Overlap = Compute.tiling.overlap
    compiling: opt.CompileOption = Compute.compile

    def compute(self) -> Compute:
        """Return where and how precisely to compute."""
        return Compute(self.device, self.precision, read_tiling(self.tile, self.overlap), self.compiling)


@dataclass(frozen=True)
class Spreading:
    """Which part of the files is done here, and who computes."""

    shard: opt.Shard = None
    engine: opt.EngineOption = Engine.kind
    ray_address: opt.RayAddress = None
    workers: opt.Workers = None
    gpus_per_worker: opt.GpusPerWorker = None

    def chosen_engine(self) -> Engine:
        """Return who computes."""
        return Engine(self.engine, self.ray_address, self.workers, self.gpus_per_worker)

    def part_of(self, plan: Plan) -> Plan:
        """Return what of the plan is done here."""
        return plan if self.shard is None else part_plan(plan, read_shard(self.shard))


@dataclass(frozen=True)
class Running:
    """How far a run over files goes, and what it tells."""

    dry_run: opt.DryRun = False
    fail_fast: opt.FailFast = False
    as_json: opt.Json = False
    quiet: opt.Quiet = False
    verbose: opt.Verbose = False


def pixels(megapixels: float | None) -> int | None:
    """Return what `--max-megapixels` means in pixels."""
    return None if megapixels is None else round(megapixels * 1e6)


def read_tiling(tile: str, overlap: int) -> Tiling:
    """Return the tiling that `--tile` and `--overlap` mean; raises SettingsError."""
    if tile == "auto":
        return Tiling(None, overlap)
    if not tile.isdecimal():
        raise SettingsError(f"--tile is auto, 0 or a number of pixels, not {tile!r}")
    return Tiling(int(tile), overlap)


def read_dilations(text: str | None, weights: Path | None) -> Mapping[str, object]:
    """Return the network setting that `--dilations` means to `--weights`; raises SettingsError."""
    if text is None:
        return {}
    if weights is None:
        raise SettingsError("--dilations belongs to --weights: a model of a name has its own")
    try:
        rates = tuple(int(part) for part in text.split(","))
    except ValueError:
        rates = ()
    if not rates or min(rates) < 1:
        raise SettingsError(f"--dilations is a list of numbers such as 1,4,9, not {text!r}")
    return {"dilations": rates}


def require_weights(file: Path) -> None:
    """Refuse a file of weights that is not there, or begins as none does; raises WeightsError."""
    if facts_of(file) is None:
        raise WeightsError(f"--weights: {why_absent(file)}")
    if not is_file(file):
        raise WeightsError(f"{file} is no weights file")
    try:
        with file.open("rb") as opened:
            weights_kind(opened.read(KIND_BYTES))
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from error
    except WeightsError as error:
        raise WeightsError(f"{file} {error}") from error
