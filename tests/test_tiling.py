"""Tiles: exact joins for any cut, bounded memory, and a way on when memory runs out."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lowlight_cli.errors import ResourceError
from lowlight_cli.tiling import TensorSource, Window, count_tiles, cut, spread_windows, tiled, tiled_rows


def picture(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * 1000 + width))


def identity(tile: torch.Tensor, window: Window) -> torch.Tensor:
    return tile.clone()


@settings(max_examples=150)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.integers(0, 70),
    overlap=st.integers(0, 40),
    halo=st.integers(0, 9),
    multiple_of=st.sampled_from([1, 2, 8]),
)
def test_tiling_the_identity_is_exact(height, width, size, overlap, halo, multiple_of):
    if size:
        size = max(size, 2 * halo + 2, multiple_of * 3)
    image = picture(height, width)
    out = tiled(identity, image, size=size, overlap=overlap, halo=halo, multiple_of=multiple_of)
    assert torch.equal(out, image)


@settings(max_examples=200)
@given(
    length=st.integers(1, 5000),
    size=st.integers(16, 600),
    overlap=st.integers(0, 64),
    halo=st.integers(0, 9),
    multiple_of=st.sampled_from([1, 2, 8, 16]),
)
def test_a_cut_covers_every_pixel_with_aligned_tiles_of_one_size(length, size, overlap, halo, multiple_of):
    size = max(size, overlap + 2 * halo + 2 * multiple_of)
    pieces = cut(length, size, overlap=overlap, halo=halo, multiple_of=multiple_of)
    lengths = [stop - start for start, stop in zip(pieces.starts, pieces.stops, strict=True)]
    assert pieces.starts[0] == 0
    assert pieces.stops[-1] == length
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) < multiple_of
    assert all(start % multiple_of == 0 for start in pieces.starts)
    for index in range(len(lengths) - 1):
        assert pieces.kept(index)[1] >= pieces.kept(index + 1)[0] + overlap


@settings(max_examples=40)
@given(height=st.integers(20, 80), width=st.integers(20, 80), size=st.integers(24, 48))
def test_a_local_filter_with_its_halo_equals_the_whole_picture(height, width, size):
    kernel = torch.ones(3, 1, 5, 5) / 25

    def blur(tile: torch.Tensor, window: Window) -> torch.Tensor:
        return torch.nn.functional.conv2d(tile, kernel, padding=2, groups=3)

    image = picture(height, width)
    whole = blur(image, Window(0, height, 0, width, height, width))
    assert (tiled(blur, image, size=size, overlap=4, halo=2) - whole).abs().max() < 1e-6


@pytest.mark.parametrize("side", [1, 17, 40, 333])
def test_a_picture_that_is_taken_whole_is_not_cut_for_the_sake_of_a_multiple(side):
    assert cut(side, side, overlap=32, multiple_of=16).starts == (0,)


def test_tiles_know_where_they_lie():
    image = picture(100, 130)

    def check(tile: torch.Tensor, window: Window) -> torch.Tensor:
        assert (window.height, window.width) == (100, 130)
        assert torch.equal(tile, image[..., window.top : window.bottom, window.left : window.right])
        return tile.clone()

    tiled(check, image, size=48, overlap=8)


def test_steps_between_tiles_are_faded_out():
    """Tiles that disagree by a constant are joined by a ramp, never by a step larger than the ramp's slope."""
    image = torch.zeros(1, 1, 64, 400)
    out = tiled(lambda tile, window: tile + (window.left > 0) * 1.0, image, size=232, overlap=64)
    assert out[0, 0, 0, 0] == 0
    assert out[0, 0, 0, -1] == 1
    assert (out[..., 1:] - out[..., :-1]).abs().max() < 2 / 64


@pytest.mark.parametrize("failing_calls", [{0}, {1}, {3, 4}, {0, 1}])
def test_running_out_of_memory_halves_the_tile_and_gives_the_same_picture(failing_calls):
    image = picture(700, 900)
    calls = iter(range(10_000))
    sides = []

    def greedy(tile: torch.Tensor, window: Window) -> torch.Tensor:
        if next(calls) in failing_calls:
            raise torch.OutOfMemoryError("no more")
        sides.append(max(tile.shape[-2:]))
        assert torch.equal(tile, image[..., window.top : window.bottom, window.left : window.right])
        return tile.clone()

    assert torch.equal(tiled(greedy, image, size=512, overlap=32), image)
    assert sides[-1] <= 256, "a tile that was too large is not tried again"


def test_running_out_of_memory_at_the_smallest_tile_is_an_error():
    def never(tile: torch.Tensor, window: Window) -> torch.Tensor:
        raise torch.OutOfMemoryError("no more")

    with pytest.raises(ResourceError, match="out of memory at a tile"):
        tiled(never, picture(300, 300), size=256, overlap=32)


def test_bands_arrive_before_the_picture_is_read_to_its_end():
    lowest = 0

    class Watched(TensorSource):
        def read(self, rows: slice, columns: slice) -> torch.Tensor:
            nonlocal lowest
            lowest = max(lowest, rows.stop)
            return super().read(rows, columns)

    source = Watched(picture(1000, 40))
    done = 0
    for band in tiled_rows(identity, source, size=64, overlap=8):
        done += band.shape[-2]
        assert lowest <= done + 64
    assert done == 1000


def test_tiles_are_counted_as_they_are_cut():
    calls = []
    tiled(lambda tile, window: (calls.append(window), tile)[1], picture(500, 333), size=128, overlap=16)
    assert len(calls) == count_tiles(500, 333, size=128, overlap=16)


@example(height=17, width=17, count=6, side=1, multiple_of=16)
@settings(max_examples=150)
@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    count=st.integers(1, 20),
    side=st.integers(1, 200),
    multiple_of=st.sampled_from([1, 16]),
)
def test_spread_windows_lie_within_the_picture_and_reach_its_ends(height, width, count, side, multiple_of):
    windows = spread_windows(height, width, count=count, side=side, multiple_of=multiple_of)
    assert 1 <= len(windows) == len(set(windows)) <= count
    for one in windows:
        assert 0 <= one.top < one.bottom <= height
        assert 0 <= one.left < one.right <= width
        assert (one.bottom - one.top, one.right - one.left) == (min(side, height), min(side, width))
        assert one.top % multiple_of == one.left % multiple_of == 0
    if len({one.left for one in windows}) > 1:
        assert min(one.left for one in windows) == 0
        assert max(one.right for one in windows) > width - multiple_of


def test_no_samples_are_no_windows():
    assert spread_windows(500, 500, count=0, side=128) == []
