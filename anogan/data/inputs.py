"""What a caller may give as images: arrays, paths, folders, open files, bytes, Pillow images."""

from __future__ import annotations

import functools
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from anogan.config import Config
from anogan.data.file_kinds import by_kind
from anogan.data.image_set import DECODERS
from anogan.data.listing import list_images
from anogan.errors import UserError
from anogan.opening import name_of
from utils import checked_images, load_image

BYTES = bytes, bytearray, memoryview
FILES = str, os.PathLike, Image.Image, io.IOBase, *BYTES
BEYOND = 0.9  # of the range that values were fitted on, beyond it: they are of another scale
NARROW = 1 / 64  # of it: so are values that span no more


def as_images(given: Any, config: Config) -> np.ndarray:
    """Whatever images are given, as a model of this configuration takes them: (n, h, w, c).

    given: a path, a folder (its images), an open file, the bytes of one or a Pillow image, or any
    iterable of these, which are converted and resized as the files of a folder are; an array
    (n, h, w, c) or of one image, (h, w, c) or, where the model is grey, (h, w), uint8 or float in
    [-1, 1], of the model's size. uint8 or float32 comes back.
    Raises UserError for others, and ImageError, which is one, for a file that cannot be read.
    """
    if _is_file(given):
        return _read([given], config)
    if hasattr(given, "__array__"):
        given = np.asarray(given)
    elif not isinstance(given, list | tuple):
        if isinstance(given, Mapping) or not isinstance(given, Iterable):
            raise UserError(
                f"images are a {type(given).__name__}: give paths, a folder, open files, Pillow "
                "images, or an array"
            )
        given = list(given)
    if _holds_files(given):
        return _read(list(given), config)
    images = _as_array(given)
    if images.shape == config.view:
        images = images[None]
    elif images.shape == config.view[:2] and config.channels == 1:
        images = images[None, ..., None]
    elif images.ndim == 3 and images.shape[2] in (1, 3):
        _refuse(str(images.shape), config)
    images = checked_images(images)
    if images.shape[1:] != config.view:
        _refuse(str(images.shape[1:]), config)
    return images


def other_scale(values: np.ndarray, low: float, high: float) -> str | None:
    """What to warn of where values are hardly of the scale, low to high, that others were of."""
    least, most, span = float(np.min(values)), float(np.max(values)), high - low
    both = f"images are from {least:g} to {most:g}, those in fit were from {low:g} to {high:g}"
    if least < low - BEYOND * span or most > high + BEYOND * span:
        return f"{both}: what is beyond is clipped; scale them alike"
    if 0 < most - least <= NARROW * span:
        return f"{both}: they look all the same; scale them alike"
    return None


def _is_file(given: Any) -> bool:
    return isinstance(given, FILES) or (hasattr(given, "read") and not hasattr(given, "__array__"))


def _holds_files(given: Any) -> bool:
    if isinstance(given, np.ndarray) and (given.dtype.kind not in "OU" or not given.ndim):
        return False
    return any(map(_is_file, given))


def _as_array(given: Any) -> np.ndarray:
    """An array of what is one, or of equal parts; UserError for parts of several shapes."""
    if isinstance(given, list | tuple):
        shapes = sorted({np.shape(part) for part in given})
        if len(shapes) > 1:
            shown = " and ".join(map(str, shapes[:2])) + (", …" if len(shapes) > 2 else "")
            raise UserError(
                f"images are of several shapes, {shown}: arrays are not resized; "
                "PIL.Image.fromarray(image) makes an image that is of each uint8 array"
            )
    return np.asarray(given)


def _refuse(shape: str, config: Config) -> None:
    raise UserError(
        f"images are {shape}, the model's are {config.view}: paths and Pillow images are "
        "resized, arrays are not; PIL.Image.fromarray(image) makes one of a uint8 array"
    )


def _read(given: list[Any], config: Config) -> np.ndarray:
    files = list[Any]()
    for file in given:
        if not _is_file(file):
            raise UserError(
                f"a list of paths and images holds a {type(file).__name__}: give paths and Pillow "
                "images, or one array"
            )
        files += _inside(file)
    if len(files) > 1:
        return np.stack(list(DECODERS.map(lambda file: _read_one(file, config), files)))
    return _read_one(files[0], config)[None]


def _inside(file: Any) -> Iterator[Any]:
    """Yields a file, or the images in a folder; bytes as an open file."""
    if isinstance(file, BYTES):
        yield io.BytesIO(file)
    elif hasattr(file, "seekable") and not file.seekable():  # as standard input
        yield io.BytesIO(file.read())
    elif isinstance(file, str | os.PathLike) and os.path.isdir(file):
        for name in by_kind(list_images(os.fspath(file)).names).images:
            yield os.path.join(file, name)
    else:
        yield file


def _read_one(file: Any, config: Config) -> np.ndarray:
    warn: Callable[[str], None] = functools.partial(
        logging.getLogger(__name__).warning, "%s: %s", name_of(file)
    )
    return load_image(file, *config.view, config.crop, config.value_range, warn)
