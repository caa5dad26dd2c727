"""Compiled loops: whole or not at all when a stop is asked for, and never another process's."""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numba
import pytest
from numba.core import event

MODULE = """
from lowlight_cli.loops import compiled

def adding(number):
    @compiled
    def add(value):
        return value + number
    return add
"""


@pytest.fixture
def adding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """Makes loops that nobody has compiled yet."""
    (tmp_path / "adding.py").write_text(MODULE)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "adding", raising=False)
    return importlib.import_module("adding").adding


class Interrupting(event.Listener):
    """Sends this process SIGINT when a compiler begins: once, for what it needs may be compiled within."""

    def __init__(self) -> None:
        self._is_over = False

    def on_start(self, event: object) -> None:
        if not self._is_over:
            self._is_over = True
            os.kill(os.getpid(), signal.SIGINT)

    def on_end(self, event: object) -> None:
        pass


@pytest.fixture
def interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_waits_until_a_loop_is_compiled_and_kept(adding: Callable[[int], Any], tmp_path: Path) -> None:
    loop = adding(1)
    with event.install_listener("numba:compile", Interrupting()), pytest.raises(KeyboardInterrupt):
        loop(1)
    assert len(loop.signatures) == 1
    assert len(list(tmp_path.rglob("*.nbc"))) == 1
    assert loop(1) == 2


def test_one_process_compiles_at_a_time(adding: Callable[[int], Any]) -> None:
    loop = adding(1)
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(loop(1)))
    with filelock.FileLock(Path(loop.stats.cache_path) / "loops.lock"):
        other.start()
        other.join(1)
        assert other.is_alive()
    other.join(60)
    assert found == [2]
