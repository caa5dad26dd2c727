"""What this process may take of the machine, in a container or out of it."""

import sys

import numpy as np
import pytest

from lowlight_cli import machine
from lowlight_cli.machine import (
    Growth,
    free_ram_bytes,
    peak_bytes,
    ram_bytes,
    release_free_buffers,
    resident_bytes,
    reuse_large_buffers,
    usable_cpus,
)


def test_memory_and_cpus_are_known():
    assert 1 << 20 < free_ram_bytes() <= ram_bytes()
    assert 1 << 20 < resident_bytes() <= peak_bytes() + (1 << 20)
    assert usable_cpus() >= 1
    assert machine.processor()


@pytest.fixture(params=[2, 1])
def container(tmp_path, monkeypatch, request):
    """Write the files of a control group, of version 2 or 1, by version 2's names."""
    monkeypatch.setattr(machine, "_CONTROL_GROUP", tmp_path)
    places = {
        "memory.max": "memory/memory.limit_in_bytes",
        "memory.current": "memory/memory.usage_in_bytes",
        "memory.stat": "memory/memory.stat",
    }
    total = "" if request.param == 2 else "total_"

    def write(name, text):
        place = tmp_path / (name if request.param == 2 else places.get(name, name))
        place.parent.mkdir(exist_ok=True)
        if name == "cpu.max" and request.param == 1:
            place = tmp_path / "cpu"
            place.mkdir(exist_ok=True)
            quota, period = text.split()
            (place / "cpu.cfs_quota_us").write_text("-1\n" if quota == "max" else f"{quota}\n")
            (place / "cpu.cfs_period_us").write_text(f"{period}\n")
        else:
            place.write_text(text.replace("inactive_file", f"{total}inactive_file"))

    return write


def test_memory_that_a_container_holds_of_files_counts_as_free(container):
    assert machine._container_memory(machine._CONTROL_GROUP) == []
    container("memory.max", "80000000\n")
    container("memory.current", "79000000\n")
    container("memory.stat", "anon 9000000\ninactive_file 65000000\nactive_file 5000000\n")
    assert ram_bytes() == 80_000_000
    assert free_ram_bytes() == 66_000_000
    container("memory.max", "max\n")
    assert machine._container_memory(machine._CONTROL_GROUP) == []


def test_a_container_that_holds_more_than_it_may_has_nothing_free(container):
    container("memory.max", "80000000\n")
    container("memory.current", "81000000\n")
    container("memory.stat", "anon 81000000\n")
    assert free_ram_bytes() == 0


@pytest.mark.parametrize(("quota", "most"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", 1 << 20)])
def test_cpus_are_those_that_a_containers_time_allows(container, quota, most):
    alone = usable_cpus()
    container("cpu.max", f"{quota}\n")
    assert usable_cpus() == min(alone, most)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_memory_freed_beyond_what_may_be_kept_is_given_back():
    if not reuse_large_buffers():
        pytest.skip("this C library cannot be told")
    release_free_buffers()
    growth = Growth(24 << 20)
    growth.look()
    first = resident_bytes()
    blocks = [np.ones(1 << 20, np.uint8) for _ in range(64)]
    pin = np.ones(1 << 20, np.uint8)  # beyond them, so that their memory does not go back by itself
    del blocks
    growth.look()
    assert resident_bytes() - first < 16 << 20
    del pin
