"""Synthetic anomalies: real images in which a part is not what it should be, and where it is."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

import ops
from anogan.runs.distributed import WHOLE, ReplicaSlice, graph_of

VISIBLE = 0.08  # of [-1, 1]: a smaller change is no anomaly
CHUNKS = 4  # parts of a batch, each filled in one way: all ways for all would take longer
TOGETHER = 16  # random numbers that are drawn at once
SMALLEST = 0.75  # half the width of the thinnest anomaly, pixels
Fill = Callable[[tf.Tensor, "_Random"], tf.Tensor]


class _Random:
    """Random numbers for each image of a batch, others at each call: (b, ...) float32."""

    def __init__(self, seed: tf.Tensor, batch: tf.Tensor, replica: ReplicaSlice):
        self.seed, self.batch, self.replica, self.calls = seed, batch, replica, 0
        self._drawn: list[tf.Tensor] = []  # (b, 1, 1, 1) each: one operation draws many

    def next_seed(self) -> tf.Tensor:
        self.calls += 1
        return tf.random.experimental.stateless_fold_in(self.seed, self.calls)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, *shape: int) -> tf.Tensor:
        """(b, *shape); (b, 1, 1, 1) without a shape. low, high: numbers, or (b, *shape)."""
        shape = shape or (1, 1, 1)
        columns = [self._next() for _ in range(math.prod(shape))]
        drawn = columns[0]
        if shape != (1, 1, 1):
            drawn = tf.reshape(tf.concat(columns, 1), (self.batch, *shape))
        return low + (high - low) * drawn

    def _next(self) -> tf.Tensor:
        if not self._drawn:
            draw, shape = tf.random.stateless_uniform, [self.batch, TOGETHER, 1, 1, 1]
            self._drawn = tf.unstack(self.replica.draw(draw, shape, self.next_seed()), axis=1)
        return self._drawn.pop()

    def log_uniform(self, low: Any, high: Any, *shape: int) -> tf.Tensor:
        """As uniform, each order of magnitude as likely as the others."""
        return tf.exp(self.uniform(tf.math.log(low), tf.math.log(high), *shape))

    def normal(self, *shape: int) -> tf.Tensor:
        draw = tf.random.stateless_normal
        return self.replica.draw(draw, [self.batch, *shape], self.next_seed())

    def coin(self, chance: float = 0.5) -> tf.Tensor:
        """True with this chance: (b, 1, 1, 1)."""
        return self.uniform() < chance

    def one_of(self, count: int) -> tf.Tensor:
        """A number below count, one for all images."""
        return tf.random.stateless_uniform([], self.next_seed(), 0, count, tf.int32)

    def noise(self, h: int, w: int, cells: int, channels: int = 1) -> tf.Tensor:
        """Smooth noise of about so many bumps a side: (b, h, w, channels)."""
        return _enlarged(self.normal(cells, cells, channels), h, w)

    def rough_noise(self, h: int, w: int, channels: int = 1) -> tf.Tensor:
        """Smooth noise, coarser in some images than in others."""
        grain = self.uniform(0.0, 3.0)
        layers = [self.noise(h, w, cells, channels) for cells in (3, 6, 14)]
        return ops.select(grain < 1, layers[0], ops.select(grain < 2, layers[1], layers[2]))


def _enlarged(x: tf.Tensor, h: int, w: int) -> tf.Tensor:
    """(b, i, j, c) -> (b, h, w, c), bicubic: faster than TensorFlow's, and than ops.along_sides."""
    down, across = ops.resize_matrix(x.shape[1], h), ops.resize_matrix(x.shape[2], w)
    return tf.einsum("hi,biwc->bhwc", down, tf.einsum("wj,bijc->biwc", across, x))


def plant_anomalies(
    images: tf.Tensor, seed: tf.Tensor, replica: ReplicaSlice = WHOLE
) -> tuple[tf.Tensor, tf.Tensor]:
    """Real images of which a large part is erased, or taken from another image; and where.

    (b, h, w, c) in [-1, 1] -> the same shape, and masks (b, h, w, 1), 1 where it visibly changed,
    else 0. The part is a rectangle or an irregular patch; it is filled with a value from the
    image's edge or with another image of the batch, moved (cut and paste of Li et al. 2021, section
    3.2; irregular patches of Zavrtanik et al. 2021, section 3.3). Where that changes nothing
    visible, the image's halves are swapped (jigsaw, Sinha et al. 2021, section 4). seed: (2,)
    integers; the same seed gives the same anomalies. replica: which images of a global batch these
    are.
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
    pasted = tf.roll(_others(images), shift, axis=[1, 2])
    edge = _edge_value(images, seeds[4], replica)
    planted = ops.select(part, ops.select(erased, edge, pasted), images)
    changed = tf.cast(tf.abs(planted - images) > 0.25, tf.float32)
    shows = tf.reduce_mean(changed, axis=[1, 2, 3], keepdims=True) > 0.01
    planted = ops.select(shows, planted, tf.roll(images, h // 2, 1))
    return planted, _changed(images, planted)


def plant_defects(
    images: tf.Tensor, seed: tf.Tensor, replica: ReplicaSlice = WHOLE
) -> tuple[tf.Tensor, tf.Tensor]:
    """Real images with one or two defects, of a few pixels up to half the side; and where.

    (b, h, w, c) in [-1, 1] -> the same shape, and masks (b, h, w, 1), 1 where it visibly changed,
    else 0. Scars, blobs and cracks (see `_shapes`) of a size on a log scale are filled with what
    FILLS names, opaque or not. seed, replica: see plant_anomalies.
    """
    return _planted(images, FILLS, _Random(seed, tf.shape(images)[0], replica))


def plant_unseen(images: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """As plant_defects, of kinds that are not trained on: they judge what was learnt."""
    return _planted(images, UNSEEN, _Random(seed, tf.shape(images)[0], WHOLE))


def _planted(
    images: tf.Tensor, fills: tuple[Fill, ...], random: _Random
) -> tuple[tf.Tensor, tf.Tensor]:
    planted = images
    for defect in range(2):
        shape = _shapes(images.shape[1], images.shape[2], random)
        if defect:
            shape *= tf.cast(random.coin(), tf.float32)
        parts, count = [], images.shape[0] or 1
        for part in tf.split(planted, CHUNKS if count % CHUNKS == 0 else 1):
            which = random.one_of(len(fills))
            replica = random.replica
            fill = _filling(fills, replica.count)
            parts.append(fill(part, random.next_seed(), which, tf.convert_to_tensor(replica.index)))
        fill = tf.ensure_shape(tf.concat(parts, 0), images.shape)
        opaque = tf.where(random.coin(), 1.0, random.uniform(0.4, 1.0))
        planted += shape * opaque * (fill - planted)
    planted = tf.clip_by_value(planted, -1.0, 1.0)
    return planted, _changed(images, planted)


@functools.cache
def _filling(fills: tuple[Fill, ...], replicas: int) -> Callable[..., tf.Tensor]:
    """Images, seed, number of one of fills, replica -> filled images; its graph is made once."""

    def filled(
        images: tf.Tensor, seed: tf.Tensor, which: tf.Tensor, replica: tf.Tensor
    ) -> tf.Tensor:
        size, mine = tf.shape(images)[0], ReplicaSlice(replica, replicas)
        ways = [functools.partial(fill, images, _Random(seed, size, mine)) for fill in fills]
        return tf.switch_case(which, ways)

    once = {"_noinline": True}  # or the optimiser would copy it into each place again
    return graph_of(filled, experimental_attributes=once)


def _changed(images: tf.Tensor, planted: tf.Tensor) -> tf.Tensor:
    """Where images (b, h, w, c) visibly differ: (b, h, w, 1), 1 or 0."""
    change = tf.reduce_max(tf.abs(planted - images), axis=-1, keepdims=True)
    near = tf.nn.avg_pool2d(change, 3, 1, "SAME")
    return tf.cast(near > VISIBLE, tf.float32)


def _shapes(h: int, w: int, random: _Random) -> tf.Tensor:
    """One soft-edged shape an image, (b, h, w, 1) in [0, 1].

    Rectangles and ellipses, turned and warped, whose length and width are drawn apart, so that
    scars are as frequent as blobs (CutPaste-scar of Li et al. 2021, section 3.2); and winding
    cracks, level lines of smooth noise.
    """
    side = float(min(h, w))
    rows, columns = tf.meshgrid(
        tf.range(h, dtype=tf.float32), tf.range(w, dtype=tf.float32), indexing="ij"
    )
    dy, dx = (
        (at - random.uniform(0.0, float(length), 1, 1))[..., None]
        for at, length in ((rows, h), (columns, w))
    )
    length = random.log_uniform(4.0 * SMALLEST, side / 2.0)
    width = random.log_uniform(SMALLEST, tf.minimum(length, 0.3 * side))
    bend = random.rough_noise(h, w, 2) * random.uniform() ** 2 * 0.35 * length
    dy, dx = dy + bend[..., :1], dx + bend[..., 1:]
    angle = random.uniform(0.0, 2.0 * math.pi)
    along = tf.abs(tf.cos(angle) * dx + tf.sin(angle) * dy) / length
    across = tf.abs(tf.cos(angle) * dy - tf.sin(angle) * dx) / width
    rectangle, ellipse = tf.maximum(along, across), tf.sqrt(along**2 + across**2)
    inside = (1.0 - ops.select(random.coin(), rectangle, ellipse)) * width  # pixels to the edge

    cells = 4
    slope = 1.2 * cells / side  # of the noise, a pixel: about
    reach = tf.sqrt(dy**2 + dx**2) / tf.maximum(length, side / 6.0)
    thickness = random.log_uniform(SMALLEST, 0.05 * side)
    level = random.uniform(-0.5, 0.5)
    line = thickness - tf.abs(random.noise(h, w, cells) - level) / slope
    inside = ops.select(random.coin(0.3), tf.minimum(line, (1.0 - reach) * side / 6.0), inside)
    softness = random.log_uniform(0.25, 3.0)
    return tf.sigmoid(inside * 3.0 / tf.minimum(softness, tf.maximum(width, 0.5)))


def _moved(
    images: tf.Tensor,
    scale: tf.Tensor,
    angle: tf.Tensor,
    dy: tf.Tensor,
    dx: tf.Tensor,
    flip: tf.Tensor,
) -> tf.Tensor:
    """Images scaled, turned, shifted, mirrored (flip -1) about their middle: each (b, 1, 1, 1)."""
    h, w = images.shape[1], images.shape[2]
    scale, angle, dy, dx, flip = (v[:, 0, 0, 0] for v in (scale, angle, dy, dx, flip))
    cos, sin = tf.cos(angle) / scale, tf.sin(angle) / scale
    y, x, none = (h - 1) / 2.0, (w - 1) / 2.0, tf.zeros_like(scale)
    rows = [
        *(cos * flip, -sin, x - cos * flip * x + sin * y + dx),
        *(sin * flip, cos, y - sin * flip * x - cos * y + dy),
        *(none, none),
    ]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack(rows, 1),
        output_shape=[h, w],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )


def _others(images: tf.Tensor) -> tf.Tensor:
    """Another image of the batch for each; it is a shuffled one, so any will do."""
    return tf.roll(images, tf.shape(images)[0] // 2, axis=0)


def _pasted(images: tf.Tensor, random: _Random) -> tf.Tensor:
    """Another image, scaled, turned, moved."""
    h, w = images.shape[1], images.shape[2]
    return _moved(
        _others(images),
        random.log_uniform(0.5, 2.0),
        random.uniform(0.0, 2.0 * math.pi),
        random.uniform(-h / 3.0, h / 3.0),
        random.uniform(-w / 3.0, w / 3.0),
        tf.where(random.coin(), 1.0, -1.0),
    )


def _local_mean(images: tf.Tensor) -> tf.Tensor:
    return ops.smooth(images, max(2.0, min(images.shape[1:3]) / 16.0))


def _matched(images: tf.Tensor, random: _Random) -> tf.Tensor:
    """Another image, as bright as the place (NSA's blending, Schluter et al. 2022, in short)."""
    other = _pasted(images, random)
    return other - _local_mean(other) + _local_mean(images)


def _shifted(images: tf.Tensor, random: _Random) -> tf.Tensor:
    """The image itself, a little moved."""
    far = random.log_uniform(2.0, max(min(images.shape[1:3]) / 6.0, 2.1))
    towards = random.uniform(0.0, 6.283)
    scale, angle = random.log_uniform(0.8, 1.25), random.uniform(-0.4, 0.4)
    dy, dx = far * tf.sin(towards), far * tf.cos(towards)
    return _moved(images, scale, angle, dy, dx, tf.ones_like(far))


def _shade(images: tf.Tensor, random: _Random) -> tf.Tensor:
    """One shade or colour, also from beyond the image's range."""
    return tf.zeros_like(images) + random.uniform(-1.2, 1.2, 1, 1, images.shape[-1])


def _own_shade(images: tf.Tensor, random: _Random) -> tf.Tensor:
    """The shade of a random pixel of the image."""
    flat = tf.reshape(images, (tf.shape(images)[0], -1, images.shape[-1]))
    place = tf.cast(random.uniform(0.0, float(flat.shape[1]) - 0.5, 1), tf.int32)
    return tf.zeros_like(images) + tf.gather(flat, place, batch_dims=1)[:, :, None]


def _relit(images: tf.Tensor, random: _Random) -> tf.Tensor:
    """Brighter or darker."""
    sign = tf.where(random.coin(), 1.0, -1.0)
    return images * random.uniform(0.5, 1.2) + sign * random.log_uniform(0.1, 1.0)


def _contrast(images: tf.Tensor, random: _Random) -> tf.Tensor:
    local = _local_mean(images)
    gain = tf.where(random.coin(), random.uniform(0.0, 0.5), random.uniform(1.6, 3.0))
    return local + (images - local) * gain


def _blurred(images: tf.Tensor, random: _Random) -> tf.Tensor:
    wide = 4.0 if min(images.shape[1:3]) > 32 else 2.5
    return ops.select(random.coin(), ops.smooth(images, 1.5), ops.smooth(images, wide))


def _noisy(images: tf.Tensor, random: _Random) -> tf.Tensor:
    noise = random.normal(*images.shape[1:])
    noise = ops.select(random.coin(), noise, 2.5 * ops.smooth(noise, 1.2))
    return images + noise * random.log_uniform(0.15, 0.8)


def _texture(images: tf.Tensor, random: _Random) -> tf.Tensor:
    """Stripes or clouds."""
    h, w, c = images.shape[1:]
    rows, columns = tf.meshgrid(
        tf.range(h, dtype=tf.float32), tf.range(w, dtype=tf.float32), indexing="ij"
    )
    angle = random.uniform(0.0, 6.283)
    place = tf.cos(angle) * columns[..., None] + tf.sin(angle) * rows[..., None]
    stripes = tf.sin(place * random.log_uniform(0.1, 1.5) + random.uniform(0.0, 6.283))
    pattern = ops.select(random.coin(), stripes, random.rough_noise(h, w))
    return random.uniform(-0.8, 0.8, 1, 1, c) + pattern * random.uniform(0.1, 0.8, 1, 1, c)


def _swirled(images: tf.Tensor, random: _Random) -> tf.Tensor:
    """Turned by an eighth to three eighths."""
    angle = random.uniform(0.8, 2.4)
    none, same = tf.zeros_like(angle), tf.ones_like(angle)
    return _moved(images, same, angle, none, none, same)


def _mosaic(images: tf.Tensor, random: _Random) -> tf.Tensor:
    """In squares of five pixels."""
    h, w = images.shape[1:3]
    small = tf.image.resize(images, [max(h // 5, 2), max(w // 5, 2)], "area")
    return tf.image.resize(small, [h, w], "nearest")


def _ghost(images: tf.Tensor, random: _Random) -> tf.Tensor:
    """With another image shining through."""
    other = _others(images)
    brighter, between = tf.maximum(images, other[:, ::-1]), 0.5 * (images + other[:, :, ::-1])
    return ops.select(random.coin(), brighter, between)


def _inverted(images: tf.Tensor, random: _Random) -> tf.Tensor:
    """The negative, about the local mean."""
    local = _local_mean(images)
    return local - (images - local)


FILLS: tuple[Fill, ...] = (
    *(_pasted, _matched, _shifted, _shade, _own_shade),
    *(_relit, _contrast, _blurred, _noisy, _texture),
)
UNSEEN: tuple[Fill, ...] = _swirled, _mosaic, _ghost, _inverted


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
    noise = _enlarged(replica.draw(tf.random.stateless_normal, [b, 4, 4, 1], noise), h, w)
    extent = replica.draw(tf.random.stateless_uniform, [b], extent, 0.05, 0.5)
    ordered = tf.sort(tf.reshape(noise[:, ::2, ::2], [b, -1]), axis=1)  # smooth: a quarter tells
    place = tf.cast((1.0 - extent) * (ordered.shape[1] - 1), tf.int32)
    return noise > tf.gather(ordered, place, batch_dims=1)[:, None, None, None]


def _edge_value(images: tf.Tensor, seed: tf.Tensor, replica: ReplicaSlice) -> tf.Tensor:
    """The value of a random pixel of each image's top row, (b, 1, 1, c)."""
    b, w = tf.shape(images)[0], images.shape[2]
    column = replica.draw(tf.random.stateless_uniform, [b], seed, 0, w, tf.int32)
    return tf.gather(images[:, 0], column, batch_dims=1)[:, None, None, :]
