"""Shared by all tests: the yardsticks beside the backend tests can be imported, and nothing touches the real cache."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Forks, forks
from hypothesis import settings

from lowlight_cli.startup import spin_briefly

# How long an example takes says how busy the machine is.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

spin_briefly()
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Processes that test side by side share the cores, as do those that they start; torch reads this when it loads.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

sys.path.insert(0, str(Path(__file__).parent / "backends"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test an empty weights cache of its own."""
    monkeypatch.setenv("LOWLIGHT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def forked() -> Iterator[Forks]:
    """Runs `lowlight` in a process of its own for the price of a fork."""
    _need_forks()
    with forks("lowlight_cli.clip", "lowlight_cli.weights_file", "forks:rehearse") as server:
        yield server


@pytest.fixture(scope="session")
def fitting() -> Iterator[Forks]:
    """As `forked`, for commands that fit or train: an optimiser loads a compiler, which takes seconds."""
    _need_forks()
    with forks("lowlight_cli.clip", "torch._dynamo", "lowlight_cli.zero_shot.files", "forks:rehearse") as server:
        yield server


def _need_forks() -> None:
    if sys.platform != "linux":
        pytest.skip("processes that are forked and watched need Linux")
