"""At which size images are scored, and whether whole or through windows, where no flag says so."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anogan.config import LARGEST, MOST_WINDOWS, SMALL, SMALLEST
from anogan.errors import UserError
from anogan.image_form import feature_size
from utils import ImageError, image_size, load_image

SIDE = 64  # of the networks' images or windows, pixels
LOST = 5.0  # times smaller: so small a picture does not show small defects any more
LONGEST = 5 * SIDE  # side of an image that is seen through windows
STRIP = LONGEST // SIDE  # times longer than wide: as a whole such an image would be squashed
LONGEST_STRIP = LONGEST**2 // SIDE  # as many pixels as other images that are seen through windows
LARGER = 2.0  # times: enough for windows where images are not alike as wholes
ALIKE = 0.1  # of the variance that their mean image explains: less, and places mean nothing


class Scale(NamedTuple):
    """Pixels of the images as they are scored; window 0: the networks see them whole."""

    height: int
    width: int
    window: int


def typical_size(
    paths: Sequence[str | Path], crop: tuple[int, int] | None = None
) -> tuple[int, int]:
    """The median (height, width) of image files; SIDE where none can be read."""
    sizes = []
    for path in paths:
        with contextlib.suppress(ImageError):
            sizes.append(crop or image_size(path))
    height, width = np.median(sizes or [(SIDE, SIDE)], axis=0)
    return round(float(height)), round(float(width))


def choose(paths: Sequence[str | Path], crop: tuple[int, int] | None, channels: int) -> Scale:
    """What suits these training images; those that cannot be read are left out.

    Windows where the images are LOST times larger than SIDE, and already LARGER times where they
    have no places in common, as textures and parts of larger things have none. On strips there is
    one row of them.
    """
    height, width = typical_size(paths, crop)
    larger = max(height, width) / SIDE
    if larger >= LOST and is_strip(height, width):
        long = min(round(SIDE * max(height, width) / min(height, width)), LONGEST_STRIP)
        return Scale(long, SIDE, SIDE) if height > width else Scale(SIDE, long, SIDE)
    if max(height, width) <= SMALL:  # at SIDE training takes twice as long and finds no more
        return Scale(max(height, SMALLEST), max(width, SMALLEST), 0)
    if min(height, width) < SIDE or larger < LARGER:
        return Scale(SIDE, SIDE, 0)
    if larger < LOST:
        small = []
        for path in paths:
            with contextlib.suppress(ImageError):
                small.append(load_image(path, SIDE, SIDE, channels, crop))
        if not small or alike(small) >= ALIKE:  # none: reading them says why, later
            return Scale(SIDE, SIDE, 0)
    shrink = min(1.0, LONGEST / max(height, width))
    return Scale(max(SIDE, round(height * shrink)), max(SIDE, round(width * shrink)), SIDE)


def is_strip(height: int, width: int) -> bool:
    """Return whether images of this size are so long that windows go along them."""
    return max(height, width) > STRIP * min(height, width)


def windowed(height: int, width: int, window: int) -> Scale:
    """Return the size at which images of this size are seen through windows: their own.

    Images that are lower or narrower than a window are enlarged. UserError where they are smaller
    than one on both sides, or too large.
    """
    images = f"--window {window} on images of {height} x {width} pixels"
    if max(height, width) < window:
        raise UserError(f"{images}: they are smaller, leave it out or give a smaller one")
    enlarged = max(1.0, window / min(height, width))
    sides = height * enlarged, width * enlarged
    pixels = MOST_WINDOWS * (window / 2) ** 2
    shrink = min(1.0, LARGEST / max(sides), (pixels / (sides[0] * sides[1])) ** 0.5)
    if shrink < 1.0:
        fitting = " ".join(
            f"--output_{name} {max(window, int(side * shrink))}"
            for name, side in zip(("height", "width"), sides, strict=True)
        )
        raise UserError(
            f"{images}: they are larger than {LARGEST} a side or have more than {MOST_WINDOWS} "
            f"windows. Add {fitting}, or leave --window out, and the size is chosen"
        )
    return Scale(round(sides[0]), round(sides[1]), window)


def view_size(size: tuple[int, int], least: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) at which to read images of this size for a pretrained network.

    Their own, or what the network sees of larger ones, but no less of these than the GAN's
    networks see, `least`.
    """
    seen = feature_size(*size)
    if seen[0] >= size[0] or seen[1] >= size[1]:
        return size
    return max(seen[0], least[0]), max(seen[1], least[1])


def alike(images: Sequence[np.ndarray]) -> float:
    """The fraction of the images' variance that their mean explains: about 0 to 1.

    images: (h, w, c), 2 or more; brightness and contrast of each are its own affair.
    """
    x = np.asarray(images, np.float32)
    x -= x.mean(axis=(1, 2, 3), keepdims=True)
    x /= np.maximum(x.std(axis=(1, 2, 3), keepdims=True), 1.0)
    n, common = len(x), float((x.mean(axis=0) ** 2).mean()) / max(float((x**2).mean()), 1e-9)
    return (n * common - 1) / max(n - 1, 1)  # the mean of n unlike images explains 1 / n
