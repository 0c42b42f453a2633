"""Windows cover an image, and what was cut comes together again."""

import numpy as np
import pytest
import tensorflow as tf

from anogan.method.windows import Windows

pytestmark = pytest.mark.unit
SIZES = [(64, 64, 0, 1), (64, 64, 64, 1), (64, 100, 64, 3), (320, 127, 64, 27), (65, 64, 32, 12)]


@pytest.mark.parametrize(("height", "width", "window", "count"), SIZES)
def test_windows_overlap_by_half_and_reach_every_edge(height, width, window, count):
    windows = Windows(height, width, window)
    assert len(windows) == count
    seen = np.zeros((height, width), int)
    tops, lefts = windows.starts
    for top in tops:
        for left in lefts:
            seen[top : top + windows.window[0], left : left + windows.window[1]] += 1
    assert seen.min() >= 1
    assert tops[-1] == height - windows.window[0] and lefts[-1] == width - windows.window[1]
    for starts in windows.starts:
        assert (np.diff(starts) <= windows.window[0] // 2 + 1).all()


@pytest.mark.parametrize(("height", "width", "window", "count"), SIZES)
def test_what_is_cut_comes_together_again(height, width, window, count):
    x = np.random.default_rng(0).random((2, height, width, 3)).astype(np.float32)
    windows = Windows(height, width, window)
    cut = windows.cut(tf.constant(x))
    assert cut.shape == (2 * count, *windows.window, 3)
    np.testing.assert_allclose(windows.join(cut), x, atol=1e-5)
    np.testing.assert_array_equal(windows.apart(cut)[1, 0], cut[count])
    last = x[1, -windows.window[0] :, -windows.window[1] :]
    np.testing.assert_array_equal(cut[2 * count - 1], last)


def test_one_graph_joins_colour_images_and_their_maps():
    windows = Windows(40, 48, 32)
    join = tf.function(windows.join, reduce_retracing=True)
    for channels in (3, 1, 3):
        x = np.random.default_rng(0).random((2, 40, 48, channels)).astype(np.float32)
        np.testing.assert_allclose(join(windows.cut(tf.constant(x))), x, atol=1e-5)


def test_random_windows_come_from_the_image_and_reach_its_corners():
    rows, columns = np.mgrid[:40, :30]
    x = tf.constant(np.stack([rows, columns], -1)[None].repeat(400, 0), tf.float32)
    windows = Windows(40, 30, 16)
    found = windows.random(x, tf.constant([1, 2])).numpy()
    tops, lefts = found[:, 0, 0].T
    np.testing.assert_array_equal(found - found[:, :1, :1], x.numpy()[:, :16, :16])
    assert tops.min() == lefts.min() == 0 and tops.max() == 24 and lefts.max() == 14
    at_the_edge = ((tops == 0) | (tops == 24)).mean()
    assert 0.2 < at_the_edge < 0.5  # as often as a pixel in the middle, about


@pytest.mark.parametrize("count", [1, 5, 54, 1000])
def test_some_windows_are_spread_over_all_and_parts_hold_all_in_order(count):
    x = np.random.default_rng(0).random((2, 320, 127, 1)).astype(np.float32)
    windows = Windows(320, 127, 64)
    everything = windows.cut(tf.constant(x)).numpy()
    found = windows.some(x, count)
    expected = np.linspace(0, 53, min(count, 54), dtype=int)
    np.testing.assert_array_equal(found, everything[expected])
    for most in (1, 27, 60):
        parts = list(windows.in_parts(x, most))
        assert max(len(part) for part in parts) <= max(most, 27)
        np.testing.assert_array_equal(np.concatenate(parts), everything)
