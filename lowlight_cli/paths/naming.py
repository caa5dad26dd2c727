"""What `--output`, `--suffix` and `--format` make of a name."""

import os
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from lowlight_cli.errors import SettingsError
from lowlight_cli.paths.media import Media, sniff_file
from lowlight_cli.paths.refusal import refuse_unless
from lowlight_cli.paths.search import Found, facts_of, fold, is_file, is_folder, real_path
from lowlight_cli.settings import DEFAULT_SUFFIX

Variant = Literal["enhanced", "compare", "sheet"]

_VARIANTS: tuple[Variant, ...] = ("enhanced", "compare")
COMPARING: tuple[Variant, ...] = ("compare", "sheet")
"""What shows an input and its result together."""

SEPARATORS = tuple(mark for mark in (os.sep, os.altsep) if mark)

_FIELDS = ("stem", "ext", "parent", "model")


@dataclass(frozen=True)
class Target:
    """What `--output` means.

    `base` is the file, or the folder that every result stays in; `template` is the whole text of a template.
    """

    kind: Literal["beside", "folder", "file", "template", "stdout"]
    base: Path = Path()
    template: str = ""


def read_target(output: str | None, media: Media, *, many: bool, suffix: str | None, format: str | None) -> Target:
    """Read `--output`, where `many` says that several results may come.

    Raises SettingsError for a name, or a combination with `--suffix` or `--format`, that cannot be meant.
    """
    refuse_unless(not suffix or PurePath(suffix).name == suffix, f"--suffix {suffix!r} is no part of a file name")
    refuse_unless(output != "", "--output is empty")
    if output is None:
        return Target("beside")
    if output == "-":
        return Target("stdout")
    path = Path(output)
    exists = facts_of(path) is not None
    if not exists and ("{" in output or "}" in output):
        target = _read_template(output, media)
    elif _means_folder(output, media, many=many):
        return Target("folder", path)
    else:
        refuse_unless(not many, "several results need a folder; for one called {} end it with a slash", path)
        target = Target("file", path)
    refuse_unless(suffix is None, "--suffix has no place beside --output {}, the whole name", Path(output))
    require_format(target.template or path.name, media, format=format)
    return target


def _means_folder(output: str, media: Media, *, many: bool) -> bool:
    """Whether a name is a folder's: it is one, says so, or is new and has no suffix that makes it a file."""
    path = Path(output)
    if is_folder(path) or output.endswith(SEPARATORS):
        return True
    if facts_of(path) is not None or media.format_of(path.suffix):
        return False
    return many or not path.suffix


def _read_template(text: str, media: Media) -> Target:
    """Read a template, where doubled braces stand for themselves; SettingsError for a field there is not."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise SettingsError(f"the template {text!r} cannot be read: {error}") from error
    for _, name, spec, conversion in parts:
        known = name is None or (name in _FIELDS and not spec and not conversion)
        offered = " ".join(f"{{{field}}}" for field in _FIELDS)
        refuse_unless(known, f"the template {text!r} asks for {{{name}}}; there are {offered}, and {{{{ for a brace")
    first_field = next((place for place, part in enumerate(parts) if part[1] is not None), len(parts))
    fixed = "".join(literal for literal, *_ in parts[: first_field + 1])
    if text.endswith(SEPARATORS):
        text += "{stem}{ext}"
    last = PurePath(text).name
    if "{ext}" not in last and media.format_of(PurePath(last).suffix) is None:
        text += "{ext}"
    # The x makes a last folder of the fixed part: `out/{stem}` stays below `out`, and so does `out/a_{stem}`.
    return Target("template", Path(f"{fixed}x").parent, text)


def require_format(name: str, media: Media, *, format: str | None) -> None:
    """Refuse a name whose suffix is of no format, of one we cannot write, or of another than `--format`."""
    if name.endswith("{ext}"):
        return
    suffix = PurePath(name).suffix
    named = media.format_of(suffix)
    refuse_unless(named is not None or format is not None, "{!r} in {!r} names no format", suffix, name)
    refuse_unless(named not in media.written_as, "cannot write {} files such as {!r}", named, name)
    refuse_unless(format is None or named in (None, format), "--format {} contradicts {!r}", format, name)


@dataclass(frozen=True)
class Naming:
    """Names results as `plan_jobs` says. `suffix` of None is the default one, or none in a folder."""

    target: Target
    media: Media
    suffix: str | None
    format: str | None
    model: str

    def stem_and_extension(self, path: Path) -> tuple[str, str]:
        """Part a name where its type begins, and give it the type of its result.

        A suffix that names no type belongs to the stem (`holiday.2024`), and the content tells the type.
        """
        stem, extension = path.stem, path.suffix
        format = self.media.format_of(extension)
        if format is None and (format := sniff_file(path, self.media)) is not None:
            stem, extension = path.name, self.media.usual_suffix(format)
        wanted = self.format or (self.media.written_as.get(format, format) if format else None)
        return stem, extension if wanted in (None, format) else self.media.usual_suffix(wanted)

    def result(self, found: Found, stem: str, extension: str) -> Path:
        """Return where the result of an input goes; SettingsError when a template would leave its folder."""
        target, path = self.target, found.path
        if target.kind == "file":
            return target.base
        if target.kind == "folder":
            return target.base.joinpath(*found.folders[1:], f"{stem}{self.suffix or ''}{extension}")
        if target.kind == "beside":
            ending = DEFAULT_SUFFIX if self.suffix is None else self.suffix
            named = is_file(path) and not _is_stream(path)
            refuse_unless(named, "{} is no regular file; name its result with --output", path)
            return path.with_name(f"{stem}{ending}{extension}")
        parent = "/".join(found.folders) if found.folders else path.absolute().parent.name
        filled = Path(target.template.format(stem=stem, ext=extension, parent=parent, model=self.model))
        climbs = ".." in filled.parts[len(target.base.parts) :]
        inside = not climbs and real_path(filled.parent).is_relative_to(real_path(target.base))
        refuse_unless(inside, "the result of {} would leave the template's folder: {}", path, filled)
        return filled


def _is_stream(path: Path) -> bool:
    """Whether a name is one of the system's for an open file, such as /dev/stdin: a result has no place beside it."""
    folder = real_path(path.parent)
    return folder == Path("/dev") or folder.is_relative_to("/proc")


def variant_path(output: Path, variant: Variant) -> Path:
    """Name a further file beside a result: `night_lowlight.jpg` -> `night_lowlight_compare.jpg`; a sheet is a PNG."""
    return output.with_name(f"{output.stem}_{variant}{'.png' if variant == 'sheet' else output.suffix}")


def stem_with_suffix(path: Path) -> str:
    """Draw a suffix into the stem, which tells two types of one name apart: `a.cr2` -> `a_cr2`."""
    return f"{path.stem}_{path.suffix[1:]}" if path.suffix else path.stem


def spelling(one: Found) -> str:
    """Return what is equal for inputs whose names differ only in case, or in how accents are composed."""
    return fold(str(one.path))


def numbered(stem: str, count: int) -> str:
    """Tell the second and further of such inputs apart: `a`, `a_2`, `a_3`."""
    return stem if count == 1 else f"{stem}_{count}"


def part_own_results(found: Sequence[Found], *, suffixes: set[str]) -> tuple[list[Found], list[Path]]:
    """Part the inputs from those that our default names made of another input in the same folder.

    So `lowlight enhance *.jpg` can be run twice. A result whose source is not among the inputs is a picture
    like any other.
    """
    endings = [f"{suffix}{more}" for suffix in suffixes for more in ("", *(f"_{name}" for name in _VARIANTS))]
    alike = Counter(spelling(one) for one in found)
    sources = {
        (one.path.parent, numbered(stem, count))
        for one in found
        for stem in (one.path.stem, stem_with_suffix(one.path))
        for count in range(1, alike[spelling(one)] + 1)
    }

    def is_own(one: Found) -> bool:
        stem = one.path.stem
        bases = (stem.removesuffix(ending) for ending in endings if stem.endswith(ending))
        return any((one.path.parent, base) in sources for base in bases)

    return [one for one in found if not is_own(one)], [one.path for one in found if is_own(one)]
