"""Pixel masks of known anomalies: found, checked against the images, read."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np

from anogan.data.image_set import ImageSet, file_state
from anogan.data.listing import list_images, shown_name
from anogan.errors import UserError
from utils import ImageError, read_mask

SUFFIX = "_mask"  # that a mask's file name may end in


class Masks:
    """The masks in a folder of the images in an ImageSet, at the masks' own resolution.

    A mask has its image's name, whatever the extensions, or that name and SUFFIX. What it marks is
    anomalous (see utils.read_mask); an image without a mask is normal throughout.
    """

    def __init__(self, folder: str | Path, images: ImageSet, crop: tuple[int, int] | None = None):
        """crop: (height, width) of the centre of the files that the images show; none: all.

        UserError where no mask is named as an image is, or one could belong to several images, or
        several to one.
        """
        self.folder, self.images, self.crop = Path(folder), images, crop
        self.paths: dict[int, Path] = {}  # by place in `images`
        self.unmatched: list[str] = []  # masks that belong to no image
        places: dict[str, list[int]] = {}
        for i, name in enumerate(images.names):
            places.setdefault(_stem(name), []).append(i)
        for name in list_images(folder).names:
            stem, path = _stem(shown_name(name)), self.folder / name
            found = places.get(stem) or places.get(stem.removesuffix(SUFFIX), [])
            if not found:
                self.unmatched.append(shown_name(name))
                continue
            if len(found) > 1:
                one, other = (images.names[i] for i in found[:2])
                raise UserError(f"{path} could be the mask of {one} or of {other}: rename one")
            if before := self.paths.get(found[0]):
                raise UserError(
                    f"{before} and {path} are both masks of {images.names[found[0]]}: remove one"
                )
            self.paths[found[0]] = path
        if not self.paths:
            raise UserError(
                f"none of {len(self.unmatched)} masks in {folder} belongs to an image to score: "
                f"name the mask of {self._example()} {_mask_name(self._example())}, "
                f"not as {self.unmatched[0]}"
            )

    def _example(self) -> str:
        """The name of an image that should have a mask, as far as is known."""
        labels = self.images.labels
        return self.images.names[0 if labels is None else int(np.argmax(labels))]

    def check(self) -> str:
        """Reads all masks that `read` will read, and returns a line that says how many there are.

        UserError for a mask that cannot be read, is not of its image's aspect ratio, marks nothing
        on an image that is labelled anomalous or something on a normal one; where an anomalous
        image has no mask; and where no mask marks anything.
        """
        labels, any_marks = self.images.labels, False
        for i, name in enumerate(self.images.names):
            path = self.paths.get(i)
            if path is None:
                if labels is not None and labels[i]:
                    raise UserError(
                        f"{self.folder} has no mask for {name}: "
                        f"add {_mask_name(name)}, or leave --mask_dir out"
                    )
                continue
            mask = read_mask(path)
            self._require_aspect(i, path, mask)
            marks = bool(mask.any())
            if labels is not None and marks != bool(labels[i]):
                raise UserError(
                    f"{path} marks pixels of {name}, which is labelled normal: correct one of them"
                    if marks
                    else f"{path} marks nothing (all is 0), but {name} is labelled anomalous: "
                    "correct one of them"
                )
            any_marks |= marks
        if not any_marks:
            raise UserError(f"no mask in {self.folder} marks anything: all is 0, which is normal")
        return self._line()

    def _require_aspect(self, index: int, path: Path, mask: np.ndarray) -> None:
        try:
            height, width = self.images.size(index)
        except ImageError:
            return  # is left out of the scoring, too
        h, w = mask.shape
        # the sides of a resized mask are rounded to whole pixels, which is all they may differ by
        if abs(h * width - w * height) > max(height, width):
            raise UserError(
                f"{path} has {h} x {w} pixels, {self.images.names[index]} {height} x {width}: "
                "a mask must be of its image's shape; its size may be another"
            )

    def _line(self) -> str:
        count, labels = len(self.images), self.images.labels
        parts = [f"{len(self.paths)} of {count} images have a mask"]
        if labels is not None:
            parts[0] += f", all {np.sum(labels)} anomalous ones among them"
        if len(self.paths) < count:
            parts.append("the others count as normal throughout")
        if self.unmatched:
            count = len(self.unmatched)
            match = "1 mask belongs" if count == 1 else f"{count} masks belong"
            parts.append(f"{match} to none of these images, the first: {self.unmatched[0]}")
        return "; ".join(parts)

    def state(self, index: int) -> list[int]:
        """What tells whether an image's mask is still the same, see file_state."""
        return file_state(self.paths[index]) if index in self.paths else []

    def read(self, index: int) -> np.ndarray:
        """bool (h, w): where image `index`, or the centre that was cropped, is anomalous.

        At the mask's resolution; all False, at the image's, where there is no mask. Raises
        ImageError.
        """
        index = int(index)
        height, width = self.images.size(index)
        mask = read_mask(self.paths[index]) if index in self.paths else None
        if mask is None:
            mask = np.zeros((height, width), bool)
        if self.crop is None:
            return mask
        h, w = self.crop
        top, left = (height - h) // 2, (width - w) // 2
        down, across = mask.shape[0] / height, mask.shape[1] / width
        return mask[_scaled(top, top + h, down), _scaled(left, left + w, across)]


def _stem(name: str) -> str:
    """The name without its extension, in the one of its Unicode forms that is usual."""
    return unicodedata.normalize("NFC", os.path.splitext(name)[0])


def _mask_name(name: str) -> str:
    return f"{os.path.splitext(name)[0]}{SUFFIX}.png"


def _scaled(start: int, stop: int, scale: float) -> slice:
    start, stop = round(start * scale), round(stop * scale)
    return slice(start, max(stop, start + 1))
