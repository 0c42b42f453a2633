"""Kinds of files that lie side by side: which are images, which masks, which other measurements.

MVTec 3D has `hole/rgb/000.png`, `hole/gt/000.png` and `hole/xyz/000.tiff`; others have the masks
beside their images, as `10301.png` and `10301_GT.png`.
"""

from __future__ import annotations

import functools
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from anogan.data.lexicon import meaning, tokens

IMAGE, MASK, OTHER = "image", "mask", "other"
FOLDERS = {
    IMAGE: "rgb image images img imgs color colour picture pictures photo photos jpegimages",
    MASK: """gt gts groundtruth groundtruths mask masks annotation annotations seg segs segmentation
    segmentations maske masken masque masques mascara mascaras maschera maschere""",
    OTHER: """xyz depth depths pointcloud pointclouds pcd disparity normals ir nir thermal infrared
    heatmap heatmaps overlay overlays""",
}
KINDS = {word: kind for kind, words in FOLDERS.items() for word in words.split()}
FILLING = {"dir", "folder", "data", "set", "files", "pixel", "pixels", "binary", "test", "train"}
MASK_SUFFIX = re.compile(
    r"[ ._-]+(mask|gt|label|seg|segmentation|ground_?truth|annotation)s?(?P<number>[ ._-]*\d+)?$",
    re.IGNORECASE,
)


class Kinds(NamedTuple):
    """Names of files by what they are."""

    images: list[str]
    masks: list[str]
    others: list[str]


@functools.lru_cache(4096)
def kind_of(folder: str) -> str | None:
    """The kind of files that a folder of that name holds; None where it says nothing of it."""
    words = [word for word in tokens(folder) if word not in FILLING]
    kind = KINDS.get("".join(words))
    if kind is None and any(KINDS.get(word) == MASK for word in words):
        rest = [word for word in words if KINDS.get(word) != MASK]
        return MASK if all(meaning(word) is not None for word in rest) else None
    return kind


def by_kind(names: Sequence[str]) -> Kinds:
    """Names of files, as paths in their folder, by kind: as far as others lie beside images."""
    beside = defaultdict(set)  # {folder: sub-folders with files}
    holding = set()  # folders with files of their own
    for name in names:
        parts = name.split("/")
        holding.add("/".join(parts[:-1]))
        for depth in range(len(parts) - 1):
            beside["/".join(parts[:depth])].add(parts[depth])

    @functools.cache
    def is_of(folder: str, inner: str) -> str | None:
        kind = kind_of(inner)
        kinds = [kind_of(other) for other in beside[folder] if other != inner]
        if kind == MASK and (folder in holding or any(other != MASK for other in kinds)):
            return MASK
        return OTHER if kind == OTHER and IMAGE in kinds else None

    found = Kinds([], [], [])
    by_folder = {}
    for name in names:
        folder = name.rpartition("/")[0]
        if folder not in by_folder:
            parts = folder.split("/") if folder else []
            kinds = {is_of("/".join(parts[:i]), part) for i, part in enumerate(parts)}
            by_folder[folder] = MASK if MASK in kinds else OTHER if OTHER in kinds else IMAGE
        {IMAGE: found.images, MASK: found.masks, OTHER: found.others}[by_folder[folder]].append(
            name
        )
    stems = {os.path.splitext(name)[0] for name in found.images}
    masks = {name for name in found.images if not stems.isdisjoint(image_stems(name))}
    images = [name for name in found.images if name not in masks]
    return Kinds(images, sorted([*found.masks, *masks]), found.others)


def image_stems(mask: str) -> list[str]:
    """The stems that the image of a mask beside it, or in a folder below, has; none for others.

    DAGM 2007 has `0576.PNG` and `Label/0576_label.PNG`.
    """
    stem = os.path.splitext(mask)[0]
    image = MASK_SUFFIX.sub("", stem)
    if image == stem:
        return []
    folder, _, name = image.rpartition("/")
    above = folder.rpartition("/")[0]
    return [image, f"{above}/{name}" if above else name]


def without_kinds(path: str) -> str:
    """A path without the folders that are named for a kind of files alone."""
    *folders, name = path.split("/")
    return "/".join([*(f for f in folders if kind_of(f) not in (IMAGE, MASK)), name])
