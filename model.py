"""The DCGAN: G, D and E, trained on normal images; anomaly detection by what G cannot draw.

model = DCGAN(preset("default", height=28, width=28, channels=1)).train(images, "checkpoints/my")
found = DCGAN.load("checkpoints/my").anomaly_detector(unseen)
"""

from __future__ import annotations

from anogan.runs.start_up import import_tensorflow

import_tensorflow()  # before all that would import it with its lines

import dataclasses
import logging
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from zlib import crc32

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from anogan.config import Config
from anogan.data.image_set import ImageSet, permutation
from anogan.data.inputs import as_images
from anogan.errors import UserError
from anogan.method import networks
from anogan.method.detector import Detector, Pool, batch_size_of
from anogan.method.scoring import LEARNING_RATE, TERMS, Calibration, Detection, Way
from anogan.method.threshold import FEWEST, Threshold
from anogan.method.trainer import Averages, Trainer
from anogan.method.training import ONE_LEVEL, TrainingRun, find_spread
from anogan.runs.checkpoint import (
    Checkpoints,
    RunImages,
    load_calibrations,
    save_calibrations,
)
from anogan.runs.distributed import Workers
from utils import to_uint8

FIXED = 64  # latents whose images are followed through training
POOL = 512  # fixed samples among which the search looks for its start
HELD_OUT = 512  # at most so many normal images are kept with the checkpoint
SEEN = 512  # so many of the training images, to compare with
PCA_IMAGES = 512, 4000  # training images of which the linear skips are a PCA, as many as
PCA_BYTES = 100 * 2**20  # fit into this memory as float32
CALIBRATED = 5  # version of what a calibration holds


class DCGAN:
    """A GAN of normal images and the anomaly detector that rests on it (Schlegl et al. 2017).

    Train it on normal images with `train`, or take a trained one with `load`. `anomaly_detector`
    scores images (higher is more anomalous), decides and makes anomaly maps; `threshold` is the
    score above which a given fraction of normal images lies. `save` is for a model that was
    trained without a folder. anogan.config.preset makes the configuration.

    Examples
    --------
    The digit 0 is normal, with so few steps that it takes seconds

    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from anogan.config import preset
    >>> digits = load_digits()
    >>> images = np.kron(digits.images * 15, np.ones((1, 2, 2))).astype(np.uint8)[..., None]
    >>> images.shape
    (1797, 16, 16, 1)
    >>> zeros, ones = images[digits.target == 0], images[digits.target == 1]
    >>> config = preset("default", height=16, width=16, channels=1, gf_dim=8, df_dim=8, steps=20)
    >>> model = DCGAN(config).train(zeros[:150], progress=False)
    >>> found = model.anomaly_detector(ones[:20])
    >>> bool(found.is_anomaly.mean() > 0.5)  # most of them
    True
    >>> found.anomaly_map.shape
    (20, 16, 16)
    >>> one = model.anomaly_detector(zeros[150])  # also a path, a Pillow image, a list of them
    >>> one.score.shape, one.p_value.shape
    ((1,), (1,))
    >>> model.threshold(target_fpr=0.01) > model.threshold(target_fpr=0.2)
    True
    """

    def __init__(self, config: Config, precision: str = "float32", workers: Workers | None = None):
        """precision: "float32" or "mixed_bfloat16" (weights, losses and scores stay float32).

        workers: the devices and machines to train on, of which all build the same model.
        """
        self.config, self.precision = config, precision
        self.workers = workers or Workers()
        with self.workers.strategy.scope():
            keras.utils.set_random_seed(config.seed)
            dtype = keras.DTypePolicy(precision)
            self.averages = Averages(networks.build(config, dtype))
        self.detector = Detector(config, self.averages.ema, self.workers)
        none = np.zeros((0, *config.shape), np.uint8)
        self.images = RunImages(none, none)
        self.calibrations: dict[str, Calibration] = {}
        self._calibrated: dict[str, Calibration] = {}  # the last one that is not kept
        self.folder: Path | None = None
        self._pool: Pool | None = None
        self._remembered: RunImages | None = None

    @cached_property
    def trainer(self) -> Trainer:
        """All that training needs besides; of a loaded model it is read when it is asked for."""
        config, ema = self.config, self.averages.ema
        with self.workers.strategy.scope():
            dtype = keras.DTypePolicy(self.precision)
            nets = ema if config.is_classic else networks.copied(ema, config, dtype)
            trainer = Trainer(config, nets, self.averages, self.workers)
        if self.folder:
            self._checkpoints = Checkpoints(self.folder, trainer)
            self._checkpoints.restore()
        return trainer

    def checksum(self) -> int:
        """Of the weights that decide scores."""
        weights = [w for net in self.averages.ema.trained().values() for w in net.get_weights()]
        return crc32(b"".join(w.tobytes() for w in weights))

    @property
    def steps_done(self) -> int:
        """Batches trained on so far."""
        return self.averages.steps_done

    @property
    def total_steps(self) -> int | None:
        """Batches of the whole training; None where a run of a former version does not say."""
        trained_on = len(self.images.states) - len(self.images.held_out_names)
        by_images = self.config.epochs or not self.config.steps
        return None if by_images and trained_on < 1 else self.config.total_steps(trained_on)

    @property
    def progress(self) -> str:
        """The step that was reached, as "297 of 600"."""
        total = self.total_steps
        return f"{self.steps_done}" + (f" of {total}" if total else "")

    # training

    def train(
        self,
        images: ImageSet | np.ndarray,
        folder: str | Path | None = None,
        sample_dir: str | Path | None = None,
        log_dir: str | Path | None = None,
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
        trainer = self.trainer  # first: it may be read anew
        rest, held_out = self._split(images)
        spread, total = find_spread(rest), self.config.total_steps(len(rest))
        if total > self.steps_done:
            self._keep(images, rest, held_out)
            self.calibrations, self._pool = {}, None
        trainer.settle(images, rest, self.precision)
        TrainingRun(
            trainer,
            rest,
            spread,
            save=partial(self.save, folder) if folder else None,
            draw=lambda: self.generate(self.fixed_latents()),
            judge=lambda: self.detector.judge(self.images.held_out),
            sample_dir=sample_dir,
            log_dir=log_dir,
            progress=progress,
        ).to(total)
        return self

    def steps_of(self, images: ImageSet) -> int:
        """Batches of the whole training on these images."""
        return self.config.total_steps(len(self._split(images)[0]))

    def _split(self, images: ImageSet) -> tuple[ImageSet, ImageSet]:
        """(images to train on, images held out); what a run once decided stays so."""
        config, decided = self.config, self.images.decided()
        if self.steps_done and not decided:  # a run of before the list was kept
            former = permutation(len(images), config.seed)
            count = round(config.validation_fraction * len(images))
            decided = dict.fromkeys(images.names, False)
            decided |= {images.names[i]: True for i in former[:count]}
        return images.split(config.validation_fraction, config.seed, decided)

    def _keep(self, images: ImageSet, rest: ImageSet, held_out: ImageSet) -> None:
        """What the checkpoint holds of the images, in a new run or after a change of them."""
        states, seed, first = images.dated(), self.config.seed, self.images.first
        if first is None:
            first = to_uint8(self.generate(self.fixed_latents()))
            self._fit_linear_skips(rest)
        if states != self.images.states:
            kept, seen = held_out.some(HELD_OUT, seed), _without_copies(rest.some(SEEN, seed))
            if len(kept):
                own = _without_copies(kept, seen)
                if len(own) < len(kept):
                    logging.getLogger(__name__).warning(
                        "%d of %d held-out images are copies of others or of images trained on: "
                        "they are left out of the threshold, which they would make too low",
                        len(kept) - len(own),
                        len(kept),
                    )
            else:
                own = self.images.held_out
            self.images = RunImages(own, seen, first, states, held_out.names)

    def _fit_linear_skips(self, images: ImageSet) -> None:
        """Sets the skips of G and E to a PCA of the images, so that training starts near it."""
        if self.trainer.nets.encoder is None:
            return
        fitting = PCA_BYTES // (4 * int(np.prod(self.config.net_shape)))
        count = int(np.clip(fitting, *PCA_IMAGES))
        some = np.linspace(0, len(images) - 1, min(len(images), count), dtype=int)
        x = self.detector.windows.some(images.read(some)[0], count)
        networks.set_linear_skips(x, self.config, self.trainer.nets, self.trainer.ema)

    # sampling

    def fixed_latents(self, count: int = FIXED) -> np.ndarray:
        """The latents (count, z_dim) whose images are followed through training."""
        return np.random.default_rng(self.config.seed).standard_normal(
            (count, self.config.z_dim), np.float32
        )

    def generate(self, z: npt.ArrayLike, batch_size: int = 256) -> np.ndarray:
        """G(z) in inference mode, (n, z_dim) -> (n, h, w, c) in [-1, 1]."""
        return self.detector.generate(z, batch_size)

    # scoring

    def anomaly_detector(
        self,
        images: Any,
        search: str | None = None,
        steps: int | None = None,
        learning_rate: float = LEARNING_RATE,
        batch_size: int | None = None,
        calibration: Calibration | None = None,
    ) -> Detection:
        """Scores images by how far the nearest image that G can draw is from each.

        images: a path, a Pillow image or a list of these, resized as the images of a folder are;
        an array (n, h, w, c) of the model's size, uint8 or float in [-1, 1], or one such image,
        whose results have a leading dimension of 1. search: "gradient" backpropagates into z from
        the nearest of some fixed samples (Schlegl et al. 2017, section 2.2), "encoder" takes
        z = E(x) (Schlegl et al. 2019), "hybrid" starts the gradient search there; the default is
        the encoder where there is one. steps and learning_rate are the gradient search's.
        batch_size: images at once on each device, fewer are filled up; as many as there are in
        all, up to 64, if it is not given. calibration: of this way to search, from `calibrate`,
        which is called where it is not given. Nothing of the model changes; an image's result does
        not depend on the others, and on a CPU, in batches of one size, not on where it is.
        Raises UserError for images of another shape, type or range, and for scores not finite.
        """
        way = self.way(search, steps, learning_rate)
        x = as_images(images, self.config)
        calibration = calibration or self.calibrate(search, steps, learning_rate)
        size = batch_size or batch_size_of(x)
        self.remember()
        return self.detector.detect(x, way, calibration, self._starts(way), size)

    def terms(self, images: np.ndarray, calibration: Calibration) -> dict[str, np.ndarray]:
        """The score's terms of images (n, h, w, c) in the default way: {name: (n, windows)}."""
        way = self.way()
        self.remember()
        weights, starts = calibration.search_weights, self._starts(way)
        size = batch_size_of(images)
        return self.detector.terms(images, way, weights, starts, size, TERMS)

    def threshold(
        self,
        target_fpr: float = Threshold.target_fpr,
        search: str | None = None,
        steps: int | None = None,
        learning_rate: float = LEARNING_RATE,
    ) -> float:
        """The score above which this fraction of normal images lies; see Threshold.

        search, steps and learning_rate as given to anomaly_detector. Raises UserError for a rate
        that is not between 0 and 1, and where fewer than 5 images were held out from training.
        """
        if not 0 < target_fpr < 1:
            raise UserError(f"target_fpr must be between 0 and 1, not {target_fpr}")
        normal = self.calibrate(search, steps, learning_rate).normal_scores
        if normal is None:
            raise UserError(
                f"{len(self.images.held_out)} normal images were held out from training, too few "
                f"for a threshold, which takes {FEWEST}: train on more images, or with a larger "
                "validation_fraction"
            )
        return normal.threshold(target_fpr)

    def calibrate(
        self,
        search: str | None = None,
        steps: int | None = None,
        learning_rate: float = LEARNING_RATE,
    ) -> Calibration:
        """What held-out normal images say of a way to search: as kept, or else found now."""
        key = self._key(search, steps, learning_rate)
        known = self.calibrations.get(key) or self._calibrated.get(key)
        if known is None:
            way = self.way(search, steps, learning_rate)
            self.remember()
            known = self.detector.calibrate(self.images.held_out, way, self._starts(way))
            self._calibrated = {key: known}  # for the next query
        return known

    def keep_calibration(
        self,
        search: str | None = None,
        steps: int | None = None,
        learning_rate: float = LEARNING_RATE,
        *,
        begin: Callable[[], None] = lambda: None,
    ) -> Calibration:
        """As calibrate, and from now on it is there, in the run's folder, too, if it has one.

        begin: called where it is to be found first, which may take long.
        """
        key = self._key(search, steps, learning_rate)
        if key not in self.calibrations:
            begin()
            self.calibrations[key] = self.calibrate(search, steps, learning_rate)
            if self.folder and self.workers.chief:
                try:
                    save_calibrations(self.folder, self.calibrations)
                except UserError as error:  # it is a cache: a read-only model scores all the same
                    logging.getLogger(__name__).warning("calibration is not kept: %s", error)
        return self.calibrations[key]

    def _key(self, search: str | None, steps: int | None, learning_rate: float) -> str:
        """Everything that a calibration depends on."""
        way = self.way(search, steps, learning_rate)
        lambda_ = self.config.lambda_  # part of what the search minimises
        what = self.checksum()
        for images in (self.images.held_out, self.images.seen):
            what = crc32(images.tobytes(), what)
        return f"{CALIBRATED} {way} lambda {lambda_} {self.precision} of {what:08x}"

    def way(
        self,
        search: str | None = None,
        steps: int | None = None,
        learning_rate: float = LEARNING_RATE,
    ) -> Way:
        """How z is found if that is asked for; what is None is chosen."""
        return Way.chosen(search, steps, learning_rate, bool(self.averages.ema.encoder))

    def remember(self) -> None:
        """Gives the detector the memory of the images that were seen, unless it has it."""
        if self._remembered is not self.images:
            self.detector.remember(self.images.seen)
            self._remembered = self.images

    def _starts(self, way: Way) -> Pool | None:
        """Fixed latents and their images, where a search from none else begins."""
        if way.search != "gradient":
            return None
        if self._pool is None:
            z = self.fixed_latents(POOL)
            self._pool = tf.constant(z), tf.constant(self.generate(z))
        return self._pool

    def features(self, images: Any) -> np.ndarray:
        """D's features of images, given as to anomaly_detector: (n, d)."""
        return self.detector.features(as_images(images, self.config))

    def unexplained(self) -> float | None:
        """The fraction of held-out images' variance that their reconstructions leave.

        1 is no better than the mean image: collapse. None without encoder or held-out images, or
        where these differ by less than a grey level.
        """
        if not self.averages.ema.encoder or not len(self.images.held_out):
            return None
        windows, seen, held_out = self.detector.windows, self.images.seen, self.images.held_out
        mean = sum(x.sum(axis=0) for x in windows.in_parts(seen, 64)) / (len(seen) * len(windows))
        variance = left = 0.0
        for x in windows.in_parts(held_out, 64):
            variance += float(((x - mean) ** 2).sum())
            left += float(((x - self.generate(self.detector.encode_batch(x))) ** 2).sum())
        values = len(held_out) * len(windows) * np.prod(self.config.net_shape)
        return None if variance < ONE_LEVEL**2 * values else left / variance

    # saving

    def save(self, folder: str | Path) -> None:
        """Writes configuration, held-out images and a checkpoint; a kill at any time is safe."""
        folder = Path(folder)
        trainer = self.trainer  # of a loaded model, read from the folder that it came from
        if self.folder != folder:
            self._checkpoints = Checkpoints(folder, trainer)
            self.folder, self._saved_images = folder, None
        if self._saved_images is not self.images:
            self.images.save(folder)
            self._saved_images = self.images
        self.config.save(folder)
        self._checkpoints.save()

    @classmethod
    def load(
        cls,
        folder: str | Path,
        precision: str = "float32",
        workers: Workers | None = None,
        **changes: Any,
    ) -> DCGAN:
        """A run's model as last saved; changes: settings of config.FREE for going on with it.

        Raises UserError where the folder holds no run, or one that is damaged.
        """
        folder = Path(folder)
        config = dataclasses.replace(Config.load(folder), **changes)
        model = cls(config, precision, workers)
        Checkpoints(folder, model.averages).restore()
        model.images = model._saved_images = RunImages.load(folder, config)
        model.calibrations = load_calibrations(folder)
        model.folder = folder
        return model


def _without_copies(images: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Those of images (n, h, w, c) that are neither before them nor among the known, in order."""
    there = {image.tobytes() for image in (() if known is None else known)}
    own = []
    for i, image in enumerate(images):
        if (content := image.tobytes()) not in there:
            there.add(content)
            own.append(i)
    return images[own]
