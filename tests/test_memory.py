"""The memory of normal images, against scikit-learn's nearest neighbours place by place."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from anogan.memory import Memory, describe

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def images(digits):
    """Zeros, enlarged to 32 x 32, and other digits: float in [-1, 1]."""
    x, labels = digits
    x = x.repeat(2, axis=1).repeat(2, axis=2).astype(np.float32) / 127.5 - 1
    return x[labels == 0], x[labels != 0]


def test_distances_are_those_to_the_nearest_at_the_same_place(images):
    zeros, others = images
    memory = Memory(zeros[:60])
    for cell, known, usual, spread in zip(
        memory.cells, memory.known, memory.usual, memory.spread, strict=True
    ):
        found, asked = describe(zeros[:60], cell).numpy(), describe(others[:5], cell).numpy()
        for place in np.ndindex(found.shape[1:3]):
            here = (slice(None), *place)
            near = NearestNeighbors(n_neighbors=1).fit(found[here])
            expected = near.kneighbors(asked[here])[0][:, 0]
            mine = np.sqrt(np.maximum(squared_distances(asked[here], *known, place), 0))
            np.testing.assert_allclose(mine, expected, atol=2e-3)
        assert (usual.numpy() >= 0).all() and float(spread) > 0


def squared_distances(asked, placed, lengths, place):
    known = placed.numpy()[place]
    return (lengths.numpy()[place][None] - 2 * asked @ known).min(1) + (asked**2).sum(1)


def test_other_digits_are_newer_than_unseen_zeros(images):
    zeros, others = images
    memory = Memory(zeros[:100])
    values = [memory.maps(x)[0].numpy() for x in (zeros[100:150], others[:50])]
    assert roc_auc_score(np.repeat([0, 1], 50), np.concatenate(values)) > 0.95


def test_the_map_is_high_where_the_image_is_new(images):
    zeros, _ = images
    memory, x = Memory(zeros[:100]), zeros[100:120].copy()
    before = memory.maps(x)[1].numpy()
    x[:, 10:18, 10:18] = np.tile([[1.0], [-1.0]], (4, 8))[None, ..., None]  # stripes
    value, after = memory.maps(x)
    after = after.numpy()
    assert after.shape == x.shape[:3] and (after >= 0).all()
    change = after - before
    assert change[:, 8:20, 8:20].mean() > 5 * np.abs(change[:, 24:, 24:]).mean() + 0.1
    np.testing.assert_allclose(memory.maps(x[:3])[0], value[:3], rtol=1e-5)


def test_seen_images_are_not_new(images):
    zeros, _ = images
    memory = Memory(zeros[:50])
    seen, unseen = (memory.maps(x)[0].numpy() for x in (zeros[:50], zeros[50:100]))
    assert seen.max() < unseen.min() + 0.3 and seen.mean() < unseen.mean()


@pytest.mark.parametrize("size", [(16, 16, 1), (17, 60, 3), (50, 33, 1)])
def test_any_size_has_a_memory(size):
    x = np.random.default_rng(0).uniform(-1, 1, (6, *size)).astype(np.float32)
    value, places = Memory(x).maps(x[:2])
    assert value.shape == (2,) and places.shape == (2, *size[:2])
    flat = np.zeros_like(x)
    assert np.isfinite(Memory(flat).maps(x)[0]).all()
