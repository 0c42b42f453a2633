"""The three networks: generator G, discriminator D and encoder E, for any image size."""

from __future__ import annotations

import keras

from config import Config
from ops import ConvTranspose

KERNEL = 5
SMALLEST = 4  # no stage makes the shorter side smaller than this, pixels
WIDEST = 8  # channels grow up to this many times the first stage's


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


def _batch_norm(config: Config, dtype) -> keras.layers.Layer:
    # The short runs of a laptop need moving averages that follow within some hundred steps.
    return keras.layers.BatchNormalization(momentum=config.norm_momentum, epsilon=1e-5, dtype=dtype)


def _initializer(config: Config, otherwise):
    if config.init_stddev:
        return keras.initializers.RandomNormal(stddev=config.init_stddev)
    return otherwise()


def generator(config: Config, dtype=None) -> keras.Model:
    """G: latents (b, z_dim) -> images (b, h, w, c) in [-1, 1], float32.

    Dense, then 5x5 stride-2 transposed convolutions with batch norm and ReLU, tanh at the end
    (Radford et al. 2016, section 3).
    """
    sizes = stage_sizes(config.height, config.width)
    widths = stage_widths(config.gf_dim, len(sizes) - 1)
    h, w = sizes[-1]
    z = keras.Input((config.z_dim,), name="z")
    x = keras.layers.Dense(
        h * w * widths[-1],
        use_bias=False,
        kernel_initializer=_initializer(config, keras.initializers.GlorotNormal),
        dtype=dtype,
    )(z)
    x = keras.layers.Reshape((h, w, widths[-1]), dtype=dtype)(x)
    for size, filters in zip(sizes[-2:0:-1], widths[-2::-1], strict=True):
        x = keras.layers.ReLU(dtype=dtype)(_batch_norm(config, dtype)(x))
        x = ConvTranspose(
            filters,
            KERNEL,
            size,
            use_bias=False,
            initializer=_initializer(config, keras.initializers.GlorotNormal),
            dtype=dtype,
        )(x)
    x = keras.layers.ReLU(dtype=dtype)(_batch_norm(config, dtype)(x))
    x = ConvTranspose(
        config.channels,
        KERNEL,
        sizes[0],
        initializer=_initializer(config, keras.initializers.GlorotNormal),
        dtype=dtype,
    )(x)
    return keras.Model(z, keras.layers.Activation("tanh", dtype="float32")(x), name="generator")


def _convolutions(config: Config, x, filters: int, batch_norm, dtype) -> list:
    """5x5 stride-2 convolutions with LeakyReLU 0.2 down to the smallest size; each stage's map."""
    stages = []
    count = len(stage_sizes(config.height, config.width)) - 1
    for i, width in enumerate(stage_widths(filters, count)):
        x = keras.layers.Conv2D(
            width,
            KERNEL,
            2,
            "same",
            kernel_initializer=_initializer(config, keras.initializers.HeNormal),
            dtype=dtype,
        )(x)
        if batch_norm and i > 0:
            x = _batch_norm(config, dtype)(x)
        x = keras.layers.LeakyReLU(0.2, dtype=dtype)(x)
        stages.append(x)
    return stages


def discriminator(config: Config, dtype=None) -> keras.Model:
    """D: images (b, h, w, c) -> [logits (b, 1) float32, features f of the last convolution]."""
    image = keras.Input((config.height, config.width, config.channels), name="image")
    features = _convolutions(config, image, config.df_dim, config.d_batch_norm, dtype)[-1]
    flat = keras.layers.Flatten(dtype=dtype)(features)
    logits = keras.layers.Dense(1, dtype="float32")(flat)
    return keras.Model(image, [logits, flat], name="discriminator")


def encoder(config: Config, dtype=None) -> keras.Model:
    """E: images (b, h, w, c) -> mean and log variance of z, (b, 2 z_dim) float32."""
    image = keras.Input((config.height, config.width, config.channels), name="image")
    features = _convolutions(config, image, config.df_dim, True, dtype)[-1]
    flat = keras.layers.Flatten(dtype=dtype)(features)
    return keras.Model(
        image, keras.layers.Dense(2 * config.z_dim, dtype="float32")(flat), name="encoder"
    )
