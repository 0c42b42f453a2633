"""Pretrained networks by name, and their maps of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from anogan.features import lite0

Maps = Callable[[tf.Tensor], list[tf.Tensor]]  # normalised images (b, h, w, 3) -> a map a block


class Kind(NamedTuple):
    """A pretrained network: how it is loaded, what it takes, what it gives."""

    load: Callable[[tuple[int, ...]], Maps]  # from the numbers of the blocks whose maps are asked
    mean: float | tuple[float, ...]  # of images in [0, 1]: taken away, …
    deviation: float | tuple[float, ...]  # … then divided by
    strides: tuple[int, ...]  # of each block's map, pixels
    channels: tuple[int, ...]  # of each block's map
    blocks: tuple[int, ...]  # whose maps are used by default


# Another network, such as one of keras.applications, is another line; nothing else asks the name.
BACKBONES = {
    "lite0": Kind(
        lite0.load, lite0.MEAN, lite0.DEVIATION, lite0.STRIDES, lite0.CHANNELS, blocks=(4, 10)
    )
}


class Backbone:
    """A frozen network of BACKBONES in inference mode."""

    def __init__(self, name: str, blocks: tuple[int, ...] = ()):
        """Load the network as far up as it is used; UserError where its weights are missing."""
        kind = BACKBONES[name]
        self.name, self.blocks = name, blocks or kind.blocks
        self.strides = tuple(kind.strides[i] for i in self.blocks)
        self.channels = tuple(kind.channels[i] for i in self.blocks)
        self._kind, self._network = kind, kind.load(self.blocks)
        # One graph for all sizes: the weights are constants of each graph
        self._graph = tf.function(self._network, [tf.TensorSpec((None, None, None, 3), tf.float32)])

    def __call__(self, images: np.ndarray | tf.Tensor) -> list[tf.Tensor]:
        """Return the blocks' maps, each (b, h / stride, w / stride, channels), rounded up.

        images: (b, h, w, 1 or 3) of any size, uint8 or float in [-1, 1]. Within a tf.function the
        network becomes a part of it. Gradients reach the images.
        """
        x = tf.cast(images, tf.float32)
        x = x / 255.0 if images.dtype == tf.uint8 else (x + 1.0) / 2.0
        if x.shape[-1] == 1:
            x = tf.repeat(x, 3, axis=-1)
        x = (x - self._kind.mean) / self._kind.deviation
        return (self._network if tf.inside_function() else self._graph)(x)
