"""The one way a file comes to be: written beside its target, checked, then moved over it in one step.

A file under its final name is therefore always complete, and an existing file survives a full disk, an
exception or a killed process. The temporary name is hidden (`.NAME.XXXXXXXX.part`) and lies in the target's
own folder, because only a rename within one file system is atomic; a folder that is not there yet is made. A SIGKILL
can leave such a `.part` file behind, never a short file under a final name.
"""

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom, FileIO, UnsupportedOperation
from pathlib import Path
from typing import BinaryIO

from lowlight_cli.errors import OutputError

PART_SUFFIX = ".part"

# Names may be 255 bytes long; the dot, the random part and the suffix need 15 of them.
_NAME_BYTES = 255 - 15


@contextmanager
def atomic_path(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty temporary file beside `target`; when the block ends well, it becomes `target`.

    For writers that want a path (a child process, a library); see `atomic_file` for an open file. On any
    exception the temporary file is removed and `target` is as it was. With `overwrite` false an existing
    target is never replaced, not even one that appeared while the block ran.

    Raises:
        OutputError: the folder cannot be made or written, the disk is full, or the target exists or is no plain file.
    """
    make_folder(target)
    with _os_errors_as_output_errors(target):
        target = written_by(target)
        mode = _mode_for(target, overwrite)
        part = _part_beside(target)
    try:
        # Made in here, so that an interrupt at any moment finds it and takes it away.
        with _os_errors_as_output_errors(target):
            _create(part, mode)
            yield part
            _sync(part)
            _publish(part, target, overwrite)
            _sync_folder(target.parent)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_file(target: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Yield a binary file, open for reading and writing, that becomes `target` when the block ends well.

    Raises:
        OutputError: as for `atomic_path`; every OSError inside the block counts as a failure to write.
    """
    with atomic_path(target, overwrite=overwrite) as part, _File(FileIO(part, "r+")) as file:
        yield file


class _File(BufferedRandom):
    """A file without a descriptor to ask for.

    Libraries that find one write past us, and Pillow takes a short write, which is what a disk gives that has just
    become full, for a whole one: a cut-off JPEG, and no error.
    """

    def fileno(self) -> int:
        """Refuse, in the way that says: use `write`."""
        raise UnsupportedOperation("this file is written through its own methods")


def write_atomically(target: Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write `content` to `target`, complete or not at all.

    Raises:
        OutputError: as for `atomic_path`.
    """
    with atomic_file(target, overwrite=overwrite) as file:
        file.write(content)


def append_line(target: Path, line: str) -> None:
    """Add a line to a log that is there to read while it grows; a kill can cut short its last line, and no other.

    Raises:
        OutputError: it cannot be written.
    """
    with _os_errors_as_output_errors(target), target.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def remove_parts(target: Path) -> None:
    """Remove what a writer of `target` that was killed left beside it; only for who knows that none is at work."""
    with suppress(OSError):
        target = written_by(target)
        for found in target.parent.iterdir():
            random = found.name.removeprefix(f".{_part_stem(target)}.").removesuffix(PART_SUFFIX)
            if found.name == _part_name(target, random) and re.fullmatch("[0-9a-f]{8}", random):
                found.unlink(missing_ok=True)


def written_by(target: Path) -> Path:
    """Return the file that a writer of `target` replaces: of a link the one it names, as an ordinary write would do.

    The link itself stays.
    """
    # Not `resolve`, which breaks where links go in circles.
    return Path(os.path.realpath(target)) if target.is_symlink() else target


def make_folder(target: Path) -> None:
    """Make the folder that `target` lies in, with those above it; one that is there is left alone.

    Raises:
        OutputError: it cannot be made, or a file stands in its place.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {target.parent}: {error.strerror or error}") from error


def make_private_folder(folder: Path) -> bool:
    """Make a folder that this user alone can enter; return whether what has its name now is one, and this user's.

    Its name may be foreseen: where others can write, one of them may have put a link to another folder there. Raises
    OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "geteuid") and found.st_uid != os.geteuid()):
        return False
    if stat.S_IMODE(found.st_mode) & 0o077:
        with suppress(OSError):  # some file systems have no modes
            folder.chmod(0o700)
    return True


def require_writable(target: Path) -> None:
    """Refuse a target whose folder, or the nearest one above it that is there, takes no files; nothing is left there.

    Raises:
        OutputError: it takes none.
    """
    target = written_by(target)
    folder = next(place for place in target.absolute().parents if os.path.lexists(place))
    if os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return
    probe = folder / f".{secrets.token_hex(4)}{PART_SUFFIX}"  # what the disk does weighs more than what it says
    try:
        _create(probe, None)
        probe.unlink()
    except OSError as error:
        raise OutputError(f"cannot write into the folder {folder}: {error.strerror or error}") from error


def preserve_times(source: Path, target: Path) -> None:
    """Give `target` the access and modification times of `source`, to the nanosecond.

    Raises:
        OutputError: the times of one cannot be read or of the other not be set.
    """
    with _os_errors_as_output_errors(target):
        times = source.stat()
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


@contextmanager
def _os_errors_as_output_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise OutputError(f"{target} exists already; use --overwrite to replace it") from error
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


def _mode_for(target: Path, overwrite: bool) -> int | None:
    """Return the permission bits of the file that is replaced, None where the umask decides, for there is none."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise OutputError(f"cannot write {target}: it is not a plain file")
    if not overwrite:
        raise FileExistsError(target)
    return stat.S_IMODE(found.st_mode)


def _part_stem(target: Path) -> str:
    # Cut by bytes, not letters: file systems count bytes. What is no valid UTF-8 is left out; where the locale has no
    # UTF-8 the rest must still be a name that can be encoded.
    whole = os.fsencode(target.name)[:_NAME_BYTES].decode("utf-8", "ignore")
    return os.fsdecode(whole.encode()) or "output"


def _part_name(target: Path, random: str) -> str:
    return f".{_part_stem(target)}.{random}{PART_SUFFIX}"


def _part_beside(target: Path) -> Path:
    """Name a temporary file that is not there yet."""
    while os.path.lexists(part := target.with_name(_part_name(target, secrets.token_hex(4)))):
        pass
    return part


def _create(part: Path, mode: int | None) -> None:
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode))
    if mode is not None:
        # The umask was applied by open; a replaced file keeps its exact bits. Some file systems have none.
        with suppress(OSError):
            part.chmod(mode)


def _sync(part: Path) -> None:
    descriptor = os.open(part, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(part: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        part.replace(target)
        return
    try:
        # A hard link fails when the name is taken, which a rename would not; this closes the race with
        # others.
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:
        if target.exists():
            raise FileExistsError(target) from None
        part.rename(target)
    else:
        part.unlink()


def _sync_folder(folder: Path) -> None:
    # Makes the new name itself survive a power cut. Windows and some network drives cannot; the content is
    # safe.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
