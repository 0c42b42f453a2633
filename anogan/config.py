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
from anogan.settings import described, setting

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
    "features": "none",
}
PRESETS: dict[str, dict[str, Any]] = {"default": {}, "classic": CLASSIC}

FEATURES = ("lite0", "none")  # pretrained networks, see features/backbone.py
MOST_WINDOWS = 1024  # on an image
LARGEST = 4096  # side of an image that is seen through windows, pixels
LARGEST_WINDOW = 256  # side of the networks' images or windows, pixels
CROP, LARGEST_CROP = 108, 2**20  # side of the centre crop, pixels: of celebA, and at most
LARGEST_SET = 10**9  # of more nobody can mean it
STEPS, CLASSIC_EPOCHS = 600, 25  # how long the presets train
SMALLEST = 16  # height and width at least, pixels
SMALL = 32  # images of at most so many pixels a side have weights of their own
LARGE_BATCH = 16  # images of more pixels a side are trained on in batches of so many
VERSION = 4  # of the format of a run's folder, see runs/checkpoint.py

# What may differ between a run and its continuation; all else decides what the model is.
FREE = {"epochs", "steps", "batch_size", "learning_rate", "beta1", "lambda_"}


@dataclass(frozen=True)
class Config:
    """Everything that decides what a trained model is and what its scores mean."""

    # data
    dataset: str = "images"  # the data set's name
    height: int = setting(  # of the images as they are scored
        64,
        f"Resize images to this height, {SMALLEST} to {LARGEST_WINDOW}, with --window up to "
        f"{LARGEST} (default {{default}}; mnist 28).",
        (SMALLEST, LARGEST),
        "PIXELS",
        flag="output_height",
    )
    width: int = setting(
        64,
        "Resize images to this width (default: their height).",
        (SMALLEST, LARGEST),
        "PIXELS",
        flag="output_width",
    )
    channels: int = setting(
        3, "Use grey (1) or colour (3) images (default: as they are).", choices=(1, 3)
    )
    window: int = setting(
        0,
        f"Look at images through overlapping windows of this side, 16 to {LARGEST_WINDOW}; 0: at "
        "whole images (default: windows of 64 on images that would lose small defects at 64).",
        (0, LARGEST_WINDOW),
        "PIXELS",
    )
    features: str = setting(
        "lite0",
        "Look at images with this pretrained network, too (default {default}; classic {classic}).",
        choices=FEATURES,
    )
    view_height: int = 0  # at which files are read, where that is not the networks' size
    view_width: int = 0
    crop_height: int = setting(  # before the resize; 0: the whole image
        0,
        f"Cut out a centre of this height (default {CROP}).",
        (1, LARGEST_CROP),
        "PIXELS",
        flag="input_height",
    )
    crop_width: int = setting(
        0,
        "Cut out a centre of this width (default: its height).",
        (1, LARGEST_CROP),
        "PIXELS",
        flag="input_width",
    )
    min_value: float = 0.0  # becomes black in files of other values than 0 to 255
    max_value: float | None = None  # becomes white; None: the training images have 8 bits
    pattern: str = ""  # file names of the training images; "": any image
    normal_class: int | None = setting(
        None,
        "With mnist, take this digit for normal and all others for anomalous.",
        (0, 9),
        "DIGIT",
    )
    anomaly_class: int | None = setting(
        None,
        "With mnist, take this digit for anomalous and all others for normal.",
        (0, 9),
        "DIGIT",
    )
    train_size: int = setting(0, "Train on at most N images (default: all).", (1, LARGEST_SET), "N")
    validation_fraction: float = setting(
        0.1,
        "Hold out this fraction of the training images, to scale the scores and find the threshold "
        "(default {default}).",
        (0, 0.9),
        "FRACTION",
    )

    # networks
    preset: str = setting(
        "default",
        "Use the default method, or the classic one of the 2017 paper.",
        choices=tuple(PRESETS),
    )
    z_dim: int = setting(
        64, "Give z so many dimensions (default {default}; classic {classic}).", (1, 4096), "N"
    )
    gf_dim: int = setting(
        16,
        "Give G's last stage so many channels (default {default}; classic {classic}).",
        (1, 1024),
        "N",
    )
    df_dim: int = setting(
        16,
        "Give D's first stage so many channels (default {default}; classic {classic}).",
        (1, 1024),
        "N",
    )

    # training
    epochs: float = setting(
        0.0,  # as many as `steps` take
        f"Train for N passes over the images (default: {STEPS} batches; classic {CLASSIC_EPOCHS}).",
        (0.001, 10**6),
        "N",
        flag="epoch",
    )
    steps: int = setting(STEPS, "Batches, where epochs is 0.", (0, 10**12))
    batch_size: int = setting(
        64,
        "Train on batches of N images (default {default}; of more than "
        f"{SMALL} x {SMALL} pixels {LARGE_BATCH}).",
        (2, 65536),
        "N",
    )
    learning_rate: float = setting(
        5e-4,
        "Use this learning rate of Adam (default {default}; classic {classic}).",
        (1e-8, 1),
        "RATE",
    )
    beta1: float = setting(0.5, "Use this beta1 of Adam (default {default}).", (0, 0.9999), "B")
    seed: int = setting(
        0,
        "Draw training's random numbers from this seed (default {default}), and samples, which are "
        "others each time without it.",
        (0, 2**28 - 1),  # a step's seed holds it eight times over, and is an int32
        "N",
    )

    # score
    lambda_: float = setting(
        0.5,
        "Weigh the discrimination loss so in the score, beside the residual loss "
        "(default {default}; classic {classic}).",
        (0, 1),
        "FRACTION",
        flag="lambda",
    )

    # all else that decides a model and its scores; None: the preset's
    recipe: Recipe = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name, kinds in _kinds().items():
            object.__setattr__(self, name, _typed(name, getattr(self, name), kinds))
        for name, one in described(Config).items():
            if (value := getattr(self, name)) != getattr(Config, name):
                one.require(name.rstrip("_"), value)
        for name in ("height", "width"):
            if getattr(self, name) > LARGEST_WINDOW and not self.window:
                raise UserError(
                    f"{name} must be from 16 to {LARGEST_WINDOW}, not {getattr(self, name)}"
                )
        if self.recipe is None:
            object.__setattr__(self, "recipe", RECIPES[self._usual_recipe()])
        if not isinstance(self.recipe, Recipe):
            raise UserError(f"recipe must be a Recipe, not {self.recipe!r:.40}")
        if self.value_range and not self.value_range[0] < self.value_range[1]:
            black, white = self.value_range
            raise UserError(f"max_value must be above min_value, not {white} and {black}")
        if self.window and not 16 <= self.window <= min(self.height, self.width):
            raise UserError(
                f"window must be from 16 to 256 and no larger than the images, {self.height} x "
                f"{self.width} pixels, not {self.window}"
            )
        if self.window and self.height * self.width > MOST_WINDOWS * (self.window / 2) ** 2:
            raise UserError(
                f"{self.height} x {self.width} pixels are more than {MOST_WINDOWS} windows of "
                f"{self.window}: give a larger --window, or a smaller --output_height"
            )

    def _usual_recipe(self) -> str:
        if self.preset != "default":
            return self.preset
        if self.features == "none":
            return "without features"
        return "small images" if max(self.height, self.width) <= SMALL else "default"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def view(self) -> tuple[int, int, int]:
        """Of images as they are read; the networks see them as `shape`."""
        return self.view_height or self.height, self.view_width or self.width, self.channels

    @property
    def net_shape(self) -> tuple[int, int, int]:
        """Of what the networks see: images, or windows on them."""
        if self.window:
            return self.window, self.window, self.channels
        return self.shape

    @property
    def has_features(self) -> bool:
        """Whether a pretrained network's features are in the score."""
        return self.features != "none" and self.recipe.weights.features != 0

    @property
    def reduction(self) -> float:
        """How many times smaller the GAN sees images than they are read: 0 to 1, along a side."""
        height, width, _ = self.view
        return min(1.0, (self.height * self.width / (height * width)) ** 0.5)

    @property
    def crop(self) -> tuple[int, int] | None:
        return (self.crop_height, self.crop_width) if self.crop_height else None

    @property
    def value_range(self) -> tuple[float, float] | None:
        return None if self.max_value is None else (self.min_value, self.max_value)

    @property
    def form(self) -> ImageForm:
        """What image files become for this model."""
        return ImageForm(*self.view, self.crop, self.value_range)

    def total_steps(self, images: int) -> int:
        """Batches of the whole training on so many images; the classic's 25 epochs if unset."""
        if self.epochs or not self.steps:
            return max(1, round((self.epochs or CLASSIC_EPOCHS) * images / self.batch_size))
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
