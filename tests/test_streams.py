"""Streams of a GPU: what one thread sends waits for no other's, and nothing is read before it is there."""

import pytest
import torch

from lowlight_cli.streams import Fetched, OwnStream, moment_of, own_stream, used_here

CPU = torch.device("cpu")


def test_elsewhere_a_stream_is_nothing():
    tensor = torch.arange(3)
    with own_stream(CPU, "reading") as stream:
        stream.after(moment_of(CPU))
        doubled = used_here(tensor) * 2
    assert Fetched(doubled).get().tolist() == [0, 2, 4]
    assert used_here(tensor) is tensor


def test_a_purpose_has_one_stream_for_good():
    assert own_stream(CPU, "reading") is own_stream(CPU, "reading")
    assert own_stream(CPU, "reading") is not own_stream(CPU, "filter")


def test_an_error_leaves_the_stream_as_it_is():
    with pytest.raises(ZeroDivisionError), OwnStream(CPU):
        raise ZeroDivisionError


@pytest.mark.cuda
def test_what_is_fetched_comes_before_what_is_sent_afterwards_is_done():
    device = torch.device("cuda", 0)
    matrix = torch.randn(8192, 8192, device=device)
    torch.cuda.synchronize()
    fetched = Fetched(matrix[0, :4] + 1)
    for _ in range(50):
        matrix = matrix @ matrix.sign()
    end = moment_of(device)
    assert end is not None
    assert fetched.get().shape == (4,)
    assert not end.query()


@pytest.mark.cuda
def test_a_stream_of_its_own_overtakes_the_usual_one_and_waits_where_told():
    device = torch.device("cuda", 0)
    matrix, stream = torch.randn(8192, 8192, device=device), OwnStream(device)
    torch.ones(4, device=device).sum()  # loading a kernel at its first use may wait for all that runs
    torch.cuda.synchronize()
    for _ in range(50):
        matrix = matrix @ matrix.sign()
    end = moment_of(device)
    assert end is not None
    with stream:
        torch.ones(4, device=device).sum()
    assert not end.query()
    with stream:
        stream.after(end)
        torch.ones(4, device=device).sum()
    assert end.query()
