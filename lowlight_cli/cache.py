"""The folder of weights on this machine: find, fetch, verify, remove and import files named by the manifest.

Each function first looks (present, stale or absent), then acts. A file gets its final name only after its
digest was found right, so several processes may share the folder: locks merely spare them the same download.
No torch here.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lowlight_cli.atomic import PART_SUFFIX, atomic_file, make_private_folder, write_atomically
from lowlight_cli.errors import OutputError, SettingsError, WeightsError
from lowlight_cli.locks import one_process
from lowlight_cli.manifest import Manifest, WeightsEntry

if TYPE_CHECKING:
    from lowlight_cli.download import Notice, Patience, Progress

State = Literal["present", "stale", "absent"]

FOLDER_VARIABLE = "LOWLIGHT_CACHE_DIR"

_OTHER_FOLDER = f"set {FOLDER_VARIABLE} to a folder that can be written"
_IMPORT_LIMIT = 1 << 29
_SPARE_BYTES = 1 << 20  # leave the disk a little room
_LOCK_SECONDS = 600.0
_DEAD_PART_SECONDS = 900.0  # longer than any pause in a living download


def cache_folder() -> Path:
    """Where downloaded and imported weights lie: LOWLIGHT_CACHE_DIR, or this user's cache folder.

    Raises:
        SettingsError: LOWLIGHT_CACHE_DIR begins with the home folder of somebody who is not there.
    """
    if chosen := os.environ.get(FOLDER_VARIABLE):
        try:
            return Path(chosen).expanduser().absolute()
        except RuntimeError as error:
            raise SettingsError(f"{FOLDER_VARIABLE} is {chosen}, and there is no such home folder") from error
    # Here and not at the top: `--help` needs no folder.
    import platformdirs

    return platformdirs.user_cache_path("lowlight", appauthor=False)


def private_folder(name: str) -> Path:
    """Return a folder within the cache folder that this user alone can write, for what is run when it is read.

    Raises:
        OutputError: it cannot be made, or is a link or another user's.
    """
    folder = cache_folder() / name
    try:
        if not make_private_folder(folder):
            raise OutputError(f"{folder} is not a folder of your own; {_OTHER_FOLDER}")
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}; {_OTHER_FOLDER}") from error
    return folder


def locate(entry: WeightsEntry) -> Path:
    """Where the file of `entry` lies or would lie; nothing is looked at."""
    if entry.embedded:
        return Path(__file__).parent / "weights" / entry.file
    return cache_folder() / entry.file


def status(entry: WeightsEntry) -> State:
    """Say whether the file is there, judged by its size alone: quick, for lists."""
    try:
        found = locate(entry).stat()
    except OSError:
        return "absent"
    if entry.bytes is None:
        return "present" if known_digest(entry) else "stale"
    return "present" if found.st_size == entry.bytes else "stale"


def verify(entry: WeightsEntry) -> State:
    """Say whether the file is there with the right bytes, by its sha256; about 10 ms for 13 MB."""
    state = status(entry)
    if state != "present":
        return state
    try:
        with locate(entry).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "stale"
    return "present" if found == known_digest(entry) else "stale"


def find(entry: WeightsEntry) -> Path | None:
    """Return the path of the file when it is there with the right bytes, else None."""
    return locate(entry) if verify(entry) == "present" else None


def known_digest(entry: WeightsEntry) -> str | None:
    """Return the sha256 that the file must have: the manifest's, or else the one noted when it was imported.

    Pass it to `read_weights`: only the digest of the very bytes that are loaded protects.
    """
    if entry.sha256 is not None:
        return entry.sha256
    try:
        return _note_path(entry).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def fetch(
    entry: WeightsEntry,
    *,
    offline: bool = False,
    progress: "Progress | None" = None,
    notice: "Notice | None" = None,
    patience: "Patience | None" = None,
) -> Path:
    """Return the path of the file of `entry`, downloading it when it is not there or damaged.

    `offline` opens no socket. `progress` is told bytes received and bytes in all, `notice` why there is a pause.

    Raises:
        WeightsError: the file cannot be had; the message names addresses, destination and the way out.
    """
    path = locate(entry)
    if find(entry):
        return path
    if entry.embedded:
        raise WeightsError(f"{path} is missing or damaged: install lowlight-cli again")
    if entry.import_only:
        raise WeightsError(
            f"{_damage(entry)}{entry.name} cannot be downloaded: get {entry.file} from its authors ({entry.source}) "
            f"and run `lowlight weights import FILE --as {entry.name}`, which puts it at {path}"
        )
    if offline:
        raise _unfetched(entry, f"{entry.urls[0]} was not asked, because offline")

    def tell_to_wait() -> None:
        if notice:
            notice(f"waiting for another process that downloads {path}")

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with one_process(_lock_path(path), seconds=_LOCK_SECONDS, begin_to_wait=tell_to_wait):
            if find(entry):  # another process was quicker
                return path
            _remove_dead_parts(path)
            _require_space(entry)
            _download(entry, progress=progress, notice=notice, patience=patience)
    except OSError as error:
        reason = f"{error.strerror or error}, and {entry.urls[0]} was not asked; {_OTHER_FOLDER}"
        raise WeightsError(f"{_damage(entry)}cannot download {entry.name} to {path}: {reason}") from error
    return path


def remove(entry: WeightsEntry) -> bool:
    """Delete the file of `entry` from the cache; say whether there was one.

    Raises:
        SettingsError: the file is part of the package.
        OutputError: the file cannot be deleted.
    """
    if entry.embedded:
        raise SettingsError(f"{entry.name} is part of the package and cannot be removed")
    path = locate(entry)
    existed = path.exists()
    try:
        for leftover in (path, _note_path(entry), _lock_path(path), *_parts(path)):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror or error}") from error
    return existed


def match(manifest: Manifest, source: Path) -> WeightsEntry:
    """Return the entry that the file `source` is for: by its digest, or by its name when none is published.

    Raises:
        SettingsError: there is no such file.
        WeightsError: the file is not one that the manifest knows.
    """
    digest = hashlib.sha256(_read_source(source)).hexdigest()
    entries = manifest.values()
    by_digest = (entry for entry in entries if entry.sha256 == digest)
    by_name = (entry for entry in entries if entry.sha256 is None and entry.file == source.name)
    if entry := next(chain(by_digest, by_name), None):
        return entry
    names = ", ".join(entry.name for entry in manifest.values() if not entry.embedded)
    raise WeightsError(
        f"{source} is none of the files the manifest knows (its sha256 is {digest}): say which with "
        f"--as NAME ({names}), or use your own weights by --weights {source}"
    )


def import_file(entry: WeightsEntry, source: Path, *, check: Callable[[bytes], None] | None = None) -> Path:
    """Copy `source` into the cache as the file of `entry` and return where it lies.

    The digest must be the manifest's; where the manifest knows none, `check` judges the bytes (it raises
    WeightsError) and the digest is noted, so that later damage is seen.

    Raises:
        SettingsError: there is no such file, or the entry is part of the package.
        WeightsError: the bytes are not those of `entry`, or the cache cannot be written.
    """
    if entry.embedded:
        raise SettingsError(f"{entry.name} is part of the package: there is nothing to import")
    content = _read_source(source)
    digest = hashlib.sha256(content).hexdigest()
    if entry.sha256 is None:
        try:
            if check:
                check(content)
        except WeightsError as error:
            raise WeightsError(f"cannot import {source} as {entry.name}: {error}") from error
    elif digest != entry.sha256:
        raise WeightsError(
            f"{source} is not {entry.name}: {len(content)} bytes with sha256 {digest} where "
            f"{entry.bytes} bytes with {entry.sha256} are right"
        )
    path = locate(entry)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.sha256 is None:
            # The note first: killed in between, the old file counts as stale, never the new one as unknown.
            write_atomically(_note_path(entry), f"{digest}\n".encode("ascii"), overwrite=True)
        write_atomically(path, content, overwrite=True)
    except (OSError, OutputError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise WeightsError(f"cannot import {source} to {path}: {reason}; {_OTHER_FOLDER}") from error
    return path


def _download(
    entry: WeightsEntry,
    *,
    progress: "Progress | None",
    notice: "Notice | None",
    patience: "Patience | None",
) -> None:
    # Here and not at the top, because requests costs 0.1 s that listing and finding must not pay.
    from lowlight_cli.download import DownloadError, Patience, download

    if entry.bytes is None or entry.sha256 is None:
        raise WeightsError(f"{entry.name} has no known digest and is never downloaded")
    try:
        with atomic_file(locate(entry), overwrite=True) as file:
            download(
                entry.urls,
                file,
                size=entry.bytes,
                sha256=entry.sha256,
                patience=patience or Patience(),
                progress=progress,
                notice=notice,
            )
    except DownloadError as error:
        raise _unfetched(entry, str(error)) from error
    except OutputError as error:
        raise _unfetched(entry, f"{error}, wanted from {entry.urls[0]}") from error


def _unfetched(entry: WeightsEntry, reason: str) -> WeightsError:
    return WeightsError(
        f"{_damage(entry)}cannot download {entry.name} to {locate(entry)}: {reason}; get it another way and run "
        f"`lowlight weights import FILE --as {entry.name}`"
    )


def _damage(entry: WeightsEntry) -> str:
    """Begin a message with what is wrong with the file that is there, if one is."""
    return f"the cached file of {entry.name} is damaged (wrong size or sha256); " if verify(entry) == "stale" else ""


def _require_space(entry: WeightsEntry) -> None:
    free = shutil.disk_usage(locate(entry).parent).free
    needed = (entry.bytes or 0) + _SPARE_BYTES
    if free < needed:
        raise _unfetched(entry, f"{needed} bytes are needed there and {free} are free, {entry.urls[0]} was not asked")


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _note_path(entry: WeightsEntry) -> Path:
    path = locate(entry)
    return path.with_name(f"{path.name}.sha256")


def _parts(path: Path) -> list[Path]:
    return list(path.parent.glob(f".{path.name}.*{PART_SUFFIX}"))


def _remove_dead_parts(path: Path) -> None:
    """Remove what killed downloads left behind; a part that a living process writes is never that old."""
    for part in _parts(path):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _DEAD_PART_SECONDS:
                part.unlink()


def _read_source(source: Path) -> bytes:
    try:
        if not source.is_file():
            raise SettingsError(f"there is no file {source}")
        if source.stat().st_size > _IMPORT_LIMIT:
            raise WeightsError(f"{source} is larger than any weights we know")
        return source.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {source}: {error.strerror or error}") from error
