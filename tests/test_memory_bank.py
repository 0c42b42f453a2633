"""The memory bank of normal images, against scikit-learn's nearest neighbours place by place."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from anogan.method.memory_bank import (
    MOST_BYTES,
    Grid,
    MemoryBank,
    detail,
    most_images,
    orientations,
    sharpness,
    strokes,
)
from anogan.recipe import RECIPES, BankRecipe

pytestmark = pytest.mark.unit
RECIPE = BankRecipe()


def bank_of(images):
    return MemoryBank.of(images, RECIPE)


def described(x, grid, weight):
    shapes = orientations(strokes(x, RECIPE.bins), grid, RECIPE.no_gradient)
    return np.concatenate([shapes, weight * sharpness(detail(x), grid, RECIPE.blurred)], -1)


@pytest.fixture(scope="module")
def images(digits):
    """Zeros, enlarged to 32 x 32, and other digits: float in [-1, 1]."""
    x, labels = digits
    x = x.repeat(2, axis=1).repeat(2, axis=2).astype(np.float32) / 127.5 - 1
    return x[labels == 0], x[labels != 0]


def test_distances_are_those_to_the_nearest_at_the_same_place(images):
    zeros, others = images
    bank = bank_of(zeros[:60])
    for grid, weight, known, usual, spread in zip(
        bank.grids, bank.sharpness, bank.known, bank.usual, bank.spread, strict=True
    ):
        found, asked = (described(x, grid, weight) for x in (zeros[:60], others[:5]))
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


def test_other_digits_are_farther_than_unseen_zeros(images):
    zeros, others = images
    bank = bank_of(zeros[:100])
    values = [bank.compare(x)[0].numpy() for x in (zeros[100:150], others[:50])]
    assert roc_auc_score(np.repeat([0, 1], 50), np.concatenate(values)) > 0.95


def test_the_map_is_high_where_the_image_differs(images):
    zeros, _ = images
    bank, x = bank_of(zeros[:100]), zeros[100:120].copy()
    before = bank.compare(x)[1].numpy()
    x[:, 10:18, 10:18] = np.tile([[1.0], [-1.0]], (4, 8))[None, ..., None]  # stripes
    value, after = bank.compare(x)
    after = after.numpy()
    assert after.shape == x.shape[:3] and (after >= 0).all()
    change = after - before
    assert change[:, 8:20, 8:20].mean() > 5 * np.abs(change[:, 24:, 24:]).mean() + 0.1
    np.testing.assert_allclose(bank.compare(x[:3])[0], value[:3], rtol=1e-5)


@pytest.fixture(scope="module")
def photographs():
    """One part of a temple's roof, never quite from the same place nor in the same light."""
    from sklearn.datasets import load_sample_image

    whole = load_sample_image("china.jpg").astype(np.float32) / 127.5 - 1
    rng = np.random.default_rng(0)
    corners = np.array([170, 280]) + rng.integers(0, 8, (200, 2))
    light = rng.uniform(0.7, 1, (200, 1, 1, 1))
    parts = np.stack([whole[y : y + 32, x : x + 32] for y, x in corners])
    return (parts * light + rng.normal(0, 0.02, parts.shape)).astype(np.float32)


def test_what_is_blurred_or_has_an_edge_too_many_is_far_in_photographs(photographs):
    from scipy.ndimage import gaussian_filter

    bank, sharp = bank_of(photographs[:150]), photographs[150:]
    blurred, patched = sharp.copy(), sharp.copy()
    blurred[:, 8:24, 8:24] = gaussian_filter(sharp, (0, 3, 3, 0))[:, 8:24, 8:24]
    patched[:, 12:20, 12:20] = np.clip(sharp.mean(axis=(1, 2), keepdims=True) + 0.8, -1, 1)
    value, *of_damaged = (bank.compare(x)[0].numpy() for x in (sharp, blurred, patched))
    for damaged in of_damaged:
        assert (damaged > value).mean() > 0.95


def test_sharpness_counts_in_photographs_and_hardly_in_drawings_of_two_shades(photographs, images):
    assert min(bank_of(photographs[:100]).sharpness) > 0.2
    assert max(bank_of(np.sign(images[1][:100])).sharpness) < 0.1


def test_a_map_of_overlapping_cells_is_not_shifted():
    x = np.random.default_rng(0).uniform(-0.1, 0.1, (40, 64, 64, 1)).astype(np.float32)
    bank, middles = bank_of(x), []
    for place in (16, 32, 48):
        spot = x[:1].copy()
        spot[:, place - 2 : place + 2, place - 2 : place + 2] = 1.0
        found = bank.compare(spot)[1].numpy()[0]
        above = found * (found > 0.5 * found.max())
        middles.append((above * np.arange(64)).sum() / above.sum() + 0.5)
    np.testing.assert_allclose(middles, [16, 32, 48], atol=0.5)


def test_neighbours_of_overlapping_cells_are_a_cell_away():
    x = np.zeros((1, 32, 32, 1), np.float32)
    x[0, 12:20, 12:20] = 1.0
    grid = Grid(8, 2)
    assert grid.mean(x)[0, 3, 3, 0] == 1.0
    around = grid.with_neighbours(grid.mean(x), "CONSTANT").numpy().reshape(7, 7, 9)
    assert around[3, 3].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert around[3, 5, 3] == 1.0  # the left neighbour of two steps to the right


def test_seen_images_are_near(images):
    zeros, _ = images
    bank = bank_of(zeros[:50])
    seen, unseen = (bank.compare(x)[0].numpy() for x in (zeros[:50], zeros[50:100]))
    assert seen.max() < unseen.min() + 0.3 and seen.mean() < unseen.mean()


@pytest.mark.parametrize("size", [(16, 16, 1), (17, 60, 3), (50, 33, 1)])
def test_any_size_has_a_memory_bank(size):
    x = np.random.default_rng(0).uniform(-1, 1, (6, *size)).astype(np.float32)
    value, places = bank_of(x).compare(x[:2])
    assert value.shape == (2,) and places.shape == (2, *size[:2])
    flat = np.zeros_like(x)
    assert np.isfinite(bank_of(flat).compare(x)[0]).all()


@pytest.mark.parametrize("size", [(24, 200), (33, 16)])
def test_of_long_images_so_many_fit_as_a_bank_has_room_for(size):
    bank = bank_of(np.random.default_rng(0).uniform(-1, 1, (2, *size, 1)).astype(np.float32))
    assert most_images(size, RECIPE) == MOST_BYTES // (4 * bank.numbers() // 2)
    assert most_images((64, 1600), RECIPE) < RECIPES["default"].seen_kept
    assert most_images((320, 73), RECIPE) > RECIPES["default"].seen_kept
