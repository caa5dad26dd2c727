"""`lowlight weights`: what weights there are, and which of them lie on this machine. Only import loads torch."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowlight_cli import cache
from lowlight_cli.cli.commands import Command, Group
from lowlight_cli.cli.options import Offline, OneJson, complete_weights
from lowlight_cli.errors import SettingsError, WeightsError
from lowlight_cli.manifest import Manifest, WeightsEntry, find_entry, read_manifest

if TYPE_CHECKING:
    from lowlight_cli.download import Notice, Progress

app = typer.Typer(
    cls=Group, name="weights", help="List, fetch, check and remove networks' weights.", no_args_is_help=True
)

_SCHEMA = 1
_WHERE = {"present": "cached", "stale": "damaged", "absent": "-"}

_NAME_HELP = "Names from `lowlight weights list`."
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A name from `lowlight weights list`.", autocompletion=complete_weights)
]
Names = Annotated[list[str], typer.Argument(metavar="NAME", help=_NAME_HELP, autocompletion=complete_weights)]
AnyNames = Annotated[list[str] | None, typer.Argument(metavar="NAME", help=_NAME_HELP, autocompletion=complete_weights)]


@app.command("list", cls=Command)
def list_weights(
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Add source, credit, training data and BibTeX.")
    ] = False,
    as_json: OneJson = False,
) -> None:
    """List the weights that `--model` knows by name.

    [bold]lowlight weights list[/bold]                  names, sizes, licences, what is here
    [bold]lowlight weights list -v[/bold]               with sources, credits and BibTeX
    """
    entries = read_manifest().values()
    if as_json:
        typer.echo(json.dumps({"schema": _SCHEMA, "weights": [_facts(entry) for entry in entries]}))
    elif verbose:
        typer.echo("\n\n".join(_paragraph(entry) for entry in entries))
    else:
        typer.echo(_table([_row(entry) for entry in entries]))


@app.command(cls=Command)
def download(
    names: AnyNames = None,
    every: Annotated[bool, typer.Option("--all", help="Everything that can be downloaded.")] = False,
    offline: Offline = False,
) -> None:
    """Download weights into the cache; what is there and right is left alone.

    [bold]lowlight weights download darkir-lolblur[/bold]
    [bold]lowlight weights download --all[/bold]
    """
    if bool(names) == every:
        raise SettingsError("name the weights to download, or give --all")
    manifest = read_manifest()
    wanted = [entry for entry in manifest.values() if entry.urls] if every else _entries(manifest, names or [])
    failures = []
    for entry in wanted:
        try:
            with _download_shown(entry.name) as (progress, notice):
                path = cache.fetch(entry, offline=offline, progress=progress, notice=notice)
            typer.echo(f"{entry.name} ({entry.licence}): {path}", err=True)
        except WeightsError as error:
            failures.append(str(error))
    if failures:
        raise WeightsError("\n".join(failures))


@app.command(cls=Command)
def verify(names: AnyNames = None) -> None:
    """Check the sha256 of cached weights; without names, of all that are there.

    [bold]lowlight weights verify[/bold]
    [bold]lowlight weights verify darkir-small[/bold]
    """
    manifest = read_manifest()
    entries = _entries(manifest, names) if names else list(manifest.values())
    states = {entry.name: cache.verify(entry) for entry in entries}
    words = {"present": "ok", "stale": "damaged", "absent": "absent"}
    for name, state in states.items():
        if names or state != "absent":
            typer.echo(f"{name}: {words[state]}")
    bad = [entry for entry in entries if states[entry.name] == "stale" or (names and states[entry.name] == "absent")]
    if bad:
        told = ", ".join(f"{entry.name} ({_cure(entry)} brings it anew)" for entry in bad)
        raise WeightsError(f"damaged or absent: {told}")


@app.command(cls=Command)
def path(name: Name) -> None:
    """Print where the file of NAME lies, for scripts.

    [bold]cp "$(lowlight weights path darkir-small)" .[/bold]
    """
    entry = find_entry(read_manifest(), name)
    if cache.status(entry) != "present":
        raise WeightsError(f"{name} is not at {cache.locate(entry)}: {_cure(entry)} brings it")
    typer.echo(cache.locate(entry))


@app.command(cls=Command)
def remove(names: Names) -> None:
    """Delete weights from the cache.

    [bold]lowlight weights remove darkir-lolblur[/bold]
    """
    for entry in _entries(read_manifest(), names):
        found = cache.remove(entry)
        typer.echo(f"{entry.name}: {'removed' if found else 'was not there'}", err=True)


@app.command("import", cls=Command)
def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A weights file that you have got another way.")],
    name: Annotated[
        str | None,
        typer.Option("--as", help="Which weights it is; otherwise its digest or file name decides."),
    ] = None,
) -> None:
    """Copy a weights file into the cache, after a check that it is the right one.

    [bold]lowlight weights import DarkIR_384.pt[/bold]                       known by its digest
    [bold]lowlight weights import model.pt --as darkir-large[/bold]
    """
    manifest = read_manifest()
    entry = cache.match(manifest, file) if name is None else find_entry(manifest, name)
    imported = cache.import_file(entry, file, check=lambda content: _require_network(content, entry))
    typer.echo(f"{entry.name}: {imported}", err=True)


def _entries(manifest: Manifest, names: list[str]) -> list[WeightsEntry]:
    """Look all names up before any work begins, each once."""
    return [find_entry(manifest, name) for name in dict.fromkeys(names)]


def _cure(entry: WeightsEntry) -> str:
    if entry.embedded:
        return "installing lowlight-cli again"
    return f"`lowlight weights {f'import FILE --as {entry.name}' if entry.import_only else f'download {entry.name}'}`"


def _require_network(content: bytes, entry: WeightsEntry) -> None:
    """Refuse weights that are not of the entry's network; raises WeightsError."""
    # Here and not at the top: torch takes seconds to load, and only this command needs it.
    import torch

    from lowlight_cli.backends import load_backend, require_backend
    from lowlight_cli.weights_file import read_weights

    weights = read_weights(content)
    require_backend(weights, entry.backend)
    load_backend(entry.backend, weights, device=torch.device("cpu"), dtype=torch.float32, network=entry.network)


def _where(entry: WeightsEntry) -> str:
    state = cache.status(entry)
    if state == "present" and entry.embedded:
        return "built in"
    if state == "absent" and entry.import_only:
        return "import only"
    return _WHERE[state]


def _size(entry: WeightsEntry) -> str:
    return "?" if entry.bytes is None else f"{entry.bytes / 1e6:.1f} MB"


def _row(entry: WeightsEntry) -> tuple[str, ...]:
    return (entry.name, entry.backend, _size(entry), _where(entry), entry.licence)


def _table(rows: list[tuple[str, ...]]) -> str:
    """Plain columns that `cut` and `grep` understand, on a terminal and off it."""
    lines = [("NAME", "BACKEND", "SIZE", "STATE", "LICENCE"), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _paragraph(entry: WeightsEntry) -> str:
    facts = (
        f"{entry.name}: {entry.backend}, {_size(entry)}, {_where(entry)}",
        f"  licence     {entry.licence}",
        f"  source      {entry.source}",
        f"  credit      {entry.credit}",
        f"  trained on  {entry.trained_on}",
        f"  file        {cache.locate(entry)}",
        f"  sha256      {entry.sha256 or 'not published'}",
    )
    citation = "\n".join(f"    {line}" for line in entry.citation.splitlines())
    return "\n".join((*facts, citation))


def _facts(entry: WeightsEntry) -> dict[str, object]:
    return {
        "name": entry.name,
        "backend": entry.backend,
        "bytes": entry.bytes,
        "sha256": entry.sha256,
        "state": cache.status(entry),
        "path": str(cache.locate(entry)),
        "embedded": entry.embedded,
        "import_only": entry.import_only,
        "urls": entry.urls,
        "licence": entry.licence,
        "source": entry.source,
        "credit": entry.credit,
        "trained_on": entry.trained_on,
        "citation": entry.citation,
        "network": dict(entry.network),
    }


@contextmanager
def _download_shown(name: str) -> Iterator[tuple["Progress", "Notice"]]:
    """Draw received bytes on stderr, on a terminal only, and print why there is a pause."""
    # Here and not at the top: listing needs no drawing.
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from lowlight_cli.console import stderr_console

    console = stderr_console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        yield (
            lambda received, total: bar.update(task, completed=received, total=total),
            lambda line: console.print(line, markup=False),
        )
