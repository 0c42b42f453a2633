"""The DCGAN: G, D and E, trained on normal images; anomaly detection by what G cannot draw.

model = DCGAN(preset("default", height=28, width=28, channels=1)).train(images, "checkpoints/my")
found = DCGAN.load("checkpoints/my").anomaly_detector(unseen)
"""

from __future__ import annotations

from anogan.runs.start_up import import_tensorflow, require_threads

import_tensorflow()  # before all that would import it with its lines

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from zlib import crc32

import keras
import numpy as np
import numpy.typing as npt

from anogan.config import Config
from anogan.data.image_set import ImageSet
from anogan.data.inputs import as_images
from anogan.data.near_copies import near_copies
from anogan.errors import UserError
from anogan.features.feature_bank import FeatureBank, Features, shared_features
from anogan.method import kept_images, networks
from anogan.method.detector import Detector
from anogan.method.inference import Inference
from anogan.method.linear_skips import fit_linear_skips
from anogan.method.scoring import Calibration, Detection, Search
from anogan.method.threshold import FEWEST, Threshold
from anogan.method.trainer import Averages, Trainer
from anogan.method.training import TrainingRun, find_spread
from anogan.runs.checkpoint import Checkpoints, load_calibrations, save_calibrations
from anogan.runs.distributed import Workers
from anogan.runs.run_images import RunImages

FIXED = 64  # latents whose images are followed through training
CALIBRATED = 2  # version of what a calibration holds


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
    >>> zeros, ones = images[digits.target == 0], images[digits.target == 1]
    >>> config = preset("default", height=16, width=16, channels=1, gf_dim=8, df_dim=8, steps=20)
    >>> model = DCGAN(config).train(zeros[:150], progress=False)
    >>> bool(model.anomaly_detector(ones[:20]).is_anomaly.mean() > 0.5)  # most of them
    True
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
        require_threads()
        self.config, self.precision = config, precision
        self.workers = workers or Workers()
        with self.workers.strategy.scope():
            keras.utils.set_random_seed(config.seed)
            dtype = keras.DTypePolicy(precision)
            self.averages = Averages(networks.build(config, dtype))
        self.inference = Inference(config, self.averages.ema, self.workers)
        held_out, seen = (np.zeros((0, *shape), np.uint8) for shape in (config.view, config.shape))
        self.images = RunImages(held_out, seen)
        self.calibrations: dict[str, Calibration] = {}
        self._calibrated: dict[str, Calibration] = {}  # the last one that is not kept
        self.folder: Path | None = None
        self._detector: Detector | None = None

    @cached_property
    def trainer(self) -> Trainer:
        """All that training needs besides; of a loaded model it is read when it is asked for."""
        config, nets = self.config, self.averages.ema
        with self.workers.strategy.scope():
            if config.recipe.ema_decay:
                nets = networks.copied(nets, config, keras.DTypePolicy(self.precision))
            trainer = Trainer(config, nets, self.averages, self.workers)
        if self.folder:
            self._checkpoints = Checkpoints(self.folder, trainer.parts())
            self._checkpoints.restore()
            trainer.set_learning_rate()
        return trainer

    @cached_property
    def pretrained(self) -> Features | None:
        """What a pretrained network sees of images; None where that is not in the score."""
        config = self.config
        if not config.has_features:
            return None
        return shared_features(config.features, config.view[:2], config.recipe.features)

    @property
    def detector(self) -> Detector:
        """Scores by these weights and these images; UserError before there are images."""
        require_threads()
        if self._detector is None or self._detector.seen is not self.images.seen:
            images, bank = self.images, None
            if self.pretrained and len(images.features):
                bank = FeatureBank(self.pretrained, images.features, self.config.shape[:2])
            self._detector = Detector(self.inference, images.seen, bank, images.seen_features)
        return self._detector

    def checksum(self) -> int:
        """Return the checksum of the weights that decide scores."""
        require_threads()
        weights = [w for net in self.averages.ema.trained().values() for w in net.get_weights()]
        return crc32(b"".join(w.tobytes() for w in weights))

    @property
    def steps_done(self) -> int:
        """Batches trained on so far."""
        return self.averages.steps_done

    @property
    def total_steps(self) -> int:
        """Batches of the whole training."""
        return self.config.total_steps(len(self.images.states) - len(self.images.held_out_names))

    @property
    def progress(self) -> str:
        return f"{self.steps_done} of {self.total_steps}"

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
        require_threads()
        images = images if isinstance(images, ImageSet) else ImageSet.from_array(images)
        if images.shape != self.config.view:
            raise UserError(f"images are {images.shape}, the model's are {self.config.view}")
        trainer = self.trainer  # first: it may be read anew
        rest, held_out = self._split(images)
        small = rest.at(self.config.shape)
        spread, total = find_spread(small), self.config.total_steps(len(rest))
        if total > self.steps_done:
            if self.steps_done == 0 and self.config.recipe.linear_skip:
                nets = trainer.nets, trainer.ema
                fit_linear_skips(small, self.inference.windows, self.config, *nets)
            self.images = kept_images.updated(
                self.images, images, rest, held_out, self.config, self.pretrained
            )
            self.calibrations, self._detector = {}, None
        trainer.settle(images, rest, self.precision)
        TrainingRun(
            trainer,
            small,
            spread,
            save=partial(self.save, folder) if folder else None,
            draw=lambda: self.generate(self.fixed_latents()),
            judge=lambda: self.inference.judge(self.images.held_out),
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
        return images.split(config.validation_fraction, config.seed, decided, near_copies(images))

    # sampling

    def fixed_latents(self, count: int = FIXED) -> np.ndarray:
        """The latents (count, z_dim) whose images are followed through training."""
        return self.inference.fixed_latents(count)

    def generate(self, z: npt.ArrayLike, batch_size: int = 256) -> np.ndarray:
        """G(z) in inference mode, (n, z_dim) -> (n, h, w, c) in [-1, 1]."""
        require_threads()
        return self.inference.generate(z, batch_size)

    # scoring

    def search(
        self,
        kind: Search | str | None = None,
        steps: int | None = None,
        learning_rate: float | None = None,
    ) -> Search:
        """How z is found if that is asked for; what is None is chosen.

        kind: "gradient" backpropagates into z from the nearest of some fixed samples (Schlegl et
        al. 2017, section 2.2), "encoder" takes z = E(x) (Schlegl et al. 2019), "hybrid" starts the
        gradient search, of these steps and rate, there; the default is the encoder if there is one.
        """
        if isinstance(kind, Search):
            kind, steps, learning_rate = kind
        return Search.resolve(self.config.recipe, kind, steps, learning_rate)

    def anomaly_detector(
        self,
        images: Any,
        search: Search | str | None = None,
        batch_size: int | None = None,
        calibration: Calibration | None = None,
    ) -> Detection:
        """Scores images by how far the nearest image that G can draw is from each.

        images: a path, a Pillow image or a list of these, resized as the images of a folder are;
        an array (n, h, w, c) of the model's size, uint8 or float in [-1, 1], or one such image,
        whose results have a leading dimension of 1. search: see `search`, by name or as it returns.
        batch_size: images at once on each device, fewer are filled up; if not given all of them,
        up to 64. calibration: of this search, if not given from `calibrate`. Nothing of the model
        changes; an image's result does not depend on the others, and on a CPU, in batches of one
        size, not on where it is. Raises UserError for images of another shape, type or range, for
        scores not finite, and where the model has seen no images to compare with.
        """
        search, x = self.search(search), as_images(images, self.config)
        return self.detector.detect(x, search, calibration or self.calibrate(search), batch_size)

    def threshold(
        self, target_fpr: float = Threshold.target_fpr, search: Search | str | None = None
    ) -> float:
        """The score above which this fraction of normal images lies; see Threshold.

        Raises UserError for a rate that is not between 0 and 1, and where fewer than 5 images were
        held out from training.
        """
        if not 0 < target_fpr < 1:
            raise UserError(f"target_fpr must be between 0 and 1, not {target_fpr}")
        normal = self.calibrate(search).normal_scores
        if normal is None:
            raise UserError(
                f"{len(self.images.held_out)} normal images were held out from training, too few "
                f"for a threshold, which takes {FEWEST}: train on more images, or with a larger "
                "validation_fraction"
            )
        Threshold(target_fpr=target_fpr).warn_of(normal)
        return normal.threshold(target_fpr)

    def calibrate(self, search: Search | str | None = None) -> Calibration:
        """What held-out normal images show of a search: as kept, or else found now."""
        search = self.search(search)
        key = self._key(search)
        known = self.calibrations.get(key) or self._calibrated.get(key)
        if known is None:
            known = self.detector.calibrate(self.images.held_out, search)
            self._calibrated = {key: known}  # for the next query
        return known

    def keep_calibration(
        self, search: Search | str | None = None, *, begin: Callable[[], None] = lambda: None
    ) -> Calibration:
        """As calibrate, and from now on it is there, in the run's folder, too, if it has one.

        begin: called where it is to be found first, which may take long.
        """
        key = self._key(self.search(search))
        if key not in self.calibrations:
            begin()
            self.calibrations[key] = self.calibrate(search)
            if self.folder and self.workers.chief:
                save_calibrations(self.folder, self.calibrations)
        return self.calibrations[key]

    def _key(self, search: Search) -> str:
        """Everything that a calibration depends on."""
        config = self.config
        what = self.images.checksum(crc32(repr(config.recipe).encode(), self.checksum()))
        return f"{CALIBRATED} {search!r} lambda {config.lambda_} {self.precision} of {what:08x}"

    def features(self, images: Any) -> np.ndarray:
        """D's features of images, given as to anomaly_detector: (n, d)."""
        require_threads()
        return self.inference.features(as_images(images, self.config))

    # saving

    def save(self, folder: str | Path) -> None:
        """Writes configuration, held-out images and a checkpoint; a kill at any time is safe."""
        folder = Path(folder)
        trainer = self.trainer  # of a loaded model, read from the folder that it came from
        if self.folder != folder:
            self._checkpoints = Checkpoints(folder, trainer.parts())
            self.folder, self._saved_images = folder, None
        if self._saved_images is not self.images:
            self.images.save(folder)
            self._saved_images = self.images
        self.config.save(folder)
        self._checkpoints.save()
        if self.calibrations:
            save_calibrations(folder, self.calibrations)

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
        Checkpoints(folder, model.averages.parts()).restore()
        model.images = model._saved_images = RunImages.load(folder, config)
        model.calibrations = load_calibrations(folder, Calibration.from_json)
        model.folder = folder
        return model
