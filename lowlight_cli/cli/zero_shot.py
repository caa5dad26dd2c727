"""`lowlight zero-shot`: ZERO-IG fitted to the photos themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowlight_cli.atomic import require_writable
from lowlight_cli.cli import options as opt
from lowlight_cli.cli.files import followed, pictures, tell_plan
from lowlight_cli.cli.grouping import grouped
from lowlight_cli.cli.groups import Look, Running, Searching, Spreading, Writing, pixels, read_tiling
from lowlight_cli.cli.initial import read_initial, require_initial
from lowlight_cli.console import Show
from lowlight_cli.errors import SettingsError
from lowlight_cli.paths import Plan, Variant, is_folder, plan_jobs, require_free
from lowlight_cli.settings import Compute
from lowlight_cli.zero_shot.settings import FAST_STEPS, PAPER_STEPS, Keep, OnInterrupt, Preset, Save, ZeroShot

if TYPE_CHECKING:
    from lowlight_cli.spread import FitWork, Told

_NOTHING_FITTED = "nothing was fitted, so there is nothing for --save-weights and --log; --overwrite fits again"
_FIT, _KEEP = "Fit", "Keep"
_PRESETS_HELP = (
    f"fast: a prepared start, at most {FAST_STEPS} steps on crops; paper: {PAPER_STEPS} on the whole picture."
)

PresetOption = Annotated[Preset, typer.Option("--preset", help=_PRESETS_HELP, rich_help_panel=_FIT)]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="Exactly this many optimiser steps.", show_default="the preset's", rich_help_panel=_FIT),
]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", help="Learning rate.", show_default="the preset's", rich_help_panel=_FIT),
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same bytes on a CPU.", rich_help_panel=_FIT)]
Init = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE", help="Start from these ZERO-IG weights instead.", rich_help_panel=_FIT),
]
Shared = Annotated[
    bool, typer.Option("--shared", help="One fit for all photos: a burst, frames, a shoot.", rich_help_panel=_FIT)
]
SaveOption = Annotated[
    Save, typer.Option("--save", help="denoised, enhanced (noise and all) or both.", rich_help_panel=_KEEP)
]
SaveWeights = Annotated[
    Path | None, typer.Option(metavar="FILE.safetensors", help="Keep the fitted weights.", rich_help_panel=_KEEP)
]
PreviewEvery = Annotated[
    int, typer.Option(min=0, metavar="N", help="Write a preview every N steps.", rich_help_panel=_KEEP)
]
PreviewFolder = Annotated[
    Path | None, typer.Option("--preview-dir", metavar="DIR", help="Where previews go.", rich_help_panel=_KEEP)
]
Log = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.jsonl",
        help="A JSON line per step with its terms, as it goes; at the end *_loss.png beside it, a curve.",
        rich_help_panel=_KEEP,
    ),
]
OnInterruptOption = Annotated[
    OnInterrupt,
    typer.Option("--on-interrupt", help="discard, or save: keep the latest state as *.stepN.*", rich_help_panel=_KEEP),
]
WhiteBalance = Annotated[
    bool, typer.Option("--white-balance", help="Then balance the colours (grey world).", rich_help_panel="Look")
]
Contrast = Annotated[bool, typer.Option("--contrast", help="Then stretch the contrast gently.", rich_help_panel="Look")]


@dataclass(frozen=True)
class Fitting:
    """How photos are fitted."""

    preset: PresetOption = ZeroShot.preset
    epochs: Epochs = ZeroShot.epochs
    lr: LearningRate = ZeroShot.lr
    seed: Seed = ZeroShot.seed
    init: Init = None
    shared: Shared = False

    def settings(self) -> ZeroShot:
        """Return how each fit goes; raises SettingsError."""
        return ZeroShot(self.preset, self.epochs, self.lr, self.seed)


@dataclass(frozen=True)
class Keeping:
    """What is kept of a fit."""

    save: SaveOption = Keep.save
    save_weights: SaveWeights = None
    preview_every: PreviewEvery = Keep.preview_every
    preview_dir: PreviewFolder = None
    log: Log = None
    on_interrupt: OnInterruptOption = Keep.on_interrupt

    def keep(self, *, denoise: float | None, white_balance: bool, contrast: bool) -> Keep:
        """Return what is kept, and how the picture is finished; raises SettingsError."""
        return Keep(
            save=self.save,
            weights=self.save_weights,
            log=self.log,
            preview_every=self.preview_every,
            preview_folder=self.preview_dir,
            on_interrupt=self.on_interrupt,
            denoise=denoise,
            white_balance=white_balance,
            contrast=contrast,
        )


@dataclass(frozen=True)
class FitComputing:
    """Where fits compute: always in fp32."""

    device: opt.Device = Compute.device
    tile: opt.Tile = "auto"
    overlap: opt.Overlap = Compute.tiling.overlap

    def compute(self) -> Compute:
        """Return where to compute; raises SettingsError."""
        return Compute(self.device, "fp32", read_tiling(self.tile, self.overlap))


@grouped
def zero_shot(
    *,
    inputs: opt.FileInputs = None,
    fitting: Fitting,
    keeping: Keeping,
    output: opt.FileOutput = None,
    writing: Writing,
    offline: opt.Offline = False,
    look: Look,
    white_balance: WhiteBalance = Keep.white_balance,
    contrast: Contrast = Keep.contrast,
    computing: FitComputing,
    max_megapixels: opt.MaxPixels = None,
    searching: Searching,
    spreading: Spreading,
    show_pictures: opt.ShowPictures = False,
    running: Running,
) -> None:
    """Fit three tiny networks to each photo, without training data, and make it bright and clean.

    [bold]lowlight zero-shot night.png[/bold]                 writes night_lowlight.png
    [bold]lowlight zero-shot night.png --preset paper[/bold]  the method as published
    [bold]lowlight zero-shot burst/ --shared -o bright/[/bold]
    """
    settings = fitting.settings()
    keep = keeping.keep(denoise=look.denoise, white_balance=white_balance, contrast=contrast)
    tone, compute, engine = look.tone(), computing.compute(), spreading.chosen_engine()
    if fitting.init is not None:
        require_initial(fitting.init)
    plan = _planned(searching.named(inputs), output, writing, keep, recursive=searching.recursive)
    _refuse_unclear(plan, keep, shared=fitting.shared, overwrite=writing.overwrite)
    if fitting.shared and (spreading.shard is not None or engine.kind != "local" or compute.device == "cuda:all"):
        raise SettingsError("--shared is one fit for all photos, which --shard, --engine ray and cuda:all would part")
    plan = spreading.part_of(plan)
    if running.dry_run:
        tell_plan(plan, as_json=running.as_json)
        return
    _require_room(plan, keep)
    budget = pixels(max_megapixels)
    shown = partial(pictures, pixel_budget=budget)
    with followed(plan, running, writing.report, shown, overwrite=writing.overwrite, look=show_pictures) as results:

        def prepare() -> "FitWork":
            from lowlight_cli.spread import FitWork

            init = fitting.init
            initial = None if init is None else read_initial(init, "zeroig", results.show, offline=offline).weights
            batch = writing.batch(tone, fail_fast=running.fail_fast, pixel_budget=budget)
            return FitWork(settings, batch, keep, compute, initial, fitting.shared)

        if not plan.jobs and (keep.weights or keep.log):
            results.show.tell(_NOTHING_FITTED)
        results.run(results.ready(engine), prepare, engine, compute.device, draw=partial(_draw, results.show))
        if plan.uncompared:
            results.compare(writing.drawing_comparison(pixel_budget=budget))


def _planned(named: Sequence[str | Path], output: str | None, writing: Writing, keep: Keep, *, recursive: bool) -> Plan:
    variants: list[Variant] = ["enhanced"] if keep.save == "both" else []
    plan = plan_jobs(
        named,
        output=output,
        recursive=recursive,
        suffix=writing.suffix,
        format=writing.format,
        model="zeroig",
        variants=[*variants, "compare"] if writing.comparison() else variants,
        beside=[*keep.records, *writing.records],
        overwrite=writing.overwrite,
    )
    writing.check_quality(plan, named)
    return plan


def _refuse_unclear(plan: Plan, keep: Keep, *, shared: bool, overwrite: bool) -> None:
    several = len(plan.jobs) + len(plan.skipped) > 1
    if several and not shared and (keep.weights or keep.log):
        raise SettingsError("--save-weights and --log take one photo, or several with --shared")
    if any(job.input is None or job.output is None for job in plan.jobs):
        raise SettingsError("zero-shot reads and writes files, not - streams")
    if keep.preview_folder is not None:
        _refuse_lost_previews(plan, keep.preview_folder, overwrite=overwrite)
    for path in keep.records if plan.jobs else ():
        require_free(path, overwrite=overwrite)


def _require_room(plan: Plan, keep: Keep) -> None:
    """Refuse records and previews that cannot be written, before there is any work; raises OutputError."""
    previews = () if keep.preview_folder is None else (keep.preview_folder / "preview",)
    for path in (*keep.records, *previews) if plan.jobs else ():
        require_writable(path)


def _refuse_lost_previews(plan: Plan, folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder where previews would take one another's names, or a photo's, or without leave any file's."""
    stems = [job.output.stem for job in plan.jobs if job.output is not None]
    if len(set(stems)) < len(stems):
        raise SettingsError("--preview-dir takes previews of photos whose results have different names")
    places = {job.input.parent.resolve() for job in (*plan.jobs, *plan.skipped) if job.input is not None}
    if folder.resolve() in places:
        raise SettingsError(f"--preview-dir takes a folder of its own, and {str(folder)!r} holds the photos")
    if not plan.jobs or overwrite or not is_folder(folder):
        return
    try:
        holds_files = any(folder.iterdir())
    except OSError as error:
        raise SettingsError(f"--preview-dir: {str(folder)!r} cannot be read: {error.strerror}") from error
    if holds_files:
        raise SettingsError(f"--preview-dir: {str(folder)!r} holds files; use --overwrite to replace those of one name")


def _draw(show: Show, event: "Told") -> None:
    from lowlight_cli.zero_shot.fit import Step

    if isinstance(event, Step):
        show.step(event.step, event.steps, "steps")
