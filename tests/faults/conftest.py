"""One server of forked processes for the whole suite."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Forks, forks


@pytest.fixture(scope="session")
def lowlight() -> Iterator[Forks]:
    """Runs `lowlight` in a process of its own for the price of a fork."""
    with forks("lowlight_cli.clip", "lowlight_cli.weights_file", "forks:rehearse") as server:
        yield server


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
