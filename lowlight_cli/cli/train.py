"""`lowlight train`: a DarkIR network from clean photos made dark, or from photographed pairs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowlight_cli.cli import options as opt
from lowlight_cli.cli.initial import read_initial, require_initial
from lowlight_cli.console import Show, duration, logged_to_stderr
from lowlight_cli.errors import SettingsError
from lowlight_cli.train.settings import DEFAULT_RECIPE, Run, published_recipes

if TYPE_CHECKING:
    from lowlight_cli.train.events import Event, Started
    from lowlight_cli.train.recipe import Recipe
    from lowlight_cli.train.samples import Sources

_DATA, _TRAINING = "Data", "Training"

Clean = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Clean photos and .hdr panoramas, made dark for training; every 20th is held out.",
        rich_help_panel=_DATA,
    ),
]
PairFolders = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        "--pairs",
        metavar="LOW REFERENCE",
        help="Two folders of equal names, or twice the root of LOL, LOL-v2, LOL-Blur or LSRW.",
        rich_help_panel=_DATA,
    ),
]
RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        help=f"A TOML file or one of {', '.join(published_recipes())}.",
        rich_help_panel=_TRAINING,
    ),
]
Init = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="Start from these DarkIR weights, of the recipe's network, instead of chance.",
        rich_help_panel=_TRAINING,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        metavar="DIR",
        help="Where all goes; what lies there is gone on with.",
        rich_help_panel=_TRAINING,
    ),
]
SaveEvery = Annotated[int, typer.Option(min=1, metavar="STEPS", help="Between checkpoints.", rich_help_panel=_TRAINING)]
ValidateEvery = Annotated[
    int, typer.Option(min=1, metavar="STEPS", help="Between looks at held-out crops.", rich_help_panel=_TRAINING)
]
ReportEvery = Annotated[
    int, typer.Option(min=1, metavar="STEPS", help="Between lines of the log.", rich_help_panel=_TRAINING)
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Processes that make samples.",
        show_default="one a core beside a CUDA GPU, else 0: a thread",
        rich_help_panel=_TRAINING,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per event on stdout.", rich_help_panel="Terminal")]


def train(
    clean: Clean = None,
    pairs: PairFolders = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    init: Init = None,
    output: Output = Run.output,
    device: opt.Device = Run.device,
    save_every: SaveEvery = Run.save_every,
    validate_every: ValidateEvery = Run.validate_every,
    report_every: ReportEvery = Run.report_every,
    workers: Workers = Run.workers,
    offline: opt.Offline = False,
    as_json: Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Train a network by a recipe; stopped at any moment, it goes on where it was.

    [bold]lowlight train --clean photos/[/bold]         the recipe of the embedded default
    [bold]lowlight train --pairs LOLv2/ LOLv2/ --recipe darkir-m[/bold]
    [bold]lowlight train --pairs dark/ bright/ --recipe darkir-small-tune --init darkir-small[/bold]
    """
    if (clean is None) == (pairs is None):
        raise SettingsError("give --clean DIR or --pairs LOW REFERENCE: what shall be trained on?")
    from lowlight_cli.train.journal import journaled
    from lowlight_cli.train.loop import train as run_training
    from lowlight_cli.train.recipe import read_recipe

    wanted = read_recipe(recipe)
    run = Run(output, "", device, save_every, validate_every, report_every, workers)
    run.refuse_foreign_folder(wanted.name, [path for path in (clean, *(pairs or ())) if path is not None])
    if init is not None:
        require_initial(init)
    with logged_to_stderr(quiet=quiet, verbose=verbose), Show(1, noun="training", quiet=quiet) as show:
        initial = None if init is None else read_initial(init, "darkir", show, offline=offline)
        training, held_out = _load(clean, pairs, wanted)
        named = clean.name if clean is not None else " and ".join(path.name for path in pairs or ())
        run = replace(run, data=f"{training.count} of {named}")
        events = journaled(run_training(wanted, training, held_out, run=run, initial=initial), output)
        _follow(events, show, output, as_json=as_json)


def _load(clean: Path | None, pairs: tuple[Path, Path] | None, recipe: "Recipe") -> "tuple[Sources, Sources]":
    if clean is not None:
        from lowlight_cli.train.scenes import load_clean

        return load_clean(clean, recipe)
    from lowlight_cli.train.photographed import load_pairs

    assert pairs is not None
    return load_pairs(*pairs, recipe)


def _follow(events: "Iterator[Event]", show: Show, output: Path, *, as_json: bool) -> None:
    """Draw every event, or print it as JSON."""
    from lowlight_cli.train.events import Progress, Started, Validation, as_record

    for event in events:
        if as_json:
            typer.echo(json.dumps({"schema": 1, **as_record(event)}))
        if isinstance(event, Progress):
            skipped = f", {event.skipped} skipped" if event.skipped else ""
            show.say(
                f"step {event.step} of {event.steps}: loss {event.loss:.4f}, {event.seconds:.2f} s a step, "
                f"{duration(event.seconds * (event.steps - event.step))} left{skipped}"
            )
            show.step(event.step, event.steps, "steps")
        elif isinstance(event, Validation):
            show.say(
                f"validation on {event.crops} crops of {event.crop} pixels: {event.psnr:.2f} dB plain, "
                f"{event.psnr_gt_mean:.2f} dB GT-mean, SSIM {event.ssim:.3f}"
            )
        elif isinstance(event, Started):
            show.say(_start_told(event, output))
        else:
            show.say(f"wrote {event.path}")


def _start_told(start: "Started", output: Path) -> str:
    if start.step >= start.steps:
        return f"the training in {output} is over: all its steps were taken before"
    course = f"goes on after step {start.step} of {start.steps}" if start.step else f"{start.steps} steps"
    return (
        f"on {start.device}: {start.training} pictures to train on and {start.held_out} to validate on"
        f"{f', {len(start.left_out)} left out' if start.left_out else ''}; {course}"
    )
