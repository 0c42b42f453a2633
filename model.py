"""The DCGAN: builds G, D and E, trains them, scores images, saves and restores itself."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import shutil
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile
from zlib import crc32

import keras
import numpy as np
import tensorflow as tf
from scipy.stats import rankdata

import ops
from anogan import networks
from anogan.config import Config
from anogan.dataset import ImageSet, permutation
from anogan.distributed import Workers
from anogan.errors import UserError
from anogan.files import write_atomic
from anogan.latent_search import Weights, nearest_start, search_latents
from anogan.threshold import FEWEST, TERMS, NormalScores, Tail
from anogan.training import ONE_LEVEL, Training, find_spread
from utils import checked_images, to_float, to_uint8

ARRAYS = "images.npz"
IMAGES = "images.json"  # which images the run has seen, and which of them were held out
CALIBRATION = "calibration.json"
CALIBRATED = 2  # version of what is in it
SEARCHES = ("gradient", "encoder", "hybrid")
STEPS = {"gradient": 50, "encoder": 0, "hybrid": 20}  # of the latent search, if none are given
LEARNING_RATE = 0.1  # of the latent search
FIXED = 64  # latents whose images are followed through training
POOL = 512  # fixed samples among which the search looks for its start
HELD_OUT = 512  # at most so many normal images are kept with the checkpoint
R1_EVERY = 16  # steps (lazy regularisation, Karras et al. 2020, section 3.1)
LINEAR_BLUR = 1 / 40  # of the linear residual, in shorter sides of the image
MAP_BLUR = 1 / 28  # standard deviation of the map's Gaussian, in shorter sides of the image
PRIOR = 0.002  # weight of ||z||^2 in the search where the terms are in shares of their spread
SKIP_IMAGES = 512, 4000  # training images of which the linear skips are a PCA, as many as
SKIP_BYTES = 100 * 2**20  # fit into this memory as float32
# What reading a damaged checkpoint or archive raises
UNREADABLE = (
    AssertionError,
    ValueError,
    OSError,
    EOFError,
    LookupError,
    BadZipFile,
    tf.errors.OpError,
)
CPU_INFO = Path("/proc/cpuinfo")
SEEN = 512  # so many of the training images are kept with the checkpoint, for plots


class Detection(NamedTuple):
    """What anomaly_detector finds, one row an image; the score's terms come first."""

    score: np.ndarray  # (n,) anomaly score, higher is more anomalous
    residual: np.ndarray  # (n,) residual loss
    discrimination: np.ndarray  # (n,) discrimination loss
    peak: np.ndarray  # (n,) highest value of the anomaly map
    linear: np.ndarray  # (n,) residual of the linear skips alone, 0 without them
    realism: np.ndarray  # (n,) D's logit for the image itself, higher is more normal
    reconstruction_realism: np.ndarray  # (n,) D's logit for G(z)
    contributions: np.ndarray  # (n, len(TERMS)) what each term adds to the score, in TERMS' order
    z: np.ndarray  # (n, z_dim) the best latent seen
    reconstruction: np.ndarray  # (n, h, w, c) G(z) in [-1, 1]
    residual_map: np.ndarray  # (n, h, w) |x - G(z)|, mean over channels, in [0, 2]
    anomaly_map: np.ndarray  # (n, h, w) where the image is abnormal, 0 and up
    losses: np.ndarray | None  # (n, steps + 1) what the search minimised; None without a search
    linear_reconstruction: np.ndarray | None = None  # (n, h, w, c) of the linear skips alone


class DCGAN:
    """A GAN of normal images and the anomaly detector that rests on it.

    DCGAN(config).train(images); DCGAN.load(folder).anomaly_detector(images).
    """

    def __init__(self, config: Config, precision: str = "float32", workers: Workers | None = None):
        """precision: "float32" or "mixed_bfloat16" (weights, losses and scores stay float32).

        workers: the devices and machines to train on, of which all build the same model.
        """
        self.config, self.precision = config, precision
        self.workers = workers or Workers()
        with self.workers.strategy.scope():
            self._variables(keras.DTypePolicy(precision))
        self.held_out = np.zeros((0, *config.shape), np.uint8)
        self.seen = self.held_out  # some of the images trained on
        self.known = {}  # {name: state} of the images of the run, see ImageSet.states
        self.held_out_names = []
        self.first_images = None  # what G drew for the fixed latents before training
        self.folder = None
        self._calibrations = {}
        self._pool = None
        self._functions()

    def _variables(self, dtype):
        config = self.config
        keras.utils.set_random_seed(config.seed)
        self.generator = networks.generator(config, dtype)
        self.discriminator = networks.discriminator(config, dtype)
        self.encoder = networks.encoder(config, dtype) if config.encoder else None
        self.linear = networks.linear_autoencoder(config) if config.linear_skip else None
        self.averages = dict(self._trained())
        if config.average_decay:
            for name, net in self._trained().items():
                self.averages[name] = getattr(networks, name)(config, dtype)
                self.averages[name].set_weights(net.get_weights())
        self.optimisers = {}
        for name, net in self._trained().items():
            self.optimisers[name] = keras.optimizers.Adam(
                config.learning_rate, config.beta1, config.beta2
            )
            self.optimisers[name].build(net.trainable_variables)
        once = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, aggregation=once)

    def _trained(self) -> dict[str, keras.Model]:
        nets = {"generator": self.generator, "discriminator": self.discriminator}
        return {**nets, "encoder": self.encoder} if self.encoder else nets

    def _functions(self):
        shape = (None, *self.config.shape)
        images = tf.TensorSpec(shape, tf.float32)
        latents = tf.TensorSpec((None, self.config.z_dim), tf.float32)
        self._train_step = tf.function(self._step_everywhere, autograph=False)
        self._penalty_step = tf.function(self._penalty_everywhere, autograph=False)
        self._generate = tf.function(self._decode, input_signature=[latents])
        self._features = tf.function(self._features_of, input_signature=[images])
        # XLA gains on a GPU and loses on a CPU, whose convolutions it does without oneDNN.
        jit = bool(tf.config.list_logical_devices("GPU"))
        shared_out = self.workers.shared_out
        self._search = shared_out(self._search_batch, jit_compile=jit, reduce_retracing=True)
        self._encode = shared_out(self._encode_batch, reduce_retracing=True)
        self._measure = shared_out(self._measure_batch, reduce_retracing=True)

    # training

    def _seeds(self, count: int, purpose: int = 0):
        """Seeds for this step, so that a continued run draws what the unbroken one would."""
        seed = tf.stack([self.config.seed * 8 + purpose, tf.cast(self.step, tf.int32)])
        return tf.unstack(tf.random.experimental.stateless_split(seed, count))

    def _discriminate(self, *batches):
        """D's (logits, features) for each batch; one pass unless batch norm would mix them."""
        if self.config.d_batch_norm or len(batches) == 1:
            return [self.discriminator(batch, training=True) for batch in batches]
        outputs = self.discriminator(tf.concat(batches, 0), training=True)
        return list(zip(*(tf.split(o, len(batches)) for o in outputs), strict=True))

    def _step_everywhere(self, x):
        """One training step on all devices, x the global batch; the losses over all of it."""
        strategy = self.workers.strategy
        losses = strategy.run(self._one_step, (x,))
        if self.config.average_decay:
            self._follow()
        values = strategy.reduce("MEAN", losses, axis=None)
        return dict(zip(self._loss_names(), tf.unstack(values), strict=True))

    def _penalty_everywhere(self, x):
        self.workers.strategy.run(self._one_penalty_step, (x,))

    def _loss_names(self) -> tuple[str, ...]:
        return ("d_loss", "g_loss", *(("reconstruction", "kl") if self.encoder else ()))

    def _one_step(self, x):
        """One update of G, D and E from the same forward pass; x (b, h, w, c) in [-1, 1].

        E and G are trained together as in VAE/GAN (Larsen et al. 2016): half of the latents
        are E's, whose images must come close to x in pixels and in D's features (the izi_f
        loss of Schlegl et al. 2019, section 2.2); the pixel and feature weights follow the
        errors themselves (the optimal-variance decoder of Rybkin et al. 2021).

        x is this device's share of the global batch. Means and random numbers are the global
        batch's, so that the step does not hang on the number of devices.
        """
        config = self.config
        seeds = self._seeds(3)
        context = tf.distribute.get_replica_context()
        share = ops.Share(context.replica_id_in_sync_group, context.num_replicas_in_sync)
        b = tf.shape(x)[0]
        half = b // 2
        z = share.draw(tf.random.stateless_normal, [b, config.z_dim], seeds[0])
        damaged = ops.damage(x, seeds[1], share) if config.damage else None
        pixels = float(np.prod(config.shape))
        with tf.GradientTape(persistent=True) as tape:
            if self.encoder:
                # E learns to undo damage, so that an anomaly is not drawn again.
                whole = share.draw(tf.random.stateless_uniform, [half, 1, 1, 1], seeds[2]) < 0.5
                seen = tf.where(whole, x[:half], damaged[:half]) if config.damage else x[:half]
                mean, log_variance = tf.split(self.encoder(seen, training=True), 2, axis=1)
                log_variance = tf.clip_by_value(log_variance, -8.0, 4.0)
                z = tf.concat([mean + tf.exp(log_variance / 2) * z[:half], z[half:]], 0)
            g = self.generator(z, training=True)
            first, second = tf.split(g, [half, b - half])
            (real, fx), *rest = self._discriminate(*([x, damaged] if config.damage else [x]))
            # Passes as small as the gradients need: only the first half has a loss of features.
            fakes = [g] if config.d_batch_norm else [first, second]
            fakes = [self.discriminator(part, training=True) for part in fakes]
            fake, fg = tf.concat([logits for logits, _ in fakes], 0), fakes[0][1]
            d_loss = ops.discriminator_loss(real, fake)
            if rest:
                d_loss += tf.reduce_mean(tf.nn.softplus(rest[0][0]))
            g_loss = ops.generator_loss(fake)
            if self.encoder:
                r = tf.reduce_mean(ops.distance(x[:half], first, True)) / pixels
                f = tf.reduce_mean(ops.distance(tf.stop_gradient(fx[:half]), fg[:half], True))
                kl = tf.reduce_mean(ops.kl_divergence(mean, log_variance))
                means = tf.stop_gradient(tf.stack([r, f]))
                if share.count > 1:
                    means = context.all_reduce("MEAN", means)
                likeness = 0.5 * (r / means[0] + f / means[1])
                prior = 2.0 * config.kl_weight * kl / pixels
        # Backward through D once for each loss, and from there on through G.
        self._apply("discriminator", tape.gradient(d_loss, self._weights_of("discriminator")))
        towards, losses = tape.gradient(g_loss, g), [d_loss, g_loss]
        if self.encoder:
            from_e = tape.gradient(likeness, g)
            towards += from_e
            ends, starts = [g, prior], [from_e, tf.ones_like(prior)]
            self._apply("encoder", tape.gradient(ends, self._weights_of("encoder"), starts))
            losses = [d_loss, g_loss + likeness + prior, r, kl]
        self._apply("generator", tape.gradient(g, self._weights_of("generator"), towards))
        self.step.assign_add(1)
        return tf.stack(losses)

    def _weights_of(self, name) -> list:
        return self._trained()[name].trainable_variables

    def _apply(self, name, gradients):
        variables = self._weights_of(name)
        share = 1.0 / self.workers.replicas  # Keras adds the devices' gradients up
        gradients = [
            tf.zeros_like(v) if g is None else g * share  # D's last bias has none in the penalty
            for g, v in zip(gradients, variables, strict=True)
        ]
        self.optimisers[name].apply_gradients(zip(gradients, variables, strict=True))

    def _follow(self):
        """Moves the averages of the networks towards the trained weights."""
        step = tf.cast(self.step, tf.float32)
        rate = 1.0 - tf.minimum(self.config.average_decay, (1.0 + step) / (10.0 + step))
        for name, net in self._trained().items():
            for mine, theirs in zip(self.averages[name].weights, net.weights, strict=True):
                share = rate if theirs.trainable else 1.0
                self.workers.strategy.extended.update(
                    mine.value,
                    lambda a, b, share=share: a.assign(a + (b - a) * share),
                    (theirs.value,),
                )

    def _one_penalty_step(self, x):
        """The gradient penalty's own update of D, every R1_EVERY steps."""
        with tf.GradientTape() as tape:
            penalty = ops.gradient_penalty(self.discriminator, x)
            loss = 0.5 * R1_EVERY * self.config.r1_weight * penalty
        self._apply("discriminator", tape.gradient(loss, self._weights_of("discriminator")))
        return penalty

    def train(
        self,
        images,
        folder: Path | None = None,
        sample_dir: Path | None = None,
        log_dir: Path | None = None,
        progress: bool = True,
    ) -> DCGAN:
        """Trains to config's number of steps, from the step that this model has reached.

        images: an ImageSet, or an array (n, h, w, c), uint8 or float in [-1, 1].
        folder: for checkpoints; a run that's there already is not taken up here but by load.
        sample_dir: for sample grids; log_dir: for TensorBoard. Without them nothing is written.
        Raises UserError for images that are all the same or of another range, TrainingFailed on
        NaN or collapse, KeyboardInterrupt after saving on Ctrl-C.
        """
        images = images if isinstance(images, ImageSet) else ImageSet.from_array(images)
        if images.shape != self.config.shape:
            raise UserError(f"images are {images.shape}, the model's are {self.config.shape}")
        rest, held_out = self._split(images)
        training = Training(self, rest, find_spread(rest), folder, sample_dir, log_dir, progress)
        if training.total > self.steps_done:
            self._keep(images, rest, held_out)
        self._settle(images, rest)
        self._calibrations = {}
        self._pool = None
        training.run()
        return self

    def _split(self, images: ImageSet) -> tuple[ImageSet, ImageSet]:
        """(images to train on, images held out); what a run once decided stays so."""
        config = self.config
        held_out = set(self.held_out_names)
        decided = {name: name in held_out for name in self.known}
        if self.steps_done and not decided:  # a run of before the list was kept
            former = permutation(len(images), config.seed)
            count = round(config.validation_share * len(images))
            decided = dict.fromkeys(images.names, False)
            decided |= {images.names[i]: True for i in former[:count]}
        return images.split(config.validation_share, config.seed, decided)

    def _keep(self, images: ImageSet, rest: ImageSet, held_out: ImageSet) -> None:
        """What the checkpoint holds of the images, in a new run or after a change of them."""
        states, seed = images.states(), self.config.seed
        if states != self.known:
            kept = held_out.some(HELD_OUT, seed)
            self.held_out = kept if len(kept) else self.held_out
            self.seen = rest.some(SEEN, seed)
            self.known, self.held_out_names = states, list(held_out.names)
        if self.first_images is None:
            self.first_images = to_uint8(self.generate(self.fixed_latents()))
            if self.linear:
                self._set_linear_skips(rest)

    def image_changes(self, images: ImageSet) -> list[str]:
        """What is other than when the run last saw its training images, in lines for the user."""
        if not self.known:
            return []
        states = images.states()
        both = states.keys() & self.known.keys()
        counts = {
            "new": len(states) - len(both),
            "missing": len(self.known) - len(both),
            "changed (size or date)": sum(states[name] != self.known[name] for name in both),
        }
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        line = f"images since the run last saw them: {told}; a larger --epoch goes on with them"
        return [line] if told else []

    def _settle(self, images: ImageSet, rest: ImageSet):
        """Before the first step: all workers have the same images, settings, and weights."""
        team, batch = self.workers, self.config.batch_size
        if team.replicas > 1 and batch % (2 * team.replicas):
            raise UserError(
                f"--batch_size {batch} cannot be shared out among {team.replicas} devices: "
                f"give a multiple of {2 * team.replicas}"
            )
        if team.count == 1:
            return
        team.agree(
            {
                "images": crc32("\n".join(images.names).encode()),
                "held-out images": crc32("\n".join(rest.names).encode()),
                "settings": crc32(repr(self.config).encode()),
                "precision": crc32(self.precision.encode()),
            }
        )
        for kind in (np.float32, np.int64):
            some = [v for v in self._state() if np.issubdtype(v.numpy().dtype, kind)]
            flat = np.concatenate([np.ravel(v.numpy()).astype(kind) for v in some])
            flat, start = team.from_chief(flat), 0
            for v in some:
                size = int(np.prod(v.shape))
                v.assign(flat[start : start + size].reshape(v.shape))
                start += size

    def _state(self) -> list:
        """All variables of a checkpoint."""
        nets = [*self._trained().values(), *self.averages.values()]
        nets += [self.linear] if self.linear else []
        found = [v for net in nets for v in net.weights]
        found += [v for optimiser in self.optimisers.values() for v in optimiser.variables]
        return [*found, self.step]

    def finite(self) -> bool:
        """Whether no variable of a checkpoint is NaN or infinite."""
        some = [v for v in self._state() if tf.as_dtype(v.dtype).is_floating]
        return bool(tf.reduce_all([tf.reduce_all(tf.math.is_finite(v)) for v in some]))

    def scoring_variables(self) -> list:
        """The variables that decide scores."""
        return [v for net in self.averages.values() for v in net.weights]

    def _set_linear_skips(self, images):
        fitting = SKIP_BYTES // (4 * int(np.prod(self.config.shape)))
        count = min(len(images), int(np.clip(fitting, *SKIP_IMAGES)))
        some = np.linspace(0, len(images) - 1, count, dtype=int)
        x = to_float(images.read(some)[0])
        nets = [[self._trained().get(k), self.averages.get(k)] for k in ("generator", "encoder")]
        pairs = ([net for net in pair if net] for pair in nets)
        networks.set_linear_skips(x, self.config, self.linear, *pairs)

    def update(self, x) -> dict:
        """One training step on a batch (b, h, w, c) in [-1, 1]; the losses, as tensors.

        With several devices the batch is a tf.distribute value, see `batches`.
        """
        if self.config.r1_weight and self.steps_done % R1_EVERY == 0:
            self._penalty_step(x)
        return self._train_step(x)

    def batches(self, images: ImageSet):
        """An endless iterator of what update takes, from the step that this model has reached."""
        config, first = self.config, self.steps_done

        def pipeline(context):
            devices = context.num_replicas_in_sync // context.num_input_pipelines
            share = range(context.num_replicas_in_sync)[context.input_pipeline_id * devices :]
            return images.stream(
                config.batch_size, config.seed, first, share[:devices], len(share) + share.start
            )

        return iter(self.workers.strategy.distribute_datasets_from_function(pipeline))

    @property
    def steps_done(self) -> int:
        return int(self.step.numpy())

    # sampling

    def fixed_latents(self, count: int = FIXED) -> np.ndarray:
        """The latents (count, z_dim) whose images are followed through training."""
        return np.random.default_rng(self.config.seed).standard_normal(
            (count, self.config.z_dim), np.float32
        )

    def generate(self, z, batch_size: int = 256) -> np.ndarray:
        """G(z) in inference mode, (n, z_dim) -> (n, h, w, c) in [-1, 1]."""
        z = np.asarray(z, np.float32)
        parts = [self._generate(z[i : i + batch_size]) for i in range(0, len(z), batch_size)]
        return (
            np.concatenate([p.numpy() for p in parts])
            if parts
            else np.zeros((0, *self.config.shape))
        )

    def _decode(self, z):
        return self.averages["generator"](z, training=False)

    def _features_of(self, images):
        return tf.cast(self.averages["discriminator"](images, training=False)[1], tf.float32)

    # scoring

    def anomaly_detector(
        self,
        images,
        search: str | None = None,
        steps: int | None = None,
        learning_rate: float = LEARNING_RATE,
        batch_size: int | None = None,
    ) -> Detection:
        """Scores images by how far the nearest image that G can draw is from each.

        images (n, h, w, c), uint8 or float in [-1, 1]. search: "gradient" backpropagates into
        z from the nearest of some fixed samples (Schlegl et al. 2017, section 2.2), "encoder"
        takes z = E(x) (Schlegl et al. 2019), "hybrid" starts the gradient search there; the
        default is the encoder where there is one. steps and learning_rate are the gradient
        search's. batch_size: images at once on each device, fewer are filled up; as many as there
        are in all, up to 64, if it is not given. Weights do not change; an image's result does
        not hang on the others, and on a CPU, in batches of one size, not on where it is.
        Raises UserError for images of another shape, type or range, and for scores not finite.
        """
        search, steps = self._way(search, steps)
        images = self._as_images(images)
        calibration = self._calibration(search, steps, learning_rate)
        batch_size = batch_size or _batch_size(images)
        found = self._terms(
            images,
            search,
            steps,
            learning_rate,
            batch_size,
            calibration["weights"],
            calibration["trust"],
        )
        found.pop("map_peak")
        parts = self._contributions(found, calibration["terms"], calibration["trust"])
        return Detection(score=parts.sum(axis=1), contributions=parts, **found)

    def formula(
        self, search: str | None = None, steps: int | None = None, rate: float = LEARNING_RATE
    ) -> dict:
        """What makes a score of an image's terms, JSON-ready.

        trust: see the README, None where it was not measured; terms: {name: weight, mean,
        spread}, of which each contributes weight * (term - mean) / spread.
        """
        calibration = self._calibration(*self._way(search, steps), rate)
        weights = self._term_weights(calibration["trust"])
        terms = {}
        for name, weight in weights.items():
            mean, spread = calibration["terms"].get(name, (0.0, 1.0))
            terms[name] = {"weight": weight, "mean": mean, "spread": spread}
        measured = self.linear and calibration["terms"]
        return {"trust": calibration["trust"] if measured else None, "terms": terms}

    def normal_scores(
        self, search: str | None = None, steps: int | None = None, rate: float = LEARNING_RATE
    ) -> NormalScores | None:
        """The scores of held-out normal images; None where there are too few."""
        found = self._calibration(*self._way(search, steps), rate)
        tail = found["tail"] and Tail(*found["tail"])
        return NormalScores(found["scores"], tail) if tail else None

    def pixel_threshold(
        self,
        target_fpr: float = 0.05,
        search: str | None = None,
        steps: int | None = None,
        rate: float = LEARNING_RATE,
    ) -> float:
        """The anomaly map's value that this share of held-out normal images exceeds anywhere."""
        peaks = self._calibration(*self._way(search, steps), rate)["peaks"]
        return float(np.quantile(peaks, 1 - target_fpr)) if len(peaks) else 0.5

    def features(self, images, batch_size: int = 256) -> np.ndarray:
        """D's features of images (n, h, w, c), uint8 or float in [-1, 1]: (n, d)."""
        x = self._as_images(images)
        parts = [_float(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
        return np.concatenate([self._features(part).numpy() for part in parts])

    def unexplained(self) -> float | None:
        """The share of held-out images' variance that their reconstructions leave.

        1 is no better than the mean image: collapse. None without encoder or held-out images, or
        where these differ by less than a grey level.
        """
        if not self.encoder or not len(self.held_out):
            return None
        x, mean = _float(self.held_out), _float(self.seen).mean(axis=0)
        variance = (x - mean) ** 2
        if variance.mean() < ONE_LEVEL**2:
            return None
        parts = [x[i : i + 64] for i in range(0, len(x), 64)]
        left = sum(
            float(((p - self._decode(self._encode_batch(p))) ** 2).numpy().sum()) for p in parts
        )
        return left / float(variance.sum())

    def _way(self, search, steps) -> tuple[str, int]:
        """The search and its steps, with defaults; UserError where this model has none such."""
        search = search or ("encoder" if self.encoder else "gradient")
        if search not in SEARCHES:
            raise UserError(f"search must be one of {', '.join(SEARCHES)}, not {search}")
        if search != "gradient" and not self.encoder:
            raise UserError(
                f"search {search} needs an encoder, and this model has none: use gradient"
            )
        return search, STEPS[search] if steps is None or search == "encoder" else steps

    def _as_images(self, images) -> np.ndarray:
        images = checked_images(images)
        if images.shape[1:] != self.config.shape:
            raise UserError(f"images are {images.shape[1:]}, the model's are {self.config.shape}")
        return images

    def _term_weights(self, trust: float) -> dict[str, float]:
        """Of each term in the score (Schlegl et al. 2017, equation 7).

        trust: the share of the networks' terms; what is left falls to the linear skips.
        UserError where it is not finite.
        """
        lambda_, extended = self.config.lambda_, float(self.config.extended)
        return {
            "residual": trust * (1 - lambda_),
            "discrimination": trust * lambda_,
            "peak": trust * 0.5 * extended,
            "linear": 2.0 * (1.0 - trust),
            "realism": trust * -0.5 * extended,
            "reconstruction_realism": trust * -0.25 * extended,
        }

    def _contributions(self, found: dict, spreads: dict, trust: float) -> np.ndarray:
        """What each of TERMS adds to the score: (n, len(TERMS)); UserError where not finite."""
        parts = []
        for name, weight in self._term_weights(trust).items():
            mean, spread = spreads.get(name, (0.0, 1.0))
            parts.append(weight * (found[name] - mean) / spread)
        scores = sum(parts)
        if not np.isfinite(scores).all():
            wrong = [name for name in TERMS if not np.isfinite(found[name]).all()]
            raise UserError(
                f"{np.sum(~np.isfinite(scores))} of {len(scores)} anomaly scores are not finite "
                f"({', '.join(wrong)}): train the model again"
            )
        return np.stack(parts, axis=1)

    def _calibration(self, search, steps, learning_rate) -> dict:
        """What held-out normal images tell about one way to search; kept with the checkpoint.

        weights: of the search's loss; terms: (mean, spread) of each term of the score; trust: as
        in _term_weights, falling with how much farther off held-out images are than trained
        ones; scores: of the held-out images, and tail, the Pareto distribution fitted to the
        highest (None for too few); peaks: of each one's anomaly map.
        """
        lambda_ = self.config.lambda_  # part of what the search minimises
        key = (
            f"{CALIBRATED} {search} {steps} {learning_rate} lambda {lambda_} step {self.steps_done}"
        )
        key += f" {self.precision}"
        if key in self._calibrations:
            return self._calibrations[key]
        weights = self._weights()
        x = self.held_out

        def terms_of(images, trust=1.0):
            size = _batch_size(images)
            wanted = (*TERMS, "map_peak")
            return self._terms(images, search, steps, learning_rate, size, weights, trust, wanted)

        found = terms_of(x)
        spreads = {}
        if self.config.standardised and len(x) > 1:
            for name in TERMS:
                mean, std = float(np.mean(found[name])), float(np.std(found[name]))
                spreads[name] = (mean, max(std, 0.05 * abs(mean), 1e-6))
        trust = 1.0
        if spreads and self.linear:
            trust = _trust(terms_of(self.seen)["residual"], found["residual"])
        if trust < 1:
            found = terms_of(x, trust)
        scores = self._contributions(found, spreads, trust).sum(axis=1)
        enough = len(scores) >= FEWEST
        self._calibrations[key] = {
            "weights": weights,
            "terms": spreads,
            "trust": trust,
            "scores": scores.astype(float).tolist(),
            "tail": list(NormalScores(scores).tail) if enough else None,
            "peaks": found["map_peak"].astype(float).tolist(),
        }
        if self.folder and self.workers.chief:
            text = json.dumps(self._calibrations, indent=1)
            write_atomic(self.folder / CALIBRATION, text + "\n")
        return self._calibrations[key]

    def _weights(self) -> list[float]:
        """Of R, D and ||z||^2 in the search: the paper's, or in shares of the normals' spread."""
        lambda_ = self.config.lambda_
        if not self.config.standardised or len(self.held_out) < 2:
            return [1 - lambda_, lambda_, 0.0]
        x = to_float(self.held_out)
        f = np.concatenate([self._features(x[i : i + 64]).numpy() for i in range(0, len(x), 64)])
        # mean squared distance of two normal images, in pixels and in D's features
        spread = [max(2.0 * float(a.reshape(len(a), -1).var(axis=0).sum()), 1e-6) for a in (x, f)]
        return [(1 - lambda_) / spread[0], lambda_ / spread[1], PRIOR]

    def _terms(
        self, x, search, steps, learning_rate, batch_size, weights, trust, only=None
    ) -> dict:
        """Everything of a Detection but the score, or only these; x (n, h, w, c) uint8 or float.

        batch_size: of each device, always of this size, for other sizes round otherwise.
        """
        parts, together = [], batch_size * self.workers.devices
        weights = [np.float32(w) for w in (learning_rate, *weights)]
        for i in range(0, max(len(x), 1), together):
            batch = _float(x[i : i + together])
            padded = np.zeros((together, *self.config.shape), np.float32)
            padded[: len(batch)] = batch
            z, losses = self._start(padded, search), None
            if steps:
                z, losses = self._search(padded, z, steps, *weights)
            found = {**self._measure(padded, z, np.float32(trust)), "losses": losses}
            found = {k: v for k, v in found.items() if not only or k in only}
            parts.append(
                {k: None if v is None else v.numpy()[: len(batch)] for k, v in found.items()}
            )
        return {
            k: None if parts[0][k] is None else np.concatenate([p[k] for p in parts])
            for k in parts[0]
        }

    def _start(self, batch, search):
        if search != "gradient":
            return self._encode(batch)
        if self._pool is None:
            z = self.fixed_latents(POOL)
            self._pool = tf.constant(z), tf.constant(self.generate(z))
        return nearest_start(batch, *self._pool)

    def _encode_batch(self, images):
        return self.averages["encoder"](images, training=False)[:, : self.config.z_dim]

    def _search_batch(self, images, start, steps, learning_rate, *weights):
        weights = Weights(*weights, squared=self.config.squared)
        generator = networks.frozen_generator(self.averages["generator"])
        features = networks.frozen_features(self.averages["discriminator"])
        return search_latents(generator, features, images, start, steps, learning_rate, weights)

    def _measure_batch(self, images, z, trust):
        squared, blur = self.config.squared, MAP_BLUR * min(self.config.shape[:2])
        g = self._decode(z)
        discriminator = self.averages["discriminator"]
        (real, fx), (fake, fg) = (discriminator(x, training=False) for x in (images, g))
        residual_map = ops.residual_map(images, g)
        anomaly_map = ops.smooth(residual_map, blur)
        peak = tf.reduce_max(anomaly_map, axis=[1, 2])
        linear, linear_reconstruction = tf.zeros_like(peak), {}
        if self.linear:  # shows in the map as far as it makes the score
            plain = self.linear(images)
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

    def _linear_residual(self, images, g):
        """How far the linear skips alone, a PCA, are from each image: (b,).

        The fourth power of the smoothed difference lets coherent local differences count.
        """
        blur = LINEAR_BLUR * min(self.config.shape[:2])
        fourth = tf.square(tf.square(ops.smooth(images - g, blur)))
        return tf.sqrt(tf.sqrt(ops.sum_per_image(fourth)))

    # saving

    def save(self, folder: Path) -> None:
        """Writes configuration, held-out images and a checkpoint; a kill at any time is safe."""
        folder = Path(folder)
        if self.folder != folder:
            self._manager = tf.train.CheckpointManager(self._checkpoint(), folder, max_to_keep=2)
            self.folder = folder
            self._saved_images = None
        if self._saved_images is not self.known:
            arrays = {"held_out": self.held_out, "seen": self.seen, "first": self.first_images}
            packed = io.BytesIO()
            np.savez_compressed(packed, **arrays)
            write_atomic(folder / ARRAYS, packed.getvalue())
            listed = {"held_out": self.held_out_names, "images": self.known}
            write_atomic(folder / IMAGES, json.dumps(listed) + "\n")
            self._saved_images = self.known
        self.config.save(folder)
        try:
            self._manager.save(checkpoint_number=self.steps_done)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(folder / f"ckpt-{self.steps_done}_temp", ignore_errors=True)
            raise UserError(
                f"{folder} cannot be written ({str(error).splitlines()[0]}): make room, then the "
                f"same command goes on from the last checkpoint that is there"
            ) from None

    def _checkpoint(self) -> tf.train.Checkpoint:
        nets = {**self._trained(), **{f"{k}_average": n for k, n in self.averages.items()}}
        if self.linear:
            nets["linear"] = self.linear
        optimisers = {f"{name}_optimiser": o for name, o in self.optimisers.items()}
        return tf.train.Checkpoint(step=self.step, **nets, **optimisers)

    @classmethod
    def load(
        cls, folder: Path, precision: str = "float32", workers: Workers | None = None, **changes
    ) -> DCGAN:
        """A run's model as last saved; changes: settings of config.FREE for going on with it.

        Raises UserError where the folder holds no run, or one that is damaged.
        """
        folder = Path(folder)
        config = dataclasses.replace(Config.load(folder), **changes)
        latest = tf.train.latest_checkpoint(folder)
        if latest is None:
            raise UserError(f"{folder} holds no checkpoint yet: train the model first (--train)")
        model = cls(config, precision, workers)
        try:
            model._checkpoint().restore(latest).assert_existing_objects_matched()
            with np.load(folder / ARRAYS) as arrays:
                model.held_out, model.seen = arrays["held_out"], arrays["seen"]
                model.first_images = arrays["first"]
        except UNREADABLE as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{latest} cannot be restored ({reason}): delete {folder} and train again"
            ) from None
        for optimiser in model.optimisers.values():  # restored to the old rate
            optimiser.learning_rate.assign(config.learning_rate)
        model._load_images(folder)
        model.folder = folder
        model._manager = tf.train.CheckpointManager(model._checkpoint(), folder, max_to_keep=2)
        return model

    def _load_images(self, folder: Path) -> None:
        """The list of the run's images, and what was calibrated on those that were held out."""
        path = folder / IMAGES
        if path.exists():  # runs of earlier versions have none
            try:
                listed = json.loads(path.read_text())
                self.held_out_names, self.known = listed["held_out"], dict(listed["images"])
            except (ValueError, LookupError, TypeError, OSError) as error:
                raise UserError(
                    f"{path} cannot be read ({error}): delete {folder} and train again"
                ) from None
        self._saved_images = self.known
        path = folder / CALIBRATION
        if path.exists():
            try:
                self._calibrations = dict(json.loads(path.read_text()))
            except (ValueError, TypeError, OSError) as error:
                logging.getLogger(__name__).warning("%s: %s: calibrating anew", path, error)


def _float(images) -> np.ndarray:
    """uint8 or float images as float32 in [-1, 1]."""
    return to_float(images) if images.dtype == np.uint8 else images.astype(np.float32)


def _batch_size(images) -> int:
    return min(max(len(images), 1), 64)


def _trust(seen, held_out) -> float:
    """1 where held-out images are reconstructed as well as trained ones, 0 where far worse.

    From the AUROC of one against the other, residuals (n,) and (m,): nothing but normal images.
    """
    ranks = rankdata(np.concatenate([seen, held_out]))
    above = ranks[len(seen) :].sum() - len(held_out) * (len(held_out) + 1) / 2
    overfit = above / (len(seen) * len(held_out)) - 0.5
    return float(np.clip(1.0 - 5.0 * overfit, 0.0, 1.0))


def has_checkpoint(folder: Path) -> bool:
    return tf.train.latest_checkpoint(folder) is not None


def resolve_precision(name: str) -> str:
    """ "auto" becomes mixed_bfloat16 where CPU or GPU is faster at it, else float32."""
    if name != "auto":
        return name
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        major = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0,))[
            0
        ]
        return "mixed_bfloat16" if major >= 8 else "float32"
    try:
        words = set(CPU_INFO.read_text().split())
    except OSError:
        words = set()
    # Intel's avx512_bf16 multiplies no faster than float32, AMD's twice as fast.
    units = "amx_bf16" in words or {"avx512_bf16", "AuthenticAMD"} <= words
    return "mixed_bfloat16" if units else "float32"
