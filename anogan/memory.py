"""A memory of normal images, place by place: how far is a part from all that was seen there?

PatchCore's nearest neighbours (Roth et al. 2022, section 3) with histograms of gradient
orientations (Dalal and Triggs 2005) in place of a pretrained network's features.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from utils import to_float

BINS = 8  # of orientations
CELLS = 16, 8  # along the shorter side, of the fine and the coarse descriptors
SMALLEST_CELL = 4, 6  # pixels
NO_GRADIENT = 0.05  # in [-1, 1] a pixel: of what is flatter the direction is noise
HIGHEST = 0.05  # fraction of the places whose mean makes an image's value
USUAL = 0.5  # of a place's usual distance is taken off: some places are always new
BATCH = 64  # images


class Memory:
    """Descriptors of normal images at each place, and distances to the nearest."""

    def __init__(self, images: np.ndarray):
        """images: normal ones, (n, h, w, c), uint8 or float in [-1, 1], n at least 2."""
        side, self.size = min(images.shape[1:3]), images.shape[1:3]
        self.cells = [
            max(least, round(side / count))
            for count, least in zip(CELLS, SMALLEST_CELL, strict=True)
        ]
        self.known, self.usual, self.spread = [], [], []
        for cell in self.cells:
            batches = range(0, len(images), BATCH)
            parts = [describe(to_float(images[i : i + BATCH]), cell) for i in batches]
            found = tf.concat(parts, 0)
            half = max(len(images) // 2, 1)
            first = _ready(found[:half])
            apart = [
                _distances(found[i : i + BATCH], *first) for i in range(half, len(images), BATCH)
            ]
            usual = tf.reduce_mean(tf.concat(apart, 0), axis=0)
            self.known.append(_ready(found))
            self.usual.append(USUAL * usual)
            self.spread.append(tf.maximum(tf.reduce_mean(usual), 1e-3))
        self.maps = tf.function(self._maps, autograph=False, reduce_retracing=True)

    def _maps(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(b, h, w, c) in [-1, 1] -> how new images are (b,), and their places (b, h, w), 0 and up.

        1 is about as far as normal images are from each other.
        """
        value, whole = 0.0, 0.0
        for cell, known, usual, spread in zip(
            self.cells, self.known, self.usual, self.spread, strict=True
        ):
            far = (_distances(describe(images, cell), *known) - usual) / spread
            flat = tf.reshape(far, (-1, far.shape[1] * far.shape[2]))
            count = max(1, round(HIGHEST * flat.shape[1]))
            value += tf.reduce_mean(tf.math.top_k(flat, count).values, axis=1)
            covered = [cell * n for n in far.shape[1:]]
            enlarged = tf.image.resize(tf.nn.relu(far)[..., None], covered)
            rest = [(0, 0), *((0, a - b) for a, b in zip(self.size, covered, strict=True)), (0, 0)]
            whole += tf.pad(enlarged, rest, "SYMMETRIC")[..., 0]
        return value / len(self.cells), whole / len(self.cells)


def describe(images: tf.Tensor, cell: int) -> tf.Tensor:
    """Gradient orientations of cells of so many pixels and their eight neighbours, of length 1.

    (b, h, w, c) in [-1, 1] -> (b, h // cell, w // cell, 9 BINS).
    """
    grey = tf.pad(tf.reduce_mean(images, -1), [[0, 0], [1, 1], [1, 1]], "SYMMETRIC")
    down = (grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]) / 2.0
    across = (grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]) / 2.0
    strength = tf.sqrt(down**2 + across**2 + 1e-12)
    angle = tf.math.floormod(tf.atan2(down, across), np.pi) * (BINS / np.pi)
    off = tf.abs(angle[..., None] - tf.range(BINS, dtype=tf.float32))
    near = tf.maximum(1.0 - tf.minimum(off, BINS - off), 0.0)
    cells = tf.nn.avg_pool2d(strength[..., None] * near, cell, cell, "VALID")
    rows, columns = cells.shape[1:3]
    around = tf.pad(cells, [[0, 0], [1, 1], [1, 1], [0, 0]])
    parts = [around[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    found = tf.concat(parts, -1)
    return found / tf.sqrt(tf.reduce_sum(found**2, -1, keepdims=True) + NO_GRADIENT**2)


def _ready(known: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Descriptors (n, y, x, d) as _distances takes them: (y, x, d, n) and their squared lengths."""
    placed = tf.transpose(known, (1, 2, 3, 0))
    return placed, tf.reduce_sum(placed**2, axis=2)


def _distances(found: tf.Tensor, known: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """From descriptors (b, y, x, d) to the nearest known at their place: (b, y, x)."""
    placed = tf.transpose(found, (1, 2, 0, 3))
    squared = tf.reduce_min(lengths[:, :, None] - 2.0 * tf.matmul(placed, known), axis=-1)
    squared = tf.transpose(squared, (2, 0, 1)) + tf.reduce_sum(found**2, -1)
    return tf.sqrt(tf.maximum(squared, 0.0))
