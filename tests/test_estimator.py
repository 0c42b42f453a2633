"""The scikit-learn wrapper: its conventions, what it takes for an image, pickles, their checks."""

import doctest
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import without_graphs
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from anogan import estimator
from anogan.config import Config, preset
from anogan.errors import UserError
from anogan.estimator import AnoGAN, _scored_size

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("eager")]  # many small fits
ROOT = Path(__file__).parent.parent
SMALL = {"gf_dim": 1, "df_dim": 1, "z_dim": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def fitted(zeros):
    with without_graphs():
        return AnoGAN(steps=1, settings=SMALL).fit(zeros[:40])


def test_conventions_of_outlier_detectors(fitted, queries):
    images = queries[0]
    decision, scores = fitted.decision_function(images), fitted.score_samples(images)
    np.testing.assert_array_equal(decision, scores - fitted.offset_)
    np.testing.assert_array_equal(fitted.predict(images), np.where(decision < 0, -1, 1))
    found = fitted.model_.anomaly_detector(images, batch_size=estimator.BATCH)
    np.testing.assert_array_equal(scores, -found.score)
    np.testing.assert_array_equal(fitted.predict(images) == -1, found.is_anomaly)


def test_images_of_another_scale_than_in_fit_are_warned_of(zeros, queries, recwarn):
    """Values from 0 to 1 against 0 to 255, which clipping would make all alike."""
    whole, parts = queries[0][:5], queries[0][:5] / np.float32(255)
    bytes_, floats = (
        AnoGAN(steps=1, settings=SMALL).fit(x) for x in (zeros[:20], zeros[:20] / 255)
    )
    with pytest.warns(UserWarning, match="from 0 to 1, those in fit were from 0 to 255: .* alike"):
        bytes_.score_samples(parts)
    with pytest.warns(UserWarning, match="from 0 to 255, those in fit were from 0 to 1: .*clipped"):
        floats.predict(whole)
    recwarn.clear()
    bytes_.predict(whole)
    floats.predict(parts * 1.2 - 0.1)
    assert not [w for w in recwarn if "scale" in str(w.message)]


def test_rows_of_features_are_the_same_as_images(fitted, queries):
    images = queries[0][:5]
    rows = fitted.score_samples(images.reshape(5, -1))
    np.testing.assert_array_equal(rows, fitted.score_samples(images))
    np.testing.assert_array_equal(rows[:1], fitted.score_samples(images[:1]))
    assert fitted.image_shape_ == (16, 16, 1) and fitted.n_features_in_ == 256
    with pytest.raises(ValueError, match=r"images are \(8, 32, 1\), those in fit were"):
        fitted.score_samples(images.reshape(5, 8, 32))
    with pytest.raises(ValueError, match="255 features"):
        fitted.score_samples(images.reshape(5, -1)[:, 1:])


def test_a_pickle_holds_the_model_and_leaves_it_as_it_was(fitted, queries):
    before = fitted.score_samples(queries[0])
    other = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(other.score_samples(queries[0]), before)
    np.testing.assert_array_equal(fitted.score_samples(queries[0]), before)
    assert other.offset_ == fitted.offset_ and other.model_.folder is fitted.model_.folder is None
    assert len(other.model_.calibrations) == 1
    again = pickle.loads(pickle.dumps(other))  # once more, from one that was loaded
    np.testing.assert_array_equal(again.score_samples(queries[0]), before)
    assert not hasattr(clone(fitted), "model_") and clone(fitted).get_params()["steps"] == 1


@pytest.mark.parametrize(
    ("shape", "X", "said"),
    [
        ((7, 9), np.zeros((20, 64)), r"image_shape \(7, 9, 1\) is not that of 64 features"),
        ((4, 4, 4), np.zeros((20, 64)), r"\(4, 4, 4\) is no shape of an image"),
        (None, np.zeros((20, 8, 8, 2)), r"\(8, 8, 2\) is no shape of an image"),
        (None, np.zeros((9, 8, 8, 1)), "minimum of 10 is required"),
        (None, np.full((20, 64), np.nan), "NaN"),
        (None, np.full((20, 64), 3.0), "the same"),
    ],
)
def test_what_cannot_be_fitted_is_a_value_error(shape, X, said):
    with pytest.raises(ValueError, match=said):
        AnoGAN(shape, steps=1, settings=SMALL).fit(X)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", "3"), ("steps", 0), ("steps", -1), ("steps", 1.5), ("steps", None),
        ("preset", "x"), ("preset", None), ("preset", []),
        ("target_fpr", 0), ("target_fpr", "0.1"), ("target_fpr", float("nan")), ("target_fpr", 1),
        ("image_shape", 64), ("image_shape", "88"), ("image_shape", (8.0, 8)),
        ("image_shape", ("8", "8")), ("image_shape", (0, 8)), ("image_shape", (8, 8, None)),
        ("random_state", "x"), ("random_state", -1), ("random_state", 2**28),
        ("settings", [1]), ("settings", "ab"), ("settings", {3: 1}),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_a_value_error_of_one_line_that_names_it(zeros, name, value):
    with pytest.raises(ValueError, match=name) as told:
        AnoGAN(**{"steps": 1, "settings": SMALL, name: value}).fit(zeros[:20, :8, :8])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nosuch", 1), ("name", 1), ("z_dim", "4"), ("z_dim", 4.5), ("z_dim", True), ("z_dim", 0),
        ("epochs", float("nan")), ("channels", 3), ("height", None), ("preset", "x"), ("seed", -1),
        ("dataset", 3), ("dataset", "\ud800"), ("normal_class", 1.5), ("batch_size", [2]),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_a_value_error_of_one_line_that_names_it(zeros, name, value):
    with pytest.raises(ValueError, match=name) as told:
        AnoGAN(steps=1, settings={**SMALL, name: value}).fit(zeros[:20])
    assert "\n" not in str(told.value)


def test_numbers_of_numpys_are_taken(tmp_path):
    settings = {"z_dim": np.int64(4), "lambda_": np.float32(0.25), "steps": np.uint8(3)}
    config = preset("default", **settings)
    config.save(tmp_path)
    assert Config.load(tmp_path) == config and type(config.z_dim) is int
    AnoGAN(steps=np.int32(3), target_fpr=np.float32(0.1))._check_parameters()


def test_importing_it_says_nothing_and_keeps_tensorflows_lines_off_the_console():
    env = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    code = "import os, anogan.estimator; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_values_and_sizes_become_those_of_the_networks():
    assert _scored_size(8, 8) == (16, 16) and _scored_size(480, 120) == (64, 16)
    assert _scored_size(28, 28) == (28, 28) and _scored_size(1, 300) == (16, 64)
    detector = AnoGAN()
    detector.image_shape_, detector.value_range_ = (2, 2, 1), (-1.0, 3.0)
    rows = np.array([[-1.0, 3.0, 1.0, 9.0]])
    assert detector._images(rows, (2, 2, 1)).ravel().tolist() == [0, 255, 128, 255]
    assert detector._images(rows, (16, 16, 1)).shape == (1, 16, 16, 1)
    assert detector._shape_of(49) == (7, 7, 1) and detector._shape_of(50) == (1, 50, 1)


@pytest.mark.slow
def test_checks_of_scikit_learn():
    from sklearn.utils.estimator_checks import check_estimator

    results = check_estimator(
        AnoGAN(steps=1, settings={**SMALL, "features": "none"}), on_skip=None, on_fail=None
    )  # all pass: a row of any number of features is an image of one line
    failed = {r["check_name"]: repr(r["exception"]) for r in results if r["status"] == "failed"}
    assert not failed
    assert sum(r["status"] == "passed" for r in results) > 35


@pytest.mark.slow
def test_it_works_in_a_pipeline_and_a_search(zeros, queries):
    from sklearn.preprocessing import MinMaxScaler

    rows = zeros[:24].reshape(24, -1)
    piped = make_pipeline(
        MinMaxScaler(), AnoGAN(steps=1, settings={**SMALL, "features": "none"})
    ).fit(rows)
    assert set(piped.predict(queries[0].reshape(80, -1))) <= {-1, 1}
    search = GridSearchCV(
        AnoGAN(steps=1, settings={**SMALL, "features": "none"}),
        {"target_fpr": [0.1, 0.2]},
        scoring=lambda fitted, X, y=None: fitted.score_samples(X).mean(),
        cv=2,
    )
    assert search.fit(rows).best_params_["target_fpr"] in (0.1, 0.2)


@pytest.mark.slow
def test_example_of_the_docstring_runs():
    found = doctest.DocTestFinder(recurse=False).find(AnoGAN, "AnoGAN", globs={})
    told = []
    assert not doctest.DocTestRunner().run(found[0], out=told.append).failed, "".join(told)


CALLER = """
import sys

import utils

sys.path.append(sys.argv[1])  # the clone
path = list(sys.path)
from anogan.estimator import DCGAN, AnoGAN

import model

assert sys.path == path and utils is sys.modules["utils"] and "ops" not in sys.modules
assert utils.mine == model.mine == 1
import pickle

import numpy as np
import tensorflow as tf

tf.config.run_functions_eagerly(True)  # without compiling, which takes long
X = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)
detector = AnoGAN(steps=1, settings={settings}).fit(X)
detector = pickle.loads(pickle.dumps(detector))
assert isinstance(detector.model_, DCGAN) and set(detector.predict(X)) <= {{1, -1}}
"""


@pytest.mark.slow
def test_a_project_with_modules_of_the_same_names_keeps_its_own(tmp_path):
    for name in ("utils", "model"):
        (tmp_path / f"{name}.py").write_text("mine = 1\n")
    (tmp_path / "ops.py").write_text("raise SystemExit('taken for the clone')\n")
    program = tmp_path / "program.py"
    program.write_text(CALLER.format(settings={**SMALL, "features": "none"}))
    command = [sys.executable, program, ROOT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "settings, view",
    [
        ({}, (224, 288)),
        ({"height": 240, "width": 320, "window": 64}, (240, 320)),
        ({"features": "none"}, (48, 64)),
        ({"view_width": 640}, (48, 640)),
    ],
)
def test_images_are_read_as_large_as_the_settings_need(monkeypatch, settings, view):
    configs = []

    def made(config):
        configs.append(config)
        raise UserError("enough")

    monkeypatch.setattr(estimator, "DCGAN", made)
    images = np.zeros((10, 480, 640, 1), np.uint8)
    with pytest.raises(ValueError, match="enough"):
        AnoGAN(settings=settings).fit(images)
    assert configs[0].view[:2] == view
