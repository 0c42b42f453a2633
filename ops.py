"""Layers, losses and scores: tensors in, tensors out."""

from __future__ import annotations

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("anogan")
class ConvTranspose(keras.layers.Layer):
    """Stride-2 transposed convolution to an exact (height, width), odd sizes too.

    It's the gradient of a stride-2 "SAME" convolution, so D's sizes are met on the way back.
    """

    def __init__(self, filters, kernel, size, use_bias=True, initializer=None, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.size = filters, kernel, tuple(size)
        self.use_bias, self.initializer = use_bias, initializer

    def build(self, input_shape):
        k = self.kernel_size
        self.kernel = self.add_weight(
            shape=(k, k, self.filters, input_shape[-1]), initializer=self.initializer, name="kernel"
        )
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, x):
        shape = (tf.shape(x)[0], *self.size, self.filters)
        x = tf.nn.conv2d_transpose(x, tf.convert_to_tensor(self.kernel), shape, strides=2)
        return x + tf.convert_to_tensor(self.bias) if self.use_bias else x

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.size, self.filters)


def discriminator_loss(real_logits, fake_logits):
    """Cross entropy of D on real and generated images (Goodfellow et al. 2014, equation 1)."""
    return tf.reduce_mean(tf.nn.softplus(-real_logits)) + tf.reduce_mean(
        tf.nn.softplus(fake_logits)
    )


def generator_loss(fake_logits):
    """The non-saturating loss of G (Goodfellow et al. 2014, section 3)."""
    return tf.reduce_mean(tf.nn.softplus(-fake_logits))


def gradient_penalty(discriminator, images):
    """R1: mean squared norm of D's gradient at real images (Mescheder et al. 2018, equation 9)."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = tf.reduce_sum(discriminator(images, training=True)[0])
    return tf.reduce_mean(sum_per_image(tape.gradient(logits, images) ** 2))


def kl_divergence(mean, log_variance):
    """KL(N(mean, variance) || N(0, 1)) summed over z, (b, z_dim) -> (b,), nats."""
    return 0.5 * tf.reduce_sum(mean**2 + tf.exp(log_variance) - 1.0 - log_variance, axis=1)


def sum_per_image(x):
    """(b, ...) -> (b,) float32 sums."""
    return tf.reduce_sum(tf.cast(tf.reshape(x, (tf.shape(x)[0], -1)), tf.float32), axis=1)


def distance(a, b, squared):
    """Sum over all but the first axis of |a - b|, or of its square: (b, ...) -> (b,) float32.

    Between images it's the residual loss, between features of D the discrimination loss
    (Schlegl et al. 2017, equations 3 and 5, which take the absolute value).
    """
    difference = tf.cast(a, tf.float32) - tf.cast(b, tf.float32)
    return sum_per_image(tf.square(difference) if squared else tf.abs(difference))


def residual_map(images, reconstructions):
    """|x - G(z)|, mean over channels: (b, h, w, c) in [-1, 1] -> (b, h, w) in [0, 2]."""
    return tf.reduce_mean(tf.abs(images - reconstructions), axis=-1)


def damage(images, seed):
    """Real images with local damage: a random rectangle is filled or pasted over.

    (b, h, w, c) in [-1, 1] -> the damaged images. The filling is one of the image's own values
    or a piece of another image of the batch, moved (cut and paste as in Li et al. 2021).
    seed: (2,) integers; the same seed gives the same damage.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 7))
    b, h, w = tf.shape(images)[0], images.shape[1], images.shape[2]

    def stripe(length, size_seed, centre_seed):
        size = tf.random.stateless_uniform([b, 1], size_seed, length / 7.0, length * 4.0 / 7.0)
        centre = tf.random.stateless_uniform([b, 1], centre_seed, 0.0, float(length))
        return tf.abs(tf.range(length, dtype=tf.float32)[None] + 0.5 - centre) < size / 2.0

    rows, columns = stripe(h, seeds[0], seeds[1]), stripe(w, seeds[2], seeds[3])
    inside = (rows[:, :, None] & columns[:, None, :])[..., None]
    reach = min(h, w) // 3
    shift = tf.random.stateless_uniform([2], seeds[5], -reach, reach + 1, tf.int32)
    pasted = tf.roll(_others(images, seeds[4]), shift, axis=[1, 2])
    coin = tf.random.stateless_uniform([b, 1, 1, 1], seeds[6]) < 0.5
    return tf.where(inside, tf.where(coin, _own_value(images, seeds[6]), pasted), images)


def disturb(images, seed):
    """Real images with the whole disturbed: halves swapped, or faded, or blended with another.

    (b, h, w, c) in [-1, 1] -> the same shape (jigsaw and mixup of Sinha et al. 2021, section 4).
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    b, h, w = tf.shape(images)[0], images.shape[1], images.shape[2]
    kind = tf.random.stateless_uniform([b, 1, 1, 1], seeds[0])
    share = tf.random.stateless_uniform([b, 1, 1, 1], seeds[1], 0.3, 1.0)
    faded = (1.0 - share) * images + share * _own_value(images, seeds[2])
    blended = 0.5 * (images + _others(images, seeds[3]))
    swapped = tf.where(kind < 0.25, tf.roll(images, h // 2, 1), tf.roll(images, w // 2, 2))
    return tf.where(kind < 0.5, swapped, tf.where(kind < 0.75, faded, blended))


def shows(disturbed, images):
    """1.0 for images that were visibly changed, else 0.0: (b, h, w, c) twice -> (b,)."""
    change = tf.reduce_max(tf.abs(disturbed - images), axis=[1, 2, 3])
    return tf.cast(change > 0.25, tf.float32)


def _others(images, seed):
    """For each image another one of the batch (or, seldom, itself)."""
    order = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(images)[0]), seed)
    return tf.gather(images, order)


def _own_value(images, seed):
    """The value of a random pixel of each image, (b, 1, 1, c)."""
    b, h, w = tf.shape(images)[0], images.shape[1], images.shape[2]
    place = tf.random.stateless_uniform([b, 2], seed, dtype=tf.float32) * [h, w]
    rows, columns = tf.unstack(tf.cast(place, tf.int32), axis=1)
    return tf.gather_nd(images, tf.stack([tf.range(b), rows, columns], 1))[:, None, None, :]
