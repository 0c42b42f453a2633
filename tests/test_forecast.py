"""What a run is said to need."""

import pytest

from anogan.config import preset
from anogan.runs import estimate
from anogan.runs.progress import duration

pytestmark = pytest.mark.unit


def test_times_are_told_to_two_digits():
    times = [0.2, 59, 90, 3599, 7000]
    assert [duration(t) for t in times] == ["1 s", "59 s", "2 min", "60 min", "1.9 h"]


def test_more_pixels_and_images_need_more():
    small, large = (preset("default", height=side, width=side) for side in (64, 128))
    assert estimate.memory(large, 100) > estimate.memory(small, 100)
    assert estimate.memory(small, 10_000) > estimate.memory(small, 100)
    assert estimate.memory(small, 10**6) < estimate.memory(small, 20_000)  # not kept in memory
    assert estimate.seconds(large, 600, 2) == pytest.approx(4 * estimate.seconds(small, 600, 2))
    line = estimate.told(small, 100, 600, on_gpu=False)
    assert line.startswith("600 steps of 32 images, about ") and "GiB" in line
    assert estimate.told(small, 100, 600, on_gpu=True) == "600 steps of 32 images"
