"""A lock between processes, for what should be done by one at a time but harms nothing where files cannot be locked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def one_process(file: Path, *, seconds: float, begin_to_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Let one process, and one thread of it, into the block at a time; `file` is made for it, and stays.

    Whoever has waited for `seconds` goes in all the same, as does everybody where there are no locks. `begin_to_wait`
    is called only if another is in the block.
    """
    import filelock  # here and not at the top: most runs need no lock

    lock = filelock.FileLock(file)
    with suppress(OSError, NotImplementedError, filelock.Timeout):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if begin_to_wait:
                begin_to_wait()
            lock.acquire(timeout=seconds)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.release()
