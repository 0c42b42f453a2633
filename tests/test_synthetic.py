"""Planted anomalies: they show, they are where the mask says, and hang on the seed alone."""

import numpy as np
import pytest
import tensorflow as tf

from anogan.method.synthetic import (
    FILLS,
    UNSEEN,
    VISIBLE,
    plant_anomalies,
    plant_defects,
    plant_unseen,
)
from anogan.runs.distributed import ReplicaSlice

pytestmark = pytest.mark.unit
PLANTERS = plant_anomalies, plant_defects, plant_unseen


@pytest.fixture(scope="module")
def images(digits):
    """Digits, enlarged to 32 x 32: float in [-1, 1]."""
    x = tf.constant(digits[0][:64] / 127.5 - 1, tf.float32)
    return tf.image.resize(x, [32, 32])


def test_damage_shows_in_every_image(images):
    planted, masks = plant_anomalies(images, [1, 2])
    assert np.abs(planted).max() <= 1
    changed = (np.abs(planted - images) > 0.25).mean((1, 2, 3))
    assert (changed > 0.01).all() and 0.05 < changed.mean() < 0.5
    assert masks.numpy().any((1, 2, 3)).all()


@pytest.mark.parametrize("plant", PLANTERS)
def test_the_same_seed_plants_the_same(images, plant):
    for first, same, other in zip(
        plant(images, [1, 2]), plant(images, [1, 2]), plant(images, [1, 3]), strict=True
    ):
        np.testing.assert_array_equal(first, same)
        assert (first != other).numpy().any()


@pytest.mark.parametrize("plant", PLANTERS)
def test_masks_are_where_images_changed(images, plant):
    planted, masks = plant(images, [5, 6])
    change = np.abs(planted - images).max(-1)
    masks = masks.numpy()[..., 0]
    assert set(np.unique(masks)) == {0, 1}
    assert (change[masks == 0] <= 9 * VISIBLE).all()  # a mean of 3 x 3 pixels is below VISIBLE
    assert change[masks == 1].mean() > 5 * change[masks == 0].mean()
    assert masks[change > 9 * VISIBLE].all()


def test_defects_are_from_a_few_pixels_to_a_large_part(images):
    _, masks = plant_defects(tf.repeat(images, 8, axis=0), [1, 1])
    sizes = masks.numpy().sum((1, 2, 3))
    sizes = sizes[sizes > 0]
    assert len(sizes) > 300
    assert np.quantile(sizes, 0.1) < 20 and np.quantile(sizes, 0.95) > 150


@pytest.mark.parametrize("fill", FILLS + UNSEEN)
def test_each_kind_of_filling_changes_images_and_no_shape(images, fill):
    from anogan.method.synthetic import _Random
    from anogan.runs.distributed import WHOLE

    found = fill(images, _Random(tf.constant([3, 4]), tf.shape(images)[0], WHOLE))
    assert found.shape == images.shape and np.isfinite(found).all()
    assert (np.abs(found - images).max((1, 2, 3)) > VISIBLE).mean() > 0.8


def test_judges_are_of_kinds_that_are_not_trained_on():
    assert not set(FILLS) & set(UNSEEN)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("plant", [plant_anomalies, plant_defects])
def test_shares_of_a_batch_are_damaged_as_the_whole_batch_is(images, count, plant):
    whole = plant(images, [3, 4])
    for i in range(count):
        share = plant(images[i::count], [3, 4], ReplicaSlice(i, count))
        for mine, all_ in zip(share, whole, strict=True):
            np.testing.assert_allclose(mine, all_[i::count], atol=1e-5)


def test_damage_that_would_not_show_swaps_the_halves():
    x = np.full((8, 16, 16, 1), -1, np.float32)
    x[:, 12, 12] = 1.0  # alike: nothing that is pasted or erased changes a hundredth
    planted, _ = plant_anomalies(tf.constant(x), [1, 2])
    np.testing.assert_array_equal(planted, np.roll(x, 8, 1))
