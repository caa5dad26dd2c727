"""What the fault suite works with: a folder in memory, and a writer in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Forks
from writers import Bench, Writer


@pytest.fixture
def server_of(writer: Writer, request: pytest.FixtureRequest) -> Forks:
    """The server whose children are quickest to run a test's writer."""
    server: Forks = request.getfixturevalue("fitting" if writer.fits else "forked")
    return server


@pytest.fixture
def bench(writer: Writer, server_of: Forks, quick_folder: Path) -> Bench:
    """A test's writer in a folder of its own."""
    return Bench(writer, server_of, quick_folder)


@pytest.fixture
def quick_folder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of fsyncs would wait for the disk and prove nothing more."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="lowlight-", dir=memory))
    yield folder
    shutil.rmtree(folder)
