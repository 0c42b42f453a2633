"""The start of G and E: a PCA of the training images in their linear skips."""

from __future__ import annotations

import numpy as np

from anogan.config import Config
from anogan.data.image_set import ImageSet
from anogan.method.networks import SKIP, Networks
from anogan.method.windows import Windows

IMAGES = 512, 4000  # training images of which they are a PCA, as many as
BYTES = 100 * 2**20  # fit into this memory as float32
START_LOG_VARIANCE = -3.0  # of E's latents
TANH_REACH = 0.97  # of white and black, whose exact values tanh cannot reach


def fit_linear_skips(
    images: ImageSet, windows: Windows, config: Config, *networks: Networks
) -> None:
    """Sets the skips of networks to a PCA of the images to train on, as they are seen."""
    fitting = BYTES // (4 * int(np.prod(config.net_shape)))
    count = int(np.clip(fitting, *IMAGES))
    some = np.linspace(0, len(images) - 1, min(len(images), count), dtype=int)
    set_linear_skips(windows.some(images.read(some)[0], count), config, *networks)


def set_linear_skips(images: np.ndarray, config: Config, *networks: Networks) -> None:
    """Sets the skips of networks' G and E to a PCA of images (n, h, w, c).

    images: float in [-1, 1]. E's skip becomes the whitened projection, with log variances of
    START_LOG_VARIANCE; G's the least-squares way back, before the tanh. So training starts near
    PCA's reconstructions instead of from noise. With fewer images than latent dimensions the
    remaining dimensions are left to the convolutions.
    """
    from sklearn.decomposition import PCA

    x = images.reshape(len(images), -1)
    count = min(config.z_dim, len(x) - 1, x.shape[1])
    pca = PCA(count, svd_solver="randomized", random_state=config.seed).fit(x)
    spread = np.maximum(np.sqrt(pca.explained_variance_), 1e-6)
    z = pca.transform(x) / spread
    before_tanh = np.arctanh(TANH_REACH * x)
    middle = before_tanh.mean(axis=0)
    back = np.zeros((config.z_dim, x.shape[1]), np.float32)
    back[:count] = z.T @ (before_tanh - middle) / len(x)
    forth = np.zeros((x.shape[1], 2 * config.z_dim), np.float32)
    forth[:, :count] = pca.components_.T / spread
    shift = np.full(2 * config.z_dim, START_LOG_VARIANCE, np.float32)
    shift[: config.z_dim] = 0.0
    shift[:count] = -(pca.mean_ @ pca.components_.T) / spread
    for nets in networks:
        nets.generator.get_layer(SKIP).set_weights([back, middle])
        if nets.encoder:
            nets.encoder.get_layer(SKIP).set_weights([forth, shift])
