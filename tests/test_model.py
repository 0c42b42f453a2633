"""What the model promises of training, scoring, saving and restoring."""

import dataclasses
import functools
import json
import os
import shutil
import signal

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import model as model_module
from anogan import recipe as recipe_module
from anogan.config import VERSION, Config, preset
from anogan.data.image_set import ImageSet
from anogan.errors import UserError
from anogan.method import detector, networks, training
from anogan.method.detector import Detector
from anogan.method.kept_images import fit_features
from anogan.method.linear_skips import set_linear_skips
from anogan.method.memory_bank import bank_alone
from anogan.method.scoring import SEARCHES
from anogan.method.synthetic import plant_anomalies, plant_defects
from anogan.method.threshold import NormalScores
from anogan.recipe import RECIPES, BankRecipe, Recipe, TermWeights
from anogan.runs import distributed
from anogan.runs.checkpoint import save_calibrations
from model import DCGAN
from utils import to_float, to_uint8

pytestmark = pytest.mark.unit

STEPS = 8  # of the latent search
# with all its steps, the search without an encoder takes ten seconds
LONG_IS_SLOW = [
    pytest.param(kind, marks=pytest.mark.slow if kind == "gradient" else ()) for kind in SEARCHES
]


def weights_of(model):
    nets = (*model.trainer.nets.trained().values(), *model.trainer.ema.trained().values())
    return [w for net in nets for w in net.get_weights()]


def same_weights(a, b):
    return all(np.array_equal(x, y) for x, y in zip(weights_of(a), weights_of(b), strict=True))


@pytest.fixture(scope="module")
def networks_alone(trained_folder):
    """The trained model whose score is the networks', without the memory beside them."""

    @functools.cache
    def load(precision="float32"):
        weights = dataclasses.replace(RECIPES["default"].weights, memory=0.0)
        recipe = dataclasses.replace(RECIPES["default"], weights=weights)
        model = DCGAN.load(trained_folder, precision, recipe=recipe)
        model.folder = None  # nothing is kept there
        return model

    return load


@pytest.mark.parametrize("search", LONG_IS_SLOW)
def test_unseen_digits_score_above_the_normal_one(trained, networks_alone, queries, search):
    images, labels = queries
    for model in (trained, networks_alone()):
        assert roc_auc_score(labels, model.anomaly_detector(images, search).score) > 0.9


@pytest.mark.parametrize("search", SEARCHES)
def test_score_does_not_depend_on_order_mates_or_batch_size(networks_alone, queries, search):
    images, trained = queries[0][::5], networks_alone()
    search = trained.search(search, STEPS)
    whole = trained.anomaly_detector(images, search, batch_size=16)
    back = trained.anomaly_detector(images[::-1], search, batch_size=16)
    single = trained.anomaly_detector(images, search, batch_size=1)
    first = trained.anomaly_detector(images[:3], search, batch_size=16)
    for other in (back.score[::-1], single.score):
        np.testing.assert_allclose(other, whole.score, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(first.score, whole.score[:3], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("search", SEARCHES)
def test_scoring_leaves_the_weights_alone(trained, queries, search):
    before = weights_of(trained)
    trained.anomaly_detector(queries[0][:8], trained.search(search, STEPS))
    after = weights_of(trained)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("search", SEARCHES)
def test_detection_has_one_row_an_image_in_the_promised_ranges(trained, queries, search):
    found = trained.anomaly_detector(queries[0][:5], trained.search(search, STEPS))
    shape = trained.config.shape
    assert found.z.shape == (5, trained.config.z_dim)
    assert found.reconstruction.shape == (5, *shape)
    assert found.residual_map.shape == (5, *shape[:2])
    assert np.abs(found.reconstruction).max() <= 1
    assert found.residual_map.min() >= 0 and found.residual_map.max() <= 2
    for values in (found.score, *found.terms.values()):
        assert values.shape == (5,) and np.isfinite(values).all()


def search_loss(found, weights):
    """What the search has minimised, in each image."""
    r, d = found.terms["residual"], found.terms["discrimination"]
    return weights[0] * r + weights[1] * d + weights[2] * (found.z**2).sum(1)


def test_more_search_steps_come_closer_and_never_farther(trained, queries):
    images = queries[0][:16]
    losses = []
    weights = trained.calibrate().search_weights
    for steps in (0, 5, 50):
        found = trained.anomaly_detector(images, trained.search("gradient", steps))
        losses.append(search_loss(found, weights))
    assert (losses[1] <= losses[0] + 1e-4).all() and (losses[2] <= losses[0] + 1e-4).all()
    assert losses[2].mean() < 0.9 * losses[0].mean()


def test_search_keeps_the_best_z_even_if_the_last_is_bad(trained, queries):
    images = queries[0][:8]
    start = trained.anomaly_detector(images, trained.search("hybrid", 0))
    wild = trained.anomaly_detector(images, trained.search("hybrid", 5, learning_rate=10.0))
    weights = trained.calibrate().search_weights
    assert (search_loss(wild, weights) <= search_loss(start, weights) + 1e-4).all()


def test_no_images_give_an_empty_detection(trained):
    found = trained.anomaly_detector(np.zeros((0, 16, 16, 1), np.uint8))
    assert found.score.shape == (0,) and found.reconstruction.shape == (0, 16, 16, 1)


def test_images_of_another_size_are_refused_by_size(trained):
    with pytest.raises(UserError, match="28"):
        trained.anomaly_detector(np.zeros((1, 28, 28, 1), np.uint8))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda x: x / 255, "from 0 to 1: give .* floats from -1 to 1, images \\* 2 - 1"),
        (lambda x: x.astype(float), "from 0 to 255: give uint8"),
        (lambda x: (x / 255 - 0.45) / 0.2, "from -2.25 to 2.75: give"),
        (lambda x: np.where(x == 7, np.nan, to_float(x)), "NaN"),
        (lambda x: np.where(x == 7, -np.inf, to_float(x)), "infinite"),
        (lambda x: x.astype(np.int64), "int64: give uint8"),
        (lambda x: x.astype(np.uint16) * 257, "uint16: give uint8"),
        (lambda x: x > 90, "bool: give uint8"),
        (lambda x: x[..., 0], r"\(4, 16, 16\): give .* images\[..., None\]"),
    ],
)
def test_images_of_another_type_or_range_are_refused_everywhere(trained, queries, spoil, said):
    whole = queries[0][:4].copy()
    whole[:, 0, :3, 0] = 7, 255, 0
    ways = trained.anomaly_detector, trained.features, trained.train, ImageSet.from_array
    for way in ways:
        with pytest.raises(UserError, match=said) as error:
            way(spoil(whole))
        assert "\n" not in str(error.value)


def test_images_in_the_range_are_taken_however_they_are_held(trained, queries):
    x = queries[0][:4]
    expected = trained.anomaly_detector(x).score
    for same in (to_float(x), to_float(x).astype(np.float64), list(x), to_float(x) * 1.00001):
        np.testing.assert_allclose(trained.anomaly_detector(same).score, expected, atol=1e-3)
    half = trained.anomaly_detector(to_float(x).astype(np.float16)).score
    np.testing.assert_allclose(half, expected, rtol=0.05, atol=0.05)
    bright = np.maximum(x, 130)  # all above 0 as floats, and yet not from 0 to 1
    expected = trained.anomaly_detector(bright).score
    np.testing.assert_array_equal(trained.anomaly_detector(to_float(bright)).score, expected)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("calibrated", [False, True])
def test_a_score_that_is_no_number_is_an_error(trained_folder, queries, calibrated):
    model = DCGAN.load(trained_folder)
    model.folder = None
    if calibrated:
        model.keep_calibration()
    else:
        model.calibrations = {}
    bias = model.trainer.ema.encoder.trainable_variables[-1]
    bias.assign(bias * np.nan)
    with pytest.raises(UserError, match="anomaly scores are not finite .*residual.*: train"):
        model.anomaly_detector(queries[0][:4])


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((60, 16, 16, 1)), "54 training images .* all the same"),
        (np.tile(np.arange(256).reshape(16, 16, 1), (60, 1, 1, 1)), "all the same"),
        (np.repeat(np.arange(60), 256).reshape(60, 16, 16, 1), "all of one colour each"),
    ],
)
def test_images_that_teach_nothing_are_refused_before_training(small, tmp_path, images, said):
    model = DCGAN(preset("default", **small))
    with pytest.raises(UserError, match=said):
        model.train(images.astype(np.uint8), tmp_path / "run", log_dir=tmp_path / "log")
    assert model.steps_done == 0 and not list(tmp_path.iterdir())


@pytest.mark.usefixtures("eager")
def test_images_that_hardly_differ_are_warned_of_and_not_told_to_train_longer(small, caplog):
    images = np.tile(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), (60, 1, 1, 1))
    images[::2, 3] ^= 1
    model = DCGAN(preset("default", **{**small, "steps": 2})).train(images, progress=False)
    assert "nearly the same: on average they differ by 0.12 of 255 grey levels" in caplog.text
    assert model.inference.unexplained(model.images) is None


@pytest.mark.parametrize("version", [None, 0, VERSION - 1, VERSION + 1, str(VERSION), True, {}])
def test_a_run_of_another_format_is_one_line(tmp_path, version):
    config = Config()
    config.save(tmp_path)
    assert Config.load(tmp_path) == config
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    del stored["version"]
    path.write_text(json.dumps(stored if version is None else {**stored, "version": version}))
    with pytest.raises(UserError, match=f"of version .*this tool reads {VERSION}: train"):
        Config.load(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_other_defaults_change_neither_a_saved_runs_scores_nor_how_it_goes_on(
    zeros, small, tmp_path, monkeypatch
):
    settings, before, after = {**small, "steps": 1}, tmp_path / "before", tmp_path / "after"
    # few, for speed, but with the penalty in what is gone on with, too
    settings["recipe"] = Recipe(r1_every=2, hybrid_steps=4, planted=16)
    DCGAN(preset("default", **settings)).train(zeros[:-50], before, progress=False)
    shutil.copytree(before, after)
    expected = DCGAN.load(before).anomaly_detector(zeros[-50:], "hybrid")
    gone_on = DCGAN.load(before, steps=3).train(zeros, before, progress=False)
    other = Recipe(
        encoder=False, synthetic_anomalies=False, linear_skip=False, slope=0.5, beta2=0.5,
        ema_decay=0.0, kl_weight=0.1, pixel_weight=0.1, r1_weight=0.0, hybrid_steps=3,
        search_betas=(0.5, 0.5), search_prior=1.0, squared=False, standardised=False, map_blur=0.2,
        planted=9, seen_kept=30, weights=TermWeights(3.0, 3.0, 3.0, 3.0, 3.0, 0.0, 0.0),
        bank=BankRecipe(bins=3, cells=(5, 5), usual=0.0),
    )  # fmt: skip
    values = tuple(getattr(other, each.name) for each in dataclasses.fields(Recipe))
    monkeypatch.setattr(Recipe.__init__, "__defaults__", values)
    for name in RECIPES:
        monkeypatch.setitem(recipe_module.RECIPES, name, other)
    found = DCGAN.load(after).anomaly_detector(zeros[-50:], "hybrid")
    for mine, theirs in zip(found[:4], expected[:4], strict=True):
        np.testing.assert_equal(mine, theirs)
    np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
    again = DCGAN.load(after, steps=3).train(zeros, after, progress=False)
    assert same_weights(gone_on, again)
    assert preset("default").recipe == Recipe() == other  # they were replaced


def test_calibrations_that_cannot_be_kept_are_told_and_scoring_goes_on(tmp_path, caplog):
    (tmp_path / "file").touch()
    save_calibrations(tmp_path / "file", {})
    assert "calibration is not kept" in caplog.text


def test_a_model_that_has_seen_no_images_scores_none(small):
    model = DCGAN(preset("default", **small))
    for query in (
        lambda: model.anomaly_detector(np.zeros((2, 16, 16, 1), np.uint8)),
        model.threshold,
    ):
        with pytest.raises(UserError, match="of 0 different training images no score can be made"):
            query()


def test_range_without_width_is_refused():
    with pytest.raises(UserError, match="max_value must be above min_value, not 3 and 3"):
        Config(min_value=3, max_value=3)


def test_early_images_score_higher_than_present_ones(trained):
    drawn = to_uint8(DCGAN(trained.config).generate(trained.fixed_latents()))
    early = trained.anomaly_detector(drawn).score
    now = trained.anomaly_detector(trained.generate(trained.fixed_latents())).score
    assert np.median(early) > np.median(now)
    assert (early > now).mean() > 0.9


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_a_continued_run_equals_the_unbroken_one(zeros, small, tmp_path):
    settings = {**small, "steps": 3, "recipe": Recipe(r1_every=2)}
    unbroken = DCGAN(preset("default", **settings)).train(zeros, progress=False)
    DCGAN(preset("default", **{**settings, "steps": 1})).train(zeros, tmp_path, progress=False)
    continued = DCGAN.load(tmp_path, steps=3)
    assert continued.steps_done == 1
    continued.train(zeros, tmp_path, progress=False)
    assert continued.steps_done == 3
    for a, b in zip(weights_of(unbroken), weights_of(continued), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_training_step_has_the_gradients_of_the_plain_losses(zeros, small):
    """D passed over all images at once, each net's loss taken back by itself."""
    import tensorflow as tf

    import ops

    model = DCGAN(preset("default", **small))
    x = tf.constant(to_float(zeros[:16]))
    for v in model.trainer.nets.encoder.trainable_variables:  # E starts from zeros
        v.assign_add(0.1 * tf.random.stateless_normal(v.shape, [1, 2]))
    config, seeds = model.config, model.trainer.seeds(5)
    z, half = tf.random.stateless_normal([16, config.z_dim], seeds[0]), 8
    damaged, large = plant_anomalies(x[:half], seeds[1])
    defective, defects = plant_defects(x, seeds[3])
    whole = tf.random.stateless_uniform([half, 1, 1, 1], seeds[2]) < 0.5
    with tf.GradientTape(persistent=True) as tape:
        code = model.trainer.nets.encoder(tf.where(whole, x[:half], damaged), training=True)
        mean, spread = code[:, : config.z_dim], tf.clip_by_value(code[:, config.z_dim :], -8, 4)
        z = tf.concat([mean + tf.exp(spread / 2) * z[:half], z[half:]], 0)
        g = model.trainer.nets.generator(z, training=True)
        all_images = tf.concat([x, damaged, defective, g], 0)
        logits, f, pixels = model.trainer.nets.discriminator(all_images, training=True)
        real, bad, _, fake = tf.split(logits, [16, half, 16, 16])
        likeness = tf.reduce_mean(tf.square(x[:half] - g[:half]))
        features = tf.reduce_mean(ops.distance(tf.stop_gradient(f[:half]), f[-16:][:half], True))
        kl = tf.reduce_mean(ops.kl_divergence(mean, spread))
        e_loss = 0.5 * (likeness / float(likeness) + features / float(features))
        e_loss += 2 * config.recipe.kl_weight * kl / 256
        d_loss = ops.discriminator_loss(real, fake) + tf.reduce_mean(tf.nn.softplus(bad))
        where = tf.concat([tf.zeros((16, *large.shape[1:])), large, defects], 0)
        where = tf.nn.max_pool2d(where, 2, 2, "SAME")
        d_loss += 5.0 * ops.pixel_loss(pixels[:40], where, 4.0)
        g_loss = ops.generator_loss(fake) + e_loss
    plain = {"discriminator": d_loss, "generator": g_loss, "encoder": e_loss}
    found = {}
    model.trainer.apply = lambda name, gradients: found.setdefault(name, gradients)
    losses = model.trainer.one_step(x)
    np.testing.assert_allclose(losses, [d_loss, g_loss, likeness, kl], rtol=1e-4)
    assert set(found) == set(plain)
    for name, loss in plain.items():
        expected = tape.gradient(loss, model.trainer.weights_of(name))
        for mine, theirs in zip(found[name], expected, strict=True):
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3 * scale + 1e-7)


def test_one_image_is_scored_and_not_trained_on(trained, queries):
    for way in (trained.train, ImageSet.from_array):
        with pytest.raises(UserError, match=r"\(16, 16, 1\): give"):
            way(queries[0][0])


@pytest.fixture
def ctrl_c():
    """SIGINT raises KeyboardInterrupt, also where the tests run in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_ctrl_c_saves_the_end_of_the_very_step(zeros, small, tmp_path, monkeypatch, ctrl_c):
    """It comes between the gradient penalty and the rest of a step."""
    recipe = Recipe(r1_every=1)
    model = DCGAN(preset("default", recipe=recipe, **small))
    step = model.trainer._train_step

    def interrupted(x):
        if model.steps_done == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(x)

    monkeypatch.setattr(model.trainer, "_train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.train(zeros, tmp_path, progress=False)
    unbroken = DCGAN(preset("default", recipe=recipe, **{**small, "steps": 2}))
    unbroken.train(zeros, progress=False)
    restored = DCGAN.load(tmp_path)
    assert restored.steps_done == 2 and same_weights(unbroken, restored)


@pytest.mark.usefixtures("eager")
def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(zeros, small, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECK_EVERY", 2)
    model = DCGAN(preset("default", **small))
    update = model.trainer.update

    def poisoned(x):
        losses = update(x)
        if model.steps_done == 1:
            kernel = model.trainer.nets.generator.trainable_variables[0]
            kernel.assign(kernel * np.nan)
        return losses

    monkeypatch.setattr(model.trainer, "update", poisoned)
    with pytest.raises(training.TrainingFailed, match="step 2.*learning_rate"):
        model.train(zeros, tmp_path, progress=False)
    restored = DCGAN.load(tmp_path)
    assert restored.steps_done == 0
    assert all(np.isfinite(w).all() for w in weights_of(restored))


@pytest.mark.usefixtures("eager")
def test_nan_that_no_loss_shows_stops_the_run_before_it_is_saved(
    zeros, small, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "CHECK_EVERY", 1)
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    model = DCGAN(preset("default", **small))
    update = model.trainer.update

    def poisoned(x):
        losses = update(x)
        if model.steps_done == 2:
            bias = model.trainer.ema.encoder.trainable_variables[0]
            bias.assign(bias * np.nan)
        return losses

    monkeypatch.setattr(model.trainer, "update", poisoned)
    with pytest.raises(training.TrainingFailed, match="step 2"):
        model.train(zeros, tmp_path, progress=False)
    assert DCGAN.load(tmp_path).steps_done == 1


def test_collapse_stops_the_run(zeros, small, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECK_EVERY", 1)
    model = DCGAN(preset("default", **small))
    constant = np.zeros((64, 16, 16, 1), np.float32)

    def update(_):
        model.trainer.step.assign_add(1)
        return {"d_loss": 0.0}

    monkeypatch.setattr(model.trainer, "update", update)
    monkeypatch.setattr(model, "generate", lambda z: constant)
    with pytest.raises(training.TrainingFailed, match="collapsed"):
        model.train(zeros, tmp_path, progress=False)


@pytest.mark.usefixtures("eager")
def test_images_once_held_out_are_never_trained_on_whatever_is_added(
    zeros, small, tmp_path, monkeypatch
):
    """A run goes on with more images, of which some come first by name and some are gone."""
    names = [f"{i:03d}" for i in range(60)]
    images = ImageSet.from_array(zeros[:60], names)
    DCGAN(preset("default", **{**small, "steps": 1})).train(images, tmp_path, progress=False)
    model = DCGAN.load(tmp_path, steps=2)
    kept = set(model.images.held_out_names)
    assert 4 <= len(kept) <= 12 and len(model.images.held_out) == len(kept)
    assert model.images.changes(images.dated()) == []
    changed = zeros[:70].copy()
    changed[5] = 255
    more = ImageSet.from_array(changed[2:], [*names[2:], *(f"+{i}" for i in range(10))])
    [line] = model.images.changes(more.dated())
    assert "10 new, 2 missing, 1 changed" in line and "--epoch" in line
    seen = []
    stream = ImageSet.stream
    monkeypatch.setattr(
        ImageSet, "stream", lambda self, *a: seen.extend(self.names) or stream(self, *a)
    )
    model.train(more, tmp_path, progress=False)
    assert seen and not kept & set(seen) and set(names[2:]) - kept <= set(seen)
    assert kept - {"000", "001"} <= set(DCGAN.load(tmp_path).images.held_out_names)
    assert model.images.changes(more.dated()) == []


@pytest.mark.usefixtures("eager")
def test_images_kept_to_scale_scores_come_from_all_over_the_set(zeros, small):
    images = zeros.copy()
    images[90:] = 255 - images[90:]  # the second half is bright
    settings = {**small, "steps": 1, "validation_fraction": 0.3}
    model = DCGAN(preset("default", recipe=Recipe(held_out_kept=8), **settings))
    model.train(images, progress=False)
    assert len(model.images.held_out) == 8
    assert 1 <= sum(image.mean() > 100 for image in model.images.held_out) <= 7


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", ["images.npz", "images.json", "calibration.json"])
def test_truncated_files_beside_a_checkpoint_are_one_line_or_made_anew(
    trained_folder, tmp_path, name, caplog
):
    folder = tmp_path / "run"
    shutil.copytree(trained_folder, folder)
    DCGAN.load(folder).keep_calibration()
    (folder / name).write_bytes((folder / name).read_bytes()[:-7])
    if name == "calibration.json":
        assert DCGAN.load(folder).calibrate().normal_scores.threshold(0.05)
        assert "calibrating anew" in caplog.text
    else:
        with pytest.raises(UserError, match=f"{name} cannot be restored.*train again"):
            DCGAN.load(folder)


def test_linear_skips_start_from_principal_components(trained, zeros):
    from sklearn.decomposition import PCA

    seen = np.array(
        [i for i in zeros[:-50] if not (i == trained.images.held_out).all((1, 2, 3)).any()]
    )
    x = to_float(seen).reshape(len(seen), -1)
    pca = PCA(trained.config.z_dim, svd_solver="full").fit(x)
    queries = to_float(zeros[-5:])
    expected = pca.inverse_transform(pca.transform(queries.reshape(5, -1)))
    nets = networks.build(trained.config)
    set_linear_skips(to_float(seen), trained.config, nets)
    z = nets.encoder(queries)[:, : trained.config.z_dim]
    found = nets.generator(z, training=False).numpy().reshape(5, -1)
    expected = np.clip(expected, -1, 1)
    assert np.abs(found - expected).mean() < 0.4 * np.abs(expected - pca.mean_).mean()


@pytest.mark.usefixtures("eager")
def test_unexplained_variance_tells_a_fit_model_from_a_collapsed_one(trained_folder):
    model = DCGAN.load(trained_folder)
    assert 0 < model.inference.unexplained(model.images) < 0.7
    model.trainer.ema.generator.set_weights(
        [0 * w for w in model.trainer.ema.generator.get_weights()]
    )
    assert model.inference.unexplained(model.images) >= 1  # a grey image for all


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_image_is_no_normal_one(trained, value):
    blank = np.full((1, 16, 16, 1), value, np.uint8)
    assert trained.anomaly_detector(blank).score[0] > trained.calibrate().normal_scores.threshold(
        0.05
    )


def test_anomaly_map_shows_where_a_part_was_erased(trained, zeros):
    from anogan.evaluation.metrics import PixelMeasures

    images, measured = zeros[-40:].copy(), PixelMeasures(trained.calibrate().pixel_threshold())
    images[:, 2:7, 4:10] = 0
    for found, before, after in zip(
        trained.anomaly_detector(images).anomaly_map, zeros[-40:], images, strict=True
    ):
        measured.add(found, (before != after).any(-1))
    assert measured.measures()["pixel_auroc"] > 0.9


@pytest.mark.usefixtures("eager")
def test_what_normal_images_score_is_kept_with_the_checkpoint(trained_folder, monkeypatch):
    first = DCGAN.load(trained_folder)
    kept = first.keep_calibration()
    scores, pixel = kept.normal_scores, kept.pixel_threshold(0.1)
    assert len(scores.scores) == len(first.images.held_out)
    above = first.anomaly_detector(first.images.held_out).anomaly_map.max((1, 2)) > pixel
    assert above.mean() < 0.2
    again = DCGAN.load(trained_folder)
    monkeypatch.setattr(again.detector, "terms", None)  # nothing is scored again
    assert again.calibrate().normal_scores.threshold(0.01) == scores.threshold(0.01)
    assert again.calibrate().pixel_threshold(0.1) == pixel


@pytest.mark.usefixtures("eager")
def test_a_calibration_measures_all_in_batches_of_one_size(trained, monkeypatch):
    sizes, terms = [], trained.inference.terms
    monkeypatch.setattr(
        trained.inference, "terms", lambda *values: sizes.append(values[4]) or terms(*values)
    )
    trained.detector.calibrate(trained.images.held_out[:10], trained.search())
    assert sizes == [10, 10, 10]


@pytest.mark.usefixtures("eager")
def test_a_threshold_that_is_extrapolated_is_warned_of(trained, caplog):
    trained.threshold(0.1)
    assert not caplog.text
    trained.threshold(1e-4)
    assert "--target_fpr 0.0001 is finer than" in caplog.text


@pytest.mark.usefixtures("eager")
def test_training_images_add_to_the_threshold_where_few_images_are_held_out(trained_folder):
    model = DCGAN.load(trained_folder)
    few, (bank, far) = model.calibrate(), (model.detector.memory, model.images.seen_features)
    assert len(few.alone) == len(model.images.seen) == len(far) and None not in far
    # as far from the others as held-out images are from all, on average
    assert np.mean(few.alone) == pytest.approx(np.mean(few.banks), abs=np.std(few.banks))
    memory = bank_alone(model.images.seen, bank.recipe)
    alone = few.by_banks({"memory": memory, "features": np.array(far)})
    np.testing.assert_allclose(few.alone, alone, atol=1e-3)
    assert "training images, each left out" in few.normal_scores.images
    without = Detector(model.inference, model.images.seen, model.detector.feature_bank)
    plain = without.calibrate(model.images.held_out, model.search())
    assert plain.scores == pytest.approx(few.scores, abs=1e-3)
    assert plain.alone == plain.banks == () and plain.tail == NormalScores(plain.scores).tail


@pytest.mark.usefixtures("eager")
def test_where_enough_images_are_held_out_training_images_add_nothing(trained_folder, monkeypatch):
    model = DCGAN.load(trained_folder)
    monkeypatch.setattr(detector, "FEW", range(10, len(model.images.held_out)))
    known = model.detector.calibrate(model.images.held_out, model.search())
    assert known.alone == () and known.tail == NormalScores(known.scores).tail


@pytest.mark.usefixtures("eager")
def test_a_calibration_of_other_weights_or_images_is_not_taken(trained_folder):
    model = DCGAN.load(trained_folder)
    kept = model.keep_calibration()
    assert model.calibrate() is kept
    weights = model.trainer.ema.generator.get_weights()
    model.trainer.ema.generator.set_weights([0.9 * w for w in weights])
    assert model.calibrate().scores != kept.scores
    model.trainer.ema.generator.set_weights(weights)
    model.images = dataclasses.replace(model.images, held_out=model.images.held_out[::-1][:9])
    assert len(model.calibrate().scores) == 9


def test_a_loaded_model_scores_as_the_saved_one(trained_folder, trained, queries):
    again = DCGAN.load(trained_folder)
    images = queries[0][:8]
    np.testing.assert_array_equal(
        again.anomaly_detector(images).score, trained.anomaly_detector(images).score
    )


def test_a_damaged_checkpoint_is_one_clear_line(trained_folder, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained_folder, folder)
    for path in folder.glob("*.data-*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be restored"):
        DCGAN.load(folder)


def test_a_folder_without_a_run_says_so(tmp_path):
    with pytest.raises(UserError, match="no trained model"):
        DCGAN.load(tmp_path)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    "size", [(16, 16, 1), (17, 45, 3), (64, 30, 1), (28, 28, 1), (100, 256, 3)]
)
def test_any_size_is_drawn_and_read(size):
    h, w, c = size
    config = preset("default", height=h, width=w, channels=c, z_dim=4, gf_dim=2, df_dim=2)
    model = DCGAN(config)
    images = model.generate(model.fixed_latents(2))
    assert images.shape == (2, h, w, c)
    seen = to_uint8(images)
    known, _ = fit_features(ImageSet.from_array(seen), model.pretrained, config)
    model.images = dataclasses.replace(model.images, seen=seen, features=known)
    found = model.anomaly_detector(to_uint8(images), model.search("gradient", 1))
    assert found.residual_map.shape == (2, h, w)


@pytest.mark.usefixtures("eager")
def test_classic_preset_scores_with_the_papers_sums(zeros, small):
    small = {k: v for k, v in small.items() if k != "z_dim"}
    model = DCGAN(preset("classic", **{**small, "steps": 2}))
    model.train(zeros, progress=False)
    x = zeros[:4]
    found = model.anomaly_detector(x, model.search(steps=3))
    residual = np.abs(to_float(x) - found.reconstruction).sum((1, 2, 3))
    features = [model.inference.features(i) for i in (to_float(x), found.reconstruction)]
    discrimination = np.abs(features[0] - features[1]).sum(1)
    np.testing.assert_allclose(found.terms["residual"], residual, rtol=1e-4)
    np.testing.assert_allclose(found.terms["discrimination"], discrimination, rtol=1e-4)
    np.testing.assert_allclose(found.score, 0.9 * residual + 0.1 * discrimination, rtol=1e-4)
    assert model.config.z_dim == 100 and model.trainer.nets.encoder is None


def test_a_search_that_needs_an_encoder_is_refused_without_one(small):
    small = {k: v for k, v in small.items() if k != "z_dim"}
    model = DCGAN(preset("classic", **small))
    with pytest.raises(UserError, match="encoder"):
        model.anomaly_detector(np.zeros((1, 16, 16, 1), np.uint8), "hybrid")


@pytest.mark.parametrize("search", SEARCHES)
def test_scores_are_those_of_a_plain_float32_reference(networks_alone, queries, search):
    from scipy.stats import spearmanr

    from benchmarks.agreement import reference

    (images, labels), model = queries, networks_alone()
    plain = reference(model, images, search)
    found = model.anomaly_detector(images, search).score
    assert spearmanr(plain, found)[0] > 0.999
    assert abs(roc_auc_score(labels, plain) - roc_auc_score(labels, found)) < 0.002


def test_search_compiled_by_xla_finds_the_same_latents(trained, queries):
    import tensorflow as tf

    x = to_float(queries[0][:6])
    start, weights = (
        trained.inference.encode(x),
        [np.float32(w) for w in trained.calibrate().search_weights],
    )
    way = x, start, 5, np.float32(0.1), *weights
    z, losses = trained.inference.search(*way)
    compiled = tf.function(trained.inference.search_batch, jit_compile=True)
    for mine, theirs in zip((z, losses), compiled(*way), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3)
    assert losses.shape == (6, 6)


@pytest.mark.parametrize("search", LONG_IS_SLOW)
def test_bfloat16_scores_agree_in_rank_with_float32(networks_alone, queries, search):
    from scipy.stats import spearmanr

    images, labels = queries
    exact, rough = (
        networks_alone(precision).anomaly_detector(images, search).score
        for precision in ("float32", "mixed_bfloat16")
    )
    assert spearmanr(exact, rough)[0] > 0.995
    assert (exact != rough).any()  # the precision was heeded
    assert abs(roc_auc_score(labels, exact) - roc_auc_score(labels, rough)) < 0.002


@pytest.mark.parametrize(
    "words, precision",
    [
        ("GenuineIntel avx512f amx_bf16 avx512_bf16", "mixed_bfloat16"),
        ("GenuineIntel avx512f avx512_bf16", "float32"),
        ("AuthenticAMD avx512f avx512_bf16", "mixed_bfloat16"),
        ("AuthenticAMD avx2", "float32"),
        (None, "float32"),
    ],
)
def test_auto_precision_is_bfloat16_where_it_is_faster(tmp_path, monkeypatch, words, precision):
    path = tmp_path / "cpuinfo"
    if words:
        path.write_text(f"vendor and flags: {words}")
    monkeypatch.setattr(distributed, "CPU_INFO", path)
    assert distributed.resolve_precision("auto") == precision
    assert distributed.resolve_precision("float32") == "float32"


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_training_on_arrays_or_image_sets_is_the_same(zeros, small):
    config = Config(**{**small, "steps": 2})
    a = DCGAN(config).train(zeros, progress=False)
    b = DCGAN(config).train(ImageSet.from_array(zeros), progress=False)
    assert same_weights(a, b)
    assert model_module.DCGAN is DCGAN


@pytest.mark.usefixtures("eager")
def test_copies_of_trained_images_do_not_lower_the_threshold(zeros, small, caplog):
    twice = np.concatenate([zeros[:90], zeros[:30]])
    model = DCGAN(preset("default", **{**small, "steps": 1, "validation_fraction": 0.25}))
    model.train(twice, progress=False)
    seen = {image.tobytes() for image in model.images.seen}
    held_out = [image.tobytes() for image in model.images.held_out]
    assert len(seen) == len(model.images.seen) and not seen & set(held_out)
    assert len(held_out) > 0 and "copies" in caplog.text
