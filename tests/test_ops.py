"""Layers, losses and planted damage against hand-computed cases."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import ops
from anogan.config import preset
from anogan.method import networks
from anogan.method.latent_search import Weights, nearest_start, search_latents

pytestmark = pytest.mark.unit


def both_convolutions(size, channels, dtype=tf.float32):
    """(x, kernel, y): y as large as a convolution of x."""
    rng, (h, w) = np.random.default_rng(0), size
    shapes = (3, h, w, channels), (5, 5, channels, 6), (3, (h + 1) // 2, (w + 1) // 2, 6)
    return [tf.constant(rng.normal(size=shape), dtype) for shape in shapes]


SIZES = [(8, 12), (7, 9), (6, 7), (40, 38)]


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("size", SIZES)
def test_convolutions_and_their_gradients_are_tensorflows(size, channels):
    x, kernel, y = both_convolutions(size, channels)
    pairs = [
        (ops.convolution, lambda x, k: tf.nn.conv2d(x, k, 2, "SAME"), x),
        (
            lambda y, k: ops.conv_transpose(y, k, size),
            lambda y, k: tf.nn.conv2d_transpose(y, k, x.shape, 2),
            y,
        ),
    ]
    for mine, plain, start in pairs:
        found = []
        for function in (mine, plain):
            with tf.GradientTape() as outer:
                outer.watch([start, kernel])
                with tf.GradientTape() as inner:
                    inner.watch(start)
                    result = function(start, kernel)
                    loss = tf.reduce_sum(tf.sin(result))
                penalty = tf.reduce_sum(tf.square(inner.gradient(loss, start)))
            found.append([result, *outer.gradient([loss, penalty], [start, kernel])])
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("size", SIZES)
def test_convolutions_and_gradients_in_bfloat16_are_rounded_but_once(size, channels):
    """A product of two bfloat16 numbers, 8 bits each, is exact in float32's 24.

    So a sum of n of them in float32, in any order, is off by less than n 2^-24 sum |a b|, and its
    nearest bfloat16 number by 2^-8 of it more. In bfloat16 each term would add 2^-8 of the sum.
    """
    x, kernel, y = (tf.cast(t, tf.bfloat16) for t in both_convolutions(size, channels))
    pairs = [
        (ops.convolution, lambda x, k: tf.nn.conv2d(x, k, 2, "SAME"), x, y),
        (
            lambda y, k: ops.conv_transpose(y, k, size),
            lambda y, k: tf.nn.conv2d_transpose(y, k, x.shape, 2),
            y,
            x,
        ),
    ]

    def result_and_gradients(function, a, kernel, dy):
        with tf.GradientTape() as tape:
            tape.watch([a, kernel])
            result = function(a, kernel)
        return [result, *tape.gradient(result, [a, kernel], dy)]

    for mine, plain, a, dy in pairs:
        found = result_and_gradients(mine, a, kernel, dy)
        given = [tf.cast(t, tf.float64) for t in (a, kernel, dy)]
        exact = result_and_gradients(plain, *given)
        sizes = result_and_gradients(plain, *(tf.abs(t) for t in given))
        terms = result_and_gradients(plain, *(tf.ones_like(t) for t in given))
        for f, e, s, n in zip(found, exact, sizes, terms, strict=True):
            assert f.dtype == tf.bfloat16
            in_float32 = 2**-24 * n * s
            bound = in_float32 + 2**-8 * (tf.abs(e) + in_float32)
            assert tf.reduce_all(tf.abs(tf.cast(f, tf.float64) - e) <= bound)


@pytest.mark.parametrize("layer", [ops.Conv(2), ops.ConvTranspose(2, (40, 38))])
def test_a_bias_in_bfloat16_has_the_sum_of_all_places_for_its_gradient(layer):
    layer.dtype_policy = "mixed_bfloat16"
    x = tf.ones((3, 20, 19, 4))
    layer(x)
    with tf.GradientTape() as tape:
        y = layer(x)
        loss = tf.reduce_sum(tf.cast(y, tf.float32))
    assert y.dtype == tf.bfloat16
    places = np.prod(y.shape[:3])
    found = tape.gradient(loss, layer.bias.value)
    np.testing.assert_allclose(found, [places] * 2, rtol=2**-8)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_keras(training):
    x = tf.constant(np.random.default_rng(0).normal(2, 3, (4, 3, 3, 5)), tf.float32)
    layers = [
        kind(momentum=0.9, epsilon=1.001e-5)
        for kind in (ops.BatchNorm, keras.layers.BatchNormalization)
    ]
    for layer in layers:
        layer.build(x.shape)
        layer.set_weights([np.linspace(0.5, 1.5, 5) + i for i in range(4)])
    found = []
    for layer in layers:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(tf.sin(y))
        wanted = [x, layer.gamma.value, layer.beta.value]
        found.append([y, *tape.gradient(loss, wanted), *layer.get_weights()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_distance_sums_absolutes_or_squares_of_each_image():
    a, b = np.array([[0.0, 1.0], [2.0, -1.0]]), np.array([[1.0, -1.0], [2.0, 2.0]])
    np.testing.assert_allclose(ops.distance(a, b, squared=False), [3, 3])
    np.testing.assert_allclose(ops.distance(a, b, squared=True), [5, 9])


def test_select_is_where_for_any_shapes():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 5, 4, 2)).astype(np.float32)
    for shape in ((3, 1, 1, 1), (3, 5, 4, 1), (3, 5, 4, 2)):
        chosen = rng.uniform(size=shape) < 0.5
        assert (ops.select(chosen, a, b).numpy() == np.where(chosen, a, b)).all()


def test_losses_at_known_logits():
    zero = tf.zeros((4, 1))
    assert float(ops.discriminator_loss(zero, zero)) == pytest.approx(2 * np.log(2))
    assert float(ops.generator_loss(zero)) == pytest.approx(np.log(2))
    sure = tf.fill((4, 1), 20.0)
    assert float(ops.discriminator_loss(sure, -sure)) < 1e-6
    assert float(ops.generator_loss(sure)) < 1e-6


def test_gradient_penalty_of_a_linear_discriminator_is_its_squared_norm():
    weight = tf.constant([[3.0], [4.0]])
    penalty = ops.gradient_penalty(lambda x, training: [tf.matmul(x, weight)], tf.ones((5, 2)))
    assert float(penalty) == pytest.approx(25.0)


def test_kl_is_zero_for_the_prior_and_half_the_square_of_the_mean():
    mean = tf.constant([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(ops.kl_divergence(mean, tf.zeros((2, 2))), [0, 12.5])


def test_smoothing_is_scipys_gaussian():
    from scipy.ndimage import gaussian_filter

    maps = np.random.default_rng(0).random((2, 20, 15)).astype(np.float32)
    expected = [gaussian_filter(m, 1.5, mode="nearest", radius=4) for m in maps]
    np.testing.assert_allclose(ops.smooth(tf.constant(maps), 1.5), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16, 1), (30, 45, 3)])
@pytest.mark.parametrize("name", ["default", "classic"])
def test_frozen_nets_are_the_same_functions(name, size):
    height, width, channels = size
    config = preset(name, height=height, width=width, channels=channels, gf_dim=4, df_dim=4)
    generator, discriminator = networks.generator(config), networks.discriminator(config)
    rng = np.random.default_rng(0)
    for net in (generator, discriminator):
        net.set_weights([np.abs(w + 0.1 * rng.normal(size=w.shape)) for w in net.get_weights()])
    z = rng.normal(size=(3, config.z_dim)).astype(np.float32)
    images = generator(z, training=False)
    frozen = networks.frozen_generator(generator)(tf.constant(z))
    np.testing.assert_allclose(frozen, images, atol=1e-4)
    features = networks.frozen_features(discriminator)(images)
    expected = discriminator(images, training=False)[1]
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)


def test_frozen_nets_compute_in_the_precision_of_the_nets(monkeypatch):
    """Else the search would be in float32 whatever the user or the hardware asked for."""
    monkeypatch.setattr(ops, "_rounds_sums", lambda: False)  # as where bfloat16 is of use
    config = preset("default", height=16, width=16, channels=1, gf_dim=4, df_dim=4)
    for precision in ("float32", "bfloat16"):
        policy = "mixed_bfloat16" if precision == "bfloat16" else precision

        def run(z, policy=policy):
            dtype = keras.DTypePolicy(policy)
            images = networks.frozen_generator(networks.generator(config, dtype))(z)
            return networks.frozen_features(networks.discriminator(config, dtype))(images)

        with tf.Graph().as_default() as graph:
            run(tf.zeros((2, config.z_dim)))
        kinds = {"Conv2D", "Conv2DBackpropInput"}
        computed = {op.outputs[0].dtype.name for op in graph.get_operations() if op.type in kinds}
        assert computed == {precision}


def test_search_finds_the_latent_of_a_linear_generator():
    matrix = tf.constant(np.random.default_rng(0).normal(size=(3, 12)), tf.float32)

    def generator(z):
        return tf.reshape(tf.matmul(z, matrix), (-1, 2, 2, 3))

    def features(x):
        return tf.reshape(x, (-1, 12))

    z = tf.constant([[1.0, -0.5, 0.3], [0.2, 0.9, -1.4]])
    run = tf.function(search_latents)
    weights = Weights(1.0, 0.5, 0.0, True)
    steps, betas = (300, 0.1, weights), (0.9, 0.99)
    found, losses = run(generator, features, generator(z), tf.zeros((2, 3)), *steps, betas)
    np.testing.assert_allclose(found, z, atol=1e-2)
    assert losses.shape == (2, 301) and (losses[:, -1].numpy() < 1e-2).all()


def test_nearest_start_is_the_latent_of_the_closest_sample():
    pool_z = tf.constant([[0.0], [1.0], [2.0]])
    pool = tf.constant([-1.0, 0.0, 1.0])[:, None, None, None] * tf.ones((3, 2, 2, 1))
    x = tf.constant([0.9, -0.2, -0.8])[:, None, None, None] * tf.ones((3, 2, 2, 1))
    np.testing.assert_array_equal(nearest_start(x, pool_z, pool), [[2.0], [1.0], [0.0]])


def test_depth_follows_the_size():
    assert networks.stage_sizes(28, 28) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert networks.stage_sizes(64, 64)[-1] == (4, 4)
    assert networks.stage_sizes(16, 30) == [(16, 30), (8, 15), (4, 8)]
    assert networks.stage_widths(16, 6) == [16, 32, 64, 128, 128, 128]


def test_classic_nets_are_those_of_the_paper():
    config = preset("classic", height=64, width=64, channels=3)
    g, d = networks.generator(config), networks.discriminator(config)
    assert g.input_shape == (None, 100) and g.layers[1].units == 4 * 4 * 512
    kinds = [type(layer).__name__ for layer in d.layers]
    assert kinds.count("Conv") == 4 and kinds.count("BatchNorm") == 3
    assert [n.filters for n in d.layers if hasattr(n, "filters")] == [64, 128, 256, 512]
    assert [n.filters for n in g.layers if hasattr(n, "filters")] == [256, 128, 64, 3]
