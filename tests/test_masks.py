"""Pixel masks and pixel measures, against scikit-learn and cases worked out by hand."""

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from data import ImageSet
from errors import UserError
from masks import Masks, PixelMeasures
from pictures import save_map, shown_map
from utils import read_mask


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


# mask files

MARKED = square(20, 30, 4, 6, 8)
INDEX, ROWS = MARKED.astype(np.uint8), np.mgrid[:20, :30][0]


def stack(*channels):
    return np.stack([np.broadcast_to(np.asarray(c, np.uint8), (20, 30)) for c in channels], -1)


def palette(*colours):
    image = Image.frombytes("P", (30, 20), INDEX.tobytes())
    image.putpalette([value for colour in colours for value in colour])
    return image


KINDS = {
    "0 and 255": INDEX * 255,
    "0 and 1": INDEX,
    "1 bit": Image.fromarray(MARKED),
    "8 bits of a 16-bit file": INDEX.astype(np.uint16) * 255,
    "32 bits": INDEX.astype(np.int32) * 70_000,
    "floats": INDEX * np.float32(0.3),
    "one channel": stack(0, 0, INDEX),
    "a palette": palette((0, 0, 0), (128, 0, 0)),
    "a palette of a blue that is almost black": palette((0, 0, 0), (0, 0, 1)),
    "grey and opaque": stack(INDEX * 255, 255),
    "colour and opaque": stack(INDEX * 255, 0, 0, 255),
    "alpha on white": stack(255, 255, 255, INDEX * 255),
    "alpha on black": stack(0, 0, 0, INDEX * 255),
    "alpha on grey": stack(255, INDEX * 255),
    "black on transparent white": stack(*[255 * (1 - INDEX)] * 3, INDEX * 255),
    "red on transparent": stack(INDEX * 255, 0, 0, INDEX * 200),
    "transparent rows and white on black": stack(*[INDEX * 255] * 3, 255 * (ROWS > 2)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_mark_what_is_above_zero_and_shows(kind, tmp_path):
    image = KINDS[kind] if isinstance(KINDS[kind], Image.Image) else Image.fromarray(KINDS[kind])
    image.save(tmp_path / "mask.tif")
    assert_marks(tmp_path / "mask.tif", MARKED)
    if image.mode not in ("I", "F"):
        image.save(tmp_path / "mask.png")
        assert_marks(tmp_path / "mask.png", MARKED)


def assert_marks(path, expected):
    found = read_mask(path)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected)


def test_palette_masks_are_read_by_colour_and_transparency(tmp_path):
    palette((255, 255, 255), (0, 0, 0)).save(tmp_path / "swapped.png")
    assert_marks(tmp_path / "swapped.png", ~MARKED)
    palette((9, 9, 9), (0, 0, 0)).save(tmp_path / "see.png", transparency=0)
    assert_marks(tmp_path / "see.png", MARKED)


def test_masks_that_mark_nothing_or_all(tmp_path):
    for name, pixels, expected in (
        ("black", stack(0, 0, 0, 255), False),
        ("transparent", stack(255, 255, 255, 0), False),
        ("white", stack(255, 255, 255, 255), True),
    ):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        assert_marks(tmp_path / f"{name}.png", np.full((20, 30), expected))


def test_the_blur_of_a_jpeg_marks_nothing(tmp_path):
    mask = square(64, 64, 16, 16, 20)
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.jpg", quality=60)
    assert (np.asarray(Image.open(tmp_path / "mask.jpg"))[~mask] > 0).any()
    assert_marks(tmp_path / "mask.jpg", mask)


def test_masks_are_upright_as_their_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("mask.tif", "mask.png"):
        Image.fromarray(np.rot90(INDEX)).save(tmp_path / name, exif=exif)
        assert_marks(tmp_path / name, MARKED)


# folders of masks


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
