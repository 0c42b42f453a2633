"""Synthetic anomalies: real images in which a part is not what it should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class ReplicaSlice:
    """A replica's part of a global batch: images index, index + count, index + 2 count, …

    So the first half of each lies in the global batch's first half.
    """

    index: int = 0
    count: int = 1  # replicas

    def draw(
        self, kind: Callable[..., tf.Tensor], shape: list, seed: tf.Tensor, *limits: Any
    ) -> tf.Tensor:
        """The replica's part of random numbers that are drawn for the global batch.

        kind: of tf.random's stateless ones; shape: of its part, (b, ...); what a replica draws
        for an image does not depend on how many replicas there are.
        """
        drawn = kind([shape[0] * self.count, *shape[1:]], seed, *limits)
        return drawn if self.count == 1 else drawn[self.index :: self.count]


WHOLE = ReplicaSlice()


def plant_anomalies(images: tf.Tensor, seed: tf.Tensor, replica: ReplicaSlice = WHOLE) -> tf.Tensor:
    """Real images with a synthetic anomaly: a part is erased, or taken from another image.

    (b, h, w, c) in [-1, 1] -> the same shape. The part is a rectangle or an irregular patch; it
    is filled with a value from the image's edge or with another image of the batch, moved (cut
    and paste of Li et al. 2021, section 3.2; irregular patches of Zavrtanik et al. 2021, section
    3.3). Where that changes nothing visible, the image's halves are swapped (jigsaw, Sinha et
    al. 2021, section 4). seed: (2,) integers; the same seed gives the same anomalies.
    replica: which images of a global batch these are.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))
    b, h, w = tf.shape(images)[0], images.shape[1], images.shape[2]
    coins = replica.draw(tf.random.stateless_uniform, [b, 2, 1, 1, 1], seeds[0])
    rectangular, erased = coins[:, 0] < 0.5, coins[:, 1] < 0.4
    part = tf.where(
        rectangular, _rectangle(b, h, w, seeds[1], replica), _patch(b, h, w, seeds[2], replica)
    )
    reach = min(h, w) // 3
    shift = tf.random.stateless_uniform([2], seeds[3], -reach, reach + 1, tf.int32)
    others = tf.roll(images, b // 2, axis=0)  # of a shuffled batch, so any will do
    pasted = tf.roll(others, shift, axis=[1, 2])
    edge = _edge_value(images, seeds[4], replica)
    planted = tf.where(part, tf.where(erased, edge, pasted), images)
    changed = tf.cast(tf.abs(planted - images) > 0.25, tf.float32)
    shows = tf.reduce_mean(changed, axis=[1, 2, 3], keepdims=True) > 0.01
    return tf.where(shows, planted, tf.roll(images, h // 2, 1))


def _rectangle(b: tf.Tensor, h: int, w: int, seed: tf.Tensor, replica: ReplicaSlice) -> tf.Tensor:
    """A random rectangle in each of b images, 0.2 to 0.8 of their sides: bool (b, h, w, 1)."""
    place, size = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    place = replica.draw(tf.random.stateless_uniform, [b, 2, 1], place)
    size = replica.draw(tf.random.stateless_uniform, [b, 2, 1], size, 0.2, 0.8)

    def inside(axis: int, length: int) -> tf.Tensor:
        at = (tf.range(length, dtype=tf.float32) + 0.5) / length
        return tf.abs(at[None] - place[:, axis]) < size[:, axis] / 2.0

    return (inside(0, h)[:, :, None] & inside(1, w)[:, None, :])[..., None]


def _patch(b: tf.Tensor, h: int, w: int, seed: tf.Tensor, replica: ReplicaSlice) -> tf.Tensor:
    """An irregular part of each of b images, 5 to 50 % of it: bool (b, h, w, 1).

    Smooth noise above its own quantile.
    """
    noise, extent = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    noise = replica.draw(tf.random.stateless_normal, [b, 4, 4, 1], noise)
    noise = tf.image.resize(noise, [h, w], "bicubic")
    extent = replica.draw(tf.random.stateless_uniform, [b], extent, 0.05, 0.5)
    ordered = tf.sort(tf.reshape(noise[:, ::2, ::2], [b, -1]), axis=1)  # smooth: a quarter tells
    place = tf.cast((1.0 - extent) * (ordered.shape[1] - 1), tf.int32)
    return noise > tf.gather(ordered, place, batch_dims=1)[:, None, None, None]


def _edge_value(images: tf.Tensor, seed: tf.Tensor, replica: ReplicaSlice) -> tf.Tensor:
    """The value of a random pixel of each image's top row, (b, 1, 1, c)."""
    b, w = tf.shape(images)[0], images.shape[2]
    column = replica.draw(tf.random.stateless_uniform, [b], seed, 0, w, tf.int32)
    return tf.gather(images[:, 0], column, batch_dims=1)[:, None, None, :]
