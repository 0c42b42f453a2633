"""The whole way from an image to its score as one TensorFlow graph, for a model to be exported.

image (h, w, c), uint8 -> score (), is_anomaly (), anomaly_map (H, W), threshold ()

c is 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA); H and W are the run's height and width.
Devices take images of one size, (1, H, W, C) as they are read, and resize them before.
"""

from __future__ import annotations

import functools
from typing import Any

import PIL
import tensorflow as tf

import ops
from anogan.config import Config
from anogan.errors import UserError
from anogan.features.feature_bank import FeatureBank
from anogan.method.detector import Detector
from anogan.method.memory_bank import MemoryBank
from anogan.method.scoring import MAPS, TERMS, Calibration
from anogan.method.threshold import Threshold

# By number of channels less 1: where red, green, blue and alpha are, of the channels and a 255
# after them. Of five channels or more there is no line, and looking it up fails.
CHANNELS = (0, 0, 0, 1), (0, 0, 0, 1), (0, 1, 2, 3), (0, 1, 2, 3)
LARGEST_GRAPH = 2**31 - 2**20  # bytes of numbers in a protocol buffer, as both formats are
LUMA = 19595.0, 38470.0, 7471.0  # Pillow's grey in 65536ths of red, green and blue
TALL_DOWN_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
FIXED_POINT = 2.0**22  # Pillow's unit of the weights with which it resizes
COARSE, STEPS = 2.0**11, 2**7  # units in which float32 computes exactly what it is used for


def read_as_float(image: tf.Tensor, config: Config) -> tf.Tensor:
    """(h, w, c) uint8 -> (1, H, W, C) in [-1, 1], to the last bit as utils.load_image makes it."""
    x = tf.pad(tf.cast(image, tf.float32), [[0, 0], [0, 0], [0, 1]], constant_values=255.0)
    x = tf.gather(x, tf.gather(CHANNELS, tf.shape(image)[2] - 1), axis=2)
    if config.crop:
        for axis, side in enumerate(config.crop):
            # of an image that is smaller than the crop some places do not exist: gather fails
            first = tf.maximum(tf.shape(image)[axis] - side, 0) // 2
            x = tf.gather(x, first + tf.range(side), axis=axis)
    colour, alpha = x[..., :3], x[..., 3:]
    x = tf.floor((colour * alpha + 255.0 * (255.0 - alpha)) / 255.0 + 0.5)  # on white
    if config.channels == 1:
        grey = tf.reduce_sum(x * LUMA, axis=-1, keepdims=True)
        x = tf.floor((grey + 32768.0) / 65536.0)
    x = _resized(x, *config.view[:2])
    return tf.reshape(x / 127.5 - 1.0, (1, *config.view))


def _resized(x: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """(h, w, c) -> (height, width, c): whole numbers from 0 to 255, by Pillow's bicubic filter.

    As Pillow does it: across, then down, with rounding after each; from version 13 on the other
    way round where that is quicker.
    """
    h, w = tf.unstack(tf.shape(x)[:2])
    x = tf.transpose(x, (2, 0, 1))
    down, across = _weights(h, height), _weights(w, width)
    found = _down(down, _across(x, across))
    if TALL_DOWN_FIRST:  # both, and no tf.cond, which many accelerators do not take
        tall = tf.logical_and(h > height, h - height > 2 * (w - width))
        found = tf.where(tall, _across(_down(down, x), across), found)
    return tf.transpose(found, (1, 2, 0))


def _down(weights: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """(height, h), (c, h, w) -> (c, height, w), rounded."""
    coarse, fine = _split(weights)
    return _to_bytes(tf.matmul(coarse, x), tf.matmul(fine, x))


def _across(x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """(c, h, w) -> (c, h, width), rounded: a large product is faster than one for each channel."""
    c, h, w = tf.unstack(tf.shape(x))
    rows = tf.reshape(x, (c * h, w))
    found = _to_bytes(*(tf.matmul(rows, part, transpose_b=True) for part in _split(weights)))
    return tf.reshape(found, (c, h, -1))


def _split(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Two parts whose sums and products with grey levels float32 holds exactly."""
    coarse = tf.round(x * COARSE) / COARSE
    return coarse, x - coarse


def _to_bytes(coarse: tf.Tensor, fine: tf.Tensor) -> tf.Tensor:
    """The sum of both, rounded and from 0 to 255."""
    whole = tf.floor(coarse + 0.5)
    return tf.clip_by_value(whole + tf.floor(coarse + 0.5 - whole + fine), 0.0, 255.0)


def _weights(old: tf.Tensor, new: int) -> tf.Tensor:
    """What each of new pixels in a row takes from each of the old: (new, old).

    To the last bit as from float64, which many accelerators lack: what float32 does not hold
    exactly is kept in two parts.
    """
    reach = 2 * tf.maximum(old, new)  # antialiasing: at least as far as a new pixel is wide
    apart = (2 * tf.range(old) + 1) * new - (2 * tf.range(new)[:, None] + 1) * old
    apart = tf.minimum(tf.abs(apart), 2 * reach)
    steps = STEPS * apart // reach
    rest = tf.cast(STEPS * apart - steps * reach, tf.float32)
    # the distance is x + d, in pixels or new pixels; at x the polynomials are exact
    x, d = tf.cast(steps, tf.float32) / STEPS, rest / tf.cast(STEPS * reach, tf.float32)
    # Keys' cubic convolution with a = -0.5, and Taylor's polynomials of what d adds to it
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    more_near = ((4.5 * x - 5.0) * x + (4.5 * x - 2.5 + 1.5 * d) * d) * d
    more_far = ((-1.5 * x + 5.0) * x - 4.0 + (-1.5 * x + 2.5 - 0.5 * d) * d) * d
    zero = tf.zeros_like(x)
    main = tf.where(x < 1.0, near, tf.where(x < 2.0, far, zero))
    more = tf.where(x < 1.0, more_near, tf.where(x < 2.0, more_far, zero))
    # divided by their sum; then what is left of that division
    total, fine_total = (tf.reduce_sum(part, axis=1, keepdims=True) for part in _split(main))
    fine_total += tf.reduce_sum(more, axis=1, keepdims=True)
    both = total + fine_total
    found = tf.round((main + more) / both * FIXED_POINT) / FIXED_POINT
    coarse, fine = _split(found)
    left = (main - coarse * total) - (coarse * fine_total + fine * both) + more
    return found + tf.round(left / both * FIXED_POINT) / FIXED_POINT


def graph_and_facts(
    config: Config,
    detector: Detector,
    calibration: Calibration,
    threshold: Threshold,
    steps: int,
) -> tuple[InferenceGraph, dict[str, str]]:
    """Return the graph of a trained model, and what is to be known of it.

    steps: of its training. UserError where there is no threshold, or it would be too large.
    """
    value, how = threshold.choose(calibration.normal_scores, None, None)
    if value is None:
        raise UserError(f"--export needs a threshold, and there is {how}: give --threshold")
    size = detector.size_in_bytes()
    if size > LARGEST_GRAPH:
        raise UserError(
            f"--export: weights and memory of {size / 2**30:.1f} GB are more than the 2 GB that a "
            "file can hold: train on smaller images (--output_height)"
        )
    facts = {
        "dataset": config.dataset,
        "steps": f"{steps}",
        "threshold": f"{value!r}",
        "threshold_is": how,
    }
    return InferenceGraph(config, detector, calibration, value), facts


class InferenceGraph(tf.Module):
    """The encoder's way to score one image, as `score`; of a resized one see `of_resized`."""

    def __init__(
        self, config: Config, detector: Detector, calibration: Calibration, threshold: float
    ):
        super().__init__()
        nets = detector.inference.nets.trained()
        self.nets = list(nets.values())  # SavedModel looks for variables here

        self.scored = functools.partial(
            _scored, detector=detector, calibration=calibration, threshold=threshold
        )
        self.view = config.view

        def score(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.scored(read_as_float(image, config))

        signature = [tf.TensorSpec((None, None, None), tf.uint8, name="image")]
        self.score = tf.function(score, input_signature=signature)

    def of_resized(self) -> Any:
        """Return what scores an image that is resized, (1, H, W, C) uint8, as a tf.function.

        As an attribute it would be traced for, and saved with, every SavedModel.
        """

        def score(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.scored(tf.cast(image, tf.float32) / 127.5 - 1.0)

        signature = [tf.TensorSpec((1, *self.view), tf.uint8, name="image")]
        return tf.function(score, input_signature=signature)


def _scored(
    x: tf.Tensor, detector: Detector, calibration: Calibration, threshold: float
) -> dict[str, tf.Tensor]:
    """(1, H, W, C) in [-1, 1] -> what Detector.terms and Calibration find for batches."""
    inference, windows = detector.inference, detector.inference.windows
    seen = ops.resized(x, *inference.config.shape[:2])
    cut = windows.cut(seen)
    found = inference.measure_batch(cut, inference.encode_batch(cut))
    found |= {name: windows.join(found[name])[0, ..., 0] for name in MAPS if name in found}
    banks: dict[str, tuple[MemoryBank | FeatureBank, tf.Tensor]] = {}
    if detector.memory:
        banks["memory"] = detector.memory.frozen(), seen
    if detector.feature_bank:
        banks["features"] = detector.feature_bank, x
    for name, (bank, images) in banks.items():
        value, places = bank.distances(images)
        found |= {name: tf.repeat(value, len(windows)), f"{name}_part": places[0]}
    score = tf.zeros(len(windows))
    for name in filter(found.__contains__, TERMS):  # the others' weight is 0
        weight = calibration.weights[name] / calibration.spreads[name]
        score += weight * (found[name] - calibration.means[name])
    return {
        "score": tf.reduce_max(score),
        # so is an image of which a window's score is not a number, which a maximum can hide;
        # not(score <= threshold) would not do: TensorFlow makes it score > threshold
        "is_anomaly": tf.reduce_any((score > threshold) | tf.math.is_nan(score)),
        "anomaly_map": tf.add_n(
            [calibration.maps[name] * found[name] for name in MAPS if name in found]
        ),
        "threshold": tf.constant(threshold, tf.float32),
    }
