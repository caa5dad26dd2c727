"""Lent memory: nobody's while somebody holds it, and back again when nobody does."""

import itertools
import threading

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lowlight_cli.buffers import Buffers

SHAPES = ((3, 4, 5), (60,), (2, 7), (0, 3))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60))
def test_arrays_that_are_held_share_nothing_and_few_buffers_do_for_many(steps: list[tuple[bool, int]]):
    buffers = Buffers()
    held: list[tuple[int, np.ndarray]] = []
    seen: dict[int, set[int]] = {}
    most = {60: 0, 14: 0}
    for takes, which in steps:
        if takes:
            array = buffers.empty(SHAPES[which], np.uint8)
            assert array.shape == SHAPES[which]
            array[:] = len(held)
            held.append((which, array))
            if array.size:
                seen.setdefault(array.size, set()).add(array.ctypes.data)
        elif held:
            held.pop(which % len(held))
        array = None
        for size in most:
            most[size] = max(most[size], sum(one.size == size for _, one in held))
    for (_, one), (_, other) in itertools.combinations(held, 2):
        assert not np.shares_memory(one, other)
    for size, places in seen.items():
        assert len(places) <= most[size]


def test_a_view_or_a_tensor_keeps_the_memory():
    buffers = Buffers()
    array = buffers.empty((4, 6), np.float32)
    array[:] = 7
    tensor = torch.from_numpy(array)[1:, 2:]
    del array
    other = buffers.empty((4, 6), np.float32)
    other[:] = 0
    assert tensor.eq(7).all()
    place = tensor.data_ptr()
    del tensor
    again = buffers.empty((4, 6), np.float32)
    assert again.ctypes.data <= place < again.ctypes.data + again.nbytes, "the memory serves again"


def test_what_one_thread_lets_go_of_serves_another():
    buffers = Buffers()
    array = buffers.empty((1000,), np.uint16)
    place = array.ctypes.data
    held = [array]
    del array
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert buffers.empty((1000,), np.uint16).ctypes.data == place
