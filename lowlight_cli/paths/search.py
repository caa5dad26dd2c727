"""What the inputs mean: files, folders, globs and lists of files become the files they stand for."""

import glob
import os
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from lowlight_cli.errors import SettingsError
from lowlight_cli.paths.media import Media, sniff_file
from lowlight_cli.paths.refusal import quoted, refuse_unless

_JUNK = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "__macosx", "#recycle", "$recycle.bin"))


@dataclass(frozen=True)
class Found:
    """An input file: its path as given, the names of the folders it was found below, and its identity.

    `folders` begins with the searched folder itself and is empty for a file that was named. `key` is equal
    for two spellings of one file; `device_and_inode` for its hard links too.
    """

    path: Path
    folders: tuple[str, ...]
    key: str
    device_and_inode: tuple[int, int]


class Search:
    """Turns inputs into the files they mean, and remembers what it could not read.

    `avoid` is the folder that this very run writes into: it is not searched when it lies below an input.
    """

    def __init__(self, media: Media, *, recursive: bool, avoid: Path | None) -> None:
        self.found: list[Found] = []
        self.unreadable: list[Path] = []
        self._media = media
        self._recursive = recursive
        self._avoid = real_path(avoid) if avoid else None
        self._real_folders: dict[Path, Path] = {}

    def add(self, item: str | Path) -> None:
        """Add one input; raises SettingsError when nothing of that name exists, not so much as a link.

        A string that names no file is expanded if it holds `*`, `?` or `[`, as not every shell does.
        """
        refuse_unless(item != "", "an input has no name: it is empty")  # as an unset variable of a shell is
        path = Path(item)
        facts = facts_of(path)
        if facts is None and is_link(path):  # a shell's `*.jpg` names it as well
            self.unreadable.append(path)
        elif facts is None:
            expands = isinstance(item, str) and glob.has_magic(item)
            refuse_unless(expands, why_absent(path))
            self._expand(str(item))
        elif stat.S_ISDIR(facts.st_mode):
            self._search_folder(path)
        else:
            self._take(path, facts)

    def distinct(self) -> list[Found]:
        """Return what was found, each file once, sorted; found below a folder, a file keeps that place."""
        best: dict[str, Found] = {}
        for one in sorted(self.found, key=lambda one: (-len(one.folders), sort_key(one.path))):
            best.setdefault(one.key, one)
        return sorted(best.values(), key=lambda one: sort_key(one.path))

    def _expand(self, pattern: str) -> None:
        matches = [Path(match) for match in glob.glob(pattern, recursive=True)]  # noqa: PTH207 (may be absolute)
        refuse_unless(bool(matches), "there is no file or folder {!r}", pattern)
        for path in matches:
            if not is_folder(path):
                self._consider(path)
            elif "**" not in pattern:  # which gives the folders' files as well
                self._search_folder(path)

    def _search_folder(self, root: Path) -> None:
        def note(error: OSError) -> None:
            self.unreadable.append(Path(error.filename))

        name = real_path(root).name if root.name in ("", "..") else root.name
        for folder, below, files in os.walk(root, onerror=note):
            here = Path(folder)
            below[:] = [each for each in below if self._enters(here / each)] if self._recursive else []
            for file in files:
                self._consider(here / file, folders=(name, *here.relative_to(root).parts))

    def _enters(self, folder: Path) -> bool:
        own = self._avoid is not None and real_path(folder) == self._avoid
        return not (own or is_junk(folder.name) or folder.is_symlink())

    def _consider(self, path: Path, *, folders: tuple[str, ...] = ()) -> None:
        """Take a file that nobody named if it looks right: by its suffix, or else by its first bytes."""
        facts = None if is_junk(path.name) else facts_of(path)
        known = self._media.format_of(path.suffix) is not None
        if facts and stat.S_ISREG(facts.st_mode) and (known or sniff_file(path, self._media)):
            self._take(path, facts, folders=folders)
        elif facts is None and known and not is_junk(path.name):
            self.unreadable.append(path)

    def _take(self, path: Path, facts: os.stat_result, *, folders: tuple[str, ...] = ()) -> None:
        real = self._real_folders.setdefault(path.parent, real_path(path.parent))
        # On a case-blind disk two spellings share an inode; on another disk they are two files and do not.
        key = f"{fold(str(real / path.name))}\0{facts.st_dev}\0{facts.st_ino}"
        self.found.append(Found(path, folders, key, (facts.st_dev, facts.st_ino)))


def places_of(found: Sequence[Found]) -> dict[Found, str]:
    """Return where each file lies, said alike on every machine and for every spelling of the inputs.

    That is its path below the searched folder; for files that were named, below the folder that all of these share.
    Neither the order of the inputs nor where a disk is mounted plays a part.
    """
    named = {one: Path(os.path.abspath(one.path)) for one in found if not one.folders}  # noqa: PTH100 (drops `..`)
    try:
        shared = os.path.commonpath([path.parent for path in named.values()])
    except ValueError:  # nothing named, or on two drives
        shared = ""
    parts = {one: path.relative_to(shared).parts for one, path in named.items()}
    parts |= {one: (*one.folders[1:], one.path.name) for one in found if one.folders}
    return {one: unicodedata.normalize("NFC", "/".join(parts[one])) for one in found}


def files_below(folder: Path, media: Media) -> list[Path]:
    """Return a folder's files of a kind, all the way down, sorted; SettingsError for no such folder."""
    refuse_unless(facts_of(folder) is not None, why_absent(folder))
    search = Search(media, recursive=True, avoid=None)
    search.add(folder)
    return [one.path for one in search.distinct()]


def read_file_list(source: Path | BinaryIO, *, null_separated: bool = False) -> list[Path]:
    """Read the names of `--files-from`, one a line or each ended by a NUL byte, and take them literally.

    Raises SettingsError when the list cannot be read, or holds NUL bytes without being `null_separated`.
    """
    try:
        data = source.read_bytes() if isinstance(source, Path) else source.read()
    except OSError as error:
        shown = quoted(source) if isinstance(source, Path) else "-"
        raise SettingsError(f"cannot read the list of files {shown}: {error.strerror or error}") from error
    refuse_unless(null_separated or b"\0" not in data, "the list of files holds NUL bytes; read it with -0")
    names = data.split(b"\0") if null_separated else data.splitlines()
    return [Path(os.fsdecode(name)) for name in names if name]


def facts_of(path: Path) -> os.stat_result | None:
    """Return what the disk says of a file or folder, links followed; None for a name that leads nowhere."""
    try:
        return path.stat()
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
        return None


def why_absent(path: Path) -> str:
    """Say of a path of which nothing can be learnt whether it leads nowhere, or permissions keep us from it."""
    try:
        path.stat()
    except PermissionError:
        return f"{quoted(path)} cannot be reached: permission denied"
    except (OSError, ValueError):
        pass
    return f"there is no file or folder {quoted(path)}"


def why_unreadable(path: Path) -> str:
    """Say why a search could not read what it met."""
    if is_folder(path):
        return "the folder cannot be read"
    return "the link leads nowhere" if is_link(path) else "it cannot be reached"


def is_link(path: Path) -> bool:
    """Whether a name is that of a link, wherever it leads; never raises."""
    return os.path.islink(path)  # noqa: PTH114 (`Path.is_symlink` raises where permissions hide the name)


def is_file(path: Path) -> bool:
    """Whether a path leads to a regular file; never raises, as `Path.is_file` does for a name too long."""
    facts = facts_of(path)
    return facts is not None and stat.S_ISREG(facts.st_mode)


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder; never raises."""
    facts = facts_of(path)
    return facts is not None and stat.S_ISDIR(facts.st_mode)


def real_path(path: Path) -> Path:
    """Return the absolute path without links, whether or not it exists (`Path.resolve` fails on a loop)."""
    return Path(os.path.realpath(path))


def is_junk(name: str) -> bool:
    """Whether a name is one that systems leave in folders and nobody means: hidden, or known by name."""
    return name.startswith(".") or name.casefold() in _JUNK


def fold(name: str) -> str:
    """Make equal what some disk takes for one name: case, and accents composed or not."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def sort_key(path: PurePath) -> tuple[list[str], str]:
    """Sort folder by folder, and alike on disks that store accents composed and decomposed."""
    return [unicodedata.normalize("NFC", part) for part in path.parts], str(path)
