"""The three networks: generator G, discriminator D and encoder E, for any image size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from anogan.config import Config
from ops import BatchNorm, Conv, ConvTranspose, Refine, conv_transpose, convolution

SMALLEST = 4  # no stage makes the shorter side smaller than this, pixels
SKIP, FIRST_MAP = "linear_skip", "first_map"
WIDEST = 8  # channels grow up to this many times the first stage's


@dataclass(frozen=True)
class Networks:
    """What a model is made of; E is None where the recipe has none."""

    generator: keras.Model
    discriminator: keras.Model
    encoder: keras.Model | None

    def trained(self) -> dict[str, keras.Model]:
        """Those that training changes, by name."""
        nets = {"generator": self.generator, "discriminator": self.discriminator}
        return {**nets, "encoder": self.encoder} if self.encoder else nets


def build(config: Config, dtype: Any = None) -> Networks:
    """New networks; dtype: a Keras policy."""
    return Networks(
        generator(config, dtype),
        discriminator(config, dtype),
        encoder(config, dtype) if config.recipe.encoder else None,
    )


def copied(nets: Networks, config: Config, dtype: Any = None) -> Networks:
    """Networks of their own with the same weights."""
    kinds = {"generator": generator, "discriminator": discriminator, "encoder": encoder}
    copies = {}
    for name, net in nets.trained().items():
        copies[name] = kinds[name](config, dtype)
        copies[name].set_weights(net.get_weights())
    return Networks(**{"encoder": None, **copies})


def stage_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes of the feature maps from the image down, halved (rounded up) at each stage."""
    sizes = [(height, width)]
    while min(sizes[-1]) > SMALLEST:
        h, w = sizes[-1]
        sizes.append(((h + 1) // 2, (w + 1) // 2))
    return sizes


def stage_widths(first: int, stages: int) -> list[int]:
    """Channels of each stage, doubling from the image inwards."""
    return [first * min(2**i, WIDEST) for i in range(stages)]


def _batch_norm(config: Config, dtype: Any) -> keras.layers.Layer:
    return BatchNorm(
        momentum=config.recipe.norm_momentum,
        epsilon=1.001e-5,  # the fused operation's smallest
        synchronized=tf.distribute.get_strategy().num_replicas_in_sync > 1,
        dtype=dtype,
    )


def _initializer(config: Config, otherwise: type) -> keras.initializers.Initializer:
    stddev = config.recipe.init_stddev
    return keras.initializers.RandomNormal(stddev=stddev) if stddev else otherwise()


def generator(config: Config, dtype: Any = None) -> keras.Model:
    """G: latents (b, z_dim) -> images (b, h, w, c) in [-1, 1], float32.

    Dense, then 5x5 stride-2 transposed convolutions with batch norm and ReLU, tanh at the end
    (Radford et al. 2016, section 3).
    """
    sizes = stage_sizes(*config.net_shape[:2])
    widths = stage_widths(config.gf_dim, len(sizes) - 1)
    h, w = sizes[-1]
    z = keras.Input((config.z_dim,), name="z")
    x = keras.layers.Dense(
        h * w * widths[-1],
        use_bias=False,
        kernel_initializer=_initializer(config, keras.initializers.GlorotNormal),
        dtype=dtype,
    )(z)
    x = keras.layers.Reshape((h, w, widths[-1]), dtype=dtype, name=FIRST_MAP)(x)
    for size, filters in zip(sizes[-2:0:-1], widths[-2::-1], strict=True):
        x = keras.layers.ReLU(dtype=dtype)(_batch_norm(config, dtype)(x))
        x = ConvTranspose(
            filters,
            size,
            use_bias=False,
            initializer=_initializer(config, keras.initializers.GlorotNormal),
            dtype=dtype,
        )(x)
    x = keras.layers.ReLU(dtype=dtype)(_batch_norm(config, dtype)(x))
    initializer = _initializer(config, keras.initializers.GlorotNormal)
    if config.recipe.linear_skip:  # a PCA is added, a good start: the rest begins small
        initializer = keras.initializers.RandomNormal(stddev=0.005)
    x = ConvTranspose(config.channels, sizes[0], initializer=initializer, dtype=dtype)(x)
    if config.recipe.linear_skip:
        linear = _linear_skip(int(np.prod(config.net_shape)))(z)
        x = keras.layers.Add(dtype="float32")([x, keras.layers.Reshape(config.net_shape)(linear)])
    return keras.Model(z, keras.layers.Activation("tanh", dtype="float32")(x), name="generator")


def _linear_skip(units: int) -> keras.layers.Layer:
    """Set to a principal component analysis of the training images, and not trained."""
    return keras.layers.Dense(
        units, kernel_initializer="zeros", trainable=False, dtype="float32", name=SKIP
    )


def _convolutions(config: Config, x: tf.Tensor, filters: int, batch_norm: bool, dtype: Any) -> list:
    """5x5 stride-2 convolutions with LeakyReLU down to the smallest size; each stage's map."""
    stages = []
    count = len(stage_sizes(*config.net_shape[:2])) - 1
    for i, width in enumerate(stage_widths(filters, count)):
        initializer = _initializer(config, keras.initializers.HeNormal)
        x = Conv(width, kernel_initializer=initializer, dtype=dtype)(x)
        if batch_norm and i > 0:
            x = _batch_norm(config, dtype)(x)
        x = keras.layers.LeakyReLU(config.recipe.slope, dtype=dtype)(x)
        stages.append(x)
    return stages


def discriminator(config: Config, dtype: Any = None) -> keras.Model:
    """D: images (b, h, w, c) -> [logits (b, 1) float32, features f of the last convolution].

    With synthetic anomalies a U-Net (Schönfeld et al. 2020, section 3.1), whose third output are
    the pixels' logits (b, (h + 1) // 2, (w + 1) // 2, 1) float32, low where the image is abnormal.
    """
    image = keras.Input(config.net_shape, name="image")
    recipe = config.recipe
    stages = _convolutions(config, image, config.df_dim, recipe.d_batch_norm, dtype)
    flat = keras.layers.Flatten(dtype=dtype)(stages[-1])
    outputs = [keras.layers.Dense(1, dtype="float32")(flat), flat]
    if recipe.synthetic_anomalies:
        pixels = _pixels(stages, recipe.slope, dtype)
        outputs.append(keras.layers.Activation("linear", dtype="float32")(pixels))
    return keras.Model(image, outputs, name="discriminator")


def _pixels(stages: list, slope: float, dtype: Any) -> tf.Tensor:
    """The U-Net's way back up: a logit for each place of the first stage's map.

    The coarser map by a 1x1 convolution to the finer one's channels, enlarged, and added to it.
    """
    x = stages[-1]
    for skip in stages[-2::-1]:
        x = keras.layers.UpSampling2D(dtype=dtype)(Refine(skip.shape[-1], 1, dtype=dtype)(x))
        extra = [(0, x.shape[axis] - skip.shape[axis]) for axis in (1, 2)]
        x = keras.layers.Cropping2D(extra, dtype=dtype)(x)
        x = keras.layers.Add(dtype=dtype)([x, skip])
        if skip is not stages[0]:  # there it would take as long as all the rest
            x = Refine(skip.shape[-1], 3, dtype=dtype)(x)
        x = keras.layers.LeakyReLU(slope, dtype=dtype)(x)
    return Refine(1, 3, dtype=dtype)(x)


def encoder(config: Config, dtype: Any = None) -> keras.Model:
    """E: images (b, h, w, c) -> mean and log variance of z, (b, 2 z_dim) float32."""
    image = keras.Input(config.net_shape, name="image")
    features = _convolutions(config, image, config.df_dim, True, dtype)[-1]
    x = keras.layers.Flatten(dtype=dtype)(features)
    x = keras.layers.Dense(2 * config.z_dim, kernel_initializer="zeros", dtype="float32")(x)
    if config.recipe.linear_skip:
        linear = _linear_skip(2 * config.z_dim)(keras.layers.Flatten(dtype="float32")(image))
        x = keras.layers.Add(dtype="float32")([x, linear])
    return keras.Model(image, x, name="encoder")


def frozen_generator(net: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """G in inference mode as plain operations, with batch-norm folding: z -> images.

    The same function as net(z, training=False), of the weights at the time of the call; faster
    where it is called often, as in the latent search. Computes in the net's precision.
    """
    stages = _folded(net.layers)

    def generate(z: tf.Tensor) -> tf.Tensor:
        x = tf.cast(z, stages[0][1].dtype)
        for layer, kernel, bias in stages:
            if isinstance(layer, ConvTranspose):
                x = conv_transpose(x, kernel, layer.size) + bias
            else:
                x = tf.matmul(x, kernel) + bias
                x = tf.reshape(x, (-1, *net.get_layer(FIRST_MAP).target_shape))
            if layer is not stages[-1][0]:
                x = tf.nn.relu(x)
        x = tf.cast(x, tf.float32)
        if skip is not None:
            x += tf.reshape(tf.matmul(z, skip[0]) + skip[1], tf.shape(x))
        return tf.tanh(x)

    linear = [layer for layer in net.layers if layer.name == SKIP]
    skip = [tf.convert_to_tensor(w) for w in linear[0].weights] if linear else None
    return generate


def frozen_features(net: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """D's features in inference mode, as frozen_generator: images -> (b, n) float32."""
    encoding = (Conv, keras.layers.BatchNormalization)
    stages = _folded([layer for layer in net.layers if isinstance(layer, encoding)])
    slope = next(n.negative_slope for n in net.layers if isinstance(n, keras.layers.LeakyReLU))

    def features(images: tf.Tensor) -> tf.Tensor:
        x = tf.cast(images, stages[0][1].dtype)
        for _, kernel, bias in stages:
            x = tf.nn.leaky_relu(convolution(x, kernel) + bias, slope)
        return tf.cast(tf.reshape(x, (tf.shape(x)[0], -1)), tf.float32)

    return features


def _folded(layers: list[keras.layers.Layer]) -> list:
    """(layer, kernel, bias) of each dense or convolutional layer, with the batch norm after it."""
    stages: list[tuple[Any, Any, Any]] = []
    for layer in layers:
        if layer.name == SKIP:
            continue
        if isinstance(layer, keras.layers.BatchNormalization):
            before, kernel, bias = stages[-1]
            scale = layer.gamma / tf.sqrt(layer.moving_variance + layer.epsilon)
            shift = layer.beta - layer.moving_mean * scale
            if isinstance(before, ConvTranspose):
                kernel *= scale[:, None]
            else:
                repeats = kernel.shape[-1] // scale.shape[0]  # dense: a channel at each place
                scale, shift = tf.tile(scale, [repeats]), tf.tile(shift, [repeats])
                kernel *= scale
            stages[-1] = before, kernel, bias * scale + shift
        elif layer.weights:
            kernel = tf.convert_to_tensor(layer.kernel)
            bias = layer.bias if getattr(layer, "use_bias", True) else 0.0
            stages.append((layer, kernel, tf.convert_to_tensor(bias)))
    return [
        (layer, *(tf.cast(w, layer.compute_dtype) for w in weights)) for layer, *weights in stages
    ]
