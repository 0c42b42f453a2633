"""Finding z and measuring the terms of the score, with networks that are not changed by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

import ops
from anogan.config import Config
from anogan.method.latent_search import Weights, nearest_start, search_latents
from anogan.method.memory import Memory
from anogan.method.networks import Networks, frozen_features, frozen_generator
from anogan.method.scoring import (
    MAPS,
    TERMS,
    Calibration,
    Detection,
    Way,
    auroc,
    base_weights,
    fit_weights,
)
from anogan.method.synthetic import plant_anomalies, plant_unseen
from anogan.method.threshold import FEWEST, NormalScores, Threshold
from anogan.method.windows import Windows
from anogan.runs.distributed import Workers, graph_of
from utils import to_float

PRIOR = 0.002  # weight of ||z||^2 in the search where the terms are in fractions of their spread
MAP_BLUR = 1 / 28  # standard deviation of the residual map's Gaussian, in shorter sides
PIXEL_BLUR = 1.0  # of the pixel logits', in their own pixels
WINDOWS = 512  # of held-out images, that tell how far apart two are
Pool = tuple[tf.Tensor, tf.Tensor]  # latents (n, z_dim) and their images (n, h, w, c)
BATCH = 64  # images, or windows on them, at once on a device, unless a caller says otherwise
JUDGED, FEWEST_JUDGED = 32, 4  # windows, images held out by which networks in training are judged
PLANTED = 128  # synthetic anomalies of each sort, by which the terms are weighed
JUDGES = plant_unseen, plant_anomalies


class Detector:
    """Finds z, measures the terms, and scores; with weights that it never changes."""

    def __init__(self, config: Config, nets: Networks, workers: Workers):
        """nets: those that score, the EMA of the trained ones."""
        self.config, self.nets, self.workers = config, nets, workers
        self.windows = Windows(config.height, config.width, config.window)
        self.memory: Memory | None = None
        shape = tf.TensorSpec((None, *config.net_shape), tf.float32)
        latents = tf.TensorSpec((None, config.z_dim), tf.float32)
        self._generate = graph_of(self.decode, input_signature=[latents])
        self._features = graph_of(self.features_of, input_signature=[shape])
        self._cut = graph_of(self.windows.cut, reduce_retracing=True)
        self._join = graph_of(self.windows.join, reduce_retracing=True)
        # XLA gains on a GPU and loses on a CPU, whose convolutions it does without oneDNN.
        jit = bool(tf.config.list_logical_devices("GPU"))
        shared_out = workers.shared_out
        self.search = shared_out(self.search_batch, jit_compile=jit, reduce_retracing=True)
        self.encode = shared_out(self.encode_batch, reduce_retracing=True)
        self.measure = shared_out(self.measure_batch, reduce_retracing=True)

    def remember(self, images: np.ndarray) -> None:
        """Builds the memory of normal images (n, H, W, c), uint8."""
        if not self.config.is_classic and len(images) > 1:
            self.memory = Memory(images)

    def size_in_bytes(self) -> int:
        """Of all numbers that scores are made with: weights and memory."""
        weights = [w for net in self.nets.trained().values() for w in net.weights]
        known = [placed for placed, _ in self.memory.known] if self.memory else []
        return 4 * sum(int(np.prod(numbers.shape)) for numbers in (*weights, *known))

    def generate(self, z: npt.ArrayLike, batch_size: int = 256) -> np.ndarray:
        """G(z) in inference mode, (n, z_dim) -> (n, h, w, c) in [-1, 1]."""
        z = np.asarray(z, np.float32)
        parts = [self._generate(z[i : i + batch_size]) for i in range(0, len(z), batch_size)]
        return np.concatenate([np.zeros((0, *self.config.net_shape), np.float32), *parts])

    def features(self, images: np.ndarray, batch_size: int = BATCH) -> np.ndarray:
        """D's features of images (n, H, W, c), uint8 or float in [-1, 1]: (n, d).

        Of several windows the mean.
        """
        parts = self.windows.in_parts(images, batch_size)
        found = [self.windows.apart(self._features(part)) for part in parts]
        return np.concatenate([tf.reduce_mean(features, axis=1) for features in found])

    def detect(
        self,
        images: np.ndarray,
        way: Way,
        calibration: Calibration,
        pool: Pool | None,
        batch_size: int,
    ) -> Detection:
        """images (n, H, W, c), uint8 or float in [-1, 1]; pool: see `terms`."""
        found = self.terms(images, way, calibration.search_weights, pool, batch_size)
        windows = {name: found.pop(name) for name in TERMS}
        worst = calibration.worst_windows(windows)
        parts = calibration.contributions(windows)[worst]
        losses, score, normal = found["losses"], parts.sum(axis=1), calibration.normal_scores
        return Detection(
            score=score,
            **{name: values[worst] for name, values in windows.items()},
            contributions=parts,
            z=found["z"][worst],
            losses=None if losses is None else losses[worst],
            reconstruction=found["reconstruction"],
            residual_map=found["residual_map"],
            anomaly_map=calibration.anomaly_map(found),
            is_anomaly=score > normal.threshold(Threshold.target_fpr) if normal else None,
            p_value=normal.p_value(score) if normal else None,
        )

    def calibrate(self, held_out: np.ndarray, way: Way, pool: Pool | None) -> Calibration:
        """From held-out normal images (n, H, W, c), uint8."""
        search_weights, classic = self._search_weights(held_out), self.config.is_classic

        def terms_of(images: np.ndarray, *only: str) -> dict[str, Any]:
            return self.terms(images, way, search_weights, pool, batch_size_of(images), only)

        found, base = terms_of(held_out, *TERMS, *MAPS), base_weights(self.config)
        means, spreads = dict.fromkeys(TERMS, 0.0), dict.fromkeys(TERMS, 1.0)
        known = Calibration(
            search_weights=search_weights,
            weights=base,
            means=means,
            spreads=spreads,
            expected=None,
            maps={name: float(name == "residual_part") for name in MAPS},
            scores=(),
            tail=None,
            peaks=(),
        )
        if not classic and len(held_out) > 1:
            for name in TERMS:
                mean, std = float(np.mean(found[name])), float(np.std(found[name]))
                # not finer than a twentieth of the mean: so few images can agree by chance
                means[name], spreads[name] = mean, max(std, 0.05 * abs(mean), 1e-6)
            planted = [known.worst(terms_of(x, *TERMS)) for x in self.planted(held_out)]
            weights, expected = fit_weights(base, known.worst(found), planted)
            known = dataclasses.replace(known, weights=weights, expected=expected)
            known = dataclasses.replace(known, maps=known.map_weights(found, base))
        scores = known.scores_of(found)
        return dataclasses.replace(
            known,
            scores=tuple(scores.tolist()),
            tail=NormalScores(scores).tail if len(scores) >= FEWEST else None,
            peaks=tuple(known.anomaly_map(found).max(axis=(1, 2)).astype(float).tolist()),
        )

    def planted(self, images: np.ndarray) -> list[np.ndarray]:
        """Normal images (n, H, W, c), uint8, with anomalies not trained on, and with large ones."""
        some = to_float(images[np.arange(PLANTED) % len(images)])
        found = [plant(tf.constant(some), (self.config.seed, 1)) for plant in JUDGES]
        return [p.numpy()[m.numpy().any(axis=(1, 2, 3))] for p, m in found]

    def judge(self, held_out: np.ndarray) -> Callable[[], dict[str, float]]:
        """A function that says cheaply how good the networks are at present.

        On some held-out normal images (n, H, W, c), uint8, with E's z: the squared error of their
        reconstructions, and the AUROC of the networks' terms, with their usual weights, on them and
        on the same with anomalies planted. Without encoder or two held-out images it says nothing.
        """
        if self.config.is_classic or len(held_out) < 2:
            return dict
        way = Way("encoder", 0, 0.0)
        images = held_out[: max(JUDGED // len(self.windows), FEWEST_JUDGED)]
        planted, masks = plant_unseen(tf.constant(to_float(images)), (self.config.seed, 1))
        shows = masks.numpy().any(axis=(1, 2, 3))
        both = np.concatenate([to_float(images), planted.numpy()[shows]])
        base = {k: v for k, v in base_weights(self.config).items() if k != "memory"}

        def judged() -> dict[str, float]:
            only = *base, "reconstruction"
            found = self.terms(both, way, (0.0, 0.0, 0.0), None, BATCH, only)  # as calibrate does
            score = np.zeros(found["peak"].shape)
            for name, weight in base.items():
                normal = found[name][: len(images)]
                score += weight * (found[name] - normal.mean()) / max(float(normal.std()), 1e-6)
            highest = score.max(axis=1)
            error = (found["reconstruction"][: len(images)] - both[: len(images)]) ** 2
            auc = auroc(highest[: len(images)], highest[len(images) :])
            return {"val_reconstruction_loss": float(error.mean()), "val_auc": auc}

        return judged

    def _search_weights(self, held_out: np.ndarray) -> tuple[float, float, float]:
        """Of R, D and ||z||^2: the paper's, or in fractions of the normal images' spread."""
        lambda_ = self.config.lambda_
        if self.config.is_classic or len(held_out) < 2:
            return 1 - lambda_, lambda_, 0.0
        x = self.windows.some(held_out, WINDOWS)
        features = np.concatenate(
            [self._features(x[i : i + BATCH]) for i in range(0, len(x), BATCH)]
        )
        # mean squared distance of two normal images, in pixels and in D's features
        spread = [
            max(2.0 * float(a.reshape(len(a), -1).var(axis=0).sum()), 1e-6) for a in (x, features)
        ]
        return (1 - lambda_) / spread[0], lambda_ / spread[1], PRIOR

    def terms(
        self,
        images: np.ndarray,
        way: Way,
        weights: tuple[float, float, float],
        pool: Pool | None,
        batch_size: int,
        only: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """All that a Detection is made of, or only these.

        Of TERMS, z and losses a row for each window: (n, windows, ...); of the reconstruction and
        the maps one for each image: (n, H, W, ...).

        images (n, H, W, c), uint8 or float in [-1, 1]. weights: of the search's loss. pool: some
        (latents, their images), of which the nearest is where the search starts; without it E finds
        the start. batch_size: windows on each device at a time, always of this size, for other
        sizes round otherwise.
        """
        parts, count = [], len(self.windows)
        together = max(batch_size // count, 1) * self.workers.devices
        numbers = [np.float32(w) for w in (way.learning_rate, *weights)]
        for i in range(0, max(len(images), 1), together):
            batch = to_float(images[i : i + together])
            padded = np.zeros((together, *self.config.shape), np.float32)
            padded[: len(batch)] = batch
            cut = self._cut(padded)
            z = self.encode(cut) if pool is None else nearest_start(cut, *pool)
            found = {"losses": None}
            if way.steps:
                z, found["losses"] = self.search(cut, z, way.steps, *numbers)
            measured = {**self.measure(cut, z), "z": z}
            found["reconstruction"] = self._join(measured.pop("reconstruction"))
            for name in MAPS.keys() & measured.keys():
                found[name] = self._join(measured.pop(name))[..., 0]
            found |= {name: self.windows.apart(v) for name, v in measured.items()}
            if found["losses"] is not None:
                found["losses"] = self.windows.apart(found["losses"])
            found["residual_map"] = ops.residual_map(padded, found["reconstruction"])
            new, found["memory_part"] = self.newness(padded)
            found["memory"] = tf.repeat(new[:, None], count, axis=1)
            found = {k: v for k, v in found.items() if not only or k in only}
            parts.append(
                {k: None if v is None else v.numpy()[: len(batch)] for k, v in found.items()}
            )
        return {
            k: None if v is None else np.concatenate([p[k] for p in parts])
            for k, v in parts[0].items()
        }

    def newness(self, images: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
        """What the memory says of images, or 0 where there is none: (b,), (b, H, W)."""
        if self.memory:
            return self.memory.maps(images)
        return tf.zeros(len(images)), tf.zeros(images.shape[:3])

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

    def measure_batch(self, images: tf.Tensor, z: tf.Tensor) -> dict[str, tf.Tensor]:
        """Of windows (b, h, w, c) and their latents: terms (b,), and maps (b, h, w, 1 or c)."""
        squared, (h, w, _) = not self.config.is_classic, self.config.net_shape
        g = self.decode(z)
        (real, fx, *pixels), (fake, fg, *_) = (
            self.nets.discriminator(x, training=False) for x in (images, g)
        )
        residual = ops.smooth(ops.residual_map(images, g), MAP_BLUR * min(h, w))
        odd, odd_map = tf.zeros(tf.shape(images)[0]), tf.zeros_like(residual)[..., None]
        if pixels:  # low where D finds the image abnormal
            logits = ops.smooth(-pixels[0], PIXEL_BLUR)
            odd = tf.reduce_max(logits, axis=[1, 2, 3])
            odd_map = tf.image.resize(tf.nn.softplus(logits), [h, w])
        return {
            "residual": ops.distance(images, g, squared),
            "discrimination": ops.distance(fx, fg, squared),
            "peak": tf.reduce_max(residual, axis=[1, 2]),
            "realism": real[:, 0],
            "reconstruction_realism": fake[:, 0],
            "pixels": odd,
            "reconstruction": g,
            "residual_part": residual[..., None],
            "pixel_part": odd_map,
        }


def batch_size_of(images: np.ndarray) -> int:
    """As many images at once as there are, up to BATCH."""
    return min(max(len(images), 1), BATCH)
