"""Finding z and measuring the terms of the score, with networks that are not changed by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

import ops
from anogan.config import Config
from anogan.distributed import Workers
from anogan.latent_search import Weights, nearest_start, search_latents
from anogan.networks import Networks, frozen_features, frozen_generator
from anogan.scoring import TERMS, Calibration, Detection, Way, term_weights, trust_in
from anogan.threshold import FEWEST, NormalScores
from utils import to_float

PRIOR = 0.002  # weight of ||z||^2 in the search where the terms are in fractions of their spread
LINEAR_BLUR = 1 / 40  # of the linear residual, in shorter sides of the image
MAP_BLUR = 1 / 28  # standard deviation of the map's Gaussian, in shorter sides of the image
Pool = tuple[tf.Tensor, tf.Tensor]  # latents (n, z_dim) and their images (n, h, w, c)
BATCH = 64  # images at once on a device, unless a caller says otherwise


class Detector:
    """Finds z, measures the terms, and scores; with weights that it never changes."""

    def __init__(self, config: Config, nets: Networks, workers: Workers):
        """nets: those that score, the EMA of the trained ones."""
        self.config, self.nets, self.workers = config, nets, workers
        shape = tf.TensorSpec((None, *config.shape), tf.float32)
        latents = tf.TensorSpec((None, config.z_dim), tf.float32)
        self._generate = tf.function(self.decode, input_signature=[latents])
        self._features = tf.function(self.features_of, input_signature=[shape])
        # XLA gains on a GPU and loses on a CPU, whose convolutions it does without oneDNN.
        jit = bool(tf.config.list_logical_devices("GPU"))
        shared_out = workers.shared_out
        self.search = shared_out(self.search_batch, jit_compile=jit, reduce_retracing=True)
        self.encode = shared_out(self.encode_batch, reduce_retracing=True)
        self.measure = shared_out(self._measure_batch, reduce_retracing=True)

    def generate(self, z: npt.ArrayLike, batch_size: int = 256) -> np.ndarray:
        """G(z) in inference mode, (n, z_dim) -> (n, h, w, c) in [-1, 1]."""
        z = np.asarray(z, np.float32)
        parts = [self._generate(z[i : i + batch_size]) for i in range(0, len(z), batch_size)]
        return np.concatenate([np.zeros((0, *self.config.shape), np.float32), *parts])

    def features(self, images: np.ndarray, batch_size: int = BATCH) -> np.ndarray:
        """D's features of images (n, h, w, c), uint8 or float in [-1, 1]: (n, d)."""
        parts = range(0, len(images), batch_size)
        return np.concatenate([self._features(to_float(images[i : i + batch_size])) for i in parts])

    def detect(
        self,
        images: np.ndarray,
        way: Way,
        calibration: Calibration,
        pool: Pool | None,
        batch_size: int,
    ) -> Detection:
        """images (n, h, w, c), uint8 or float in [-1, 1]; pool: see `terms`."""
        weights, trust = calibration.search_weights, calibration.trust
        found = self.terms(images, way, weights, pool, batch_size, trust)
        found.pop("map_peak")
        parts = calibration.contributions(found)
        return Detection(score=parts.sum(axis=1), contributions=parts, **found)

    def calibrate(
        self, held_out: np.ndarray, seen: np.ndarray, way: Way, pool: Pool | None
    ) -> Calibration:
        """From held-out normal images (n, h, w, c), and some that were trained on; uint8."""
        search_weights = self._search_weights(held_out)

        def terms_of(images: np.ndarray, trust: float | None = None) -> dict[str, Any]:
            size, only = batch_size_of(images), (*TERMS, "map_peak")
            return self.terms(images, way, search_weights, pool, size, trust, only)

        found = terms_of(held_out)
        means, spreads = dict.fromkeys(TERMS, 0.0), dict.fromkeys(TERMS, 1.0)
        trust = None
        if not self.config.is_classic and len(held_out) > 1:
            for name in TERMS:
                mean, std = float(np.mean(found[name])), float(np.std(found[name]))
                # not finer than a twentieth of the mean: so few images can agree by chance
                means[name], spreads[name] = mean, max(std, 0.05 * abs(mean), 1e-6)
            trust = trust_in(terms_of(seen)["residual"], found["residual"])
            if trust < 1:
                found = terms_of(held_out, trust)
        known = Calibration(
            search_weights=search_weights,
            weights=term_weights(self.config, 1.0 if trust is None else trust),
            means=means,
            spreads=spreads,
            trust=trust,
            scores=(),
            tail=None,
            peaks=tuple(found["map_peak"].astype(float).tolist()),
        )
        scores = known.contributions(found).sum(axis=1).astype(float)
        tail = NormalScores(scores).tail if len(scores) >= FEWEST else None
        return dataclasses.replace(known, scores=tuple(scores.tolist()), tail=tail)

    def _search_weights(self, held_out: np.ndarray) -> tuple[float, float, float]:
        """Of R, D and ||z||^2: the paper's, or in fractions of the normal images' spread."""
        lambda_ = self.config.lambda_
        if self.config.is_classic or len(held_out) < 2:
            return 1 - lambda_, lambda_, 0.0
        x = to_float(held_out)
        # mean squared distance of two normal images, in pixels and in D's features
        spread = [
            max(2.0 * float(a.reshape(len(a), -1).var(axis=0).sum()), 1e-6)
            for a in (x, self.features(x))
        ]
        return (1 - lambda_) / spread[0], lambda_ / spread[1], PRIOR

    def terms(
        self,
        images: np.ndarray,
        way: Way,
        weights: tuple[float, float, float],
        pool: Pool | None,
        batch_size: int,
        trust: float | None = None,
        only: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """Everything of a Detection but the score, or only these.

        images (n, h, w, c), uint8 or float in [-1, 1]. weights: of the search's loss. pool: some
        (latents, their images), of which the nearest is where the search starts; without it E finds
        the start. trust: as far as the networks are trusted, their map shows. batch_size: of each
        device, always of this size, for other sizes round otherwise.
        """
        parts, together = [], batch_size * self.workers.devices
        numbers = [np.float32(w) for w in (way.learning_rate, *weights)]
        for i in range(0, max(len(images), 1), together):
            batch = to_float(images[i : i + together])
            padded = np.zeros((together, *self.config.shape), np.float32)
            padded[: len(batch)] = batch
            z = self.encode(padded) if pool is None else nearest_start(padded, *pool)
            losses = None
            if way.steps:
                z, losses = self.search(padded, z, way.steps, *numbers)
            found = self.measure(padded, z, np.float32(1.0 if trust is None else trust))
            found = {**found, "losses": losses}
            found = {k: v for k, v in found.items() if not only or k in only}
            parts.append(
                {k: None if v is None else v.numpy()[: len(batch)] for k, v in found.items()}
            )
        return {
            k: None if v is None else np.concatenate([p[k] for p in parts])
            for k, v in parts[0].items()
        }

    def decode(self, z: tf.Tensor) -> tf.Tensor:
        """G(z), (b, z_dim) -> (b, h, w, c)."""
        return self.nets.generator(z, training=False)

    def features_of(self, images: tf.Tensor) -> tf.Tensor:
        """D's features f, (b, h, w, c) -> (b, d) float32."""
        return tf.cast(self.nets.discriminator(images, training=False)[1], tf.float32)

    def encode_batch(self, images: tf.Tensor) -> tf.Tensor:
        """E's mean z, (b, h, w, c) -> (b, z_dim)."""
        assert self.nets.encoder  # Way.chosen refuses to encode without
        return self.nets.encoder(images, training=False)[:, : self.config.z_dim]

    def search_batch(
        self,
        images: tf.Tensor,
        start: tf.Tensor,
        steps: int,
        learning_rate: tf.Tensor,
        residual: tf.Tensor,
        discrimination: tf.Tensor,
        prior: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """(best z, losses), see search_latents."""
        weights = Weights(residual, discrimination, prior, not self.config.is_classic)
        generator = frozen_generator(self.nets.generator)
        features = frozen_features(self.nets.discriminator)
        return search_latents(generator, features, images, start, steps, learning_rate, weights)

    def _measure_batch(
        self, images: tf.Tensor, z: tf.Tensor, trust: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        squared, blur = not self.config.is_classic, MAP_BLUR * min(self.config.shape[:2])
        g = self.decode(z)
        (real, fx), (fake, fg) = (self.nets.discriminator(x, training=False) for x in (images, g))
        residual_map = ops.residual_map(images, g)
        anomaly_map = ops.smooth(residual_map, blur)
        peak = tf.reduce_max(anomaly_map, axis=[1, 2])
        linear, linear_reconstruction = tf.zeros_like(peak), {}
        if self.nets.linear:  # shows in the map as far as it makes the score
            plain = self.nets.linear(images)
            linear = self._linear_residual(images, plain)
            linear_map = ops.smooth(ops.residual_map(images, plain), blur)
            anomaly_map = trust * anomaly_map + (1.0 - trust) * linear_map
            linear_reconstruction = {"linear_reconstruction": plain}
        return {
            **linear_reconstruction,
            "residual": ops.distance(images, g, squared),
            "discrimination": ops.distance(fx, fg, squared),
            "linear": linear,
            "peak": peak,
            "map_peak": tf.reduce_max(anomaly_map, axis=[1, 2]),
            "realism": real[:, 0],
            "reconstruction_realism": fake[:, 0],
            "z": z,
            "reconstruction": g,
            "residual_map": residual_map,
            "anomaly_map": anomaly_map,
        }

    def _linear_residual(self, images: tf.Tensor, g: tf.Tensor) -> tf.Tensor:
        """How far the linear skips alone, a PCA, are from each image: (b,).

        The fourth power of the smoothed difference lets coherent local differences count.
        """
        blur = LINEAR_BLUR * min(self.config.shape[:2])
        fourth = tf.square(tf.square(ops.smooth(images - g, blur)))
        return tf.sqrt(tf.sqrt(ops.sum_per_image(fourth)))


def batch_size_of(images: np.ndarray) -> int:
    """As many images at once as there are, up to BATCH."""
    return min(max(len(images), 1), BATCH)
