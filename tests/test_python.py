"""From Python: decisions in what is found, all sorts of input, and the docstring's example."""

import dataclasses
import doctest
import io
import os
import pydoc
import threading

import numpy as np
import pytest
from PIL import Image

import model as model_module
from anogan.config import preset
from anogan.data.folders import find_images, image_folder
from anogan.data.inputs import as_images
from anogan.errors import UserError
from model import DCGAN

pytestmark = pytest.mark.unit


@pytest.fixture
def photo(tmp_path):
    """A colour photograph of 50 x 40 pixels with an EXIF orientation that turns it."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (5, 4, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.png"
    small.resize((40, 50)).save(path, exif=exif)
    return path


def test_decisions_and_p_values_are_those_of_the_calibration(trained, queries):
    found, normal = trained.anomaly_detector(queries[0]), trained.calibrate().normal_scores
    assert found.is_anomaly.dtype == bool and found.is_anomaly.shape == (80,)
    np.testing.assert_array_equal(found.is_anomaly, found.score > normal.threshold(0.05))
    np.testing.assert_array_equal(found.p_value, normal.p_value(found.score))
    assert trained.threshold() == normal.threshold(0.05)
    assert trained.threshold(0.001) == normal.threshold(0.001) > trained.threshold(0.2)
    hybrid = trained.calibrate(trained.search("hybrid", 2)).normal_scores
    assert trained.threshold(0.1, trained.search("hybrid", 2)) == hybrid.threshold(0.1)


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan")])
def test_a_rate_that_is_none_is_refused(trained, rate):
    with pytest.raises(UserError, match="target_fpr must be between 0 and 1"):
        trained.threshold(rate)


@pytest.mark.usefixtures("eager")
def test_a_second_query_finds_the_calibration_of_the_first(trained_folder, queries, monkeypatch):
    model = DCGAN.load(trained_folder)
    model.calibrations = {}
    first, kept = model.anomaly_detector(queries[0][:2]), dict(model.calibrations)
    monkeypatch.setattr(model.detector, "calibrate", None)
    np.testing.assert_array_equal(model.anomaly_detector(queries[0][:2]).score, first.score)
    assert model.threshold() and kept == {}


@pytest.mark.usefixtures("eager")
def test_without_held_out_images_nothing_is_decided(trained_folder, queries):
    model = DCGAN.load(trained_folder)
    model.images = dataclasses.replace(model.images, held_out=model.images.held_out[:4])
    found = model.anomaly_detector(queries[0][:2])
    assert found.is_anomaly is None and found.p_value is None
    with pytest.raises(UserError, match="4 normal images were held out from training, too few"):
        model.threshold(0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_an_open_image_and_a_list_are_read_as_the_folder_reader_does(photo, channels):
    config = preset("default", height=20, width=16, channels=channels)
    listed = image_folder(find_images(photo.parent), config.form)
    expected = listed.read([0])[0]
    with Image.open(photo) as opened:
        before = opened.tobytes()
        for given in (photo, str(photo), opened, [photo], (opened,), np.array([str(photo)])):
            np.testing.assert_array_equal(as_images(given, config), expected)
        assert opened.tobytes() == before and opened.size == (40, 50)
    both = as_images([photo, Image.open(photo)], config)
    np.testing.assert_array_equal(both, np.concatenate([expected, expected]))


def test_bytes_open_files_iterables_and_folders_have_one_meaning(photo, tmp_path):
    config = preset("default", height=20, width=16, channels=1)
    expected, content = as_images(photo, config), photo.read_bytes()
    with photo.open("rb") as file, photo.open("rb", buffering=0) as raw:
        for given in (content, bytearray(content), io.BytesIO(content), file, raw, file):
            np.testing.assert_array_equal(as_images(given, config), expected)
    both = np.concatenate([expected, expected])
    for given in ((p for p in [photo, photo]), {photo: 0, str(photo): 1}.keys(), [content, photo]):
        np.testing.assert_array_equal(as_images(given, config), both)
    folder = tmp_path / "folder"
    for name in ("b.png", "a/1.png", "note.txt", "@eaDir/2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for given in (folder, str(folder), [folder]):
        np.testing.assert_array_equal(as_images(given, config), both)
    with os.fdopen(_pipe(content), "rb") as stream:
        np.testing.assert_array_equal(as_images(stream, config), expected)


def _pipe(content):
    """The end to read of a pipe with that content."""
    out, into = os.pipe()
    threading.Thread(target=lambda: os.fdopen(into, "wb").write(content), daemon=True).start()
    return out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "images are a NoneType: give paths, a folder, open files"),
        (3, "images are a int: "),
        ({"a": 1}, "images are a dict: "),
        ([np.zeros((8, 8, 1)), np.zeros((9, 8, 1))], r"several shapes, \(8, 8, 1\) and \(9, 8"),
        (b"no image", "an image: not an image that Pillow reads"),
        (io.BytesIO(b""), "an image: an empty file"),
        ([], "images are of shape"),
    ],
)
def test_what_else_is_given_is_named(given, message):
    config = preset("default", height=20, width=16, channels=1)
    with pytest.raises(UserError, match=message) as error:
        as_images(given, config)
    assert "\n" not in str(error.value)


def test_crop_and_value_range_of_the_run_are_heeded(tmp_path):
    deep = np.linspace(0, 4095, 40 * 40).reshape(40, 40).astype(np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(deep).save(path)
    some = {"crop_height": 20, "crop_width": 20, "min_value": 0.0, "max_value": 4095.0}
    config = preset("default", height=16, width=16, channels=1, **some)
    listed = image_folder(find_images(tmp_path), config.form)
    for given in (path, Image.open(path), Image.fromarray(deep)):
        np.testing.assert_array_equal(as_images(given, config), listed.read([0])[0])


def test_one_image_has_results_with_a_leading_dimension_of_1(trained, queries):
    image = queries[0][3]
    whole = trained.anomaly_detector(queries[0][3:4])
    for given in (image, image[..., 0], Image.fromarray(image[..., 0])):
        found = trained.anomaly_detector(given)
        assert found.score.shape == (1,) and found.anomaly_map.shape == (1, 16, 16)
        np.testing.assert_array_equal(found.score, whole.score)
    floats = image / np.float32(127.5) - 1
    np.testing.assert_allclose(trained.anomaly_detector(floats).score, whole.score, rtol=1e-4)
    np.testing.assert_array_equal(trained.features(image), trained.features(queries[0][3:4]))


def test_what_is_no_image_of_the_model_is_refused_with_the_remedy(trained, tmp_path):
    for wrong in (np.zeros((8, 8, 1), np.uint8), np.zeros((2, 8, 8, 1), np.uint8)):
        with pytest.raises(UserError, match=r"images are \(8, 8, 1\), .*Image.fromarray"):
            trained.anomaly_detector(wrong)
    with pytest.raises(UserError, match="missing.png: cannot be read"):
        trained.anomaly_detector(tmp_path / "missing.png")
    with pytest.raises(UserError, match="holds a ndarray"):
        trained.anomaly_detector([tmp_path / "missing.png", np.zeros((16, 16, 1), np.uint8)])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match="broken.png"):
        trained.anomaly_detector([os.fspath(tmp_path / "broken.png")])


@pytest.mark.slow
def test_help_shows_an_example_that_runs():
    found = doctest.DocTestFinder(recurse=False).find(DCGAN, "DCGAN", globs=vars(model_module))
    assert len(found) == 1 and len(found[0].examples) > 8
    told = []
    result = doctest.DocTestRunner().run(found[0], out=told.append)
    assert not result.failed, "".join(told)
    for name in ("train", "load", "anomaly_detector", "threshold", "is_anomaly", ">>> "):
        assert name in pydoc.plain(pydoc.render_doc(DCGAN))
