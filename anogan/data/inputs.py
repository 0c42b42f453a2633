"""What a caller may give as images: arrays, paths, Pillow images."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anogan.config import Config
from anogan.data.image_set import DECODERS
from anogan.errors import UserError
from anogan.opening import name_of
from utils import checked_images, load_image

FILES = str, os.PathLike, Image.Image


def as_images(given: Any, config: Config) -> np.ndarray:
    """Whatever images are given, as a model of this configuration takes them: (n, h, w, c).

    given: a path or a Pillow image, or a sequence of these, which are converted and resized as
    the files of a folder are; an array (n, h, w, c) or of one image, (h, w, c) or, where the model
    is grey, (h, w), uint8 or float in [-1, 1], of the model's size. uint8 or float32 comes back.
    Raises UserError for others, and ImageError, which is one, for a file that cannot be read.
    """
    if isinstance(given, FILES):
        return _read([given], config)
    if _holds_files(given):
        return _read(list(given), config)
    images = np.asarray(given)
    if images.shape == config.shape:
        images = images[None]
    elif images.shape == config.shape[:2] and config.channels == 1:
        images = images[None, ..., None]
    elif images.ndim == 3 and images.shape[2] in (1, 3):
        _refuse(images.shape, config)
    images = checked_images(images)
    if images.shape[1:] != config.shape:
        _refuse(images.shape[1:], config)
    return images


def _holds_files(given: Any) -> bool:
    if isinstance(given, np.ndarray) and given.dtype.kind not in "OU":
        return False
    return isinstance(given, Sequence | np.ndarray) and any(isinstance(x, FILES) for x in given)


def _refuse(shape: tuple[int, ...], config: Config) -> None:
    raise UserError(
        f"images are {shape}, the model's are {config.shape}: paths and Pillow images are "
        "resized, arrays are not; PIL.Image.fromarray(image) makes one of a uint8 array"
    )


def _read(files: list[Any], config: Config) -> np.ndarray:
    for file in files:
        if not isinstance(file, FILES):
            raise UserError(
                f"a list of paths and images holds a {type(file).__name__}: give paths and Pillow "
                "images, or one array"
            )
    if len(files) > 1:
        return np.stack(list(DECODERS.map(lambda file: _read_one(file, config), files)))
    return _read_one(files[0], config)[None]


def _read_one(file: str | Path | Image.Image, config: Config) -> np.ndarray:
    warn: Callable[[str], None] = functools.partial(
        logging.getLogger(__name__).warning, "%s: %s", name_of(file)
    )
    return load_image(file, *config.shape, config.crop, config.value_range, warn)
