"""`lowlight bench`: how fast models are here, or with `--pairs` what they are worth against references."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from lowlight_cli.bench.settings import UNTRAINED, Part, Size, Speed, read_size
from lowlight_cli.cli import options as opt
from lowlight_cli.cli.bench_quality import QualityWanted, show_quality
from lowlight_cli.cli.bench_speed import Extras, show_speed
from lowlight_cli.cli.grouping import grouped
from lowlight_cli.cli.groups import Computing, read_dilations
from lowlight_cli.errors import SettingsError
from lowlight_cli.pairs import Split
from lowlight_cli.settings import DEFAULT_MODEL

_SPEED, _QUALITY = "Speed", "Quality, with --pairs"
_SIZES_HELP = "A side, WIDTHxHEIGHT, 1080p, 4k, 12mpx or 24mpx; may be repeated."

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help=f"A name from `lowlight weights list`; may be repeated. For speed also {', '.join(UNTRAINED)}.",
        show_default=DEFAULT_MODEL,
    ),
]
WeightsFiles = Annotated[
    list[Path] | None, typer.Option("--weights", help="A file of weights; may be repeated.", show_default=False)
]
Parts = Annotated[
    list[str] | None,
    typer.Option(
        "--part",
        help="Only this part; may be repeated.",
        metavar="|".join(get_args(Part)),
        show_default="all",
        rich_help_panel=_SPEED,
    ),
]
Sizes = Annotated[
    list[str] | None,
    typer.Option("--size", help=_SIZES_HELP, show_default="256, 512, 1080p, 12mpx", rich_help_panel=_SPEED),
]
Repeat = Annotated[int, typer.Option(min=2, help="Rounds; medians are told.", rich_help_panel=_SPEED)]
BatchSize = Annotated[
    int, typer.Option("--batch", min=1, help="Photos in the folder that is done end to end.", rich_help_panel=_SPEED)
]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw the speeds.", rich_help_panel=_SPEED)
]
CompareWith = Annotated[
    Path | None,
    typer.Option(
        "--compare",
        metavar="OLD.json",
        help="Say what changed since a report that --json printed.",
        rich_help_panel=_SPEED,
    ),
]
PairsOption = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        "--pairs",
        metavar="LOW REFERENCE",
        help="Two folders (or files) of equal names; twice the same folder finds LOL, LOL-v2, LOL-Blur or LSRW in it.",
        show_default=False,
        rich_help_panel=_QUALITY,
    ),
]
SplitOption = Annotated[
    Split | None, typer.Option("--split", help="Of a data set, only this part.", rich_help_panel=_QUALITY)
]
Scores = Annotated[
    list[str] | None,
    typer.Option(
        "--score",
        metavar="lpips|brisque",
        help="A learned score as well; needs lowlight-cli\\[metrics].",
        rich_help_panel=_QUALITY,
    ),
]
ReportPage = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        help="Write one page with sliders between inputs, results and references, and all figures.",
        rich_help_panel=_QUALITY,
    ),
]
Sheet = Annotated[
    Path | None,
    typer.Option("--sheet", metavar="FILE.png", help="Draw inputs, results and references.", rich_help_panel=_QUALITY),
]


@dataclass(frozen=True)
class Timing:
    """How fast: what is measured, and what is made of it."""

    part: Parts = None
    size: Sizes = None
    repeat: Repeat = Speed.repeat
    batch: BatchSize = Speed.batch
    plot: Plot = None
    compare: CompareWith = None

    def parts(self) -> tuple[Part, ...]:
        """Return which parts are measured; raises SettingsError."""
        return tuple(cast(Part, opt.one_of(each, get_args(Part), "--part")) for each in self.part or Speed.parts)

    def sizes(self) -> tuple[Size, ...] | None:
        """Return the pictures' sizes; raises SettingsError."""
        return tuple(read_size(each) for each in self.size) if self.size else None


@dataclass(frozen=True)
class Judging:
    """How good: against which references, by what, and what is made of it."""

    pairs: PairsOption = None
    split: SplitOption = None
    score: Scores = None
    sheet: Sheet = None
    report: ReportPage = None


@grouped
def bench(
    *,
    model: Models = None,
    weights: WeightsFiles = None,
    timing: Timing,
    judging: Judging,
    overwrite: opt.Overwrite = False,
    dilations: opt.Dilations = None,
    offline: opt.Offline = False,
    denoise: opt.Denoise = None,
    computing: Computing,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Measure how fast models are on this machine or, with --pairs, how good.

    [bold]lowlight bench[/bold]                              about two minutes
    [bold]lowlight bench --json > old.json[/bold]            later: --compare old.json
    [bold]lowlight bench --pairs low/ high/ --sheet sheet.png[/bold]

    Speed: pictures in memory, `lowlight enhance` as a process, a folder of photos,
    a clip, and zero-shot steps: medians and spreads, with a calibration of the machine.
    Quality: PSNR and SSIM, also of `input` (left alone) and `gamma` (a curve to
    mean 0.45). GT-mean values are taken after the result was scaled to the
    reference's brightness: they forgive a wrong exposure, usually by 3 to 5 dB.
    """
    compute = computing.compute()
    models = tuple(model or ([] if weights else [DEFAULT_MODEL]))
    files = tuple(weights or ())
    network = read_dilations(dilations, files[0] if files else None)
    if judging.pairs is not None:
        _refuse_given(timing, "does not go with --pairs")
        quality = QualityWanted(
            judging.pairs,
            models,
            files,
            compute,
            split=judging.split,
            scores=judging.score or (),
            sheet=judging.sheet,
            overwrite=overwrite,
            offline=offline,
            report=judging.report,
            network=network,
            denoise=denoise,
        )
        show_quality(quality, as_json=as_json, quiet=quiet, verbose=verbose)
        return
    _refuse_given(judging, "needs --pairs")
    if denoise is not None:
        raise SettingsError("--denoise needs --pairs")
    speed = Speed(models, files, network, timing.parts(), timing.sizes(), timing.repeat, timing.batch, compute, offline)
    extras = Extras(timing.plot, timing.compare, overwrite)
    show_speed(speed, extras, as_json=as_json, quiet=quiet, verbose=verbose)


def _refuse_given(group: Timing | Judging, why: str) -> None:
    """Refuse the first option of a group that somebody gave."""
    for option in fields(group):
        if getattr(group, option.name) != option.default:
            raise SettingsError(f"--{option.name} {why}")
