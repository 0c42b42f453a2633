"""The model as an outlier detector of scikit-learn's kind, for pipelines and searches."""

from __future__ import annotations

from anogan.runs.start_up import import_tensorflow

import_tensorflow()  # before all that would import it with its lines, then and in training

import contextlib
import dataclasses
import math
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

ROOT = Path(__file__).resolve().parent.parent
TOP = "utils", "ops", "model"  # the modules beside this package, whose names others use, too


def _is_ours(name: str, file: str | None) -> bool:
    return file is not None and Path(file).resolve() == ROOT / f"{name}.py"


@contextlib.contextmanager
def _own_modules() -> Iterator[None]:
    """Import the clone's TOP in the block; after it these names are what they were for the caller.

    A project that uses the clone may have a utils.py or model.py of its own, imported already or
    found first on sys.path.
    """
    loaded = {name: sys.modules[name] for name in TOP if name in sys.modules}
    for name, module in loaded.items():
        if not _is_ours(name, getattr(module, "__file__", None)):
            del sys.modules[name]
    sys.path.insert(0, str(ROOT))
    try:
        yield
    finally:
        sys.path.remove(str(ROOT))
        ours = {name: sys.modules.pop(name) for name in TOP if name in sys.modules}
        for name, module in (ours | loaded).items():
            spec = None if name in loaded else find_spec(name)
            if spec is None or _is_ours(name, spec.origin):
                sys.modules[name] = module


with _own_modules():
    from anogan.config import preset
    from anogan.data.inputs import other_scale
    from anogan.data.scale import view_size
    from anogan.errors import UserError
    from model import DCGAN

FEWEST_IMAGES = 10  # to fit: half of them are held out, which is enough for a threshold
ENOUGH_HELD_OUT = 20  # images, which are more than a tenth of a small set
SMALLEST, LARGEST = 16, 64  # pixels a side of what the networks see, unless settings say otherwise
BATCH = 32  # images at once; one size, so that scores do not depend on how many there are
MOST_SEEDS = 2**28  # as many as Config takes
MODEL_BYTES = "model_files"  # in the state that is pickled


def _scored_size(height: int, width: int) -> tuple[int, int]:
    """Return a size near the images' own aspect, with sides of SMALLEST to LARGEST pixels."""
    scale = min(1.0, LARGEST / max(height, width))
    return max(SMALLEST, round(height * scale)), max(SMALLEST, round(width * scale))


class AnoGAN(OutlierMixin, BaseEstimator):
    """AnoGAN as an outlier detector: fit on normal images, then predict 1 (normal) or -1.

    Parameters
    ----------
    image_shape : tuple of (height, width) or (height, width, channels), default=None
        How a row of features is an image, where X is (n_samples, n_features); 1 or 3 channels.
        None: a square grey image if the number of features is a square, else one line of pixels.
    target_fpr : float, default=0.05
        The fraction of normal images that `predict` calls outliers.
    preset : {"default", "classic"}, default="default"
        The method: this tool's, or that of the 2017 paper.
    steps : int, default=600
        Batches to train on.
    settings : dict, default=None
        More settings of anogan.config.Config, such as {"height": 128, "width": 128}. Without
        those, images are resized to sides of 16 to 64 pixels.
    random_state : int, RandomState instance or None, default=0
        Seed of the networks' weights, the order of the images and those held out.

    Attributes
    ----------
    model_ : DCGAN
        The trained model.
    image_shape_ : tuple of (height, width, channels)
        Of the images it was fitted on.
    value_range_ : tuple of (low, high)
        What was taken for black and white: 0 and 255 for uint8, else the lowest and the highest
        value in `fit`; values beyond are clipped.
    offset_ : float
        Images of a lower `score_samples` are outliers.
    n_features_in_ : int
        Numbers in an image.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from anogan.estimator import AnoGAN
    >>> X, y = load_digits(return_X_y=True)
    >>> detector = AnoGAN(image_shape=(8, 8), steps=20, settings={"gf_dim": 8, "df_dim": 8})
    >>> bool(detector.fit(X[y == 0]).predict(X[y == 1]).mean() < 0)  # most are outliers: -1
    True
    """

    def __init__(
        self,
        image_shape: tuple[int, ...] | None = None,
        *,
        target_fpr: float = 0.05,
        preset: str = "default",
        steps: int = 600,
        settings: dict[str, Any] | None = None,
        random_state: Any = 0,
    ):
        self.image_shape = image_shape
        self.target_fpr = target_fpr
        self.preset = preset
        self.steps = steps
        self.settings = settings
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: Any = None) -> AnoGAN:
        """Train on normal images.

        X: (n_samples, height, width, channels) or (n_samples, n_features), at least 10 of them.
        y is ignored. Raises ValueError for what cannot be trained on.
        """
        self._check_parameters()
        rows, shape = self._rows(X, reset=True)
        self.image_shape_ = shape or self._shape_of(rows.shape[1])
        low, high = (0, 255) if rows.dtype == np.uint8 else (rows.min(), rows.max())
        self.value_range_ = float(low), float(high)
        size = self.image_shape_[0], self.image_shape_[1]
        height, width = _scored_size(*size)
        known = {
            "dataset": "fit",
            "height": height,
            "width": width,
            "channels": self.image_shape_[2],
            "steps": self.steps,
            "seed": self._seed(),
            "validation_fraction": max(0.1, min(0.5, ENOUGH_HELD_OUT / len(rows))),
            **(self.settings or {}),
        }
        try:
            config = preset(self.preset, **known)
            if config.has_features and not known.keys() & {"view_height", "view_width"}:
                view = view_size(size, (config.height, config.width))
                config = dataclasses.replace(config, view_height=view[0], view_width=view[1])
            if config.channels != self.image_shape_[2]:
                raise ValueError(
                    f"settings: channels is {config.channels}, the images are {self.image_shape_}"
                )
            model = DCGAN(config)
            model.train(self._images(rows, model.config.view), progress=False)
            model.keep_calibration()
            self.offset_ = -model.threshold(self.target_fpr)
        except UserError as error:
            raise ValueError(str(error)) from error
        self.model_ = model
        return self

    def score_samples(self, X: npt.ArrayLike) -> np.ndarray:
        """Return the negative anomaly score of each image (n_samples,): higher is more normal."""
        check_is_fitted(self)
        rows, _ = self._rows(X, reset=False)
        if text := other_scale(rows, *self.value_range_):
            warnings.warn(text, UserWarning, stacklevel=2)
        images = self._images(rows, self.model_.config.view)
        try:
            return -self.model_.anomaly_detector(images, batch_size=BATCH).score
        except UserError as error:
            raise ValueError(str(error)) from error

    def decision_function(self, X: npt.ArrayLike) -> np.ndarray:
        """Return `score_samples` - `offset_`: (n_samples,), negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: npt.ArrayLike) -> np.ndarray:
        """Return 1 for normal images, -1 for anomalous ones: (n_samples,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    # parameters

    def _check_parameters(self) -> None:
        """Raise a ValueError that names a wrong one; Config checks its own settings."""
        if not (isinstance(self.steps, Integral) and self.steps > 0):
            raise ValueError(f"steps must be a whole number from 1 on, not {self.steps!r:.40}")
        rate = self.target_fpr
        if not (isinstance(rate, Real) and 0 < rate < 1):
            raise ValueError(f"target_fpr must be a number between 0 and 1, not {rate!r:.40}")
        if not isinstance(self.settings, Mapping | None):
            raise ValueError(f"settings must be a dict or None, not {self.settings!r:.40}")
        if not all(isinstance(name, str) for name in self.settings or ()):
            raise ValueError("settings must have names of Config's settings as keys")
        if self.image_shape is not None:
            self._checked(self.image_shape)

    def _seed(self) -> int:
        state = self.random_state
        if not isinstance(state, int | np.integer):
            try:
                return int(check_random_state(state).randint(MOST_SEEDS))
            except ValueError as error:
                raise ValueError(f"random_state: {error}") from None
        if not 0 <= state < MOST_SEEDS:
            raise ValueError(f"random_state must be from 0 to {MOST_SEEDS - 1}, not {state}")
        return int(state)

    # from numbers to images

    def _rows(self, X: Any, reset: bool) -> tuple[np.ndarray, tuple[int, ...] | None]:
        """Return (X as (n, features), the images' shape if X has one), checked by scikit-learn."""
        shape = None
        if getattr(X, "ndim", 2) > 2:
            X = np.asarray(X)
            shape = self._checked(X.shape[1:])
            if not reset and shape != self.image_shape_:
                raise ValueError(f"images are {shape}, those in fit were {self.image_shape_}")
            X = X.reshape(len(X), -1)
        least = {"ensure_min_samples": FEWEST_IMAGES, "ensure_min_features": 2} if reset else {}
        rows = validate_data(self, X, reset=reset, **least)
        if rows.dtype.kind not in "fiub":
            raise ValueError(f"X holds {rows.dtype}: give numbers")
        return rows, shape

    def _shape_of(self, features: int) -> tuple[int, ...]:
        """Return (h, w, c) of the image that a row of so many features is."""
        if self.image_shape is None:
            side = math.isqrt(features)
            return (side, side, 1) if side**2 == features else (1, features, 1)
        shape = self._checked(self.image_shape)
        if math.prod(shape) != features:
            raise ValueError(f"image_shape {shape} is not that of {features} features")
        return shape

    @staticmethod
    def _checked(shape: Any) -> tuple[int, ...]:
        """Return (h, w, c); raise a ValueError where a shape is none of an image."""
        sides = tuple(shape) if isinstance(shape, Iterable) else ()
        full = (*sides, 1) if len(sides) == 2 else sides
        whole = len(full) == 3 and all(isinstance(side, Integral) for side in full)
        if not whole or full[2] not in (1, 3) or min(full) < 1:
            raise ValueError(
                f"image_shape: {shape!r:.40} is no shape of an image: (height, width) or (height, "
                "width, 1 or 3)"
            )
        return tuple(map(int, full))

    def _images(self, rows: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        """Return rows (n, features) as uint8 images of this shape."""
        low, high = self.value_range_
        levels = (rows.astype(np.float64) - low) * (255 / max(high - low, 1e-300))
        pixels = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
        pixels = pixels.reshape(-1, *self.image_shape_)
        height, width, channels = shape
        if pixels.shape[1:] == shape:
            return pixels
        resized = [
            Image.fromarray(one.squeeze(2) if channels == 1 else one).resize(
                (width, height), Image.Resampling.BICUBIC
            )
            for one in pixels
        ]
        return np.stack([np.asarray(one).reshape(shape) for one in resized])

    # pickling: the networks as the files that save writes

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "model_" in state:
            model = state.pop("model_")
            with tempfile.TemporaryDirectory() as folder:
                model.save(folder)
                model.folder = None  # the next save is a new one
                state[MODEL_BYTES] = {
                    path.name: path.read_bytes() for path in Path(folder).iterdir()
                }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        files = state.pop(MODEL_BYTES, None)
        super().__setstate__(state)
        if files is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            self.model_ = DCGAN.load(folder)
            self.model_.folder = None
