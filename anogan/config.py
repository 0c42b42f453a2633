"""The settings of a run: one frozen dataclass, saved as JSON beside its checkpoints."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args, get_type_hints

from anogan.errors import UserError, first_line
from anogan.image_form import ImageForm
from anogan.recipe import RECIPES, Recipe
from anogan.runs.files import read_own, write_atomic

FILE_NAME = "config.json"

# The sizes and rates of Radford et al. 2016 and the score of Schlegl et al. 2017; what else the
# presets differ in is their recipe.
CLASSIC = {
    "z_dim": 100,
    "gf_dim": 64,
    "df_dim": 64,
    "learning_rate": 2e-4,
    "lambda_": 0.1,
    "steps": 0,
}
PRESETS: dict[str, dict[str, Any]] = {"default": {}, "classic": CLASSIC}

MOST_WINDOWS = 1024  # on an image
LARGEST = 4096  # side of an image that is seen through windows, pixels
LARGEST_CROP = 2**20  # pixels
SMALL, LARGE_BATCH = 32, 32  # images of more pixels a side are trained on in batches of so many
VERSION = 1  # of the format of a run's folder, see runs/checkpoint.py

# What may differ between a run and its continuation; all else decides what the model is.
FREE = {"epochs", "steps", "batch_size", "learning_rate", "beta1", "lambda_"}


@dataclass(frozen=True)
class Config:
    """Everything that decides what a trained model is and what its scores mean."""

    # data
    dataset: str = "images"  # the data set's name
    height: int = 64  # of the images as they are scored, pixels
    width: int = 64
    channels: int = 3  # 1 grey, 3 colour
    window: int = 0  # side of the networks' windows on the images, pixels; 0: the whole image
    crop_height: int = 0  # centre crop before the resize, pixels; 0: the whole image
    crop_width: int = 0
    min_value: float = 0.0  # becomes black in files of other values than 0 to 255
    max_value: float | None = None  # becomes white; None: the training images have 8 bits
    pattern: str = ""  # file names of the training images; "": any image
    normal_class: int | None = None  # mnist: the digit that is normal
    anomaly_class: int | None = None  # mnist: the digit that is not
    train_size: int = 0  # at most so many training images; 0: all
    validation_fraction: float = 0.1  # of the training images, held out to scale the scores

    # networks
    preset: str = "default"  # of PRESETS: which method
    z_dim: int = 64  # dimensions of the latent
    gf_dim: int = 16  # channels of G's stage next to the image
    df_dim: int = 16  # of D's and E's

    # training
    epochs: float = 0.0  # passes over the training images; 0: as many as `steps` take
    steps: int = 600  # batches, where epochs is 0
    batch_size: int = 64
    learning_rate: float = 5e-4  # of Adam, for all networks
    beta1: float = 0.5  # of Adam
    seed: int = 0

    # score
    lambda_: float = 0.5  # fraction of the discrimination loss beside the residual loss

    # all else that decides a model and its scores; None: the preset's
    recipe: Recipe = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name, kinds in _kinds().items():
            object.__setattr__(self, name, _typed(name, getattr(self, name), kinds))
        for name, low, high in (
            ("height", 16, LARGEST if self.window else 256),
            ("width", 16, LARGEST if self.window else 256),
            ("z_dim", 1, 4096),
            ("gf_dim", 1, 1024),
            ("df_dim", 1, 1024),
            ("crop_height", 0, LARGEST_CROP),
            ("crop_width", 0, LARGEST_CROP),
            ("train_size", 0, math.inf),
            ("epochs", 0, 1e9),
            ("steps", 0, 10**12),
            ("batch_size", 2, 65536),
            ("learning_rate", 1e-8, 1),
            ("seed", 0, 2**28 - 1),  # eight times as much is an int32
            ("lambda_", 0, 1),
            ("beta1", 0, 0.9999),
            ("validation_fraction", 0, 0.9),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"{name.rstrip('_')} must be from {low} to {high}, not {value}")
        if self.preset not in PRESETS:
            raise UserError(f"preset must be one of {', '.join(PRESETS)}, not {self.preset}")
        if self.recipe is None:
            object.__setattr__(self, "recipe", RECIPES[self.preset])
        if not isinstance(self.recipe, Recipe):
            raise UserError(f"recipe must be a Recipe, not {self.recipe!r:.40}")
        if self.channels not in (1, 3):
            raise UserError(f"channels must be 1 or 3, not {self.channels}")
        if self.value_range and not self.value_range[0] < self.value_range[1]:
            black, white = self.value_range
            raise UserError(f"max_value must be above min_value, not {white} and {black}")
        if self.window and not 16 <= self.window <= min(self.height, self.width, 256):
            raise UserError(
                f"window must be from 16 to 256 and no larger than the images, {self.height} x "
                f"{self.width} pixels, not {self.window}"
            )
        if self.window and self.height * self.width > MOST_WINDOWS * (self.window / 2) ** 2:
            raise UserError(
                f"{self.height} x {self.width} pixels are more than {MOST_WINDOWS} windows of "
                f"{self.window}: give a larger --window, or a smaller --output_height"
            )
        for name in ("normal_class", "anomaly_class"):
            if getattr(self, name) not in (None, *range(10)):
                raise UserError(f"{name} must be from 0 to 9, not {getattr(self, name)}")

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def net_shape(self) -> tuple[int, int, int]:
        """Of what the networks see: images, or windows on them."""
        if self.window:
            return self.window, self.window, self.channels
        return self.shape

    @property
    def crop(self) -> tuple[int, int] | None:
        return (self.crop_height, self.crop_width) if self.crop_height else None

    @property
    def value_range(self) -> tuple[float, float] | None:
        return None if self.max_value is None else (self.min_value, self.max_value)

    @property
    def form(self) -> ImageForm:
        """What image files become for this model."""
        return ImageForm(*self.shape, self.crop, self.value_range)

    def total_steps(self, images: int) -> int:
        """Batches of the whole training on so many images; the classic's 25 epochs if unset."""
        if self.epochs or not self.steps:
            return max(1, round((self.epochs or 25) * images / self.batch_size))
        return self.steps

    def save(self, folder: Path) -> None:
        text = json.dumps({"version": VERSION, **dataclasses.asdict(self)}, indent=2)
        write_atomic(Path(folder) / FILE_NAME, text + "\n")

    @classmethod
    def load(cls, folder: Path) -> Config:
        """The configuration of a run's folder; UserError where there is none or it is damaged."""
        path = Path(folder) / FILE_NAME
        try:
            settings = json.loads(read_own(path))
            if type(settings) is not dict:
                raise ValueError("it holds no settings")
            version = settings.pop("version", None)
            if type(version) is not int or version != VERSION:
                raise UserError(
                    f"{path} is of version {version!r:.40} of a run's format, this tool reads "
                    f"{VERSION}: train the model again, under another --checkpoint_dir, or use the "
                    "tool that it was made with"
                )
        except FileNotFoundError:
            raise UserError(
                f"{folder} holds no trained model (no {FILE_NAME}): train it first"
            ) from None
        except (ValueError, TypeError, OverflowError, OSError, RecursionError) as error:
            raise UserError(
                f"{path} cannot be read ({first_line(error)}): train the model again, under "
                "another --checkpoint_dir"
            ) from None
        try:
            recipe = Recipe.from_json(settings.pop("recipe", None))
            return cls(**_known(settings), recipe=recipe)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


KIND_NAMES = {int: "a whole number", float: "a number", str: "a text"}


@functools.cache
def _kinds() -> dict[str, tuple[type, ...]]:
    """{name: types that a setting may have}."""
    types = get_type_hints(Config)
    return {name: get_args(kind) or (kind,) for name, kind in types.items() if name != "recipe"}


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they are; UserError where one is of no name that Config has."""
    for name in settings:
        if name not in {field.name for field in dataclasses.fields(Config)}:
            raise UserError(f"there is no setting {name!r:.40}")
    return settings


def _typed(name: str, value: Any, kinds: tuple[type, ...]) -> Any:
    """The value in a type of Python's own; UserError where it is of another or of no use."""
    if isinstance(value, Integral) and not isinstance(value, bool):  # also of NumPy's
        value = int(value)
    elif isinstance(value, Real) and not isinstance(value, bool):
        value = float(value)
    fits = type(value) in kinds or (float in kinds and type(value) is int)  # 1.0 is written as 1
    if isinstance(value, float):
        fits &= math.isfinite(value)
    elif isinstance(value, str):
        fits &= _is_path(value)
    if not fits:
        kind = next(KIND_NAMES[kind] for kind in kinds if kind in KIND_NAMES)
        raise UserError(f"{name.rstrip('_')} must be {kind}, not {value!r:.40}")
    return value


def _is_path(text: str) -> bool:
    """Whether a text could be that of a path."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def preset(name: str, /, **settings: Any) -> Config:
    """A preset's configuration with some settings of one's own; UserError for what cannot be."""
    if name not in tuple(PRESETS):
        raise UserError(f"preset must be one of {', '.join(PRESETS)}, not {name!r:.40}")
    config = Config(**_known({"preset": name, **PRESETS[name], **settings}))
    if name == "default" and "batch_size" not in settings and min(config.net_shape[:2]) > SMALL:
        return dataclasses.replace(config, batch_size=LARGE_BATCH)
    return config
