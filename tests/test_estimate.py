"""What a run is estimated to need."""

import pytest

from anogan.config import preset
from anogan.runs import estimate

pytestmark = pytest.mark.unit


def test_times_have_two_digits():
    times = [0.2, 59, 90, 3599, 7000]
    assert [estimate.duration(t) for t in times] == ["1 s", "59 s", "2 min", "60 min", "1.9 h"]


def test_more_pixels_and_images_need_more():
    small, large = (preset("default", height=side, width=side) for side in (64, 128))
    assert estimate.memory(large, 100) > estimate.memory(small, 100)
    assert estimate.memory(small, 10_000) > estimate.memory(small, 100)
    assert estimate.memory(small, 10**6) < estimate.memory(small, 20_000)  # not kept in memory
    assert estimate.seconds(large, 600, 2) == pytest.approx(4 * estimate.seconds(small, 600, 2))
    line = estimate.describe(small, 100, 600, on_gpu=False)
    assert line.startswith("600 steps of 16 images, about ") and "GiB" in line
    assert estimate.describe(small, 100, 600, on_gpu=True) == "600 steps of 16 images"
