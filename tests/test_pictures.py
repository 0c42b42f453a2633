"""Pictures of results: in the original's aspect, with the true mask, names and the threshold."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageColor

from anogan.data.folders import find_images, image_folder
from anogan.data.image_set import ImageSet
from anogan.data.masks import Masks
from anogan.evaluation.best import Picture
from anogan.evaluation.outcome import Outcome
from anogan.evaluation.rows import Rows
from anogan.image_form import ImageForm
from anogan.method.scoring import TERMS
from anogan.report import plots, sheet
from anogan.report.pictures import View, detection_panel, view
from anogan.report.sheet import BAND, CELL, INK, PAD, Cell, contact_sheet
from anogan.report.showing import Shown
from anogan.report.text import drawable, fitting

pytestmark = pytest.mark.unit
CYAN, WHITE, INK_RGB = map(ImageColor.getrgb, ("cyan", "white", INK))


def has(image, colour):
    """Where an image (h, w, 3) is of exactly this colour: (h, w)."""
    return (image == colour).all(axis=-1)


@pytest.fixture
def parts(tmp_path):
    """A folder of one grey image of 400 x 100 pixels and a thin mask of a defect, and Shown."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 150, (400, 100), np.uint8)
    mask = np.zeros((400, 100), np.uint8)
    mask[300, 20:80] = 255  # one pixel high
    for folder, name, image in (("images", "a.png", pixels), ("masks", "a_mask.png", mask)):
        (tmp_path / folder).mkdir()
        Image.fromarray(image).save(tmp_path / folder / name)
    images = image_folder(find_images(tmp_path / "images"), ImageForm(32, 32, 1))
    columns = {"score": np.array([2.0]), **{f"{n}_contribution": np.ones(1) for n in TERMS}}
    outcome = Outcome(images, Rows(np.array([0]), columns, {}, None), None, 1.0, 0.5, {})
    return Shown(outcome, {0: picture(images)}, Masks(tmp_path / "masks", images).read), pixels


def picture(images):
    x = images.read([0])[0][0]
    anomaly_map = np.zeros((32, 32), np.float32)
    anomaly_map[2:6] = 1.0  # the upper eighth
    return Picture(2.0, x, x, anomaly_map)


def test_original_is_shown_in_its_own_size_and_aspect(parts):
    shown, pixels = parts
    large = shown.view(0, 480)
    np.testing.assert_array_equal(large.original[..., 0], pixels)
    assert large.overlay.shape == large.reconstruction.shape == (400, 100, 3)
    assert shown.view(0, 320).original.shape == (320, 80, 3)


def test_true_mask_and_pixel_threshold_are_outlined_where_they_are(parts):
    shown, _ = parts
    overlay = shown.view(0, 320).overlay
    rows, columns = np.nonzero(has(overlay, CYAN))
    assert rows.min() >= 236 and rows.max() <= 244  # row 300 of 400, at 320
    assert 13 <= columns.min() <= 16 and 62 <= columns.max() <= 67
    rows, _ = np.nonzero(has(overlay, WHITE))
    assert 15 <= rows.min() <= 22 and 58 <= rows.max() <= 65


def test_without_masks_nothing_is_cyan_and_a_lost_original_is_shown_as_it_was_scored(parts):
    shown, _ = parts
    Path(shown.outcome.images.path(0)).unlink()
    view = shown.view(0, 320)
    assert view.original.shape == (160, 160, 3) and not has(view.overlay, CYAN).any()
    np.testing.assert_array_equal(view.original[::5, ::5, :1], shown.pictures[0].query)


def test_small_originals_are_enlarged_by_whole_pixels():
    small = np.arange(28 * 14, dtype=np.int64).astype(np.uint8).reshape(28, 14, 1)
    zeros = np.zeros((28, 14, 1), np.uint8), np.zeros((28, 14), np.float32)
    shown = view(small, *zeros, 1.0)
    assert shown.original.shape == (168, 84, 3)
    np.testing.assert_array_equal(shown.original[::6, ::6, :1], small)


def test_crop_is_what_the_original_shows(tmp_path):
    image = np.zeros((60, 40, 3), np.uint8)
    image[20:40, 10:30] = 200
    Image.fromarray(image).save(tmp_path / "a.png")
    cropped = image_folder(find_images(tmp_path), ImageForm(16, 16, 3, (20, 20)))
    assert cropped.original(0, 320).shape == (20, 20, 3) and cropped.original(0, 320).min() == 200
    whole = image_folder(
        find_images(tmp_path), ImageForm(16, 16, 1)
    )  # a grey run's, of a coloured file
    np.testing.assert_array_equal(whole.original(0, 320), image)
    assert whole.original(0, 30).shape == (30, 20, 3)


def test_images_without_files_are_their_own_originals(zeros):
    images = ImageSet.from_array(zeros[:3]).subset([2, 1])
    np.testing.assert_array_equal(images.original(0, 320), zeros[2])


def test_contact_sheet_has_a_line_where_the_threshold_falls(monkeypatch):
    drawn = []
    monkeypatch.setattr(sheet, "_draw_cell", lambda *args: drawn.append(args[2:6]))
    image = np.full((30, 60, 3), 90, np.uint8)
    cells = [Cell(image, f"{i}.png", 20.0 - i, "normal") for i in range(25)]
    made = contact_sheet(cells, 7.5)  # 13 above it
    dark = np.flatnonzero(has(made, INK_RGB).mean(axis=1) > 0.5)
    assert dark.min() >= 2 * CELL and dark.max() <= 2 * CELL + BAND
    tops = [y for _, _, y, _ in drawn]
    assert all(y < dark.min() for y in tops[:13]) and all(y > dark.max() for y in tops[13:])
    assert made.shape[0] == 4 * CELL + BAND + PAD
    without = contact_sheet(cells, None)
    assert without.shape[0] == 3 * CELL + PAD
    assert not (has(without, INK_RGB).mean(axis=1) > 0.5).any()


@pytest.mark.parametrize("shape", [(1, 400, 3), (400, 1, 1), (28, 28, 1), (160, 63, 3)])
def test_contact_sheet_shows_picture_score_and_label_of_any_shape(shape):
    image = np.full(shape, 90, np.uint8)
    made = contact_sheet([Cell(image, "缺" * 300, 1.5, "anomalous (crack)")], 1.0)
    grey = has(made, (90, 90, 90))
    rows, columns = np.nonzero(grey)
    assert len(rows) and max(np.ptp(rows), np.ptp(columns)) >= 139  # 28 x 5 and up
    assert (made[grey.any(axis=1).nonzero()[0].max() + 2 :] < 200).any()  # there is text


def test_names_in_pictures_are_escaped_where_the_font_lacks_their_letters():
    assert drawable("Ωμέγα дефект é.png") == "Ωμέγα дефект é.png"
    assert drawable("缺陷_a.png") == "\\u7f3a\\u9677_a.png"
    assert drawable("صو.png") == "\\u0635\\u0648.png" and drawable("ש") == "\\u05e9"
    assert drawable("a\nb") == "a\\nb" and len(fitting("缺" * 99)) <= 101


def test_tsne_says_what_it_is_of():
    rng = np.random.default_rng(0)
    figure = plots.tsne({"normal": rng.normal(size=(12, 4))})
    assert "features of the discriminator's last convolution" in figure.axes[0].get_xlabel()


def test_a_panel_has_the_four_pictures_and_the_scale_of_the_map(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (170, 190, 3), np.uint8) for _ in range(3)]
    anomaly_map = np.repeat([[0.0], [2.0]], 85, axis=0).repeat(190, axis=1)
    detection_panel(tmp_path / "p.png", "name\nscore", View(*pictures), anomaly_map, 1.0, "white")
    panel = np.asarray(Image.open(tmp_path / "p.png"))
    lines = np.lib.stride_tricks.sliding_window_view(panel[..., 0], 190, axis=1)
    places = [np.argwhere((lines == picture[0, :, 0]).all(-1)).squeeze() for picture in pictures]
    for (top, left), picture in zip(places, pictures, strict=True):
        assert (panel[top : top + 170, left : left + 190] == picture).all()
    assert len({top for top, _ in places}) == 1
    starts = [left for _, left in places]
    assert starts == sorted(starts)
    right = starts[-1] + 190
    colours = matplotlib.colormaps["inferno"]([0.0, 1.0], bytes=True)[:, :3]
    lowest, highest = (has(panel, colour) for colour in colours)
    drawn = slice(right, right + 220)
    assert lowest[top : top + 85, drawn].sum() >= 85 * 190  # the map …
    assert highest[top + 85 : top + 170, drawn].sum() >= 85 * 190
    beside = np.argwhere(highest[:, drawn.stop :])  # … and its scale, from the top
    assert len(beside) and beside[:, 0].max() < top + 10
