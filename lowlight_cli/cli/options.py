"""Options that several commands share, as annotated types; defaults stand in `settings`, what they mean in `groups`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lowlight_cli.errors import LowlightError, OutputError, SettingsError
from lowlight_cli.manifest import read_manifest
from lowlight_cli.settings import (
    DEFAULT_QUALITY,
    DEFAULT_SUFFIX,
    CompareSize,
    CompareStyle,
    Comparison,
    Compiling,
    EngineKind,
    Metadata,
    Precision,
)

_OUTPUT, _MODEL, _TONE, _COMPUTE = "Output", "Model", "Look", "Compute"
_BATCH, _SPREAD, _TERMINAL = "Batch", "Beyond one device", "Terminal"


def complete_weights(incomplete: str) -> list[str]:
    """Return the names of the weights manifest that a word on the command line may become."""
    try:
        return [name for name in read_manifest() if name.startswith(incomplete)]
    except LowlightError:  # completion has nowhere to complain
        return []


def require_stdout(wanted: bool) -> bool:
    """Refuse `--json` where standard output is closed, before any work whose results it would lose."""
    if wanted and sys.stdout is None:
        raise OutputError("standard output is closed, and --json writes there")
    return wanted


Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUTS", help="Files, folders or globs; - for standard input.", show_default=False),
]
FileInputs = Annotated[
    list[str] | None, typer.Argument(metavar="INPUTS", help="Files, folders or globs.", show_default=False)
]

_BESIDE = f"beside the input, as STEM{DEFAULT_SUFFIX}.EXT"
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        help="A file, a folder, a template of {stem} {ext} {parent} {model}, or - for standard output.",
        show_default=_BESIDE,
        rich_help_panel=_OUTPUT,
    ),
]
FileOutput = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        help="A file, a folder, or a template of {stem} {ext} {parent} {model}.",
        show_default=_BESIDE,
        rich_help_panel=_OUTPUT,
    ),
]
Suffix = Annotated[
    str | None,
    typer.Option(help="Appended to the stem beside the input.", show_default=DEFAULT_SUFFIX, rich_help_panel=_OUTPUT),
]
Format = Annotated[
    str | None,
    typer.Option(help="jpg, png, webp, tiff, avif, ...", show_default="the input's", rich_help_panel=_OUTPUT),
]
Quality = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100,
        help="Of JPEG, WebP and AVIF.",
        show_default=f"{DEFAULT_QUALITY}, or the input's if higher",
        rich_help_panel=_OUTPUT,
    ),
]
MetadataOption = Annotated[
    Metadata, typer.Option("--metadata", help="keep, strip, or no-gps: all but places.", rich_help_panel=_OUTPUT)
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace existing results instead of skipping them.", rich_help_panel=_OUTPUT),
]
Compare = Annotated[
    bool,
    typer.Option("--compare", help="Also write before and after as one picture, *_compare.", rich_help_panel=_OUTPUT),
]
CompareStyleOption = Annotated[
    CompareStyle | None,
    typer.Option(
        "--compare-style",
        help="Side by side, or one picture split in the middle; implies --compare.",
        show_default=Comparison.style,
        rich_help_panel=_OUTPUT,
    ),
]
CompareSizeOption = Annotated[
    CompareSize | None,
    typer.Option(
        "--compare-size",
        help="Every pixel (where the format holds so wide a picture), or small enough to send; implies --compare.",
        show_default=Comparison.size,
        rich_help_panel=_OUTPUT,
    ),
]
PreserveTimes = Annotated[
    bool, typer.Option("--preserve-times", help="Give results their inputs' times.", rich_help_panel=_OUTPUT)
]

Model = Annotated[
    str,
    typer.Option(help="A name from `lowlight weights list`.", autocompletion=complete_weights, rich_help_panel=_MODEL),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights", help="A file of weights (safetensors or PyTorch) to use instead.", rich_help_panel=_MODEL
    ),
]
Dilations = Annotated[
    str | None,
    typer.Option(
        metavar="RATES",
        help="Dilation rates of --weights that do not say theirs, such as 1,4,9.",
        rich_help_panel=_MODEL,
    ),
]
Offline = Annotated[
    bool,
    typer.Option("--offline", envvar="LOWLIGHT_OFFLINE", help="Never use the network.", rich_help_panel=_MODEL),
]

Strength = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="From the input (0) to the result (1), its exposure included.", rich_help_panel=_TONE
    ),
]
Exposure = Annotated[
    float,
    typer.Option(
        metavar="EV", min=-8, max=8, help="Stops brighter, white staying white, or darker.", rich_help_panel=_TONE
    ),
]
ProtectHighlights = Annotated[
    float,
    typer.Option(min=0, max=1, help="Keep the input's highlights apart, and their colours.", rich_help_panel=_TONE),
]
Denoise = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="For models that part noise from light (zeroig).", show_default="1", rich_help_panel=_TONE
    ),
]

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, cuda:all or mps.", rich_help_panel=_COMPUTE)]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="auto (fp32; bf16 on CUDA GPUs that have it), fp32 (convolutions in TF32 on CUDA), bf16 or fp16.",
        rich_help_panel=_COMPUTE,
    ),
]
CompileOption = Annotated[
    Compiling,
    typer.Option(
        "--compile",
        help="For long jobs of one size: CUDA graphs, or torch's compiler. auto: graphs for clips.",
        rich_help_panel=_COMPUTE,
    ),
]
Tile = Annotated[
    str,
    typer.Option(
        metavar="auto|0|N", help="Side of tiles in pixels; 0 for the whole picture.", rich_help_panel=_COMPUTE
    ),
]
Overlap = Annotated[
    int, typer.Option(min=0, max=1024, help="Pixels over which tiles are blended.", rich_help_panel=_COMPUTE)
]
MaxPixels = Annotated[
    float | None,
    typer.Option(
        "--max-megapixels",
        min=0.001,
        max=1e6,
        help="Refuse larger pictures before decoding.",
        show_default="what memory allows",
        rich_help_panel=_COMPUTE,
    ),
]

EngineOption = Annotated[
    EngineKind, typer.Option("--engine", help="This process, or a Ray cluster.", rich_help_panel=_SPREAD)
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="The cluster.",
        show_default="$RAY_ADDRESS, or one of this machine for this run",
        rich_help_panel=_SPREAD,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Ray workers.", show_default="one a GPU, or one a machine", rich_help_panel=_SPREAD),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="0.5 lets two workers share a GPU, 0 uses none.",
        show_default="1 if there are any",
        rich_help_panel=_SPREAD,
    ),
]

Recursive = Annotated[
    bool,
    typer.Option(
        "-r", "--recursive", help="Search folders all the way down, and keep the tree.", rich_help_panel=_BATCH
    ),
]
FilesFrom = Annotated[
    str | None,
    typer.Option(metavar="FILE|-", help="Read names of inputs, one a line.", rich_help_panel=_BATCH),
]
NullSeparated = Annotated[
    bool, typer.Option("-0", "--null", help="Names in --files-from end with a NUL.", rich_help_panel=_BATCH)
]
Jobs = Annotated[
    int, typer.Option(min=1, max=64, help="Pictures decoded ahead and written behind.", rich_help_panel=_BATCH)
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Only part I of N of the files, the same on every machine: for job arrays.",
        rich_help_panel=_SPREAD,
    ),
]
ReportPage = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        help="Also write one page that shows before and after, and tells times and failures.",
        rich_help_panel=_OUTPUT,
    ),
]
ShowPictures = Annotated[
    bool,
    typer.Option(
        "--show",
        help="Show before and after in the terminal: kitty, ghostty, iTerm2, WezTerm, foot, mintty.",
        rich_help_panel=_TERMINAL,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.", rich_help_panel=_TERMINAL)]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.", rich_help_panel=_BATCH)]
Json = Annotated[
    bool,
    typer.Option(
        "--json", callback=require_stdout, help="One JSON object per file on stdout.", rich_help_panel=_TERMINAL
    ),
]
OneJson = Annotated[bool, typer.Option("--json", callback=require_stdout, help="One JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only failures on stderr.", rich_help_panel=_TERMINAL)]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more on stderr.", rich_help_panel=_TERMINAL)]


def one_of(value: str, choices: tuple[str, ...], option: str) -> str:
    """Return `value`, of an option that may be repeated, if it is one of `choices`; raises SettingsError naming it.

    Other options have a `Literal` for a type, and Typer refuses: of lists it takes none of those.
    """
    if value not in choices:
        raise SettingsError(f"{option} is one of {', '.join(choices)}, not {value!r}")
    return value
