"""What goes on around the network costs next to nothing: measured in turn with what it is held against."""

import pytest
from bench_video import loop_ratio, network_ratio

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_the_identity_goes_faster_than_a_loop_that_decodes_copies_and_encodes(tmp_path):
    assert loop_ratio(tmp_path) >= 1.3


def test_a_clip_keeps_the_pace_of_the_bare_network(tmp_path):
    assert network_ratio(tmp_path) >= 0.95
