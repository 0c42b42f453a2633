"""A pretrained network's features as a term of the score: the bank, the view, the switch."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import ops
from anogan.config import preset
from anogan.data.image_set import ImageSet
from anogan.data.scale import view_size
from anogan.errors import UserError
from anogan.features import backbone, feature_bank, lite0
from anogan.features.feature_bank import FeatureBank, Features
from anogan.image_form import ImageForm, feature_size
from anogan.method import suspicious
from anogan.recipe import FeatureRecipe
from anogan.runs import gaussians
from model import DCGAN
from utils import load_image, save_image, to_float

RECIPE = FeatureRecipe()


@pytest.fixture(scope="module")
def photos():
    """Sixty crops of a photograph that scikit-learn ships, moved by some pixels, (n, 64, 64, 3)."""
    from sklearn.datasets import load_sample_image

    china, rng = load_sample_image("china.jpg"), np.random.default_rng(0)
    corners = rng.integers(0, 12, (60, 2)) + (120, 240)
    return np.stack([china[y : y + 128 : 2, x : x + 128 : 2] for y, x in corners])


@pytest.fixture(scope="module")
def features():
    return Features("lite0", (64, 64), RECIPE)


@pytest.fixture(scope="module")
def bank(photos, features):
    known, _ = feature_bank.fit(features, [to_float(photos[:40])])
    return FeatureBank(features, known, (64, 64))


@pytest.mark.unit
def test_small_images_are_enlarged_and_large_ones_seen_at_the_size_of_its_training():
    assert feature_size(16, 24) == (96, 128)  # maps of 2 x 2 places would say nothing
    assert feature_size(28, 28) == (96, 96)
    assert feature_size(64, 64) == (192, 192)
    assert feature_size(128, 200) == (192, 288)
    assert feature_size(210, 200) == (224, 192)
    assert feature_size(250, 630) == (224, 576)
    assert feature_size(3000, 4000) == (224, 288)
    long = feature_size(60, 4000)
    assert long[0] * long[1] < 6 * 224**2 and min(long) >= 32


@pytest.mark.unit
def test_files_are_read_no_larger_than_they_are_and_no_smaller_than_networks_see_them():
    assert view_size((28, 28), (64, 64)) == (28, 28)
    assert view_size((218, 178), (64, 64)) == (218, 178)
    assert view_size((630, 250), (320, 127)) == (576, 224)
    assert view_size((1000, 1000), (320, 320)) == (320, 320)


@pytest.mark.unit
@pytest.mark.parametrize("size", [(30, 20), (90, 120), (64, 64)])
def test_images_are_resized_as_pillow_does(photos, size):
    found = ops.resized(tf.constant(to_float(photos[:2])), *size)
    levels = np.rint((found.numpy() + 1) * 127.5)
    for image, made in zip(photos, levels, strict=False):
        expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
        # it rounds and clips after each direction
        assert np.quantile(np.abs(made - np.asarray(expected)), 0.99) <= 1


def test_damage_is_far_from_all_normal_images_and_marked_where_it_is(bank, photos):
    unseen, damaged = photos[40:].copy(), photos[40:].copy()
    damaged[:, 20:30, 34:44] = damaged[:, 40:50, 10:20][:, ::-1]
    (normal, _), (far, places) = (bank.compare(to_float(x)) for x in (unseen, damaged))
    assert np.min(far) > np.max(normal)
    y, x = np.unravel_index(np.argmax(np.mean(places, axis=0)), (64, 64))
    assert 16 <= y <= 34 and 30 <= x <= 48


def test_a_training_image_is_not_compared_with_itself(bank, photos):
    """Values standardised by training images, each without itself, are those of unseen ones."""
    unseen, _ = bank.compare(to_float(photos[40:]))
    seen, _ = bank.compare(to_float(photos[:40]))
    assert abs(np.mean(unseen)) < 1 < abs(np.mean(seen))


def test_distances_without_an_image_are_those_of_a_bank_without_it(photos, features):
    n, shrinkage = 40, RECIPE.shrinkage
    x = features.describe(to_float(photos[:n]))[1].numpy().reshape(n, -1, 112)
    pooled = np.einsum("npi,npj->ij", x - x.mean(0), x - x.mean(0)) / n / x.shape[1]
    ridge = RECIPE.ridge * np.trace(pooled) / 112 * np.eye(112)

    def squared(known, one):
        """Of one image's first place from the known ones'."""
        away = known[:, 0] - known[:, 0].mean(0)
        shrunk = (away.T @ away + shrinkage * pooled) / (len(known) + shrinkage) + ridge
        u = one[0] - known[:, 0].mean(0)
        return u @ np.linalg.solve(shrunk, u)

    with_all = np.array([squared(x, one) for one in x])
    without = np.array([squared(np.delete(x, i, 0), one) for i, one in enumerate(x)])
    found = feature_bank._without_itself(with_all, n, shrinkage).numpy()
    assert np.abs(found / without - 1).max() < 0.03 < np.abs(with_all / without - 1).min()


def test_an_image_does_not_depend_on_those_beside_it(bank, photos):
    alone, _ = bank.compare(to_float(photos[41:42]))
    among, _ = bank.compare(to_float(photos[40:53]))
    np.testing.assert_allclose(among[1], alone[0], rtol=1e-4)


def test_a_run_keeps_the_bank_small_and_unchanged(bank):
    packed = gaussians.packed(bank.known)
    assert len(packed) < 4e6
    for one, other in zip(bank.known, gaussians.unpacked(packed, 3), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.unit
def test_a_damaged_bank_is_refused(bank):
    short = bank.known[0]._replace(scale=bank.known[0].scale[1:])
    with pytest.raises(ValueError, match="do not fit"):
        gaussians.unpacked(gaussians.packed([short, *bank.known[1:]]), 3)


@pytest.mark.unit
def test_files_are_decoded_once_for_both_sizes(photos, tmp_path, monkeypatch):
    read = []

    def counting(path, *rest):
        read.append(path)
        return load_image(path, *rest)

    monkeypatch.setattr("anogan.data.image_set.load_image", counting)
    names = [f"{i}.png" for i in range(5)]
    for name, photo in zip(names, photos, strict=False):
        save_image(tmp_path / name, photo)
    (tmp_path / "3.png").write_bytes(b"broken")
    paths = [str(tmp_path / name) for name in names]
    views = ImageSet.from_files(paths, names, ImageForm(64, 64), 10**6)
    small = views.at((32, 32, 3))
    some, good = small.read(range(5))
    assert some.shape == (4, 32, 32, 3) and good.tolist() == [0, 1, 2, 4]
    np.testing.assert_array_equal(views.read([4])[0][0], photos[4])
    assert sorted(read) == paths and views.skipped == small.skipped != []


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_another_view_than_the_networks_goes_through_training_scoring_and_loading(photos, tmp_path):
    sizes = {"height": 32, "width": 32, "view_height": 64, "view_width": 64}
    config = preset("default", steps=1, z_dim=4, gf_dim=4, df_dim=4, **sizes)
    model = DCGAN(config).train(photos, tmp_path, progress=False)
    found = model.anomaly_detector(photos[:5])
    assert found.anomaly_map.shape == (5, 32, 32) and found.image.shape == (5, 32, 32, 3)
    assert np.ptp(found.terms["features"]) > 0
    again = DCGAN.load(tmp_path).anomaly_detector(photos[:5])
    np.testing.assert_allclose(again.score, found.score, rtol=1e-5)
    with pytest.raises(UserError, match=r"\(64, 64, 3\)"):
        model.anomaly_detector(photos[:5, ::2, ::2])


@pytest.mark.usefixtures("eager")
def test_without_features_there_is_no_term_no_file_and_no_network(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(lite0, "PACKAGE", "no_such_package")
    anew = backbone.BACKBONES["lite0"]._replace(load=lite0.load.__wrapped__)
    monkeypatch.setitem(backbone.BACKBONES, "lite0", anew)
    monkeypatch.setattr("model.shared_features", Features)
    sizes = {"height": 32, "width": 32, "gf_dim": 4, "df_dim": 4}
    config = preset("default", steps=1, features="none", **sizes)
    model = DCGAN(config).train(photos[:, ::2, ::2], tmp_path, progress=False)
    found = model.anomaly_detector(photos[:5, ::2, ::2])
    assert not found.terms["features"].any() and not (tmp_path / "features.npz").exists()
    with pytest.raises(UserError, match="pip install -r requirements.txt, or give --features none"):
        DCGAN(preset("default", steps=1, **sizes)).train(photos[:, ::2, ::2])


def test_a_batch_goes_through_the_network_in_even_parts_and_no_further_than_it_counts():
    sizes = []

    class Counted:
        def measure(self, images, _):
            sizes.append(len(images))
            return tf.reduce_max(images, (1, 2, 3)), tf.zeros((len(images), 4, 4))

    images = np.arange(9, dtype=np.float32)[:, None, None, None] * np.ones((1, 8, 8, 1), np.float32)
    bank = FeatureBank(Counted(), [], (8, 8))
    assert bank.compare(images)[0].numpy().tolist() == list(range(9)) and sizes == [5, 5]
    sizes.clear()
    bank.compare(images, 3)
    assert sizes == [5]


def test_a_fit_measures_each_image_nearly_as_the_fit_without_it_does(photos, features):
    """But for its part in the covariance of all places, see _without_itself."""
    known, far = feature_bank.fit(features, [to_float(photos)])
    within = FeatureBank(features, known, (64, 64)).compare(to_float(photos))[0].numpy()
    for i in range(0, len(photos), 20):
        known, _ = feature_bank.fit(features, [to_float(np.delete(photos, i, axis=0))])
        alone = FeatureBank(features, known, (64, 64)).compare(to_float(photos[i : i + 1]))[0]
        assert abs(far[i] - alone[0]) < 0.3 * abs(within[i] - alone[0])


def test_outliers_are_ranked_by_a_bank_that_has_not_seen_them(photos, features):
    mixed = photos.copy()
    mixed[7, 10:30, 10:30] = mixed[7, 30:50, 30:50][::-1]
    known, far = feature_bank.fit(features, [to_float(mixed)])
    bank = FeatureBank(features, known, (64, 64))
    some = np.where(np.arange(len(mixed)) % 7, far, np.nan)  # known, but for a few
    alone = suspicious.features_alone(bank, mixed, some)
    assert np.argmax(far) == 7 and far[7] > 2 * np.sort(far)[-2]
    with_itself = bank.compare(to_float(mixed))[0].numpy()
    assert with_itself[7] < 0.7 * far[7]
    np.testing.assert_allclose(alone, np.where(np.isnan(some), with_itself, far), rtol=1e-4)
