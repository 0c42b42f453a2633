"""What training images hold: grey or colour, 8 bits or more, and the range of their values."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from anogan.errors import UserError
from anogan.opening import ImageError, opened
from utils import FEW_LEVELS, Range, flat, is_deep, is_grey


def probe(paths: Sequence[str | Path]) -> tuple[int, bool]:
    """(channels, deep) of image files.

    channels: 1 if every pixel is grey, else 3. deep: whether any has other values than 0 to 255,
    so that they need a range, see `find_range`. Files that cannot be read are ignored; UserError
    if none can.
    """
    channels, deep, failure = 0, False, None
    for path in paths:
        try:
            with opened(path) as image:
                image.draft("RGB", (256, 256))
                image = flat(image, 3)
        except ImageError as error:
            failure = failure or error
            continue
        channels = max(channels, 1 if is_grey(np.asarray(image)) else 3)
        deep = deep or image.mode == "F"
    if not channels:
        raise UserError(f"none of {len(paths)} images can be read; the first: {failure}")
    return channels, deep


def find_range(paths: Sequence[str | Path]) -> Range:
    """The values that become black and white, of those image files that are deep (see `probe`).

    0 and the first of 1, 255, 1023, 4095, 16383, 65535, ... that no value exceeds, so that
    brighter images than these have room; the lowest and the highest value where some are negative,
    or where less than 16 of 256 grey levels would be left. Decodes all deep files, and looks no
    further than the header of others. Files that cannot be read are ignored.
    """
    threads = ThreadPoolExecutor(os.cpu_count())
    try:
        found = [pair for pair in threads.map(_extremes, paths) if pair]
    finally:
        threads.shutdown(cancel_futures=True)  # on Ctrl-C, not after all files
    low, high = min(pair[0] for pair in found), max(pair[1] for pair in found)
    top = next(v for v in itertools.chain([1], (4**k - 1 for k in itertools.count(4))) if v >= high)
    if low >= 0 and (high - low) * 256 >= FEW_LEVELS * top:
        return 0.0, float(top)
    return low, high if high > low else low + 1


def _extremes(path: str | Path) -> Range | None:
    """The lowest and the highest value of a deep file; None for others and broken ones."""
    try:
        with opened(path) as image:
            if not is_deep(image):
                return None
            values = np.asarray(flat(image, 1))
            return float(values.min()), float(values.max())
    except ImageError:
        return None
