"""The latent search: backpropagation into z until G(z) comes closest to each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

import ops

Network = Callable[[tf.Tensor], tf.Tensor]
EPSILON = 1e-8  # of Adam


class Weights(NamedTuple):
    """What the search minimises: residual * R + discrimination * D + prior * ||z||^2."""

    residual: float
    discrimination: float
    prior: float
    squared: bool


def nearest_start(images: tf.Tensor, pool_z: tf.Tensor, pool_images: tf.Tensor) -> tf.Tensor:
    """For each image the latent of the closest of some fixed samples: (b, z_dim).

    images (b, h, w, c), pool_z (n, z_dim), pool_images (n, h, w, c). It depends on the image
    alone, so that neither order nor batch-mates can change a score.
    """
    x = tf.reshape(images, (tf.shape(images)[0], -1))
    g = tf.reshape(pool_images, (tf.shape(pool_images)[0], -1))
    # ||x - g||^2 without the ||x||^2 that all have
    distances = tf.reduce_sum(tf.square(g), axis=1) - 2.0 * tf.matmul(x, g, transpose_b=True)
    return tf.gather(pool_z, tf.argmin(distances, axis=1))


def search_latents(
    generator: Network,
    features: Network,
    images: tf.Tensor,
    start: tf.Tensor,
    steps: int,
    learning_rate: float,
    weights: Weights,
    betas: tuple[float, float],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Adam on z, each image by itself, weights frozen (Schlegl et al. 2017, section 2.2).

    generator: z (b, z_dim) -> images; features: images -> (b, n); images (b, h, w, c) in
    [-1, 1]; start (b, z_dim); learning_rate: scalar, falls to zero by a cosine; betas: of Adam.
    The loss is a sum over images, so no image changes another's gradient, and Adam works
    element by element with moments that start at zero: batch-mates do not meet.
    Returns the best z seen (b, z_dim) and the loss at each step and at the end (b, steps + 1).
    """
    target, (beta1, beta2) = features(images), betas

    def loss_of(z: tf.Tensor) -> tf.Tensor:
        g = generator(z)
        return (
            weights.residual * ops.distance(images, g, weights.squared)
            + weights.discrimination * ops.distance(target, features(g), weights.squared)
            + weights.prior * tf.reduce_sum(tf.square(z), axis=1)
        )

    def keep_better(
        z: tf.Tensor, loss: tf.Tensor, best_z: tf.Tensor, best_loss: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        better = loss < best_loss
        return tf.where(better[:, None], z, best_z), tf.where(better, loss, best_loss)

    def step(
        i: tf.Tensor,
        z: tf.Tensor,
        m: tf.Tensor,
        v: tf.Tensor,
        best_z: tf.Tensor,
        best_loss: tf.Tensor,
        losses: tf.TensorArray,
    ) -> tuple[Any, ...]:
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = loss_of(z)
        gradient = tape.gradient(loss, z)  # of the sum over images
        best_z, best_loss = keep_better(z, loss, best_z, best_loss)
        t = tf.cast(i + 1, tf.float32)
        rate = learning_rate * 0.5 * (1.0 + tf.cos(3.14159265 * (t - 1.0) / steps))
        m = beta1 * m + (1.0 - beta1) * gradient
        v = beta2 * v + (1.0 - beta2) * tf.square(gradient)
        z -= rate * (m / (1.0 - beta1**t)) / (tf.sqrt(v / (1.0 - beta2**t)) + EPSILON)
        return i + 1, z, m, v, best_z, best_loss, losses.write(i, loss)

    zero = tf.zeros_like(start)
    never = tf.fill([tf.shape(start)[0]], float("inf"))
    losses = tf.TensorArray(tf.float32, size=steps + 1)
    state = tf.constant(0), start, zero, zero, start, never, losses
    *_, z, _, _, best_z, best_loss, losses = tf.while_loop(
        lambda i, *_: i < steps, step, state, maximum_iterations=steps
    )
    loss = loss_of(z)
    best_z, _ = keep_better(z, loss, best_z, best_loss)
    return best_z, tf.transpose(losses.write(steps, loss).stack())
