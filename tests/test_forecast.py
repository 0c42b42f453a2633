"""What a run is said to need."""

import pytest

from anogan import forecast
from anogan.config import preset

pytestmark = pytest.mark.unit


def test_times_are_told_to_two_digits():
    times = [0.2, 59, 90, 3599, 7000]
    assert [forecast.told_time(t) for t in times] == ["1 s", "59 s", "2 min", "60 min", "1.9 h"]


def test_more_pixels_and_images_need_more():
    small, large = (preset("default", height=side, width=side) for side in (64, 128))
    assert forecast.memory(large, 100) > forecast.memory(small, 100)
    assert forecast.memory(small, 10_000) > forecast.memory(small, 100)
    assert forecast.memory(small, 10**6) < forecast.memory(small, 20_000)  # not kept in memory
    assert forecast.seconds(large, 600, 2) == pytest.approx(4 * forecast.seconds(small, 600, 2))
    line = forecast.told(small, 100, 600, on_gpu=False)
    assert line.startswith("600 steps of 32 images, about ") and "GiB" in line
    assert forecast.told(small, 100, 600, on_gpu=True) == "600 steps of 32 images"
