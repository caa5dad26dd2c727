"""`lowlight export`: a network as one file for other programs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lowlight_cli.cli import options as opt
from lowlight_cli.cli.grouping import grouped
from lowlight_cli.cli.groups import Network
from lowlight_cli.console import Show, logged_to_stderr
from lowlight_cli.paths import require_ending, require_free, require_own_names
from lowlight_cli.settings import ExportFormat

_SCHEMA = 1
# What each kind of file may end in, the usual first.
_ENDINGS: dict[ExportFormat, tuple[str, ...]] = {
    "onnx": (".onnx",),
    "torchscript": (".pt", ".pth", ".ts", ".torchscript"),
}

FormatOption = Annotated[ExportFormat, typer.Option("--format", help="What kind of file.")]
Target = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="The file.", show_default="MODEL.onnx or MODEL.pt, here"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]


@grouped
def export(
    *,
    network: Network,
    offline: opt.Offline = False,
    denoise: opt.Denoise = None,
    format: FormatOption = "onnx",
    output: Target = None,
    overwrite: Overwrite = False,
    as_json: opt.OneJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Write a network as ONNX or TorchScript, for programs without this package.

    The graph takes image (1, 3, height, width), any size, RGB in [0, 1] as
    files hold it (sRGB-encoded), and returns enhanced, alike: all that enhance
    computes on a whole picture (--tile 0) in fp32. For darkir that is the lift,
    chosen from the picture and applied, then the network; for zeroig the three
    networks, with --denoise built in. Not in it: files, profiles, tiles,
    --strength and --exposure. A tile of your own is lifted like a picture.

    In ONNX the frequency filter is made of matrix products, for few runtimes
    have a DFT: its cost grows with the side. The file is held against the
    network on random pictures of several sizes before it gets its name.

    [bold]lowlight export --format onnx -o darkir-small.onnx[/bold]       needs lowlight-cli\\[onnx]
    [bold]lowlight export --weights mine.safetensors --format torchscript -o mine.pt[/bold]
    """
    target = output or Path(f"{network.name()}{_ENDINGS[format][0]}")
    require_ending(target, _ENDINGS[format], f"--output of --format {format}")
    require_own_names([target], inputs=[] if network.weights is None else [network.weights])
    require_free(target, overwrite=overwrite)
    with logged_to_stderr(quiet=quiet, verbose=verbose), Show(1, quiet=quiet) as show:
        from lowlight_cli.export import export_model, require_libraries

        require_libraries(format)
        found = network.find(show, denoise=denoise, offline=offline)
        done = export_model(found, target, format, overwrite=overwrite)
        show.say(
            f"{done.path}: {done.bytes / 1e6:.1f} MB, at most {done.difference:.1e} from the network "
            f"on {done.pictures} random pictures"
        )
    if as_json:
        typer.echo(json.dumps({"schema": _SCHEMA, **done.as_json()}))
