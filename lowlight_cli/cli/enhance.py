"""`lowlight enhance`: pictures through a trained network."""

import sys
from functools import partial
from typing import TYPE_CHECKING

from lowlight_cli.cli import options as opt
from lowlight_cli.cli.files import followed, pictures, tell_plan
from lowlight_cli.cli.grouping import grouped
from lowlight_cli.cli.groups import Computing, Look, Network, Running, Searching, Spreading, Writing, pixels
from lowlight_cli.errors import SettingsError
from lowlight_cli.paths import plan_jobs

if TYPE_CHECKING:
    from lowlight_cli.spread import PictureWork


@grouped
def enhance(
    *,
    inputs: opt.Inputs = None,
    output: opt.Output = None,
    writing: Writing,
    network: Network,
    offline: opt.Offline = False,
    look: Look,
    computing: Computing,
    max_megapixels: opt.MaxPixels = None,
    searching: Searching,
    jobs: opt.Jobs = 1,
    spreading: Spreading,
    show_pictures: opt.ShowPictures = False,
    running: Running,
) -> None:
    """Make dark photos bright and clean with a trained network.

    [bold]lowlight enhance photo.jpg[/bold]                  writes photo_lowlight.jpg
    [bold]lowlight enhance shoot/ -r -o bright/[/bold]       a folder, its tree kept
    [bold]lowlight enhance *.jpg --compare --exposure 0.5[/bold]
    """
    tone, compute, engine = look.tone(), computing.compute(), spreading.chosen_engine()
    named = searching.named(inputs)
    plan = plan_jobs(
        named,
        output=output,
        recursive=searching.recursive,
        suffix=writing.suffix,
        format=writing.format,
        model=network.name(),
        variants=("compare",) if writing.comparison() else (),
        beside=writing.records,
        overwrite=writing.overwrite,
    )
    writing.check_quality(plan, named)
    if not running.dry_run and any(job.output is None for job in plan.jobs):
        _refuse_misused_stdout(as_json=running.as_json)
    plan = spreading.part_of(plan)
    if running.dry_run:
        tell_plan(plan, as_json=running.as_json)
        return
    budget = pixels(max_megapixels)
    shown = partial(pictures, pixel_budget=budget)
    with followed(plan, running, writing.report, shown, overwrite=writing.overwrite, look=show_pictures) as results:

        def prepare() -> "PictureWork":
            from lowlight_cli.spread import PictureWork

            found = network.find(results.show, denoise=look.denoise, offline=offline)
            batch = writing.batch(tone, fail_fast=running.fail_fast, threads=jobs, pixel_budget=budget)
            return PictureWork(found, compute, batch)

        results.run(results.ready(engine), prepare, engine, compute.device)
        if plan.uncompared:
            results.compare(writing.drawing_comparison(pixel_budget=budget))


def _refuse_misused_stdout(*, as_json: bool) -> None:
    """Refuse a picture on a standard output that is a person's, or where JSON goes; raises SettingsError."""
    if as_json:
        raise SettingsError("--json and the picture cannot both go to standard output; give --output a file name")
    if sys.stdout is not None and sys.stdout.isatty():
        raise SettingsError("standard output is a terminal; redirect it or give --output a name")
