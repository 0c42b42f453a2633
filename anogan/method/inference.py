"""The networks at work, not changed by it: finding z, and the terms that they measure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

import ops
from anogan.config import Config
from anogan.method.latent_search import Weights, nearest_start, search_latents
from anogan.method.networks import Networks, frozen_features, frozen_generator
from anogan.method.scoring import MAPS, Search, auroc, base_weights
from anogan.method.synthetic import plant_unseen
from anogan.method.windows import Windows
from anogan.runs.distributed import Workers, graph_of
from anogan.runs.run_images import RunImages
from utils import to_float, to_uint8

BATCH = 256  # images, or windows on them, at once on a device, unless a caller says otherwise
RESIZED = 64  # images resized at once: as floats of the size that is read they take memory
JUDGED, FEWEST_JUDGED = 32, 4  # windows, images held out by which networks in training are judged
ONE_LEVEL = 1 / 127.5  # a grey level's width in [-1, 1]
Pool = tuple[tf.Tensor, tf.Tensor]  # latents (n, z_dim) and their images (n, h, w, c)
# Of images as they are read, in [-1, 1], of which the first so many matter: (values (b,), their
# places (b, H, W)), of at least these
Compare = Callable[[np.ndarray, int], tuple[tf.Tensor, tf.Tensor]]


class Inference:
    """Graphs of the networks that score, the EMA of the trained ones."""

    def __init__(self, config: Config, nets: Networks, workers: Workers):
        self.config, self.nets, self.workers = config, nets, workers
        self.windows = Windows(config.height, config.width, config.window)
        shape = tf.TensorSpec((None, *config.net_shape), tf.float32)
        latents = tf.TensorSpec((None, config.z_dim), tf.float32)
        self._generate = graph_of(self.decode, input_signature=[latents])
        self._features = graph_of(self.features_of, input_signature=[shape])
        self._abnormal = graph_of(
            lambda x: self._pixel_term(self.nets.discriminator(x, training=False)[2])[1],
            input_signature=[shape],
        )
        self._cut = graph_of(self.windows.cut, reduce_retracing=True)
        self._join = graph_of(self.windows.join, reduce_retracing=True)
        # XLA gains on a GPU and loses on a CPU, whose convolutions it does without oneDNN.
        jit = bool(tf.config.list_logical_devices("GPU"))
        shared_out = workers.shared_out
        self.search = shared_out(self.search_batch, jit_compile=jit, reduce_retracing=True)
        self.encode = shared_out(self.encode_batch, reduce_retracing=True)
        self.measure = shared_out(self.measure_batch, reduce_retracing=True)

    def scaled(self, images: np.ndarray) -> np.ndarray:
        """Images (n, H, W, c) as the networks see them: uint8 or float in [-1, 1], as they are."""
        height, width, _ = self.config.shape
        if images.shape[1:3] == (height, width):
            return images
        found = [
            ops.resized(to_float(images[i : i + RESIZED]), height, width).numpy()
            for i in range(0, len(images), RESIZED)
        ]
        if not found:
            return np.zeros((0, *self.config.shape), images.dtype)
        small = np.concatenate(found)
        return to_uint8(small) if images.dtype == np.uint8 else small

    def fixed_latents(self, count: int) -> np.ndarray:
        """So many latents (count, z_dim), always the same."""
        rng = np.random.default_rng(self.config.seed)
        return rng.standard_normal((count, self.config.z_dim), np.float32)

    def generate(self, z: npt.ArrayLike, batch_size: int = BATCH) -> np.ndarray:
        """G(z) in inference mode, (n, z_dim) -> (n, h, w, c) in [-1, 1]."""
        z = np.asarray(z, np.float32)
        parts = [self._generate(z[i : i + batch_size]) for i in range(0, len(z), batch_size)]
        return np.concatenate([np.zeros((0, *self.config.net_shape), np.float32), *parts])

    def features(self, images: np.ndarray, batch_size: int = BATCH) -> np.ndarray:
        """D's features of images (n, H, W, c), uint8 or float in [-1, 1]: (n, d).

        Of several windows the mean.
        """
        return self._of_windows(self._features, tf.reduce_mean, images, batch_size)

    def abnormal_pixels(self, images: np.ndarray, batch_size: int = BATCH) -> np.ndarray:
        """How abnormal D finds each image's most abnormal pixel: (n, H, W, c), uint8 -> (n,)."""
        return self._of_windows(self._abnormal, tf.reduce_max, images, batch_size)

    def _of_windows(
        self,
        measure: Callable[..., tf.Tensor],
        reduce: Callable[..., tf.Tensor],
        images: np.ndarray,
        batch_size: int,
    ) -> np.ndarray:
        """What is measured of each image's windows, reduced to one: (n, H, W, c) -> (n, ...)."""
        parts = self.windows.in_parts(self.scaled(images), batch_size)
        return np.concatenate([reduce(self.windows.apart(measure(part)), axis=1) for part in parts])

    def squared_spreads(self, images: np.ndarray) -> tuple[float, float]:
        """The mean squared distance of two windows on images, in pixels and in D's features."""
        x = self.windows.some(self.scaled(images), self.config.recipe.spread_windows)
        parts = [self._features(x[i : i + BATCH]) for i in range(0, len(x), BATCH)]
        pixels, features = (
            max(2.0 * float(a.reshape(len(a), -1).var(axis=0).sum()), 1e-6)
            for a in (x, np.concatenate(parts))
        )
        return pixels, features

    def together(self, count: int, most: int = BATCH) -> int:
        """So many windows at once as there are on so many images, at most `most`."""
        return min(count * len(self.windows), most)

    def terms(
        self,
        images: np.ndarray,
        search: Search,
        weights: tuple[float, float, float],
        pool: Pool | None,
        batch_size: int,
        only: Collection[str] | None = None,
        banks: Mapping[str, Compare] | None = None,
    ) -> dict[str, Any]:
        """All that a Detection is made of, or only these.

        Of the terms, z and losses a row for each window: (n, windows, ...); of the reconstruction
        and the maps one for each image: (n, H, W, ...).

        images (n, H, W, c), uint8 or float in [-1, 1], as they are read. weights: of the search's
        loss. pool: some (latents, their images), of which the nearest is where the search starts;
        without it E finds the start. batch_size: windows on each device at a time, always of this
        size, for other sizes round otherwise. banks: {term: what compares images with a bank}.
        """
        parts, count = [], len(self.windows)
        together = max(batch_size // count, 1) * self.workers.devices
        numbers = [np.float32(w) for w in (search.learning_rate, *weights)]
        for i in range(0, max(len(images), 1), together):
            batch = to_float(images[i : i + together])
            views = np.zeros((together, *self.config.view), np.float32)
            views[: len(batch)] = batch
            padded = self.scaled(views)
            cut = self._cut(padded)
            z = self.encode(cut) if pool is None else nearest_start(cut, *pool)
            losses = None
            if search.steps:
                z, losses = self.search(cut, z, search.steps, *numbers)
            found = {**self.measure(cut, z), "z": z}
            joined = {k: self._join(found.pop(k)) for k in ("reconstruction", *MAPS) if k in found}
            found = {name: self.windows.apart(values) for name, values in found.items()}
            found["losses"] = None if losses is None else self.windows.apart(losses)
            found["reconstruction"] = joined.pop("reconstruction")
            found["image"] = tf.constant(padded)
            found["residual_map"] = ops.residual_map(padded, found["reconstruction"])
            found |= {name: values[..., 0] for name, values in joined.items()}
            for name, compare in (banks or {}).items():
                values, found[f"{name}_part"] = compare(views, len(batch))
                found[name] = tf.repeat(values[:, None], count, axis=1)
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
        assert self.nets.encoder  # Search.resolve refuses to encode without
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
        recipe = self.config.recipe
        weights = Weights(residual, discrimination, prior, recipe.squared)
        nets = frozen_generator(self.nets.generator), frozen_features(self.nets.discriminator)
        return search_latents(
            *nets, images, start, steps, learning_rate, weights, recipe.search_betas
        )

    def measure_batch(self, images: tf.Tensor, z: tf.Tensor) -> dict[str, tf.Tensor]:
        """Of windows (b, h, w, c) and their latents: terms (b,), and maps (b, h, w, 1 or c)."""
        recipe, (h, w, _) = self.config.recipe, self.config.net_shape
        g = self.decode(z)
        (real, fx, *pixels), (fake, fg, *_) = (
            self.nets.discriminator(x, training=False) for x in (images, g)
        )
        residual = ops.smooth(ops.residual_map(images, g), recipe.map_blur * min(h, w))
        found = {
            "residual": ops.distance(images, g, recipe.squared),
            "discrimination": ops.distance(fx, fg, recipe.squared),
            "peak": tf.reduce_max(residual, axis=[1, 2]),
            "realism": real[:, 0],
            "reconstruction_realism": fake[:, 0],
            "reconstruction": g,
            "residual_part": residual[..., None],
        }
        if pixels:
            logits, found["pixels"] = self._pixel_term(pixels[0])
            found["pixel_part"] = tf.image.resize(tf.nn.softplus(logits), [h, w])
        return found

    def _pixel_term(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """D's logits (b, y, x, 1), low where it finds an image abnormal -> high there, highest."""
        logits = ops.smooth(-pixels, self.config.recipe.pixel_blur)
        return logits, tf.reduce_max(logits, axis=[1, 2, 3])

    def judge(self, held_out: np.ndarray) -> Callable[[], dict[str, float]]:
        """Return a function that cheaply measures how good the networks are at present.

        On some held-out normal images (n, H, W, c), uint8, with E's z: the squared error of their
        reconstructions, and the AUROC of the networks' terms, with their usual weights, on them and
        on the same with anomalies planted. Nothing without encoder or two held-out images.
        """
        if not self.nets.encoder or len(held_out) < 2:
            return dict
        search = Search("encoder", 0, 0.0)
        images = held_out[: max(JUDGED // len(self.windows), FEWEST_JUDGED)]
        planted, masks = plant_unseen(tf.constant(to_float(images)), (self.config.seed, 1))
        shows = masks.numpy().any(axis=(1, 2, 3))
        both = np.concatenate([to_float(images), planted.numpy()[shows]])
        base, count = base_weights(self.config), len(images)

        def judged() -> dict[str, float]:
            only = *base, "reconstruction"
            found = self.terms(both, search, (0.0, 0.0, 0.0), None, self.together(len(both)), only)
            score = np.zeros(found["peak"].shape)
            for name, weight in base.items():
                if name in found:  # no bank's terms
                    normal = found[name][:count]
                    score += weight * (found[name] - normal.mean()) / max(float(normal.std()), 1e-6)
            highest = score.max(axis=1)
            error = (found["reconstruction"][:count] - self.scaled(both[:count])) ** 2
            auc = auroc(highest[:count], highest[count:])
            return {"val_reconstruction_loss": float(error.mean()), "val_auc": auc}

        return judged

    def unexplained(self, images: RunImages) -> float | None:
        """The fraction of held-out images' variance that their reconstructions leave.

        1 is no better than the mean image: collapse. None without encoder or held-out images, or
        where these differ by less than a grey level.
        """
        windows, held_out, seen = self.windows, self.scaled(images.held_out), images.seen
        if not self.nets.encoder or not len(held_out):
            return None
        mean = sum(x.sum(axis=0) for x in windows.in_parts(seen, 64)) / (len(seen) * len(windows))
        variance = left = 0.0
        for x in windows.in_parts(held_out, 64):
            variance += float(((x - mean) ** 2).sum())
            left += float(((x - self.generate(self.encode_batch(x))) ** 2).sum())
        values = len(held_out) * len(windows) * np.prod(self.config.net_shape)
        return None if variance < ONE_LEVEL**2 * values else left / variance
