"""Pixel masks and pixel measures, against scikit-learn and cases worked out by hand."""

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from data import ImageSet
from errors import UserError
from masks import Masks, PixelMeasures
from pictures import save_map, shown_map


def square(h, w, top, left, size):
    mask = np.zeros((h, w), bool)
    mask[top : top + size, left : left + size] = True
    return mask


def test_pixel_auroc_is_scikit_learns_over_all_pixels():
    rng = np.random.default_rng(0)
    gathered, maps, masks = PixelMeasures(0.5), [], []
    for i in range(6):
        mask = square(20, 24, i, 3, 6) if i % 2 else np.zeros((20, 24), bool)
        maps.append(rng.random((20, 24)) + 0.5 * mask)
        masks.append(mask)
        gathered.add(maps[-1], mask)
    exact = roc_auc_score(np.ravel(masks), np.ravel(maps))
    assert gathered.measures()["pixel_auroc"] == pytest.approx(exact, abs=1e-3)


def test_values_far_above_the_pixel_threshold_still_rank():
    gathered = PixelMeasures(0.01)
    mask = square(4, 4, 0, 0, 2)
    gathered.add(np.where(mask, 3.0, 2.0), mask)
    assert gathered.measures()["pixel_auroc"] == pytest.approx(1.0)


def test_pro_weighs_each_region_alike_however_small():
    mask = square(40, 40, 0, 0, 10) | square(40, 40, 30, 30, 2)
    only_large = PixelMeasures(0.5)
    only_large.add(square(40, 40, 0, 0, 10).astype(float), mask)
    found = only_large.measures()
    assert found["regions"] == 2
    # the large region is found at once; the small one at the rate of chance, 0.15 up to 0.3
    assert found["pro"] == pytest.approx((1.0 + 0.15) / 2, abs=0.01)


def test_perfect_maps_have_pro_and_auroc_of_one():
    gathered = PixelMeasures(0.5)
    mask = square(30, 30, 5, 5, 8)
    gathered.add(mask * 1.0, mask)
    found = gathered.measures()
    assert found["pixel_auroc"] == pytest.approx(1.0) and found["pro"] == pytest.approx(1.0)


def test_no_anomalous_pixel_gives_no_measures():
    gathered = PixelMeasures(0.5)
    gathered.add(np.ones((4, 4)), np.zeros((4, 4), bool))
    assert gathered.measures() == {}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cracked").mkdir()
    Image.fromarray(square(64, 64, 0, 0, 32).astype(np.uint8) * 255).save(
        tmp_path / "cracked" / "a.png"
    )
    Image.fromarray(square(64, 64, 32, 32, 32).astype(np.uint8)).save(
        tmp_path / "cracked" / "b_mask.png"
    )
    return tmp_path


def test_masks_are_found_by_name_and_resized(folder):
    masks = Masks(folder, None, (16, 16, 1))
    np.testing.assert_array_equal(masks.read("cracked/a.jpg"), square(16, 16, 0, 0, 8))
    np.testing.assert_array_equal(masks.read("cracked/b.png"), square(16, 16, 8, 8, 8))
    assert not masks.read("normal/a.png").any()


def test_masks_are_cropped_as_the_images_are(folder):
    masks = Masks(folder, (32, 32), (32, 32, 1))
    np.testing.assert_array_equal(masks.read("cracked/a.png"), square(32, 32, 0, 0, 16))


def test_an_anomalous_image_without_a_mask_is_named(folder):
    pixels = np.zeros((2, 16, 16, 1), np.uint8)
    images = ImageSet.from_array(pixels, ["good/x.png", "cracked/c.png"], [0, 1], ["good", "c"])
    with pytest.raises(UserError, match=r"cracked/c\.png"):
        Masks(folder, None, (16, 16, 1)).require(images)


def test_saved_maps_keep_values_and_outline_the_part_over_the_threshold(tmp_path):
    anomaly_map = np.zeros((20, 20), np.float32)
    anomaly_map[5:15, 5:15] = 0.4
    query = np.full((20, 20, 1), -1.0)
    save_map(tmp_path / "a" / "x.1", query, anomaly_map, 0.25)
    np.testing.assert_array_equal(np.load(tmp_path / "a" / "x.1.npy"), anomaly_map)
    levels = np.asarray(Image.open(tmp_path / "a" / "x.1.png"))
    assert levels.max() == round(0.4 / 0.5 * 65535) and levels.dtype in (np.uint16, np.int32)
    overlay = np.asarray(Image.open(tmp_path / "a" / "x.1_overlay.png"))
    outlined = (overlay == (0, 255, 255)).all(-1)
    assert outlined[5, 5:15].all() and not outlined[7:13, 7:13].any() and not outlined[:5].any()


def test_maps_of_a_model_share_one_scale():
    query = np.zeros((4, 4, 3))
    faint, strong = (shown_map(query, np.full((4, 4), v), 0.5) for v in (0.1, 0.9))
    assert strong.astype(int).sum() > faint.astype(int).sum() + 1000
