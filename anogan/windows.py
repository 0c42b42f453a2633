"""Large images as overlapping windows of the networks' size: cut, and put together again."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from anogan.synthetic import WHOLE, ReplicaSlice


class Windows:
    """The places of square windows that cover images of one size, half overlapping.

    Images that are no larger than the networks' have one window, which is the whole image.
    """

    def __init__(self, height: int, width: int, window: int):
        """Sizes in pixels; window 0: the whole image is one."""
        self.size = height, width
        self.window = (window, window) if window else self.size
        places = [_starts(*sides) for sides in zip(self.size, self.window, strict=True)]
        self.places = [(top, left) for top in places[0] for left in places[1]]
        rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 1.0 for n in self.window)
        bell = np.minimum(rows[:, None] / rows.max(), columns[None] / columns.max())
        share = np.zeros((len(self), *self.size), np.float32)
        for i, (top, left) in enumerate(self.places):
            share[i, top : top + self.window[0], left : left + self.window[1]] = bell
        share /= share.sum(axis=0)
        # how much each window says of its pixels: less at its borders, which lack surroundings
        self.share = np.stack([s[self._part(p)] for s, p in zip(share, self.places, strict=True)])

    def __len__(self) -> int:
        return len(self.places)

    def _part(self, place: tuple[int, int]) -> tuple[slice, slice]:
        top, left = place
        return slice(top, top + self.window[0]), slice(left, left + self.window[1])

    def cut(self, images: tf.Tensor) -> tf.Tensor:
        """(b, H, W, c) -> (b n, h, w, c), the n windows of the first image first."""
        if len(self) == 1:
            return images
        parts = [images[(slice(None), *self._part(place))] for place in self.places]
        return tf.reshape(tf.stack(parts, 1), (-1, *self.window, images.shape[-1]))

    def join(self, maps: tf.Tensor) -> tf.Tensor:
        """(b n, h, w, c) -> (b, H, W, c): weighted means where windows overlap."""
        if len(self) == 1:
            return maps
        maps = tf.reshape(maps, (-1, len(self), *self.window, maps.shape[-1]))
        maps *= self.share[None, ..., None]
        (height, width), (h, w) = self.size, self.window
        whole = tf.zeros((tf.shape(maps)[0], height, width, maps.shape[-1]))
        for i, (top, left) in enumerate(self.places):
            pads = [[0, 0], [top, height - top - h], [left, width - left - w], [0, 0]]
            whole += tf.pad(maps[:, i], pads)
        return whole

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
        rows = at[:, :1] + tf.range(h)
        columns = at[:, 1:] + tf.range(w)
        found = tf.gather(images, rows, axis=1, batch_dims=1)
        found = tf.gather(found, columns, axis=2, batch_dims=1)
        return tf.ensure_shape(found, (images.shape[0], h, w, images.shape[-1]))


def _starts(side: int, window: int) -> list[int]:
    """Where windows begin along a side: no more than half a window apart, the last at its end."""
    count = 1 if window >= side else 1 + -(-2 * (side - window) // window)
    return [round(start) for start in np.linspace(0, max(side - window, 0), count)]
