"""Work shared out over the cores: every part done once, in order, and torch left as it was."""

import os
import signal
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadcount import torch_threads

from lowlight_cli.parallel import a_core_each, core_count, for_each_part, share_out, split


@pytest.fixture(params=[1, 2, 3])
def cores(request):
    with torch_threads(request.param):
        yield request.param


@given(whole=st.lists(st.integers()), count=st.integers(1, 9))
def test_parts_are_the_whole_in_order_and_nearly_equal(whole: list[int], count: int):
    parts = split(whole, count)
    assert [item for part in parts for item in part] == whole
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1
    assert len(parts) <= count


def test_each_part_is_done_once_on_one_core_without_gradients(cores: int):
    def work(part: int) -> tuple[int, int, bool, str]:
        return part, torch.get_num_threads(), torch.is_grad_enabled(), threading.current_thread().name

    found = for_each_part(work, range(cores))
    assert [part for part, *_ in found] == list(range(cores))
    assert {threads for _, threads, _, _ in found} == {1}
    assert not any(grad for _, _, grad, _ in found)
    assert torch.get_num_threads() == cores
    assert torch.is_grad_enabled()


def test_parts_run_side_by_side():
    together = threading.Barrier(2, timeout=30)
    with torch_threads(2):
        for_each_part(lambda _: together.wait(), range(2))  # a broken barrier raises


def test_what_waits_for_a_core_when_the_caller_fails_is_not_done(cores: int):
    begun = threading.Event()
    done = []

    def work(part: int) -> None:
        begun.set()
        time.sleep(0.2)
        done.append(part)

    def fail() -> None:
        with a_core_each() as these:
            for part in range(50):
                these.begin(work, part)
            begun.wait(30)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert 1 <= len(done) <= 2 * cores, "cores finish what they have begun, and no more"
    assert torch.get_num_threads() == cores


def test_an_error_waits_for_the_other_parts_and_is_raised(cores: int):
    finished = []

    def work(part: int) -> None:
        if part == 0:
            raise ValueError("part 0")
        finished.append(part)

    with pytest.raises(ValueError, match="part 0"):
        for_each_part(work, range(cores))
    assert sorted(finished) == (list(range(1, cores)) if cores > 1 else [])
    assert torch.get_num_threads() == cores


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_forked_within_a_block_has_threads_of_its_own():
    with torch_threads(2), a_core_each() as these:
        busy = these.begin(time.sleep, 0.5)
        child = os.fork()
        if not child:
            signal.alarm(30)
            found = for_each_part(lambda part: part, range(3))
            os._exit(0 if found == [0, 1, 2] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        busy.result()


def test_work_shared_out_within_a_block_has_its_cores(cores: int):
    with a_core_each() as these:
        assert core_count() == cores
        with a_core_each() as inner:
            assert inner is these
        found = share_out(lambda part: (list(part), torch.get_num_threads()), range(7))
        assert len(found) == cores
        assert [item for part, _ in found for item in part] == list(range(7))
        assert {threads for _, threads in found} == {1}
        assert torch.get_num_threads() == 1, "until the block ends its own operations have one core"
    assert torch.get_num_threads() == core_count() == cores
