"""Jobs: every input with its result, none colliding, none over an input, none done twice."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from lowlight_cli.paths.media import PICTURES, Media
from lowlight_cli.paths.naming import (
    COMPARING,
    SEPARATORS,
    Naming,
    Target,
    Variant,
    numbered,
    part_own_results,
    read_target,
    require_format,
    spelling,
    stem_with_suffix,
    variant_path,
)
from lowlight_cli.paths.refusal import quoted, refuse_unless
from lowlight_cli.paths.search import Found, Search, facts_of, fold, is_folder, places_of, real_path, sort_key
from lowlight_cli.settings import DEFAULT_MODEL, DEFAULT_SUFFIX

NAME_BYTES = 255
"""The longest name that the usual disks hold, in bytes."""

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Job:
    """One input and where its result goes; None is standard input or standard output.

    `variants` are the further files asked of the plan, in the order in which they were asked for. `place` names the
    input as every machine that plans the same work does, wherever its folder is mounted: see `shards`.
    """

    input: Path | None
    output: Path | None
    variants: tuple[Path, ...] = ()
    place: str = field(default="", compare=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file the job writes."""
        return () if self.output is None else (self.output, *self.variants)

    @property
    def missing(self) -> tuple[Path, ...]:
        """Those of its files that are not there now."""
        return tuple(path for path in self.files if not facts_of(path))


@dataclass(frozen=True)
class Plan:
    """What will be done, sorted by input, and what was set aside.

    `skipped` have a result already; those of them that lack only what shows input and result together are
    `uncompared`, too. `own_results` are inputs that are themselves results of other inputs.
    `unreadable` are folders below an input that could not be searched, and links that lead nowhere; they count as
    failures. What else the folders hold is left alone: junk, other kinds of file, links to folders.
    """

    jobs: tuple[Job, ...]
    skipped: tuple[Job, ...] = ()
    uncompared: tuple[Job, ...] = ()
    own_results: tuple[Path, ...] = ()
    unreadable: tuple[Path, ...] = ()


def plan_jobs(
    inputs: Sequence[str | Path],
    *,
    media: Media = PICTURES,
    output: str | None = None,
    recursive: bool = False,
    suffix: str | None = None,
    format: str | None = None,
    model: str = DEFAULT_MODEL,
    variants: Sequence[Variant] = (),
    beside: Sequence[Path] = (),
    overwrite: bool = False,
) -> Plan:
    """Plan one job per input; the order of `inputs` does not matter.

    A string is taken as a person types it: `-` is standard input, and where no such file exists `*`, `?`,
    `[...]` and `**` are expanded. A Path is taken literally. A named file is taken whatever its name; a
    folder is searched for the media's files, with `recursive` all the way down, but never through links.

    `output` is None (beside the input as `<stem>_lowlight<ext>`), `-`, a file, a folder (`<stem><ext>`, the
    tree below a searched folder kept) or a template of `{stem} {ext} {parent} {model}`, where `{parent}` is
    the input's folder, or the folders from the searched one on. A new name is a folder when it ends with a
    separator or has no suffix, or when there are several inputs. Where a change of format would give two
    inputs one name, the former suffix joins the stem: beside `a.tif`, `a.cr2` becomes `a_cr2` and not `a`. Where
    inputs differ in nothing but case, as `A.JPG` and `a.jpg`, those after the first get a number: `a_2`.

    `beside` are files that the run writes besides the results, such as a report: they must have names of their own.

    Raises SettingsError, naming the paths, for a missing input, a name that cannot be meant, two inputs with
    one result, a result that would replace an input, or nothing to do.
    """
    wanted = media.format_called(format) if format else None
    if "-" in inputs:
        return _plan_stdin(inputs, media, output=output, format=wanted, variants=variants, overwrite=overwrite)
    many = len(inputs) > 1 or any(is_folder(Path(item)) or not facts_of(Path(item)) for item in inputs)
    target = read_target(output, media, many=many, suffix=suffix, format=wanted)
    search = _search(inputs, media, recursive=recursive, target=target)
    found, own = part_own_results(search.distinct(), suffixes={DEFAULT_SUFFIX, suffix or DEFAULT_SUFFIX})
    naming = Naming(target, media, suffix=suffix, format=wanted, model=model)
    jobs = _name_results(found, naming, variants)
    written = [path for job in jobs.values() for path in job.files]
    require_own_names(beside, inputs=[one.path for one in jobs], results=written)
    todo, skipped, more_own = _part_existing(jobs, overwrite=overwrite)
    return Plan(
        jobs=tuple(todo),
        skipped=tuple(skipped),
        uncompared=tuple(job for job in skipped if _is_uncompared(job)),
        own_results=tuple(sorted([*own, *more_own], key=sort_key)),
        unreadable=tuple(sorted(search.unreadable, key=sort_key)),
    )


def _search(inputs: Sequence[str | Path], media: Media, *, recursive: bool, target: Target) -> Search:
    """Find the files; raises SettingsError when there are none."""
    search = Search(media, recursive=recursive, avoid=target.base if target.kind in ("folder", "template") else None)
    for item in inputs:
        search.add(item)
    where = ", ".join(quoted(item) for item in inputs[:3]) + (", ..." if len(inputs) > 3 else "")
    if search.unreadable:
        hint = f"; {quoted(search.unreadable[0])} cannot be read"
    else:
        hint = "" if recursive else "; with -r the folders below are searched as well"
    refuse_unless(bool(inputs), f"no {media.noun} named")
    refuse_unless(bool(search.found), f"no {media.noun} found in {where}{hint}")
    return search


def _name_results(found: Sequence[Found], naming: Naming, variants: Sequence[Variant]) -> dict[Found, Job]:
    """Name every result; SettingsError when two inputs share one and no former suffix tells them apart."""
    if naming.target.kind == "stdout":
        refuse_unless(len(found) == 1 and not variants, "standard output takes one result; give --output a folder")
        return {found[0]: Job(found[0].path, None)}
    typed = {one: naming.stem_and_extension(one.path) for one in found}
    outputs = {one: naming.result(one, stem, extension) for one, (stem, extension) in typed.items()}
    keys = _output_keys(outputs)
    sharing = Counter(keys.values())
    for one, (stem, extension) in typed.items():
        converted = stem == one.path.stem and extension.lower() != one.path.suffix.lower()
        if converted and sharing[keys[one]] > 1:
            typed[one] = stem_with_suffix(one.path), extension
            outputs[one] = naming.result(one, *typed[one])
    # `a.jpg` and `A.JPG` are two files here, and their results one name on a disk that is blind to case.
    # Whether folders for them are there already must not count: a second run has to find what the first one named.
    spelt: Counter[tuple[str, str, str]] = Counter()
    folders = {folder: fold(str(real_path(folder))) for folder in {path.parent for path in outputs.values()}}
    for one, path in list(outputs.items()):
        key = (folders[path.parent], fold(path.name), spelling(one))
        spelt[key] += 1
        if (count := spelt[key]) > 1:
            stem, extension = typed[one]
            outputs[one] = naming.result(one, numbered(stem, count), extension)
    places = places_of(found)
    jobs = {
        one: Job(one.path, path, tuple(variant_path(path, variant) for variant in variants), places[one])
        for one, path in outputs.items()
    }
    _require_writable_names(jobs)
    return jobs


def _require_writable_names(jobs: Mapping[Found, Job]) -> None:
    """Refuse two files of one name, names too long for a disk, and files below what is no folder."""
    written = {(one, place): path for one, job in jobs.items() for place, path in enumerate(job.files)}
    owners: dict[str, Path] = {}
    for (one, place), key in _output_keys(written).items():
        path = written[one, place]
        owner = owners.get(key, path)
        # What lies in one folder has one {parent}, and a second run into the same folder skips what is there.
        template = "" if owner.parent == one.path.parent else "with --output 'FOLDER/{parent}/{stem}{ext}' or "
        both = "{} and {} would both become {}; keep them apart {}in separate runs, each with "
        refuse_unless(key not in owners, both + "an --output folder of its own", owner, one.path, path, template)
        owners[key] = one.path
        size = max(len(os.fsencode(name)) for name in path.parts)
        refuse_unless(size <= NAME_BYTES, "{} bytes are too many for a name on most disks: {}", size, path)
    _require_folders(written.values())


def _require_folders(paths: Iterable[Path]) -> None:
    for folder in {path.parent for path in paths}:
        nearest = next(place for place in (folder, *folder.absolute().parents) if facts_of(place))
        refuse_unless(is_folder(nearest), "{} is no folder, so no result can go below it", nearest)


def require_own_names(beside: Sequence[Path], *, inputs: Iterable[Path] = (), results: Iterable[Path] = ()) -> None:
    """Refuse files besides the results that are a folder, an input, a result or one another; raises SettingsError."""
    victims = {(facts.st_dev, facts.st_ino): path for path in inputs if (facts := facts_of(path))} if beside else {}
    named = {("result", str(place)): path for place, path in enumerate(results)} if beside else {}
    named |= {("beside", str(place)): path for place, path in enumerate(beside)}
    taken: set[str] = set()
    for name, key in _output_keys(named).items():
        path, what = named[name], name[0]
        facts = facts_of(path) if what == "beside" else None
        refuse_unless(bool(path.name), "{} is no name for a file", path)
        is_short = max(len(os.fsencode(name)) for name in path.parts) <= NAME_BYTES
        refuse_unless(is_short or what == "result", "the name is too long for most disks: {}", path)
        refuse_unless(facts is None or not stat.S_ISDIR(facts.st_mode), "{} is a folder, not a file", path)
        victim = victims.get((facts.st_dev, facts.st_ino)) if facts else None
        refuse_unless(victim is None, "{} would replace the input {}", path, victim)
        refuse_unless(key not in taken, "two files would become {}; give each a name of its own", path)
        taken.add(key)
    _require_folders(beside)


def require_free(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that is there already, unless it may be replaced; raises SettingsError."""
    refuse_unless(overwrite or not facts_of(path), "{} exists already; use --overwrite to replace it", path)


def require_ending(path: Path, endings: Sequence[str], option: str) -> None:
    """Refuse a name for an option's file that ends in none of `endings`, in any case; raises SettingsError."""
    wanted = " or ".join(endings)
    refuse_unless(path.suffix.lower() in endings, "{} is a file ending in {}, not {}", option, wanted, path)


def _part_existing(jobs: Mapping[Found, Job], *, overwrite: bool) -> tuple[list[Job], list[Job], list[Path]]:
    """Part what is to do from what has a result already and from inputs that are such results.

    Raises SettingsError when a result would replace an input: its own in any case, another with `overwrite`.
    """
    inputs = {one.device_and_inode: one for one in jobs}
    todo: list[Job] = []
    skipped: list[Job] = []
    results: set[Path] = set()
    linked: dict[Path, Path] = {}
    for one, job in jobs.items():
        # `new/../a.jpg` leads nowhere until `new` is made, and then to `a.jpg`: ask for the real path.
        asked = [(path, facts_of(real_path(path.parent) / path.name)) for path in job.files]
        existing = [(path, facts) for path, facts in asked if facts]
        for path, facts in existing:
            refuse_unless(not stat.S_ISDIR(facts.st_mode), "the result {} would replace a folder", path)
            identity = (facts.st_dev, facts.st_ino)
            if overwrite and path.is_symlink():  # what it leads to is replaced
                other = linked.setdefault(real_path(path), one.path)
                both = "{} and {} would both become what {} is a link to"
                refuse_unless(other == one.path, both, other, one.path, path)
            if identity in inputs:
                safe = identity != one.device_and_inode and not overwrite
                victim = inputs[identity].path
                refuse_unless(safe, "the result {} would replace the input {}", path, victim)
                results.add(victim)
        (skipped if existing and not overwrite else todo).append(job)
    return (
        [job for job in todo if job.input not in results],
        [job for job in skipped if job.input not in results],
        list(results),
    )


def _is_uncompared(job: Job) -> bool:
    """Whether a job lacks files, and nothing but those for which input and result suffice."""
    missing = set(job.missing)
    return job.output is not None and bool(missing) and missing <= {variant_path(job.output, one) for one in COMPARING}


def _plan_stdin(
    inputs: Sequence[str | Path],
    media: Media,
    *,
    output: str | None,
    format: str | None,
    variants: Sequence[Variant],
    overwrite: bool,
) -> Plan:
    """Plan the one job that standard input is; its result goes to standard output or into a named file."""
    refuse_unless(len(inputs) == 1, "standard input (-) stands alone, without other inputs")
    if output is None or output == "-":
        refuse_unless(not variants, "standard output takes one result; give --output a file name")
        return Plan((Job(None, None),))
    path = Path(output)
    named = bool(path.name) and not is_folder(path) and not output.endswith(SEPARATORS) and "{" not in output
    refuse_unless(named, "standard input has no name to go by; give --output a file name or -")
    require_format(path.name, media, format=format)
    job = Job(None, path, tuple(variant_path(path, variant) for variant in variants))
    done = not overwrite and any(facts_of(file) for file in job.files)
    return Plan((), skipped=(job,)) if done else Plan((job,))


def _output_keys(paths: Mapping[_Key, Path]) -> dict[_Key, str]:
    """Return for every path a key that is equal for names which some disk takes for one."""
    places = {folder: _place(folder) for folder in {path.parent for path in paths.values()}}
    return {key: f"{places[path.parent]}/{fold(path.name)}" for key, path in paths.items()}


def _place(folder: Path) -> str:
    """Name a folder by what exists of it, which the disk tells apart, and the folded names of the rest."""
    real = real_path(folder)
    nearest, facts = next((place, facts) for place in (real, *real.parents) if (facts := facts_of(place)))
    return f"{facts.st_dev}:{facts.st_ino}/{fold(str(real.relative_to(nearest)))}"
