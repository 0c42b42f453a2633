"""Layers and losses: tensors in, tensors out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

KERNEL = 5  # side of all convolution kernels
FEW = 4  # channels, of images
SMALL = 8  # side of maps that count as small


def _rounding_once(convolve: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """convolve, with bfloat16's sums in float32 where TensorFlow would round each partial sum."""

    @functools.wraps(convolve)
    def apply(x: tf.Tensor, kernel: tf.Tensor, *size: tuple[int, int]) -> tf.Tensor:
        if x.dtype == tf.bfloat16 and _rounds_sums():
            found = convolve(tf.cast(x, tf.float32), tf.cast(kernel, tf.float32), *size)
            return tf.cast(found, tf.bfloat16)
        return convolve(x, kernel, *size)

    return apply


@functools.cache
def _rounds_sums() -> bool:
    """Whether TensorFlow's bfloat16 convolutions round each partial sum on this machine.

    They do on processors for which oneDNN has none, those without AVX-512. A sum in bfloat16
    loses what is below 1/256 of it: results and gradients come out several per cent too small.
    """
    with tf.init_scope():
        x, kernel = (
            tf.cast(tf.random.stateless_uniform(shape, (0, 0)), tf.bfloat16)
            for shape in ((1, 4, 4, 512), (KERNEL, KERNEL, 8, 512))
        )
        rough, exact = (
            tf.nn.conv2d_transpose(tf.cast(x, dtype), tf.cast(kernel, dtype), (1, 8, 8, 8), 2)
            for dtype in (tf.bfloat16, tf.float32)
        )
        error = tf.abs(tf.cast(rough, tf.float32) - exact)
        return bool(tf.reduce_any(error > 2**-7 * exact))  # rounded once: 2**-8 at most


@_rounding_once
def _refining(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Stride-1 "SAME" convolution."""
    return tf.nn.conv2d(x, kernel, 1, "SAME")


@_rounding_once
def convolution(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Stride-2 "SAME" convolution: (b, h, w, n), (5, 5, n, m) -> (b, h / 2, w / 2, m), rounded up.

    It and conv_transpose are each other's gradient.
    """

    @tf.custom_gradient
    def apply(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return conv_transpose(dy, kernel, x.shape[1:3]), _to_kernel(x, kernel, dy)

        return tf.nn.conv2d(x, kernel, 2, "SAME"), gradient

    return apply(x, kernel)


@_rounding_once
def conv_transpose(x: tf.Tensor, kernel: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Stride-2 transposed convolution to size: (b, h, w, m), (5, 5, n, m) -> (b, *size, n).

    The gradient of `convolution`, so sizes are met on the way back, odd ones too. Where channels n
    are few, as those of images, it's a 3x3 convolution to 4 n channels and a pixel shuffle (Shi et
    al. 2016, arXiv 1609.05158): the same sums, but libraries are slow at so few innermost values.
    """

    @tf.custom_gradient
    def apply(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return convolution(dy, kernel), _to_kernel(dy, kernel, x)

        if kernel.shape[2] <= FEW and size[0] % 2 == size[1] % 2 == 0:
            return _pixel_shuffle(tf.nn.conv2d(x, _before_shuffle(kernel), 1, "SAME")), gradient
        shape = (tf.shape(x)[0], *size, kernel.shape[2])
        return tf.nn.conv2d_transpose(x, kernel, shape, strides=2), gradient

    return apply(x, kernel)


def _to_kernel(x: tf.Tensor, kernel: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    """The convolution's gradient towards its kernel."""
    small = max(dy.shape[1:3]) <= SMALL
    if small and not tf.config.list_logical_devices("GPU"):
        # A CPU is fastest at convolutions forward, even with images for channels: dy, a step of two
        # between its places, is moved over x.
        pads = [(KERNEL - 2 + side % 2, (KERNEL - 2 + side % 2) // 2) for side in x.shape[1:3]]
        found = tf.raw_ops.Conv2D(
            input=tf.transpose(x, (3, 1, 2, 0)),
            filter=tf.transpose(dy, (1, 2, 0, 3)),
            strides=[1, 1, 1, 1],
            dilations=[1, 2, 2, 1],
            padding="EXPLICIT",
            explicit_paddings=[
                0,
                0,
                *(p for both, first in pads for p in (first, both - first)),
                0,
                0,
            ],
        )
        return tf.transpose(found, (1, 2, 0, 3))
    return tf.raw_ops.Conv2DBackpropFilter(
        input=x,
        filter_sizes=kernel.shape,
        out_backprop=dy,
        strides=[1, 2, 2, 1],
        padding="SAME",
    )


def _before_shuffle(kernel: tf.Tensor) -> tf.Tensor:
    """conv_transpose's kernel (5, 5, n, m) as (3, 3, m, 4 n), for a pixel shuffle after it."""
    n, m = kernel.shape[2:]
    # sub-pixel row p at row i gets row j of x by row 2 (i - j) + p + 1 of the kernel
    kernel = tf.reshape(tf.pad(kernel, [[1, 0], [1, 0], [0, 0], [0, 0]]), (3, 2, 3, 2, n, m))
    kernel = tf.reverse(kernel, [0, 2])
    return tf.reshape(tf.transpose(kernel, (0, 2, 5, 1, 3, 4)), (3, 3, m, 4 * n))


def _pixel_shuffle(x: tf.Tensor) -> tf.Tensor:
    """(b, h, w, 4 n) -> (b, 2 h, 2 w, n): tf.nn.depth_to_space, several times faster."""
    h, w, n = x.shape[1], x.shape[2], x.shape[3] // 4
    x = tf.transpose(tf.reshape(x, (-1, h, w, 2, 2, n)), (0, 1, 3, 2, 4, 5))
    return tf.reshape(x, (-1, 2 * h, 2 * w, n))


@keras.saving.register_keras_serializable("anogan")
class Conv(keras.layers.Conv2D):
    """5x5 stride-2 convolution."""

    def __init__(self, filters: int, **kwargs: Any):
        super().__init__(filters, KERNEL, strides=2, padding="same", **kwargs)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = convolution(inputs, tf.convert_to_tensor(self.kernel))
        # Keras takes BiasAdd, whose gradient in bfloat16 rounds each partial sum on any processor.
        return x + tf.convert_to_tensor(self.bias)


@keras.saving.register_keras_serializable("anogan")
class Refine(keras.layers.Conv2D):
    """Convolution that keeps the size: side x side, stride 1."""

    def __init__(self, filters: int, side: int, **kwargs: Any):
        super().__init__(filters, side, padding="same", kernel_initializer="he_normal", **kwargs)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = _refining(inputs, tf.convert_to_tensor(self.kernel))
        return x + tf.convert_to_tensor(self.bias)  # not BiasAdd, see Conv


@keras.saving.register_keras_serializable("anogan")
class ConvTranspose(keras.layers.Layer):
    """Stride-2 transposed convolution to an exact (height, width), see conv_transpose."""

    def __init__(
        self,
        filters: int,
        size: tuple[int, int],
        use_bias: bool = True,
        initializer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters, self.size = filters, tuple(size)
        self.use_bias, self.initializer = use_bias, initializer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(
            shape=(KERNEL, KERNEL, self.filters, input_shape[-1]),
            initializer=self.initializer,
            name="kernel",
        )
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        x = conv_transpose(x, tf.convert_to_tensor(self.kernel), self.size)
        return x + tf.convert_to_tensor(self.bias) if self.use_bias else x

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *self.size, self.filters)


@keras.saving.register_keras_serializable("anogan")
class BatchNorm(keras.layers.BatchNormalization):
    """Keras's, by TensorFlow's fused operation where the batch is all on one device."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if training and self.synchronized:
            return super().call(inputs, training=True)
        moving = self.moving_mean, self.moving_variance
        known = [[], []] if training else [tf.convert_to_tensor(m) for m in moving]
        y, *found, _, _, _ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=known[0],
            variance=known[1],
            epsilon=self.epsilon,
            is_training=bool(training),
        )
        if training:
            count = tf.cast(tf.size(inputs) / inputs.shape[-1], tf.float32)
            found[1] *= (count - 1.0) / count  # which the operation takes for an unbiased estimate
            for mine, value in zip(moving, found, strict=True):
                mine.assign(mine * self.momentum + value * (1.0 - self.momentum))
        return y


def discriminator_loss(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    """-E[log sigmoid(D(x))] - E[log(1 - sigmoid(D(G(z))))] (Goodfellow et al. 2014, equation 1)."""
    return tf.reduce_mean(tf.nn.softplus(-real_logits)) + fake_loss(fake_logits)


def fake_loss(logits: tf.Tensor) -> tf.Tensor:
    """-E[log(1 - sigmoid(D(x)))], D's loss for images that it should call fake."""
    return tf.reduce_mean(tf.nn.softplus(logits))


def generator_loss(fake_logits: tf.Tensor) -> tf.Tensor:
    """-E[log sigmoid(D(G(z)))], the non-saturating loss (Goodfellow et al. 2014, section 3)."""
    return tf.reduce_mean(tf.nn.softplus(-fake_logits))


def pixel_loss(logits: tf.Tensor, anomalous: tf.Tensor, weight: float) -> tf.Tensor:
    """Cross entropy of D's pixels (b, h, w, 1) towards 0 where anomalous (1), else 1; a mean.

    weight: anomalous pixels are few, so each counts so many times.
    """
    losses = tf.nn.sigmoid_cross_entropy_with_logits(1.0 - anomalous, logits)
    return tf.reduce_mean(losses * (1.0 + (weight - 1.0) * anomalous))


def gradient_penalty(discriminator: Callable[..., Any], images: tf.Tensor) -> tf.Tensor:
    """R1: mean squared norm of D's gradient at real images (Mescheder et al. 2018, equation 9)."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = tf.reduce_sum(discriminator(images, training=True)[0])
    return tf.reduce_mean(sum_per_image(tape.gradient(logits, images) ** 2))


def kl_divergence(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """KL(N(mean, variance) || N(0, 1)) summed over z, (b, z_dim) -> (b,), nats."""
    return 0.5 * tf.reduce_sum(mean**2 + tf.exp(log_variance) - 1.0 - log_variance, axis=1)


def sum_per_image(x: tf.Tensor) -> tf.Tensor:
    """(b, ...) -> (b,) float32 sums."""
    return tf.reduce_sum(tf.cast(tf.reshape(x, (tf.shape(x)[0], -1)), tf.float32), axis=1)


def distance(a: tf.Tensor, b: tf.Tensor, squared: bool) -> tf.Tensor:
    """Sum over all but the first axis of |a - b|, or of its square: (b, ...) -> (b,) float32.

    Between images it's the residual loss, between features of D the discrimination loss
    (Schlegl et al. 2017, equations 3 and 5, which take the absolute value).
    """
    difference = tf.cast(a, tf.float32) - tf.cast(b, tf.float32)
    return sum_per_image(tf.square(difference) if squared else tf.abs(difference))


def residual_map(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
    """|x - G(z)|, mean over channels: (b, h, w, c) in [-1, 1] -> (b, h, w) in [0, 2]."""
    return tf.reduce_mean(tf.abs(images - reconstructions), axis=-1)


def resized(images: tf.Tensor, height: int, width: int, levels: bool = True) -> tf.Tensor:
    """Images (b, H, W, c) in [-1, 1] as Pillow's bicubic filter would resize them: (b, h, w, c).

    levels: in grey levels, as a file would hold them. Of the same size they stay as they are.
    """
    old_height, old_width, c = images.shape[1:]
    if (old_height, old_width) == (height, width):
        return images
    down, across = resize_matrix(old_height, height), resize_matrix(old_width, width)
    x = tf.matmul(down, tf.reshape(images, (-1, old_height, old_width * c)))
    x = tf.matmul(across, tf.reshape(x, (-1, old_width, c)))
    x = tf.clip_by_value(x, -1.0, 1.0)
    if levels:
        x = tf.round((x + 1.0) * 127.5) / 127.5 - 1.0
    return tf.reshape(x, (-1, height, width, c))


@functools.cache
def resize_matrix(old: int, new: int) -> np.ndarray:
    """What each of new pixels in a row takes from each of the old: (new, old)."""
    scale = old / new
    reach = max(scale, 1.0)  # antialiasing: as wide as a new pixel
    x = np.abs(np.arange(old) + 0.5 - ((np.arange(new) + 0.5) * scale)[:, None]) / reach
    near, far = (1.5 * x - 2.5) * x * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))  # Keys' cubic convolution
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def select(where: tf.Tensor, a: Any, b: Any) -> tf.Tensor:
    """As tf.where, of finite numbers: several times faster where `where` is broadcast."""
    chosen = tf.cast(where, tf.float32)
    return chosen * a + (1.0 - chosen) * b


def smooth(maps: tf.Tensor, sigma: float) -> tf.Tensor:
    """Gaussian blur of maps (b, h, w, ...), the edges repeated; sigma in pixels."""
    return along_sides(maps, *(_blur_matrix(side, sigma) for side in maps.shape[1:3]))


def along_sides(x: tf.Tensor, down: np.ndarray, across: np.ndarray) -> tf.Tensor:
    """Matrices (H, h) and (W, w) applied to each row and column: (b, h, w, ...) -> (b, H, W, ...).

    An einsum would be one, which many accelerators do not take, in an exported model, too.
    """
    x = tf.tensordot(tf.tensordot(x, across, [[2], [1]]), down, [[1], [1]])
    last = len(x.shape) - 1
    return tf.transpose(x, (0, last, last - 1, *range(1, last - 1)))


def _blur_matrix(side: int, sigma: float) -> np.ndarray:
    """What each of so many pixels in a row takes from each: (side, side)."""
    radius = max(1, round(3 * sigma))
    bell = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    matrix = np.zeros((side, side), np.float32)
    for offset, weight in zip(range(-radius, radius + 1), bell / bell.sum(), strict=True):
        np.add.at(matrix, (np.arange(side), np.clip(np.arange(side) + offset, 0, side - 1)), weight)
    return matrix
