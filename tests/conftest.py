"""Shared by all tests: the yardsticks beside the backend tests can be imported, and nothing touches the real cache."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "backends"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test an empty weights cache of its own."""
    monkeypatch.setenv("LOWLIGHT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
