"""Finished segments of a film on disk, from which a killed run goes on.

A film is always encoded in closed segments of `SEGMENT_FRAMES` frames, each by a fresh encoder, so a run that takes
half of them from here ends with the very bytes of one that made them all. A segment file holds the encoded packets
and, with them, the state of whatever looks across frames.
"""

import hashlib
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lowlight_cli.atomic import atomic_file, make_private_folder
from lowlight_cli.errors import OutputError

SEGMENT_FRAMES = 120
_LOCK = "lock"
_RUN = "run"
_OURS = re.compile(r"run|\d{6,}\.npz|\.(run|\d{6,}\.npz)\.[0-9a-f]{8}\.part")
"""What a store writes: all that it throws away."""

State = Mapping[str, NDArray[np.generic]]


@dataclass
class Segment:
    """Encoded packets in decoding order: bytes, times in the film's time base, and whether they are key frames."""

    frames: int = 0
    data: list[bytes] = field(default_factory=list)
    times: list[tuple[int, int, int]] = field(default_factory=list)  # shown, decoded, duration
    keys: list[bool] = field(default_factory=list)


class SegmentStore:
    """A hidden folder beside the result. Segments of another input or other settings in it are thrown away."""

    def __init__(self, target: Path, fingerprint: str) -> None:
        self._folder = _folder_of(target)
        self._fingerprint = _digest(fingerprint)

    @property
    def is_there(self) -> bool:
        """Whether a run has begun one."""
        return self._folder.exists()

    def finished(self) -> int:
        """Return how many segments, from the first on, are complete."""
        if self._stored_fingerprint() != self._fingerprint:
            return 0
        count = 0
        while self._path(count).exists():
            count += 1
        return count

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs from these segments meanwhile; raises OutputError where one is at work on them."""
        import filelock  # here and not at the top: most runs need no lock

        self._make_folder()
        lock = filelock.FileLock(self._folder / _LOCK)
        with suppress(OSError, NotImplementedError):  # where files cannot be locked
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout as error:
                raise OutputError("another run with --resume is at work on it") from error
        try:
            yield
        finally:
            with suppress(OSError):
                lock.release()

    def prepare(self) -> None:
        """Make the folder ready for this run; raises OutputError when it cannot be made."""
        self._make_folder()
        try:
            is_anothers = self._stored_fingerprint() != self._fingerprint
            for path in self._folder.iterdir():
                # A link is none that a store has made, and a segment would be written where it leads.
                if _OURS.fullmatch(path.name) and (is_anothers or path.is_symlink()):
                    path.unlink()
            if is_anothers:
                with atomic_file(self._folder / _RUN, overwrite=True) as file:
                    file.write(self._fingerprint.encode())
        except OSError as error:
            raise OutputError(f"cannot make the folder for --resume: {error.strerror or error}") from error

    def save(self, index: int, segment: Segment, state: State) -> None:
        """Write a finished segment and the state after it, complete or not at all."""
        arrays: dict[str, NDArray[np.generic]] = {
            "frames": np.array([segment.frames], np.int64),
            "sizes": np.array([len(part) for part in segment.data], np.int64),
            "times": np.array(segment.times, np.int64).reshape(-1, 3),
            "keys": np.array(segment.keys, np.bool_),
            "data": np.frombuffer(b"".join(segment.data), np.uint8),
            **{f"state_{name}": array for name, array in state.items()},
        }
        with atomic_file(self._path(index), overwrite=True) as file:
            np.savez(file, allow_pickle=False, **arrays)

    def load(self, index: int) -> tuple[Segment, dict[str, NDArray[np.generic]]]:
        """Read a finished segment and the state after it; raises OutputError when it was damaged since."""
        try:
            with np.load(self._path(index), allow_pickle=False) as arrays:
                ends = np.cumsum(arrays["sizes"])
                data = arrays["data"].tobytes()
                parts = [data[end - size : end] for end, size in zip(ends, arrays["sizes"], strict=True)]
                times = [(int(a), int(b), int(c)) for a, b, c in arrays["times"]]
                segment = Segment(int(arrays["frames"][0]), parts, times, [bool(key) for key in arrays["keys"]])
                state = {name[6:]: arrays[name] for name in arrays.files if name.startswith("state_")}
                return segment, state
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise OutputError(f"{self._path(index)} is damaged; remove its folder to begin anew") from error

    def _make_folder(self) -> None:
        """Make the folder; raises OutputError where it cannot be, or what has its name is no folder of this user's."""
        try:
            if not make_private_folder(self._folder):
                raise OutputError(f"{self._folder}, where --resume keeps its work, is no folder of yours; remove it")
        except OSError as error:
            raise OutputError(f"cannot make the folder for --resume: {error.strerror or error}") from error

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:06}.npz"

    def _stored_fingerprint(self) -> str | None:
        try:
            return (self._folder / _RUN).read_text()
        except OSError:
            return None


def remove_segments(target: Path) -> None:
    """Throw away the segments of a result, of whichever run: it is complete."""
    shutil.rmtree(_folder_of(target), ignore_errors=True)


def remove_outlived(targets: Iterable[Path]) -> None:
    """Throw away the segments of results that were finished after them: no run will go on from those.

    Newer segments are those of a run that is to replace the result.
    """
    for target in targets:
        with suppress(OSError):
            finished = target.stat()
            # The first is newer where the result was given its input's times.
            if _folder_of(target).stat().st_mtime_ns <= max(finished.st_ctime_ns, finished.st_mtime_ns):
                remove_segments(target)


def _folder_of(target: Path) -> Path:
    # Cut by letters, as the longest names leave no room for more.
    return target.with_name(f".{target.name[:60]}.{_digest(str(target.absolute()))}.resume")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
