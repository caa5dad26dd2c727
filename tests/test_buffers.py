"""Lent memory: nobody's while somebody holds it, and back again when nobody does."""

import itertools
import threading
from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lowlight_cli import buffers as module
from lowlight_cli.buffers import Buffers

EMPTY = np.empty
SHAPES = ((3, 40, 50), (6000,), (20, 701))  # two of one size


class Asked:
    """Counts how often new memory is asked for, by size."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def empty(self, size: int, dtype: type) -> np.ndarray:
        self.sizes.append(size - module._CACHE_LINE)
        return EMPTY(size, dtype)


@pytest.fixture
def asked() -> Iterator[Asked]:
    counter = Asked()
    with patch.object(module.np, "empty", counter.empty):
        yield counter


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=40))
def test_what_is_held_keeps_its_content_and_few_buffers_do_for_many(steps: list[tuple[bool, int]]):
    buffers, counter = Buffers(), Asked()
    held: list[tuple[int, np.ndarray]] = []
    most = {6000: 0, 14020: 0}
    for number, (takes, which) in enumerate(steps):
        if takes:
            with patch.object(module.np, "empty", counter.empty):
                array = buffers.empty(SHAPES[which], np.uint8)
            assert array.shape == SHAPES[which]
            array[:] = number
            held.append((number, array))
            array = None
        elif held:
            held.pop(which % len(held))
        for size in most:
            most[size] = max(most[size], sum(one.size == size for _, one in held))
        assert all((one == value).all() for value, one in held)
        assert not any(np.shares_memory(one, other) for (_, one), (_, other) in itertools.combinations(held, 2))
    assert {size: counter.sizes.count(size) for size in most} == most


def test_a_view_or_a_tensor_keeps_the_memory(asked: Asked):
    buffers = Buffers()
    array = buffers.empty((40, 61), np.float32)
    array[:] = 7
    tensor = torch.from_numpy(array)[1:, 2:]
    del array
    buffers.empty((40, 61), np.float32)[:] = 0
    assert tensor.eq(7).all()
    assert len(asked.sizes) == 2
    del tensor
    both = [buffers.empty((40, 61), np.float32) for _ in range(2)]
    assert len(asked.sizes) == 2, "both serve again"
    assert not np.shares_memory(*both)


def test_what_one_thread_lets_go_of_serves_another(asked: Asked):
    buffers = Buffers()
    held = [buffers.empty((1000,), np.uint16)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    buffers.empty((1000,), np.uint16)
    assert asked.sizes == [2000]


def test_where_there_may_be_room_sizes_share_memory(asked: Asked):
    buffers = Buffers()
    assert buffers.empty((1, 8, 8, 48), np.float32, roomy=True).shape == (1, 8, 8, 48)
    wider = buffers.empty((1, 8, 8, 64), np.float32, roomy=True)
    wider[:] = 1
    assert asked.sizes == [8 * 8 * 64 * 4]
    assert buffers.empty((0, 5), np.float64, roomy=True).shape == (0, 5)


@given(st.integers(1, 5000), st.booleans())
def test_memory_begins_where_a_cache_line_does(length: int, roomy: bool):
    assert Buffers().empty((length,), np.uint8, roomy=roomy).ctypes.data % 64 == 0
