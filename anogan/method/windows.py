"""Large images as overlapping windows of the networks' size: cut, and put together again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

import ops
from anogan.runs.distributed import WHOLE, ReplicaSlice
from utils import to_float


class Windows:
    """The places of square windows that cover images of one size, half overlapping.

    Images that are no larger than the networks' have one window, which is the whole image.
    """

    def __init__(self, height: int, width: int, window: int):
        """Sizes in pixels; window 0: the whole image is one."""
        self.size = height, width
        self.window = (window, window) if window else self.size
        self.starts = [_starts(*sides) for sides in zip(self.size, self.window, strict=True)]
        self._joining = [
            _joining(start, *sides)
            for start, *sides in zip(self.starts, self.size, self.window, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.starts[0]) * len(self.starts[1])

    def cut(self, images: tf.Tensor) -> tf.Tensor:
        """(b, H, W, c) -> (b n, h, w, c), the n windows of the first image first, row by row."""
        if len(self) == 1:
            return images
        for axis in (0, 1):
            places = np.add.outer(self.starts[axis], np.arange(self.window[axis]))
            images = tf.gather(images, places.ravel(), axis=axis + 1)
        (rows, columns), (h, w), c = map(len, self.starts), self.window, images.shape[-1]
        parts = tf.reshape(images, (-1, rows, h, columns, w, c))
        return tf.reshape(tf.transpose(parts, (0, 1, 3, 2, 4, 5)), (-1, h, w, c))

    def join(self, maps: tf.Tensor) -> tf.Tensor:
        """(b n, h, w, c) -> (b, H, W, c): weighted means where windows overlap."""
        if len(self) == 1:
            return maps
        (rows, columns), (h, w) = map(len, self.starts), self.window
        c = tf.shape(maps)[-1]  # a graph of this is for colour images and their maps alike
        parts = tf.reshape(maps, (-1, rows, columns, h, w, c))
        parts = tf.transpose(parts, (0, 1, 3, 2, 4, 5))
        parts = tf.reshape(parts, (-1, rows * h, columns * w, c))
        return ops.along_sides(parts, *self._joining)

    def in_parts(self, images: np.ndarray, most: int) -> Iterator[np.ndarray]:
        """Yields the windows (m n, h, w, c) of some images after the others; n windows each.

        images: (b, H, W, c), uint8 or float in [-1, 1]; of as many at a time as have `most` windows
        together, but at least one: all windows of many images would not fit into memory.
        """
        step = max(most // len(self), 1)
        for i in range(0, len(images), step):
            yield np.asarray(self.cut(to_float(images[i : i + step])))

    def some(self, images: np.ndarray, count: int) -> np.ndarray:
        """At most so many of all windows on images, evenly spaced; images as for in_parts."""
        total = len(images) * len(self)
        chosen = np.linspace(0, total - 1, min(total, count), dtype=int)
        found, start = [], 0
        for part in self.in_parts(images, len(self)):
            found.append(part[chosen[(start <= chosen) & (chosen < start + len(part))] - start])
            start += len(part)
        return np.concatenate(found)

    def apart(self, values: tf.Tensor) -> tf.Tensor:
        """(b n, ...) -> (b, n, ...)."""
        return tf.reshape(values, (-1, len(self), *values.shape[1:]))

    def random(
        self, images: tf.Tensor, seed: tf.Tensor, replica: ReplicaSlice = WHOLE
    ) -> tf.Tensor:
        """A window from anywhere in each image: (b, H, W, c) -> (b, h, w, c).

        Places beyond the edge are drawn, too, and moved to it, or its pixels would be rare.
        """
        if len(self) == 1:
            return images
        b, (h, w) = tf.shape(images)[0], self.window
        drawn = replica.draw(tf.random.stateless_uniform, [b, 2], seed)
        room = np.subtract(self.size, self.window).astype(np.float32)
        beyond = np.minimum(room, np.array(self.window, np.float32)) / 4.0
        at = tf.clip_by_value(drawn * (room + 2 * beyond) - beyond, 0.0, room)
        at = tf.cast(tf.round(at), tf.int32)
        found = tf.gather(images, at[:, :1] + tf.range(h), axis=1, batch_dims=1)
        found = tf.gather(
            tf.transpose(found, (0, 2, 1, 3)), at[:, 1:] + tf.range(w), axis=1, batch_dims=1
        )
        found = tf.transpose(found, (0, 2, 1, 3))
        return tf.ensure_shape(found, (images.shape[0], h, w, images.shape[-1]))


def _starts(side: int, window: int) -> list[int]:
    """Where windows begin along a side: no more than half a window apart, the last at its end."""
    count = 1 if window >= side else 1 + -(-2 * (side - window) // window)
    return [round(start) for start in np.linspace(0, max(side - window, 0), count)]


def _joining(starts: list[int], side: int, window: int) -> np.ndarray:
    """How much each pixel of each window is of each pixel along a side: (side, windows * window).

    Less towards a window's ends, where surroundings are missing; of one pixel they add up to 1.
    """
    bell = np.minimum(np.arange(window), np.arange(window)[::-1]) + 1.0
    matrix = np.zeros((side, len(starts), window), np.float32)
    for i, start in enumerate(starts):
        matrix[start + np.arange(window), i, np.arange(window)] = bell
    flat = matrix.reshape(side, -1)
    return flat / flat.sum(axis=1, keepdims=True)
