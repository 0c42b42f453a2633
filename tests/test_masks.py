"""Pixel masks and pixel measures, against scikit-learn and cases worked out by hand."""

import re

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from anogan.data.folders import find_images, image_folder
from anogan.data.image_set import ImageSet
from anogan.data.masks import Masks
from anogan.errors import UserError
from anogan.evaluation import metrics
from anogan.evaluation.metrics import PixelMeasures
from anogan.image_form import ImageForm
from anogan.report.pictures import save_map, shown_map
from utils import ImageError, read_mask

pytestmark = pytest.mark.unit


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
    assert found["au_pro"] == pytest.approx((1.0 + 0.15) / 2, abs=0.01)


def test_perfect_maps_have_pro_and_auroc_of_one():
    gathered = PixelMeasures(0.5)
    mask = square(30, 30, 5, 5, 8)
    gathered.add(mask * 1.0, mask)
    found = gathered.measures()
    assert found["pixel_auroc"] == pytest.approx(1.0) and found["au_pro"] == pytest.approx(1.0)


def test_no_anomalous_pixel_gives_no_measures():
    gathered = PixelMeasures(0.5)
    gathered.add(np.ones((4, 4)), np.zeros((4, 4), bool))
    assert gathered.measures() == {}


def zoomed(anomaly_map, h, w):
    """Bilinear between the centres of pixels, by SciPy."""
    scale = h / anomaly_map.shape[0], w / anomaly_map.shape[1]
    return ndimage.zoom(anomaly_map, scale, order=1, mode="nearest", grid_mode=True)


def test_maps_are_resized_to_their_masks(monkeypatch):
    rng = np.random.default_rng(1)
    anomaly_map, mask = rng.random((16, 12)), square(80, 48, 30, 10, 20)
    exact = roc_auc_score(mask.ravel(), zoomed(anomaly_map, 80, 48).ravel())
    found = []
    for strip in (metrics.STRIP, 100):  # at once, and two rows at a time
        monkeypatch.setattr(metrics, "STRIP", strip)
        gathered = PixelMeasures(0.5)
        gathered.add(anomaly_map, mask)
        found.append(gathered.measures())
        assert gathered.counts[:2].sum(axis=1).tolist() == [80 * 48 - 400, 400]
    assert found[0]["pixel_auroc"] == pytest.approx(exact, abs=1e-3)
    assert found[1] == pytest.approx(found[0], abs=1e-3)


def test_a_defect_below_the_networks_resolution_is_a_region():
    mask = square(1024, 1024, 200, 200, 300) | square(1024, 1024, 803, 803, 10)
    gathered = PixelMeasures(0.5)
    gathered.add(zoomed(mask[::16, ::16].astype(float), 64, 64), mask)
    assert gathered.measures()["regions"] == 2
    assert gathered.counts[1].sum() == 300**2 + 100


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


# which mask belongs to which image


def draw(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(mask, np.uint8) * 255).save(path)


@pytest.fixture
def make(tmp_path):
    """Makes files of 64 x 48 pixels, labelled by folder, and masks; returns their Masks."""

    def make(images, marks, crop=None, size=(64, 48)):
        for name in images:
            draw(tmp_path / "test" / name, np.ones(size))
        for name, mask in marks.items():
            draw(tmp_path / "masks" / name, mask)
        found = image_folder(
            find_images(tmp_path / "test"), ImageForm(16, 16, 1, crop), labelled=True
        )
        return Masks(tmp_path / "masks", found, crop)

    return make


HOLE = square(64, 48, 8, 8, 16)


def test_masks_are_named_as_their_images_with_or_without_a_suffix(make):
    images = ["bad/a.bmp", "bad/b.png", "good/a.png"]
    found = make(images, {"bad/a.PNG": HOLE, "bad/b_mask.png": ~HOLE})
    np.testing.assert_array_equal(found.read(0), HOLE)
    np.testing.assert_array_equal(found.read(1), ~HOLE)
    assert not found.read(2).any()


def test_an_image_whose_own_name_ends_like_a_masks(make):
    images = ["bad/x.png", "bad/y_mask.png", "good/a.png"]
    found = make(images, {"bad/x_mask.png": HOLE, "bad/y_mask.png": ~HOLE})
    assert (found.read(0) == HOLE).all() and (found.read(1) == ~HOLE).all()
    found.check()


def test_names_match_in_any_unicode_form(make):
    found = make(["bad/u\u0308.png", "good/a.png"], {"bad/\u00fc.png": HOLE})
    assert (found.read(0) == HOLE).all()


def test_two_masks_of_one_image_are_an_error_that_names_both(make):
    with pytest.raises(UserError, match=r"bad/a\.png and .*bad/a_mask\.png are both .* bad/a\.bmp"):
        make(["bad/a.bmp", "good/a.png"], {"bad/a.png": HOLE, "bad/a_mask.png": HOLE})


def test_a_mask_that_could_be_of_two_images_is_an_error_that_names_them(make):
    images = ["bad/a.bmp", "bad/a.png", "good/a.bmp", "good/a.png"]
    with pytest.raises(UserError, match=r"a_mask\.png could be .* bad/a\.bmp or of bad/a\.png"):
        make(images, {"bad/a_mask.png": HOLE})


def test_masks_of_which_none_matches_are_an_error_that_shows_both_names(make):
    images = ["bad/a.png", "good/a.png"]
    with pytest.raises(UserError, match=r"none of 2 .* bad/a\.png bad/a_mask\.png, not as a1\.png"):
        make(images, {"a1.png": HOLE, "a2.png": HOLE})


def test_several_masks_of_an_image_are_joined(make):
    """In a folder of its own, as in MVTec LOCO, or numbered."""
    marks = {
        "bad/000/000.png": HOLE,
        "bad/000/001.png": square(64, 48, 40, 30, 9),
        "bad/001_mask_1.png": ~HOLE,
        "bad/001_mask_2.png": HOLE,
    }
    found = make(["bad/000.png", "bad/001.png", "good/000.png"], marks)
    np.testing.assert_array_equal(found.read(0), HOLE | square(64, 48, 40, 30, 9))
    assert found.read(1).all() and not found.read(2).any()
    assert found.check().startswith("2 of 3 images have a mask, all 2 anomalous ones")


def test_joined_masks_are_of_one_shape_and_each_counts_for_going_on(make, tmp_path):
    marks = {"bad/0/0.png": HOLE, "bad/0/1.png": HOLE[::2, ::2]}
    found = make(["bad/0.png", "good/0.png"], marks)
    with pytest.raises(UserError, match=r"1\.png: \(32, 24\) pixels, 0\.png has \(64, 48\)"):
        found.check()
    before = found.state(0)
    draw(tmp_path / "masks/bad/0/1.png", HOLE)
    assert found.state(0) != before


@pytest.mark.parametrize("suffix", ["_mask", "_GT", "-gt", "_label", " mask", "_segmentation"])
def test_usual_suffixes_of_masks(make, suffix):
    found = make(["bad/a.png", "good/a.png"], {f"bad/a{suffix}.png": HOLE})
    assert (found.read(0) == HOLE).all()


def test_masks_beside_the_images_of_a_defect_belong_to_them(tmp_path):
    """As in MVTec 3D, where they lie in a folder beside, or as in KolektorSDD2."""
    for name in ("hole/rgb/000.png", "good/rgb/000.png", "tear/1.png"):
        draw(tmp_path / name, np.ones((64, 48)))
    for name in ("hole/gt/000.png", "tear/1_GT.png"):
        draw(tmp_path / name, HOLE)
    draw(tmp_path / "good/gt/000.png", HOLE * 0)
    found = find_images(tmp_path)
    images = image_folder(found, ImageForm(16, 16, 1), labelled=True)
    assert images.names == ("good/rgb/000.png", "hole/rgb/000.png", "tear/1.png")
    masks = Masks(tmp_path, images, names=found.masks)
    assert masks.check() == "3 of 3 images have a mask, all 2 anomalous ones among them"
    assert (
        not masks.read(0).any() and (masks.read(1) == HOLE).all() and (masks.read(2) == HOLE).all()
    )


# what is checked before scoring


def few(tmp_path, make):
    """Ten anomalous images with masks and two normal ones; `spoil` the mask of the seventh."""
    images = [f"bad/{i}.png" for i in range(10)]
    return make([*images, "good/a.png", "good/b.png"], {name: HOLE for name in images})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: draw(path, HOLE * 0), r"bad/7\.png marks nothing"),
        (lambda path: path.unlink(), r"has no mask for bad/7\.png"),
        (lambda path: draw(path, np.ones((64, 64))), r"bad/7\.png has 64 x 64 pixels"),
        (lambda path: path.write_bytes(b"\x89PNG"), r"bad/7\.png: not an image"),
        (lambda path: draw(path.parents[1] / "good/a.png", HOLE), r"marks pixels of good/a\.png"),
    ],
)
def test_a_few_masks_of_no_use_leave_their_images_out_and_are_named(make, tmp_path, spoil, reason):
    few(tmp_path, make)
    spoil(tmp_path / "masks/bad/7.png")
    masks = make([], {})
    line = masks.check()
    assert re.search(rf"; left out of the pixel measures: .*{reason}", line)
    [index] = masks.left_out
    with pytest.raises(ImageError, match="its mask is of no use"):
        masks.read(index)
    assert (masks.read(0) == HOLE).all()


def test_many_masks_of_no_use_are_an_error(make, tmp_path):
    few(tmp_path, make)
    for i in (7, 8):
        draw(tmp_path / f"masks/bad/{i}.png", HOLE * 0)
    with pytest.raises(UserError, match=r"bad/7\.png marks nothing"):
        make([], {}).check()


# each contradiction by itself


def test_the_line_says_how_many_images_have_a_mask_and_which_masks_match_none(make, tmp_path):
    images = ["bad/a.png", "bad/b.png", "good/a.png", "good/b.png"]
    marks = {"bad/a.png": HOLE, "bad/b.png": HOLE, "good/a.png": HOLE * 0}
    assert make(images, marks).check() == (
        "3 of 4 images have a mask, all 2 anomalous ones among them; "
        "the others count as normal throughout"
    )
    draw(tmp_path / "masks" / "bad" / "c.png", HOLE)
    draw(tmp_path / "masks" / "odd" / "a.png", HOLE)
    line = make([], {}).check()
    assert line.endswith("; 2 masks belong to none of these images, the first: bad/c.png")


def test_without_labels_the_line_says_that_images_without_a_mask_count_as_normal(make):
    line = make(["a.png", "b.png"], {"a.png": HOLE}).check()
    assert line == "1 of 2 images have a mask; the others count as normal throughout"


def test_an_anomalous_image_without_a_mask_is_an_error(make):
    found = make(["bad/a.png", "bad/b.png", "good/a.png"], {"bad/a.png": HOLE})
    with pytest.raises(UserError, match=r"no mask for bad/b\.png: add bad/b_mask\.png"):
        found.check()


def test_an_anomalous_image_whose_mask_is_empty_is_an_error(make):
    found = make(["bad/a.png", "good/a.png"], {"bad/a.png": HOLE * 0})
    with pytest.raises(
        UserError, match=r"masks/bad/a\.png marks nothing .* bad/a\.png is labelled"
    ):
        found.check()


def test_a_normal_image_whose_mask_marks_something_is_an_error(make):
    found = make(["bad/a.png", "good/a.png"], {"bad/a.png": HOLE, "good/a.png": HOLE})
    with pytest.raises(UserError, match=r"masks/good/a\.png marks .* good/a\.png, .* normal"):
        found.check()


def test_masks_that_all_are_empty_are_an_error(make):
    with pytest.raises(UserError, match="no mask in .* marks anything"):
        make(["a.png"], {"a.png": HOLE * 0}).check()


@pytest.mark.parametrize("h, w", [(64, 48), (32, 24), (21, 16), (22, 16), (200, 150)])
def test_a_mask_may_be_of_another_size(make, h, w):
    make(["a.png"], {"a.png": np.ones((h, w))}).check()


@pytest.mark.parametrize("h, w", [(48, 64), (64, 64), (32, 28), (200, 155)])
def test_a_mask_of_another_aspect_ratio_is_an_error_that_names_both(make, h, w):
    found = make(["a.png"], {"a.png": np.ones((h, w))})
    with pytest.raises(UserError, match=rf"masks/a\.png has {h} x {w} pixels, a\.png 64 x 48:"):
        found.check()


def test_a_mask_that_cannot_be_read_is_an_error(make, tmp_path):
    found = make(["a.png"], {"a.png": np.random.default_rng(0).random((64, 48)) > 0.5})
    content = (tmp_path / "masks" / "a.png").read_bytes()
    (tmp_path / "masks" / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"masks/a\.png: cannot be read"):
        found.check()


def test_an_image_that_cannot_be_read_does_not_matter_to_the_check(make, tmp_path):
    found = make(["a.png", "b.png"], {"a.png": HOLE, "b.png": HOLE})
    (tmp_path / "test" / "b.png").write_bytes(b"")
    assert found.check() == "2 of 2 images have a mask"


# the part that is scored


def test_masks_are_cropped_as_their_images_are(make):
    marks = {"bad/a.png": HOLE, "bad/b.png": HOLE[::2, ::2]}
    found = make(["bad/a.png", "bad/b.png", "good/a.png"], marks, crop=(40, 20))
    np.testing.assert_array_equal(found.read(0), HOLE[12:52, 14:34])
    np.testing.assert_array_equal(found.read(1), HOLE[12:52:2, 14:34:2])
    assert found.read(2).shape == (40, 20) and not found.read(2).any()


def test_masks_are_cropped_as_images_that_lie_on_their_side(make, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "test").mkdir()
    Image.new("L", (64, 48), 9).save(tmp_path / "test" / "a.jpg", exif=exif)
    found = make([], {"a.png": HOLE}, crop=(40, 20))
    found.check()
    np.testing.assert_array_equal(found.read(0), HOLE[12:52, 14:34])


def test_images_without_a_mask_weigh_as_many_pixels_as_they_have(make):
    found = make(["bad/a.png", "good/a.png"], {"bad/a.png": HOLE[::2, ::2]})
    assert found.read(0).shape == (32, 24) and found.read(1).shape == (64, 48)


def test_masks_of_images_from_memory(tmp_path):
    images = ImageSet.from_array(np.zeros((2, 16, 12, 1), np.uint8), ["a", "b"])
    draw(tmp_path / "a.png", square(32, 24, 0, 0, 8))
    found = Masks(tmp_path, images)
    assert found.check().startswith("1 of 2 images have a mask")
    assert found.read(0).sum() == 64 and found.read(1).shape == (16, 12)


def test_masks_of_a_part_of_the_images_are_theirs(make):
    names = ["bad/a.png", "bad/b.png", "good/a.png"]
    whole = make(names, {"bad/a.png": HOLE, "bad/b.png": ~HOLE})
    part = Masks(whole.folder, whole.images.subset([1, 2]))
    assert (part.read(0) == ~HOLE).all()
    assert "1 mask belongs to none of these images, the first: bad/a.png" in part.check()


# maps in files


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
