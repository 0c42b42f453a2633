"""Which images are near copies of each other: frames of one part, several photographs of it."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

from anogan.data.choosing import thin
from anogan.data.image_set import ImageSet

SIDE = 16  # pixels of a thumbnail
COMPARED = 2000  # images at most: all pairs of them
READ = 64  # images at once
# In near copies by far, in photographs of one item by no means: see tests/test_near_copies.py
NEARER = 0.5


_known = WeakKeyDictionary[ImageSet, dict[str, str]]()  # asked for before training and by it


def near_copies(images: ImageSet) -> dict[str, str]:
    """Return {name: what it shares with its near copies} of images that have any.

    Groups are by name, up to the last number or word, or by sub-folder; they count where an image
    is typically far nearer to its own group than to any other image.
    """
    if images not in _known:
        _known[images] = _find(images)
    return _known[images]


def _find(images: ImageSet) -> dict[str, str]:
    for key_of in (_without_last, os.path.dirname):
        groups = _groups(images, key_of)
        if len(groups) > 1 and _are_near(images, list(groups.values())):
            return {images.names[i]: key for key, members in groups.items() for i in members}
    return {}


def _without_last(name: str) -> str:
    """Return a name without its ending and the number or word before that."""
    return re.sub(r"(\d+|[^\W\d_]+)\W*$", "", os.path.splitext(name)[0])


def _groups(images: ImageSet, key_of: Callable[[str], str]) -> dict[str, list[int]]:
    """Return {key: indices} of groups of several images, but no more than half of all."""
    groups = defaultdict(list)
    for i, name in enumerate(images.names):
        groups[key_of(name)].append(i)
    return {key: some for key, some in groups.items() if 2 <= len(some) <= len(images) / 2}


def _are_near(images: ImageSet, groups: list[list[int]]) -> bool:
    """Compare images with their own groups and with others, on thumbnails."""
    some = thin(groups, max(2, COMPARED * len(groups) // sum(map(len, groups))))
    wanted = np.array([(i, k) for k, members in enumerate(some) for i in members[:COMPARED]])
    small, group = _thumbnails(images, *wanted.T)
    squares = (small**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares - 2 * small @ small.T, 0)
    np.fill_diagonal(apart, np.inf)
    is_own = group[:, None] == group
    own = np.where(is_own, apart, np.inf).min(axis=1)
    other = np.where(is_own, np.inf, apart).min(axis=1)
    known = np.isfinite(own) & np.isfinite(other) & (other > 0)
    return bool(known.any() and np.median(own[known] / other[known]) < NEARER**2)


def _thumbnails(
    images: ImageSet, indices: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return thumbnails (m, SIDE * SIDE) without mean and contrast, and the group of each (m,)."""
    small, kept = [], []
    for start in range(0, len(indices), READ):
        part, good = images.read(indices[start : start + READ])
        kept.append(group[start : start + READ][np.isin(indices[start : start + READ], good)])
        for grey in part.mean(axis=3, dtype=np.float32):
            image = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX)
            flat = np.asarray(image, np.float64).ravel()
            small.append((flat - flat.mean()) / max(flat.std(), 1.0))
    return np.array(small), np.concatenate(kept)
