"""How far images are from normal ones in a pretrained network's features: a Gaussian at each place.

PaDiM (Defard et al. 2021, section 3), but for three things. Each map of the network has Gaussians
of its own; a place's covariance is shrunk towards that of all places, so that a hundred images are
enough; and of what is at a place the image's own mean is taken off, since a brighter print or
another camera changes all places alike and is no defect.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import ops
from anogan.features.backbone import Backbone
from anogan.image_form import feature_size
from anogan.recipe import FeatureRecipe
from anogan.runs.gaussians import Gaussians

BATCH = 8  # images that the network sees at once: more are no faster, and take memory
LEVELS = 127  # of int8, in which whitenings are kept: AUROC is the same to the third digit
LEAST_VARIANCE = 1e-6  # of features of length 1: of images that are all alike
BLOCKS_A_TIME = 64  # places whose covariances are inverted at once


class Features:
    """What a pretrained network sees at each place of images of one size."""

    def __init__(self, name: str, view: tuple[int, int], recipe: FeatureRecipe):
        """name: of features.backbone.BACKBONES; view: (height, width) of the images."""
        self.backbone, self.size = Backbone(name, recipe.blocks), feature_size(*view)
        self.recipe = recipe
        finest = [-(-side // self.backbone.strides[0]) for side in self.size]
        self.coarse = max(finest) >= recipe.most_places
        self.describe = tf.function(self.maps, reduce_retracing=True, autograph=False)
        self.measure = tf.function(self.distances, reduce_retracing=True, autograph=False)

    def maps(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Return each map's vectors: (b, H, W, c) in [-1, 1] -> [(b, y, x, d), …].

        Averaged over 3 x 3 places, of length 1, less the image's mean. `describe` is the same as a
        graph.
        """
        found = []
        enlarged = ops.resized(images, *self.size, levels=False)  # rounding would make steps
        for i, features in enumerate(self.backbone(enlarged)):
            x = tf.math.l2_normalize(_smooth(features), axis=-1, epsilon=1e-12)
            if i == 0 and self.coarse:
                x = tf.nn.avg_pool2d(x, 2, 2, "SAME")
            found.append(x - tf.reduce_mean(x, axis=(1, 2), keepdims=True))
        return found

    def distances(
        self, images: tf.Tensor, known: Sequence[Sequence[Any]]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """(b, H, W, c) in [-1, 1] -> distances (b,) and of places (b, y, x), in usual spreads.

        known: mean, whitening and `usual` of each map's Gaussians. `measure` is the same as a
        graph, which all banks share.
        """
        parts = []
        for x, (mean, whitening, usual) in zip(self.maps(images), known, strict=True):
            distances = tf.sqrt(_squared(x, mean, whitening))
            parts.append((_smooth(distances[..., None]) - usual[0]) / usual[1])
        whole = _over_maps(parts)
        return highest(whole, self.recipe.highest), whole


@functools.cache
def shared_features(name: str, view: tuple[int, int], recipe: FeatureRecipe) -> Features:
    """Return the Features of these, once for all models in a process: to trace them is slow."""
    return Features(name, view, recipe)


class FeatureBank:
    """Gaussians of normal images' features, and distances from them."""

    def __init__(self, features: Features, known: Sequence[Gaussians], size: tuple[int, int]):
        """known: of each map; size: of the maps of distances, pixels."""
        self.features, self.known, self.size = features, known, size
        # tensors, which a graph takes as inputs: as its constants they would slow its first use
        self._arguments = [tuple(map(tf.constant, self._numbers(one))) for one in known]

    @staticmethod
    def _numbers(one: Gaussians) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return one.mean, _triangles(one.whitening, one.scale), one.usual

    def numbers(self) -> int:
        """How many the bank holds, as a graph of it does."""
        return sum(a.size for one in self.known for a in self._numbers(one))

    def compare(self, images: np.ndarray, count: int | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """(n, H, W, c) in [-1, 1] -> distances of the images (n,) and of their places (n, h, w).

        In spreads of normal images; those of places are 0 and up. count: the first so many images
        matter, and a few after them are measured, too.
        """
        # of a batch always so many, on which the last digit depends, and no more than it needs
        together = -(-len(images) // -(-len(images) // BATCH))
        images = images[: -(-(count or len(images)) // together) * together]
        padded = np.concatenate([images, images[: -len(images) % together]])
        parts = [
            self.features.measure(padded[i : i + together], self._arguments)
            for i in range(0, len(padded), together)
        ]
        values, places = (tf.concat(part, 0)[: len(images)] for part in zip(*parts, strict=True))
        return values, self._enlarged(places)

    def distances(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `compare`, within a graph whose constants the bank's numbers become."""
        values, places = self.features.distances(images, list(map(self._numbers, self.known)))
        return values, self._enlarged(places)

    def _enlarged(self, places: tf.Tensor) -> tf.Tensor:
        return tf.image.resize(tf.nn.relu(places)[..., None], self.size)[..., 0]


def _smooth(values: tf.Tensor) -> tf.Tensor:
    """Return means over 3 x 3 places: (b, y, x, d) -> the same."""
    return tf.nn.avg_pool2d(values, 3, 1, "SAME")


def _over_maps(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the mean of all maps' values [(b, y, x, 1), …], of the first one's size: (b, y, x)."""
    whole = parts[0]
    for part in parts[1:]:
        whole += tf.image.resize(part, whole.shape[1:3])
    return whole[..., 0] / len(parts)


def highest(values: tf.Tensor, fraction: float) -> tf.Tensor:
    """Return the mean of that fraction of each image's places: (b, y, x) -> (b,)."""
    flat = tf.reshape(values, (-1, values.shape[1] * values.shape[2]))
    return tf.reduce_mean(tf.math.top_k(flat, max(1, int(fraction * flat.shape[1]))).values, axis=1)


def _squared(x: tf.Tensor, mean: Any, whitening: Any) -> tf.Tensor:
    """Return squared Mahalanobis distances: (b, y, x, d) -> (b, y, x)."""
    places, d = mean.shape
    apart = tf.transpose(tf.reshape(x, (-1, places, d)), (1, 0, 2)) - mean[:, None]
    squared = tf.reduce_sum(tf.square(tf.matmul(apart, whitening)), axis=-1)
    return tf.reshape(tf.transpose(squared), (-1, *x.shape[1:3]))


def fit(features: Features, batches: Iterable[np.ndarray]) -> tuple[list[Gaussians], np.ndarray]:
    """Return the Gaussians of normal images, and how far each is from the others' alone: (n,).

    The images are given in batches (b, H, W, c), two or more in all.
    """
    described = [features.describe(batch) for batch in batches]
    maps = [tf.concat(parts, 0) for parts in zip(*described, strict=True)]
    known, far = zip(*(_fitted(x, features.recipe) for x in maps), strict=True)
    return list(known), highest(_over_maps(far), features.recipe.highest).numpy()


def _fitted(x: tf.Tensor, recipe: FeatureRecipe) -> tuple[Gaussians, tf.Tensor]:
    """Return the Gaussians of one map's vectors (n, y, x, d), and distances (n, y, x, 1).

    An image's places are as far from the Gaussians of the others, in usual spreads.
    """
    n, rows, columns, d = x.shape
    placed = tf.transpose(tf.reshape(x, (n, rows * columns, d)), (1, 0, 2))
    mean = tf.reduce_mean(placed, axis=1, keepdims=True)
    placed -= mean
    parts = range(0, rows * columns, BLOCKS_A_TIME)
    products = [
        tf.matmul(placed[i : i + BLOCKS_A_TIME], placed[i : i + BLOCKS_A_TIME], transpose_a=True)
        for i in parts
    ]
    pooled = tf.add_n([tf.reduce_sum(part, axis=0) for part in products]) / (n * rows * columns)
    variance = tf.maximum(tf.linalg.trace(pooled) / d, LEAST_VARIANCE)
    ridge = recipe.ridge * variance * tf.eye(d)
    packed, scales, squared = [], [], []
    for i, product in zip(parts, products, strict=True):
        covariance = (product + recipe.shrinkage * pooled) / (n + recipe.shrinkage) + ridge
        one, scale = _packed(_whitening(covariance).numpy())
        packed.append(one)
        scales.append(scale)
        white = tf.matmul(placed[i : i + BLOCKS_A_TIME], _triangles(one, scale))
        squared.append(tf.reduce_sum(tf.square(white), axis=-1))
    alone = _without_itself(tf.concat(squared, 0), n, recipe.shrinkage)
    far = _smooth(tf.reshape(tf.transpose(tf.sqrt(alone)), (n, rows, columns, 1)))
    values = highest(far[..., 0], recipe.highest).numpy()
    usual = np.array([values.mean(), max(values.std(), 1e-3)], np.float32)
    whitenings = np.concatenate(packed), np.concatenate(scales)
    return Gaussians(mean[:, 0].numpy(), *whitenings, usual), (far - usual[0]) / usual[1]


def _whitening(covariance: tf.Tensor) -> tf.Tensor:
    """Return W (p, d, d), upper triangles with W W' the inverse of each covariance."""
    lower = tf.linalg.cholesky(covariance)
    unit = tf.eye(covariance.shape[-1], batch_shape=covariance.shape[:1])
    return tf.linalg.matrix_transpose(tf.linalg.triangular_solve(lower, unit))


def _without_itself(squared: tf.Tensor, n: Any, shrinkage: float) -> tf.Tensor:
    """Return the squared distances of the n images by Gaussians of the other n - 1 images.

    By the formula of Sherman and Morrison, but for what an image adds to the pooled covariance.
    """
    count, own = n + shrinkage, n / (n - 1)
    rest = tf.maximum(1.0 - own * squared / count, 1.0 / count)
    return own**2 * (count - 1) / count * squared / rest


def _packed(whitening: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return upper triangles (p, d (d + 1) / 2) in int8 and their columns' scales (p, d)."""
    scale = np.maximum(np.abs(whitening).max(axis=1), 1e-12) / LEVELS
    rows, columns = np.triu_indices(whitening.shape[1])
    levels = np.rint(whitening / scale[:, None]).astype(np.int8)
    return levels[:, rows, columns], scale.astype(np.float32)


def _triangles(packed: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the whitenings (p, d, d) that `_packed` was given."""
    places, d = scale.shape
    found = np.zeros((places, d, d), np.float32)
    rows, columns = np.triu_indices(d)
    found[:, rows, columns] = packed
    found *= scale[:, None]
    return found
